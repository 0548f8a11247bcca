//! Manifests: signed statements about a moment of a volume.

use std::ops::Range;

use ed25519_dalek::{Signature, VerifyingKey};

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::ids::{
    DeviceId, Epoch, Ino, ManifestId, NodeId, PackId, Seq, SnapshotId, StoreId, Timestamp, VolumeId,
};
use crate::signature;
pub use crate::signature::signed_digest;
use crate::tree::{NodePtr, TREE_HEIGHT_MAX};

/// The newest version of the manifest format.
pub const MANIFEST_VERSION: u16 = 3;
/// The version of a manifest of which no pack was compacted: earlier releases read it.
const UNMOVED_VERSION: u16 = 2;
/// The clear header's bytes.
pub const MANIFEST_HEADER_BYTES: usize = 192;
/// The largest manifest object, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of the tag behind the encrypted body.
const BODY_TAG_BYTES: usize = 16;
/// Bytes of the signature, the last of an object.
const SIGNATURE_BYTES: usize = 64;
/// The largest encrypted body, tag included.
const BODY_BYTES_MAX: usize = MANIFEST_BYTES_MAX - MANIFEST_HEADER_BYTES - SIGNATURE_BYTES;
/// Where in the header the volume stands, in every version.
const VOLUME_AT: Range<usize> = 16..48;
/// What the signature is bound to.
pub const MANIFEST_CONTEXT: &str = "comb 2026-11 v1 manifest signature";
/// Entries that fill a page of the pack table.
pub const PACK_PAGE_ENTRIES: usize = 64;
/// Levels of the pack table: 64^5 packs.
pub const PACK_TABLE_LEVELS_MAX: usize = 5;
/// The longest message of a snapshot, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// The most tags of a snapshot.
pub const TAGS_MAX: usize = 64;
/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 255;
const MAGIC: &[u8; 8] = b"COMBMANI";
/// The flag of a fork.
const IS_FORKED: u16 = 1;
/// The flag of a volume of which frames were moved.
const HAS_MOVED: u16 = 2;

/// The part that anyone can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestHeader {
    /// Bytes of the encrypted body, tag included.
    pub body_bytes: u32,
    /// The volume.
    pub volume: VolumeId,
    /// The epoch of its writer.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// The manifest that it extends; zeros for the first.
    pub parent: ManifestId,
    /// Makes the body's key unique.
    pub salt: [u8; 32],
    /// A fork's parent read key, wrapped under the fork's own; zeros where there is none.
    pub lineage: Lineage,
    /// Whether compaction may have moved frames: then the tree says where to. If not, nobody needs to look.
    pub has_moved: bool,
    /// The machine that wrote it.
    pub device: DeviceId,
}

/// Whether and how a volume reads with the key of the volume it was forked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lineage {
    /// The volume's own read key.
    Own,
    /// The parent's read key, wrapped under the volume's own.
    Forked([u8; 48]),
}

impl ManifestHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; MANIFEST_HEADER_BYTES] {
        let mut out = [0; MANIFEST_HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        let (version, mut flags) =
            if self.has_moved { (MANIFEST_VERSION, HAS_MOVED) } else { (UNMOVED_VERSION, 0) };
        out[8..10].copy_from_slice(&version.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[16..48].copy_from_slice(&self.volume.0);
        out[48..56].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.seq.0.to_le_bytes());
        out[64..96].copy_from_slice(&self.parent.0);
        out[96..128].copy_from_slice(&self.salt);
        if let Lineage::Forked(wrapped) = self.lineage {
            flags |= IS_FORKED;
            out[128..176].copy_from_slice(&wrapped);
        }
        out[10..12].copy_from_slice(&flags.to_le_bytes());
        out[176..192].copy_from_slice(&self.device.0);
        out
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.take(8)? != MAGIC {
            return Err(DecodeError::Foreign("manifest"));
        }
        let version = reader.u16()?;
        if version > MANIFEST_VERSION {
            return Err(DecodeError::Newer { found: version.into(), supported: MANIFEST_VERSION.into() });
        }
        match version {
            0 => return Err(DecodeError::Invalid("version")),
            1 => return Err(DecodeError::Unreleased(1)),
            _ => {}
        }
        let flags = reader.u16()?;
        let body_bytes = reader.u32()?;
        if body_bytes as usize > BODY_BYTES_MAX {
            return Err(DecodeError::TooLarge("manifest body"));
        }
        if (body_bytes as usize) < BODY_TAG_BYTES {
            return Err(DecodeError::Truncated);
        }
        let volume = VolumeId(reader.array()?);
        let (epoch, seq) = (Epoch(reader.u64()?), Seq(reader.u64()?));
        let (parent, salt) = (ManifestId(reader.array()?), reader.array()?);
        let wrapped: [u8; 48] = reader.array()?;
        let device = DeviceId(reader.array()?);
        let has_moved = version > UNMOVED_VERSION;
        if (flags & HAS_MOVED != 0) != has_moved {
            return Err(DecodeError::Invalid("flags"));
        }
        let lineage = match flags & !HAS_MOVED {
            0 if wrapped == [0; 48] => Lineage::Own,
            IS_FORKED => Lineage::Forked(wrapped),
            _ => return Err(DecodeError::Invalid("flags")),
        };
        Ok(Self { body_bytes, volume, epoch, seq, parent, salt, lineage, has_moved, device })
    }
}

