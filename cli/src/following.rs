//! The tree of a volume that another device writes, as its store shows it: what a mount of a volume shows that only looks.
//!
//! Invariants
//! - Every request is answered from one moment, the newest that could be opened here; the next may be answered from a later one.
//!   To whoever has a file open that looks like a writer on the same machine: what is written in place is seen, and a file
//!   that was removed or replaced is read to its end, as long as it is not older than some moments.
//! - What is missing in the store counts as damage only after a look at what is newest there: collection gives packs up.
//! - Without the store, what was seen last is shown.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fs_format::{Ino, Seq};
use fs_fuse::{Followed, Moment, Past};
use fs_volume::{Attr, DirEntry, FsError, History, OpenError, ReadTree, SealInfo, Seek, Space, View};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::elsewhere;
use crate::state::VolumeFolder;

/// How often the store is asked what is newest: one small request, if nothing is.
pub const FOLLOW_EVERY: Duration = Duration::from_secs(10);
/// Moments that are remembered for whoever has a file open that is not in the newest.
const BEFORE_MAX: usize = 64;
/// How long the kernel may go by the length that a file had in the moment before. It knows attributes for a second.
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
    history: History,
    shown: RwLock<Shown>,
    /// Held while the store is asked: when that was last, and why it failed.
    asked: Mutex<Asked>,
    /// Told when another moment is shown.
    moved: Condvar,
    is_moved: Mutex<bool>,
}

/// What is shown, and what was before, the newest first, each with when it was replaced.
struct Shown {
    view: View,
    before: VecDeque<(View, Instant)>,
}

#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    failure: Option<String>,
}

impl Following {
    /// Shows the newest moment of `history`, the past of the volume in `folder`.
    pub fn start(folder: &VolumeFolder, history: History) -> Result<Self, OpenError> {
        let view = history.at(history.head()?.seq)?;
        Ok(Self(Arc::new(Inner {
            folder: folder.clone(),
            history,
            shown: RwLock::new(Shown { view, before: VecDeque::new() }),
            asked: Mutex::default(),
            moved: Condvar::new(),
            is_moved: Mutex::default(),
        })))
    }

    /// Its past.
    pub fn history(&self) -> &History {
        &self.0.history
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
        let newest = || -> Result<Option<View>, FsError> {
            let head = self.0.history.head()?;
            if head.id == self.shown().id {
                return Ok(None);
            }
            let view = self.0.history.at(head.seq)?;
            view.attr(Ino::ROOT)?;
            Ok(Some(view))
        };
        match newest() {
            Ok(None) => return false,
            Ok(Some(view)) => {
                let mut shown = self.0.shown.write();
                let before = std::mem::replace(&mut shown.view, view);
                shown.before.push_front((before, Instant::now()));
                shown.before.truncate(BEFORE_MAX);
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

    /// Waits until another moment is shown than at the last call, at most for so long. Says whether one is.
    pub fn wait(&self, limit: Duration) -> bool {
        let mut is_moved = self.0.is_moved.lock();
        if !*is_moved {
            self.0.moved.wait_for(&mut is_moved, limit);
        }
        std::mem::take(&mut *is_moved)
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
        self.again(|| match read(&self.view()) {
            Err(FsError::NotFound) => {
                let before = self.0.shown.read().before.clone();
                let mut found = before.iter().map(|(view, _)| read(view));
                let found = found.find(|found| !matches!(found, Err(FsError::NotFound)));
                found.unwrap_or(Err(FsError::NotFound)).map(|found| (found, true))
            }
            other => other.map(|found| (found, false)),
        })
    }

    /// The moment to read a file from, up to `end`, where that is not the one that is shown.
    ///
    /// Who reads past the last page of the file goes by the length that it had a moment ago, and would take what a short answer
    /// leaves out for zeros.
    fn longer_before(&self, ino: Ino, end: u64) -> Option<View> {
        let recent = |(_, replaced): &&(View, Instant)| replaced.elapsed() < OLD_LENGTH;
        let before: Vec<View> =
            self.0.shown.read().before.iter().take_while(recent).map(|(view, _)| view.clone()).collect();
        if before.is_empty() {
            return None;
        }
        // As far as the last page goes.
        let reach = |view: &View| {
            let pages = view.attr(ino).ok()?.inode.size.div_ceil(PAGE_BYTES);
            Some(pages.saturating_mul(PAGE_BYTES))
        };
        let now = reach(&self.view())?;
        if end <= now {
            return None;
        }
        let longer: Vec<(u64, View)> = before
            .into_iter()
            .filter_map(|view| Some((reach(&view)?, view)))
            .filter(|(reach, _)| *reach > now)
            .collect();
        let longest = longer.iter().map(|(reach, _)| *reach).max()?;
        longer.into_iter().find(|(reach, _)| *reach >= end.min(longest)).map(|(_, view)| view)
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
        self.again(|| match self.longer_before(ino, offset.saturating_add(len as u64)) {
            Some(before) => before.read_with(ino, offset, len, take),
            None => self.read_open(|view| view.read_with(ino, offset, len, take)).map(|(read, _)| read),
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
        let seals = self.0.history.seals()?;
        Ok(seals.iter().map(|seal| Moment { seq: seal.seq, time: seal.time }).collect())
    }

    fn newest(&self) -> Result<Option<Moment>, FsError> {
        let shown = self.shown();
        Ok(Some(Moment { seq: shown.seq, time: shown.time }))
    }

    fn at(&self, seq: Seq) -> Result<Arc<dyn ReadTree>, FsError> {
        Ok(Arc::new(self.moment(seq)?))
    }
}

impl Followed for Following {
    fn space(&self) -> Space {
        let shown = self.shown();
        Space { total: shown.bytes, free: 0, files: shown.files }
    }
}

impl Following {
    /// One moment, of which the store may give up what only it needs.
    pub fn moment(&self, seq: Seq) -> Result<Kept, OpenError> {
        Ok(Kept { view: self.0.history.at(seq)?, following: self.clone() })
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
                read(&self.view)
            }
            other => other,
        }
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
