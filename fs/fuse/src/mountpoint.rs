//! Attaching to a folder and detaching from it: `mount(2)` for root, `fusermount3` for others.
//!
//! Done here rather than by fuser, which may unmount a second time what was unmounted from outside,
//! and by then something else may lie at that path.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_volume::TAKEN_BYTES_MAX;
use thiserror::Error;

use crate::{hand, table};

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
/// Where the helper learns which socket to send the device's descriptor to.
const HELPER_SOCKET_ENV: &str = "_FUSE_COMMFD";
const SUBTYPE: &str = "comb";

/// Why a volume could not be mounted or unmounted.
#[derive(Debug, Error)]
pub enum MountError {
    /// The folder is not there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// Only folders are mounted on.
    #[error("{} is not a folder", .0.display())]
    NotADirectory(PathBuf),
    /// Files in it would be hidden.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// What is mounted there has lost its daemon.
    #[error("a dead mount lies on {}", .0.display())]
    Dead(PathBuf),
    /// The kernel has no FUSE, or this user may not use it.
    #[error("cannot open {DEVICE}: {0}")]
    NoFuse(#[source] io::Error),
    /// Ordinary users mount with the help of a program that is not installed.
    #[error("{HELPER} is not installed")]
    NoHelper,
    /// The helper refused; in its words.
    #[error("{HELPER}: {0}")]
    Helper(String),
    /// Something on it is in use.
    #[error("{} is in use", .0.display())]
    Busy(PathBuf),
    /// The mount cannot be reached by its path.
    #[error("something else is mounted over {}", .0.display())]
    Covered(PathBuf),
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The error.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// What to ask of the kernel for a mount.
pub(crate) struct Terms<'a> {
    pub(crate) fs_name: &'a str,
    pub(crate) read_only: bool,
    pub(crate) allow_other: bool,
}

/// Checks that `dir` can be mounted on and returns its absolute path.
pub(crate) fn check(dir: &Path) -> Result<PathBuf, MountError> {
    if is_dead(dir) {
        return Err(MountError::Dead(dir.into()));
    }
    let path = dir.canonicalize().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => MountError::Missing(dir.into()),
        Some(libc::ENOTDIR) => MountError::NotADirectory(dir.into()),
        _ => MountError::System { what: "looking at the mount point", source: error },
    })?;
    let metadata = path.metadata().map_err(MountError::system("looking at the mount point"))?;
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory(path));
    }
    let mut entries = path.read_dir().map_err(MountError::system("reading the mount point"))?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty(path));
    }
    Ok(path)
}

/// Whether what is mounted on `dir` has lost its daemon.
///
/// The kernel goes on to answer most calls from its caches; `statfs` always asks the daemon.
pub fn is_dead(dir: &Path) -> bool {
    let Ok(dir) = CString::new(dir.as_os_str().as_bytes()) else {
        return false;
    };
    let mut answer = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a NUL-terminated string, and the answer is as large as the call writes.
    let outcome = unsafe { libc::statfs(dir.as_ptr(), answer.as_mut_ptr()) };
    // ECONNABORTED is said to whoever asked while the daemon died.
    let died = |error: io::Error| matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED));
    outcome != 0 && died(io::Error::last_os_error())
}

/// Mounts on `path` and returns the connection to the kernel.
pub(crate) fn attach(path: &Path, terms: &Terms<'_>) -> Result<OwnedFd, MountError> {
    let refused = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
    let device = match OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(DEVICE) {
        Ok(device) => device,
        // The helper may open what we may not.
        Err(error) if refused(&error) => return attach_by_helper(path, terms),
        Err(error) => return Err(MountError::NoFuse(error)),
    };
    match attach_directly(path, terms, &device) {
        Ok(()) => Ok(device.into()),
        Err(error) if refused(&error) => {
            drop(device);
            attach_by_helper(path, terms)
        }
        Err(error) => Err(MountError::system("mounting")(error)),
    }
}

fn attach_directly(path: &Path, terms: &Terms<'_>, device: &File) -> io::Result<()> {
    // SAFETY: these take no arguments and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut data = format!(
        "fd={},rootmode={:o},user_id={uid},group_id={gid},default_permissions",
        device.as_raw_fd(),
        path.metadata()?.mode() & libc::S_IFMT,
    );
    if terms.allow_other {
        data.push_str(",allow_other");
    }
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if terms.read_only {
        flags |= libc::MS_RDONLY;
    }
    let source = CString::new(terms.fs_name)?;
    let target = CString::new(path.as_os_str().as_bytes())?;
    let kind = CString::new(format!("fuse.{SUBTYPE}"))?;
    let data = CString::new(data)?;
    // SAFETY: all pointers are NUL-terminated strings that outlive the call.
    let outcome =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn attach_by_helper(path: &Path, terms: &Terms<'_>) -> Result<OwnedFd, MountError> {
    let mut options = format!("fsname={},subtype={SUBTYPE},default_permissions", escaped(terms.fs_name));
    for (wanted, option) in [(terms.read_only, ",ro"), (terms.allow_other, ",allow_other")] {
        if wanted {
            options.push_str(option);
        }
    }
    let (ours, theirs) = UnixStream::pair().map_err(MountError::system("making a socket"))?;
    let mut command = Command::new(HELPER);
    command
        .args([OsStr::new("-o"), OsStr::new(&options), OsStr::new("--"), path.as_os_str()])
        .env(HELPER_SOCKET_ENV, OsString::from(theirs.as_raw_fd().to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let socket = theirs.as_raw_fd();
    // SAFETY: `keep_over_exec` calls nothing but fcntl, which may be called after a fork.
    unsafe { command.pre_exec(move || keep_over_exec(socket)) };
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => MountError::NoHelper,
        _ => MountError::system("starting fusermount3")(error),
    })?;
    // Only the helper may hold it now, so that its end is seen.
    drop(theirs);
    let device = receive_descriptor(&ours);
    let mut words = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What cannot be read of its words is left out of the message.
        let _ = stderr.read_to_string(&mut words);
    }
    let status = child.wait().map_err(MountError::system("waiting for fusermount3"))?;
    match device {
        Ok(device) if status.success() => Ok(device),
        _ => Err(MountError::Helper(words.trim().trim_start_matches("fusermount3: ").to_owned())),
    }
}