/// Splits a manifest object and checks its signature.
///
/// Returns the header, its bytes (the body's associated data) and the encrypted body with its tag. The signature comes
/// first: it lies in the same place in every version, so a flipped bit is not taken for a newer version.
pub fn open_manifest(object: &[u8]) -> Result<(ManifestHeader, &[u8], &[u8]), DecodeError> {
    if object.len() < MANIFEST_HEADER_BYTES + SIGNATURE_BYTES {
        return Err(DecodeError::Truncated);
    }
    if object.len() > MANIFEST_BYTES_MAX {
        return Err(DecodeError::TooLarge("manifest"));
    }
    if object[..MAGIC.len()] != *MAGIC {
        return Err(DecodeError::Foreign("manifest"));
    }
    let signed = object.len() - SIGNATURE_BYTES;
    let volume = VolumeId(object[VOLUME_AT].try_into().expect("the range has a key's length"));
    let signature = object[signed..].try_into().expect("a signature's length was just split off");
    if !signature_is_valid(&volume, MANIFEST_CONTEXT, &object[..signed], signature) {
        return Err(DecodeError::Damaged("signature"));
    }
    let header = ManifestHeader::decode(&object[..MANIFEST_HEADER_BYTES])?;
    let body_end = MANIFEST_HEADER_BYTES + header.body_bytes as usize;
    if signed < body_end {
        return Err(DecodeError::Truncated);
    }
    if signed > body_end {
        return Err(DecodeError::Trailing);
    }
    Ok((header, &object[..MANIFEST_HEADER_BYTES], &object[MANIFEST_HEADER_BYTES..signed]))
}

/// Whether `signature` is the volume's over this message in this context (strict verification).
pub fn signature_is_valid(volume: &VolumeId, context: &str, message: &[u8], signature: &[u8; 64]) -> bool {
    signature::is_valid(&volume.0, context, message, signature)
}

/// What a volume key signs in an IPNS record: its data, behind the prefix that its specification demands.
///
/// It is no digest of a context, so that others can check it. Nobody finds a digest that begins with these 15 bytes, so
/// neither is taken for the other.
pub fn ipns_message(data: &[u8]) -> Vec<u8> {
    [b"ipns-signature:", data].concat()
}

/// Whether `signature` is the volume's over the data of an IPNS record (strict verification).
pub fn ipns_signature_is_valid(volume: &VolumeId, data: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&volume.0)
        .is_ok_and(|key| key.verify_strict(&ipns_message(data), &Signature::from_bytes(signature)).is_ok())
}

/// A manifest object's name.
pub fn manifest_id(object: &[u8]) -> ManifestId {
    ManifestId(*blake3::hash(object).as_bytes())
}

/// A pack's line in the pack table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackEntry {
    /// The object.
    pub object: PackId,
    /// Its bytes.
    pub bytes: u32,
    /// The seal that wrote it: the birth of everything in it.
    pub birth: Seq,
}

