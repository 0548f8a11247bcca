//! Text of apps on its way to a person: sealed from the hive, which only passes it on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use orchestrator_api::error::Code;
use orchestrator_api::ids::DeviceId;
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::people::Role;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::Shared;
use super::auth;
use super::call::{Answering, Body, Call, Reply};
use super::database::How;
use super::fail::Fail;
use super::tenant::AccountId;

const OPEN_MAX: usize = 16;
const OF_A_DEVICE_MAX: usize = 4;
const HELD_BYTES_MAX: usize = 4 << 20;
/// What nobody has read for so long is forgotten.
const UNREAD: Duration = Duration::from_secs(60);
/// So often a reader hears that the hive is there, and is looked at whether it still may read.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The streams that are open.
#[derive(Debug, Default)]
pub struct Streams {
    /// By account, too: an id that somebody else has is nobody's.
    open: Mutex<BTreeMap<(AccountId, Uuid), Stream>>,
}

#[derive(Debug)]
struct Stream {
    device: DeviceId,
    parts: VecDeque<(u64, Bytes)>,
    held: usize,
    next: u64,
    read_at: Instant,
    /// Part numbers that were sent are told here.
    told: watch::Sender<u64>,
    /// How what fed it ended.
    ended: Option<String>,
}

/// What a reader gets.
struct Taken {
    /// Parts that nobody read yet.
    parts: Vec<(u64, Bytes)>,
    /// How it ended, when there are no more.
    ended: Option<String>,
    /// Where more is told.
    told: watch::Receiver<u64>,
}

impl Streams {
    /// Forgets what nobody reads, and all that is kept of it.
    fn forget_unread(&self, now: Instant) {
        self.open.lock().retain(|_, stream| now.saturating_duration_since(stream.read_at) < UNREAD);
    }

    /// A person waits for what a device will send.
    pub fn open(&self, account: AccountId, id: Uuid, device: DeviceId) -> Result<(), Fail> {
        let mut open = self.open.lock();
        let mut devices: HashMap<DeviceId, usize> = HashMap::new();
        for (_, stream) in open.iter().filter(|((of, _), _)| *of == account) {
            *devices.entry(stream.device).or_default() += 1;
        }
        if let Some(stream) = open.get(&(account, id)) {
            return match stream.device == device {
                true => Ok(()),
                false => Err(Fail::new(Code::Exists, "a stream of that id is open already")),
            };
        }
        let many = devices.values().sum::<usize>() >= OPEN_MAX;
        if many || devices.get(&device).is_some_and(|count| *count >= OF_A_DEVICE_MAX) {
            return Err(Fail::slow_down(10_000));
        }
        let stream = Stream {
            device,
            parts: VecDeque::new(),
            held: 0,
            next: 0,
            read_at: Instant::now(),
            told: watch::channel(0).0,
            ended: None,
        };
        open.insert((account, id), stream);
        Ok(())
    }

    fn put(
        &self,
        account: AccountId,
        device: DeviceId,
        id: Uuid,
        part: u64,
        bytes: Bytes,
    ) -> Result<(), Fail> {
        let gone = || Fail::state("nobody listens any more");
        let mut open = self.open.lock();
        let Some(stream) = open.get_mut(&(account, id)) else { return Err(gone()) };
        if stream.device != device {
            return Err(gone());
        }
        if stream.read_at.elapsed() >= UNREAD || stream.ended.is_some() {
            return Err(gone());
        }
        if part < stream.next {
            return Ok(());
        }
        if part > stream.next {
            return Err(Fail::field("part", format!("part {} is still missing", stream.next)));
        }
        if stream.held + bytes.len() > HELD_BYTES_MAX {
            return Err(Fail::slow_down(1_000));
        }
        stream.next = part + 1;
        stream.held += bytes.len();
        stream.parts.push_back((part, bytes));
        stream.told.send_replace(part + 1);
        Ok(())
    }

    /// Takes what nobody read yet. Who takes the end of a stream is the last one who reads it: it is not open any more.
    fn take(&self, account: AccountId, id: Uuid) -> Option<Taken> {
        let mut open = self.open.lock();
        let stream = open.get_mut(&(account, id))?;
        stream.read_at = Instant::now();
        stream.held = 0;
        let parts = stream.parts.drain(..).collect();
        let taken = Taken { parts, ended: stream.ended.clone(), told: stream.told.subscribe() };
        if taken.ended.is_some() {
            open.remove(&(account, id));
        }
        Some(taken)
    }

