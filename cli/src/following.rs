//! The tree of a volume that another device writes, as its store shows it: what a mount of a volume shows that only looks.
//!
//! Invariants
//! - Every request is answered from one moment, the newest that could be opened here; the next may be answered from a later one.
//!   To whoever has a file open that looks like a writer on the same machine: what is written in place is seen, and a file
//!   that was removed or replaced is read to its end, as long as it is not older than some moments.
//! - What is missing in the store counts as damage only after a look at what is newest there: collection gives packs up.
//! - Without the store, what was seen last is shown.
//! - What is shown goes on from what was shown before, or begins another era. A takeover cuts off what was not committed, and
//!   gives numbers of inodes and moments anew; nothing of an earlier era is looked at for what is asked in a later one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fs_format::{Epoch, Ino, Seq};
use fs_fuse::{Followed, Moment, Past};
use fs_volume::{Attr, DirEntry, FsError, History, ReadTree, SealInfo, Seek, Space, View};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::elsewhere;
use crate::engine;
use crate::failure::Result as Outcome;
use crate::state::VolumeFolder;

/// How often the store is asked what is newest: one small request, if nothing is.
pub const FOLLOW_EVERY: Duration = Duration::from_secs(10);
/// Moments that are remembered for whoever has a file open that is not in the newest.
const BEFORE_MAX: usize = 64;
/// How long the kernel may go by the length that a file had in the moment before, once it was told that there is another: it
/// knows attributes for a second.
const OLD_LENGTH: Duration = Duration::from_secs(3);
/// In what the kernel reads files.
const PAGE_BYTES: u64 = 4096;
/// How often reads that fail may ask, too.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);

/// A volume that is followed. Cheap to clone.
#[derive(Clone)]
pub struct Following(Arc<Inner>);

struct Inner {
    folder: VolumeFolder,
    /// Opens the past of the volume as it is known now.
    open: Box<dyn Fn() -> Outcome<History> + Send + Sync>,
    shown: RwLock<Shown>,
    /// Held while the store is asked: when that was last, and why it failed.
    asked: Mutex<Asked>,
    /// Told when another moment is shown.
    moved: Condvar,
    is_moved: Mutex<bool>,
}

/// What is shown, and what was before in this era, the newest first.
struct Shown {
    era: u64,
    /// The past of what is shown.
    history: History,
    view: View,
    before: VecDeque<Before>,
}

/// What was shown before.
#[derive(Clone)]
struct Before {
    view: View,
    /// When the kernel had forgotten what it knew of it.
    forgotten: Option<Instant>,
}

#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    failure: Option<String>,
}

/// A moment that can be shown.
struct Newest {
    history: History,
    view: View,
    /// Whether what is shown is in its past.
    goes_on: bool,
}

/// Whether the newest moment of a history, with this epoch and number, has another one in its past.
fn goes_on(history: &History, epoch: Epoch, seq: Seq, shown: &View) -> bool {
    let before = shown.info();
    seq > before.seq
        && match history.recorded(before.seq) {
            Ok(Some(id)) => id == before.id,
            // Retention dropped it, or that cannot be told. Who writes in an epoch goes on from what he wrote in it.
            Ok(None) | Err(_) => epoch == shown.epoch(),
        }
}

impl Following {
    /// Shows the newest moment of the volume in `folder`, whose past `open` opens.
    pub fn start(
        folder: &VolumeFolder,
        open: impl Fn() -> Outcome<History> + Send + Sync + 'static,
    ) -> Outcome<Self> {
        let history = open()?;
        let newest = || history.at(history.head()?.seq);
        let view = newest().map_err(|error| engine::open_failure(folder, &error))?;
        let before = VecDeque::new();
        Ok(Self(Arc::new(Inner {
            folder: folder.clone(),
            open: Box::new(open),
            shown: RwLock::new(Shown { era: 0, history, view, before }),
            asked: Mutex::default(),
            moved: Condvar::new(),
            is_moved: Mutex::default(),
        })))
    }

    /// The past of what is shown.
    pub fn history(&self) -> History {
        self.0.shown.read().history.clone()
    }

    /// The moment that is shown.
    pub fn shown(&self) -> SealInfo {
        self.0.shown.read().view.info().clone()
    }

