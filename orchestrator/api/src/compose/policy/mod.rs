//! The policy over compose's answer.
//!
//! Whatever is not known to be harmless is refused, so a newer compose that knows more does not give an app more:
//! `keys::unknown_in` tells keys that no list has, and `service.rs` has judged each one of those that stand in the list.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::block::NamedKind;
use super::keys::{self, join};
use super::paths::absolute;
use super::{Ask, Note, Place, Plan, PlannedVolume, Refusal, Source, TOLD_MAX, Verdict};
use crate::permission::{PERMISSIONS_MAX, Permission};

mod build;
mod mounts;
mod power;
mod reach;
mod sections;
mod service;
mod value;

use reach::on_host_network;
use value::says;

/// The largest answer of compose that is read, in bytes.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;
/// The most services of an app.
pub const SERVICES_MAX: usize = 64;
/// The most volumes of an app.
pub const VOLUMES_MAX: usize = 32;
/// The most published ports of an app.
pub const PORTS_MAX: usize = 64;
/// The most containers of a service.
pub const CONTAINERS_MAX: u64 = 16;
/// The longest name of an image, in bytes.
pub const IMAGE_BYTES_MAX: usize = 512;
/// The longest name of a volume or service, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// The variable that names the app's volume in files written for it.
pub const APP_VOLUME: &str = "APP_VOLUME_NAME";
/// The variable that names the volume of the app's link.
pub const LINK_VOLUME: &str = "LINK_VOLUME_NAME";

/// What the policy is told beside the file.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The absolute path of the folder that compose read, with the main file's folder as its project's.
    pub folder: String,
    /// What the device fills in: [`APP_VOLUME`] and [`LINK_VOLUME`] matter here.
    pub variables: BTreeMap<String, String>,
    /// What the owner granted.
    pub permissions: BTreeSet<Permission>,
    /// Docker volumes whose data is taken over.
    pub adopted: BTreeSet<String>,
    /// Folders of the machine that are Comb's, and Docker's own where it is not `/var/lib/docker`.
    pub comb_folders: Vec<String>,
}

/// Checks compose's answer about the text that `source` is.
pub fn check(source: &Source, config: &[u8], given: &Given) -> Verdict {
    let mut checker = Checker::new(source, given);
    match read(config) {
        Ok(config) => checker.config(&config),
        Err(problem) => checker.refuse(&At::file(), format!("compose's answer {problem}")),
    }
    checker.finish()
}

fn read(config: &[u8]) -> Result<Map<String, Value>, String> {
    if config.len() > CONFIG_BYTES_MAX {
        return Err(format!("is larger than {CONFIG_BYTES_MAX} bytes"));
    }
    match serde_json::from_slice(config) {
        Ok(Value::Object(mut config)) => {
            config.values_mut().for_each(plain_dollars);
            Ok(config)
        }
        Ok(_) => Err("is no object".to_owned()),
        Err(error) => Err(format!("is no JSON: {error}")),
    }
}

/// Compose writes each `$` twice, so that its answer can be read as a compose file again.
fn plain_dollars(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("$$") => *text = text.replace("$$", "$"),
        Value::Array(items) => items.iter_mut().for_each(plain_dollars),
        Value::Object(map) => map.values_mut().for_each(plain_dollars),
        _ => {}
    }
}

/// Where in compose's answer something stands, and what to look for in the text.
#[derive(Debug, Clone, Default)]
struct At<'a> {
    path: Vec<&'a str>,
    number: Option<usize>,
    clues: Vec<&'a str>,
}

impl<'a> At<'a> {
    fn file() -> Self {
        Self::default()
    }

