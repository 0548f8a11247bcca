//! What is kept of a file besides its name and its bytes.

use crate::codec::{DecodeError, Reader, put_varint};
use crate::ids::{Ino, Timestamp};
use crate::tree::FILE_BYTES_MAX;

/// The kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileKind {
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A character device.
    CharDevice = 5,
    /// A block device.
    BlockDevice = 6,
    /// A socket.
    Socket = 7,
}

impl FileKind {
    /// The kind with this number.
    pub fn from_u8(value: u8) -> Result<Self, DecodeError> {
        Ok(match value {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::CharDevice,
            6 => Self::BlockDevice,
            7 => Self::Socket,
            _ => return Err(DecodeError::Invalid("file kind")),
        })
    }
}

/// An inode record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Kind of file; never changes.
    pub kind: FileKind,
    /// Permission bits, 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; for a directory 2 + its subdirectories.
    pub nlink: u32,
    /// Bytes; for a directory the number of its entries.
    pub size: u64,
    /// Bytes that chunks or the tree hold for it, as of the last seal.
    pub allocated: u64,
    /// Device number of a special file, as Linux encodes it.
    pub rdev: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the record.
    pub ctime: Timestamp,
    /// Birth.
    pub btime: Timestamp,
    /// A directory that has a name for it (for a directory: its parent); 0 when not known.
    pub parent: Ino,
    /// The sub key of that name in `parent`.
    pub home: u64,
}

impl Inode {
    /// Appends the encoding of `fs/docs/format.md`, "Inode".
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        put_varint(out, u64::from(self.mode));
        put_varint(out, u64::from(self.uid));
        put_varint(out, u64::from(self.gid));
        put_varint(out, u64::from(self.nlink));
        put_varint(out, self.size);
        put_varint(out, self.allocated);
        put_varint(out, u64::from(self.rdev));
        out.extend_from_slice(&self.mtime.0.to_le_bytes());
        // The other times are mostly equal or near: a zigzag distance is short.
        for time in [self.atime, self.ctime, self.btime] {
            let distance = time.0.wrapping_sub(self.mtime.0);
            put_varint(out, ((distance << 1) ^ (distance >> 63)) as u64);
        }
        put_varint(out, self.parent.0);
        out.extend_from_slice(&self.home.to_le_bytes());
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = FileKind::from_u8(reader.u8()?)?;
        let mode = reader.varint()?;
        if mode > 0o7777 {
            return Err(DecodeError::TooLarge("mode"));
        }
        let (uid, gid, nlink) = (reader.varint32()?, reader.varint32()?, reader.varint32()?);
        let size = reader.varint()?;
        if size > FILE_BYTES_MAX {
            return Err(DecodeError::TooLarge("file size"));
        }
        let allocated = reader.varint()?;
        let rdev = reader.varint32()?;
        let mtime = reader.i64()?;
        let mut near = || -> Result<Timestamp, DecodeError> {
            let zigzag = reader.varint()?;
            Ok(Timestamp(mtime.wrapping_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))))
        };
        let (atime, ctime, btime) = (near()?, near()?, near()?);
        let parent = Ino(reader.varint()?);
        if parent > Ino::MAX {
            return Err(DecodeError::TooLarge("inode number"));
        }
        let home = reader.u64()?;
        Ok(Self {
            kind,
            mode: mode as u16,
            uid,
            gid,
            nlink,
            size,
            allocated,
            rdev,
            atime,
            mtime: Timestamp(mtime),
            ctime,
            btime,
            parent,
            home,
        })
    }
}
