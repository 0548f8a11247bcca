//! A run of the index that finds chunks again.
//!
//! A cache that one machine keeps for itself; `fs/docs/format.md` says what it is believed for.

use crate::codec::{DecodeError, Reader};
use crate::ids::{ChunkId, PackId};

/// The newest version of a run.
pub const RUN_VERSION: u16 = 1;
/// The bytes of a run's header before the stretches.
pub const RUN_HEADER_BYTES: usize = 32;
/// The bytes of a stretch of packs.
pub const STRETCH_BYTES: usize = 16;
/// The most stretches that a run may name.
pub const STRETCHES_MAX: usize = 1024;
/// The bytes of an entry.
pub const ENTRY_BYTES: usize = 12;
/// The bytes behind the entries: BLAKE3 of all before.
pub const RUN_HASH_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"COMBRUNS";

/// Packs with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The number of the first.
    pub first: u32,
    /// The number behind the last.
    pub end: u32,
    /// The first bytes of the last one's id: with another pack there, the run is of another past.
    pub witness: [u8; 8],
}

impl Stretch {
    /// What a pack is recognized by.
    pub fn witness_of(object: &PackId) -> [u8; 8] {
        *object.0.first_chunk().expect("an id is longer")
    }
}

/// What a run says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHeader {
    /// The pseudonym of the key that names the chunks.
    pub domain: [u8; 16],
    /// The packs whose chunks are in the run.
    pub stretches: Vec<Stretch>,
}

impl RunHeader {
    /// The bytes of a header with so many stretches.
    pub fn bytes_of(stretches: usize) -> usize {
        RUN_HEADER_BYTES + stretches * STRETCH_BYTES
    }

    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::bytes_of(self.stretches.len()));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&RUN_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.stretches.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.domain);
        for stretch in &self.stretches {
            out.extend_from_slice(&stretch.first.to_le_bytes());
            out.extend_from_slice(&stretch.end.to_le_bytes());
            out.extend_from_slice(&stretch.witness);
        }
        out
    }

    /// How many stretches follow these first bytes of a header.
    pub fn stretches_of(bytes: &[u8; RUN_HEADER_BYTES]) -> Result<usize, DecodeError> {
        Ok(Self::start(bytes)?.0)
    }

    fn start(bytes: &[u8; RUN_HEADER_BYTES]) -> Result<(usize, [u8; 16]), DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.take(8)? != MAGIC {
            return Err(DecodeError::Foreign("run of the index of chunks"));
        }
        let version = reader.u16()?;
        if version > RUN_VERSION {
            return Err(DecodeError::Newer { found: version.into(), supported: RUN_VERSION.into() });
        }
        if version == 0 {
            return Err(DecodeError::Invalid("version"));
        }
        if reader.u16()? != 0 {
            return Err(DecodeError::Invalid("reserved bytes"));
        }
        let count = reader.u32()? as usize;
        if count > STRETCHES_MAX {
            return Err(DecodeError::TooLarge("number of stretches"));
        }
        Ok((count, reader.array()?))
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some((start, rest)) = bytes.split_first_chunk() else { return Err(DecodeError::Truncated) };
        let (count, domain) = Self::start(start)?;
        let mut reader = Reader::new(rest);
        if reader.remaining() < count * STRETCH_BYTES {
            return Err(DecodeError::Truncated);
        }
        let mut stretches = Vec::with_capacity(count);
        let mut end = 0;
        for index in 0..count {
            let stretch = Stretch { first: reader.u32()?, end: reader.u32()?, witness: reader.array()? };
            // Two that touch would be one.
            let is_apart = index == 0 || stretch.first > end;
            if !is_apart || stretch.end <= stretch.first {
                return Err(DecodeError::Invalid("stretch"));
            }
            end = stretch.end;
            stretches.push(stretch);
        }
        reader.finish()?;
        Ok(Self { domain, stretches })
    }
}

/// Where a chunk may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The first bytes of the chunk's id.
    pub start: u64,
    /// The pack's number.
    pub pack: u32,
}

impl Entry {
    /// What a chunk is looked for by.
    pub fn start_of(chunk: &ChunkId) -> u64 {
        u64::from_le_bytes(*chunk.0.first_chunk().expect("an id is longer"))
    }

    /// The entry's bytes.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..8].copy_from_slice(&self.start.to_le_bytes());
        out[8..].copy_from_slice(&self.pack.to_le_bytes());
        out
    }

    /// Reads what `encode` wrote; anything may be an entry.
    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let (start, pack) = bytes.split_at(8);
        Self {
            start: u64::from_le_bytes(start.try_into().expect("eight of twelve bytes")),
            pack: u32::from_le_bytes(pack.try_into().expect("the other four")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RunHeader {
        let stretch = |first, end| Stretch { first, end, witness: [first as u8; 8] };
        RunHeader { domain: [7; 16], stretches: vec![stretch(0, 3), stretch(5, 6), stretch(9, u32::MAX)] }
    }

    #[test]
    fn a_header_comes_back_and_every_cut_is_refused() {
        for header in [header(), RunHeader { domain: [1; 16], stretches: Vec::new() }] {
            let bytes = header.encode();
            assert_eq!(bytes.len(), RunHeader::bytes_of(header.stretches.len()));
            assert_eq!(RunHeader::decode(&bytes), Ok(header));
            for len in 0..bytes.len() {
                assert!(RunHeader::decode(&bytes[..len]).is_err(), "cut at {len}");
            }
        }
    }

    #[test]
    fn what_no_writer_makes_is_refused() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = header().encode();
            bytes[at] = byte;
            RunHeader::decode(&bytes).map(drop)
        };
        assert_eq!(changed(0, b'X'), Err(DecodeError::Foreign("run of the index of chunks")));
        assert_eq!(changed(8, 2), Err(DecodeError::Newer { found: 2, supported: 1 }));
        assert_eq!(changed(8, 0), Err(DecodeError::Invalid("version")));
        assert_eq!(changed(10, 1), Err(DecodeError::Invalid("reserved bytes")));
        assert_eq!(changed(14, 1), Err(DecodeError::TooLarge("number of stretches")));
        assert_eq!(changed(12, 4), Err(DecodeError::Truncated));
        assert_eq!(changed(12, 2), Err(DecodeError::Trailing));
        // Empty; one that touches the one before.
        assert_eq!(changed(32 + 4, 0), Err(DecodeError::Invalid("stretch")));
        assert_eq!(changed(48, 3), Err(DecodeError::Invalid("stretch")));
    }

    #[test]
    fn an_entry_comes_back() {
        let entry = Entry { start: 0x0102_0304_0506_0708, pack: 0xa1b2_c3d4 };
        assert_eq!(Entry::decode(&entry.encode()), entry);
        assert_eq!(Entry::start_of(&ChunkId([1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9])), 1);
    }
}
