//! The device's own program: the one that runs, the next one, and the one before (`security.md`, section 9).
//!
//! ```text
//! FOLDER/bin/comb           what runs; none while it is the program that was installed
//! FOLDER/bin/comb.new       fetched and checked, and not in its place yet
//! FOLDER/bin/comb.previous  what ran before the newest update
//! FOLDER/update.json        which release runs, which is tried, which failed
//! ```
//!
//! Invariants
//! - A program gets into its place only after it was checked, and after it was written down that it is tried.
//! - Whatever step a crash comes after, [`Programs::next`] ends the update or takes it back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use orchestrator_api::ids::AppId;
use serde::{Deserialize, Serialize};

use crate::doors::disk::{self, gone};

/// How often a new program may end before it was well.
pub const TRIES_MAX: u32 = 3;
/// Of how many releases it is remembered that they failed.
const FAILED_MAX: usize = 16;

/// What is known of updates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Updates {
    /// The release that runs; 0 for what was installed by hand.
    pub number: u64,
    /// The one that has to show that it is well.
    pub trying: Option<Trying>,
    /// Those that did not; never tried again.
    pub failed: Vec<u64>,
}

/// A release that has to show that it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trying {
    /// Its number.
    pub number: u64,
    /// How often it was started.
    pub tries: u32,
    /// What was healthy before, and has to be again.
    pub healthy: BTreeSet<AppId>,
}

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The program; none is the one that was installed.
    pub program: Option<PathBuf>,
    /// The release that it tries, if it does.
    pub tries: Option<u64>,
}

/// The programs of a device's folder.
#[derive(Debug, Clone)]
pub struct Programs(PathBuf);

