//! The policy over compose files, on what `docker compose` really answered.
//!
//! `fixtures/compose/rows.txt` has a row for each line of the table in `security.md`, section 6, allowed and refused,
//! and for each trick; `fixtures/compose/apps` has folders as projects show them on their own sites. Both hold compose's
//! answer, made by `fixtures/compose/normalise`, and what the policy must say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use orchestrator_api::compose::{
    Files, Folder, Given, Mount, Owner, Plan, PlannedVolume, Restart, Source, VolumeKind, check,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/compose")
}

/// What the device fills in for every row and app.
fn device() -> BTreeMap<String, String> {
    [
        ("APP_VOLUME_NAME", "comb-app"),
        ("LINK_VOLUME_NAME", "comb-link"),
        ("LINK_DOMAIN_DEFAULT", "hasty-hopper.example.org"),
        ("LINK_TOKEN_DEFAULT", "token-of-the-link"),
        ("HOME", "/home/me"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Permissions and adopted volumes, as a row or an app's `given.env` names them.
fn given(words: &str, variables: BTreeMap<String, String>) -> Given {
    let mut given = Given {
        folder: "/app".to_owned(),
        variables,
        comb_folders: vec!["/apps".to_owned(), "/var/lib/comb".to_owned()],
        ..Given::default()
    };
    for word in words.split_whitespace() {
        match word.strip_prefix("adopt=") {
            Some(docker) => given.adopted.insert(docker.to_owned()),
            None => given.permissions.insert(word.parse().expect("the example names a permission")),
        };
    }
    given
}

/// What is told about a folder, line by line.
fn told(files: &Files, main: &str, config: Option<&[u8]>, given: &Given) -> String {
    let mut out = String::new();
    let names: BTreeSet<String> = given.variables.keys().cloned().collect();
    let source = match Source::read(Folder { files, main }, &names) {
        Ok(source) => source,
        Err(refusals) => {
            for one in refusals {
                let hint = one.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                writeln!(out, "refused {} {}: {}{hint}", one.place, one.field, one.message)
                    .expect("a string takes it");
            }
            return out;
        }
    };
    let Some(config) = config else { return "nothing is refused in the text\n".to_owned() };
    let verdict = check(&source, config, given);
    for one in &verdict.refusals {
        let hint = one.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        writeln!(out, "refused {} {}: {}{hint}", one.place, one.field, one.message)
            .expect("a string takes it");
    }
    for ask in &verdict.asks {
        let word = if ask.granted { "granted" } else { "asks" };
        writeln!(out, "{word} {} {} {}: {}", ask.permission, ask.place, ask.field, ask.message)
            .expect("a string takes it");
    }
    for note in &verdict.notes {
        writeln!(out, "note {note}").expect("a string takes it");
    }
    if let Ok(plan) = verdict.accept() {
        tell_plan(&plan, &mut out);
    }
    out
}

fn tell_plan(plan: &Plan, out: &mut String) {
    for service in &plan.services {
        let image = service.image.as_deref().unwrap_or("built here");
        let mut line = format!("service {} {image}", service.name);
        if service.build {
            line += " build";
        }
        line += match service.restart {
            Restart::No => "",
            Restart::OnFailure(_) => " on-failure",
            Restart::Always => " always",
            Restart::UnlessStopped => " unless-stopped",
        };
        if let Some(pids) = service.pids {
            line += &format!(" pids {pids}");
        }
        out.push_str(&format!("{line}{}\n", tell_owner(&service.owner)));
    }
    for volume in &plan.volumes {
        tell_volume(volume, out);
    }
    for port in &plan.ports {
        let wish = port.wish.map(|wish| format!(" wish {wish}")).unwrap_or_default();
        let loopback = if port.loopback { " loopback" } else { "" };
        out.push_str(&format!("port {} {}/{}{wish}{loopback}\n", port.service, port.port, port.protocol));
    }
    for file in &plan.files {
        out.push_str(&format!("file {} {}:{}\n", file.path, file.service, file.target));
    }
    for network in &plan.networks {
        out.push_str(&format!("network {network}\n"));
    }
}

fn tell_owner(owner: &Owner) -> String {
    match owner {
        Owner::Image => String::new(),
        Owner::Numbers { uid, gid } => format!(" owner {uid}:{gid}"),
        Owner::Named { user, group } => format!(" owner {user}:{}", group.as_deref().unwrap_or("-")),
    }
}

fn tell_volume(volume: &PlannedVolume, out: &mut String) {
    let kind = match &volume.kind {
        VolumeKind::Named => "named".to_owned(),
        VolumeKind::App => "app".to_owned(),
        VolumeKind::Link => "link".to_owned(),
        VolumeKind::Adopted { docker } => format!("adopted {docker}"),
        VolumeKind::Folder { path, seed, owner } => {
            format!("folder ./{path}{}{}", if *seed { " seeded" } else { "" }, tell_owner(owner))
        }
    };
    out.push_str(&format!("volume {} {kind}", volume.name));
    for Mount { service, target, subpath, read_only } in &volume.mounts {
        let subpath = subpath.as_ref().map(|path| format!(" of {path}")).unwrap_or_default();
        out.push_str(&format!(" {service}:{target}{subpath}{}", if *read_only { " ro" } else { "" }));
    }
    out.push('\n');
}

struct Row {
    text: String,
    name: String,
    files: Files,
    main: String,
    config: Option<String>,
    given: String,
    told: String,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(fixtures().join("rows.txt")).expect("the rows are there");
    let mut rows = Vec::new();
    for text in text.split("=== ").filter(|text| !text.is_empty()) {
        let mut sections = text.split("\n--- ");
        let name = sections.next().expect("a split has a first part").trim().to_owned();
        let mut row = Row {
            text: text.to_owned(),
            name,
            files: Files::new(),
            main: String::new(),
            config: None,
            given: String::new(),
            told: String::new(),
        };
        for section in sections {
            let (title, body) = section.split_once('\n').unwrap_or((section, ""));
            match title.split(' ').next() {
                Some("config") => row.config = Some(body.to_owned()),
                Some("given") => row.given = title.trim_start_matches("given ").to_owned(),
                Some("told") => row.told = body.trim_end().to_owned(),
                _ => {
                    if row.main.is_empty() {
                        row.main = title.to_owned();
                    }
                    row.files.insert(title.to_owned(), format!("{body}\n").into_bytes());
                }
            }
        }
        rows.push(row);
    }
    rows
}

impl Row {
    fn answer(&self) -> String {
        let config = self.config.as_ref().map(|config| config.as_bytes());
        told(&self.files, &self.main, config, &given(&self.given, device()))
    }
}

#[test]
fn every_row_of_the_table_is_told_as_the_documents_say() {
    let rows = rows();
    assert!(rows.len() > 100, "the rows were read");
    let mut wrong = String::new();
    for row in &rows {
        let answer = row.answer();
        assert!(!row.told.is_empty(), "{}: says what is expected", row.name);
        if answer.trim_end() != row.told {
            write!(wrong, "\n=== {}\nexpected\n{}\ntold\n{answer}", row.name, row.told)
                .expect("a string takes it");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A folder below `fixtures/compose/apps`.
struct App {
    folder: PathBuf,
    files: Files,
    main: String,
    given: Given,
}

fn apps() -> Vec<App> {
    let mut folders: Vec<_> = fs::read_dir(fixtures().join("apps"))
        .expect("the apps are there")
        .map(|entry| entry.expect("the folder can be listed").path())
        .collect();
    folders.sort();
    folders.into_iter().map(app).collect()
}

fn app(folder: PathBuf) -> App {
    let mut files = Files::new();
    let mut open = vec![folder.clone()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path
                .strip_prefix(&folder)
                .expect("it was found there")
                .to_str()
                .expect("is UTF-8")
                .to_owned();
            if !["config.json", "told.txt", "given.env"].contains(&name.as_str()) {
                files.insert(name, fs::read(&path).expect("the file can be read"));
            }
        }
    }
    let mut variables = device();
    let mut words = String::new();
    for line in fs::read_to_string(folder.join("given.env")).unwrap_or_default().lines() {
        match (line.strip_prefix("# allow "), line.split_once('=')) {
            (Some(permissions), _) => words = permissions.to_owned(),
            (None, Some((name, value))) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            (None, None) => {}
        }
    }
    let main = ["compose.yaml", "docker-compose.yml", "docker-compose.yaml"]
        .into_iter()
        .find(|name| files.contains_key(*name))
        .expect("an app has a compose file")
        .to_owned();
    App { folder, files, main, given: given(&words, variables) }
}

impl App {
    fn answer(&self) -> String {
        let config = fs::read(self.folder.join("config.json")).expect("compose's answer is there");
        told(&self.files, &self.main, Some(&config), &self.given)
    }
}

#[test]
fn apps_as_their_projects_show_them_are_taken_as_expected() {
    let apps = apps();
    assert!(apps.len() >= 6, "the apps were found");
    for app in apps {
        let expected = fs::read_to_string(app.folder.join("told.txt")).expect("says what is expected");
        assert_eq!(app.answer(), expected, "{}", app.folder.display());
    }
}

/// Writes down what is told now, for a person to read before it is kept: `cargo test -p orchestrator-api --test
/// compose -- --ignored`.
#[test]
#[ignore = "writes what the others compare with"]
fn write_what_is_told() {
    let mut text = String::new();
    for row in rows() {
        let (before, _) = row.text.split_once("--- told\n").expect("a row says what is told");
        write!(text, "=== {before}--- told\n{}\n", row.answer()).expect("a string takes it");
    }
    fs::write(fixtures().join("rows.txt"), text).expect("the rows can be written");
    for app in apps() {
        fs::write(app.folder.join("told.txt"), app.answer()).expect("the file can be written");
    }
}
