//! The length of a file as the kernel knows it, which is ahead of the engine's while pages are dirty.
//!
//! Invariants
//! - Nothing here makes the kernel ask a filesystem's server, so a thread that serves one may call it: `/proc` tells
//!   which descriptor it is without looking at the file, and the length is told from memory and without a lock.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};

use fuser::INodeNo;

/// The length of a file that process `pid` has open, on the filesystem with the number `device`.
///
/// Whoever asks about an open file has a descriptor of it, but the request does not say which.
pub(crate) fn of_open_file(pid: u32, device: u64, node: INodeNo) -> io::Result<u64> {
    for info in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = info?;
        // Closed meanwhile by another thread, if it cannot be read.
        let text = fs::read_to_string(info.path()).unwrap_or_default();
        // Before Linux 5.14 it does not say.
        let number = text.lines().find_map(|line| line.strip_prefix("ino:"));
        if number.is_some_and(|number| number.trim().parse() != Ok(node.0)) {
            continue;
        }
        let link = format!("/proc/{pid}/fd/{}", info.file_name().display());
        if let Ok(stat) = known(&CString::new(link)?)
            && libc::makedev(stat.stx_dev_major, stat.stx_dev_minor) == device
            && stat.stx_ino == node.0
        {
            return Ok(stat.stx_size);
        }
    }
    Err(ErrorKind::NotFound.into())
}

/// What the kernel knows of a file without asking anybody.
fn known(path: &CString) -> io::Result<libc::statx> {
    let flags = libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path ends with a zero, and the structure is as large as the call writes.
    unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        let wanted = libc::STATX_INO | libc::STATX_SIZE;
        if libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, wanted, &raw mut stat) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_length_of_an_open_file_is_known() {
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, b"seven b").expect("writes");
        let metadata = file.metadata().expect("stats");
        let (pid, device, node) = (std::process::id(), metadata.dev(), INodeNo(metadata.ino()));
        assert_eq!(of_open_file(pid, device, node).expect("is open"), 7);
        assert_eq!(
            of_open_file(pid, device + 1, node).map_err(|error| error.kind()),
            Err(ErrorKind::NotFound)
        );
        drop(file);
        assert_eq!(of_open_file(pid, device, node).map_err(|error| error.kind()), Err(ErrorKind::NotFound));
    }
}
