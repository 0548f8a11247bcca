//! The keys that an open volume works with, derived once.

use fs_crypto::{ChunkNames, NameHash, NodeNames, ReadKey};

/// What the read key gives. The volume key itself is kept by those who sign.
pub struct Keys {
    /// What all others are derived from.
    pub read: ReadKey,
    /// Names chunks.
    pub chunks: ChunkNames,
    /// Names nodes and pages of the pack table.
    pub nodes: NodeNames,
    /// Says where a name lies in its directory.
    pub names: NameHash,
    /// What all volumes with this read key have in common.
    pub domain: [u8; 16],
}

impl Keys {
    /// Derives them.
    pub fn new(read: ReadKey) -> Self {
        Self {
            chunks: read.chunk_names(),
            nodes: read.node_names(),
            names: read.name_hash(),
            domain: read.domain(),
            read,
        }
    }
}
