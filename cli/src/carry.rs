//! Carrying a folder of this machine into another one, with all that it holds, and comparing the two.
//!
//! Kept are: content with its holes, links of both kinds, special files, modes, owners, times, extended attributes and
//! ACLs. Nobody may write into either while it is done.
//!
//! Invariants
//! - The first folder is only read.
//! - No link is followed.
//! - What cannot be kept is an error that names it: nothing is left out silently.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CString, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr,
    lsetxattr, major, makedev, minor, mknodat, seek, utimensat,
};
use rustix::io::Errno;

use crate::failure::{Failure, Kind, Result};

/// The deepest tree that is carried.
const DEPTH_MAX: usize = 512;
/// What is read at a time, in bytes.
const PART_BYTES: usize = 1 << 20;
/// The longest list of attributes, and the longest value, that the kernel knows.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;
/// Said by the machine's own policy, which says it anew where the file is now.
const MACHINES_OWN: &[&[u8]] = &[b"security.selinux", b"security.ima", b"security.evm"];

/// What was carried, or is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Files and links of all kinds; folders too.
    pub entries: u64,
    /// Bytes of content, holes counted.
    pub bytes: u64,
}

/// Says before each entry and each part of a file whether to go on; its failure is that of the whole.
pub type GoOn<'a> = &'a dyn Fn() -> Result<()>;

/// Carries all of `from` into `to`, an empty folder, which gets the owner, mode and times of `from`.
pub fn carry(from: &Path, to: &Path, go_on: GoOn<'_>) -> Result<Sum> {
    let root = metadata(from)?;
    if !root.is_dir() {
        return Err(Failure::new(Kind::NotFound, format!("{} is no folder", from.display())));
    }
    let mut carrier = Carrier { device: root.dev(), links: HashMap::new(), sum: Sum::default(), go_on };
    carrier.folder(from, to, &root, 0)?;
    Ok(carrier.sum)
}

/// Compares two folders byte by byte; the first difference is an error that names it.
pub fn compare(from: &Path, to: &Path, go_on: GoOn<'_>) -> Result<Sum> {
    let mut comparer = Comparer { links: HashMap::new(), sum: Sum::default(), go_on };
    comparer.same(from, to, 0)?;
    Ok(comparer.sum)
}

struct Carrier<'a> {
    device: u64,
    /// Where the first name of a file with several names is.
    links: HashMap<u64, PathBuf>,
    sum: Sum,
    go_on: GoOn<'a>,
}

impl Carrier<'_> {
    fn folder(&mut self, from: &Path, to: &Path, about: &Metadata, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Failure::other(format!("{} is more than {DEPTH_MAX} folders deep", from.display())));
        }
        for name in names(from)? {
            (self.go_on)()?;
            let (from, to) = (from.join(&name), to.join(&name));
            let about = metadata(&from)?;
            if about.dev() != self.device {
                return Err(Failure::new(
                    Kind::InTheWay,
                    format!("another filesystem is mounted on {}", from.display()),
                )
                .hint("unmount it there: what it holds is not this volume's"));
            }
            if about.is_dir() {
                fs::create_dir(&to).map_err(|error| Failure::io(to.display(), &error))?;
                self.folder(&from, &to, &about, depth + 1)?;
            } else {
                self.entry(&from, &to, &about)?;
                self.sum.entries += 1;
            }
        }
        // After what is in it, which would change its time.
        self.sum.entries += 1;
        dress(from, to, about)
    }

    fn entry(&mut self, from: &Path, to: &Path, about: &Metadata) -> Result<()> {
        if about.is_file() {
            self.sum.bytes += about.len();
        }
        if about.nlink() > 1 {
            if let Some(first) = self.links.get(&about.ino()) {
                return fs::hard_link(first, to).map_err(|error| Failure::io(to.display(), &error));
            }
            self.links.insert(about.ino(), to.to_owned());
        }
        let kind = about.file_type();
        if kind.is_file() {
            copy(from, to, about.len(), self.go_on)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(from).map_err(|error| Failure::io(from.display(), &error))?;
            symlink(target, to).map_err(|error| Failure::io(to.display(), &error))?;
        } else {
            let kind = match () {
                () if kind.is_fifo() => FileType::Fifo,
                () if kind.is_socket() => FileType::Socket,
                () if kind.is_char_device() => FileType::CharacterDevice,
                () => FileType::BlockDevice,
            };
            let device = makedev(major(about.rdev()), minor(about.rdev()));
            mknodat(CWD, to, kind, Mode::from_raw_mode(about.mode()), device)
                .map_err(|errno| failed(to, errno))?;
        }
        dress(from, to, about)
    }
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).map_err(|error| Failure::io(path.display(), &error))
}

