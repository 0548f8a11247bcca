//! The nodes of IPFS that are made here: objects cut into leaves, and the links of a directory.
//!
//! Invariants
//! - An object has one form, so its size follows from what its link says of it, and a node above leaves that
//!   is not byte for byte the one that would be made here is none of ours.
//! - A block has at most [`BLOCK_BYTES_MAX`]; larger ones do not travel between nodes.

use bytes::Bytes;

use super::cid::{CID_BYTES, Cid, Codec};
use super::wire::{Field, put_bytes, put_number, take_field, varint_bytes};

/// Bytes of a leaf; an object of so many at most has no node above it.
pub(super) const LEAF_BYTES: u64 = 256 << 10;
/// The largest block that every node takes.
pub(super) const BLOCK_BYTES_MAX: usize = 1 << 20;
/// The largest object: its node has 4,096 links, and some 200 KiB.
pub(super) const OBJECT_BYTES_MAX: u64 = 1 << 30;

/// The UnixFS types that there are.
const DIRECTORY: u64 = 1;
const FILE: u64 = 2;

/// A block with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) cid: Cid,
    pub(super) bytes: Bytes,
}

impl Block {
    pub(super) fn new(codec: Codec, bytes: impl Into<Bytes>) -> Block {
        let bytes = bytes.into();
        Block { cid: Cid::of(codec, &bytes), bytes }
    }
}

/// A link of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) cid: Cid,
    pub(super) name: String,
    /// Bytes of all blocks that it leads to.
    pub(super) total: u64,
}

/// The blocks of an object; the last is the one that names it.
pub(super) fn cut(object: &Bytes) -> Vec<Block> {
    if object.len() as u64 <= LEAF_BYTES {
        return vec![Block::new(Codec::Raw, object.clone())];
    }
    let size = object.len();
    let ends = (0..size).step_by(LEAF_BYTES as usize);
    let mut blocks: Vec<Block> = ends
        .map(|from| Block::new(Codec::Raw, object.slice(from..size.min(from + LEAF_BYTES as usize))))
        .collect();
    let leaves: Vec<Cid> = blocks.iter().map(|block| block.cid).collect();
    blocks.push(Block::new(Codec::DagPb, above(size as u64, &leaves)));
    blocks
}

/// The node above the leaves of an object of that size.
fn above(size: u64, leaves: &[Cid]) -> Vec<u8> {
    let sizes = || (0..leaves.len() as u64).map(|leaf| leaf_bytes(size, leaf));
    let links = leaves.iter().zip(sizes()).map(|(cid, total)| Link { cid: *cid, name: String::new(), total });
    let mut data = Vec::new();
    put_number(&mut data, 1, FILE);
    put_number(&mut data, 3, size);
    for bytes in sizes() {
        put_number(&mut data, 4, bytes);
    }
    node(links, &data)
}

/// How many leaves an object of that size has.
pub(super) fn leaves(size: u64) -> u64 {
    size.div_ceil(LEAF_BYTES)
}

/// The bytes of a leaf of an object of that size.
pub(super) fn leaf_bytes(size: u64, leaf: u64) -> u64 {
    (size - leaf * LEAF_BYTES).min(LEAF_BYTES)
}

/// The leaves of an object of that size, by the node above them; nothing if it is not that node.
pub(super) fn leaves_below(block: &[u8], size: u64) -> Option<Vec<Cid>> {
    let (links, _) = read(block)?;
    let found: Vec<Cid> = links.iter().map(|link| link.cid).collect();
    let ours = found.len() as u64 == leaves(size) && found.iter().all(|leaf| leaf.codec == Codec::Raw);
    (ours && above(size, &found) == block).then_some(found)
}

/// Bytes of all blocks of an object of that size.
pub(super) fn total(size: u64) -> u64 {
    if size <= LEAF_BYTES {
        return size;
    }
    let (full, last) = (leaves(size) - 1, leaf_bytes(size, leaves(size) - 1));
    // Hash and name, each behind two bytes, then the size.
    let link = |bytes: u64| {
        let inside = 2 + CID_BYTES as u64 + 2 + 1 + varint_bytes(bytes);
        1 + varint_bytes(inside) + inside
    };
    let data = 2 + 1 + varint_bytes(size) + full * (1 + varint_bytes(LEAF_BYTES)) + 1 + varint_bytes(last);
    size + full * link(LEAF_BYTES) + link(last) + 1 + varint_bytes(data) + data
}

/// The size of an object of that name, all blocks of which have so many bytes; nothing if there is none such.
pub(super) fn size_of(codec: Codec, all: u64) -> Option<u64> {
    let (mut low, mut high) = match codec {
        Codec::Raw => return (all <= LEAF_BYTES).then_some(all),
        Codec::DagPb => (LEAF_BYTES + 1, OBJECT_BYTES_MAX),
    };
    // A larger object always has more.
    while low < high {
        let middle = low.midpoint(high);
        if total(middle) < all { low = middle + 1 } else { high = middle }
    }
    (total(low) == all).then_some(low)
}

/// A directory with these links, which must be in the order of their names.
pub(super) fn directory(links: impl IntoIterator<Item = Link>) -> Vec<u8> {
    let mut data = Vec::new();
    put_number(&mut data, 1, DIRECTORY);
    node(links, &data)
}

