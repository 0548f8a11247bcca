//! `comb app eject`.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use orchestrator_api::compose::{Plan, PlannedVolume, VolumeKind};
use orchestrator_api::package::{Authorization, Body};
use orchestrator_api::wire::app::{App, Plain, Wanted};
use orchestrator_api::wire::operation::Ordered;

use crate::commands::restore;
use crate::failure::{Context, Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{author, find, ring, sealed};
use crate::output;
use crate::passphrase::PassphraseArgs;
use crate::state::{State, VolumeFolder, write_new};

/// Write an app with all its data into a folder, to be run without Comb
///
/// The app is stopped. Its compose file, a file .env with its options and passwords, and a folder for each volume are
/// written to DIR, and an override leads the volumes there: `docker compose up` in DIR runs it. It is done on the machine
/// that has the volumes. The app and its moments stay, stopped; `comb app remove` removes it.
#[derive(Debug, Args)]
pub struct EjectArgs {
    /// The app
    name: String,

    /// The folder, which must be empty or new
    #[arg(long, value_name = "DIR")]
    to: PathBuf,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// Ejects an app.
pub fn run(state: &State, args: &EjectArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    refuse_full(&args.to)?;
    let volumes = here(state, &app)?;
    let opened = ring::open(state, &client, &args.passphrase)?;
    let (authorization, body) = sealed::fetch(&client, opened.ring.owner(), &app)?;
    drop(opened);
    let plan = author::plan_of(&authorization, &body)?;

    if app.wanted == Wanted::Running {
        let ordered: Ordered = client.post(&format!("/v1/apps/{}/stop", app.id), &Plain {})?;
        let watching = OrderArgs { no_wait: false, json: false, ..args.order.clone() };
        watching.finish(&client, ordered, &format!("stopping \"{}\"", app.name))?;
    }
    let target = make(&args.to)?;
    files(&target, &body, &plan)?;
    private(&target.join(".env"), &environment(&target, &authorization, &body))?;
    for planned in &plan.volumes {
        let volume = volumes.iter().find(|(name, _)| *name == planned.name).map(|(_, volume)| volume);
        data(state, &target, planned, volume)?;
    }
    let by_itself = overrides(&target, &body.compose, &plan)?;
    output::note(&format!("\"{}\" is in {}", app.name, target.display()));
    output::note(&match by_itself {
        Some(command) => format!("`{command}` there runs it; its .env has its passwords"),
        None => "`docker compose up -d` there runs it; its .env has its passwords".to_owned(),
    });
    Ok(())
}

fn refuse_full(to: &Path) -> Result<()> {
    let is_empty = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(Failure::io(to.display(), &error)),
    };
    match is_empty {
        true => Ok(()),
        false => {
            Err(Failure::new(Kind::InTheWay, format!("{} is not empty", to.display()))
                .hint("name a new folder"))
        }
    }
}

/// The app's volumes on this machine, by their names in the app.
pub fn here(state: &State, app: &App) -> Result<Vec<(String, VolumeFolder)>> {
    let all = state.volumes()?;
    let mut found = Vec::new();
    for volume in &app.volumes {
        // One that was never made has nothing.
        let Some(key) = volume.volume else { continue };
        let here = all.iter().find(|here| here.id.0 == key.0).ok_or_else(|| {
            Failure::new(
                Kind::NotFound,
                format!("volume \"{}\" of \"{}\" is not on this machine", volume.name, app.name),
            )
            .hint("do it on the app's device, as the user that runs it there")
        })?;
        found.push((volume.name.clone(), here.clone()));
    }
    Ok(found)
}

fn make(to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to).context(to.display())?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context(to.display())?;
    to.canonicalize().context(to.display())
}

/// The folder that a volume goes to.
fn place(target: &Path, volume: &PlannedVolume) -> PathBuf {
    match &volume.kind {
        VolumeKind::Folder { path, .. } => target.join(path),
        _ => target.join("volumes").join(&volume.name),
    }
}

/// The package's files, but for what is in a volume by now.
fn files(target: &Path, body: &Body, plan: &Plan) -> Result<()> {
    let folders: Vec<PathBuf> = plan
        .volumes
        .iter()
        .filter(|volume| matches!(&volume.kind, VolumeKind::Folder { path, .. } if !path.is_empty()))
        .map(|volume| place(target, volume))
        .collect();
    for file in &body.files {
        let path = target.join(&file.path);
        if file.path == ".env" || folders.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).context(parent.display())?;
        }
        fs::write(&path, &file.bytes).context(path.display())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).context(path.display())?;
    }
    Ok(())
}

fn private(path: &Path, text: &str) -> Result<()> {
    write_new(path, text.as_bytes())
}