/// The helper splits its options at commas.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace(',', "\\,")
}

fn keep_over_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: clears the flags (there is but one) of a descriptor that is open.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one descriptor, as `SCM_RIGHTS`.
fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0_u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // Aligned for the header, and ample for one descriptor.
    let mut control = [0_u64; 8];
    // SAFETY: a zeroed message header is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    loop {
        // SAFETY: the header points to buffers of the lengths it says, which outlive the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if received > 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if received == 0 || error.kind() != ErrorKind::Interrupted {
            return Err(if received == 0 { ErrorKind::UnexpectedEof.into() } else { error });
        }
    }
    // SAFETY: the kernel filled the header; the macros stay within `msg_controllen`, and the data
    // of an SCM_RIGHTS message is a descriptor that is ours from now on.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let rights = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS;
        if !rights {
            return Err(ErrorKind::InvalidData.into());
        }
        let fd = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>());
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// Only when nothing on it is in use.
    WhenIdle,
    /// From the path at once, from those who use it when they end.
    Lazily,
}

/// Unmounts `path`; it is no error if nothing is mounted there.
///
/// With a `device`, nothing else than the mount with that number is unmounted.
pub fn detach(path: &Path, device: Option<u64>, how: Detach) -> Result<(), MountError> {
    let target = CString::new(path.as_os_str().as_bytes())
        .map_err(|error| MountError::system("unmounting")(error.into()))?;
    let lazily = if how == Detach::Lazily { libc::MNT_DETACH } else { 0 };
    let Err(error) = hand::unmount(&target, device, libc::UMOUNT_NOFOLLOW | lazily) else { return Ok(()) };
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOENT) => Ok(()),
        Some(libc::EBUSY) => Err(MountError::Busy(path.into())),
        Some(libc::ENODEV) => Err(MountError::Covered(path.into())),
        Some(libc::EPERM) => detach_by_helper(path, how),
        _ => Err(MountError::system("unmounting")(error)),
    }
}

fn detach_by_helper(path: &Path, how: Detach) -> Result<(), MountError> {
    let mut command = Command::new(HELPER);
    command.arg("-u");
    if how == Detach::Lazily {
        command.arg("-z");
    }
    let output = command.arg("--").arg(path).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => MountError::NoHelper,
        _ => MountError::system("starting fusermount3")(error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("busy") {
        return Err(MountError::Busy(path.into()));
    }
    if words.contains("not found in") || words.contains("not mounted") {
        return Ok(());
    }
    Err(MountError::Helper(words.trim().trim_start_matches("fusermount3: ").to_owned()))
}

/// The device number of what is mounted on `path`, without asking the mount itself.
pub(crate) fn device_of(path: &Path) -> io::Result<u64> {
    let mut mounts = table::read()?.into_iter();
    mounts
        .rfind(|mount| mount.path == path)
        .map(|mount| mount.device)
        .ok_or_else(|| ErrorKind::NotFound.into())
}

/// Where the mount with this device number lies now: its folder may have been renamed, or bound elsewhere.
pub(crate) fn paths_of(device: u64) -> io::Result<Vec<PathBuf>> {
    Ok(table::read()?.into_iter().filter(|mount| mount.device == device).map(|mount| mount.path).collect())
}

/// What the kernel reads ahead on a mount, in KiB. Its own 128 leave a reader in order waiting for each request; much
/// more would be read around each fault of a mapped file as well.
const READAHEAD_KIB: u64 = 512;

/// Lets the kernel read further ahead, where root may ask for that; it grants a FUSE server no more than its default.
pub(crate) fn widen_readahead(device: u64) {
    tune(device, "read_ahead_kb", READAHEAD_KIB, |now| now < READAHEAD_KIB);
}

/// Bounds what the kernel may hold dirty of a mount.
///
/// By itself it is some 0.2 % of the memory. An old kernel or a read-only `/sys` leaves it so: then only on a machine with
/// much memory, and only what was not synced, ENOSPC comes at `fsync` or `close`.
pub(crate) fn bound_dirty_pages(device: u64) {
    tune(device, "max_bytes", TAKEN_BYTES_MAX, |now| now > TAKEN_BYTES_MAX);
}

/// Sets a number of the kernel's for a mount, if what it is now is worse.
fn tune(device: u64, name: &str, wanted: u64, is_worse: impl Fn(u64) -> bool) {
    let path = format!("/sys/class/bdi/{}:{}/{name}", libc::major(device), libc::minor(device));
    let now = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    if now.is_some_and(is_worse)
        && let Err(error) = std::fs::write(&path, wanted.to_string())
    {
        tracing::debug!(path, %error, "the kernel's setting stays as it is");
    }
}
