//! Packs: immutable objects of encrypted frames.

use crate::codec::{DecodeError, Reader, put_varint};
use crate::ids::{ChunkId, NodeId};

/// The newest version of the pack format.
pub const PACK_VERSION: u16 = 1;
/// The header's bytes.
pub const PACK_HEADER_BYTES: usize = 64;
/// The trailer's bytes, tag included.
pub const PACK_TRAILER_BYTES: usize = 32;
/// The largest pack; offsets in it are 32 bits.
pub const PACK_BYTES_MAX: u64 = 96 << 20;
/// The most frames that a directory may list.
pub const PACK_FRAMES_MAX: usize = 1 << 20;
const MAGIC: &[u8; 8] = b"COMBPACK";

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PackKind {
    /// Chunks of files.
    Data = 1,
    /// Nodes of the tree and pages of the pack table.
    Meta = 2,
    /// Frames of packs of chunks that compaction moved; each is opened as what it was there.
    Moved = 3,
}

/// The part of a pack that anyone can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHeader {
    /// What encrypts the frames (`fs/crypto` knows the numbers).
    pub suite: u8,
    /// What it holds.
    pub kind: PackKind,
    /// Makes this pack's key unique.
    pub salt: [u8; 32],
    /// The pseudonym of the key that the pack's key is derived from.
    pub domain: [u8; 16],
}

impl PackHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; PACK_HEADER_BYTES] {
        let mut out = [0; PACK_HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&PACK_VERSION.to_le_bytes());
        out[10] = self.suite;
        out[11] = self.kind as u8;
        out[16..48].copy_from_slice(&self.salt);
        out[48..64].copy_from_slice(&self.domain);
        out
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.take(8)? != MAGIC {
            return Err(DecodeError::Foreign("pack"));
        }
        let version = reader.u16()?;
        if version > PACK_VERSION {
            return Err(DecodeError::Newer { found: version.into(), supported: PACK_VERSION.into() });
        }
        if version == 0 {
            return Err(DecodeError::Invalid("version"));
        }
        let suite = reader.u8()?;
        let kind = match reader.u8()? {
            1 => PackKind::Data,
            2 => PackKind::Meta,
            3 => PackKind::Moved,
            _ => return Err(DecodeError::Invalid("pack kind")),
        };
        if reader.u32()? != 0 {
            return Err(DecodeError::Invalid("reserved bytes"));
        }
        Ok(Self { suite, kind, salt: reader.array()?, domain: reader.array()? })
    }
}

/// What a frame is; part of its associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameName {
    /// A chunk.
    Chunk(ChunkId),
    /// A tree node.
    Node(NodeId),
    /// A page of the pack table.
    Page(NodeId),
}

impl FrameName {
    /// The associated data of this frame: a kind byte and the name.
    pub fn associated(&self, domain: &[u8; 16]) -> Vec<u8> {
        let mut out = Vec::with_capacity(49);
        out.extend_from_slice(domain);
        self.encode(&mut out);
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            FrameName::Chunk(id) => {
                out.push(1);
                out.extend_from_slice(&id.0);
            }
            FrameName::Node(id) => {
                out.push(2);
                out.extend_from_slice(&id.0);
            }
            FrameName::Page(id) => {
                out.push(3);
                out.extend_from_slice(&id.0);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => FrameName::Chunk(ChunkId(reader.array()?)),
            2 => FrameName::Node(NodeId(reader.array()?)),
            3 => FrameName::Page(NodeId(reader.array()?)),
            _ => return Err(DecodeError::Invalid("frame kind")),
        })
    }
}

/// A frame's line in the directory; offsets follow from the lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// What it is.
    pub name: FrameName,
    /// Bytes, tag included.
    pub len: u32,
}

/// The directory's plain bytes; the caller pads them with zeros and encrypts them.
pub fn encode_directory(entries: &[DirectoryEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 20 + 8);
    put_varint(&mut out, entries.len() as u64);
    for entry in entries {
        entry.name.encode(&mut out);
        put_varint(&mut out, u64::from(entry.len));
    }
    out
}

/// Reads a directory; what follows it must be zeros.
pub fn decode_directory(bytes: &[u8]) -> Result<Vec<DirectoryEntry>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let count = reader.varint()?;
    if count > PACK_FRAMES_MAX as u64 || count > (bytes.len() / 18) as u64 {
        return Err(DecodeError::TooLarge("number of frames"));
    }
    let mut entries = Vec::with_capacity(count as usize);
    let mut end = PACK_HEADER_BYTES as u64;
    for _ in 0..count {
        let entry = DirectoryEntry { name: FrameName::decode(&mut reader)?, len: reader.varint32()? };
        end += u64::from(entry.len);
        if entry.len as usize > crate::tree::FRAME_BYTES_MAX || end > PACK_BYTES_MAX {
            return Err(DecodeError::TooLarge("frame"));
        }
        entries.push(entry);
    }
    if reader.take(reader.remaining())?.iter().any(|&byte| byte != 0) {
        return Err(DecodeError::Invalid("padding"));
    }
    Ok(entries)
}