impl Programs {
    /// Those of the device's own folder.
    pub fn of(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    fn file(&self) -> PathBuf {
        self.0.join("update.json")
    }

    fn current(&self) -> PathBuf {
        self.0.join("bin/comb")
    }

    fn previous(&self) -> PathBuf {
        self.0.join("bin/comb.previous")
    }

    /// Where the next one is written.
    pub fn new_one(&self) -> PathBuf {
        self.0.join("bin/comb.new")
    }

    /// What is known.
    pub fn read(&self) -> io::Result<Updates> {
        Ok(disk::read_json(&self.file())?.unwrap_or_default())
    }

    fn write(&self, updates: &Updates) -> io::Result<()> {
        disk::replace_json(&self.file(), updates)
    }

    /// Writes the next program, durably; it is not in its place yet.
    pub fn keep(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        disk::make(&self.0.join("bin"))?;
        let path = self.new_one();
        gone(fs::remove_file(&path))?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.sync_all()?;
        Ok(path)
    }

    /// Forgets a next program that is none.
    pub fn drop_new(&self) -> io::Result<()> {
        gone(fs::remove_file(self.new_one()))
    }

    /// Puts the next program into its place, to be tried; `running` is what runs now.
    pub fn place(&self, number: u64, healthy: BTreeSet<AppId>, running: &Path) -> io::Result<()> {
        let updates = self.read()?;
        let copy = self.0.join("bin/comb.old");
        gone(fs::remove_file(&copy))?;
        fs::copy(running, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        fs::File::open(&copy)?.sync_all()?;
        fs::rename(&copy, self.previous())?;
        self.write(&Updates { trying: Some(Trying { number, tries: 0, healthy }), ..updates })?;
        self.finish()
    }

    fn finish(&self) -> io::Result<()> {
        fs::rename(self.new_one(), self.current())?;
        fs::File::open(self.0.join("bin"))?.sync_all()
    }

    /// What is to be started now; counts the start of one that is tried, and gives up one that was started too often.
    pub fn next(&self) -> io::Result<Next> {
        let mut updates = self.read()?;
        let Some(trying) = &mut updates.trying else {
            return Ok(Next { program: self.there(), tries: None });
        };
        if self.new_one().exists() {
            self.finish()?;
        }
        // Gone back already, and not written down yet.
        if trying.tries >= TRIES_MAX || !self.previous().exists() {
            self.go_back()?;
            return Ok(Next { program: self.there(), tries: None });
        }
        trying.tries += 1;
        let tries = Some(trying.number);
        self.write(&updates)?;
        Ok(Next { program: self.there(), tries })
    }

    fn there(&self) -> Option<PathBuf> {
        Some(self.current()).filter(|path| path.exists())
    }

    /// The program before is what runs again, and the release is never tried again.
    pub fn go_back(&self) -> io::Result<()> {
        let mut updates = self.read()?;
        let Some(trying) = updates.trying.take() else { return Ok(()) };
        gone(fs::rename(self.previous(), self.current()))?;
        fs::File::open(self.0.join("bin"))?.sync_all()?;
        updates.failed.retain(|failed| *failed != trying.number);
        updates.failed.push(trying.number);
        let more = updates.failed.len().saturating_sub(FAILED_MAX);
        updates.failed.drain(..more);
        self.write(&updates)
    }

    /// The release that was tried is well: it is what runs from now on.
    pub fn well(&self) -> io::Result<()> {
        let updates = self.read()?;
        match updates.trying {
            Some(trying) => self.write(&Updates { number: trying.number, trying: None, ..updates }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        programs: Programs,
    }

    /// A device that runs what was installed, and is about to try release 7.
    fn scene() -> Scene {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let programs = Programs::of(folder.path());
        fs::write(folder.path().join("installed"), "installed").expect("a program");
        programs.keep(b"seven").expect("kept");
        Scene { folder, programs }
    }

    impl Scene {
        fn place(&self) {
            self.programs.place(7, BTreeSet::new(), &self.folder.path().join("installed")).expect("placed");
        }

        fn runs(&self) -> String {
            let next = self.programs.next().expect("a program");
            next.program.map_or_else(|| "none".to_owned(), |path| fs::read_to_string(path).expect("its text"))
        }
    }

    #[test]
    fn a_release_that_is_well_stays() {
        let scene = scene();
        assert_eq!(scene.runs(), "none", "what was only fetched is not run");
        scene.place();
        assert_eq!(scene.runs(), "seven");
        scene.programs.well().expect("written");
        for _ in 0..5 {
            assert_eq!(scene.runs(), "seven");
        }
        let known = scene.programs.read().expect("read");
        assert_eq!(known, Updates { number: 7, trying: None, failed: Vec::new() });
    }

    #[test]
    fn one_that_ends_three_times_is_taken_back() {
        let scene = scene();
        scene.place();
        for _ in 0..TRIES_MAX {
            assert_eq!(scene.runs(), "seven");
        }
        assert_eq!(scene.runs(), "installed");
        assert_eq!(scene.runs(), "installed");
        let known = scene.programs.read().expect("read");
        assert_eq!(known, Updates { number: 0, trying: None, failed: vec![7] });
        scene.programs.well().expect("nothing to say");
        assert_eq!(scene.programs.read().expect("read").number, 0);
    }

    #[test]
    fn a_crash_between_two_steps_is_mended_by_the_next_start() {
        // Written down, and not in its place yet.
        let first = scene();
        first.place();
        fs::rename(first.folder.path().join("bin/comb"), first.programs.new_one()).expect("as before");
        assert_eq!(first.runs(), "seven");
        // Taken back, and not written down yet: what ran before is not taken for what was tried.
        let second = scene();
        second.place();
        assert_eq!(second.runs(), "seven");
        let bin = second.folder.path().join("bin");
        fs::rename(bin.join("comb.previous"), bin.join("comb")).expect("as the step does");
        assert_eq!(second.runs(), "installed");
        assert_eq!(second.programs.read().expect("read").failed, [7]);
    }

    #[test]
    fn an_update_of_an_update_goes_back_by_one() {
        let scene = scene();
        scene.place();
        assert_eq!(scene.runs(), "seven");
        scene.programs.well().expect("written");
        scene.programs.keep(b"eight").expect("kept");
        scene.programs.place(8, BTreeSet::new(), &scene.folder.path().join("bin/comb")).expect("placed");
        assert_eq!(scene.runs(), "eight");
        scene.programs.go_back().expect("taken back");
        assert_eq!(scene.runs(), "seven");
        let known = scene.programs.read().expect("read");
        assert_eq!((known.number, known.failed), (7, vec![8]));
    }
}
