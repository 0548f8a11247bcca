//! Records of the tree, and the nodes that hold them.

use crate::codec::{DecodeError, Reader, put_varint};
use crate::ids::{ChunkId, Ino, NodeId, PackNumber, Seq};
use crate::inode::FileKind;

/// The largest node, in bytes before compression: a leaf with one record of the largest kind.
pub const NODE_BYTES_MAX: usize = 128 << 10;
/// The largest value of a record, in bytes.
pub const VALUE_BYTES_MAX: usize = 80 << 10;
/// The largest chunk, in bytes before compression.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The largest frame in a pack: a chunk that does not compress, its codec and its tag.
pub const FRAME_BYTES_MAX: usize = CHUNK_BYTES_MAX + 64;
/// Levels of a tree; far above what inode numbers and sizes can reach.
pub const TREE_HEIGHT_MAX: u8 = 16;
/// The longest name of a directory entry or an extended attribute, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// The largest value of an extended attribute, in bytes.
pub const XATTR_BYTES_MAX: usize = 65_536;
/// The largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// What a record is, in the order in which a file's records lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// An [`Inode`](crate::Inode); sub is 0.
    Inode = 1,
    /// A [`Dirent`]; sub is the name's hash with a number for those that collide.
    Dirent = 2,
    /// An [`Xattr`]; sub as for a directory entry.
    Xattr = 3,
    /// The bytes of a small file or a symbolic link's target; sub is 0.
    Inline = 4,
    /// An [`Extent`]; sub is the offset in the file.
    Extent = 5,
    /// An inode without a name that somebody still held; ino is 0, sub is the inode's number.
    Orphan = 6,
    /// A [`Moment`](crate::ledger::Moment) that is kept; ino is 0, sub is its seq.
    Moment = 7,
    /// A [`PackFate`](crate::ledger::PackFate); ino is 0, sub is the pack's number.
    Fate = 8,
    /// The policy of retention; ino and sub are 0.
    Policy = 9,
    /// Where compaction [`Moved`](crate::moved::Moved) frames of a pack to; ino is 0, sub is the pack's number.
    Moved = 10,
}

impl RecordKind {
    fn from_u8(value: u8) -> Result<Self, DecodeError> {
        Ok(match value {
            1 => Self::Inode,
            2 => Self::Dirent,
            3 => Self::Xattr,
            4 => Self::Inline,
            5 => Self::Extent,
            6 => Self::Orphan,
            7 => Self::Moment,
            8 => Self::Fate,
            9 => Self::Policy,
            10 => Self::Moved,
            _ => return Err(DecodeError::Invalid("record kind")),
        })
    }
}

/// A record's place; the order of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The inode it belongs to.
    pub ino: Ino,
    /// What it is.
    pub kind: RecordKind,
    /// Which of its kind.
    pub sub: u64,
}

impl Key {
    /// The first key of all.
    pub const FIRST: Key = Key { ino: Ino(0), kind: RecordKind::Inode, sub: 0 };

    /// A key.
    pub fn new(ino: Ino, kind: RecordKind, sub: u64) -> Self {
        Self { ino, kind, sub }
    }

    /// The key of an inode record.
    pub fn inode(ino: Ino) -> Self {
        Self::new(ino, RecordKind::Inode, 0)
    }

    /// The key of an orphan record.
    pub fn orphan(ino: Ino) -> Self {
        Self::new(Ino(0), RecordKind::Orphan, ino.0)
    }

    /// The key of a moment's record.
    pub fn moment(seq: Seq) -> Self {
        Self::new(Ino(0), RecordKind::Moment, seq.0)
    }

    /// The key of a pack's fate.
    pub fn fate(number: PackNumber) -> Self {
        Self::new(Ino(0), RecordKind::Fate, number.0.into())
    }

    /// The key of where frames of a pack were moved to.
    pub fn moved(number: PackNumber) -> Self {
        Self::new(Ino(0), RecordKind::Moved, number.0.into())
    }

    /// The key of the policy.
    pub const POLICY: Key = Key { ino: Ino(0), kind: RecordKind::Policy, sub: 0 };

    /// The first key that belongs to a file: what lies before is the volume's own.
    pub const FIRST_OF_FILES: Key = Key { ino: Ino(1), kind: RecordKind::Inode, sub: 0 };

