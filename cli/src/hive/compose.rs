//! `docker compose` and `docker`, asked while a package is made.
//!
//! What compose makes of an app's file must not depend on who asks, so it gets a folder that holds the package's files and
//! nothing else, a home that is empty, and exactly the app's variables; a device asks it the same way before each start
//! and compares. Images are asked for as the person would ask: with their Docker context and its logins.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use orchestrator_api::compose::CONFIG_BYTES_MAX;
use orchestrator_api::compose::PlannedService;
use orchestrator_api::package::{Digest, IMAGE_BUILT, PackedFile, ServiceImage};
use serde::Deserialize;

use crate::failure::{Context, Failure, Kind, Result};
use crate::{output, progress};

/// How long compose may read.
const CONFIG_WAIT: Duration = Duration::from_secs(60);
/// How long a question about an image on this machine may take.
const INSPECT_WAIT: Duration = Duration::from_secs(30);
/// How long fetching an image may take, or building those of an app.
const FETCH_WAIT: Duration = Duration::from_secs(60 * 60);
/// The most bytes that are kept of what a program says besides its answer.
const SAID_BYTES_MAX: usize = 64 << 10;
/// How often a program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What `docker` itself needs of the person's environment, and nothing that an app's file could be filled from.
const DOCKERS_OWN: [&str; 9] = [
    "PATH",
    "HOME",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "XDG_RUNTIME_DIR",
    "SSH_AUTH_SOCK",
];

/// Whether images are taken as this machine has them, or looked up anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// What is here is good.
    Here,
    /// A tag means what the registry says now.
    Anew,
}

/// A folder that holds an app's files while compose reads them.
pub struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// Lays the files out.
    pub fn new(files: &[PackedFile]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("comb-app-").tempdir().context("a temporary folder")?;
        let stage = Self { folder };
        fs::create_dir(stage.home()).context("a temporary folder")?;
        fs::create_dir(stage.app()).context("a temporary folder")?;
        for file in files {
            let path = stage.app().join(&file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).context(parent.display())?;
            }
            fs::write(&path, &file.bytes).context(path.display())?;
            // Whoever made this folder can read it, whatever the app's own modes say.
            let mode = fs::Permissions::from_mode(file.mode & 0o777 | 0o400);
            fs::set_permissions(&path, mode).context(path.display())?;
        }
        Ok(stage)
    }

    /// Where the app's files lie.
    pub fn app(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// What compose makes of the main file, with these variables and no others.
    pub fn config(&self, project: &str, main: &str, variables: &BTreeMap<String, String>) -> Result<Vec<u8>> {
        let mut command = Command::new("docker");
        command
            .args(["compose", "-p", project, "-f", main, "config", "--format", "json"])
            .current_dir(self.app())
            .env_clear()
            .envs(variables)
            .env("HOME", self.home());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let said = run(command, CONFIG_WAIT, CONFIG_BYTES_MAX + 1)?;
        match said.well {
            true => Ok(said.answer),
            false => {
                let words = said.words.replace(&format!("{}/", self.app().display()), "");
                Err(Failure::new(Kind::Usage, format!("docker compose refuses the file: {words}")))
            }
        }
    }
}

/// Builds the images that an app's file says how to build, in its own folder.
pub fn build(folder: &Path, main: &str, project: &str, variables: &BTreeMap<String, String>) -> Result<()> {
    let bar = progress::waiting("building images");
    let mut command = dockers_own();
    command
        .args(["compose", "-p", project, "-f", main, "build", "--quiet"])
        .current_dir(folder)
        .envs(variables);
    // The person's own, which its name could not be chosen over.
    for name in DOCKERS_OWN {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let said = run(command, FETCH_WAIT, SAID_BYTES_MAX)?;
    bar.finish_and_clear();
    match said.well {
        true => Ok(()),
        false => Err(Failure::other(format!("building the app's images failed: {}", said.words))
            .hint(format!("`docker compose build` in {} shows all of it", folder.display()))),
    }
}

/// The name under which compose builds the image of a service that names none.
pub fn built_name(project: &str, service: &str) -> String {
    format!("{project}-{service}")
}

/// The images of services, each by what it really is.
pub fn images(services: &[PlannedService], project: &str, how: Images) -> Result<Vec<ServiceImage>> {
    let mut found: BTreeMap<String, (Digest, bool)> = BTreeMap::new();
    let mut images = Vec::new();
    for service in services {
        let image = match (&service.image, service.build) {
            (Some(image), _) => image.clone(),
            (None, true) => built_name(project, &service.name),
            (None, false) => {
                let what = format!("service \"{}\" has neither an image nor a build", service.name);
                return Err(Failure::new(Kind::Usage, what));
            }
        };
        let (digest, pull) = match found.get(&image) {
            Some(known) => *known,
            None => {
                let known = match service.build {
                    true => (built(&image)?, false),
                    false => resolve(&image, how)?,
                };
                found.insert(image.clone(), known);
                known
            }
        };
        images.push(ServiceImage {
            name: service.name.clone(),
            image: service.image.clone().unwrap_or_else(|| IMAGE_BUILT.to_owned()),
            digest,
            pull,
        });
    }
    Ok(images)
}

/// What Docker says of an image on this machine.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    id: String,
    repo_digests: Option<Vec<String>>,
}