    fn of(path: &[&'a str]) -> Self {
        Self { path: path.to_vec(), number: None, clues: Vec::new() }
    }

    fn key(&self, key: &'a str) -> Self {
        let mut at = self.clone();
        at.path.push(key);
        at
    }

    fn item(&self, number: usize, clues: &[&'a str]) -> Self {
        Self { path: self.path.clone(), number: Some(number), clues: clues.to_vec() }
    }

    fn field(&self) -> String {
        let field = self.path.iter().fold(String::new(), |field, key| join(&field, key));
        match self.number {
            Some(number) => format!("{field}[{number}]"),
            None => field,
        }
    }
}

struct Checker<'a> {
    source: &'a Source,
    given: &'a Given,
    folder: String,
    refusals: Vec<Refusal>,
    asks: BTreeMap<Permission, Ask>,
    notes: Vec<Note>,
    plan: Plan,
    volumes: BTreeMap<String, PlannedVolume>,
    /// Volumes that were told already; what mounts them is not told again.
    volumes_refused: BTreeSet<String>,
    /// Relative folders that are bound, with where.
    folders: BTreeMap<String, Place>,
    lost: Option<Note>,
}

impl<'a> Checker<'a> {
    fn new(source: &'a Source, given: &'a Given) -> Self {
        Self {
            source,
            given,
            folder: absolute(&given.folder).unwrap_or_default(),
            refusals: Vec::new(),
            asks: BTreeMap::new(),
            notes: source.notes().to_vec(),
            plan: Plan::default(),
            volumes: BTreeMap::new(),
            volumes_refused: BTreeSet::new(),
            folders: BTreeMap::new(),
            lost: None,
        }
    }

    fn refuse(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.refuse_with(at, message, None);
    }

