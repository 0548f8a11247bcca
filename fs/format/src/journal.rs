//! The journal: segments of encrypted frames that carry a stream of records.

use crate::codec::{DecodeError, Reader, put_varint};
use crate::ids::Ino;
use crate::inode::Inode;
use crate::tree::{CHUNK_BYTES_MAX, ChunkRef, Extent, FILE_BYTES_MAX, Key, VALUE_BYTES_MAX};

/// The newest version of the journal format.
pub const JOURNAL_VERSION: u16 = 1;
/// What every frame begins at a multiple of: the unit that disks write whole.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes of a segment's header; its frames begin behind it.
pub const SEGMENT_HEADER_BYTES: u64 = SECTOR_BYTES;
/// Bytes of a segment's header that its tag is over.
pub const SEGMENT_TAGGED_BYTES: usize = 112;
/// Where in a segment's header the tag lies that proves the key (16 bytes).
pub const SEGMENT_TAG_AT: usize = 144;
/// Bytes of a frame's clear header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Bytes of a frame's tag.
pub const FRAME_TAG_BYTES: usize = 16;
/// The most plain bytes in a frame.
pub const JOURNAL_FRAME_BYTES_MAX: usize = 64 << 10;
/// The largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// The largest segment, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
const SEGMENT_MAGIC: &[u8; 8] = b"COMBJRNL";
const FRAME_MAGIC: u32 = 0x4d52_464a;

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What encrypts its frames.
    pub suite: u8,
    /// Its length in sectors, header included: a shorter file was cut.
    pub sectors: u32,
    /// Which journal it belongs to.
    pub journal: [u8; 16],
    /// Its place in the journal; ascends as long as the folder holds a segment.
    pub number: u64,
    /// The position of its first plain byte: where its predecessor ends.
    pub start: u64,
    /// Makes its key unique.
    pub salt: [u8; 32],
    /// The salt of its predecessor; zeros for the first.
    pub predecessor: [u8; 32],
}

impl SegmentHeader {
    /// The header's sector. Whoever has the key adds the tag at [`SEGMENT_TAG_AT`].
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut out = [0; SEGMENT_HEADER_BYTES as usize];
        out[..8].copy_from_slice(SEGMENT_MAGIC);
        out[8..10].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
        out[10] = self.suite;
        out[12..16].copy_from_slice(&self.sectors.to_le_bytes());
        out[16..32].copy_from_slice(&self.journal);
        out[32..40].copy_from_slice(&self.number.to_le_bytes());
        out[40..48].copy_from_slice(&self.start.to_le_bytes());
        out[48..80].copy_from_slice(&self.salt);
        out[80..112].copy_from_slice(&self.predecessor);
        let check = blake3::hash(&out[..112]);
        out[112..144].copy_from_slice(check.as_bytes());
        out
    }

    /// Reads what `encode` wrote; `None` for a sector of zeros.
    pub fn decode(sector: &[u8]) -> Result<Option<Self>, DecodeError> {
        if sector.len() < SEGMENT_HEADER_BYTES as usize {
            return Err(DecodeError::Truncated);
        }
        if sector.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sector = &sector[..SEGMENT_HEADER_BYTES as usize];
        let mut reader = Reader::new(sector);
        if reader.take(8)? != SEGMENT_MAGIC {
            return Err(DecodeError::Foreign("journal segment"));
        }
        let version = reader.u16()?;
        if blake3::hash(&sector[..112]).as_bytes()[..] != sector[112..144] {
            return Err(DecodeError::Damaged("segment header"));
        }
        if version > JOURNAL_VERSION {
            return Err(DecodeError::Newer { found: version.into(), supported: JOURNAL_VERSION.into() });
        }
        if version == 0 {
            return Err(DecodeError::Invalid("version"));
        }
        let suite = reader.u8()?;
        let behind_tag = &sector[SEGMENT_TAG_AT + FRAME_TAG_BYTES..];
        if reader.u8()? != 0 || behind_tag.iter().any(|&byte| byte != 0) {
            return Err(DecodeError::Invalid("reserved bytes"));
        }
        let sectors = reader.u32()?;
        if u64::from(sectors) * SECTOR_BYTES > SEGMENT_BYTES_MAX {
            return Err(DecodeError::TooLarge("journal segment"));
        }
        Ok(Some(Self {
            suite,
            sectors,
            journal: reader.array()?,
            number: reader.u64()?,
            start: reader.u64()?,
            salt: reader.array()?,
            predecessor: reader.array()?,
        }))
    }
}