    /// What fed a stream ended: nothing comes behind what is there.
    pub fn end(&self, account: AccountId, id: Uuid, code: &str) {
        if let Some(stream) = self.open.lock().get_mut(&(account, id)) {
            stream.ended = Some(code.to_owned());
            stream.told.send_modify(|_| {});
        }
    }
}

/// Forgets streams that nobody reads, as long as the hive serves: also where none is opened any more.
pub async fn forget_unread(shared: Arc<Shared>) {
    while !shared.is_closing() {
        tokio::time::sleep(LOOK_EVERY).await;
        shared.streams.forget_unread(Instant::now());
    }
}

/// `POST /v1/device/streams/{id}`.
pub fn send(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let (id, (device, _)): (Uuid, _) = (call.param(0)?, call.device()?);
        let part = call.number("part")?.ok_or_else(|| Fail::field("part", "a part has its number"))?;
        call.shared.streams.put(call.account()?, device, id, part, call.body.clone())?;
        Ok(Reply::none())
    })
}

fn no_stream() -> Fail {
    Fail::new(Code::NotFound, "this process of the hive has no such stream: nobody ordered it, or it is over")
        .hint("order it again; where several processes serve, all requests have to go to one of them")
}

/// `GET /v1/streams/{id}`.
pub fn receive(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let (account, id): (_, Uuid) = (call.account()?, call.param(0)?);
        let mut taken = call.shared.streams.take(account, id).ok_or_else(no_stream)?;
        let (shared, caller) = (call.shared.clone(), call.caller.clone());
        let (send, receive) = mpsc::channel::<Bytes>(16);
        tokio::spawn(async move {
            let mut looked = Instant::now();
            loop {
                // Whose login ended, or who may less now, reads no further.
                if looked.elapsed() >= LOOK_EVERY {
                    let who = caller.clone();
                    let found = shared.database.transact(How::Read, move |tx| auth::still(tx, &who)).await;
                    if found.is_ok_and(|role| role.is_none_or(|role| role < Role::Operator)) {
                        let _ = send.send(Bytes::from_static(b"event: end\ndata: not_logged_in\n\n")).await;
                        return;
                    }
                    looked = Instant::now();
                }
                for (number, bytes) in taken.parts.drain(..) {
                    let text = format!("event: part\nid: {number}\ndata: {}\n\n", STANDARD.encode(&bytes));
                    if send.send(text.into()).await.is_err() {
                        return;
                    }
                }
                if let Some(code) = taken.ended {
                    let _ = send.send(format!("event: end\ndata: {code}\n\n").into()).await;
                    return;
                }
                if shared.is_closing() {
                    return;
                }
                let waited = tokio::time::timeout(LOOK_EVERY, taken.told.changed()).await;
                if waited.is_err() && send.send(Bytes::from_static(b": here\n\n")).await.is_err() {
                    return;
                }
                match shared.streams.take(account, id) {
                    Some(more) => taken = more,
                    None => {
                        let _ = send.send(Bytes::from_static(b"event: end\ndata: late\n\n")).await;
                        return;
                    }
                }
            }
        });
        Ok(Reply { body: Body::Events(receive), ..Reply::none().status(200) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = [1; 16];
    const DEVICE: DeviceId = DeviceId([2; 16]);

    fn id(number: u8) -> Uuid {
        Uuid([number; 16])
    }

    fn is_open(streams: &Streams, number: u8) -> bool {
        streams.open(ACCOUNT, id(number), DEVICE).is_ok()
    }

    #[test]
    fn a_stream_whose_end_was_read_is_not_open_any_more() {
        let streams = Streams::default();
        for number in 0..4 {
            assert!(is_open(&streams, number));
            streams.end(ACCOUNT, id(number), "done");
        }
        assert!(!is_open(&streams, 4), "what ended may still be read");
        for number in 0..4 {
            let taken = streams.take(ACCOUNT, id(number)).expect("is there");
            assert_eq!(taken.ended.as_deref(), Some("done"));
            assert!(is_open(&streams, 10 + number));
        }
        assert!(streams.take(ACCOUNT, id(0)).is_none());
    }

    #[test]
    fn what_nobody_reads_is_forgotten_though_nobody_opens_another() {
        let (streams, begun) = (Streams::default(), Instant::now());
        assert!(is_open(&streams, 0));
        streams.put(ACCOUNT, DEVICE, id(0), 0, Bytes::from_static(b"text")).expect("is taken");
        streams.forget_unread(begun + UNREAD / 2);
        assert_eq!(streams.open.lock().len(), 1);
        streams.forget_unread(Instant::now() + UNREAD);
        assert!(streams.open.lock().is_empty());
    }
}