    /// Asks the store what is newest, unless that was done a moment ago, and shows it. Says whether another moment is shown.
    pub fn look(&self) -> bool {
        let mut asked = self.0.asked.lock();
        if asked.at.is_none_or(|at| at.elapsed() >= FOLLOW_PAUSE) {
            let failure = elsewhere::follow(&self.0.folder).err().map(|failure| failure.message);
            if let Some(failure) = &failure
                && asked.failure.as_ref() != Some(failure)
            {
                tracing::warn!("showing what was seen last: {failure}");
            }
            *asked = Asked { at: Some(Instant::now()), failure };
        }
        self.exchange()
    }

    /// Shows the newest moment that is known here, if it can be opened.
    fn exchange(&self) -> bool {
        match self.newest() {
            Ok(None) => return false,
            Ok(Some(Newest { history, view, goes_on })) => {
                let mut shown = self.0.shown.write();
                let before = std::mem::replace(&mut shown.view, view);
                shown.history = history;
                if goes_on {
                    shown.before.push_front(Before { view: before, forgotten: None });
                    shown.before.truncate(BEFORE_MAX);
                } else {
                    let seq = before.info().seq;
                    tracing::warn!(%seq, "the volume does not go on from what was shown: what is open of that is stale");
                    shown.before.clear();
                    shown.era += 1;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the newest moment cannot be shown");
                return false;
            }
        }
        *self.0.is_moved.lock() = true;
        self.0.moved.notify_all();
        true
    }

    /// The newest moment that is known here, if it is not shown and can be.
    fn newest(&self) -> Result<Option<Newest>, FsError> {
        let open = || (self.0.open)().map_err(|failure| FsError::Disk(failure.message));
        let (shown, known) = (self.view(), self.history());
        let is_known = known.is_current()?;
        let mut history = if is_known { known } else { open()? };
        let head = history.head()?;
        if head.id == shown.info().id {
            return Ok(None);
        }
        let goes_on = goes_on(&history, history.at(head.seq)?.epoch(), head.seq, &shown);
        if is_known && !goes_on {
            // The same epoch, but put back in time by somebody who said so.
            history = open()?;
        }
        let view = history.at(history.head()?.seq)?;
        view.attr(Ino::ROOT)?;
        Ok(Some(Newest { history, view, goes_on }))
    }

    /// Waits until another moment is shown than at the last call, at most for so long. Says whether one is.
    pub fn wait(&self, limit: Duration) -> bool {
        let mut is_moved = self.0.is_moved.lock();
        if !*is_moved {
            self.0.moved.wait_for(&mut is_moved, limit);
        }
        std::mem::take(&mut *is_moved)
    }

    /// The kernel was told that another moment is shown, since when the last [wait](Self::wait) has ended. It must be told once more
    /// then: it may have been answered as of before meanwhile.
    pub fn forgotten(&self) {
        if *self.0.is_moved.lock() {
            // Yet another one, of which the kernel is told next.
            return;
        }
        for before in &mut self.0.shown.write().before {
            before.forgotten.get_or_insert_with(Instant::now);
        }
    }

    fn view(&self) -> View {
        self.0.shown.read().view.clone()
    }

    /// Reads; where that fails, once more if there is something newer.
    fn again<T>(&self, mut read: impl FnMut() -> Result<T, FsError>) -> Result<T, FsError> {
        let shown = self.shown().id;
        match read() {
            Err(error) if error.is_about_the_disk() && (self.look() || self.shown().id != shown) => read(),
            other => other,
        }
    }

    /// Reads from what is shown.
    fn read<T>(&self, mut read: impl FnMut(&View) -> Result<T, FsError>) -> Result<T, FsError> {
        self.again(|| read(&self.view()))
    }

    /// Reads of an inode that somebody may have open though it is gone; says whether it is.
    fn read_open<T>(&self, mut read: impl FnMut(&View) -> Result<T, FsError>) -> Result<(T, bool), FsError> {
        self.again(|| self.read_from(&self.view(), &mut read))
    }

    /// Reads from a moment, or from the newest one before what is shown that has the inode.
    fn read_from<T>(
        &self,
        view: &View,
        read: &mut impl FnMut(&View) -> Result<T, FsError>,
    ) -> Result<(T, bool), FsError> {
        match read(view) {
            Err(FsError::NotFound) => {
                let before = self.0.shown.read().before.clone();
                let mut found = before.iter().map(|before| read(&before.view));
                let found = found.find(|found| !matches!(found, Err(FsError::NotFound)));
                found.unwrap_or(Err(FsError::NotFound)).map(|found| (found, true))
            }
            other => other.map(|found| (found, false)),
        }
    }

    /// The moment to read a file from, up to `end`, by whoever asked for that at `asked`: the one that is shown, but for whoever
    /// may not know it.
    ///
    /// Who reads past the last page of the file goes by the length that it had a moment ago, and would take what a short answer
    /// leaves out for zeros. Until the kernel was told of the new length so does who reads that page: the kernel then learns nothing
    /// from a short answer to what it asked before.
    fn to_read(&self, ino: Ino, end: u64, asked: Instant) -> View {
        let is_recent = |before: &&Before| {
            before.forgotten.is_none_or(|at| asked.saturating_duration_since(at) < OLD_LENGTH)
        };
        let (shown, before) = {
            let shown = self.0.shown.read();
            (shown.view.clone(), shown.before.iter().take_while(is_recent).cloned().collect::<Vec<_>>())
        };
        if before.is_empty() {
            return shown;
        }
        let is_told = before.iter().all(|before| before.forgotten.is_some());
        let size = |view: &View| view.attr(ino).ok().map(|attr| attr.inode.size);
        let reach = |size: u64| size.div_ceil(PAGE_BYTES).saturating_mul(PAGE_BYTES);
        let Some(now) = size(&shown).filter(|&now| end > if is_told { reach(now) } else { now }) else {
            return shown;
        };
        let longer: Vec<(u64, View)> = before
            .into_iter()
            .filter_map(|before| Some((size(&before.view)?, before.view)))
            .filter(|(size, _)| *size > now)
            .map(|(size, view)| (reach(size), view))
            .collect();
        let wanted = longer.iter().map(|(reach, _)| *reach).max().map_or(end, |longest| end.min(longest));
        longer.into_iter().find(|(reach, _)| *reach >= wanted).map_or(shown, |(_, view)| view)
    }
}

impl ReadTree for Following {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.read(|view| view.lookup(parent, name))
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        let (mut attr, is_gone) = self.read_open(|view| view.attr(ino))?;
        if is_gone {
            attr.inode.nlink = 0;
        }
        Ok(attr)
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.read_open(|view| view.read_link(ino)).map(|(found, _)| found)
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        let asked = Instant::now();
        self.again(|| {
            let view = self.to_read(ino, offset.saturating_add(len as u64), asked);
            self.read_from(&view, &mut |view| view.read_with(ino, offset, len, take)).map(|(read, _)| read)
        })
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        self.read(|view| view.read_dir(dir, cookie, limit))
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.read_open(|view| view.xattr(ino, name)).map(|(found, _)| found)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.read_open(|view| view.xattrs(ino)).map(|(found, _)| found)
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        self.read_open(|view| view.seek(ino, offset, what)).map(|(found, _)| found)
    }
}

