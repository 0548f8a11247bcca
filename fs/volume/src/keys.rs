//! The keys that an open volume works with, derived once.

use fs_crypto::{ChunkNames, NameHash, NodeNames, ReadKey};

/// What the read key gives. The volume key itself is kept by those who sign.
pub struct Keys {
    pub read: ReadKey,
    pub chunks: ChunkNames,
    pub nodes: NodeNames,
    pub names: NameHash,
    pub domain: [u8; 16],
}

impl Keys {
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