/// A frame's clear header; associated data of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Plain bytes.
    pub len: u32,
    /// Its number in the segment; the nonce.
    pub number: u32,
    /// The position of its first plain byte in the journal.
    pub position: u64,
    /// Everything before this position was durable when the frame was written.
    pub durable: u64,
}

impl FrameHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..12].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.position.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable.to_le_bytes());
        out
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != FRAME_MAGIC {
            return Err(DecodeError::Foreign("journal frame"));
        }
        let (len, number) = (reader.u32()?, reader.u32()?);
        if reader.u32()? != 0 || len == 0 || len as usize > JOURNAL_FRAME_BYTES_MAX {
            return Err(DecodeError::Invalid("frame header"));
        }
        Ok(Self { len, number, position: reader.u64()?, durable: reader.u64()? })
    }

    /// Bytes that the frame takes in its segment, up to the next sector.
    pub fn stored_bytes(len: usize) -> u64 {
        ((FRAME_HEADER_BYTES + len + FRAME_TAG_BYTES) as u64).next_multiple_of(SECTOR_BYTES)
    }
}

/// Where a dirty run of a file's bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In the journal from this position.
    Journal(u64),
    /// Nowhere: it reads as zeros.
    Zero,
    /// In a chunk.
    Chunk(ChunkRef),
}

/// One change of the tree; a record is a list of them that happens as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An inode record is new or other than before.
    PutInode(Ino, Inode),
    /// An inode and all its bytes and attributes are gone.
    DropInode(Ino),
    /// Another record is new or other than before.
    Put(Key, Box<[u8]>),
    /// Another record is gone.
    Drop(Key),
    /// The file's bytes from `offset` are these; `u64::MAX` as length means: to the end of all files.
    Fill {
        /// The file.
        ino: Ino,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Where they are.
        source: Source,
    },
    /// The file's bytes from `offset` are the last `len` bytes of this record.
    Write {
        /// The file.
        ino: Ino,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
}

/// What stands before the changes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Inodes behind this record.
    pub files: u64,
    /// Sum of the lengths of regular files behind this record.
    pub bytes: u64,
}

