//! A compose project as it ran before it was an app of Comb: its containers, and where Docker keeps its volumes.
//!
//! Nothing of it is removed. Its containers are stopped and, once its data is taken over, are not started any more by
//! Docker itself: two of one database on one port would be none.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::compose::{Said, dockers_own, run};
use crate::failure::{Failure, Kind, Result};

/// How long a question may take.
const ASK_WAIT: Duration = Duration::from_secs(30);
/// How long stopping a project may take: the graces of its containers.
const STOP_WAIT: Duration = Duration::from_secs(600);
/// What is read of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Compose's own labels.
const PROJECT: &str = "com.docker.compose.project";
const FOLDER: &str = "com.docker.compose.project.working_dir";
const VOLUME: &str = "com.docker.compose.volume";

/// A project of compose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project(pub String);

/// A volume of Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerVolume {
    /// Its name.
    pub name: String,
    /// Where its data lies.
    pub folder: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    name: String,
    driver: String,
    mountpoint: PathBuf,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(rename = "ID")]
    id: String,
    names: String,
    labels: String,
}

impl Listed {
    fn label(&self, name: &str) -> Option<&str> {
        let all = self.labels.split(',').filter_map(|one| one.split_once('='));
        all.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }
}

/// The project of a folder: that of its containers, else what compose calls it by its folder.
pub fn project(folder: &Path) -> Result<Project> {
    let label = format!("label={FOLDER}={}", folder.display());
    let known = containers(&["-a", "--filter", &label])?;
    let named = known.iter().find_map(|one| one.label(PROJECT)).map(str::to_owned);
    let name = folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String =
        name.chars().filter(|one| one.is_ascii_alphanumeric() || matches!(one, '-' | '_')).collect();
    Ok(Project(named.unwrap_or_else(|| plain.trim_start_matches(['-', '_']).to_owned())))
}

impl Project {
    /// The Docker volume that it used for one of its compose file; none if there is none.
    pub fn volume(&self, key: &str) -> Result<Option<DockerVolume>> {
        let project = format!("label={PROJECT}={}", self.0);
        let volume = format!("label={VOLUME}={key}");
        let args = ["volume", "ls", "--format", "{{.Name}}", "--filter", &project, "--filter", &volume];
        let said = ask(&args, ASK_WAIT)?;
        let text = String::from_utf8_lossy(&said.answer).into_owned();
        match text.lines().next() {
            Some(name) => docker_volume(name),
            None => docker_volume(&format!("{}_{key}", self.0)),
        }
    }

    /// Ids of its containers that run.
    pub fn running(&self) -> Result<Vec<String>> {
        let label = format!("label={PROJECT}={}", self.0);
        Ok(containers(&["--filter", &label])?.into_iter().map(|one| one.id).collect())
    }

    /// Names of containers that run, use one of these volumes, and are not its own.
    pub fn strangers(&self, volumes: &[DockerVolume]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for volume in volumes {
            let filter = format!("volume={}", volume.name);
            let others = containers(&["--filter", &filter])?.into_iter();
            found.extend(others.filter(|one| one.label(PROJECT) != Some(&self.0)).map(|one| one.names));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Stops its containers, those that depend on others first.
    pub fn stop(&self) -> Result<()> {
        ask(&["compose", "-p", &self.0, "stop"], STOP_WAIT)?;
        match self.running()?.len() {
            0 => Ok(()),
            left => {
                Err(Failure::new(Kind::InTheWay, format!("{left} containers of \"{}\" did not stop", self.0))
                    .hint(format!("`docker compose -p {} ps` shows which", self.0)))
            }
        }
    }

    /// Starts again what was stopped.
    pub fn start(&self) -> Result<()> {
        ask(&["compose", "-p", &self.0, "start"], STOP_WAIT).map(drop)
    }

    /// Has Docker not start its containers again by itself, after a restart of the machine say.
    pub fn rest(&self) -> Result<()> {
        let label = format!("label={PROJECT}={}", self.0);
        let ids: Vec<String> =
            containers(&["-a", "--filter", &label])?.into_iter().map(|one| one.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut args = vec!["update", "--restart", "no"];
        args.extend(ids.iter().map(String::as_str));
        ask(&args, ASK_WAIT).map(drop)
    }
}

/// A volume by its name; one whose data is not on this machine is refused.
pub fn docker_volume(name: &str) -> Result<Option<DockerVolume>> {
    let mut command = dockers_own();
    command.args(["volume", "inspect", "--format", "{{json .}}", "--", name]);
    let said = run(command, ASK_WAIT, ANSWER_BYTES_MAX)?;
    if !said.well {
        let words = said.words.to_lowercase();
        return match words.contains("no such volume") {
            true => Ok(None),
            false => Err(away(&said)),
        };
    }
    let volume: Inspected = serde_json::from_slice(&said.answer).map_err(|_| away(&said))?;
    if volume.driver != "local" || volume.options.is_some_and(|options| !options.is_empty()) {
        let what = format!("Docker's volume \"{}\" is not a folder of this machine", volume.name);
        return Err(Failure::new(Kind::NotPermitted, what)
            .hint("copy its data into a folder that the compose file binds, and adopt that"));
    }
    Ok(Some(DockerVolume { name: volume.name, folder: volume.mountpoint }))
}

fn containers(filter: &[&str]) -> Result<Vec<Listed>> {
    let mut args = vec!["ps", "--no-trunc", "--format", "{{json .}}"];
    args.extend(filter);
    let said = ask(&args, ASK_WAIT)?;
    let text = String::from_utf8_lossy(&said.answer).into_owned();
    text.lines().map(|line| serde_json::from_str(line).map_err(|_| away(&said))).collect()
}

fn ask(args: &[&str], wait: Duration) -> Result<Said> {
    let mut command = dockers_own();
    // An interrupt from the terminal is for `comb`, which starts again what it stopped: half of either would help nobody.
    command.args(args).process_group(0);
    let said = run(command, wait, ANSWER_BYTES_MAX)?;
    if said.well { Ok(said) } else { Err(away(&said)) }
}

fn away(said: &Said) -> Failure {
    Failure::new(
        Kind::Unreachable,
        format!("Docker on this machine does not do what it is asked: {}", said.words),
    )
    .hint("is Docker running, and may you ask it?")
}
