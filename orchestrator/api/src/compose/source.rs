//! The text of a compose file and of the files that it names, read before compose reads them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::keys::{join, unknown};
use super::paths::{inside, remote};
use super::variables::{may_be_in_env, names_of, needed};
use super::{Block, Files, Note, Place, Refusal, TOLD_MAX};
use crate::yaml::{self, Node, Value};

/// The most files of a folder.
pub const FILES_MAX: usize = 256;
/// The longest path of a file, in bytes.
pub const FILE_PATH_BYTES_MAX: usize = 255;
/// All files together, in bytes.
pub const FOLDER_BYTES_MAX: usize = 1 << 20;
/// How often a service may extend another one.
const EXTENDS_MAX: usize = 16;

/// An app's folder as it is handed in.
#[derive(Debug, Clone, Copy)]
pub struct Folder<'a> {
    /// Its files.
    pub files: &'a Files,
    /// The path of the main compose file.
    pub main: &'a str,
}

/// The text of an app, with its lines.
#[derive(Debug, Clone)]
pub struct Source {
    main: String,
    files: BTreeMap<String, Node>,
    paths: BTreeSet<String>,
    block: Block,
    notes: Vec<Note>,
}

/// What a service says of the machine that it needs, as it stands in the text: nothing is resolved, and compose may read it
/// otherwise. For showing only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declared {
    /// The service.
    pub service: String,
    /// Its image; none if it is built.
    pub image: Option<String>,
    /// Whether it is built here.
    pub is_built: bool,
    /// For which processors: `linux/arm64`.
    pub platform: Option<String>,
    /// The most memory that it may have, or what it reserves.
    pub memory: Option<String>,
    /// What it asks for beyond the rules, in the file's words: no device grants that by itself.
    pub asks: Vec<String>,
}

/// The most of what a service asks for that is told.
const ASKS_MAX: usize = 16;

/// A file on its way through the reader, with the folder that its paths are seen from.
struct Wanted {
    file: String,
    base: String,
}

impl Source {
    /// Reads the folder. `variables` are the names that have a value beside options and `.env`.
    pub fn read(folder: Folder<'_>, variables: &BTreeSet<String>) -> Result<Self, Vec<Refusal>> {
        let mut reader =
            Reader { folder, files: BTreeMap::new(), refusals: Vec::new(), env: BTreeSet::new() };
        reader.check_folder();
        if !reader.refusals.is_empty() {
            return Err(reader.refusals);
        }
        reader.read_all();

        let mut block = Block::default();
        let mut notes = Vec::new();
        for (file, root) in &reader.files {
            let Some(entry) = root.get("x-comb") else { continue };
            if file == folder.main {
                match Block::read(&entry.node, file) {
                    Ok(read) => block = read,
                    Err(refusals) => reader.refusals.extend(refusals),
                }
            } else {
                let place = Place { file: file.clone(), line: entry.line };
                let message = "\"x-comb\" is read in the app's main file only".to_owned();
                notes.push(Note { place, message });
            }
        }

        let mut has = variables.clone();
        has.extend(block.options.iter().map(|option| option.name.clone()));
        has.extend(std::mem::take(&mut reader.env));
        reader.check_variables(&has);

        let Reader { files, mut refusals, .. } = reader;
        refusals.sort();
        refusals.dedup();
        refusals.truncate(TOLD_MAX);
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let paths = folder.files.keys().cloned().collect();
        Ok(Self { main: folder.main.to_owned(), files, paths, block, notes })
    }

    /// What `x-comb` says.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The main file's path.
    pub fn main(&self) -> &str {
        &self.main
    }

    /// What each service says of the machine that it needs.
    pub fn declared(&self) -> Vec<Declared> {
        let services = self.files.get(&self.main).and_then(|root| root.get("services"));
        let services = services.map_or(&[][..], |entry| entry.node.entries());
        services.iter().take(super::SERVICES_MAX).map(declared).collect()
    }

