//! The files of a package on the disk.
//!
//! Invariants
//! - What is in the folder is what is in the package, and nothing else: it is made beside and renamed.
//! - Paths were checked when the body was read: relative, without `..`, no file where another needs a folder.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use orchestrator_api::package::Body;
use orchestrator_api::placement::Problem;

use crate::doors::disk::gone;
use crate::trouble::{Result, Trouble};

/// The one file that runs, in a folder of its own beside the package's files.
pub const RUN_FILE: &str = "compose.json";

/// Where an app's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// That of an app, by its name.
    pub fn new(apps: &Path, name: &str) -> Self {
        Self(apps.join(name))
    }

    /// The files of the package.
    pub fn files(&self) -> PathBuf {
        self.0.join("app")
    }

    /// The file that runs. It may hold passwords of the app, so it is root's alone.
    pub fn run_file(&self) -> PathBuf {
        self.0.join(RUN_FILE)
    }

    /// Writes the package's files.
    pub fn write(&self, body: &Body) -> Result<()> {
        let failed = |error: io::Error| no_space(&self.0, &error);
        let new = self.0.join("app.new");
        remove(&new).map_err(failed)?;
        make(&self.0, 0o700).map_err(failed)?;
        make(&new, 0o755).map_err(failed)?;
        for file in &body.files {
            let path = new.join(&file.path);
            if let Some(parent) = path.parent() {
                make(parent, 0o755).map_err(failed)?;
            }
            let mut to =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
            to.write_all(&file.bytes).map_err(failed)?;
            to.set_permissions(fs::Permissions::from_mode(file.mode)).map_err(failed)?;
        }
        remove(&self.files()).map_err(failed)?;
        fs::rename(&new, self.files()).map_err(failed)
    }

    /// Writes the file that runs.
    pub fn write_run_file(&self, json: &[u8]) -> Result<()> {
        let failed = |error: io::Error| no_space(&self.0, &error);
        let new = self.0.join("compose.json.new");
        remove(&new).map_err(failed)?;
        let mut to =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        to.write_all(json).map_err(failed)?;
        fs::rename(&new, self.run_file()).map_err(failed)
    }

    /// Removes all of it.
    pub fn remove(&self) -> Result<()> {
        remove(&self.0).map_err(|error| no_space(&self.0, &error))
    }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    gone(match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    })
}

/// An error of the disk as a problem.
pub fn no_space(path: &Path, error: &io::Error) -> Trouble {
    Trouble::new(Problem::NoSpace, format!("{}: {error}", path.display()))
}