impl Past for Following {
    fn moments(&self) -> Result<Vec<Moment>, FsError> {
        let seals = self.history().seals()?;
        Ok(seals.iter().map(|seal| Moment { seq: seal.seq, time: seal.time }).collect())
    }

    fn newest(&self) -> Result<Option<Moment>, FsError> {
        let shown = self.shown();
        Ok(Some(Moment { seq: shown.seq, time: shown.time }))
    }

    fn at(&self, seq: Seq) -> Result<Arc<dyn ReadTree>, FsError> {
        Ok(Arc::new(self.keep(self.history().at(seq)?)))
    }
}

impl Followed for Following {
    fn era(&self) -> u64 {
        self.0.shown.read().era
    }

    fn space(&self) -> Space {
        let shown = self.shown();
        Space { total: shown.bytes, free: 0, files: shown.files }
    }
}

impl Following {
    /// One moment, of which the store may give up what only it needs.
    pub fn keep(&self, view: View) -> Kept {
        Kept { view, following: self.clone() }
    }
}

/// A moment of a volume that another device writes.
pub struct Kept {
    view: View,
    following: Following,
}

impl Kept {
    /// Reads; where that fails, whether the moment was dropped is told by what is newest.
    fn read<T>(&self, mut read: impl FnMut(&View) -> Result<T, FsError>) -> Result<T, FsError> {
        match read(&self.view) {
            Err(error) if error.is_about_the_disk() => {
                self.following.look();
                read(&self.view).map_err(|error| if self.is_gone(&error) { FsError::Dropped } else { error })
            }
            other => other,
        }
    }
}

impl Kept {
    /// Whether what could not be read is missing because the volume went on without this moment.
    fn is_gone(&self, error: &FsError) -> bool {
        let SealInfo { seq, id, .. } = self.view.info();
        error.is_about_the_disk()
            && self.following.history().recorded(*seq).is_ok_and(|recorded| recorded != Some(*id))
    }
}