fn failed(path: &Path, errno: Errno) -> Failure {
    Failure::io(path.display(), &io::Error::from(errno))
}

fn names(folder: &Path) -> Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::io(folder.display(), &error))?;
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name());
    entries.map(name).collect::<io::Result<_>>().map_err(|error| Failure::io(folder.display(), &error))
}

/// Content, with its holes.
fn copy(from: &Path, to: &Path, bytes: u64, go_on: GoOn<'_>) -> Result<()> {
    let read = |error: &io::Error| Failure::io(from.display(), error);
    let write = |error: &io::Error| Failure::io(to.display(), error);
    let source = File::open(from).map_err(|error| read(&error))?;
    let target = File::create_new(to).map_err(|error| write(&error))?;
    let mut part = vec![0; PART_BYTES];
    for data in data(&source, bytes).map_err(|error| read(&error))? {
        let mut at = data.start;
        while at < data.end {
            go_on()?;
            let want = usize::try_from(data.end - at).unwrap_or(PART_BYTES).min(PART_BYTES);
            let got = source.read_at(&mut part[..want], at).map_err(|error| read(&error))?;
            if got == 0 {
                return Err(Failure::other(format!("{} became shorter while it was read", from.display())));
            }
            target.write_all_at(&part[..got], at).map_err(|error| write(&error))?;
            at += got as u64;
        }
    }
    target.set_len(bytes).map_err(|error| write(&error))
}

/// The ranges of a file that are no holes.
fn data(file: &File, bytes: u64) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < bytes {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // A filesystem without holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, SeekFrom::Hole(start)).unwrap_or(bytes).min(bytes);
        if start >= end {
            break;
        }
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// Gives what was made the owner, mode, attributes and times of what it was made of.
fn dress(from: &Path, to: &Path, about: &Metadata) -> Result<()> {
    lchown(to, Some(about.uid()), Some(about.gid())).map_err(|error| Failure::io(to.display(), &error))?;
    if !about.is_symlink() {
        // After the owner, whose change takes bits away.
        let mode = fs::Permissions::from_mode(about.mode() & 0o7777);
        fs::set_permissions(to, mode).map_err(|error| Failure::io(to.display(), &error))?;
    }
    for (name, value) in attributes(from)? {
        lsetxattr(to, &name, &value, XattrFlags::empty()).map_err(|errno| {
            let name = name.to_string_lossy().into_owned();
            Failure::io(format_args!("the attribute {name} of {}", to.display()), &io::Error::from(errno))
        })?;
    }
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps {
        last_access: time(about.atime(), about.atime_nsec()),
        last_modification: time(about.mtime(), about.mtime_nsec()),
    };
    utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| failed(to, errno))
}

/// The extended attributes of a file, ACLs among them.
fn attributes(path: &Path) -> Result<BTreeMap<CString, Vec<u8>>> {
    let mut list = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = match llistxattr(path, &mut list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(failed(path, errno)),
    };
    let mut found = BTreeMap::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = CString::new(name) else { continue };
        if MACHINES_OWN.contains(&name.as_bytes()) {
            continue;
        }
        let mut value = vec![0; ATTRIBUTE_BYTES_MAX];
        match lgetxattr(path, &name, &mut value) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(failed(path, errno)),
        }
        found.insert(name, value);
    }
    Ok(found)
}

struct Comparer<'a> {
    /// The numbers of files with several names, each with the one it has on the other side.
    links: HashMap<u64, u64>,
    sum: Sum,
    go_on: GoOn<'a>,
}

