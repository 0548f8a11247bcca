//! What went wrong, in words for a person and a number for a script.
//!
//! This is the one door where errors of the engine, the kernel adapter and the disk turn
//! into `error:` and `hint:` lines and an exit code. The codes are a promise: scripts rely on
//! them, so a code is never renumbered and never gets a second meaning.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// The exit codes, as `comb --help` and the README list them. 2 is also clap's own.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for another reason
  2  the command line is wrong
  3  no such volume, moment or path
  4  in the way: exists already, mounted, in use by another process
  5  damaged: bytes are not what was written
  6  wrong key, foreign folder, or written by a newer comb
  7  no space left (disk or quota)
  8  not permitted, or the volume is read-only
  9  not safe: a store lacks changes for longer than promised
  10  a store cannot be reached
  11  the daemon of a mount gives no answer
  12  a store has another head than was expected";

/// The kind of a failure; its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Anything without a number of its own.
    Other = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No such volume, moment or path.
    NotFound = 3,
    /// Something exists, is mounted or is in use.
    InTheWay = 4,
    /// Bytes are not what was written.
    Damaged = 5,
    /// Wrong key, foreign folder, newer format.
    Foreign = 6,
    /// The disk or the quota is full.
    NoSpace = 7,
    /// Not permitted, or read-only.
    NotPermitted = 8,
    /// A store lacks changes for longer than promised.
    Behind = 9,
    /// A store cannot be reached.
    Unreachable = 10,
    /// The daemon of a mount gives no answer.
    Silent = 11,
    /// A store has another head than was expected.
    Unexpected = 12,
}

/// A failed command. It travels over the control socket too, so it holds plain text only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What happened; no full stop, no line break.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The number of the operating system's error, where there was one.
    #[serde(skip)]
    pub errno: Option<i32>,
}

/// What commands return.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, errno: None }
    }

    /// A failure without a kind of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other, message)
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An operating system's error while doing something to `what`.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let errno = error.raw_os_error();
        Self { errno, ..Self::new(kind_of_io(error), format!("{what}: {}", describe(error))) }
    }

    /// What happened, and what to do.
    pub fn in_one_line(self) -> String {
        match self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message,
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }
}

/// The text of an error without Rust's "(os error 2)".
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn kind_of_io(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::AlreadyExists
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::DirectoryNotEmpty
        | io::ErrorKind::NotADirectory => Kind::InTheWay,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::NotPermitted,
        _ => Kind::Other,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Says what was being done when the operating system refused.
pub trait Context<T> {
    /// Turns an [`io::Error`] into a [`Failure`] about `what`.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::io(what, &error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_kind_under_its_number() {
        for kind in [
            Kind::Other,
            Kind::Usage,
            Kind::NotFound,
            Kind::InTheWay,
            Kind::Damaged,
            Kind::Foreign,
            Kind::NoSpace,
            Kind::NotPermitted,
            Kind::Behind,
            Kind::Unreachable,
            Kind::Silent,
            Kind::Unexpected,
        ] {
            let line = format!("\n  {}  ", kind as u8);
            assert!(EXIT_CODES.contains(&line), "{kind:?} is not in the help");
        }
    }

    #[test]
    fn the_readme_lists_the_same_codes() {
        let readme = include_str!("../../README.md");
        for line in EXIT_CODES.lines().skip(1) {
            let (code, meaning) = line.trim().split_once("  ").expect("a code and its meaning");
            assert!(readme.contains(&format!("| {code} | {meaning} |")), "{line:?} is not in README.md");
        }
    }

    #[test]
    fn an_error_of_the_system_reads_like_a_sentence() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        let failure = Failure::io("/mnt/photos", &error).hint("make it first");
        assert_eq!(failure.to_string(), "error: /mnt/photos: No such file or directory\nhint: make it first");
        assert_eq!(failure.exit_code(), 3);
        assert_eq!(Failure::io("x", &io::Error::from_raw_os_error(libc::ENOSPC)).exit_code(), 7);
        assert_eq!(Failure::io("x", &io::Error::from_raw_os_error(libc::EROFS)).exit_code(), 8);
    }
}