impl ReadTree for Kept {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.read(|view| view.lookup(parent, name))
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.read(|view| view.attr(ino))
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.read(|view| view.read_link(ino))
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        self.read(|view| view.read_with(ino, offset, len, take))
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        self.read(|view| view.read_dir(dir, cookie, limit))
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.read(|view| view.xattr(ino, name))
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.read(|view| view.xattrs(ino))
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        self.read(|view| view.seek(ino, offset, what))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use fs_crypto::{DeviceSecret, VolumeKey};
    use fs_volume::{Caller, NewNode, Options, SetAttr, Volume, WriteTree};

    use super::*;

    const ME: Caller = Caller { uid: 0, gid: 0 };

    /// A volume on several devices, of which one only looks. What is sealed is brought by copying files.
    struct Scene {
        root: tempfile::TempDir,
        key: VolumeKey,
    }

    impl Scene {
        /// The device `a` has sealed `base`.
        fn new() -> Self {
            let scene =
                Self { root: tempfile::tempdir().expect("a folder"), key: VolumeKey::from_seed([5; 32]) };
            fs::create_dir(scene.root.path().join("a")).expect("made");
            fs_volume::create(&scene.env("a"), &scene.key, ME).expect("a new volume");
            let a = scene.device("a");
            write(&a, "base", b'b');
            a.seal(None).expect("sealed");
            scene
        }

        fn env(&self, name: &str) -> fs_volume::env::Env {
            fs_volume::real::env(&self.root.path().join(name))
        }

        fn device(&self, name: &str) -> Volume {
            let secret = DeviceSecret::from_bytes([9; 32]);
            Volume::open(self.env(name), self.key.clone(), &secret, Options::default()).expect("opens")
        }

        /// Lets a device have what another one has sealed, and nothing else.
        fn bring(&self, from: &str, to: &str) {
            let (from, to) = (self.root.path().join(from), self.root.path().join(to));
            let _ = fs::remove_dir_all(to.join("manifests"));
            for folder in ["packs", "manifests", "journal"] {
                fs::create_dir_all(to.join(folder)).expect("made");
                if folder != "journal" {
                    copy_all(&from.join(folder), &to.join(folder));
                }
            }
            fs::copy(from.join("head"), to.join("head")).expect("copied");
        }

        fn follow(&self, from: &str) -> Following {
            self.bring(from, "looks");
            let folder = VolumeFolder {
                name: "photos".parse().expect("a name"),
                id: self.key.id(),
                path: self.root.path().join("looks"),
            };
            let (env, key) = (self.env("looks"), self.key.clone());
            Following::start(&folder, move || {
                Ok(History::open(env.clone(), key.id(), key.read_key(), 1 << 20).expect("opens"))
            })
            .expect("starts")
        }
    }