fn built(image: &str) -> Result<Digest> {
    let inspected = inspect(image)?
        .ok_or_else(|| Failure::other(format!("the image \"{image}\" was built, and is not there")))?;
    digest(&inspected.id).ok_or_else(|| unreadable(image))
}

/// The digest of an image, and whether a registry has it.
fn resolve(image: &str, how: Images) -> Result<(Digest, bool)> {
    // Whoever names a digest has chosen.
    if let Some(named) = image.split_once('@').and_then(|(_, named)| digest(named)) {
        return Ok((named, true));
    }
    let here = inspect(image)?;
    let fetched = match (&here, how) {
        (Some(_), Images::Here) => None,
        _ => Some(pull(image)?),
    };
    let inspected = match fetched {
        None => here,
        Some(Ok(())) => inspect(image)?,
        Some(Err(words)) => match here {
            Some(here) => {
                output::warn_once(&format!(
                    "{image} cannot be looked up anew, so it stays as it is here: {words}"
                ));
                Some(here)
            }
            None => {
                return Err(Failure::new(Kind::NotFound, format!("image_unknown: \"{image}\": {words}"))
                    .hint(
                        "it is neither on this machine nor in a registry that this machine reaches: see that its name is right; an image \
                         of your own is made first (`docker build -t NAME DIR`), or by a `build:` in the compose file",
                    ));
            }
        },
    };
    known(image, &inspected.unwrap_or_default()).ok_or_else(|| unreadable(image))
}

/// By the digest that the image's own registry gave it; one that never was in a registry is its id.
fn known(image: &str, inspected: &Inspected) -> Option<(Digest, bool)> {
    let repository = |name: &str| {
        let name = name.split('@').next().unwrap_or_default();
        // A colon behind the last slash begins a tag; one before it a port.
        let cut = name.rfind('/').map_or(0, |slash| slash + 1);
        let end = name[cut..].find(':').map_or(name.len(), |colon| cut + colon);
        let name = name[..end].trim_start_matches("docker.io/").trim_start_matches("library/");
        name.to_owned()
    };
    let wanted = repository(image);
    let digests = inspected.repo_digests.iter().flatten();
    let of_it = digests.filter(|one| repository(one) == wanted);
    let by_registry = of_it.filter_map(|one| digest(one.split_once('@')?.1)).next();
    match by_registry {
        Some(digest) => Some((digest, true)),
        None => digest(&inspected.id).map(|id| (id, false)),
    }
}

fn digest(text: &str) -> Option<Digest> {
    Digest::try_from(text.to_owned()).ok()
}

fn unreadable(image: &str) -> Failure {
    Failure::other(format!("Docker does not say what the image \"{image}\" is"))
}

fn inspect(image: &str) -> Result<Option<Inspected>> {
    let mut command = dockers_own();
    // Behind `--`, so that no name is an option.
    command.args(["image", "inspect", "--format", "{{json .}}", "--", image]);
    let said = run(command, INSPECT_WAIT, CONFIG_BYTES_MAX)?;
    if said.well {
        return serde_json::from_slice(&said.answer).map(Some).map_err(|_| unreadable(image));
    }
    let words = said.words.to_lowercase();
    if words.contains("no such image") || words.contains("not found") {
        return Ok(None);
    }
    Err(Failure::new(Kind::Unreachable, format!("Docker on this machine does not answer: {}", said.words))
        .hint("a package names images by digest, so one is made where Docker runs: start it, or do this on a device"))
}

fn pull(image: &str) -> Result<std::result::Result<(), String>> {
    let bar = progress::waiting("fetching an image");
    let mut command = dockers_own();
    command.args(["pull", "--quiet", "--", image]);
    let said = run(command, FETCH_WAIT, SAID_BYTES_MAX)?;
    bar.finish_and_clear();
    Ok(if said.well { Ok(()) } else { Err(said.words) })
}

/// What of Docker is on this machine.
pub struct Versions {
    /// Of the engine.
    pub docker: String,
    /// Of the plugin.
    pub compose: String,
    /// How long the engine took to answer.
    pub took: Duration,
}

/// Asks the engine and the plugin.
pub fn versions() -> Result<Versions> {
    let word = |args: &[&str]| -> Result<String> {
        let mut command = dockers_own();
        command.args(args);
        let said = run(command, INSPECT_WAIT, SAID_BYTES_MAX)?;
        match said.well {
            true => Ok(last_words(&said.answer)),
            false => {
                Err(Failure::new(Kind::Unreachable, format!("`docker {}`: {}", args.join(" "), said.words))
                    .hint("start Docker, and install its compose plugin"))
            }
        }
    };
    let begun = Instant::now();
    let docker = word(&["version", "--format", "{{.Server.Version}}"])?;
    Ok(Versions { docker, took: begun.elapsed(), compose: word(&["compose", "version", "--short"])? })
}

