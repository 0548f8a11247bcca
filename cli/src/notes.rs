//! What is written down in a volume's folder of its stores, and reads the same whether the volume is mounted or not.
//!
//! - `seen/STORE`: the highest manifest that was seen in a store, which an old state of it is told by
//! - `parted/ID`: the same of a store to which the volume goes no more
//! - `halted/STORE`: what somebody must mend before anything goes there again
//! - `unseen/STORE`: since when a store was not seen whose volume is only looked at
//! - `fenced`: that another device took the volume over
//!
//! A note that cannot be read is not one that is not there: nothing is believed in its place before somebody says what to believe.

use std::path::{Path, PathBuf};

use fs_format::{Epoch, ManifestId, Seq};
use fs_replication::{Fenced, Link};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Kind, Result};
use crate::output;
use crate::state::{VolumeFolder, make_private_dir, remove_file_if_there, replace, sync_dir};
use crate::stores::StoreConfig;

/// How what is said begins of a volume that is written here no more.
pub const TAKEN_OVER: &str = "another device took the volume over";

/// What ended the right of this machine to write a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The epoch that somebody else has.
    pub by: u64,
    /// The first seal of this machine that is not in the volume.
    pub at: u64,
    /// When that was noticed, RFC 3339.
    pub noticed: String,
    /// Whether what this machine has of its own was taken out of the volume's folder, as a branch: what is there from then on is the
    /// store's, or goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parted: bool,
}

impl Ended {
    /// What is said of it.
    pub fn told(&self) -> String {
        format!("{TAKEN_OVER} with epoch {}, noticed {}", self.by, self.noticed)
    }
}

fn fenced_path(folder: &VolumeFolder) -> PathBuf {
    folder.path.join("fenced")
}

/// Writes down that another device took the volume over, if it is not yet.
pub fn note_fenced(folder: &VolumeFolder, fenced: &Fenced) -> Result<()> {
    if fenced_path(folder).exists() {
        return Ok(());
    }
    let noticed = jiff::Timestamp::now().to_string();
    note_end(folder, &Ended { by: fenced.by.0, at: fenced.at.0, noticed, parted: false })
}

/// Writes down what ended the right of this machine to write a volume.
pub fn note_end(folder: &VolumeFolder, ended: &Ended) -> Result<()> {
    write(folder, &fenced_path(folder), ended)
}

/// Takes back that another device took the volume over: it is opened here again.
pub fn forget_end(folder: &VolumeFolder) -> Result<()> {
    remove_file_if_there(&fenced_path(folder))
}

/// Whether another device took the volume over; then this one writes it no more.
pub fn is_fenced(folder: &VolumeFolder) -> bool {
    fenced_path(folder).exists() && !is_left_over(folder)
}

/// Whether what ended the writing is told of a volume that follows since: it was opened so after that, by a command that was killed
/// before it could remove the note. A branch keeps its note whatever the volume did before.
fn is_left_over(folder: &VolumeFolder) -> bool {
    folder.name.branch().is_none() && folder.config().is_ok_and(|config| config.follows)
}

/// What ended the right of this machine to write the volume, if it ended.
pub fn ended(folder: &VolumeFolder) -> Result<Option<Ended>> {
    let path = fenced_path(folder);
    if is_left_over(folder) {
        return Ok(None);
    }
    read(&path, |error| {
        let what = format!(
            "since when another device writes the volume is not known: {} is damaged: {error}",
            path.display()
        );
        let failure = Failure::new(Kind::Damaged, what);
        Err(match folder.name.branch() {
            None => failure.hint(format!(
                "`comb volume open {}`, with --read-only to look only, finds it out from the store, and keeps as a branch what \
                 only this machine has",
                folder.name
            )),
            Some(_) => failure.hint(format!("`comb log {}` shows what the branch holds all the same", folder.name)),
        })
    })
}

/// The highest manifest that was seen in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its epoch.
    pub epoch: u64,
    /// Its number.
    pub seq: u64,
    /// Its id, in hexadecimal.
    pub manifest: String,
}

impl Seen {
    fn path(folder: &VolumeFolder, store: &str) -> PathBuf {
        folder.path.join("seen").join(store)
    }

    /// What was written down of a store; nothing if it was never seen.
    pub fn read(folder: &VolumeFolder, store: &str) -> Result<Option<Self>> {
        let path = Self::path(folder, store);
        read(&path, |error| {
            let what = format!(
                "what was seen of store \"{store}\" is not known: {} is damaged: {error}",
                path.display()
            );
            let is_others = is_fenced(folder) || folder.config().is_ok_and(|config| config.follows);
            let how = if is_others { "volume open" } else { "sync" };
            Err(Failure::new(Kind::Damaged, what).hint(format!(
                "whether the store was put back in time cannot be told; `comb {how} {} --accept-rollback` believes what it shows \
                 now",
                folder.name
            )))
        })
    }

    /// Writes it down, so that it is there after a power cut, too: what was seen is what an old state of the store is told by.
    pub fn write(&self, folder: &VolumeFolder, store: &str) -> Result<()> {
        // Of several threads of a daemon one after the other; other processes keep out by the volume's lock.
        static WRITING: Mutex<()> = Mutex::new(());
        let _writing = WRITING.lock();
        if Self::read(folder, store).is_ok_and(|seen| seen.as_ref() == Some(self)) {
            return Ok(());
        }
        write(folder, &Self::path(folder, store), self)
    }

