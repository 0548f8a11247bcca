//! The file in which hive and device write down what happened, a line each: `history.jsonl` (`failover.md`, section 15).
//!
//! What is told, each of them decides; here is how lines get into the file, and out of it when a process begins anew.
//! Nothing is decided by a history, so a line that cannot be written is told in the log and changes nothing.
//!
//! Invariants
//! - Whatever crashes, and however full the disk is, only the last line can be torn, and who begins takes it away.
//! - Nobody but the file's owner reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use orchestrator_api::history::{LINE_BYTES_MAX, Line, What, Who};
use orchestrator_api::text::Hex;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// The largest file, in bytes; the one before it is kept beside it.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Something that happened, and when, on [`boottime`].
pub type Moment = (u64, What);

/// `CLOCK_BOOTTIME`, in milliseconds: the one clock of all parties of a machine.
pub fn boottime() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default() * 1_000 + nanos.unwrap_or_default() / 1_000_000
}

/// The boot that [`boottime`] counts from.
fn boot() -> Hex<16> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.parse().unwrap_or(Hex([0; 16]))
}

/// The history of one party.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    boot: Hex<16>,
    who: Who,
    file_bytes_max: u64,
    file: Mutex<Option<File>>,
}

impl History {
    /// That of a party, at a path; nothing is opened before something is read or written.
    pub fn new(path: &Path, who: Who) -> Self {
        Self {
            path: path.to_owned(),
            boot: boot(),
            who,
            file_bytes_max: FILE_BYTES_MAX,
            file: Mutex::default(),
        }
    }

    /// Hands out what was written before, the oldest first, and takes away the line that a crash tore.
    pub fn begin(&self, mut read: impl FnMut(What)) -> io::Result<()> {
        scan(&self.older(), &mut read)?;
        let whole = scan(&self.path, &mut read)?;
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) if file.metadata()?.len() > whole => file.set_len(whole),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes what happened, with its moments.
    pub fn write(&self, happened: impl IntoIterator<Item = Moment>) {
        let line = |(boottime_ms, what)| Line { boottime_ms, boot: self.boot, who: self.who, what };
        let text: String = happened.into_iter().map(|moment| line(moment).to_json()).collect();
        if text.is_empty() {
            return;
        }
        if let Err(error) = self.append(&text) {
            tracing::warn!(%error, "the history cannot be written");
        }
    }

    fn append(&self, text: &str) -> io::Result<()> {
        let mut open = self.file.lock();
        if open
            .as_ref()
            .map(File::metadata)
            .transpose()?
            .is_some_and(|file| file.len() >= self.file_bytes_max)
        {
            std::fs::rename(&self.path, self.older())?;
            *open = None;
        }
        let file = match &mut *open {
            Some(file) => file,
            none => none.insert(OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?),
        };
        let before = file.metadata()?.len();
        // One write: a crash tears the last line only. A part that a full disk took is taken back.
        file.write_all(text.as_bytes()).inspect_err(|_| drop(file.set_len(before)))
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("1.jsonl")
    }
}

/// Reads a file, if it is there; up to where its lines are whole.
fn scan(path: &Path, read: &mut impl FnMut(What)) -> io::Result<u64> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let (mut reader, mut line, mut whole) = (BufReader::new(file), Vec::new(), 0);
    loop {
        line.clear();
        let length = (&mut reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if length == 0 || !line.ends_with(b"\n") {
            return Ok(whole);
        }
        whole += length as u64;
        if let Ok(Line { what, .. }) = Line::from_json(String::from_utf8_lossy(&line).trim_end()) {
            read(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use orchestrator_api::ids::{AppId, Term};

    use super::*;

    const APP: AppId = AppId(*b"\x07\x07\x07\x07\x07\x07\x47\x07\x87\x07\x07\x07\x07\x07\x07\x07");

    fn ended(term: u64) -> What {
        What::Ended { app: APP, term: Term(term) }
    }

    /// What a history gives to who begins.
    fn terms(history: &History) -> Vec<u64> {
        let mut terms = Vec::new();
        let read = |what| match what {
            What::Ended { term, .. } => terms.push(term.0),
            other => panic!("{other:?}"),
        };
        history.begin(read).expect("it is read");
        terms
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("there is a disk");
        let path = folder.path().join("history.jsonl");
        (folder, path)
    }

    #[test]
    fn what_was_written_is_read_by_who_begins() {
        let (_folder, path) = place();
        let history = History::new(&path, Who::Hive);
        assert_eq!(terms(&history), [0; 0], "there is none yet");
        history.write([(1, ended(3)), (2, ended(4))]);
        history.write([]);
        assert_eq!(terms(&History::new(&path, Who::Hive)), [3, 4]);
        let text = std::fs::read_to_string(&path).expect("it was written");
        let line = Line::from_json(text.lines().next().expect("a line")).expect("it is whole");
        assert_eq!((line.boottime_ms, line.who, line.what), (1, Who::Hive, ended(3)));
        assert_eq!((line.boot, line.boot.0 != [0; 16]), (boot(), true));
    }

    #[test]
    fn a_torn_line_goes_and_the_next_one_stands_alone() {
        let (_folder, path) = place();
        let history = History::new(&path, Who::Hive);
        history.write([(1, ended(3))]);
        let whole = std::fs::read(&path).expect("it was written");
        for torn in [1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, [&whole[..], &whole[..torn]].concat()).expect("a crash");
            let history = History::new(&path, Who::Hive);
            assert_eq!(terms(&history), [3], "torn after {torn} bytes");
            history.write([(2, ended(4))]);
            assert_eq!(terms(&history), [3, 4], "torn after {torn} bytes");
            assert!(std::fs::read(&path).expect("it is there").starts_with(&whole));
        }
    }

    #[test]
    fn only_its_owner_reads_it() {
        let (_folder, path) = place();
        History::new(&path, Who::Hive).write([(1, ended(3))]);
        assert_eq!(std::fs::metadata(&path).expect("it was made").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn two_files_are_kept() {
        let (folder, path) = place();
        let mut history = History::new(&path, Who::Hive);
        history.file_bytes_max = 300;
        for term in 1..=20 {
            history.write([(term, ended(term))]);
        }
        let kept = terms(&history);
        let newest: Vec<u64> = (1..=20).skip(20 - kept.len()).collect();
        assert_eq!(kept, newest, "the newest, in their order");
        assert!((3..20).contains(&kept.len()), "{kept:?}");
        let files: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").flatten().collect();
        assert_eq!(files.len(), 2);
        for file in files {
            let about = file.metadata().expect("it is there");
            assert!(about.len() < 600, "{} is too long", about.len());
            assert_eq!(about.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_harms_nobody() {
        let (folder, _) = place();
        let history = History::new(&folder.path().join("gone/history.jsonl"), Who::Hive);
        assert_eq!(terms(&history), [0; 0]);
        history.write([(1, ended(3))]);
    }
}
