//! The list of moments: what all manifests say of themselves, in one file.
//!
//! A cache that readers make for each other; `fs/docs/format.md` says when it is believed.

use crate::codec::{DecodeError, Reader, put_varint};
use crate::ids::{ManifestId, Seq, Timestamp};
use crate::manifest::SnapshotRecord;

/// The newest version of the list.
pub const MOMENTS_VERSION: u16 = 1;
/// The clear header's bytes.
pub const MOMENTS_HEADER_BYTES: usize = 48;
/// The largest list, in bytes: some 700,000 moments with a tag each.
pub const MOMENTS_BYTES_MAX: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"COMBMOMS";

/// The part in front of the encrypted body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MomentsHeader {
    /// Bytes of the encrypted body, tag included.
    pub body_bytes: u32,
    /// Makes the body's key unique.
    pub salt: [u8; 32],
}

impl MomentsHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; MOMENTS_HEADER_BYTES] {
        let mut out = [0; MOMENTS_HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&MOMENTS_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[16..].copy_from_slice(&self.salt);
        out
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8; MOMENTS_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.take(8)? != MAGIC {
            return Err(DecodeError::Foreign("list of moments"));
        }
        let version = reader.u16()?;
        if version > MOMENTS_VERSION {
            return Err(DecodeError::Newer { found: version.into(), supported: MOMENTS_VERSION.into() });
        }
        if version == 0 {
            return Err(DecodeError::Invalid("version"));
        }
        if reader.u16()? != 0 {
            return Err(DecodeError::Invalid("reserved bytes"));
        }
        let body_bytes = reader.u32()?;
        if body_bytes as usize > MOMENTS_BYTES_MAX - MOMENTS_HEADER_BYTES {
            return Err(DecodeError::TooLarge("list of moments"));
        }
        let salt = reader.array()?;
        reader.finish()?;
        Ok(Self { body_bytes, salt })
    }
}

/// Splits a list into its header, the header's bytes (the body's associated data), and the encrypted body with its tag.
pub fn open_moments(object: &[u8]) -> Result<(MomentsHeader, &[u8], &[u8]), DecodeError> {
    let Some((associated, body)) = object.split_first_chunk() else { return Err(DecodeError::Truncated) };
    let header = MomentsHeader::decode(associated)?;
    match body.len().cmp(&(header.body_bytes as usize)) {
        std::cmp::Ordering::Less => Err(DecodeError::Truncated),
        std::cmp::Ordering::Greater => Err(DecodeError::Trailing),
        std::cmp::Ordering::Equal => Ok((header, associated, body)),
    }
}

/// What a manifest says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MomentRecord {
    /// Its number.
    pub seq: Seq,
    /// Its name.
    pub id: ManifestId,
    /// When the overlay was frozen.
    pub time: Timestamp,
    /// Inodes in the tree.
    pub files: u64,
    /// Sum of the lengths of regular files.
    pub bytes: u64,
    /// Bytes of packs that the seal wrote.
    pub added: u64,
    /// The label, if it is a snapshot that somebody asked for.
    pub snapshot: Option<SnapshotRecord>,
}

/// The fewest bytes of a moment: with every number below 128, and no snapshot.
const MOMENT_BYTES_MIN: usize = 1 + 32 + 8 + 3 + 1;

/// The plain bytes of moments in ascending order of their numbers.
pub fn encode_moments(moments: &[MomentRecord]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + moments.len() * 96);
    put_varint(&mut out, moments.len() as u64);
    let mut before = 0;
    for moment in moments {
        put_varint(&mut out, moment.seq.0 - before);
        before = moment.seq.0;
        out.extend_from_slice(&moment.id.0);
        out.extend_from_slice(&moment.time.0.to_le_bytes());
        for number in [moment.files, moment.bytes, moment.added] {
            put_varint(&mut out, number);
        }
        SnapshotRecord::encode(moment.snapshot.as_ref(), &mut out);
    }
    out
}

