//! The folder where a volume takes changes on this machine, opened so that nothing in it leads elsewhere.
//!
//! Whoever writes in the volume may make any name in it a link, at any time, and what is put back is written by root. So the
//! root is opened once, every folder below it relative to the one before, and no link is followed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::control::Address;
use crate::failure::{Context, Failure, Kind, Result};
use crate::output;
use crate::report::MountReport;
use crate::state::VolumeFolder;

/// What is asked for in the root, to know that it is the root of a volume: every live mount has it, and nothing else does.
const PAST: &str = ".snapshots";
/// How folders are opened.
pub const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The root of a volume that is mounted here and takes changes.
pub fn root(volume: &VolumeFolder) -> Result<OwnedFd> {
    let not = |why: &str| {
        Failure::new(Kind::InTheWay, format!("volume \"{}\" {why}", volume.name))
            .hint("mount it first, or start its app; --to DIR copies to any other folder")
    };
    let Some(mount) = Address::live(&volume.path).status()? else {
        return Err(not("is not mounted here, so it takes no changes"));
    };
    if mount.ending || mount.moment.is_some() {
        return Err(not("is being unmounted"));
    }
    if mount.read_only || mount.trouble.is_some() {
        return Err(Failure::new(
            Kind::NotPermitted,
            format!("volume \"{}\" is read-only here", volume.name),
        )
        .hint("`comb status` says why"));
    }
    let point = point(&mount)?;
    let root = openat(CWD, &point, FOLDER, Mode::empty()).context(point.display())?;
    match openat(&root, PAST, FOLDER, Mode::empty()) {
        Ok(_) => Ok(root),
        // Unmounted in between: what lies under the mount is nobody's volume.
        Err(_) => Err(not("is not mounted here any more")),
    }
}

/// Where it is mounted, which need not be text.
fn point(mount: &MountReport) -> Result<PathBuf> {
    let Some(hex) = &mount.mount_point_hex else { return Ok(PathBuf::from(&mount.mount_point)) };
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    let bytes = bytes.ok_or_else(|| Failure::other("the mount's daemon does not say where it is"))?;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// A folder in a folder; none if there is nothing of that name.
pub fn folder(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>> {
    match openat(dir.as_fd(), OsStr::from_bytes(name), FOLDER, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(Failure::new(
            Kind::InTheWay,
            format!("{} is no folder any more, but a file or a link", output::escape(name)),
        )
        .hint("move it aside; what it leads to is not touched")),
        Err(error) => Err(error).context(output::escape(name)),
    }
}
