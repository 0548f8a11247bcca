//! Fetching everything, in the background: nodes first, then what was written last.
//!
//! Invariant: who fills keeps out of the way. He asks for nothing while a reader waits, has few requests at once, and
//! leaves the disk the room that others need.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fs_format::manifest::PackEntry;
use fs_format::pack::{PACK_HEADER_BYTES, PackHeader, PackKind};
use tokio::task::JoinSet;

use super::Far;

/// Packs that are fetched at once.
const PACKS_MAX: usize = 4;
/// The longest pause before a pack is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often a full disk is looked at again.
const ROOM_EVERY: Duration = Duration::from_secs(10);

/// Whether there is room for so many more bytes on the disk, and for what else it is needed for.
pub type Room = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// What was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filled {
    /// Packs that are here now.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that the store does not have, or not whole, and why.
    pub missing: Vec<String>,
}

impl Far {
    /// Fetches packs until all of them are here that can be had. `entries` begin with the newest.
    ///
    /// A store that is away, and a disk without room, are waited for; dropping this ends it.
    pub async fn fill(&self, entries: Vec<PackEntry>, room: Room) -> Filled {
        let mut filled = Filled::default();
        let mut rest = Vec::new();
        let seals = entries.chunk_by(|one, other| one.birth == other.birth).map(<[PackEntry]>::to_vec);
        let mut under_way = JoinSet::new();
        for seal in seals {
            let (far, room) = (self.clone(), room.clone());
            make_room(&mut under_way, &mut filled, &mut rest).await;
            under_way.spawn(async move { far.fill_nodes(seal, &room).await });
        }
        while !under_way.is_empty() {
            take_one(&mut under_way, &mut filled, &mut rest).await;
        }
        // The order in which they were asked about is not that in which the answers came.
        rest.sort_by_key(|entry| std::cmp::Reverse(entry.birth));
        for entry in std::mem::take(&mut rest) {
            let (far, room) = (self.clone(), room.clone());
            make_room(&mut under_way, &mut filled, &mut rest).await;
            under_way.spawn(async move {
                let mut filled = Filled::default();
                far.fill_pack(&entry, &room, &mut filled).await;
                (filled, Vec::new())
            });
        }
        while !under_way.is_empty() {
            take_one(&mut under_way, &mut filled, &mut rest).await;
        }
        filled
    }

    /// Fetches the packs of nodes of one seal, which it wrote last; returns the others, too.
    async fn fill_nodes(&self, seal: Vec<PackEntry>, room: &Room) -> (Filled, Vec<PackEntry>) {
        let mut filled = Filled::default();
        let mut entries = seal.into_iter();
        while let Some(entry) = entries.next() {
            match self.kind(&entry).await {
                Ok(Some(PackKind::Meta)) => self.fill_pack(&entry, room, &mut filled).await,
                // Chunks; or it is here, or cannot be had now, and its turn comes.
                _ => return (filled, std::iter::once(entry).chain(entries).collect()),
            }
        }
        (filled, Vec::new())
    }

    /// What a pack holds; `None` if it is here.
    async fn kind(&self, entry: &PackEntry) -> io::Result<Option<PackKind>> {
        let (far, entry) = (self.clone(), *entry);
        let read = move || {
            if far.is_here(&entry) {
                return Ok(None);
            }
            let mut header = [0; PACK_HEADER_BYTES];
            let pack = far.pack(&entry.object);
            pack.will_read(0..PACK_HEADER_BYTES as u64, Some(entry.bytes.into()));
            pack.read_at(&mut header, 0)?;
            let header = PackHeader::decode(&header).map_err(io::Error::other)?;
            Ok(Some(header.kind))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    fn is_here(&self, entry: &PackEntry) -> bool {
        self.line.folder.join("packs").join(entry.object.to_hex()).exists()
    }

    /// Fetches a pack, however long that takes.
    async fn fill_pack(&self, entry: &PackEntry, room: &Room, filled: &mut Filled) {
        if self.is_here(entry) {
            return;
        }
        let bytes = u64::from(entry.bytes);
        let mut pause = Duration::from_secs(1);
        loop {
            while !room(bytes) {
                tokio::time::sleep(ROOM_EVERY).await;
            }
            let error = match self.pack(&entry.object).fetch_all(bytes).await {
                Ok(()) => {
                    filled.packs += 1;
                    filled.bytes += bytes;
                    return;
                }
                Err(error) => error,
            };
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) {
                tracing::warn!(pack = %entry.object, %error, "a pack cannot be had");
                filled.missing.push(format!("pack {}: {error}", entry.object));
                return;
            }
            tracing::debug!(pack = %entry.object, %error, "trying again");
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }
}

type UnderWay = JoinSet<(Filled, Vec<PackEntry>)>;

/// Waits until one more may be begun.
async fn make_room(under_way: &mut UnderWay, filled: &mut Filled, rest: &mut Vec<PackEntry>) {
    while under_way.len() >= PACKS_MAX {
        take_one(under_way, filled, rest).await;
    }
}

/// Waits for one and adds what it says.
async fn take_one(under_way: &mut UnderWay, filled: &mut Filled, rest: &mut Vec<PackEntry>) {
    match under_way.join_next().await {
        Some(Ok((one, left))) => {
            filled.packs += one.packs;
            filled.bytes += one.bytes;
            filled.missing.extend(one.missing);
            rest.extend(left);
        }
        Some(Err(error)) => tracing::error!(%error, "fetching packs has ended"),
        None => {}
    }
}