impl Comparer<'_> {
    fn same(&mut self, from: &Path, to: &Path, depth: usize) -> Result<()> {
        (self.go_on)()?;
        let differs = |what: &str| {
            Err(Failure::new(
                Kind::Damaged,
                format!("adopt_differs: {what} of {} is not that of {}", to.display(), from.display()),
            ))
        };
        if depth > DEPTH_MAX {
            return Err(Failure::other(format!("{} is more than {DEPTH_MAX} folders deep", from.display())));
        }
        let (one, other) = (metadata(from)?, metadata(to)?);
        self.sum.entries += 1;
        if one.mode() != other.mode() {
            return differs("the kind or mode");
        }
        if (one.uid(), one.gid()) != (other.uid(), other.gid()) {
            return differs("the owner");
        }
        if (one.mtime(), one.mtime_nsec()) != (other.mtime(), other.mtime_nsec()) {
            return differs("the time");
        }
        if attributes(from)? != attributes(to)? {
            return differs("an attribute");
        }
        if one.is_dir() {
            let (mine, theirs) = (names(from)?, names(to)?);
            if mine != theirs {
                let odd = mine.symmetric_difference(&theirs).next().cloned().unwrap_or_default();
                return differs(&format!("the list with \"{}\"", odd.to_string_lossy()));
            }
            return mine.iter().try_for_each(|name| self.same(&from.join(name), &to.join(name), depth + 1));
        }
        if one.nlink() > 1 && *self.links.entry(one.ino()).or_insert(other.ino()) != other.ino() {
            return differs("the file behind a name");
        }
        if one.is_symlink() {
            let target =
                |path: &Path| fs::read_link(path).map_err(|error| Failure::io(path.display(), &error));
            return if target(from)? == target(to)? { Ok(()) } else { differs("the target") };
        }
        if one.is_file() {
            self.sum.bytes += one.len();
            if one.len() != other.len() || !same_bytes(from, to, one.len(), self.go_on)? {
                return differs("the content");
            }
        } else if one.rdev() != other.rdev() {
            return differs("the device");
        }
        Ok(())
    }
}