    /// What the reading noted.
    pub(super) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Whether a path is one of the folder's files.
    pub(super) fn is_file(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Whether the folder has a folder of this path with files in it.
    pub(super) fn is_folder(&self, path: &str) -> bool {
        let below = format!("{path}/");
        path.is_empty() || self.paths.range(below.clone()..).next().is_some_and(|one| one.starts_with(&below))
    }

    /// The services that stand in the text, with their places; compose leaves out those of profiles nobody chose.
    pub(super) fn services(&self) -> Vec<(&str, Place)> {
        let included: Vec<_> = self.files.iter().filter(|(file, _)| **file == self.main).collect();
        let mut services = Vec::new();
        for (file, root) in included {
            let Some(entry) = root.get("services") else { continue };
            for service in entry.node.entries() {
                services.push((service.key.as_str(), Place { file: file.clone(), line: service.line }));
            }
        }
        services
    }

    /// Where in the text something stands that compose's answer says. `path` is the section, the name in it and the
    /// keys below; of a list the item that holds the first of `clues` it can find. As near as can be told.
    pub(super) fn place(&self, path: &[&str], clues: &[&str]) -> Place {
        let mut place = Place { file: self.main.clone(), line: 1 };
        let Some((section, path)) = path.split_first() else { return place };
        let Some((name, keys)) = path.split_first() else {
            return self.section(section).unwrap_or(place);
        };
        let Some((mut file, mut node, line)) = self.named(section, name, None) else { return place };
        place = Place { file: file.to_owned(), line };
        let Some(first) = keys.first() else { return place };
        for _ in 0..EXTENDS_MAX {
            if node.get(first).is_some() {
                break;
            }
            let Some(base) = self.extended(section, file, node) else { return place };
            (file, node) = (base.0, base.1);
        }
        for key in keys {
            let Some(entry) = node.get(key) else { return place };
            place = Place { file: file.to_owned(), line: entry.line };
            node = &entry.node;
        }
        let found = clues.iter().filter(|clue| !clue.is_empty()).find_map(|clue| match &node.value {
            Value::List(items) => items.iter().find(|item| holds(item, clue)).map(|item| item.line),
            Value::Map(entries) => entries
                .iter()
                .find(|entry| entry.key.contains(clue) || holds(&entry.node, clue))
                .map(|entry| entry.line),
            Value::Scalar { .. } => None,
        });
        place.line = found.unwrap_or(place.line);
        place
    }

    fn section(&self, section: &str) -> Option<Place> {
        let of = |file: &String| {
            let entry = self.files.get(file)?.get(section)?;
            Some(Place { file: file.clone(), line: entry.line })
        };
        of(&self.main).or_else(|| self.files.keys().find_map(of))
    }

    fn named(&self, section: &str, name: &str, within: Option<&str>) -> Option<(&str, &Node, u32)> {
        let of = |file: &str| {
            let (file, root) = self.files.get_key_value(file)?;
            let entry = root.get(section)?.node.get(name)?;
            Some((file.as_str(), entry.node.as_ref(), entry.line))
        };
        match within {
            Some(file) => of(file),
            None => of(&self.main).or_else(|| self.files.keys().find_map(|file| of(file))),
        }
    }

    fn extended(&self, section: &str, file: &str, service: &Node) -> Option<(&str, &Node)> {
        let extends = &service.get("extends")?.node;
        let (name, other) = match extends.text() {
            Some(name) => (name, None),
            None => (
                extends.get("service")?.node.text()?,
                extends.get("file").and_then(|entry| entry.node.text()),
            ),
        };
        let other = match other {
            Some(other) => inside(parent(file), other)?,
            None => file.to_owned(),
        };
        self.named(section, name, Some(&other)).map(|(file, node, _)| (file, node))
    }
}

/// A text behind keys.
fn below<'n>(node: &'n Node, keys: &[&str]) -> Option<&'n str> {
    let mut node = node;
    for key in keys {
        node = &node.get(key)?.node;
    }
    node.text().filter(|text| !text.is_empty())
}

fn declared(service: &yaml::Entry) -> Declared {
    let node = service.node.as_ref();
    let text = |keys: &[&str]| below(node, keys).map(str::to_owned);
    let memory = ["limits", "reservations"].map(|which| text(&["deploy", "resources", which, "memory"]));
    let mut asks = Vec::new();
    for key in ["cap_add", "devices", "gpus"] {
        let Some(entry) = node.get(key) else { continue };
        let items = one_or_many(&entry.node);
        asks.extend(items.into_iter().map(|item| match item.text() {
            Some(text) => format!("{key}: {text}"),
            None => key.to_owned(),
        }));
    }
    if below(node, &["network_mode"]) == Some("host") {
        asks.push("network_mode: host".to_owned());
    }
    if node.get("privileged").and_then(|entry| entry.node.flag()) == Some(true) {
        asks.push("privileged".to_owned());
    }
    asks.truncate(ASKS_MAX);
    let [limit, reserved] = memory;
    Declared {
        service: service.key.clone(),
        image: text(&["image"]),
        is_built: node.get("build").is_some(),
        platform: text(&["platform"]),
        memory: text(&["mem_limit"]).or(limit).or(reserved),
        asks,
    }
}