    fn refuse_with(&mut self, at: &At<'_>, message: impl Into<String>, hint: Option<&str>) {
        // Looking for the line takes time; a file with so many mistakes is refused anyway.
        if self.refusals.len() == TOLD_MAX {
            return;
        }
        self.refusals.push(Refusal {
            place: self.source.place(&at.path, &at.clues),
            field: at.field(),
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }

    fn ask(&mut self, at: &At<'_>, permission: Permission, message: String) {
        // One more than may be given is enough to refuse them.
        if self.asks.contains_key(&permission) || self.asks.len() > PERMISSIONS_MAX {
            return;
        }
        let granted = self.given.permissions.contains(&permission);
        let place = self.source.place(&at.path, &at.clues);
        self.asks.insert(permission.clone(), Ask { permission, place, field: at.field(), message, granted });
    }

    fn note(&mut self, at: &At<'_>, message: impl Into<String>) {
        if self.notes.len() >= TOLD_MAX {
            return;
        }
        let note = Note { place: self.source.place(&at.path, &at.clues), message: message.into() };
        self.notes.push(note);
    }

    /// The items of a list. Another form is one that compose does not answer with, and nobody has judged.
    fn items<'v>(&mut self, at: &At<'_>, value: &'v Value) -> &'v [Value] {
        match value {
            Value::Array(items) => items,
            other => {
                if says(other) {
                    self.refuse(at, "this should be a list in compose's answer");
                }
                &[]
            }
        }
    }

    /// The texts of a list.
    fn texts<'v>(&mut self, at: &At<'_>, value: &'v Value) -> Vec<&'v str> {
        let items = self.items(at, value);
        let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
        if texts.len() < items.len() {
            self.refuse(at, "this should be a list of texts in compose's answer");
        }
        texts
    }

    /// The entries of a map.
    fn entries<'v>(&mut self, at: &At<'_>, value: &'v Value) -> Vec<(&'v str, &'v Value)> {
        match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.as_str(), value)).collect(),
            other => {
                if says(other) {
                    self.refuse(at, "this should be a map in compose's answer");
                }
                Vec::new()
            }
        }
    }

    /// The text at a place; none where nothing is said.
    fn text<'v>(&mut self, at: &At<'_>, value: &'v Value) -> &'v str {
        match value {
            Value::String(text) => text,
            other => {
                if says(other) {
                    self.refuse(at, "this should be a text in compose's answer");
                }
                ""
            }
        }
    }

    fn finish(mut self) -> Verdict {
        self.notes.extend(self.lost);
        self.plan.volumes = self.volumes.into_values().collect();
        self.plan.ports.sort_by(|a, b| {
            (&a.service, a.port, a.protocol, a.wish).cmp(&(&b.service, b.port, b.protocol, b.wish))
        });
        self.plan.files.sort_by(|a, b| (&a.service, &a.target).cmp(&(&b.service, &b.target)));
        self.notes.sort();
        self.notes.dedup();
        self.refusals.sort();
        self.refusals.dedup();
        Verdict {
            refusals: self.refusals,
            asks: self.asks.into_values().collect(),
            notes: self.notes,
            plan: self.plan,
        }
    }

    fn config(&mut self, config: &Map<String, Value>) {
        if self.folder.is_empty() {
            self.refuse(&At::file(), "the folder that compose read has no absolute path");
            return;
        }
        for (field, message) in keys::unknown_in(config) {
            let path: Vec<&str> = field.split('.').collect();
            self.refuse(&At::of(&path), message);
        }
        let project = config.get("name").and_then(Value::as_str).unwrap_or_default();
        let empty = Map::new();
        for section in ["models", "configs", "secrets", "networks", "volumes", "services"] {
            self.entries(&At::of(&[section]), &config.get(section).cloned().unwrap_or_default());
        }
        let map = |key: &str| config.get(key).and_then(Value::as_object).unwrap_or(&empty);
        if !map("models").is_empty() {
            self.refuse(&At::of(&["models"]), "models run beside the containers, where Comb cannot see them");
        }
        for section in ["configs", "secrets"] {
            for (name, value) in map(section) {
                self.given_file(section, name, value);
            }
        }
        for (name, value) in map("networks") {
            self.network(name, value, project);
        }
        self.named_volumes(map("volumes"), project);

        let services = map("services");
        if services.is_empty() {
            self.refuse(&At::of(&["services"]), "the file has no services");
        }
        if services.len() > SERVICES_MAX {
            self.refuse(&At::of(&["services"]), format!("there are more than {SERVICES_MAX} services"));
            return;
        }
        let on_host = on_host_network(services);
        for (name, value) in services {
            self.service(name, value, on_host.contains(name.as_str()));
        }
        for (name, place) in self.source.services() {
            if !services.contains_key(name) && self.notes.len() < TOLD_MAX {
                let message = format!("\"{name}\" belongs to a profile that was not chosen, and is left out");
                self.notes.push(Note { place, message });
            }
        }
        self.folders_apart();
        self.limits();
        self.block(services);
    }

    fn limits(&mut self) {
        if self.volumes.len() > VOLUMES_MAX {
            self.refuse(&At::of(&["volumes"]), format!("there are more than {VOLUMES_MAX} volumes"));
        }
        if self.plan.ports.len() > PORTS_MAX {
            self.refuse(&At::of(&["services"]), format!("more than {PORTS_MAX} ports are published"));
        }
        if self.asks.len() > PERMISSIONS_MAX {
            self.refuse(
                &At::of(&["services"]),
                format!("more than {PERMISSIONS_MAX} permissions are asked for"),
            );
        }
    }

    /// What `x-comb` names must be there.
    fn block(&mut self, services: &Map<String, Value>) {
        let source = self.source;
        for named in &source.block().named {
            let (there, what) = match named.kind {
                NamedKind::Service => (services.contains_key(&named.name), "service"),
                NamedKind::Volume => (self.volumes.contains_key(&named.name), "volume"),
            };
            if !there && self.refusals.len() < TOLD_MAX {
                let message = format!("there is no {what} \"{}\"", named.name.escape_debug());
                let place = Place { file: source.main().to_owned(), line: named.line };
                self.refusals.push(Refusal { place, field: named.field.clone(), message, hint: None });
            }
        }
    }

    fn labels(&mut self, at: &At<'_>, labels: &Value) {
        let names: Vec<&str> = match labels {
            Value::Array(_) => self.texts(at, labels),
            labels => self.entries(at, labels).into_iter().map(|(name, _)| name).collect(),
        };
        for name in names {
            let lower = name.to_ascii_lowercase();
            if ["io.comb.", "com.docker.compose."].iter().any(|prefix| lower.starts_with(prefix)) {
                let name = name.split('=').next().unwrap_or(name);
                let at = At { clues: vec![name], ..at.clone() };
                self.refuse(&at, format!("the label \"{}\" is for Comb to give", name.escape_debug()));
            }
        }
    }
}