/// The trailer's plain bytes: where the directory lies.
pub fn encode_trailer(directory_offset: u32, directory_len: u32) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(&directory_offset.to_le_bytes());
    out[4..8].copy_from_slice(&directory_len.to_le_bytes());
    out
}

/// Reads a trailer: the directory's offset and length (tag included) in a pack of `pack_bytes`.
pub fn decode_trailer(bytes: &[u8; 16], pack_bytes: u64) -> Result<(u32, u32), DecodeError> {
    let mut reader = Reader::new(bytes);
    let (offset, len) = (reader.u32()?, reader.u32()?);
    if bytes[8..] != [0; 8] {
        return Err(DecodeError::Invalid("reserved bytes"));
    }
    let end = u64::from(offset) + u64::from(len) + PACK_TRAILER_BYTES as u64;
    if (offset as usize) < PACK_HEADER_BYTES || len < 16 || end != pack_bytes {
        return Err(DecodeError::Invalid("directory position"));
    }
    Ok((offset, len))
}

/// The padded length of `len` bytes: at most 12 % more, and O(log log len) bits of it visible.
///
/// Padmé, from "Reducing Metadata Leakage from Encrypted Files and Communication with
/// PURBs" (Nikitin et al., PETS 2019), section 4.
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = 63 - len.leading_zeros();
    let bits = 32 - exponent.leading_zeros();
    let mask = (1u64 << (exponent - bits.min(exponent))) - 1;
    (len + mask) & !mask
}

/// How a frame's payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame behind the varint of its plain length.
    Zstd = 1,
}

/// Splits a decrypted frame into its codec, plain length and payload.
pub fn decode_payload(bytes: &[u8], plain_max: usize) -> Result<(Codec, usize, &[u8]), DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        0 => {
            let payload = reader.take(reader.remaining())?;
            if payload.len() > plain_max {
                return Err(DecodeError::TooLarge("payload"));
            }
            Ok((Codec::Raw, payload.len(), payload))
        }
        1 => {
            let len = reader.varint()?;
            if len > plain_max as u64 {
                return Err(DecodeError::TooLarge("payload"));
            }
            Ok((Codec::Zstd, len as usize, reader.take(reader.remaining())?))
        }
        _ => Err(DecodeError::Invalid("codec")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_costs_at_most_twelve_percent_and_grows() {
        let mut before = 0;
        for len in (1..100_000u64).chain([1 << 20, (1 << 20) + 1, 16 << 20, (64 << 20) - 3]) {
            let padded = padme(len);
            assert!(padded >= len && padded * 100 <= len * 112, "{len} -> {padded}");
            assert!(padded >= before || len < 100_000);
            assert_eq!(padme(padded), padded);
            before = padded;
        }
    }

    #[test]
    fn a_directory_comes_back_with_its_padding() {
        let entries = vec![
            DirectoryEntry { name: FrameName::Chunk(ChunkId([1; 16])), len: 100 },
            DirectoryEntry { name: FrameName::Node(NodeId([2; 32])), len: 4000 },
        ];
        let mut bytes = encode_directory(&entries);
        bytes.resize(bytes.len() + 50, 0);
        assert_eq!(decode_directory(&bytes), Ok(entries));
        *bytes.last_mut().expect("not empty") = 1;
        assert_eq!(decode_directory(&bytes), Err(DecodeError::Invalid("padding")));
    }

    #[test]
    fn a_header_of_a_newer_version_is_refused_by_name() {
        let header = PackHeader { suite: 1, kind: PackKind::Data, salt: [3; 32], domain: [4; 16] };
        let mut bytes = header.encode();
        assert_eq!(PackHeader::decode(&bytes), Ok(header));
        bytes[8] = 2;
        assert_eq!(PackHeader::decode(&bytes), Err(DecodeError::Newer { found: 2, supported: 1 }));
    }

    #[test]
    fn a_trailer_that_points_outside_is_refused() {
        assert_eq!(decode_trailer(&encode_trailer(64, 100), 196), Ok((64, 100)));
        assert!(decode_trailer(&encode_trailer(64, 101), 196).is_err());
        assert!(decode_trailer(&encode_trailer(u32::MAX, u32::MAX), 196).is_err());
    }
}