/// Appends a record without its data, which the caller appends right behind.
///
/// `data_len` is the length of that data: it must be what a last `Change::Write` says, or 0.
pub fn encode_record(totals: &Totals, changes: &[Change], data_len: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    put_varint(out, totals.files);
    put_varint(out, totals.bytes);
    put_varint(out, changes.len() as u64);
    for change in changes {
        encode_change(change, out);
    }
    let len = (out.len() - start - 4 + data_len) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn encode_change(change: &Change, out: &mut Vec<u8>) {
    match change {
        Change::PutInode(ino, inode) => {
            out.push(1);
            put_varint(out, ino.0);
            inode.encode(out);
        }
        Change::DropInode(ino) => {
            out.push(2);
            put_varint(out, ino.0);
        }
        Change::Put(key, value) => {
            out.push(3);
            key.encode(out);
            put_varint(out, value.len() as u64);
            out.extend_from_slice(value);
        }
        Change::Drop(key) => {
            out.push(4);
            key.encode(out);
        }
        Change::Fill { ino, offset, len, source } => {
            out.push(5);
            put_varint(out, ino.0);
            put_varint(out, *offset);
            put_varint(out, *len);
            match source {
                Source::Zero => out.push(0),
                Source::Journal(position) => {
                    out.push(1);
                    put_varint(out, *position);
                }
                Source::Chunk(chunk) => {
                    out.push(2);
                    Extent { len: 1, chunk: *chunk }.encode(out);
                }
            }
        }
        Change::Write { ino, offset, len } => {
            out.push(6);
            put_varint(out, ino.0);
            put_varint(out, *offset);
            put_varint(out, u64::from(*len));
        }
    }
}

/// Reads a record's payload (without its length): totals, changes, and the length of its data.
pub fn decode_record(payload: &[u8]) -> Result<(Totals, Vec<Change>, usize), DecodeError> {
    let mut reader = Reader::new(payload);
    let totals = Totals { files: reader.varint()?, bytes: reader.varint()? };
    let count = reader.varint()?;
    if count > (payload.len() / 2) as u64 {
        return Err(DecodeError::TooLarge("number of changes"));
    }
    let mut changes = Vec::with_capacity(count as usize);
    let mut data = 0usize;
    for _ in 0..count {
        if data != 0 {
            return Err(DecodeError::Invalid("change behind a write"));
        }
        let change = decode_change(&mut reader)?;
        if let Change::Write { len, .. } = change {
            data = len as usize;
        }
        changes.push(change);
    }
    if reader.remaining() != data {
        return Err(DecodeError::Invalid("length of data"));
    }
    Ok((totals, changes, data))
}

fn decode_change(reader: &mut Reader<'_>) -> Result<Change, DecodeError> {
    let kind = reader.u8()?;
    let ino = |reader: &mut Reader<'_>| -> Result<Ino, DecodeError> {
        let ino = Ino(reader.varint()?);
        if ino > Ino::MAX { Err(DecodeError::TooLarge("inode number")) } else { Ok(ino) }
    };
    Ok(match kind {
        1 => Change::PutInode(ino(reader)?, Inode::decode(reader)?),
        2 => Change::DropInode(ino(reader)?),
        3 => Change::Put(Key::decode(reader)?, reader.bytes(VALUE_BYTES_MAX, "record")?.into()),
        4 => Change::Drop(Key::decode(reader)?),
        5 => {
            let (ino, offset, len) = (ino(reader)?, reader.varint()?, reader.varint()?);
            if offset > FILE_BYTES_MAX || (len != u64::MAX && len > FILE_BYTES_MAX - offset) {
                return Err(DecodeError::TooLarge("range"));
            }
            let source = match reader.u8()? {
                0 => Source::Zero,
                1 => Source::Journal(reader.varint()?),
                2 => match Extent::read(reader)? {
                    Extent { len: 1, chunk } => Source::Chunk(chunk),
                    _ => return Err(DecodeError::Invalid("length of a source")),
                },
                _ => return Err(DecodeError::Invalid("source")),
            };
            // Replay adds the offset in the range to where its bytes are.
            let fits = match source {
                Source::Zero => true,
                Source::Journal(position) => position.checked_add(len).is_some(),
                Source::Chunk(chunk) => len <= (CHUNK_BYTES_MAX as u64).saturating_sub(chunk.skip.into()),
            };
            if !fits {
                return Err(DecodeError::TooLarge("range"));
            }
            Change::Fill { ino, offset, len, source }
        }
        6 => {
            let (ino, offset, len) = (ino(reader)?, reader.varint()?, reader.varint32()?);
            if len == 0 || offset > FILE_BYTES_MAX - u64::from(len) {
                return Err(DecodeError::TooLarge("range"));
            }
            Change::Write { ino, offset, len }
        }
        _ => return Err(DecodeError::Invalid("kind of change")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChunkId, PackNumber, Timestamp};
    use crate::inode::FileKind;
    use crate::tree::{Location, RecordKind};

    #[test]
    fn a_record_with_data_comes_back() {
        let inode = Inode {
            kind: FileKind::File,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            nlink: 1,
            size: 3,
            allocated: 0,
            rdev: 0,
            atime: Timestamp(9),
            mtime: Timestamp(i64::MAX),
            ctime: Timestamp(i64::MIN),
            btime: Timestamp(0),
            parent: Ino(1),
            home: 1 << 60,
        };
        let changes = vec![
            Change::PutInode(Ino(20), inode),
            Change::Put(Key::new(Ino(1), RecordKind::Dirent, 512), b"value".as_slice().into()),
            Change::Drop(Key::orphan(Ino(4))),
            Change::Fill { ino: Ino(20), offset: 9, len: u64::MAX, source: Source::Zero },
            Change::Write { ino: Ino(20), offset: 0, len: 3 },
        ];
        let mut bytes = Vec::new();
        encode_record(&Totals { files: 2, bytes: 3 }, &changes, 3, &mut bytes);
        bytes.extend_from_slice(b"abc");
        assert_eq!(u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize, bytes.len() - 4);
        let decoded = decode_record(&bytes[4..]).expect("what was just encoded");
        assert_eq!(decoded, (Totals { files: 2, bytes: 3 }, changes, 3));
        for len in 4..bytes.len() {
            assert!(decode_record(&bytes[4..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_fill_beyond_its_source_is_refused() {
        let location = Location { pack: PackNumber(0), offset: 64, len: 100 };
        let chunk = Source::Chunk(ChunkRef { chunk: ChunkId([7; 16]), location, skip: 4096 });
        let decoded = |len, source| {
            let mut bytes = Vec::new();
            let fill = Change::Fill { ino: Ino(20), offset: 0, len, source };
            encode_record(&Totals::default(), &[fill], 0, &mut bytes);
            decode_record(&bytes[4..]).map(drop)
        };
        let rest = CHUNK_BYTES_MAX as u64 - 4096;
        assert_eq!(decoded(rest, chunk), Ok(()));
        assert_eq!(decoded(rest + 1, chunk), Err(DecodeError::TooLarge("range")));
        assert_eq!(decoded(u64::MAX, chunk), Err(DecodeError::TooLarge("range")));
        assert_eq!(decoded(9, Source::Journal(u64::MAX - 9)), Ok(()));
        assert_eq!(decoded(10, Source::Journal(u64::MAX - 9)), Err(DecodeError::TooLarge("range")));
    }

    #[test]
    fn a_segment_header_that_no_writer_makes_is_refused_also_with_a_hash_that_matches() {
        let header = SegmentHeader {
            suite: 2,
            sectors: 128,
            journal: [1; 16],
            number: 5,
            start: 77,
            salt: [2; 32],
            predecessor: [3; 32],
        };
        let with = |at: usize, byte: u8| {
            let mut sector = header.encode();
            sector[at] = byte;
            let check = blake3::hash(&sector[..112]);
            sector[112..144].copy_from_slice(check.as_bytes());
            SegmentHeader::decode(&sector)
        };
        assert_eq!(with(8, 0), Err(DecodeError::Invalid("version")));
        assert_eq!(with(8, 2), Err(DecodeError::Newer { found: 2, supported: 1 }));
        assert_eq!(with(11, 1), Err(DecodeError::Invalid("reserved bytes")));
        assert_eq!(with(15, 1), Err(DecodeError::TooLarge("journal segment")));
    }

    #[test]
    fn a_segment_header_with_a_flipped_bit_is_refused() {
        let header = SegmentHeader {
            suite: 2,
            sectors: 128,
            journal: [1; 16],
            number: 5,
            start: 77,
            salt: [2; 32],
            predecessor: [3; 32],
        };
        let sector = header.encode();
        assert_eq!(SegmentHeader::decode(&sector), Ok(Some(header)));
        assert_eq!(SegmentHeader::decode(&[0; 512]), Ok(None));
        for bit in 0..sector.len() * 8 {
            let mut flipped = sector;
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The tag is checked by whoever has the key.
            let in_tag = (SEGMENT_TAG_AT..SEGMENT_TAG_AT + FRAME_TAG_BYTES).contains(&(bit / 8));
            assert_eq!(SegmentHeader::decode(&flipped).is_ok(), in_tag, "bit {bit}");
        }
    }
}
