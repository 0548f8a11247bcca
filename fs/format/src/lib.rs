//! Names, sizes and bytes of everything Comb stores.
//!
//! Pure: no I/O, no clock, no chance, no secrets. `fs/docs/format.md` is the
//! normative description; this crate follows its order. Every decoder bounds
//! every length before it allocates and never panics on foreign bytes.

mod codec;
mod ids;
mod inode;

pub mod claim;
pub mod dedup;
pub mod journal;
pub mod ledger;
pub mod manifest;
pub mod moved;
pub mod pack;
pub mod ring;
pub mod signature;
pub mod tree;

pub use codec::{DecodeError, Reader, put_bytes, put_varint};
pub use ids::{
    AccountId, ChunkId, DeviceId, Epoch, Ino, ManifestId, NodeId, PackId, PackNumber, RingNumber, Seq,
    SnapshotId, StoreId, Timestamp, VolumeId,
};
pub use inode::{FileKind, Inode};
