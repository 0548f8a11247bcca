//! All that can be seen of a tree, to compare two of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fs_format::{FileKind, Ino, Timestamp};
use fs_volume::{DirEntry, FsError, ReadTree, Seek};

use crate::Model;
use crate::content::Digester;

/// Files up to this size are read whole, larger ones where `seek` finds data.
const WHOLE_BYTES_MAX: u64 = 4 << 20;

/// How much is read at once. A multiple of the model's page.
const READ_BYTES: usize = 128 << 10;

/// How many entries are asked for at once: few, so that positions are used.
const ENTRIES_AT_ONCE: usize = 5;

/// Entries that a directory of a simulated tree never reaches; more means that positions do not advance.
const ENTRIES_MAX: usize = 100_000;

/// A tree by its paths. The root is the empty path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dump {
    /// Every path with what is there.
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

/// What is seen of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Kind of file.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u16,
    /// Owner and group; zero for a whiteout, whose owner is not a promise.
    pub owner: (u32, u32),
    /// Number of names.
    pub nlink: u32,
    /// Bytes, or entries.
    pub size: u64,
    /// Device number.
    pub rdev: u32,
    /// Hash of a file's bytes or a symbolic link's target.
    pub content: [u8; 32],
    /// Extended attributes with hashes of their values.
    pub xattrs: BTreeMap<Vec<u8>, [u8; 32]>,
    /// The first path that leads to the same inode.
    pub same_as: Vec<u8>,
    /// What a model does not know: access, modification, change and birth times, and the position of the
    /// entry in its directory.
    pub exact: Option<([Timestamp; 4], u64)>,
}

impl Dump {
    /// The same without what a model does not know.
    pub fn plain(&self) -> Self {
        let entries =
            self.entries.iter().map(|(path, entry)| (path.clone(), Entry { exact: None, ..entry.clone() }));
        Self { entries: entries.collect() }
    }

    /// One hash of everything.
    pub fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(format!("{self:?}").as_bytes()).as_bytes()
    }

    /// What differs, in words, at most a few lines.
    pub fn difference(&self, other: &Dump) -> String {
        let mut out = String::new();
        let paths: std::collections::BTreeSet<_> = self.entries.keys().chain(other.entries.keys()).collect();
        let mut more = 0;
        for path in paths {
            let (left, right) = (self.entries.get(path), other.entries.get(path));
            if left == right {
                continue;
            }
            if out.lines().count() > 8 {
                more += 1;
                continue;
            }
            let shown = path.escape_ascii();
            let _ = match (left, right) {
                (Some(left), Some(right)) => writeln!(out, "  /{shown}: {}", left.difference(right)),
                (Some(left), None) => writeln!(out, "  /{shown}: a {:?} only in the first", left.kind),
                (_, _) => writeln!(out, "  /{shown}: only in the second"),
            };
        }
        if more > 0 {
            let _ = writeln!(out, "  and {more} more");
        }
        out
    }
}

impl Entry {
    fn difference(&self, other: &Entry) -> String {
        let mut out = String::new();
        let mut field = |name: &str, left: String, right: String| {
            if left != right {
                let _ = write!(out, "{name} {left} / {right}; ");
            }
        };
        let hex = |hash: &[u8; 32]| blake3::Hash::from(*hash).to_hex()[..8].to_owned();
        field("kind", format!("{:?}", self.kind), format!("{:?}", other.kind));
        field("mode", format!("{:o}", self.mode), format!("{:o}", other.mode));
        field("owner", format!("{:?}", self.owner), format!("{:?}", other.owner));
        field("nlink", self.nlink.to_string(), other.nlink.to_string());
        field("size", self.size.to_string(), other.size.to_string());
        field("rdev", self.rdev.to_string(), other.rdev.to_string());
        field("content", hex(&self.content), hex(&other.content));
        field("same as", self.same_as.escape_ascii().to_string(), other.same_as.escape_ascii().to_string());
        let xattrs = |entry: &Entry| -> Vec<String> {
            entry.xattrs.iter().map(|(name, hash)| format!("{}={}", name.escape_ascii(), hex(hash))).collect()
        };
        field("xattrs", format!("{:?}", xattrs(self)), format!("{:?}", xattrs(other)));
        field("times and position", format!("{:?}", self.exact), format!("{:?}", other.exact));
        out
    }
}

