//! The ledger: records of the volume itself, under inode 0 of its tree.
//!
//! Moments that are kept, packs that collection has decided about, and the policy of retention. (Orphans
//! lie there too; their values are empty.)

use crate::codec::{DecodeError, Reader, put_varint};
use crate::ids::{Epoch, ManifestId, Seq, Timestamp};
use crate::manifest::SnapshotRecord;
use crate::tree::{NodePtr, TREE_HEIGHT_MAX};

/// The longest policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 4096;

/// A moment: what its manifest says, as far as one needs it to find the moment and to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Its manifest.
    pub id: ManifestId,
    /// The epoch of its writer.
    pub epoch: Epoch,
    /// When the overlay was frozen.
    pub time: Timestamp,
    /// Inodes in the tree.
    pub files: u64,
    /// Sum of the lengths of regular files.
    pub bytes: u64,
    /// Bytes of packs that the seal wrote.
    pub added: u64,
    /// The root of its tree.
    pub root: NodePtr,
    /// The tree's height.
    pub height: u8,
    /// The label, if it is a snapshot that somebody asked for.
    pub snapshot: Option<SnapshotRecord>,
}

impl Moment {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        put_varint(out, self.epoch.0);
        out.extend_from_slice(&self.time.0.to_le_bytes());
        for number in [self.files, self.bytes, self.added] {
            put_varint(out, number);
        }
        self.root.encode(out);
        out.push(self.height);
        SnapshotRecord::encode(self.snapshot.as_ref(), out);
    }

    /// Reads a whole value.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let id = ManifestId(reader.array()?);
        let epoch = Epoch(reader.varint()?);
        let time = Timestamp(reader.i64()?);
        let (files, bytes, added) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let root = NodePtr::read(&mut reader)?;
        let height = reader.u8()?;
        if height > TREE_HEIGHT_MAX {
            return Err(DecodeError::TooLarge("tree height"));
        }
        let snapshot = SnapshotRecord::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { id, epoch, time, files, bytes, added, root, height, snapshot })
    }
}

/// What collection has decided about a pack. One that has no such record is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackFate {
    /// No kept moment referred to it; nothing may begin to.
    Condemned {
        /// The seal that found so.
        seq: Seq,
        /// When that was.
        time: Timestamp,
    },
    /// It is removed, here and elsewhere, once this seal counts and is replicated.
    Doomed {
        /// The seal that decided so.
        seq: Seq,
    },
    /// It was removed, or was never brought here.
    Gone,
}

impl PackFate {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Condemned { seq, time } => {
                out.push(1);
                put_varint(out, seq.0);
                out.extend_from_slice(&time.0.to_le_bytes());
            }
            Self::Doomed { seq } => {
                out.push(2);
                put_varint(out, seq.0);
            }
            Self::Gone => out.push(3),
        }
    }

    /// Reads a whole value.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let fate = match reader.u8()? {
            1 => Self::Condemned { seq: Seq(reader.varint()?), time: Timestamp(reader.i64()?) },
            2 => Self::Doomed { seq: Seq(reader.varint()?) },
            3 => Self::Gone,
            _ => return Err(DecodeError::Invalid("fate of a pack")),
        };
        reader.finish()?;
        Ok(fate)
    }
}

/// Reads the value of a policy: its text, which `fs-volume` understands.
pub fn decode_policy(bytes: &[u8]) -> Result<&str, DecodeError> {
    match bytes.len() {
        0 => Err(DecodeError::Invalid("policy")),
        1..=POLICY_BYTES_MAX => std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid("policy")),
        _ => Err(DecodeError::TooLarge("policy")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, PackNumber, SnapshotId};
    use crate::tree::Location;

    fn moment(snapshot: Option<SnapshotRecord>) -> Moment {
        Moment {
            id: ManifestId([4; 32]),
            epoch: Epoch(3),
            time: Timestamp(-5),
            files: 2,
            bytes: 1 << 40,
            added: u64::MAX,
            root: NodePtr {
                id: NodeId([7; 32]),
                location: Location { pack: PackNumber(1), offset: 64, len: 100 },
            },
            height: 2,
            snapshot,
        }
    }

    #[test]
    fn a_moment_comes_back_and_every_cut_is_refused() {
        let label =
            SnapshotRecord { id: SnapshotId([3; 16]), message: "before".into(), tags: vec!["v2".into()] };
        for moment in [moment(None), moment(Some(label))] {
            let mut bytes = Vec::new();
            moment.encode(&mut bytes);
            assert_eq!(Moment::decode(&bytes), Ok(moment));
            for len in 0..bytes.len() {
                assert!(Moment::decode(&bytes[..len]).is_err(), "cut at {len}");
            }
            bytes.push(0);
            assert_eq!(Moment::decode(&bytes), Err(DecodeError::Trailing));
        }
    }

    #[test]
    fn the_largest_moment_fits_a_record() {
        use crate::manifest::{MESSAGE_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX};
        let label = SnapshotRecord {
            id: SnapshotId([3; 16]),
            message: "m".repeat(MESSAGE_BYTES_MAX),
            tags: vec!["t".repeat(TAG_BYTES_MAX); TAGS_MAX],
        };
        let mut bytes = Vec::new();
        moment(Some(label)).encode(&mut bytes);
        assert!(bytes.len() < crate::tree::VALUE_BYTES_MAX, "{} bytes", bytes.len());
    }

    #[test]
    fn a_fate_comes_back_and_others_are_refused() {
        let condemned = PackFate::Condemned { seq: Seq(300), time: Timestamp(i64::MIN) };
        for fate in [condemned, PackFate::Doomed { seq: Seq(u64::MAX) }, PackFate::Gone] {
            let mut bytes = Vec::new();
            fate.encode(&mut bytes);
            assert_eq!(PackFate::decode(&bytes), Ok(fate));
            bytes.push(0);
            assert_eq!(PackFate::decode(&bytes), Err(DecodeError::Trailing));
        }
        assert_eq!(PackFate::decode(&[0]), Err(DecodeError::Invalid("fate of a pack")));
        assert_eq!(PackFate::decode(&[]), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_policy_is_text_of_a_bounded_length() {
        assert_eq!(decode_policy(b"keep last 3"), Ok("keep last 3"));
        assert_eq!(decode_policy(b""), Err(DecodeError::Invalid("policy")));
        assert_eq!(decode_policy(b"\xff"), Err(DecodeError::Invalid("policy")));
        assert_eq!(decode_policy(&[b'k'; POLICY_BYTES_MAX + 1]), Err(DecodeError::TooLarge("policy")));
    }
}