    fn copy_all(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).expect("listed") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }

    /// What does not compress, and is in a pack of its own.
    fn bytes(of: u8) -> Vec<u8> {
        let mut bytes = vec![0; 100_000];
        blake3::Hasher::new().update(&[of]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn write(volume: &Volume, name: &str, of: u8) -> Ino {
        let made = volume.make(ME, Ino::ROOT, name.as_bytes(), 0o644, NewNode::File, &[]).expect("made");
        volume.write(made.ino, 0, &bytes(of), false).expect("written");
        made.ino
    }

    fn read(tree: &dyn ReadTree, name: &str) -> Result<Vec<u8>, FsError> {
        let ino = tree.lookup(Ino::ROOT, name.as_bytes())?.ino;
        tree.read(ino, 0, 1 << 20)
    }

    #[test]
    fn what_does_not_go_on_from_what_was_shown_begins_another_era() {
        let scene = Scene::new();
        scene.bring("a", "b");
        let a = scene.device("a");
        let x = write(&a, "x", b'x');
        a.seal(None).expect("sealed");
        let following = scene.follow("a");
        let tail = following.shown();
        assert_eq!(read(&following, "x").expect("read"), bytes(b'x'));
        let old = following.at(tail.seq).expect("a moment");
        let untouched = following.at(tail.seq).expect("a moment");
        assert_eq!(read(&*old, "x").expect("read"), bytes(b'x'));

        // Another device did not know of it, and gives the same numbers to what it writes.
        let b = scene.device("b");
        assert_eq!(b.take_over(Epoch(2)).expect("taken over").seq, tail.seq);
        let y = write(&b, "y", b'y');
        assert_eq!(x, y, "the test needs the same number");
        let newest = b.seal(None).expect("sealed");
        scene.bring("b", "looks");
        // Nothing of it is mixed into what is shown, before it is.
        let before = following.moments().expect("listed");
        assert_eq!(before.last().map(|moment| moment.seq), Some(tail.seq));
        assert_eq!(read(&*following.at(tail.seq).expect("a moment"), "x").expect("read"), bytes(b'x'));
        assert_eq!(following.era(), 0);

        assert!(following.exchange());
        assert_eq!((following.era(), following.shown().id), (1, newest.id));
        assert_eq!(read(&following, "y").expect("read"), bytes(b'y'));
        assert!(matches!(read(&following, "x"), Err(FsError::NotFound)));
        let new = following.at(tail.seq).expect("a moment");
        assert!(matches!(read(&*new, "x"), Err(FsError::NotFound)), "the number means another moment");
        assert_eq!(read(&*old, "x").expect("it is here"), bytes(b'x'));
        // What is not here is missing because the volume went on without it.
        fs::remove_dir_all(scene.root.path().join("looks/packs")).expect("removed");
        scene.bring("b", "looks");
        let gone = read(&*untouched, "x");
        assert!(
            matches!(&gone, Err(FsError::Dropped)) || gone.as_ref().ok() == Some(&bytes(b'x')),
            "{gone:?}"
        );
        assert_eq!(following.history().damage(), Vec::<String>::new());
        assert!(!following.exchange(), "it is shown");
        assert_eq!(following.era(), 1);
    }

    #[test]
    fn who_takes_over_all_that_was_shown_goes_on_with_it() {
        let scene = Scene::new();
        let following = scene.follow("a");
        let base = following.lookup(Ino::ROOT, b"base").expect("there").ino;
        scene.bring("a", "b");
        let b = scene.device("b");
        b.take_over(Epoch(2)).expect("taken over");
        b.unlink(Ino::ROOT, b"base").expect("removed");
        write(&b, "y", b'y');
        b.seal(None).expect("sealed");
        scene.bring("b", "looks");
        assert!(following.exchange());
        assert_eq!(following.era(), 0);
        assert_eq!(read(&following, "y").expect("read"), bytes(b'y'));
        assert!(matches!(read(&following, "base"), Err(FsError::NotFound)));
        assert_eq!(ReadTree::read(&following, base, 0, 1 << 20).expect("as of before"), bytes(b'b'));
        assert_eq!(following.history().damage(), Vec::<String>::new());
    }

    #[test]
    fn who_asked_before_a_file_was_cut_is_answered_at_its_old_length() {
        let scene = Scene::new();
        let following = scene.follow("a");
        let a = scene.device("a");
        let base = a.lookup(Ino::ROOT, b"base").expect("there").ino;
        a.set_attr(base, SetAttr { size: Some(9), ..SetAttr::default() }).expect("cut");
        a.seal(None).expect("sealed");
        let asked = Instant::now();
        scene.bring("a", "looks");
        assert!(following.exchange());
        assert!(following.wait(Duration::ZERO));
        std::thread::sleep(OLD_LENGTH);

        let length =
            |asked| following.to_read(base, 50_000, asked).attr(base).expect("attributes").inode.size;
        assert_eq!(length(Instant::now()), 100_000, "the kernel may not know it yet");
        let first =
            |end| following.to_read(base, end, Instant::now()).attr(base).expect("attributes").inode.size;
        assert_eq!((first(9), first(PAGE_BYTES)), (9, 100_000));
        following.forgotten();
        assert_eq!(first(PAGE_BYTES), 9, "it knows");
        std::thread::sleep(OLD_LENGTH);
        assert_eq!(length(asked), 100_000, "it waited for the store");
        assert_eq!(length(Instant::now()), 9);
    }

    #[test]
    fn another_past_of_the_same_epoch_begins_another_era_too() {
        let scene = Scene::new();
        scene.bring("a", "b");
        let a = scene.device("a");
        write(&a, "x", b'x');
        a.seal(None).expect("sealed");
        let following = scene.follow("a");
        let b = scene.device("b");
        for (name, of) in [("y", b'y'), ("z", b'z')] {
            write(&b, name, of);
            b.seal(None).expect("sealed");
        }
        scene.bring("b", "looks");
        assert!(following.exchange());
        assert_eq!(following.era(), 1);
        assert_eq!(read(&following, "y").expect("read"), bytes(b'y'));
        assert_eq!(read(&following, "z").expect("read"), bytes(b'z'));
    }
}