/// Sees all of a tree; `exact` with times and positions.
pub fn dump(tree: &dyn ReadTree, exact: bool) -> Result<Dump, FsError> {
    let mut walk = Walk { tree, exact, first_paths: BTreeMap::new(), dump: Dump::default() };
    walk.add(Vec::new(), Ino::ROOT, 0)?;
    Ok(walk.dump)
}

struct Walk<'a> {
    tree: &'a dyn ReadTree,
    exact: bool,
    first_paths: BTreeMap<Ino, Vec<u8>>,
    dump: Dump,
}

impl Walk<'_> {
    fn add(&mut self, path: Vec<u8>, ino: Ino, cookie: u64) -> Result<(), FsError> {
        let attr = self.tree.attr(ino)?;
        let inode = &attr.inode;
        let content = match inode.kind {
            FileKind::File => content_of(self.tree, ino, inode.size)?,
            FileKind::Symlink => *blake3::hash(&self.tree.read_link(ino)?).as_bytes(),
            _ => [0; 32],
        };
        let mut xattrs = BTreeMap::new();
        for name in self.tree.xattrs(ino)? {
            let value = self.tree.xattr(ino, &name)?;
            xattrs.insert(name, *blake3::hash(&value).as_bytes());
        }
        let is_whiteout = inode.kind == FileKind::CharDevice && inode.rdev == 0;
        let times = [inode.atime, inode.mtime, inode.ctime, inode.btime];
        let is_dir = inode.kind == FileKind::Directory;
        let entry = Entry {
            kind: inode.kind,
            mode: inode.mode,
            owner: if is_whiteout { (0, 0) } else { (inode.uid, inode.gid) },
            nlink: inode.nlink,
            size: inode.size,
            rdev: inode.rdev,
            content,
            xattrs,
            same_as: self.first_paths.entry(ino).or_insert_with(|| path.clone()).clone(),
            exact: self.exact.then_some((times, cookie)),
        };
        self.dump.entries.insert(path.clone(), entry);
        if is_dir {
            // In the order of names, so that the first path of an inode is the same in every tree.
            let mut entries = entries_of(self.tree, ino)?;
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                let found = self.tree.lookup(ino, &entry.name)?;
                if (found.ino, found.inode.kind) != (entry.ino, entry.kind) {
                    let name = entry.name.escape_ascii();
                    return Err(FsError::Damaged(format!("the listing and the look-up of {name} differ")));
                }
                let mut child = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(&entry.name);
                self.add(child, entry.ino, entry.cookie)?;
            }
        }
        Ok(())
    }
}

/// All entries of a directory, a few at a time.
pub(crate) fn entries_of(tree: &dyn ReadTree, dir: Ino) -> Result<Vec<DirEntry>, FsError> {
    let mut all: Vec<DirEntry> = Vec::new();
    let mut cookie = 0;
    loop {
        let some = tree.read_dir(dir, cookie, ENTRIES_AT_ONCE)?;
        let Some(last) = some.last() else { return Ok(all) };
        if last.cookie <= cookie || some.len() > ENTRIES_AT_ONCE || all.len() > ENTRIES_MAX {
            return Err(FsError::Damaged("positions in a directory do not advance".to_owned()));
        }
        cookie = last.cookie;
        all.extend(some);
    }
}

fn content_of(tree: &dyn ReadTree, ino: Ino, size: u64) -> Result<[u8; 32], FsError> {
    let mut digester = Digester::new(size);
    let mut at = 0;
    while at < size {
        let mut end = size;
        if size > WHOLE_BYTES_MAX {
            // Data may begin in the middle of a page, but digests are made of whole ones.
            let page = |offset: u64| offset / 4096 * 4096;
            match tree.seek(ino, at, Seek::Data) {
                Ok(data) => at = at.max(page(data)),
                Err(FsError::NoSuchOffset) => break,
                Err(error) => return Err(error),
            }
            let hole = tree.seek(ino, at.max(tree.seek(ino, at, Seek::Data)?), Seek::Hole)?;
            end = page(hole.saturating_add(4095)).min(size);
        }
        while at < end {
            let len = (end - at).min(READ_BYTES as u64) as usize;
            let bytes = tree.read(ino, at, len)?;
            if bytes.len() != len {
                return Err(FsError::Damaged(format!("{} bytes instead of {len} at {at}", bytes.len())));
            }
            digester.add(at, &bytes);
            at += len as u64;
        }
    }
    Ok(digester.finish())
}

