//! What the kernel knows of mounts.

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
