//! `comb app eject`.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use orchestrator_api::compose::{Plan, PlannedVolume, VolumeKind};
use orchestrator_api::ids::DeviceId;
use orchestrator_api::package::{Authorization, Body};
use orchestrator_api::wire::app::{App, Plain, Wanted};
use orchestrator_api::wire::operation::Ordered;

use crate::commands::restore;
use crate::failure::{Context, Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, author, find, here, ring, sealed, words};
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
    let device = here::device(state, &client)?;
    refuse_elsewhere(&client, &app, device)?;
    let volumes = volumes_here(state, &app)?;
    let opened = ring::open(state, &client, &args.passphrase)?;
    let (authorization, body) = sealed::fetch(&client, opened.ring.owner(), &app)?;
    drop(opened);
    let plan = author::plan_of(&authorization, &body)?;
    let lead = lead(&body, &plan)?;
    let (target, is_new) = make(&args.to)?;

    // All that can be known before is known.
    let stopped = match app.wanted {
        Wanted::Stopped => Ok(()),
        Wanted::Running => stop(&client, &app, device, &args.order),
    };
    if let Err(failure) = stopped {
        if is_new {
            // Nothing was written to it.
            let _ = fs::remove_dir(&target);
        }
        return Err(failure);
    }
    let ejecting =
        Ejecting { state, target: &target, authorization: &authorization, body: &body, plan: &plan };
    let by_hand = ejecting
        .write(&volumes, &lead)
        .map_err(|failure| half_done(failure, &app.name, app.wanted == Wanted::Running, &target))?;
    output::note(&format!("\"{}\" is in {}", app.name, target.display()));
    output::note(&match by_hand {
        Some(command) => format!("`{command}` there runs it; its .env has its passwords"),
        None => "`docker compose up -d` there runs it; its .env has its passwords".to_owned(),
    });
    Ok(())
}

/// Refuses an app that another device has: what lies here of its volumes may be old.
fn refuse_elsewhere(client: &Client, app: &App, device: DeviceId) -> Result<()> {
    if app.device == Some(device) {
        return Ok(());
    }
    let Some(id) = app.device else {
        return Err(Failure::new(Kind::InTheWay, format!("no device has \"{}\"", app.name)).hint(format!(
            "`comb app start {}` gives it to one, with all that is safe of it; eject it there",
            app.name
        )));
    };
    let name = words::named(&find::device_names(&find::devices(client)?), &id);
    let name = output::escape(name.as_bytes());
    Err(Failure::new(Kind::InTheWay, format!("\"{}\" is on \"{name}\", and not on this machine", app.name)).hint(
        format!("eject it on \"{name}\", which has its newest data, or move it here before: `comb app move {} --to DEVICE`", app.name),
    ))
}

/// Stops the app, which is to be all here then.
fn stop(client: &Client, app: &App, device: DeviceId, order: &OrderArgs) -> Result<()> {
    let ordered: Ordered = client.post(&format!("/v1/apps/{}/stop", app.id), &Plain {})?;
    let watching = OrderArgs { no_wait: false, json: false, ..order.clone() };
    watching.finish(client, ordered, &format!("stopping \"{}\"", app.name))?;
    // It may have moved before it stopped; what the other one has that no store has is not here.
    let now: App = client.get(&format!("/v1/apps/{}", app.id))?;
    refuse_elsewhere(client, &now, device).map_err(|failure| and_then(failure, &again(&app.name)))
}

fn again(name: &str) -> String {
    format!("the app is stopped; `comb app start {name}` starts it again")
}

/// A failure with more to know about it.
fn and_then(failure: Failure, more: &str) -> Failure {
    let hint = failure.hint.as_ref().map_or_else(|| more.to_owned(), |hint| format!("{hint}; {more}"));
    failure.hint(hint)
}

/// What failed when the app was stopped already: how it goes on, and what lies in the folder.
fn half_done(failure: Failure, name: &str, was_running: bool, target: &Path) -> Failure {
    let mut failure = failure;
    if was_running {
        failure = and_then(failure, &again(name));
    }
    let entries =
        fs::read_dir(target).map(|all| all.filter_map(|entry| entry.ok().map(|entry| entry.file_name())));
    let mut entries: Vec<String> = entries
        .map(|all| all.map(|name| output::escape(name.as_encoded_bytes())).collect())
        .unwrap_or_default();
    entries.sort();
    if entries.is_empty() {
        return failure;
    }
    let passwords =
        if entries.iter().any(|name| name == ".env") { "; its .env has the app's passwords" } else { "" };
    let left = format!(
        "{} has a part of it ({}){passwords}: remove it before you try again",
        target.display(),
        entries.join(", ")
    );
    and_then(failure, &left)
}

/// An app on its way into a folder.
struct Ejecting<'a> {
    state: &'a State,
    target: &'a Path,
    authorization: &'a Authorization,
    body: &'a Body,
    plan: &'a Plan,
}

