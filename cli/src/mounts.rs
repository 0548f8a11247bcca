//! What the kernel knows of mounts.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fs_fuse::table::{self, Entry};
use fs_fuse::{Detach, MountError};

use crate::failure::{Context, Failure, Kind, Result};

/// What the source of every mount of ours begins with.
const SOURCE_PREFIX: &str = "comb:";

/// The source of the topmost mount on `path`, if it is one of ours.
pub fn source_of(path: &Path) -> Result<Option<String>> {
    Ok(find(table::read().context("/proc/self/mountinfo")?, path))
}

fn find(table: Vec<Entry>, path: &Path) -> Option<String> {
    let mount = table.into_iter().rfind(|mount| mount.path == path)?;
    String::from_utf8(mount.source).ok().filter(|source| source.starts_with(SOURCE_PREFIX))
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub struct Lead {
    /// Without links, as far as it is there and outside of mounts of ours.
    pub path: PathBuf,
    /// Where the mount of ours lies that it leads into, if it leads into one.
    pub mount: Option<PathBuf>,
}

/// Where an absolute path leads. No mount of ours is asked for that: who serves it would wait for himself.
pub fn lead(path: &Path) -> Result<Lead> {
    lead_by(&table::read().context("/proc/self/mountinfo")?, path)
}

fn lead_by(table: &[Entry], path: &Path) -> Result<Lead> {
    /// As many as the kernel follows.
    const LINKS_MAX: usize = 40;
    let parts = |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
    let mut rest: Vec<OsString> = parts(path);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        // An absolute target of a link begins anew.
        let next = at.join(&part);
        if let Some(mount) = above(table, &next) {
            rest.reverse();
            return Ok(Lead {
                path: rest.iter().fold(next, |path, part| path.join(part)),
                mount: Some(mount),
            });
        }
        // What cannot be looked at is told by whoever uses it.
        match fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Failure::io(path.display(), &io::Error::from_raw_os_error(libc::ELOOP)));
                }
                rest.extend(parts(&fs::read_link(&next).context(next.display())?));
            }
            _ => at = next,
        }
    }
    Ok(Lead { path: at, mount: None })
}

/// The mount point of the file system that a path without links lies on, if that is one of ours.
fn above(table: &[Entry], path: &Path) -> Option<PathBuf> {
    let mount = table.iter().rfind(|mount| path.starts_with(&mount.path))?;
    mount.source.starts_with(SOURCE_PREFIX.as_bytes()).then(|| mount.path.clone())
}

/// An absolute path without links, also where the last part is a mount whose daemon died.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let path = std::path::absolute(path).context(path.display())?;
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path) };
            Ok(parent.canonicalize().context(parent.display())?.join(name))
        }
        Err(error) => Err(Failure::io(path.display(), &error)),
    }
}

/// Refuses what cannot be mounted on, before anything is opened for it.
pub fn check_mount_point(path: &Path) -> Result<()> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::new(Kind::NotFound, format!("{shown} is not there"))
                .hint(format!("`mkdir {shown}` makes the mount point")));
        }
        Err(error) => return Err(Failure::io(shown, &error)),
    };
    if !metadata.is_dir() {
        return Err(Failure::new(Kind::InTheWay, format!("{shown} is not a folder")));
    }
    if fs::read_dir(path).context(shown)?.next().is_some() {
        return Err(Failure::new(Kind::InTheWay, format!("{} is not empty", path.display()))
            .hint("mount on an empty folder: what is in it would be hidden"));
    }
    Ok(())
}

/// Unmounts `path` without asking its daemon.
pub fn unmount(path: &Path, how: Detach) -> Result<()> {
    fs_fuse::detach(path, None, how).map_err(|error| failure(&error))
}