impl PackEntry {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.object.0);
        put_varint(out, u64::from(self.bytes));
        put_varint(out, self.birth.0);
    }

    /// Reads the next entry.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { object: PackId(reader.array()?), bytes: reader.varint32()?, birth: Seq(reader.varint()?) })
    }
}

/// Where a full page of the pack table lies: in an object, since it cannot need the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagePtr {
    /// The keyed hash of its bytes.
    pub id: NodeId,
    /// The object.
    pub object: PackId,
    /// Offset of the frame.
    pub offset: u32,
    /// Bytes of the frame, tag included.
    pub len: u32,
}

impl PagePtr {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.object.0);
        put_varint(out, u64::from(self.offset));
        put_varint(out, u64::from(self.len));
    }

    /// Reads the next pointer.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let pointer = Self {
            id: NodeId(reader.array()?),
            object: PackId(reader.array()?),
            offset: reader.varint32()?,
            len: reader.varint32()?,
        };
        if pointer.len > 64 << 10 {
            return Err(DecodeError::TooLarge("page"));
        }
        Ok(pointer)
    }
}

/// A page of the pack table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackPage {
    /// 64 packs with consecutive numbers.
    Packs(Vec<PackEntry>),
    /// 64 pages one level below.
    Pages(Vec<PagePtr>),
}

impl PackPage {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(5 << 10);
        match self {
            PackPage::Packs(entries) => {
                out.push(0);
                entries.iter().for_each(|entry| entry.encode(&mut out));
            }
            PackPage::Pages(pages) => {
                out.push(1);
                pages.iter().for_each(|page| page.encode(&mut out));
            }
        }
        out
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let page = match reader.u8()? {
            0 => PackPage::Packs(
                (0..PACK_PAGE_ENTRIES).map(|_| PackEntry::read(&mut reader)).collect::<Result<_, _>>()?,
            ),
            1 => PackPage::Pages(
                (0..PACK_PAGE_ENTRIES).map(|_| PagePtr::read(&mut reader)).collect::<Result<_, _>>()?,
            ),
            _ => return Err(DecodeError::Invalid("page kind")),
        };
        reader.finish()?;
        Ok(page)
    }
}

/// The top of the pack table: what no full page holds yet, per level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackTable {
    /// The newest packs, in order of their numbers.
    pub packs: Vec<PackEntry>,
    /// Full pages: `levels[0]` are pages of packs, `levels[1]` pages of those, and so on.
    pub levels: Vec<Vec<PagePtr>>,
}

/// The most entries that a level of the top may hold: a page and what one seal adds.
const TOP_ENTRIES_MAX: usize = 4096;

impl PackTable {
    /// Packs in all; also the number that the next pack gets.
    pub fn count(&self) -> u64 {
        let mut count = self.packs.len() as u64;
        let mut span = PACK_PAGE_ENTRIES as u64;
        for level in &self.levels {
            count += level.len() as u64 * span;
            span *= PACK_PAGE_ENTRIES as u64;
        }
        count
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.packs.len() as u64);
        self.packs.iter().for_each(|entry| entry.encode(out));
        put_varint(out, self.levels.len() as u64);
        for level in &self.levels {
            put_varint(out, level.len() as u64);
            level.iter().for_each(|page| page.encode(out));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = |reader: &mut Reader<'_>, max: usize| -> Result<usize, DecodeError> {
            let count = reader.varint()?;
            if count > max as u64 { Err(DecodeError::TooLarge("pack table")) } else { Ok(count as usize) }
        };
        let packs = count(reader, TOP_ENTRIES_MAX)?;
        let packs = (0..packs).map(|_| PackEntry::read(reader)).collect::<Result<_, _>>()?;
        let mut levels = Vec::new();
        for _ in 0..count(reader, PACK_TABLE_LEVELS_MAX)? {
            let pages = count(reader, TOP_ENTRIES_MAX)?;
            levels.push((0..pages).map(|_| PagePtr::read(reader)).collect::<Result<_, _>>()?);
        }
        Ok(Self { packs, levels })
    }
}

/// What somebody said of a seal that they asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Its uuid.
    pub id: SnapshotId,
    /// A text.
    pub message: String,
    /// Names to find it by.
    pub tags: Vec<String>,
}

