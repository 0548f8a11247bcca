//! Packs of the seal that is being made: whoever sends seals away need not wait for its end.

use std::sync::OnceLock;

use fs_format::{PackId, Seq};
use parking_lot::Mutex;

/// Somebody is told each time there are so many more: a seal of less is sent when it is made.
const TELL_EVERY: usize = 4;

type Tell = dyn Fn() + Send + Sync;

/// What the running seal has made durable, while no manifest names it.
#[derive(Default)]
pub struct Early {
    written: Mutex<Written>,
    tell: OnceLock<Box<Tell>>,
}

#[derive(Default)]
struct Written {
    seq: Seq,
    packs: Vec<Pack>,
}

struct Pack {
    object: PackId,
    bytes: u64,
    /// Where it lies until it gets its name.
    path: String,
}

impl Early {
    /// Calls `tell` when there is more, on the thread that seals. The first who asks is told.
    pub fn on_more(&self, tell: Box<Tell>) -> bool {
        self.tell.set(tell).is_ok()
    }

    pub fn add(&self, seq: Seq, object: PackId, bytes: u64, path: String) {
        let mut written = self.written.lock();
        written.seq = seq;
        written.packs.push(Pack { object, bytes, path });
        let is_time = written.packs.len().is_multiple_of(TELL_EVERY);
        drop(written);
        if let (true, Some(tell)) = (is_time, self.tell.get()) {
            tell();
        }
    }

    /// The seal has ended, well or not.
    pub fn clear(&self) {
        self.written.lock().packs.clear();
    }

    /// The seq that the seal will have, if it comes to be, and its packs so far with their bytes.
    pub fn packs(&self) -> Option<(Seq, Vec<(PackId, u64)>)> {
        let written = self.written.lock();
        let packs = || written.packs.iter().map(|pack| (pack.object, pack.bytes)).collect();
        (!written.packs.is_empty()).then(|| (written.seq, packs()))
    }

    /// Where a pack lies that may have no name yet.
    pub fn path(&self, object: &PackId) -> Option<String> {
        let written = self.written.lock();
        written.packs.iter().find(|pack| pack.object == *object).map(|pack| pack.path.clone())
    }
}
