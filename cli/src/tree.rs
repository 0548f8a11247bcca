//! Walking a sealed tree.

use fs_format::{FileKind, Ino};
use fs_volume::{Attr, DirEntry, FsError, ReadTree};

use crate::engine;
use crate::failure::{Failure, Kind, Result};
use crate::output;

/// How much of a file is read at a time, in bytes.
pub const READ_BYTES: usize = 1 << 20;
/// How many entries of a directory are read at a time.
const ENTRIES: usize = 1024;

/// The inode at a path below the root; the last part is not followed if it is a link, and neither
/// are the others: a link leads where the mount's reader decides, not here.
pub fn find(tree: &dyn ReadTree, path: &[u8]) -> Result<Attr> {
    fs_volume::resolve(tree, path).map_err(|error| {
        let shown = if path.is_empty() { b"/" } else { path };
        let failure = engine::fs_failure(output::escape(shown), &error);
        match error {
            // Below a file there is nothing, either.
            FsError::NotFound | FsError::NotADirectory => {
                Failure { kind: Kind::NotFound, ..failure }.hint("`comb ls NAME@WHEN:` shows what is there")
            }
            _ => failure,
        }
    })
}

/// The entries of a directory, in the order of their names.
pub fn entries(tree: &dyn ReadTree, dir: Ino) -> std::result::Result<Vec<DirEntry>, FsError> {
    let mut all = Vec::new();
    let mut cookie = 0;
    loop {
        let some = tree.read_dir(dir, cookie, ENTRIES)?;
        let Some(last) = some.last() else { break };
        cookie = last.cookie;
        all.extend(some);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The last part of a path; the volume's own name stands in for the root.
pub fn base_name<'a>(path: &'a [u8], root: &'a str) -> &'a [u8] {
    match path.rsplit(|byte| *byte == b'/').next() {
        None | Some(b"") => root.as_bytes(),
        Some(name) => name,
    }
}

/// Whether it makes sense to look into it.
pub fn is_directory(attr: &Attr) -> bool {
    attr.inode.kind == FileKind::Directory
}
