//! A small process that works on the mount in the daemon's place.
//!
//! Whoever waits for the mount from within its own server is stuck with it: killed in the middle of a sync, the server could not end,
//! because its end waits for an answer that only it could have given, and everybody else on the mount would wait with it. The hand holds
//! nothing of the connection: when the server is killed the kernel ends the connection, and the hand with it.
//!
//! Invariants
//! - The daemon never opens anything on a mount that it serves, once that is mounted.
//! - After `fork` the child calls what may be called there: no memory is allocated, no lock taken, nothing panics.
//! - The child holds no descriptor but its socket and the mount's root, and ends with its socket.
//! - A root that is kept open belongs to a mount of the child's own, which no path leads to: whatever is renamed, unmounted or
//!   mounted over the volume's folder, the root stays usable, and it keeps nobody from unmounting. The kernel ends the
//!   session only after it is closed, so it is kept only while somebody has a file open for writing.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What the hand is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Wish {
    /// Open the mount's root, if it is not open yet.
    Open = 1,
    /// Let the kernel begin to write all dirty pages.
    Begin = 2,
    /// Sync one inode.
    Sync = 3,
    /// Close the root if it keeps the mount busy.
    Rest = 4,
    /// Close the root.
    Close = 5,
}

/// The other end of the hand.
pub(crate) struct Hand {
    socket: OwnedFd,
    pid: libc::pid_t,
}

impl Hand {
    /// Starts a hand for the mount at `root`, which has the device number `device`.
    pub(crate) fn start(root: &CStr, device: u64) -> io::Result<Self> {
        let mut pair = [-1; 2];
        // SAFETY: the array has room for both descriptors.
        if unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())
        } < 0
        {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned two new descriptors that nobody else owns.
        let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) };
        // SAFETY: the child only calls `serve`, which keeps to what is allowed after a fork of a process with threads.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => serve(theirs.as_raw_fd(), root, device),
            pid => Ok(Self { socket: ours, pid }),
        }
    }

    /// The process, as the kernel names it in requests.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Opens the mount's root, if it is not open yet; `ENODEV` if the path names another filesystem.
    pub(crate) fn open(&self) -> io::Result<()> {
        self.ask(Wish::Open, 0)
    }

    /// Lets the kernel begin to write all dirty pages; waits for nothing.
    pub(crate) fn begin(&self) -> io::Result<()> {
        self.ask(Wish::Begin, 0)
    }

    /// Syncs one inode.
    pub(crate) fn sync(&self, node: u64) -> io::Result<()> {
        self.ask(Wish::Sync, node)
    }

    /// Closes the root if it keeps the mount busy, which is so before Linux 5.2 only.
    pub(crate) fn rest(&self) -> io::Result<()> {
        self.ask(Wish::Rest, 0)
    }

    /// Closes the root. If all else of the mount is gone, the session ends.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.ask(Wish::Close, 0)
    }

    fn ask(&self, wish: Wish, node: u64) -> io::Result<()> {
        let message = [wish as u64, node];
        let mut errno: u64 = 0;
        let socket = self.socket.as_raw_fd();
        // SAFETY: the pointer and the length are those of the message, which outlives the call.
        let sent =
            unsafe { libc::send(socket, message.as_ptr().cast(), size_of_val(&message), libc::MSG_NOSIGNAL) };
        if sent < 0 {
            return Err(lost(&io::Error::last_os_error()));
        }
        loop {
            // SAFETY: the pointer and the length are those of the number, which outlives the call.
            let got = unsafe { libc::recv(socket, (&raw mut errno).cast(), size_of_val(&errno), 0) };
            if got == size_of_val(&errno) as isize {
                break;
            }
            let error = io::Error::last_os_error();
            if got >= 0 || error.kind() != io::ErrorKind::Interrupted {
                return Err(lost(&error));
            }
        }
        if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno as i32)) }
    }
}

/// `umount2`, which waits until the kernel has handed over its dirty pages.
///
/// `ENODEV` if the path names another filesystem than the one with the number `device`.
pub(crate) fn unmount(path: &CStr, device: Option<u64>, flags: i32) -> io::Result<()> {
    // SAFETY: the child calls what is allowed after a fork of a process with threads, and ends.
    let pid = unsafe {
        match libc::fork() {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                let_go(0);
                if device.is_some_and(|device| is_another(path, device)) {
                    libc::_exit(libc::ENODEV);
                }
                let done = libc::umount2(path.as_ptr(), flags) == 0;
                libc::_exit(if done { 0 } else { *libc::__errno_location() });
            }
            pid => pid,
        }
    };
    let mut status = 0;
    // SAFETY: waits for the child, which nobody else does; the number outlives the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(()),
        // The numbers of errors fit the eight bits that a process leaves.
        errno if libc::WIFEXITED(status) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::other("the process that unmounts was killed")),
    }
}

/// Whether the path names another filesystem, or nothing.
unsafe fn is_another(path: &CStr, device: u64) -> bool {
    // SAFETY: the path ends with a zero, and the structure is as large as the call writes.
    unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
        if libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, 0, &raw mut stat) == 0 {
            libc::makedev(stat.stx_dev_major, stat.stx_dev_minor) != device
        } else {
            // A mount that cannot answer can still be unmounted.
            *libc::__errno_location() == libc::ENOENT
        }
    }
}

