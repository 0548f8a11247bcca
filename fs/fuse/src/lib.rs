//! The kernel adapter: decodes requests, calls the engine, replies.
//!
//! What each call promises stands in `fs/docs/semantics.md`. The parts:
//!
//! - [`engine`]: what the adapter needs of an engine
//! - `adapter`: one method for each request
//! - `node`: node ids and attributes
//! - `past`: the directory `.snapshots`
//! - `readers`: open files of a tree that changes by itself
//! - `acl`, `xattr`: access control lists and extended attributes
//! - `commit`: one wait for the disk for all `fsync`s
//! - `dirty`, `hand`: fetching the kernel's dirty pages, by a process of its own
//! - `length`: what only the kernel knows of a file that is being written
//! - `full`: letting `write` tell that the volume is full
//! - `patience`: writes that wait for room
//! - `time`: the end of the time in which the engine may be changed
//! - [`table`]: the kernel's table of mounts
//! - `mountpoint`: `mount(2)`, `fusermount3`, unmounting
//! - `errno`: the engine's errors as the kernel's numbers

mod acl;
mod adapter;
mod asker;
mod commit;
mod dirty;
pub mod engine;
mod errno;
mod full;
mod hand;
mod length;
mod mountpoint;
mod node;
mod past;
mod patience;
mod readers;
pub mod table;
mod time;
mod volume;
mod xattr;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fs_format::{Ino, Seq};
use fuser::{Config, Notifier, Session, SessionACL};
use parking_lot::{Condvar, Mutex};

use adapter::{Adapter, Character, Doors};
use commit::Committer;
use dirty::{DirtyPages, Writers};
use full::Full;
use mountpoint::Terms;
use patience::Waiter;
use readers::Readers;

pub use asker::asker_was_killed;
pub use dirty::PushError;
pub use engine::{Engine, Followed, Moment, Past, Still};
pub use mountpoint::{Detach, MountError, detach, is_dead};

/// Finds the moment that a name in `.snapshots` means, beyond the names that are listed.
pub type Resolver = Arc<dyn Fn(&str) -> Option<Seq> + Send + Sync>;

/// More threads than this never helped.
const THREADS_MAX: usize = 64;
/// How often, and how far apart, an unmount is tried while a push may hold the mount.
const UNMOUNT_TRIES: u32 = 10;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// How to mount.
#[derive(Clone)]
pub struct MountOptions {
    /// Refuse all changes. Must also be set for an engine that never changes.
    pub read_only: bool,
    /// Let the kernel keep written pages for a while. Small writes are several times faster; somebody must
    /// call [`Mounted::begin_writing_dirty_pages`] every second, and
    /// [`Mounted::push_dirty_pages`] before a snapshot, which takes root.
    pub writeback: bool,
    /// Let every user use the mount, as permissions allow.
    pub allow_other: bool,
    /// Threads that serve requests; as many as cores is best.
    pub threads: usize,
    /// What `mount` and `df` show as the source.
    pub fs_name: String,
    /// Keep and obey POSIX access control lists.
    pub acl: bool,
    /// Takes names in `.snapshots` such as `yesterday 18:00`.
    pub resolver: Option<Resolver>,
}

impl Default for MountOptions {
    fn default() -> Self {
        // SAFETY: takes no arguments and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        Self {
            read_only: false,
            writeback: root,
            allow_other: root,
            threads: thread::available_parallelism().map_or(1, usize::from),
            fs_name: "comb".into(),
            acl: true,
            resolver: None,
        }
    }
}

/// A volume on a folder. Dropping it unmounts, lazily if it must.
pub struct Mounted {
    path: PathBuf,
    /// Its number in the kernel's table; none while it is being mounted.
    device: Option<u64>,
    end: Arc<End>,
    dirty: Option<DirtyPages>,
    writers: Arc<Writers>,
    full: Arc<Full>,
    /// Of a tree that changes by itself: who has files of it open, and how the kernel is told.
    readers: Option<(Arc<Readers>, Notifier)>,
}

