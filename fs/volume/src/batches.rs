//! A file's data in the order in which they lie in packs.
//!
//! Who copies a file may write its bytes in any order. So each pack is read once, from its first byte that is wanted to its
//! last, however small changes have scattered the file over packs. In the file's own order each of them would be asked for a
//! little again and again.

use std::ops::{ControlFlow, Range};

use fs_format::Ino;
use fs_format::tree::ChunkRef;

use crate::FsError;
use crate::history::{View, settle};
use crate::layers::{self, Piece};

/// The most bytes of a file in one batch, unless one chunk has more: what one thread takes at a time.
const BATCH_BYTES: u64 = 4 << 20;

/// Pieces of a file that lie together in a pack.
#[derive(Debug, Default)]
pub struct Batch {
    /// The pieces with where they begin and end in the file, in the order of the pack.
    pieces: Vec<(u64, u64, Piece)>,
    bytes: u64,
}

impl Batch {
    /// How many bytes of the file it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The part of the file in which it lies; others may lie there, too.
    pub fn span(&self) -> Range<u64> {
        let start = self.pieces.iter().map(|(from, _, _)| *from).min().unwrap_or(0);
        start..self.pieces.iter().map(|(_, to, _)| *to).max().unwrap_or(0)
    }

    fn add(&mut self, piece: (u64, u64, Piece)) {
        self.bytes += piece.1 - piece.0;
        self.pieces.push(piece);
    }
}

/// The chunk in which a piece lies, if it is in a pack.
fn chunk(piece: &Piece) -> Option<&ChunkRef> {
    match piece {
        Piece::Chunk(chunk) => Some(chunk),
        Piece::Bytes(_) | Piece::Zero | Piece::Journal(_) => None,
    }
}

impl View {
    /// The data of a range of a file. Holes, and what lies behind the file's end, are in no batch; every other byte is in one.
    pub fn batches(&self, ino: Ino, range: Range<u64>) -> Result<Vec<Batch>, FsError> {
        let mut pieces = self.read_kept(|layers| settle(layers.plan_ahead(ino, range.start, range.end)))?;
        pieces.retain(|(_, _, piece)| !matches!(piece, Piece::Zero));
        let place = |piece: &Piece| chunk(piece).map(|chunk| (chunk.location.pack, chunk.location.offset));
        pieces.sort_by_key(|(_, _, piece)| place(piece));
        let mut batches: Vec<Batch> = Vec::new();
        let mut last = None;
        for piece in pieces {
            let pack = place(&piece.2).map(|(pack, _)| pack);
            match batches.last_mut() {
                Some(batch) if last == pack && batch.bytes < BATCH_BYTES => batch.add(piece),
                _ => {
                    let mut batch = Batch::default();
                    batch.add(piece);
                    batches.push(batch);
                }
            }
            last = pack;
        }
        Ok(batches)
    }

    /// Says that a batch will be read soon. Waits for nothing.
    pub fn will_read(&self, batch: &Batch) {
        self.store().will_read(batch.pieces.iter().filter_map(|(_, _, piece)| chunk(piece)));
    }

    /// Hands a batch's bytes to `take`, piece by piece, with where each belongs in the file; ends early if that breaks.
    pub fn read_batch(
        &self,
        ino: Ino,
        batch: &Batch,
        take: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), FsError> {
        let mut flow = ControlFlow::Continue(());
        for piece in &batch.pieces {
            let &(from, to, _) = piece;
            let mut hand_on = |bytes: &[u8]| flow = take(from, bytes);
            let plan = std::slice::from_ref(piece);
            let len = (to - from) as usize;
            let read =
                self.read_kept(|_| layers::fetch_with(self.store(), None, plan, from, len, &mut hand_on));
            read.inspect_err(|error| self.note_unreadable(ino, error))?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}