/// Closes every descriptor from `first` on: above all the connection to the kernel, and the lock of the volume.
unsafe fn let_go(first: u32) {
    // SAFETY: calls of the kernel with numbers and a structure of this function.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) < 0 {
            // Before Linux 5.9.
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            for fd in first..limit.rlim_cur.min(1 << 20) as u32 {
                libc::close(fd as i32);
            }
        }
    }
}

/// Whether a hand is gone, and another one is to be started.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

fn lost(error: &io::Error) -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        format!("the process that fetches dirty pages is gone ({error})"),
    )
}

impl Drop for Hand {
    fn drop(&mut self) {
        // SAFETY: shuts the open socket down, which ends the child, and waits for the child, which nobody else does.
        unsafe {
            libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_RDWR);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// The kernel's file handle for a FUSE inode: its node id in two halves, and its generation.
#[repr(C)]
struct FuseFileHandle {
    bytes: u32,
    kind: i32,
    node_high: u32,
    node_low: u32,
    generation: u32,
}

/// `FILEID_INO64_GEN` of the kernel.
const HANDLE_KIND: i32 = 0x81;
const HANDLE_BYTES: u32 = 12;

/// The child's life.
fn serve(socket: i32, path: &CStr, device: u64) -> ! {
    // SAFETY: calls of the kernel with descriptors and memory of this function; see the module for what is avoided.
    unsafe {
        // Signals for the daemon's group are the daemon's business. Should it die, so does this.
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"comb-push".as_ptr());
        // The daemon's memory holds keys.
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        if libc::dup2(socket, 0) < 0 {
            libc::_exit(1);
        }
        let_go(1);
        let mut root = Root { fd: -1, is_own: false };
        loop {
            let mut message = [0_u64; 2];
            let got = libc::recv(0, message.as_mut_ptr().cast(), size_of_val(&message), 0);
            if got != size_of_val(&message) as isize {
                libc::_exit(0);
            }
            let [wish, node] = message;
            let done = if wish == Wish::Open as u64 {
                root.fd >= 0 || open_root(path, device, &mut root)
            } else if wish == Wish::Begin as u64 {
                // On a FUSE mount this starts the writing and does not wait for it. What it returns are errors of pages
                // written since the last time; whoever wrote them is told.
                libc::syncfs(root.fd);
                true
            } else if wish == Wish::Sync as u64 {
                sync_node(root.fd, node)
            } else {
                if root.fd >= 0 && (wish == Wish::Close as u64 || !root.is_own) {
                    libc::close(root.fd);
                    root.fd = -1;
                }
                true
            };
            let errno = if done { 0 } else { *libc::__errno_location() as u64 };
            if libc::send(0, (&raw const errno).cast(), size_of_val(&errno), libc::MSG_NOSIGNAL) < 0 {
                libc::_exit(0);
            }
        }
    }
}

/// The open root; negative if it is not open.
struct Root {
    fd: i32,
    /// It belongs to a mount that nobody else uses.
    is_own: bool,
}

/// `OPEN_TREE_CLONE` of the kernel.
const OPEN_TREE_CLONE: i32 = 1;

unsafe fn open_root(path: &CStr, device: u64, root: &mut Root) -> bool {
    // SAFETY: the path ends with a zero, the structure is whole, and the descriptors are open.
    unsafe {
        let how = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let tree = libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_NO_AUTOMOUNT,
        ) as i32;
        let fd = if tree < 0 {
            // Before Linux 5.2, or where a filter of calls knows none that new.
            libc::open(path.as_ptr(), how)
        } else {
            let fd = libc::openat(tree, c".".as_ptr(), how);
            let errno = *libc::__errno_location();
            // The new mount lives on in the open root, and belongs to no tree that others change.
            libc::close(tree);
            *libc::__errno_location() = errno;
            fd
        };
        if fd < 0 {
            return false;
        }
        let mut stat: libc::stat = std::mem::zeroed();
        // After an unmount, the same path names the folder below.
        if libc::fstat(fd, &raw mut stat) < 0 || stat.st_dev != device {
            libc::close(fd);
            *libc::__errno_location() = libc::ENODEV;
            return false;
        }
        *root = Root { fd, is_own: tree >= 0 };
        true
    }
}

unsafe fn sync_node(root: i32, node: u64) -> bool {
    let mut handle = FuseFileHandle {
        bytes: HANDLE_BYTES,
        kind: HANDLE_KIND,
        node_high: (node >> 32) as u32,
        node_low: node as u32,
        generation: 0,
    };
    // SAFETY: the struct has the layout of `struct file_handle` with 12 bytes behind its two
    // fields, as its first field says, and outlives the call; what it returns is closed here.
    unsafe {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let fd = libc::syscall(libc::SYS_open_by_handle_at, root, &raw mut handle, flags) as i32;
        if fd < 0 {
            return false;
        }
        let done = libc::fdatasync(fd) == 0;
        let errno = *libc::__errno_location();
        libc::close(fd);
        *libc::__errno_location() = errno;
        done
    }
}
