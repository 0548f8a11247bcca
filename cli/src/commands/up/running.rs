//! The `comb up` that runs in a state folder: at most one, told by a lock that names its process.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use crate::failure::{Context, Failure, Kind, Result};
use crate::state::{State, lock_file, try_lock};

/// More than a number has.
const PID_BYTES_MAX: u64 = 16;

/// The right to be the one that runs here; it ends with the process.
#[derive(Debug)]
pub struct Running {
    _file: File,
}

fn path(state: &State) -> PathBuf {
    state.root().join("up.lock")
}

impl Running {
    /// Becomes the one that runs here.
    pub fn begin(state: &State) -> Result<Self> {
        let path = path(state);
        let mut file = lock_file(&path)?;
        if !try_lock(&path, &file)? {
            let who = pid(&mut file).map_or_else(String::new, |pid| format!(", as process {pid}"));
            return Err(Failure::new(
                Kind::InTheWay,
                format!("`comb up` already runs in {}{who}", state.root().display()),
            )
            .hint("`comb app add DIR` adds an app to it, `comb app list` shows what it runs, `comb down` stops it"));
        }
        file.set_len(0).context(path.display())?;
        writeln!(file, "{}", std::process::id()).context(path.display())?;
        Ok(Self { _file: file })
    }
}

/// The process that runs here, if one does.
pub fn who(state: &State) -> Result<Option<i32>> {
    let path = path(state);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::io(path.display(), &error)),
    };
    if try_lock(&path, &file)? {
        return Ok(None);
    }
    let unreadable = || Failure::new(Kind::Damaged, format!("{} names no process", path.display()));
    pid(&mut file).map(Some).ok_or_else(unreadable)
}

fn pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_of_the_first() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::locate(Some(folder.path())).expect("a path");
        assert_eq!(who(&state), Ok(None));
        let first = Running::begin(&state).expect("nobody runs here");
        let me = i32::try_from(std::process::id()).expect("a process");
        assert_eq!(who(&state), Ok(Some(me)));
        let second = Running::begin(&state).expect_err("the first runs");
        assert_eq!(second.kind, Kind::InTheWay);
        assert!(second.message.contains(&format!("process {me}")), "{}", second.message);
        drop(first);
        assert_eq!(who(&state), Ok(None), "what was written by one that is gone says nothing");
        Running::begin(&state).expect("nobody runs here any more");
    }
}