/// Whether two files of one length hold the same. Where both have a hole, nothing is read.
fn same_bytes(from: &Path, to: &Path, bytes: u64, go_on: GoOn<'_>) -> Result<bool> {
    let (one, other) = (open(from)?, open(to)?);
    let read = |path: &Path, error: &io::Error| Failure::io(path.display(), error);
    let mut ranges = data(&one, bytes).map_err(|error| read(from, &error))?;
    ranges.extend(data(&other, bytes).map_err(|error| read(to, &error))?);
    ranges.sort_by_key(|range| range.start);
    let (mut mine, mut theirs) = (vec![0; PART_BYTES], vec![0; PART_BYTES]);
    let mut done = 0;
    for range in ranges {
        let mut at = range.start.max(done);
        while at < range.end {
            go_on()?;
            let want = usize::try_from(range.end - at).unwrap_or(PART_BYTES).min(PART_BYTES);
            one.read_exact_at(&mut mine[..want], at).map_err(|error| read(from, &error))?;
            other.read_exact_at(&mut theirs[..want], at).map_err(|error| read(to, &error))?;
            if mine[..want] != theirs[..want] {
                return Ok(false);
            }
            at += want as u64;
        }
        done = done.max(range.end);
    }
    Ok(true)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Failure::io(path.display(), &error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A folder with one of each.
    fn folder(at: &Path) -> PathBuf {
        let from = at.join("from");
        fs::create_dir_all(from.join("sub/deep")).expect("folders");
        fs::write(from.join("sub/a"), "content").expect("a file");
        fs::hard_link(from.join("sub/a"), from.join("b")).expect("a second name");
        symlink("/nowhere/at all", from.join("link")).expect("a link");
        fs::write(from.join(std::ffi::OsStr::from_bytes(b"not \xff UTF-8")), "x").expect("a file");
        mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("a pipe");
        let sparse = File::create(from.join("sparse")).expect("a file");
        sparse.write_all_at(b"beginning", 0).expect("written");
        sparse.write_all_at(b"end", 64 << 20).expect("written");
        sparse.set_len(65 << 20).expect("longer");
        lsetxattr(from.join("sub/a"), c"user.colour", b"blue", XattrFlags::empty()).expect("an attribute");
        fs::set_permissions(from.join("sub/deep"), fs::Permissions::from_mode(0o2750)).expect("a mode");
        let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        for name in ["sub/a", "sub/deep"] {
            File::open(from.join(name)).expect("open").set_modified(old).expect("a time");
        }
        from
    }

    fn always() -> Result<()> {
        Ok(())
    }

    #[test]
    fn it_stops_where_it_is_told_to_also_within_a_large_file() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let (from, to) = (top.path().join("from"), top.path().join("to"));
        fs::create_dir(&from).expect("a folder");
        fs::create_dir(&to).expect("a folder");
        fs::write(from.join("large"), vec![7; 4 * PART_BYTES]).expect("a file");
        let asked = std::cell::Cell::new(0);
        let enough = |most: u32| {
            let asked = &asked;
            asked.set(0);
            move || {
                asked.set(asked.get() + 1);
                if asked.get() > most { Err(Failure::other("interrupted")) } else { Ok(()) }
            }
        };
        assert_eq!(carry(&from, &to, &enough(3)).expect_err("told to stop").message, "interrupted");
        assert_eq!(fs::read(to.join("large")).expect("begun").len(), 2 * PART_BYTES);
        fs::remove_file(to.join("large")).expect("removed");
        carry(&from, &to, &always).expect("carried");
        assert_eq!(compare(&from, &to, &enough(4)).expect_err("told to stop").message, "interrupted");
        compare(&from, &to, &always).expect("the same");
    }

    #[test]
    fn all_of_a_folder_is_carried_and_is_the_same() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let from = folder(top.path());
        let to = top.path().join("to");
        fs::create_dir(&to).expect("a folder");
        let carried = carry(&from, &to, &always).expect("carried");
        assert_eq!((carried.entries, carried.bytes), (9, 7 + 7 + 1 + (65 << 20)));
        let compared = compare(&from, &to, &always).expect("the same");
        assert_eq!(compared, carried);
        assert_eq!(metadata(&to.join("b")).expect("b").ino(), metadata(&to.join("sub/a")).expect("a").ino());
        assert_eq!(metadata(&to.join("sub/deep")).expect("deep").mode() & 0o7777, 0o2750);
        let room = metadata(&to.join("sparse")).expect("sparse").blocks() * 512;
        assert!(room < 1 << 20, "the hole is a hole: {room}");
    }

    type Change = fn(&Path);

    #[test]
    fn each_kind_of_difference_is_found_and_named() {
        let changes: [(&str, Change); 8] = [
            ("content", |to| {
                let file = File::options().write(true).open(to.join("sub/a")).expect("open");
                let time = file.metadata().expect("metadata").modified().expect("a time");
                file.write_all_at(b"C", 0).expect("written");
                file.set_modified(time).expect("a time");
            }),
            ("content", |to| {
                let file = File::options().write(true).open(to.join("sparse")).expect("open");
                let time = file.metadata().expect("metadata").modified().expect("a time");
                file.write_all_at(b"!", 32 << 20).expect("in the hole");
                file.set_modified(time).expect("a time");
            }),
            ("mode", |to| {
                fs::set_permissions(to.join("sparse"), fs::Permissions::from_mode(0o600)).expect("a mode")
            }),
            ("list", |to| fs::remove_file(to.join("b")).expect("removed")),
            ("time", |to| {
                File::open(to.join("sub/deep"))
                    .expect("open")
                    .set_modified(SystemTime::now())
                    .expect("a time")
            }),
            ("attribute", |to| {
                lsetxattr(to.join("sub/a"), c"user.colour", b"red", XattrFlags::empty())
                    .expect("an attribute");
            }),
            ("list", |to| fs::write(to.join("sub/more"), "x").expect("a file")),
            ("kind", |to| {
                fs::remove_file(to.join("pipe")).expect("removed");
                fs::write(to.join("pipe"), "").expect("a file");
            }),
        ];
        for (what, change) in changes {
            let top = tempfile::tempdir().expect("a temporary folder");
            let from = folder(top.path());
            let to = top.path().join("to");
            fs::create_dir(&to).expect("a folder");
            carry(&from, &to, &always).expect("carried");
            change(&to);
            let failure = compare(&from, &to, &always).expect_err(what);
            assert!(failure.message.starts_with("adopt_differs"), "{failure}");
            // What is added or removed shows in the time of its folder first.
            assert!(failure.message.contains(what) || what == "list" || what == "kind", "{what}: {failure}");
        }
    }
}