impl SnapshotRecord {
    /// Appends the encoding of a label, or of none.
    pub fn encode(record: Option<&Self>, out: &mut Vec<u8>) {
        let Some(snapshot) = record else { return out.push(0) };
        out.push(1);
        out.extend_from_slice(&snapshot.id.0);
        put_bytes(out, snapshot.message.as_bytes());
        put_varint(out, snapshot.tags.len() as u64);
        snapshot.tags.iter().for_each(|tag| put_bytes(out, tag.as_bytes()));
    }

    /// Reads the next label, or none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        match reader.u8()? {
            0 => return Ok(None),
            1 => {}
            _ => return Err(DecodeError::Invalid("snapshot flag")),
        }
        let id = SnapshotId(reader.array()?);
        let message = text(reader, MESSAGE_BYTES_MAX, "message")?;
        let tags = reader.varint()?;
        if tags > TAGS_MAX as u64 {
            return Err(DecodeError::TooLarge("number of tags"));
        }
        let tags = (0..tags).map(|_| text(reader, TAG_BYTES_MAX, "tag")).collect::<Result<_, _>>()?;
        Ok(Some(Self { id, message, tags }))
    }
}

/// The encrypted part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestBody {
    /// When the overlay was frozen.
    pub time: Timestamp,
    /// The root of the tree.
    pub root: NodePtr,
    /// Its height: 0 when the root is a leaf.
    pub height: u8,
    /// The number that the next new file gets: from [`Ino::FIRST`] to one behind [`Ino::MAX`].
    pub next_ino: u64,
    /// Inodes in the tree.
    pub files: u64,
    /// Sum of the lengths of regular files.
    pub bytes: u64,
    /// Bytes of packs that this seal wrote.
    pub added: u64,
    /// The packs.
    pub packs: PackTable,
    /// The journal whose records up to `journal_end` are in the tree; zeros for none.
    pub journal: [u8; 16],
    /// The position behind the last record that is in the tree.
    pub journal_end: u64,
    /// The store in which slots decide; zeros for none.
    pub arbiter: StoreId,
    /// The label, if it is a snapshot that somebody asked for.
    pub snapshot: Option<SnapshotRecord>,
}

impl ManifestBody {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 << 10);
        out.extend_from_slice(&self.time.0.to_le_bytes());
        self.root.encode(&mut out);
        out.push(self.height);
        for number in [self.next_ino, self.files, self.bytes, self.added] {
            put_varint(&mut out, number);
        }
        self.packs.encode(&mut out);
        out.extend_from_slice(&self.journal);
        put_varint(&mut out, self.journal_end);
        out.extend_from_slice(&self.arbiter.0);
        SnapshotRecord::encode(self.snapshot.as_ref(), &mut out);
        out
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let time = Timestamp(reader.i64()?);
        let root = NodePtr::read(&mut reader)?;
        let height = reader.u8()?;
        if height > TREE_HEIGHT_MAX {
            return Err(DecodeError::TooLarge("tree height"));
        }
        let (next_ino, files, bytes, added) =
            (reader.varint()?, reader.varint()?, reader.varint()?, reader.varint()?);
        // One more than the last number: then no file can be made any more.
        if next_ino > Ino::MAX.0 + 1 {
            return Err(DecodeError::TooLarge("next inode number"));
        }
        if next_ino < Ino::FIRST.0 {
            return Err(DecodeError::Invalid("next inode number"));
        }
        let packs = PackTable::read(&mut reader)?;
        let journal = reader.array()?;
        let journal_end = reader.varint()?;
        let arbiter = StoreId(reader.array()?);
        let snapshot = SnapshotRecord::read(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            time,
            root,
            height,
            next_ino,
            files,
            bytes,
            added,
            packs,
            journal,
            journal_end,
            arbiter,
            snapshot,
        })
    }
}