/// How the session ended, once it has.
#[derive(Default)]
struct End {
    outcome: Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

impl End {
    fn tell(&self, outcome: Result<(), String>) {
        *self.outcome.lock() = Some(outcome);
        self.changed.notify_all();
    }

    fn wait(&self) -> Result<(), MountError> {
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                None => self.changed.wait(&mut outcome),
                Some(Ok(())) => return Ok(()),
                Some(Err(words)) => {
                    return Err(MountError::System {
                        what: "serving the mount",
                        source: io::Error::other(words.clone()),
                    });
                }
            }
        }
    }

    fn has_come(&self) -> bool {
        self.outcome.lock().is_some()
    }
}

/// Mounts `engine` on the empty folder `dir` and serves it on threads of its own.
///
/// The engine is shared: whoever holds it beside the mount may read, sync and seal it, but must not change
/// files, because the kernel caches them; but see [`Engine::changes_by_itself`].
pub fn mount<E: Engine>(engine: Arc<E>, dir: &Path, options: MountOptions) -> Result<Mounted, MountError> {
    let path = mountpoint::check(dir)?;
    let committer = Committer::start(Arc::clone(&engine)).map_err(MountError::system("starting a thread"))?;
    let writers = Arc::new(Writers::default());
    let writeback = Arc::new(AtomicBool::new(false));
    let character = Character {
        read_only: options.read_only,
        writeback: options.writeback && !options.read_only,
        acl: options.acl,
        resolver: options.resolver,
    };
    let (full, forgotten) = Full::new();
    let waiter = Waiter::start(Arc::clone(&engine), Arc::clone(&full), Arc::clone(&writeback))
        .map_err(MountError::system("starting a thread"))?;
    let readers = engine.changes_by_itself().then(Arc::<Readers>::default);
    let adapter = Adapter::new(
        engine,
        Doors { commits: committer.door(), patience: waiter.door() },
        Arc::clone(&writers),
        Arc::clone(&full),
        readers.clone(),
        Arc::clone(&writeback),
        character,
    );

    let terms =
        Terms { fs_name: &options.fs_name, read_only: options.read_only, allow_other: options.allow_other };
    let device = mountpoint::attach(&path, &terms)?;
    // From here on, leaving early must unmount.
    let mut mounted = Mounted {
        path,
        device: None,
        end: Arc::default(),
        dirty: None,
        writers: Arc::clone(&writers),
        full,
        readers: None,
    };

    let mut config = Config::default();
    config.n_threads = Some(options.threads.clamp(1, THREADS_MAX));
    config.clone_fd = true;
    // Who may use the mount is the kernel's to check: fuser's own check would refuse what the kernel does
    // on its own behalf, as root.
    let session = Session::from_fd(adapter, device, SessionACL::All, config)
        .map_err(MountError::system("greeting the kernel"))?;
    let notifier = session.notifier();
    mounted.readers = readers.map(|readers| (readers, notifier.clone()));
    let end = Arc::clone(&mounted.end);
    thread::Builder::new()
        .name("comb-mount".into())
        .spawn(move || {
            let outcome = session.run();
            drop((waiter, committer));
            end.tell(outcome.map_err(|error| error.to_string()));
        })
        .map_err(MountError::system("starting a thread"))?;

    let device = mountpoint::device_of(&mounted.path).map_err(MountError::system("looking for the mount"))?;
    mounted.device = Some(device);
    writers.device.get_or_init(|| device);
    mountpoint::widen_readahead(device);
    if writeback.load(Ordering::Relaxed) {
        full::start(notifier, forgotten).map_err(MountError::system("starting a thread"))?;
        mountpoint::bound_dirty_pages(device);
        let dirty = DirtyPages::start(mounted.path.clone(), device, writers)
            .map_err(MountError::system("starting a thread"))?;
        mounted.dirty = Some(dirty);
    }
    Ok(mounted)
}