/// The `.env` of the folder, with every value that Comb gave the app behind what stood there.
fn environment(target: &Path, authorization: &Authorization, body: &Body) -> String {
    let mut text = String::new();
    if let Some(file) = body.files.iter().find(|file| file.path == ".env") {
        text.push_str(&String::from_utf8_lossy(&file.bytes));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    let filled = author::filled_in(authorization);
    let name = target.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let _ =
        writeln!(text, "# Values that Comb gave \"{}\" when it was written to {name}", authorization.name);
    let values = body.options.iter().chain(&body.secrets).map(|one| (one.name.as_str(), one.value.as_str()));
    for (name, value) in filled.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(values) {
        let _ = writeln!(text, "{name}='{}'", value.replace('\'', "\\'"));
    }
    text
}

/// What a volume has now, as a folder.
fn data(state: &State, target: &Path, planned: &PlannedVolume, volume: Option<&VolumeFolder>) -> Result<()> {
    let place = place(target, planned);
    let Some(volume) = volume else {
        return fs::create_dir_all(&place).context(place.display());
    };
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).context(parent.display())?;
    }
    // What an app sees of its volume is the folder `data` in it.
    let aside = target.join(".comb-eject");
    restore::run(
        state,
        &restore::RestoreArgs::of(format!("{}@head:/data", volume.name), Some(aside.clone())),
    )?;
    if place == *target {
        for entry in fs::read_dir(aside.join("data")).context(aside.display())? {
            let entry = entry.context(aside.display())?;
            let to = target.join(entry.file_name());
            fs::rename(entry.path(), &to).context(to.display())?;
        }
    } else {
        fs::rename(aside.join("data"), &place).context(place.display())?;
    }
    fs::remove_dir_all(&aside).context(aside.display())
}

/// Leads named volumes to their folders; the command where compose does not read that by itself.
fn overrides(target: &Path, main: &str, plan: &Plan) -> Result<Option<String>> {
    let named = plan.volumes.iter().filter(|volume| !matches!(volume.kind, VolumeKind::Folder { .. }));
    let mut text = String::from("# Leads the app's volumes to the folders beside this file.\nvolumes:\n");
    let mut is_needed = false;
    for volume in named {
        is_needed = true;
        let folder = serde_json::to_string(&place(target, volume)).unwrap_or_default();
        let key = serde_json::to_string(&volume.name).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {key}: !override\n    driver: local\n    driver_opts: {{type: none, o: bind, device: {folder}}}"
        );
    }
    if !is_needed {
        return Ok(None);
    }
    let (file, by_itself) = match main {
        "compose.yaml" | "compose.yml" => ("compose.override.yaml", true),
        "docker-compose.yaml" | "docker-compose.yml" => ("docker-compose.override.yml", true),
        _ => ("compose.override.yaml", false),
    };
    let path = target.join(file);
    if path.exists() {
        return Err(Failure::new(Kind::InTheWay, format!("the app has a {file} of its own"))
            .hint(format!("add this to it yourself:\n{text}")));
    }
    fs::write(&path, text).context(path.display())?;
    Ok((!by_itself).then(|| format!("docker compose -f {main} -f {file} up -d")))
}

#[cfg(test)]
mod tests {
    use orchestrator_api::compose::Owner;

    use super::*;

    fn volume(name: &str, kind: VolumeKind) -> PlannedVolume {
        PlannedVolume { name: name.to_owned(), kind, mounts: Vec::new() }
    }

    #[test]
    fn volumes_lead_to_their_folders() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let conf = VolumeKind::Folder { path: "conf".to_owned(), seed: true, owner: Owner::Image };
        let plan = Plan {
            volumes: vec![volume("data", VolumeKind::Named), volume("conf", conf)],
            ..Plan::default()
        };
        assert_eq!(overrides(folder.path(), "compose.yaml", &plan).expect("written"), None);
        let text = fs::read_to_string(folder.path().join("compose.override.yaml")).expect("it is there");
        assert!(text.contains("\"data\": !override"), "{text}");
        assert!(text.contains(&format!("{}/volumes/data", folder.path().display())), "{text}");
        assert!(!text.contains("conf"), "a folder needs none: {text}");
        let refused = overrides(folder.path(), "compose.yaml", &plan).expect_err("never overwritten");
        assert_eq!(refused.kind, Kind::InTheWay);
        let command = overrides(folder.path(), "app.yaml", &plan);
        assert!(command.is_err(), "the same file is in the way");
        assert_eq!(refuse_full(folder.path()).expect_err("it has a file").kind, Kind::InTheWay);
        assert_eq!(refuse_full(&folder.path().join("new")), Ok(()));
    }
}
