//! A node of the tree: a leaf of records or a branch of pointers.

use fs_format::Ino;
use fs_format::tree::{Key, NODE_BYTES_MAX, Node, RecordKind, TREE_HEIGHT_MAX, VALUE_BYTES_MAX};

use super::{magnitude, samples};
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || Node::decode(input),
        |node| {
            if input.len() > NODE_BYTES_MAX {
                return Err("above the largest node".into());
            }
            same(&node.encode(), input)?;
            let (len, ascending) = match node {
                Node::Leaf(records) => (records.len(), records.is_sorted_by(|one, next| one.0 < next.0)),
                Node::Branch { children, .. } => {
                    (children.len(), children.is_sorted_by(|one, next| one.0 < next.0))
                }
            };
            if !ascending {
                return Err("keys that do not ascend".into());
            }
            Ok(u64::from(node.level()) << 8 | magnitude(len))
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let leaf = vec![
        (Key::orphan(Ino(900)), Box::default()),
        (Key::inode(Ino::ROOT), samples::bytes(|out| samples::file().encode(out)).into()),
        (Key::new(Ino::ROOT, RecordKind::Dirent, 1 << 62), b"entry".as_slice().into()),
        (Key::new(Ino::ROOT, RecordKind::Dirent, (1 << 62) + 1), b"".as_slice().into()),
        (
            Key::new(Ino(16), RecordKind::Extent, 0),
            samples::bytes(|out| samples::extent().encode(out)).into(),
        ),
        (
            Key::new(Ino(16), RecordKind::Extent, 8192),
            samples::bytes(|out| samples::extent().encode(out)).into(),
        ),
        (Key::new(Ino::MAX, RecordKind::Orphan, u64::MAX), b"x".as_slice().into()),
    ];
    let tiny = (1..200).map(|n| (Key::inode(Ino(n)), Box::default())).collect();
    let largest = vec![(Key::FIRST, vec![0; VALUE_BYTES_MAX].into())];
    let children = (1..40).map(|n| (Key::inode(Ino(u64::from(n) * 300)), samples::pointer(n))).collect();
    [
        Node::Leaf(vec![]),
        Node::Leaf(leaf),
        Node::Leaf(tiny),
        Node::Leaf(largest),
        Node::Branch { level: 1, children: vec![(Key::FIRST, samples::pointer(1))] },
        Node::Branch { level: TREE_HEIGHT_MAX, children },
    ]
    .iter()
    .map(Node::encode)
    .collect()
}