pub(super) fn dockers_own() -> Command {
    let mut command = Command::new("docker");
    command.env_clear();
    for name in DOCKERS_OWN {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// What a program said.
pub(super) struct Said {
    /// Whether it did what it was asked for.
    pub well: bool,
    /// Its answer.
    pub answer: Vec<u8>,
    /// The end of what it said besides: the reason stands there.
    pub words: String,
}

/// Runs a program to its end, or until it has taken too long.
pub(super) fn run(mut command: Command, limit: Duration, answer_max: usize) -> Result<Said> {
    let name = command.get_program().to_string_lossy().into_owned();
    let what = shown(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(Kind::NotFound, format!("the program `{name}` is not installed here")).hint(
                "apps are checked and signed where Docker and its compose plugin are, so on a device, say",
            )
        }
        _ => Failure::io(format!("running `{name}`"), &error),
    })?;
    let answer = child.stdout.take().map(|pipe| thread::spawn(move || read(pipe, answer_max)));
    let words = child.stderr.take().map(|pipe| thread::spawn(move || read(pipe, SAID_BYTES_MAX)));
    let end = Instant::now() + limit;
    let status = loop {
        match child.try_wait().context(format!("`{name}`"))? {
            Some(status) => break status,
            None if Instant::now() >= end => {
                // Its pipes end with it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::new(
                    Kind::Unreachable,
                    format!("`{what}` did not end in {} s", limit.as_secs()),
                ));
            }
            None => thread::sleep(LOOK_EVERY),
        }
    };
    let bytes = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (answer, words) = (bytes(answer), bytes(words));
    Ok(Said { well: status.success(), answer, words: last_words(&words) })
}

fn read(mut pipe: impl Read, max: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut part = vec![0; 16 << 10];
    // What is too much is read and dropped, so that the program never hangs on a full pipe.
    while let Ok(len @ 1..) = pipe.read(&mut part) {
        let room = max.saturating_sub(kept.len()).min(len);
        kept.extend_from_slice(&part[..room]);
    }
    kept
}

fn shown(command: &Command) -> String {
    let args = command.get_args().take(2).filter_map(OsStr::to_str);
    std::iter::once("docker").chain(args).collect::<Vec<_>>().join(" ")
}

fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(4)..].join("; ");
    output::escape(last.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(id: char, digests: &[&str]) -> Inspected {
        let digest = |one: char| format!("sha256:{}", one.to_string().repeat(64));
        let digests = digests.iter().map(|text| {
            let (name, one) = text.split_once('@').expect("a name and a digit");
            format!("{name}@{}", digest(one.chars().next().expect("a digit")))
        });
        Inspected { id: digest(id), repo_digests: Some(digests.collect()) }
    }

    #[test]
    fn an_image_is_what_its_own_registry_calls_it() {
        let table: &[(&str, &[&str], char, bool)] = &[
            ("nginx:1.25", &["nginx@1"], '1', true),
            ("docker.io/library/nginx", &["nginx@1"], '1', true),
            ("nginx", &["docker.io/library/nginx@1"], '1', true),
            ("host:5000/a/b:tag", &["other/b@2", "host:5000/a/b@3"], '3', true),
            // One that was only tagged with this name here is not what a registry has under it.
            ("mine:1", &["nginx@1"], '9', false),
            ("mine:1", &[], '9', false),
        ];
        for (image, digests, expected, pull) in table {
            let (digest, by_registry) = known(image, &inspected('9', digests)).expect(image);
            assert_eq!(digest.to_string(), format!("sha256:{}", expected.to_string().repeat(64)), "{image}");
            assert_eq!(by_registry, *pull, "{image}");
        }
        assert!(known("nginx", &Inspected::default()).is_none());
    }

    #[test]
    fn a_program_ends_with_its_deadline_and_says_no_more_than_may_be_read() {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 100000 /dev/zero; echo first >&2; echo last >&2; exit 3"]);
        let said = run(command, Duration::from_secs(60), 10).expect("it ran");
        assert_eq!((said.well, said.answer.len(), said.words.as_str()), (false, 10, "first; last"));
        let mut command = Command::new("sh");
        command.args(["-c", "exec sleep 60"]);
        let late = run(command, Duration::from_millis(100), 10).map(drop).expect_err("too long");
        assert_eq!(late.kind, Kind::Unreachable);
        let missing = run(Command::new("no-such-program"), CONFIG_WAIT, 10).map(drop).expect_err("missing");
        assert_eq!(missing.kind, Kind::NotFound);
    }
}