impl Ejecting<'_> {
    /// Writes all of it; the command that runs it where compose alone does not.
    fn write(&self, volumes: &[(String, VolumeFolder)], lead: &Lead) -> Result<Option<String>> {
        files(self.target, self.body, self.plan)?;
        private(&self.target.join(".env"), &environment(self.target, self.authorization, self.body))?;
        for planned in &self.plan.volumes {
            let volume = volumes.iter().find(|(name, _)| *name == planned.name).map(|(_, volume)| volume);
            data(self.state, self.target, planned, volume)?;
        }
        lead.write(self.target, self.plan)?;
        Ok(lead.by_hand.clone())
    }
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
pub fn volumes_here(state: &State, app: &App) -> Result<Vec<(String, VolumeFolder)>> {
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

/// The folder, and whether it was made just now.
fn make(to: &Path) -> Result<(PathBuf, bool)> {
    let is_new = !to.exists();
    fs::create_dir_all(to).context(to.display())?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context(to.display())?;
    // A folder in which nothing can be made is told before the app is stopped.
    rustix::fs::access(to, rustix::fs::Access::WRITE_OK).context(to.display())?;
    Ok((to.canonicalize().context(to.display())?, is_new))
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

/// What compose reads beside its main file by itself.
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// Ours where an app has one of these of its own, which Comb never read.
const OWN_OVERRIDE: &str = "compose.comb.yaml";

/// How compose finds the folders of an app's volumes.
#[derive(Debug, PartialEq, Eq)]
struct Lead {
    /// The file that says where they are, if the app has volumes that need it.
    file: Option<&'static str>,
    /// The command that runs the app, where compose alone would not read what it is to read.
    by_hand: Option<String>,
}

/// Decides it, before anything is written.
fn lead(body: &Body, plan: &Plan) -> Result<Lead> {
    let has = |name: &str| body.files.iter().any(|file| file.path == name);
    let main = body.compose.as_str();
    let usual = match main {
        "compose.yaml" | "compose.yml" => Some("compose.override.yaml"),
        "docker-compose.yaml" | "docker-compose.yml" => Some("docker-compose.override.yml"),
        _ => None,
    };
    // An override of the app's own would be read with ours, or in its place.
    let usual = usual.filter(|_| !OVERRIDES.iter().any(|name| has(name)));
    let is_needed = plan.volumes.iter().any(|volume| !matches!(volume.kind, VolumeKind::Folder { .. }));
    let file = is_needed.then(|| usual.unwrap_or(OWN_OVERRIDE));
    if let Some(file) = file.filter(|file| has(file)) {
        return Err(Failure::new(Kind::InTheWay, format!("the app has a {file} of its own"))
            .hint("nothing was stopped; call it otherwise, and `comb app update NAME DIR`"));
    }
    let by_hand = usual.is_none().then(|| match file {
        Some(file) => format!("docker compose -f {main} -f {file} up -d"),
        None => format!("docker compose -f {main} up -d"),
    });
    Ok(Lead { file, by_hand })
}

impl Lead {
    /// Writes the file that leads named volumes to their folders.
    fn write(&self, target: &Path, plan: &Plan) -> Result<()> {
        let Some(file) = self.file else { return Ok(()) };
        let named = plan.volumes.iter().filter(|volume| !matches!(volume.kind, VolumeKind::Folder { .. }));
        let mut text = String::from("# Leads the app's volumes to the folders beside this file.\nvolumes:\n");
        for volume in named {
            let folder = serde_json::to_string(&place(target, volume)).unwrap_or_default();
            let key = serde_json::to_string(&volume.name).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {key}: !override\n    driver: local\n    driver_opts: {{type: none, o: bind, device: {folder}}}"
            );
        }
        let path = target.join(file);
        if path.exists() {
            return Err(Failure::new(Kind::InTheWay, format!("a volume of the app has a file {file}"))
                .hint(format!("add this to it yourself:\n{text}")));
        }
        fs::write(&path, text).context(path.display())
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::compose::Owner;
    use orchestrator_api::package::PackedFile;
    use orchestrator_api::text::Uuid;
    use serde_json::json;

    use super::*;
    use crate::hive::client::tests::{ID, answer, app, client, device, serving};

    fn volume(name: &str, kind: VolumeKind) -> PlannedVolume {
        PlannedVolume { name: name.to_owned(), kind, mounts: Vec::new() }
    }

    fn plan(named: bool) -> Plan {
        let conf = VolumeKind::Folder { path: "conf".to_owned(), seed: true, owner: Owner::Image };
        let data = named.then(|| volume("data", VolumeKind::Named));
        Plan { volumes: data.into_iter().chain([volume("conf", conf)]).collect(), ..Plan::default() }
    }

    fn body(main: &str, files: &[&str]) -> Body {
        let file = |path: &str| PackedFile { path: path.to_owned(), mode: 0o644, bytes: Vec::new() };
        Body {
            app: Uuid([1; 16]),
            revision: 1,
            files: [main].iter().chain(files).map(|path| file(path)).collect(),
            compose: main.to_owned(),
            options: Vec::new(),
            secrets: Vec::new(),
            grants: Vec::new(),
        }
    }

    #[test]
    fn volumes_lead_to_their_folders() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let plan = plan(true);
        let lead = lead(&body("compose.yaml", &[]), &plan).expect("nothing is in the way");
        assert_eq!(lead, Lead { file: Some("compose.override.yaml"), by_hand: None });
        lead.write(folder.path(), &plan).expect("written");
        let text = fs::read_to_string(folder.path().join("compose.override.yaml")).expect("it is there");
        assert!(text.contains("\"data\": !override"), "{text}");
        assert!(text.contains(&format!("{}/volumes/data", folder.path().display())), "{text}");
        assert!(!text.contains("conf"), "a folder needs none: {text}");
        let refused = lead.write(folder.path(), &plan).expect_err("never overwritten");
        assert_eq!(refused.kind, Kind::InTheWay);
        assert_eq!(refuse_full(folder.path()).expect_err("it has a file").kind, Kind::InTheWay);
        assert_eq!(refuse_full(&folder.path().join("new")), Ok(()));
    }

    #[test]
    fn what_compose_is_to_read_is_known_before_the_app_is_stopped() {
        let own = |main: &str| Some(format!("docker compose -f {main} -f compose.comb.yaml up -d"));
        type Row<'a> = (&'a str, &'a [&'a str], bool, Option<&'a str>, Option<String>);
        let table: &[Row<'_>] = &[
            ("compose.yaml", &[], true, Some("compose.override.yaml"), None),
            ("docker-compose.yml", &[], true, Some("docker-compose.override.yml"), None),
            ("compose.yaml", &[], false, None, None),
            ("app.yaml", &[], true, Some("compose.comb.yaml"), own("app.yaml")),
            ("app.yaml", &[], false, None, Some("docker compose -f app.yaml up -d".to_owned())),
            // Comb never read an override of the app's own, so it is left out here too.
            (
                "compose.yaml",
                &["compose.override.yaml"],
                true,
                Some("compose.comb.yaml"),
                own("compose.yaml"),
            ),
            (
                "compose.yaml",
                &["docker-compose.override.yml"],
                true,
                Some("compose.comb.yaml"),
                own("compose.yaml"),
            ),
            (
                "compose.yaml",
                &["compose.override.yaml"],
                false,
                None,
                Some("docker compose -f compose.yaml up -d".to_owned()),
            ),
        ];
        for (main, files, named, file, by_hand) in table {
            let lead = lead(&body(main, files), &plan(*named)).expect("nothing is in the way");
            assert_eq!(lead, Lead { file: *file, by_hand: by_hand.clone() }, "{main} {files:?}");
        }
        let both = body("compose.yaml", &["compose.override.yaml", "compose.comb.yaml"]);
        let refused = lead(&both, &plan(true)).expect_err("both names are taken");
        assert_eq!(refused.kind, Kind::InTheWay);
        assert!(refused.hint.expect("a hint").contains("nothing was stopped"));
    }

    #[test]
    fn an_app_that_another_device_has_is_ejected_there() {
        let app = |device: Option<&str>| app(&json!({"device": device}));
        let devices = json!({"items": [device(&json!({}))], "next": null});
        let (hive, serving) = serving(vec![answer("200 OK", &devices.to_string())]);
        let client = client(hive);
        let here: DeviceId = "22222222-2222-4222-8222-222222222222".parse().expect("an id");
        refuse_elsewhere(&client, &app(Some("22222222-2222-4222-8222-222222222222")), here)
            .expect("it is here");
        let nobody = refuse_elsewhere(&client, &app(None), here).expect_err("nobody has it");
        assert!(nobody.hint.expect("a hint").contains("comb app start photos"));
        let elsewhere = refuse_elsewhere(&client, &app(Some(ID)), here).expect_err("another has it");
        assert_eq!((elsewhere.kind, elsewhere.message.contains("is on \"attic\"")), (Kind::InTheWay, true));
        serving.join().expect("asked");
    }

    #[test]
    fn what_fails_behind_the_stop_says_how_the_app_goes_on_and_what_is_left() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let failed = || Failure::new(Kind::NoSpace, "the disk is full").hint("make room");
        let told = half_done(failed(), "photos", true, folder.path());
        assert_eq!(
            told.hint.as_deref(),
            Some("make room; the app is stopped; `comb app start photos` starts it again")
        );
        fs::write(folder.path().join(".env"), "").expect("a file");
        fs::create_dir(folder.path().join("volumes")).expect("a folder");
        let told = half_done(failed(), "photos", false, folder.path());
        let hint = told.hint.expect("a hint");
        assert!(!hint.contains("comb app start"), "it was stopped before: {hint}");
        assert!(hint.contains("(.env, volumes); its .env has the app's passwords: remove it"), "{hint}");
        assert_eq!(told.kind, Kind::NoSpace);
    }
}