fn text(reader: &mut Reader<'_>, max: usize, what: &'static str) -> Result<String, DecodeError> {
    let bytes = reader.bytes(max, what)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Invalid(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PackNumber;
    use crate::tree::Location;

    fn body() -> ManifestBody {
        let entry = PackEntry { object: PackId([9; 32]), bytes: 4096, birth: Seq(2) };
        let page = PagePtr { id: NodeId([1; 32]), object: PackId([2; 32]), offset: 64, len: 3000 };
        ManifestBody {
            time: Timestamp(-5),
            root: NodePtr {
                id: NodeId([7; 32]),
                location: Location { pack: PackNumber(1), offset: 64, len: 100 },
            },
            height: 2,
            next_ino: 17,
            files: 2,
            bytes: 1 << 40,
            added: 5000,
            packs: PackTable { packs: vec![entry; 3], levels: vec![vec![page; 2], vec![page]] },
            journal: [5; 16],
            journal_end: 1 << 33,
            arbiter: StoreId([6; 16]),
            snapshot: Some(SnapshotRecord {
                id: SnapshotId([3; 16]),
                message: "before the upgrade".into(),
                tags: vec!["release".into(), "v2".into()],
            }),
        }
    }

    #[test]
    fn a_body_comes_back_and_every_cut_is_refused() {
        let bytes = body().encode();
        assert_eq!(ManifestBody::decode(&bytes), Ok(body()));
        for len in 0..bytes.len() {
            assert!(ManifestBody::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn inode_numbers_that_no_writer_gives_out_are_refused() {
        let decoded =
            |next_ino| ManifestBody::decode(&ManifestBody { next_ino, ..body() }.encode()).map(drop);
        assert_eq!(decoded(15), Err(DecodeError::Invalid("next inode number")));
        assert_eq!(decoded(16), Ok(()));
        assert_eq!(decoded(1 << 38), Ok(()));
        assert_eq!(decoded((1 << 38) + 1), Err(DecodeError::TooLarge("next inode number")));
        assert_eq!(decoded(u64::MAX), Err(DecodeError::TooLarge("next inode number")));
    }

    #[test]
    fn a_body_is_bounded_so_that_its_manifest_is() {
        let header = |body_bytes| {
            let header = ManifestHeader {
                body_bytes,
                volume: VolumeId([1; 32]),
                epoch: Epoch(1),
                seq: Seq(9),
                parent: ManifestId([2; 32]),
                salt: [3; 32],
                lineage: Lineage::Own,
                has_moved: false,
                device: DeviceId([0; 16]),
            };
            ManifestHeader::decode(&header.encode()).map(drop)
        };
        let max = (MANIFEST_BYTES_MAX - MANIFEST_HEADER_BYTES - SIGNATURE_BYTES) as u32;
        assert_eq!(header(max), Ok(()));
        assert_eq!(header(max + 1), Err(DecodeError::TooLarge("manifest body")));
        assert_eq!(header(15), Err(DecodeError::Truncated), "it has no tag");
    }

    #[test]
    fn the_pack_table_counts_its_pages() {
        assert_eq!(body().packs.count(), 3 + 2 * 64 + 64 * 64);
    }

    #[test]
    fn a_page_holds_exactly_its_entries() {
        let page = PackPage::Packs(vec![PackEntry { object: PackId([1; 32]), bytes: 1, birth: Seq(1) }; 64]);
        let mut bytes = page.encode();
        assert_eq!(PackPage::decode(&bytes), Ok(page));
        bytes.push(0);
        assert_eq!(PackPage::decode(&bytes), Err(DecodeError::Trailing));
    }

    #[test]
    fn a_header_comes_back_with_its_lineage() {
        let lineages = [Lineage::Own, Lineage::Forked([6; 48])];
        for (lineage, has_moved) in lineages.into_iter().flat_map(|one| [(one, false), (one, true)]) {
            let header = ManifestHeader {
                body_bytes: 77,
                volume: VolumeId([1; 32]),
                epoch: Epoch(1),
                seq: Seq(9),
                parent: ManifestId([2; 32]),
                salt: [3; 32],
                lineage,
                has_moved,
                device: DeviceId([8; 16]),
            };
            assert_eq!(ManifestHeader::decode(&header.encode()), Ok(header));
            let mut bytes = header.encode();
            for (version, refused) in [
                (0, DecodeError::Invalid("version")),
                (1, DecodeError::Unreleased(1)),
                (if has_moved { 2 } else { 3 }, DecodeError::Invalid("flags")),
                (4, DecodeError::Newer { found: 4, supported: 3 }),
            ] {
                bytes[8] = version;
                assert_eq!(ManifestHeader::decode(&bytes), Err(refused));
            }
        }
    }
}