    /// Appends the key on its own.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.ino.0);
        out.push(self.kind as u8);
        put_varint(out, self.sub);
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let ino = reader.varint()?;
        if ino > Ino::MAX.0 {
            return Err(DecodeError::TooLarge("inode number"));
        }
        Ok(Self { ino: Ino(ino), kind: RecordKind::from_u8(reader.u8()?)?, sub: reader.varint()? })
    }

    fn encode_after(&self, before: Option<&Key>, out: &mut Vec<u8>) {
        let before_ino = before.map_or(0, |key| key.ino.0);
        put_varint(out, self.ino.0 - before_ino);
        out.push(self.kind as u8);
        match before {
            Some(key) if key.ino == self.ino && key.kind == self.kind => put_varint(out, self.sub - key.sub),
            _ => put_varint(out, self.sub),
        }
    }

    fn decode_after(before: Option<&Key>, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let base = before.map_or(0, |key| key.ino.0);
        let ino = base.checked_add(reader.varint()?).filter(|&ino| ino <= Ino::MAX.0);
        let ino = Ino(ino.ok_or(DecodeError::TooLarge("inode number"))?);
        let kind = RecordKind::from_u8(reader.u8()?)?;
        let mut sub = reader.varint()?;
        if let Some(key) = before
            && key.ino == ino
            && key.kind == kind
        {
            sub = key.sub.checked_add(sub).ok_or(DecodeError::TooLarge("sub key"))?;
        }
        let key = Self { ino, kind, sub };
        if before.is_some_and(|before| *before >= key) {
            return Err(DecodeError::Invalid("order of keys"));
        }
        Ok(key)
    }
}

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirent {
    /// What it names.
    pub ino: Ino,
    /// Its kind.
    pub kind: FileKind,
    /// The name: 1 to 255 bytes without `/` and NUL, and neither `.` nor `..`.
    pub name: Box<[u8]>,
}

impl Dirent {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.ino.0);
        out.push(self.kind as u8);
        out.extend_from_slice(&self.name);
    }

    /// Reads a whole value.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (ino, kind, name) = Self::parts(bytes)?;
        Ok(Self { ino, kind, name: name.into() })
    }

    /// Reads a whole value without copying the name.
    pub fn parts(bytes: &[u8]) -> Result<(Ino, FileKind, &[u8]), DecodeError> {
        let mut reader = Reader::new(bytes);
        let ino = Ino(reader.varint()?);
        if ino > Ino::MAX {
            return Err(DecodeError::TooLarge("inode number"));
        }
        let kind = FileKind::from_u8(reader.u8()?)?;
        let name = reader.take(reader.remaining())?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(DecodeError::Invalid("name"));
        }
        // Whoever restores such a name would leave the folder that he restores to.
        if matches!(name, b"." | b"..") {
            return Err(DecodeError::Invalid("name"));
        }
        Ok((ino, kind, name))
    }
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// The name: 1 to 255 bytes without NUL.
    pub name: Box<[u8]>,
    /// The value: up to 64 KiB.
    pub value: Box<[u8]>,
}

impl Xattr {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.name.len() as u8);
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&self.value);
    }

    /// Reads a whole value.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let len = reader.u8()?;
        let name = reader.take(usize::from(len))?;
        if name.is_empty() || name.contains(&0) {
            return Err(DecodeError::Invalid("attribute name"));
        }
        let value = reader.take(reader.remaining())?;
        if value.len() > XATTR_BYTES_MAX {
            return Err(DecodeError::TooLarge("attribute value"));
        }
        Ok(Self { name: name.into(), value: value.into() })
    }
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The logical pack.
    pub pack: PackNumber,
    /// Byte offset of the frame in it; also the frame's nonce.
    pub offset: u32,
    /// Bytes of the frame, tag included.
    pub len: u32,
}

impl Location {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.pack.0));
        put_varint(out, u64::from(self.offset));
        put_varint(out, u64::from(self.len));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let location = Self {
            pack: PackNumber(reader.varint32()?),
            offset: reader.varint32()?,
            len: reader.varint32()?,
        };
        if location.len as usize > FRAME_BYTES_MAX {
            return Err(DecodeError::TooLarge("frame"));
        }
        Ok(location)
    }
}

/// Part of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// The chunk.
    pub chunk: ChunkId,
    /// Where it lies.
    pub location: Location,
    /// First byte of it that is meant.
    pub skip: u32,
}

/// A run of a file's bytes that lies in one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u32,
    /// Where they are.
    pub chunk: ChunkRef,
}

impl Extent {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.len));
        put_varint(out, u64::from(self.chunk.skip));
        out.extend_from_slice(&self.chunk.chunk.0);
        self.chunk.location.encode(out);
    }

    /// Reads the next extent.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = reader.varint32()?;
        let skip = reader.varint32()?;
        if len == 0 || u64::from(len) + u64::from(skip) > CHUNK_BYTES_MAX as u64 {
            return Err(DecodeError::Invalid("extent length"));
        }
        let chunk = ChunkId(reader.array()?);
        let location = Location::decode(reader)?;
        Ok(Self { len, chunk: ChunkRef { chunk, location, skip } })
    }

    /// Reads a whole value.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let extent = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(extent)
    }
}

/// A node's name and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePtr {
    /// The keyed hash of its bytes.
    pub id: NodeId,
    /// Where it lies.
    pub location: Location,
}

impl NodePtr {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        self.location.encode(out);
    }

    /// Reads the next pointer.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { id: NodeId(reader.array()?), location: Location::decode(reader)? })
    }
}