    /// Keeps what was seen in a store that the volume goes to no more, by the store's id: should it be added again, that tells it
    /// from one to which somebody else went on writing.
    pub fn part(folder: &VolumeFolder, store: &StoreConfig) -> Result<()> {
        if let Ok(Some(seen)) = Self::read(folder, &store.name) {
            write(folder, &Self::parted_path(folder, &store.id), &seen)?;
        }
        Self::forget(folder, &store.name)
    }

    /// What was seen last in the store of this id, to which the volume went before; nothing if nobody knows.
    pub fn parted(folder: &VolumeFolder, id: &str) -> Option<Self> {
        let bytes = std::fs::read(Self::parted_path(folder, id)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn parted_path(folder: &VolumeFolder, id: &str) -> PathBuf {
        folder.path.join("parted").join(id)
    }

    /// Forgets what was seen: what the store shows now is believed.
    pub fn forget(folder: &VolumeFolder, store: &str) -> Result<()> {
        Halted::forget(folder, store)?;
        remove_file_if_there(&Self::path(folder, store))
    }

    /// What it says of a manifest.
    pub fn of(link: &Link) -> Self {
        Self { epoch: link.epoch.0, seq: link.seq.0, manifest: link.id.to_hex() }
    }

    /// Which manifest it is.
    pub fn link(&self) -> Result<Link> {
        let id = ManifestId::from_hex(&self.manifest)
            .ok_or_else(|| Failure::new(Kind::Damaged, "what was seen of a store names no manifest"))?;
        Ok(Link { epoch: Epoch(self.epoch), seq: Seq(self.seq), id })
    }
}

/// What somebody must mend before anything goes to a store again, for whoever asks while nobody works on the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    /// What it is, and what to do.
    pub why: String,
    /// Where the store has lost what it had: the newest seal that it has, 0 for none.
    pub lost_above: Option<u64>,
    /// When that was noticed, RFC 3339.
    pub noticed: String,
}

impl Halted {
    fn path(folder: &VolumeFolder, store: &str) -> PathBuf {
        folder.path.join("halted").join(store)
    }

    /// What was written down of a store; nothing if nothing is to be mended.
    pub fn read(folder: &VolumeFolder, store: &str) -> Result<Option<Self>> {
        let path = Self::path(folder, store);
        read(&path, |error| {
            // That there is something is known all the same.
            let why = format!(
                "what is to be mended is not known: {} is damaged: {error}; `comb sync {}` finds it out anew",
                path.display(),
                folder.name
            );
            Ok(Self { why, lost_above: None, noticed: String::new() })
        })
    }

    /// Writes it down; what was noticed before stays as it was.
    pub fn write(&self, folder: &VolumeFolder, store: &str) -> Result<()> {
        let is_same = |there: Self| (there.why, there.lost_above) == (self.why.clone(), self.lost_above);
        if Self::read(folder, store)?.is_some_and(is_same) {
            return Ok(());
        }
        write(folder, &Self::path(folder, store), self)
    }

    /// The newest seal that the store has in which this one was seen: what it was found to have lost, it lacks.
    pub fn left_of(&self, seen: Option<Seq>) -> Option<Seq> {
        self.lost_above.map_or(seen, |has| Some(Seq(has)).filter(|seq| *seq > Seq(0)))
    }

    /// It was mended.
    pub fn forget(folder: &VolumeFolder, store: &str) -> Result<()> {
        remove_file_if_there(&Self::path(folder, store))
    }
}

/// Since when a store was not seen whose volume is only looked at, for whoever looks next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// When it answered last, as far as is known, RFC 3339.
    pub since: String,
}

impl Unseen {
    fn path(folder: &VolumeFolder, store: &str) -> PathBuf {
        folder.path.join("unseen").join(store)
    }

    /// Since when a store was not seen, in nanoseconds since 1970; nothing if it was when somebody looked last.
    pub fn since(folder: &VolumeFolder, store: &str) -> Option<i64> {
        // It only says how long: where it cannot be read, that begins anew.
        let note: Option<Self> =
            read(&Self::path(folder, store), |_| Ok(Self { since: String::new() })).ok()?;
        let since = note?.since.parse::<jiff::Timestamp>().ok()?;
        i64::try_from(since.as_nanosecond()).ok()
    }

    /// Writes down since when it was not seen, or that it was. Where that fails, only how long it lasts is lost.
    pub fn note(folder: &VolumeFolder, store: &str, since: Option<i64>) {
        let path = Self::path(folder, store);
        let kept = match since {
            Some(since) => write(folder, &path, &Self { since: output::time_utc(since) }),
            None => remove_file_if_there(&path),
        };
        if let Err(failure) = kept {
            tracing::warn!(error = failure.message, "since when the store was not seen is not written down");
        }
    }
}

/// A note; nothing if there is none. `damaged` says what one that cannot be read stands for.
fn read<T: DeserializeOwned>(
    path: &Path,
    damaged: impl FnOnce(serde_json::Error) -> Result<T>,
) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).or_else(damaged).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(path.display(), &error)),
    }
}

/// Writes a note, so that it is there after a power cut, too.
fn write(folder: &VolumeFolder, path: &Path, note: &impl Serialize) -> Result<()> {
    let parent = path.parent().unwrap_or(&folder.path);
    if !parent.exists() {
        make_private_dir(parent)?;
        sync_dir(&folder.path)?;
    }
    let text = serde_json::to_vec(note).map_err(std::io::Error::from).context(path.display())?;
    replace(path, &text)
}
