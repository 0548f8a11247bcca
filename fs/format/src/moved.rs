//! Where frames lie that compaction moved: a record of the ledger for each pack that they were moved out of.
//!
//! Invariants
//! - A frame that was moved lies in the other pack as it lay in its own, byte for byte.
//! - Of several places of a frame the last counts: packs that frames are moved to have ascending numbers.

use crate::codec::{DecodeError, Reader, put_varint};
use crate::ids::PackNumber;
use crate::pack::{PACK_BYTES_MAX, PACK_HEADER_BYTES};

/// Frames of a pack that were moved, and what opens them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// What encrypts the pack's frames.
    pub suite: u8,
    /// What the pack's key is derived with.
    pub salt: [u8; 32],
    /// Where they lie, in order of the packs that they were moved to, of which each may have several: at least one.
    pub parts: Vec<MovedPart>,
}

/// Frames that lie in one pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedPart {
    /// The pack that they were moved to.
    pub pack: PackNumber,
    /// In the order in which they lay, and lie: at least one.
    pub runs: Vec<MovedRun>,
}

/// Frames that lay one behind the other, and lie so again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedRun {
    /// Where the first began in the pack that they were moved out of.
    pub from: u32,
    /// Their bytes.
    pub len: u32,
    /// Where the first begins in the pack that they were moved to: behind the run before.
    pub to: u32,
}

impl MovedRun {
    /// The byte behind the last in the pack that they were moved out of.
    fn end(&self) -> u32 {
        self.from + self.len
    }
}

impl MovedPart {
    /// A part without any frame yet, which is none until one is added.
    pub fn new(pack: PackNumber) -> Self {
        Self { pack, runs: Vec::new() }
    }

    /// Adds the next frame: it lay behind those that are here, and lies directly behind them.
    pub fn push(&mut self, from: u32, len: u32, to: u32) {
        match self.runs.last_mut() {
            Some(last) if last.end() == from => last.len += len,
            _ => self.runs.push(MovedRun { from, len, to }),
        }
    }

    /// Where a frame lies, if it is here.
    fn find(&self, offset: u32, len: u32) -> Option<u32> {
        let behind = self.runs.partition_point(|run| run.from <= offset);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        let skipped = offset - run.from;
        (u64::from(skipped) + u64::from(len) <= u64::from(run.len)).then(|| run.to + skipped)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.pack.0));
        put_varint(out, u64::from(self.runs.first().map_or(0, |run| run.to)));
        put_varint(out, self.runs.len() as u64);
        let mut end = PACK_HEADER_BYTES as u32;
        for run in &self.runs {
            put_varint(out, u64::from(run.from - end));
            put_varint(out, u64::from(run.len));
            end = run.end();
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let pack = PackNumber(reader.varint32()?);
        let mut to = reader.varint32()?;
        if (to as usize) < PACK_HEADER_BYTES {
            return Err(DecodeError::Invalid("place of what was moved"));
        }
        let count = reader.varint()?;
        // Each takes two bytes at least.
        if count > (reader.remaining() / 2) as u64 {
            return Err(DecodeError::TooLarge("number of runs"));
        }
        if count == 0 {
            return Err(DecodeError::Invalid("part without a run"));
        }
        let mut runs: Vec<MovedRun> = Vec::with_capacity(count as usize);
        let mut end = PACK_HEADER_BYTES as u32;
        for _ in 0..count {
            let (gap, len) = (reader.varint32()?, reader.varint32()?);
            // What touches is one run.
            if len == 0 || (gap == 0 && !runs.is_empty()) {
                return Err(DecodeError::Invalid("run"));
            }
            let lengths = u64::from(gap) + u64::from(len);
            if u64::from(end) + lengths > PACK_BYTES_MAX || u64::from(to) + u64::from(len) > PACK_BYTES_MAX {
                return Err(DecodeError::TooLarge("run"));
            }
            runs.push(MovedRun { from: end + gap, len, to });
            end += gap + len;
            to += len;
        }
        Ok(Self { pack, runs })
    }
}

impl Moved {
    /// The pack that a frame lies in now and where, if it was moved.
    pub fn find(&self, offset: u32, len: u32) -> Option<(PackNumber, u32)> {
        self.parts.iter().rev().find_map(|part| Some((part.pack, part.find(offset, len)?)))
    }