/// Whether a text somewhere in a node holds the clue.
fn holds(node: &Node, clue: &str) -> bool {
    match &node.value {
        Value::Scalar { text, .. } => text.contains(clue),
        Value::List(items) => items.iter().any(|item| holds(item, clue)),
        Value::Map(entries) => entries.iter().any(|entry| entry.key == clue || holds(&entry.node, clue)),
    }
}

fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(parent, _)| parent)
}

struct Reader<'a> {
    folder: Folder<'a>,
    files: BTreeMap<String, Node>,
    refusals: Vec<Refusal>,
    /// Names that files of variables give.
    env: BTreeSet<String>,
}

impl Reader<'_> {
    fn refuse(&mut self, file: &str, line: u32, field: &str, message: impl Into<String>, hint: Option<&str>) {
        self.refusals.push(Refusal {
            place: Place { file: file.to_owned(), line },
            field: field.to_owned(),
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }

    fn check_folder(&mut self) {
        let main = self.folder.main;
        if self.folder.files.len() > FILES_MAX {
            self.refuse(main, 1, "", format!("the folder has more than {FILES_MAX} files"), None);
        }
        let bytes: usize = self.folder.files.values().map(Vec::len).sum();
        if bytes > FOLDER_BYTES_MAX {
            let hint = "large files belong into an image or a volume";
            self.refuse(
                main,
                1,
                "",
                format!("the folder is larger than {FOLDER_BYTES_MAX} bytes"),
                Some(hint),
            );
        }
        for path in self.folder.files.keys() {
            if !is_file_path(path) {
                self.refuse(
                    main,
                    1,
                    "",
                    format!("\"{}\" is no path for a file of a package", path.escape_debug()),
                    None,
                );
            }
        }
        if !self.folder.files.contains_key(main) {
            self.refuse(main, 1, "", format!("\"{}\" is not in the app's folder", main.escape_debug()), None);
        }
    }

    fn read_all(&mut self) {
        let main = self.folder.main.to_owned();
        let base = parent(&main).to_owned();
        // Which of them compose reads depends on its version.
        let folder = self.folder.files;
        for path in folder.keys().filter(|path| path.rsplit('/').next() == Some(".env")) {
            self.read_variables(path);
        }
        // A file is read once for each folder that its paths are seen from.
        let mut seen = BTreeSet::new();
        let mut queue = VecDeque::from([Wanted { file: main, base }]);
        while let Some(wanted) = queue.pop_front() {
            if !seen.insert((wanted.file.clone(), wanted.base.clone())) {
                continue;
            }
            if seen.len() > FILES_MAX {
                self.refuse(
                    &wanted.file,
                    1,
                    "",
                    format!("the files name each other more than {FILES_MAX} times"),
                    None,
                );
                return;
            }
            let Some(bytes) = self.folder.files.get(&wanted.file) else { continue };
            let root = match yaml::parse(bytes) {
                Ok(root) => root,
                Err(error) => {
                    self.refuse(&wanted.file, error.line, "", format!("the file {}", error.message), None);
                    continue;
                }
            };
            if !matches!(root.value, Value::Map(_)) {
                self.refuse(&wanted.file, root.line, "", "the file is no compose file: it has no keys", None);
                continue;
            }
            for key in unknown(&root) {
                self.refuse(&wanted.file, key.line, &key.field, key.message, None);
            }
            self.follow(&wanted, &root, &mut queue);
            self.files.insert(wanted.file, root);
        }
    }

    /// Finds the files that compose would read because of this one.
    fn follow(&mut self, wanted: &Wanted, root: &Node, queue: &mut VecDeque<Wanted>) {
        if let Some(include) = root.get("include") {
            for (number, item) in one_or_many(&include.node).into_iter().enumerate() {
                self.follow_include(wanted, item, &format!("include[{number}]"), queue);
            }
        }
        for service in root.get("services").map_or(&[][..], |entry| entry.node.entries()) {
            let field = join("services", &service.key);
            for key in ["env_file", "label_file"] {
                let Some(entry) = service.node.get(key) else { continue };
                for item in one_or_many(&entry.node) {
                    let (path, required) = match item.get("path") {
                        Some(path) => (
                            path.node.as_ref(),
                            item.get("required").and_then(|entry| entry.node.flag()) != Some(false),
                        ),
                        None => (item, true),
                    };
                    self.file(wanted, path, &wanted.base, &join(&field, key), required);
                }
            }
            if let Some(volumes) = service.node.get("volumes") {
                self.relative_binds(wanted, &volumes.node, &join(&field, "volumes"));
            }
            let Some(extends) = service.node.get("extends") else { continue };
            let Some(entry) = extends.node.get("file") else { continue };
            let field = join(&field, "extends.file");
            if let Some(file) = self.file(wanted, &entry.node, &wanted.base, &field, true) {
                queue.push_back(Wanted { base: parent(&file).to_owned(), file });
            }
        }
        for section in ["configs", "secrets"] {
            for thing in root.get(section).map_or(&[][..], |entry| entry.node.entries()) {
                let Some(entry) = thing.node.get("file") else { continue };
                // With a variable in it, the path is checked where compose has filled it in.
                if entry.node.text().is_some_and(|text| !text.contains('$')) {
                    let field = format!("{section}.{}.file", thing.key);
                    self.file(wanted, &entry.node, &wanted.base, &field, true);
                }
            }
        }
    }

    /// A bind that leaves the folder by `..` would lead elsewhere on each machine.
    fn relative_binds(&mut self, wanted: &Wanted, volumes: &Node, field: &str) {
        for (number, item) in volumes.items().iter().enumerate() {
            let path = match item.text() {
                Some(short) => short.split(':').next(),
                None => item.get("source").and_then(|entry| entry.node.text()),
            };
            let relative = path.filter(|path| path.starts_with('.') && !path.contains('$'));
            if let Some(path) = relative.filter(|path| inside(&wanted.base, path).is_none()) {
                let message = format!("\"{}\" is outside the app's folder", path.escape_debug());
                let hint = "name a folder of the machine by its whole path";
                self.refuse(&wanted.file, item.line, &format!("{field}[{number}]"), message, Some(hint));
            }
        }
    }

    fn follow_include(&mut self, wanted: &Wanted, item: &Node, field: &str, queue: &mut VecDeque<Wanted>) {
        let paths = item.get("path").map_or(item, |entry| &entry.node);
        let own_base = match item.get("project_directory") {
            None => None,
            Some(entry) => {
                match self.path(wanted, &entry.node, &wanted.base, &join(field, "project_directory")) {
                    Some(base) => Some(base),
                    None => return,
                }
            }
        };
        let mut base = own_base;
        for path in one_or_many(paths) {
            let Some(file) = self.file(wanted, path, &wanted.base, field, true) else { continue };
            // The first file's folder is where the paths of all of them are seen from.
            let base = base.get_or_insert_with(|| parent(&file).to_owned());
            queue.push_back(Wanted { base: base.clone(), file });
        }
        let env_files = item.get("env_file").map(|entry| one_or_many(&entry.node)).unwrap_or_default();
        for path in env_files {
            if let Some(file) = self.file(wanted, path, &wanted.base, &join(field, "env_file"), true) {
                self.read_variables(&file);
            }
        }
    }

    /// A path inside of the folder, or a refusal.
    fn path(&mut self, wanted: &Wanted, node: &Node, base: &str, field: &str) -> Option<String> {
        let Some(text) = node.text() else {
            self.refuse(&wanted.file, node.line, field, "a path is missing here", None);
            return None;
        };
        if text.contains('$') {
            let hint = "compose reads this file before anybody can check what the variable leads to";
            let message = format!("\"{text}\" is named by a variable; the name must stand here");
            self.refuse(&wanted.file, node.line, field, message, Some(hint));
            return None;
        }
        match inside(base, text).filter(|_| !remote(text)) {
            Some(path) => Some(path),
            None => {
                let hint = "put the file into the folder and name it from there";
                let message = format!("\"{text}\" is outside the app's folder");
                self.refuse(&wanted.file, node.line, field, message, Some(hint));
                None
            }
        }
    }

    /// A file of the folder, or a refusal; nothing if it may be missing and is.
    fn file(
        &mut self,
        wanted: &Wanted,
        node: &Node,
        base: &str,
        field: &str,
        required: bool,
    ) -> Option<String> {
        let path = self.path(wanted, node, base, field)?;
        if self.folder.files.contains_key(&path) {
            return Some(path);
        }
        if required {
            let message = format!("\"{}\" is not in the app's folder", node.text().unwrap_or_default());
            self.refuse(&wanted.file, node.line, field, message, None);
        }
        None
    }

    fn read_variables(&mut self, path: &str) {
        let Some(bytes) = self.folder.files.get(path) else { return };
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.refuse(path, 1, "", "the file is not UTF-8", None);
            return;
        };
        for (line, name) in names_of(text) {
            if may_be_in_env(name) {
                self.env.insert(name.to_owned());
            } else {
                let message = format!(
                    "the variable \"{}\" would steer the programs that start the app",
                    name.escape_debug()
                );
                let hint = "what a container needs stands under \"environment\" of its service";
                self.refuse(path, line, name, message, Some(hint));
            }
        }
    }

    fn check_variables(&mut self, has: &BTreeSet<String>) {
        let mut missing: BTreeMap<String, (Place, String)> = BTreeMap::new();
        for (file, root) in &self.files {
            // An extension is read where an alias repeats it.
            for entry in root.entries().iter().filter(|entry| !entry.key.starts_with("x-")) {
                let field = entry.key.clone();
                find_missing(&entry.node, &field, &|name| has.contains(name), &mut |name, line, field| {
                    let place = Place { file: file.clone(), line };
                    let first = missing.entry(name.to_owned()).or_insert((place.clone(), field.to_owned()));
                    if first.0.file == place.file && place.line < first.0.line {
                        *first = (place, field.to_owned());
                    }
                });
            }
        }
        for (name, (place, field)) in missing {
            let hint = format!("`--set {name}=…`, or an option of that name in x-comb");
            let message = format!("the variable \"{name}\" has no value and no default");
            self.refusals.push(Refusal { place, field, message, hint: Some(hint) });
        }
    }
}

