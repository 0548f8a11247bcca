//! Values for seeds: ordinary ones, and those at the edges of their fields.

use fs_format::manifest::{PackEntry, PagePtr};
use fs_format::tree::{ChunkRef, Extent, Location, NodePtr};
use fs_format::{ChunkId, FileKind, Ino, Inode, NodeId, PackId, PackNumber, Seq, Timestamp};

/// A file as most are.
pub fn file() -> Inode {
    Inode {
        kind: FileKind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        size: 70_000,
        allocated: 69_632,
        rdev: 0,
        atime: Timestamp(1_760_000_000_000_000_005),
        mtime: Timestamp(1_760_000_000_000_000_000),
        ctime: Timestamp(1_760_000_000_000_000_009),
        btime: Timestamp(1_750_000_000_000_000_000),
        parent: Ino::ROOT,
        home: 1 << 60,
    }
}

/// A file with every field at its largest.
pub fn extreme() -> Inode {
    Inode {
        kind: FileKind::Socket,
        mode: 0o7777,
        uid: u32::MAX,
        gid: u32::MAX,
        nlink: u32::MAX,
        size: i64::MAX as u64,
        allocated: u64::MAX,
        rdev: u32::MAX,
        atime: Timestamp(i64::MIN),
        mtime: Timestamp(i64::MAX),
        ctime: Timestamp(0),
        btime: Timestamp(-1),
        parent: Ino::MAX,
        home: u64::MAX,
    }
}

/// A place of a frame.
pub fn location() -> Location {
    Location { pack: PackNumber(3), offset: 1 << 20, len: 4000 }
}

/// Part of a chunk.
pub fn chunk() -> ChunkRef {
    ChunkRef { chunk: ChunkId([7; 16]), location: location(), skip: 4096 }
}

/// A run of bytes in it.
pub fn extent() -> Extent {
    Extent { len: 8192, chunk: chunk() }
}

/// A node's name and place.
pub fn pointer(n: u8) -> NodePtr {
    NodePtr { id: NodeId([n; 32]), location: location() }
}

/// A line of the pack table.
pub fn entry(n: u8) -> PackEntry {
    PackEntry { object: PackId([n; 32]), bytes: 16 << 20, birth: Seq(u64::from(n)) }
}

/// A pointer to a page of it.
pub fn page(n: u8) -> PagePtr {
    PagePtr { id: NodeId([n; 32]), object: PackId([n; 32]), offset: 64, len: 3000 }
}

/// The bytes that `encode` appends.
pub fn bytes(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}