    /// How many runs it has in all.
    pub fn runs(&self) -> usize {
        self.parts.iter().map(|part| part.runs.len()).sum()
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.suite);
        out.extend_from_slice(&self.salt);
        put_varint(out, self.parts.len() as u64);
        self.parts.iter().for_each(|part| part.encode(out));
    }

    /// Reads a whole value.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (suite, salt) = (reader.u8()?, reader.array()?);
        let count = reader.varint()?;
        // Each takes five bytes at least.
        if count > (reader.remaining() / 5) as u64 {
            return Err(DecodeError::TooLarge("number of parts"));
        }
        if count == 0 {
            return Err(DecodeError::Invalid("number of parts"));
        }
        let mut parts: Vec<MovedPart> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let part = MovedPart::read(&mut reader)?;
            if parts.last().is_some_and(|last| last.pack > part.pack) {
                return Err(DecodeError::Invalid("order of parts"));
            }
            parts.push(part);
        }
        reader.finish()?;
        Ok(Self { suite, salt, parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved() -> Moved {
        let mut old = MovedPart::new(PackNumber(7));
        for (from, len, to) in [(64, 10, 100), (74, 20, 110), (200, 50, 130)] {
            old.push(from, len, to);
        }
        let mut new = MovedPart::new(PackNumber(9));
        new.push(74, 20, 64);
        Moved { suite: 2, salt: [3; 32], parts: vec![old, new] }
    }

    #[test]
    fn a_frame_is_found_where_it_was_moved_to_last() {
        let moved = moved();
        assert_eq!(moved.parts[0].runs.len(), 2, "what touches is one run");
        assert_eq!(moved.find(64, 10), Some((PackNumber(7), 100)));
        assert_eq!(moved.find(74, 20), Some((PackNumber(9), 64)));
        assert_eq!(moved.find(210, 40), Some((PackNumber(7), 140)));
        for (offset, len) in [(0, 10), (63, 2), (94, 1), (199, 10), (240, 11), (250, 1), (u32::MAX, u32::MAX)]
        {
            assert_eq!(moved.find(offset, len), None, "{len} at {offset}");
        }
    }

    #[test]
    fn what_was_moved_comes_back_and_others_are_refused() {
        let encoded = |moved: &Moved| {
            let mut bytes = Vec::new();
            moved.encode(&mut bytes);
            bytes
        };
        let bytes = encoded(&moved());
        assert_eq!(Moved::decode(&bytes), Ok(moved()));
        for len in 0..bytes.len() {
            assert!(Moved::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        let refused = |parts: Vec<MovedPart>| Moved::decode(&encoded(&Moved { parts, ..moved() }));
        let part = |pack, runs: &[(u32, u32, u32)]| MovedPart {
            pack: PackNumber(pack),
            runs: runs.iter().map(|&(from, len, to)| MovedRun { from, len, to }).collect(),
        };
        let max = PACK_BYTES_MAX as u32;
        assert_eq!(refused(vec![]), Err(DecodeError::Invalid("number of parts")));
        assert!(refused(vec![part(1, &[])]).is_err());
        assert_eq!(refused(vec![part(1, &[(64, 0, 64)])]), Err(DecodeError::Invalid("run")));
        assert_eq!(refused(vec![part(1, &[(64, 9, 64), (73, 9, 73)])]), Err(DecodeError::Invalid("run")));
        assert_eq!(refused(vec![part(1, &[(64, max, 64)])]), Err(DecodeError::TooLarge("run")));
        assert_eq!(refused(vec![part(1, &[(64, 100, max - 99)])]), Err(DecodeError::TooLarge("run")));
        assert_eq!(
            refused(vec![part(1, &[(64, 9, 63)])]),
            Err(DecodeError::Invalid("place of what was moved"))
        );
        let (one, two) = (part(1, &[(64, 9, 64)]), part(2, &[(64, 9, 64)]));
        assert!(refused(vec![one.clone(), two.clone()]).is_ok());
        assert!(refused(vec![one.clone(), one.clone()]).is_ok());
        assert_eq!(refused(vec![two, one]), Err(DecodeError::Invalid("order of parts")));
    }
}