/// Reads what `encode_moments` wrote.
pub fn decode_moments(bytes: &[u8]) -> Result<Vec<MomentRecord>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let count = reader.varint()?;
    if count > (reader.remaining() / MOMENT_BYTES_MIN) as u64 {
        return Err(DecodeError::TooLarge("number of moments"));
    }
    let mut moments = Vec::with_capacity(count as usize);
    let mut before = 0u64;
    for _ in 0..count {
        let distance = reader.varint()?;
        let seq = before.checked_add(distance).filter(|_| distance > 0);
        before = seq.ok_or(DecodeError::Invalid("distance of a moment"))?;
        moments.push(MomentRecord {
            seq: Seq(before),
            id: ManifestId(reader.array()?),
            time: Timestamp(reader.i64()?),
            files: reader.varint()?,
            bytes: reader.varint()?,
            added: reader.varint()?,
            snapshot: SnapshotRecord::read(&mut reader)?,
        });
    }
    reader.finish()?;
    Ok(moments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SnapshotId;

    fn moments() -> Vec<MomentRecord> {
        let plain = |seq: u64| MomentRecord {
            seq: Seq(seq),
            id: ManifestId([seq as u8; 32]),
            time: Timestamp(-5),
            files: 2,
            bytes: 1 << 40,
            added: 5000,
            snapshot: None,
        };
        let label = SnapshotRecord {
            id: SnapshotId([3; 16]),
            message: "before the upgrade".into(),
            tags: vec!["release".into(), "v2".into()],
        };
        vec![plain(1), MomentRecord { snapshot: Some(label), ..plain(2) }, plain(700), plain(u64::MAX)]
    }

    #[test]
    fn a_list_comes_back_and_every_cut_is_refused() {
        for list in [vec![], moments()] {
            let bytes = encode_moments(&list);
            assert_eq!(decode_moments(&bytes), Ok(list));
            for len in 0..bytes.len() {
                assert!(decode_moments(&bytes[..len]).is_err(), "cut at {len}");
            }
        }
    }

    #[test]
    fn moments_that_do_not_ascend_are_refused() {
        let mut bytes = encode_moments(&moments()[..1]);
        bytes[1] = 0;
        assert_eq!(decode_moments(&bytes), Err(DecodeError::Invalid("distance of a moment")));
        let mut bytes = encode_moments(&moments()[3..]);
        bytes[0] = 2;
        bytes.extend_from_within(1..);
        assert_eq!(decode_moments(&bytes), Err(DecodeError::Invalid("distance of a moment")));
    }

    #[test]
    fn a_count_is_compared_with_the_bytes_before_anything_is_allocated() {
        assert_eq!(decode_moments(&[0xff, 0xff, 0x7f]), Err(DecodeError::TooLarge("number of moments")));
    }

    #[test]
    fn a_header_comes_back_and_what_no_writer_makes_is_refused() {
        let header = MomentsHeader { body_bytes: 20, salt: [7; 32] };
        let mut object = header.encode().to_vec();
        object.resize(MOMENTS_HEADER_BYTES + 20, 9);
        assert_eq!(open_moments(&object).map(|(header, _, body)| (header, body.len())), Ok((header, 20)));
        assert_eq!(open_moments(&object[..67]), Err(DecodeError::Truncated));
        assert_eq!(open_moments(&object[..47]), Err(DecodeError::Truncated));
        let changed = |at: usize, byte: u8| {
            let mut object = object.clone();
            object[at] = byte;
            open_moments(&object).map(|_| ())
        };
        assert_eq!(changed(0, b'X'), Err(DecodeError::Foreign("list of moments")));
        assert_eq!(changed(8, 2), Err(DecodeError::Newer { found: 2, supported: 1 }));
        assert_eq!(changed(8, 0), Err(DecodeError::Invalid("version")));
        assert_eq!(changed(11, 1), Err(DecodeError::Invalid("reserved bytes")));
        assert_eq!(changed(12, 19), Err(DecodeError::Trailing));
        assert_eq!(changed(15, 4), Err(DecodeError::TooLarge("list of moments")));
    }
}