/// The links of a directory; nothing if it is none.
pub(super) fn links_of(block: &[u8]) -> Option<Vec<Link>> {
    let (links, data) = read(block)?;
    let mut data = data;
    let kind = take_field(&mut data)?;
    (kind == (1, Field::Number(DIRECTORY)) && data.is_empty()).then_some(links)
}

fn node(links: impl IntoIterator<Item = Link>, data: &[u8]) -> Vec<u8> {
    let (mut node, mut inside) = (Vec::new(), Vec::new());
    for link in links {
        inside.clear();
        put_bytes(&mut inside, 1, &link.cid.to_bytes());
        put_bytes(&mut inside, 2, link.name.as_bytes());
        put_number(&mut inside, 3, link.total);
        put_bytes(&mut node, 2, &inside);
    }
    put_bytes(&mut node, 1, data);
    node
}

/// The links and the data of a node, in the one order that there is.
fn read(mut rest: &[u8]) -> Option<(Vec<Link>, &[u8])> {
    let mut links = Vec::new();
    loop {
        match take_field(&mut rest)? {
            (2, Field::Bytes(mut link)) => {
                let (1, Field::Bytes(cid)) = take_field(&mut link)? else { return None };
                let (2, Field::Bytes(name)) = take_field(&mut link)? else { return None };
                let (3, Field::Number(total)) = take_field(&mut link)? else { return None };
                let name = std::str::from_utf8(name).ok()?.to_owned();
                links.push(Link { cid: Cid::from_bytes(cid).filter(|_| link.is_empty())?, name, total });
            }
            (1, Field::Bytes(data)) => return rest.is_empty().then_some((links, data)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(size: usize) -> Bytes {
        (0..size).map(|at| (at.wrapping_mul(31).wrapping_add(at >> 8)) as u8).collect()
    }

    #[test]
    fn objects_are_cut_as_others_cut_them() {
        // Made by ipfs-unixfs-importer 16 (JavaScript) of the same bytes.
        for (size, name, all) in [
            (262_144, "bafkreicyf2rsjlabvogs5vfihpzfegm2q5hjwrohaneftr2crm6gsnlznm", 262_144),
            (262_145, "bafybeidgoqoyg4yhalu6oks2gnsjbs74tnoepwkl77plj4i4rd6lhvt424", 262_249),
            (600_000, "bafybeibusxrtljsia6kaurxl7qmvh4vvhqn43pw25i5fhayz5gdvffkqhu", 600_158),
            (5_242_883, "bafybeia4ehqn4dlvjkfeyugy5hpoaysl6zonbit7bzpeh5a52ruxuzuxca", 5_243_938),
        ] {
            let blocks = cut(&object(size));
            let root = blocks.last().expect("there is one");
            assert_eq!(root.cid.to_string(), name, "{size}");
            assert_eq!(blocks.iter().map(|block| block.bytes.len() as u64).sum::<u64>(), all);
            assert_eq!(total(size as u64), all);
            assert_eq!(size_of(root.cid.codec, all), Some(size as u64));
            if let [leaves @ .., _] = &blocks[..]
                && !leaves.is_empty()
            {
                let names: Vec<Cid> = leaves.iter().map(|leaf| leaf.cid).collect();
                assert_eq!(leaves_below(&root.bytes, size as u64), Some(names));
                assert_eq!(leaves_below(&root.bytes, size as u64 - 1), None, "another size");
            }
        }
    }

    #[test]
    fn the_size_of_every_object_follows_from_its_link() {
        let around = |size: u64| size.saturating_sub(3)..=size + 3;
        let sizes = [1, 2, 3, 63, 64, 127, 128, 8_191, 8_192].map(|leaves| leaves * LEAF_BYTES);
        for size in sizes.into_iter().filter(|size| *size < OBJECT_BYTES_MAX).flat_map(around) {
            let codec = if size <= LEAF_BYTES { Codec::Raw } else { Codec::DagPb };
            assert_eq!(size_of(codec, total(size)), Some(size));
        }
        assert_eq!(size_of(Codec::DagPb, total(OBJECT_BYTES_MAX)), Some(OBJECT_BYTES_MAX));
        for (codec, none) in [(Codec::Raw, LEAF_BYTES + 1), (Codec::DagPb, 5), (Codec::DagPb, u64::MAX)] {
            assert_eq!(size_of(codec, none), None);
        }
        // Of two links, so that what is between is nobody's.
        assert_eq!(size_of(Codec::DagPb, total(2 * LEAF_BYTES) + 1), None);
        let largest = leaves(OBJECT_BYTES_MAX) as usize;
        let above = above(OBJECT_BYTES_MAX, &vec![Cid::of(Codec::Raw, b""); largest]);
        assert!(above.len() <= BLOCK_BYTES_MAX, "{}", above.len());
        assert_eq!(above.len() as u64 + OBJECT_BYTES_MAX, total(OBJECT_BYTES_MAX));
    }

    #[test]
    fn directories_come_back_and_nothing_else() {
        let link =
            |name: &str| Link { cid: Cid::of(Codec::Raw, name.as_bytes()), name: name.to_owned(), total: 7 };
        let links = vec![link("a"), link("b~")];
        let block = directory(links.clone());
        assert_eq!(links_of(&block), Some(links));
        assert_eq!(links_of(&directory([])), Some(vec![]));
        let file = cut(&object(600_000));
        assert_eq!(links_of(&file.last().expect("a node").bytes), None, "a file is no directory");
        for cut in 0..block.len() {
            assert_eq!(links_of(&block[..cut]), None, "{cut}");
        }
    }
}
