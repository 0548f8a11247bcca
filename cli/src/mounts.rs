//! What the kernel knows of mounts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_fuse::table::{self, Entry};

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

/// Unmounts `path` without asking its daemon; `lazily` also if it is in use.
pub fn unmount(path: &Path, lazily: bool) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        use rustix::mount::UnmountFlags;
        let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        return rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW)
            .map_err(|error| failure(path, &error.into()));
    }
    let helper = Command::new("fusermount3")
        .arg(if lazily { "-uz" } else { "-u" })
        .arg("--")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .context("fusermount3")?;
    if helper.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&helper.stderr);
    let kind = if said.contains("busy") { Kind::InTheWay } else { Kind::Other };
    Err(Failure::new(kind, format!("{}: {}", path.display(), said.trim())).hint(hint(path)))
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::io(path.display(), error);
    if failure.kind == Kind::InTheWay { failure.hint(hint(path)) } else { failure }
}

/// How to find out who uses a mount.
pub fn hint(path: &Path) -> String {
    format!("close what uses it; `fuser -vm {}` shows who that is", path.display())
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
