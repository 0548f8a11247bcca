//! Notes on their way.
//!
//! Each channel has a queue and a task of its own: one that takes long to answer, or never does, keeps nobody waiting but
//! itself. How many channels an account has is limited, and so are the notes that wait for one.

use std::collections::HashMap;

use orchestrator_api::text::Uuid;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};

use super::Note;
use crate::server::tenant::AccountId;

/// Notes that wait for one channel. It is asked for so long that what came after them would be of long ago.
const WAITING_MAX: usize = 50;

/// Channels that notes wait for, in memory of the scheduler.
#[derive(Debug, Default)]
pub struct Outbox(HashMap<(AccountId, Uuid), Sender<Note>>);

impl Outbox {
    /// Sends a note to a channel when those before it were sent. Whoever calls does not wait for that.
    pub fn put<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        to: (AccountId, Uuid),
        note: Note,
        send: impl Fn(Note) -> F + Send + 'static,
    ) {
        self.0.retain(|_, waiting| !waiting.is_closed());
        let mut note = note;
        if let Some(waiting) = self.0.get(&to) {
            match waiting.try_send(note) {
                Ok(()) => return,
                Err(TrySendError::Full(note)) => {
                    tracing::warn!(channel = %to.1, kind = note.kind, "a notification is not sent: too many wait for their channel");
                    return;
                }
                Err(TrySendError::Closed(back)) => note = back,
            }
        }
        let (waiting, mut notes) = channel(WAITING_MAX);
        // There is room: nothing is in it yet.
        let _ = waiting.try_send(note);
        self.0.insert(to, waiting);
        tokio::spawn(async move {
            while let Ok(note) = notes.try_recv() {
                send(note).await;
            }
            // From here on a note begins another task. What was put in until now is still sent.
            notes.close();
            while let Some(note) = notes.recv().await {
                send(note).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::time::timeout;

    use super::*;

    fn note(title: usize) -> Note {
        Note::new("test", title.to_string(), String::new())
    }

    #[tokio::test]
    async fn a_channel_that_never_answers_keeps_no_other_one_waiting() {
        let mut outbox = Outbox::default();
        let (arrived, mut hears) = unbounded_channel();
        let (slow, well) = (([1; 16], Uuid([1; 16])), ([1; 16], Uuid([2; 16])));
        for title in 0..2 * WAITING_MAX {
            outbox.put(slow, note(title), |_| std::future::pending());
        }
        for round in 0..3 {
            for title in 0..10 {
                let arrived = arrived.clone();
                outbox.put(well, note(10 * round + title), move |note| {
                    let arrived = arrived.clone();
                    async move {
                        tokio::task::yield_now().await;
                        arrived.send(note.title).expect("somebody listens");
                    }
                });
            }
            // In the order in which they came, also where the task before has ended.
            for title in 0..10 {
                let heard = timeout(Duration::from_secs(10), hears.recv()).await.expect("in time");
                assert_eq!(heard, Some((10 * round + title).to_string()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(outbox.0.len(), 2, "one queue a channel");
        outbox.put(slow, note(0), |_| std::future::pending());
        assert!(!outbox.0.contains_key(&well), "nothing is kept of a channel that nothing waits for");
    }
}