fn find_missing(
    node: &Node,
    field: &str,
    has: &dyn Fn(&str) -> bool,
    found: &mut dyn FnMut(&str, u32, &str),
) {
    match &node.value {
        Value::Scalar { text, .. } => {
            for name in needed(text, has) {
                found(name, node.line, field);
            }
        }
        Value::List(items) => {
            for (number, item) in items.iter().enumerate() {
                find_missing(item, &format!("{field}[{number}]"), has, found);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                find_missing(&entry.node, &join(field, &entry.key), has, found);
            }
        }
    }
}

fn one_or_many(node: &Node) -> Vec<&Node> {
    match &node.value {
        Value::List(items) => items.iter().map(AsRef::as_ref).collect(),
        _ if node.is_null() => Vec::new(),
        _ => vec![node],
    }
}

/// Whether a path may be that of a file in a package: relative, plain, and short.
pub(crate) fn is_file_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= FILE_PATH_BYTES_MAX
        && !path.chars().any(|character| character.is_control() || character == '\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_of_its_machine_is_told_as_it_stands() {
        let text = "services:\n  web:\n    image: nginx:1\n    platform: linux/arm64\n    deploy: {resources: {limits: {memory: 512M}}}\n    \
             cap_add: [NET_ADMIN]\n  own:\n    build: .\n    mem_limit: 1g\n";
        let files = Files::from([("compose.yaml".to_owned(), text.as_bytes().to_vec())]);
        let source = Source::read(Folder { files: &files, main: "compose.yaml" }, &BTreeSet::new())
            .expect("is an app");
        let [web, own] = source.declared().try_into().expect("are two");
        assert_eq!((web.image.as_deref(), web.platform.as_deref()), (Some("nginx:1"), Some("linux/arm64")));
        assert_eq!((web.memory.as_deref(), web.asks), (Some("512M"), vec!["cap_add: NET_ADMIN".to_owned()]));
        assert_eq!((own.image, own.is_built, own.memory.as_deref()), (None, true, Some("1g")));
    }
}