impl Mounted {
    /// The folder that it was mounted on, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the volume is unmounted, by whomever, and all requests are answered.
    pub fn wait(&self) -> Result<(), MountError> {
        self.end.wait()
    }

    /// Whether the mount has ended.
    pub fn has_ended(&self) -> bool {
        self.end.has_come()
    }

    /// Unmounts and waits until all requests are answered; [`MountError::Busy`] if somebody uses the mount.
    ///
    /// The kernel hands over its dirty pages on the way.
    pub fn unmount(&self) -> Result<(), MountError> {
        let mut tries = 0;
        while !self.has_ended() {
            match self.take_off(Detach::WhenIdle) {
                Ok(()) => break,
                // A push may hold the mount, for moments only, or an unmount by somebody else be under way.
                Err(MountError::Busy(_) | MountError::Covered(_)) if tries < UNMOUNT_TRIES => {
                    tries += 1;
                    thread::sleep(UNMOUNT_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        self.end.wait()
    }

    /// Takes the mount off its folder at once; those who use it may go on, and it ends with the last of them.
    pub fn detach(&self) -> Result<(), MountError> {
        if self.has_ended() { Ok(()) } else { self.take_off(Detach::Lazily) }
    }

    /// Unmounts it from where it lies now, which need not be where it was mounted.
    fn take_off(&self, how: Detach) -> Result<(), MountError> {
        let Some(device) = self.device else { return detach(&self.path, None, how) };
        let paths = mountpoint::paths_of(device).map_err(MountError::system("looking for the mount"))?;
        let path = paths.iter().find(|path| **path == self.path).or(paths.first());
        match (path, how) {
            (Some(path), _) => detach(path, Some(device), how),
            // Somebody has detached it before, and it lives on in those who use it.
            (None, Detach::WhenIdle) => Err(MountError::Busy(self.path.clone())),
            (None, Detach::Lazily) => Ok(()),
        }
    }

    /// Lets the kernel begin to write out what it holds dirty; to be called every second.
    ///
    /// Waits for nothing, takes no privilege, and costs the same for one open file as for thousands.
    pub fn begin_writing_dirty_pages(&self) {
        if let Some(dirty) = &self.dirty {
            dirty.begin();
        }
    }

    /// Lets the kernel forget what it has of open files, after a tree that changes by itself did so.
    ///
    /// Waits for reads that are under way; must not be called by a thread that serves requests.
    pub fn tree_changed(&self) {
        if let Some((readers, notifier)) = &self.readers {
            readers.forget_all(notifier);
        }
    }

    /// Lets `write` tell that the time is over in which the engine may be changed ([`Engine::time_left`]); to be called
    /// when it is.
    ///
    /// Every other call tells by itself, and so does `write` where the kernel does not keep written pages.
    pub fn time_is_over(&self) {
        for ino in self.writers.inodes() {
            self.full.remind(Ino(ino));
        }
    }

    /// Fetches the pages that the kernel holds dirty, so that what was written before is in the engine.
    ///
    /// To be called before a snapshot is taken. The pages are not durable by that: sync or seal the engine next.
    /// Costs a few requests for each file that is open for writing, and needs root. Without the writeback cache there is
    /// nothing to fetch. Must not be called by a thread that serves requests.
    pub fn push_dirty_pages(&self, patience: Duration) -> Result<(), PushError> {
        match &self.dirty {
            Some(_) if self.has_ended() => Err(PushError::Unmounted),
            Some(dirty) => dirty.push(patience),
            None => Ok(()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(dirty) = &self.dirty {
            dirty.stop();
        }
        if !self.has_ended() {
            // Nobody is left to tell; a mount that stays shows in `mount` and says ENOTCONN.
            let _ = self.take_off(Detach::Lazily);
        }
    }
}
