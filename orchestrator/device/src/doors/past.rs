//! What a person looks at in volumes: moments, folders and files of the past, and putting them back.
//!
//! The door is made where the commands are (`cli`). Names of files are as private as what is in them: they go to a command
//! on its standard input, never among its words.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use orchestrator_api::text::Time;
use tokio::io::{AsyncRead, ReadBuf};

use super::program::Running;

/// A place in a moment of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The volume, or a branch of one: `NAME/BRANCH`.
    pub volume: String,
    /// The number of the moment; the newest sealed one if there is none.
    pub seq: Option<u64>,
    /// The path below the root, without a slash at its beginning or end; empty is the root.
    pub path: Vec<u8>,
}

/// A moment of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Its number.
    pub seq: u64,
    /// When it was sealed.
    pub time: Time,
    /// Files and folders in it.
    pub files: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// What it added to what is stored.
    pub added_bytes: u64,
    /// Of a snapshot: its tags, and what was said of it.
    pub snapshot: Option<(Vec<String>, String)>,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link. It is never followed.
    Link,
    /// A device, a pipe or a socket.
    Special,
}

/// A name, and what is known of what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its bytes.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its length.
    pub bytes: u64,
    /// When its content changed.
    pub modified: Time,
    /// Permissions, as four octal digits.
    pub mode: String,
    /// Whose it is.
    pub owner: (u32, u32),
    /// Where a link leads, by its own words.
    pub target: Option<String>,
}

/// What is at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The moment.
    pub moment: Moment,
    /// What the path itself is.
    pub found: Entry,
    /// How many entries a folder has.
    pub total: u64,
    /// Those that were asked for; folders come first.
    pub entries: Vec<Entry>,
}

/// A moment at which a path became what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The moment's number.
    pub seq: u64,
    /// When it was sealed.
    pub sealed: Time,
    /// What it was then: kind, bytes and when it was changed; none if it was removed.
    pub file: Option<(Kind, u64, Time)>,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as they are told")]
pub enum Change {
    Added,
    Modified,
    Removed,
}

/// What differs between two moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The earlier one.
    pub from: Moment,
    /// The later one.
    pub to: Moment,
    /// How many paths were added, modified, removed.
    pub counts: (u64, u64, u64),
    /// Those that were asked for, in the order of their paths.
    pub changes: Vec<(Change, Kind, Vec<u8>)>,
}

/// Where something is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Where it was: files are replaced, folders merged; what is there now is kept as a moment first.
    InPlace,
    /// Next to it, under another name.
    Beside,
}

/// How far putting back is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Files and folders that are back.
    pub files: u64,
    /// Bytes that are.
    pub bytes: u64,
    /// Of so many, where that is known.
    pub total: Option<u64>,
}

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Files and folders.
    pub files: u64,
    /// Where it is now.
    pub path: Vec<u8>,
    /// The moment that has what was there before.
    pub kept: Option<Moment>,
}

/// Why something cannot be shown or put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// In short.
    pub why: Why,
    /// In words, and what to do. It may name files.
    pub text: String,
}

/// Why, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no such volume, moment or path.
    Missing,
    /// Something is in the way: a name is taken, or the volume is not mounted.
    InTheWay,
    /// It takes no changes.
    ReadOnly,
    /// There is no room.
    Full,
    /// Bytes are not what was written.
    Damaged,
    /// It is in a store that does not answer.
    Away,
    /// Others are being answered.
    Busy,
    /// Something else.
    Otherwise,
}

/// What the door returns.
pub type Seen<T> = std::result::Result<T, Unseen>;

/// The bytes of a file or an archive, as they are read: no more than a pipe holds is in memory. Whoever drops it ends the
/// reading.
pub struct Reading(Running);

impl Reading {
    /// What a program says.
    pub fn of(program: Running) -> Self {
        Self(program)
    }

    /// Whether all of it came; to be asked at its end.
    pub async fn is_whole(self) -> bool {
        self.0.ended().await
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buf)
    }
}

/// The past of volumes.
#[async_trait]
pub trait Past: Send + Sync {
    /// The moments, newest first.
    async fn moments(&self, volume: &str, max: usize) -> Seen<Vec<Moment>>;

    /// What is at a place: of a folder these entries.
    async fn look(&self, place: &Place, from: u64, count: u64) -> Seen<Looked>;

    /// When a path changed, newest first.
    async fn versions(&self, volume: &str, path: &[u8], max: usize) -> Seen<Vec<Version>>;

    /// What differs between two moments, the later of which is the newest if none is named: these of the changes.
    async fn compare(
        &self,
        volume: &str,
        from: u64,
        to: Option<u64>,
        first: u64,
        count: u64,
    ) -> Seen<Compared>;

    /// The bytes of a file.
    async fn read(&self, place: &Place) -> Seen<Reading>;

    /// A file or folder as a tar archive.
    async fn archive(&self, place: &Place) -> Seen<Reading>;

    /// Puts a file or folder back into the volume as it is mounted on this machine; tells now and then how far it is.
    async fn restore(&self, place: &Place, back: Back, told: &(dyn Fn(Done) + Send + Sync))
    -> Seen<Restored>;
}
