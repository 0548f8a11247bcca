//! The program `docker compose`.
//!
//! Invariants
//! - What runs is one file: compose's own answer, which was checked, with what Comb adds. Compose reads no other file then,
//!   and takes no variable from anywhere.
//! - `HOME` is a folder of the device's and never the app's: compose reads programs to run from there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_api::compose::CONFIG_BYTES_MAX;
use orchestrator_api::placement::Problem;

use super::program::{self, Call, Said, Silent};
use crate::trouble::{Result, Trouble};

/// How long compose may read.
const CONFIG_WAIT: Duration = Duration::from_secs(30);
/// How long it may make and start containers; dependencies that wait for health are in here.
const UP_WAIT: Duration = Duration::from_secs(3_600);
/// How long it may take beside the grace of the containers.
const DOWN_MORE: Duration = Duration::from_secs(45);

/// The program, and what it is run with.
#[derive(Debug, Clone)]
pub struct Compose {
    host: String,
    home: PathBuf,
}

/// A project that runs.
#[derive(Debug, Clone, Copy)]
pub struct Project<'a> {
    /// Its name.
    pub name: &'a str,
    /// The folder of its files.
    pub folder: &'a Path,
    /// The one file that runs.
    pub file: &'a Path,
}

impl Compose {
    /// Compose for the engine behind a socket, with this folder as its home.
    pub fn new(socket: &Path, home: impl Into<PathBuf>) -> Self {
        Self { host: format!("unix://{}", socket.display()), home: home.into() }
    }

    async fn run(
        &self,
        args: &[&str],
        folder: &Path,
        variables: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Said> {
        let Some(docker) = program::find("docker") else {
            // No waiting helps: the engine may answer all the time.
            return Err(Trouble::new(Problem::ComposeFailed, "the program `docker` is not installed"));
        };
        std::fs::create_dir_all(&self.home)
            .map_err(|error| Trouble::new(Problem::NoSpace, format!("{}: {error}", self.home.display())))?;
        let mut environment = variables.clone();
        environment.insert("HOME".to_owned(), self.home.to_string_lossy().into_owned());
        let mut all = vec!["--host", &self.host, "compose"];
        all.extend(args);
        let call = Call {
            program: &docker,
            args: &all,
            environment: &environment,
            folder,
            limit,
            // One more than may be read, so that what is too long is seen to be.
            output_bytes_max: CONFIG_BYTES_MAX + 1,
        };
        program::run(&call).await.map_err(|silent| match silent {
            Silent::Start { .. } => Trouble::new(Problem::ComposeFailed, silent.to_string()),
            Silent::Late(_) => Trouble::new(Problem::DockerSlow, silent.to_string()),
        })
    }

    /// The version of compose.
    pub async fn version(&self) -> Result<String> {
        let said =
            self.run(&["version", "--short"], &self.home.clone(), &BTreeMap::new(), CONFIG_WAIT).await?;
        Ok(String::from_utf8_lossy(&said.output).trim().to_owned())
    }

    /// What compose makes of an app's main file, with these variables and no others.
    pub async fn config(
        &self,
        name: &str,
        folder: &Path,
        main: &str,
        variables: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>> {
        let args = ["-p", name, "-f", main, "config", "--format", "json"];
        let said = self.run(&args, folder, variables, CONFIG_WAIT).await?;
        match said.is_ok() {
            true => Ok(said.output),
            false => Err(Trouble::new(Problem::ComposeFailed, last_lines(&said.errors))),
        }
    }

    /// Builds the images that the file says how to build, before a package is signed.
    pub async fn build(&self, project: Project<'_>) -> Result<()> {
        let said = self.on(project, &["build", "--quiet"], &BTreeMap::new(), UP_WAIT).await?;
        failed(said, Problem::ComposeFailed)
    }

    /// Makes and starts containers; returns when dependencies that are waited for are met. The variables are for configs and
    /// secrets that are one's value; nothing else in the file names one any more.
    pub async fn up(&self, project: Project<'_>, variables: &BTreeMap<String, String>) -> Result<()> {
        let args = ["up", "--detach", "--no-build", "--pull", "never", "--remove-orphans", "--quiet-pull"];
        failed(self.on(project, &args, variables, UP_WAIT).await?, Problem::ComposeFailed)
    }

    /// Stops containers, those that depend on others first, and removes them and the app's networks.
    ///
    /// `grace` of none is what the file says.
    pub async fn down(&self, project: Project<'_>, grace: Option<Duration>, limit: Duration) -> Result<()> {
        let seconds = grace.map(|grace| grace.as_secs().to_string());
        let mut args = vec!["down", "--remove-orphans"];
        if let Some(seconds) = &seconds {
            args.extend(["--timeout", seconds]);
        }
        failed(self.on(project, &args, &BTreeMap::new(), limit + DOWN_MORE).await?, Problem::ComposeFailed)
    }

    async fn on(
        &self,
        project: Project<'_>,
        command: &[&str],
        variables: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Said> {
        let (folder, file) = (project.folder.to_string_lossy(), project.file.to_string_lossy());
        let mut args =
            vec!["-p", project.name, "--project-directory", &folder, "--env-file", "/dev/null", "-f", &file];
        args.extend(command);
        self.run(&args, project.folder, variables, limit).await
    }
}

fn failed(said: Said, problem: Problem) -> Result<()> {
    if said.is_ok() {
        return Ok(());
    }
    let text = last_lines(&said.errors);
    let lower = text.to_lowercase();
    let problem = match () {
        // The second is said where the engine ends while compose speaks to it.
        () if lower.contains("cannot connect to the docker daemon")
            || lower.contains("error during connect") =>
        {
            Problem::DockerStopped
        }
        () if lower.contains("port is already allocated") || lower.contains("address already in use") => {
            Problem::PortTaken
        }
        () if lower.contains("no such image") => Problem::ImageMissing,
        () if lower.contains("no space left on device") => Problem::NoSpace,
        () if lower.contains("is unhealthy") => Problem::Unhealthy,
        () => problem,
    };
    Err(Trouble::new(problem, text))
}

/// What a program said last: the reason stands at the end.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join("\n")
}