/// Compares a tree whose disk was damaged with what it held. Everything that can be read must be right;
/// what cannot must say so with [`FsError::Damaged`]. Returns how many things were refused that way, or what
/// was wrong.
pub fn damage(tree: &dyn ReadTree, model: &Model) -> Result<usize, String> {
    let mut count = 0;
    compare(tree, Ino::ROOT, model, Ino::ROOT, "", &mut count)?;
    Ok(count)
}

/// How much of a file is compared at once when something is damaged.
const WINDOW_BYTES: u64 = 16 << 10;

fn compare(
    tree: &dyn ReadTree,
    ino: Ino,
    model: &Model,
    twin: Ino,
    path: &str,
    count: &mut usize,
) -> Result<(), String> {
    // Says what was found, or `None` for damage that was named.
    fn found<T>(
        result: Result<T, FsError>,
        what: &str,
        path: &str,
        count: &mut usize,
    ) -> Result<Option<T>, String> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(FsError::Damaged(_)) => {
                *count += 1;
                Ok(None)
            }
            Err(error) => Err(format!("{what} of /{path}: {error}")),
        }
    }
    let wrong = |what: &str| Err(format!("{what} of /{path} is wrong"));

    let expected = model.attr(twin).map_err(|error| format!("the model has no /{path}: {error}"))?.inode;
    if let Some(attr) = found(tree.attr(ino), "attributes", path, count)? {
        let seen = |inode: &fs_format::Inode| (inode.kind, inode.mode, inode.nlink, inode.size, inode.rdev);
        if seen(&attr.inode) != seen(&expected) {
            return wrong("an attribute");
        }
    }
    if let Some(mut names) = found(tree.xattrs(ino), "attributes", path, count)? {
        names.sort();
        if Ok(&names) != model.xattrs(twin).as_ref() {
            return wrong("the list of extended attributes");
        }
        for name in names {
            let value = found(tree.xattr(ino, &name), "an extended attribute", path, count)?;
            if value.is_some() && value != model.xattr(twin, &name).ok() {
                return wrong("an extended attribute");
            }
        }
    }
    match expected.kind {
        FileKind::Symlink => {
            let target = found(tree.read_link(ino), "target", path, count)?;
            if target.is_some() && target != model.read_link(twin).ok() {
                return wrong("the target");
            }
        }
        FileKind::File => {
            for (start, end) in windows(model, twin) {
                let len = (end - start) as usize;
                let bytes = found(tree.read(ino, start, len), "bytes", path, count)?;
                if bytes.is_some() && bytes != model.read(twin, start, len).ok() {
                    return Err(format!("bytes {start}..{end} of /{path} are wrong and nothing says so"));
                }
            }
        }
        FileKind::Directory => {
            if let Some(entries) = found(entries_of(tree, ino), "entries", path, count)? {
                let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
                names.sort();
                let expected = entries_of(model, twin).map_err(|error| error.to_string())?;
                if names != expected.into_iter().map(|entry| entry.name).collect::<Vec<_>>() {
                    return wrong("the list of names");
                }
            }
            for entry in entries_of(model, twin).map_err(|error| error.to_string())? {
                let child = format!("{path}/{}", entry.name.escape_ascii());
                if let Some(attr) = found(tree.lookup(ino, &entry.name), "look-up", &child, count)? {
                    compare(tree, attr.ino, model, entry.ino, &child, count)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// The parts of a file that are worth reading: around its data, and its end.
fn windows(model: &Model, ino: Ino) -> Vec<(u64, u64)> {
    let Some(content) = model.content(ino) else { return Vec::new() };
    let mut windows: Vec<(u64, u64)> = Vec::new();
    for (start, end) in content.ranges() {
        match windows.last_mut() {
            Some(last) if last.1 == start && end - last.0 <= WINDOW_BYTES => last.1 = end,
            _ => windows.push((start, end)),
        }
    }
    windows
}