/// Why mounting or unmounting failed, with what to do.
pub fn failure(error: &MountError) -> Failure {
    let kind = match error {
        MountError::Missing(_) => Kind::NotFound,
        MountError::NotADirectory(_)
        | MountError::NotEmpty(_)
        | MountError::Covered(_)
        | MountError::Dead(_)
        | MountError::Busy(_) => Kind::InTheWay,
        MountError::NoFuse(_) | MountError::NoHelper | MountError::Helper(_) => Kind::NotPermitted,
        MountError::System { what, source } => return Failure::io(what, source),
    };
    let failure = Failure::new(kind, error.to_string());
    match error {
        MountError::Busy(path) => {
            failure.hint(format!("close what uses it; `fuser -vm {}` shows who that is", path.display()))
        }
        MountError::Covered(path) => failure.hint(format!("unmount that first: `umount {}`", path.display())),
        MountError::Dead(path) => failure.hint(format!("`comb unmount {}` clears it away", path.display())),
        MountError::NoFuse(_) => failure
            .hint("load the kernel's module with `modprobe fuse`; a container needs --device /dev/fuse"),
        MountError::NoHelper => failure.hint("install it (Debian: `apt-get install fuse3`) or mount as root"),
        MountError::Helper(said) if said.contains("/dev/fuse") => failure.hint(
            "everybody must be able to open /dev/fuse, as on most machines: `chmod 666 /dev/fuse` as root",
        ),
        MountError::Helper(said) if said.contains("allow_other") => {
            failure.hint("leave out --allow-other, or write `user_allow_other` into /etc/fuse.conf as root")
        }
        MountError::Helper(said) if said.contains("no write access") => {
            failure.hint("a mount point must be yours to write to: `mkdir ~/mount` makes one that is")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
60 22 0:50 / /mnt/a\\040b rw,nosuid shared:1 - fuse.comb comb:0011223344556677 rw,user_id=0
61 22 0:51 / /mnt/other rw - fuse.sshfs host:/x rw
62 61 0:52 / /mnt/other rw - fuse.comb comb:8899aabbccddeeff rw
63 22 0:53 / /mnt/under rw - fuse.comb comb:8899aabbccddeeff rw
64 63 0:54 / /mnt/under rw - tmpfs tmpfs rw
";

    #[test]
    fn a_mount_of_ours_is_known_by_its_source() {
        assert_eq!(
            find(table::parse(TABLE), Path::new("/mnt/a b")).as_deref(),
            Some("comb:0011223344556677")
        );
        assert_eq!(
            find(table::parse(TABLE), Path::new("/mnt/other")).as_deref(),
            Some("comb:8899aabbccddeeff")
        );
        assert_eq!(find(table::parse(TABLE), Path::new("/mnt/under")), None, "something else lies on top");
        assert_eq!(find(table::parse(TABLE), Path::new("/")), None);
        assert_eq!(find(table::parse(TABLE), Path::new("/mnt")), None);
    }

    #[test]
    fn what_lies_below_a_mount_of_ours_is_known_by_its_path() {
        let table = table::parse(TABLE);
        let mount = |path: &str| above(&table, Path::new(path));
        assert_eq!(mount("/mnt/a b"), Some("/mnt/a b".into()));
        assert_eq!(mount("/mnt/a b/c/d"), Some("/mnt/a b".into()));
        assert_eq!(mount("/mnt/a bc"), None, "another name");
        assert_eq!(mount("/mnt/under/c"), None, "something else lies on top");
        assert_eq!(mount("/mnt"), None);
    }

    #[test]
    fn a_path_is_followed_through_links_up_to_a_mount_of_ours() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().canonicalize().expect("it is there");
        std::os::unix::fs::symlink("b/../b", root.join("a")).expect("a link");
        fs::create_dir_all(root.join("b/mount/inside")).expect("folders");
        std::os::unix::fs::symlink(root.join("a/mount"), root.join("b/link")).expect("a link");
        std::os::unix::fs::symlink("loop", root.join("loop")).expect("a link");
        let path = root.join("b/mount");
        let table = [Entry { device: 1, path: path.clone(), source: b"comb:0011".to_vec() }];
        let lead = |table: &[Entry], to: &str| lead_by(table, &root.join(to));
        let ours = |to: &str| Ok(Lead { path: root.join(to), mount: Some(path.clone()) });
        let others = |to: &str| Ok(Lead { path: root.join(to), mount: None });
        assert_eq!(lead(&table, "a/link/inside/x"), ours("b/mount/inside/x"));
        assert_eq!(lead(&table, "a/mount"), ours("b/mount"));
        assert_eq!(lead(&[], "a/link/inside/x/y"), others("b/mount/inside/x/y"), "the end is not there");
        assert_eq!(lead(&table, "a/x"), others("b/x"));
        assert_eq!(lead(&table, "loop/x").map_err(|failure| failure.errno), Err(Some(libc::ELOOP)));
    }

    #[test]
    fn a_bad_mount_point_is_told_before_anything_happens() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        assert_eq!(check_mount_point(&file).expect_err("not there").kind, Kind::NotFound);
        check_mount_point(folder.path()).expect("an empty folder");
        fs::write(&file, "").expect("a file");
        assert_eq!(check_mount_point(&file).expect_err("a file").kind, Kind::InTheWay);
        assert_eq!(check_mount_point(folder.path()).expect_err("not empty").kind, Kind::InTheWay);
    }
}