/// A page of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Records in order of keys.
    Leaf(Vec<(Key, Box<[u8]>)>),
    /// Children in order; each key is the first key of its child.
    Branch {
        /// Height above the leaves, from 1.
        level: u8,
        /// The children.
        children: Vec<(Key, NodePtr)>,
    },
}

impl Node {
    /// Height above the leaves.
    pub fn level(&self) -> u8 {
        match self {
            Node::Leaf(_) => 0,
            Node::Branch { level, .. } => *level,
        }
    }

    /// The canonical bytes, which the node's name is the hash of.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 << 10);
        out.push(self.level());
        let mut before: Option<Key> = None;
        match self {
            Node::Leaf(records) => {
                put_varint(&mut out, records.len() as u64);
                for (key, value) in records {
                    key.encode_after(before.as_ref(), &mut out);
                    put_varint(&mut out, value.len() as u64);
                    out.extend_from_slice(value);
                    before = Some(*key);
                }
            }
            Node::Branch { children, .. } => {
                put_varint(&mut out, children.len() as u64);
                for (key, child) in children {
                    key.encode_after(before.as_ref(), &mut out);
                    child.encode(&mut out);
                    before = Some(*key);
                }
            }
        }
        out
    }

    /// Reads what `encode` wrote; refuses keys that do not ascend.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > NODE_BYTES_MAX {
            return Err(DecodeError::TooLarge("node"));
        }
        let mut reader = Reader::new(bytes);
        let level = reader.u8()?;
        let count = reader.varint()?;
        // Every entry takes at least four bytes, so this bounds the allocation.
        if count > (bytes.len() / 4) as u64 {
            return Err(DecodeError::TooLarge("number of records"));
        }
        let mut before: Option<Key> = None;
        let node = if level == 0 {
            let mut records = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let key = Key::decode_after(before.as_ref(), &mut reader)?;
                let value = reader.bytes(VALUE_BYTES_MAX, "record")?;
                records.push((key, value.into()));
                before = Some(key);
            }
            Node::Leaf(records)
        } else {
            if level > TREE_HEIGHT_MAX {
                return Err(DecodeError::TooLarge("tree height"));
            }
            if count == 0 {
                return Err(DecodeError::Invalid("empty branch"));
            }
            let mut children = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let key = Key::decode_after(before.as_ref(), &mut reader)?;
                children.push((key, NodePtr::read(&mut reader)?));
                before = Some(key);
            }
            Node::Branch { level, children }
        };
        reader.finish()?;
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(n: u8) -> NodePtr {
        NodePtr { id: NodeId([n; 32]), location: Location { pack: PackNumber(3), offset: 64, len: 900 } }
    }

    #[test]
    fn a_leaf_comes_back() {
        let leaf = Node::Leaf(vec![
            (Key::inode(Ino(1)), b"inode".as_slice().into()),
            (Key::new(Ino(1), RecordKind::Dirent, 1 << 62), b"entry".as_slice().into()),
            (Key::new(Ino(1), RecordKind::Dirent, (1 << 62) + 1), b"".as_slice().into()),
            (Key::inode(Ino(900)), b"x".as_slice().into()),
        ]);
        assert_eq!(Node::decode(&leaf.encode()), Ok(leaf));
    }

    #[test]
    fn a_branch_comes_back() {
        let branch = Node::Branch {
            level: 2,
            children: vec![(Key::FIRST, pointer(1)), (Key::inode(Ino(7)), pointer(2))],
        };
        assert_eq!(Node::decode(&branch.encode()), Ok(branch));
    }

    #[test]
    fn keys_that_do_not_ascend_are_refused() {
        // Two records with the same key: the second repeats the distance zero.
        let bytes = [0, 2, 1, 1, 0, 0, 0, 1, 0, 0];
        assert_eq!(Node::decode(&bytes), Err(DecodeError::Invalid("order of keys")));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in [".", "..", "", "a/b", "a\0"] {
            let entry = Dirent { ino: Ino(16), kind: FileKind::File, name: name.as_bytes().into() };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(Dirent::decode(&bytes), Err(DecodeError::Invalid("name")), "{name:?}");
        }
    }

    #[test]
    fn every_cut_of_a_node_is_refused() {
        let bytes = Node::Branch { level: 1, children: vec![(Key::FIRST, pointer(1))] }.encode();
        for len in 0..bytes.len() {
            assert!(Node::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn an_extent_beyond_its_chunk_is_refused() {
        let extent = Extent {
            len: CHUNK_BYTES_MAX as u32,
            chunk: ChunkRef { chunk: ChunkId([0; 16]), location: pointer(0).location, skip: 1 },
        };
        let mut bytes = Vec::new();
        extent.encode(&mut bytes);
        assert_eq!(Extent::decode(&bytes), Err(DecodeError::Invalid("extent length")));
    }
}
