//! An app's folder as it goes into a package: plain files, with their permissions.
//!
//! All of a small folder goes in. Of a large one (a project with its sources, say) what its compose files name does:
//! they themselves, `.env`, and every file and folder whose path stands somewhere in them, but for what is only built
//! from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orchestrator_api::compose::{FILE_PATH_BYTES_MAX, FILES_MAX, FOLDER_BYTES_MAX, Files};
use orchestrator_api::package::PackedFile;
use orchestrator_api::yaml::{self, Node, Value};

use crate::failure::{Context, Failure, Kind, Result};
use crate::output;

/// The names of a main file, as compose looks for them.
const MAIN_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// Folders that are about the project's past, and of no use to the app.
const LEFT_OUT: [&str; 4] = [".git", ".hg", ".svn", ".jj"];
/// The most entries that are looked at.
const ENTRIES_MAX: usize = 100_000;
/// The deepest folder that is looked into.
const DEPTH_MAX: usize = 32;

/// A folder that was read.
pub struct AppFolder {
    /// Where it is, without links.
    pub path: PathBuf,
    /// The main compose file, from the folder's top.
    pub main: String,
    /// Its files.
    pub files: Files,
    modes: BTreeMap<String, u32>,
}

/// A file that could go in.
struct Found {
    bytes: u64,
    mode: u32,
}

impl AppFolder {
    /// Reads a folder, or the one that a compose file lies in.
    pub fn read(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).context(path.display())?;
        let (folder, main) = match metadata.is_dir() {
            true => (path.to_owned(), None),
            false => {
                let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
                let name = name.ok_or_else(|| {
                    Failure::new(Kind::Usage, format!("{} is no compose file", path.display()))
                })?;
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                (parent.unwrap_or(Path::new(".")).to_owned(), Some(name))
            }
        };
        let folder = folder.canonicalize().context(folder.display())?;
        let found = look(&folder)?;
        let main = match main {
            Some(main) => main,
            None => MAIN_NAMES
                .iter()
                .find(|name| found.contains_key(**name))
                .map(|name| (*name).to_owned())
                .ok_or_else(|| {
                    Failure::new(Kind::NotFound, format!("{} has no compose.yaml", folder.display()))
                        .hint("name the folder that has one, or the file itself")
                })?,
        };
        let chosen = match fits(&found) {
            true => found.keys().cloned().collect(),
            false => {
                output::note(&format!(
                    "{} is large: of it only what its compose files name goes into the package",
                    folder.display()
                ));
                named(&folder, &main, &found)
            }
        };
        let mut files = Files::new();
        let mut bytes = 0;
        for path in &chosen {
            let content = fs::read(folder.join(path)).context(folder.join(path).display())?;
            bytes += content.len();
            files.insert(path.clone(), content);
            if files.len() > FILES_MAX || bytes > FOLDER_BYTES_MAX {
                return Err(Failure::new(
                    Kind::Usage,
                    format!(
                        "{} has more than {FILES_MAX} files or {} for a package",
                        folder.display(),
                        output::size(FOLDER_BYTES_MAX as u64)
                    ),
                )
                .hint(
                    "large files belong into an image or a volume: keep them outside of the app's folder",
                ));
            }
        }
        let modes = found.iter().map(|(path, found)| (path.clone(), found.mode)).collect();
        Ok(Self { path: folder, main, files, modes })
    }

    /// Of a package that was opened, when there is no folder at hand.
    pub fn of_package(main: &str, files: &[PackedFile]) -> Self {
        Self {
            path: PathBuf::new(),
            main: main.to_owned(),
            files: files.iter().map(|file| (file.path.clone(), file.bytes.clone())).collect(),
            modes: files.iter().map(|file| (file.path.clone(), file.mode)).collect(),
        }
    }

    /// The name of the folder, made a name for an app.
    pub fn name(&self) -> Option<String> {
        let name = self.path.file_name()?.to_str()?.to_lowercase();
        let plain: String = name
            .chars()
            .map(|one| if one.is_ascii_lowercase() || one.is_ascii_digit() { one } else { '-' })
            .collect();
        let begins = plain.trim_start_matches(|one: char| !one.is_ascii_lowercase());
        let cut: String = begins.chars().take(63).collect();
        let name = cut.trim_end_matches('-');
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The files as a package has them.
    pub fn packed(&self) -> Vec<PackedFile> {
        let mode = |path: &str| self.modes.get(path).copied().unwrap_or(0o644);
        self.files
            .iter()
            .map(|(path, bytes)| PackedFile { path: path.clone(), mode: mode(path), bytes: bytes.clone() })
            .collect()
    }
}

/// Every plain file below a folder. Links and special files are told and left out: a package holds none.
fn look(folder: &Path) -> Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    let mut folders = VecDeque::from([(folder.to_owned(), String::new(), 0)]);
    let mut entries = 0;
    while let Some((path, below, depth)) = folders.pop_front() {
        for entry in fs::read_dir(&path).context(path.display())? {
            let entry = entry.context(path.display())?;
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(Failure::new(
                    Kind::Usage,
                    format!("{} has more than {ENTRIES_MAX} files", folder.display()),
                )
                .hint("name a folder that holds the app's compose file and what belongs to it"));
            }
            let kind = entry.file_type().context(entry.path().display())?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                output::warn_once(&format!(
                    "{} has no name in UTF-8, and is left out",
                    entry.path().display()
                ));
                continue;
            };
            let inside = format!("{below}{name}");
            if kind.is_dir() {
                if !LEFT_OUT.contains(&name.as_str()) && depth < DEPTH_MAX {
                    folders.push_back((entry.path(), format!("{inside}/"), depth + 1));
                }
            } else if !kind.is_file() {
                output::warn_once(&format!("{} is no plain file, and is left out", entry.path().display()));
            } else if inside.len() <= FILE_PATH_BYTES_MAX {
                let metadata = entry.metadata().context(entry.path().display())?;
                let mode = metadata.permissions().mode() & 0o777;
                found.insert(inside, Found { bytes: metadata.len(), mode });
            }
        }
    }
    Ok(found)
}

fn fits(found: &BTreeMap<String, Found>) -> bool {
    found.len() <= FILES_MAX && found.values().map(|file| file.bytes).sum::<u64>() <= FOLDER_BYTES_MAX as u64
}

/// What the compose files name, with themselves.
fn named(folder: &Path, main: &str, found: &BTreeMap<String, Found>) -> BTreeSet<String> {
    let mut chosen: BTreeSet<String> = found
        .keys()
        .filter(|path| path.rsplit('/').next() == Some(".env") && !path.contains('/'))
        .cloned()
        .collect();
    let mut queue = VecDeque::from([main.to_owned()]);
    while let Some(file) = queue.pop_front() {
        if !found.contains_key(&file) || !chosen.insert(file.clone()) {
            continue;
        }
        let is_yaml = file.ends_with(".yaml") || file.ends_with(".yml");
        if !is_yaml || found[&file].bytes > FOLDER_BYTES_MAX as u64 {
            continue;
        }
        let Ok(text) = fs::read(folder.join(&file)) else { continue };
        // A file that cannot be read is refused later, with its line.
        let Ok(root) = yaml::parse(&text) else { continue };
        let base = file.rsplit_once('/').map_or("", |(base, _)| base);
        let mut texts = Vec::new();
        texts_of(&root, &mut texts);
        for text in texts {
            // `./conf:/etc/conf:ro` names the part before the colon.
            for part in [text, text.split(':').next().unwrap_or_default()] {
                let Some(path) = below(base, part) else { continue };
                if found.contains_key(&path) {
                    queue.push_back(path);
                } else if !path.is_empty() {
                    let inside = format!("{path}/");
                    let files = found.range(inside.clone()..).take_while(|(one, _)| one.starts_with(&inside));
                    chosen.extend(files.map(|(one, _)| one.clone()));
                }
            }
        }
    }
    chosen
}

/// All texts of a compose file but those that only say what is built from.
fn texts_of<'a>(node: &'a Node, out: &mut Vec<&'a str>) {
    match &node.value {
        Value::Scalar { text, .. } => out.push(text),
        Value::List(items) => items.iter().for_each(|item| texts_of(item, out)),
        Value::Map(entries) => {
            for entry in entries.iter().filter(|entry| entry.key != "build") {
                texts_of(&entry.node, out);
            }
        }
    }
}

/// A relative path from the folder's top, without `.` and `..`; none if it leads out of it.
fn below(base: &str, text: &str) -> Option<String> {
    if text.is_empty() || text.starts_with('/') || text.len() > FILE_PATH_BYTES_MAX || text.contains('$') {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, path: &str, bytes: &[u8]) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    #[test]
    fn a_small_folder_goes_in_whole_with_its_permissions() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let folder = top.path().join("My Photos_2");
        write(&folder, "docker-compose.yml", b"services: {}\n");
        write(&folder, "conf/a.sh", b"#!/bin/sh\n");
        write(&folder, ".git/config", b"x");
        fs::set_permissions(folder.join("conf/a.sh"), fs::Permissions::from_mode(0o4755)).expect("its mode");
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).expect("a link");

        let read = AppFolder::read(&folder).expect("read");
        assert_eq!(read.main, "docker-compose.yml");
        assert_eq!(read.files.keys().collect::<Vec<_>>(), ["conf/a.sh", "docker-compose.yml"]);
        assert_eq!(read.name().as_deref(), Some("my-photos-2"));
        let packed = read.packed();
        assert_eq!((packed[0].path.as_str(), packed[0].mode), ("conf/a.sh", 0o755));

        let by_file = AppFolder::read(&folder.join("docker-compose.yml")).expect("read");
        assert_eq!(by_file.files, read.files);
        let empty = top.path().join("empty");
        fs::create_dir(&empty).expect("a folder");
        let refused = AppFolder::read(&empty).map(drop).expect_err("has no compose file");
        assert!(refused.message.contains("compose.yaml"), "{}", refused.message);
    }

    #[test]
    fn of_a_large_folder_what_is_named_goes_in() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        let compose = "services:\n  web:\n    build: ./src\n    env_file: web.env\n    extends: { file: more/base.yaml, service: a }\n    volumes:\n      - ./conf:/etc/app:ro\n      - ./one.txt:/one.txt\n      - data:/data\n";
        write(folder, "compose.yaml", compose.as_bytes());
        write(folder, "more/base.yaml", b"services:\n  a:\n    env_file: ../more/base.env\n");
        for path in ["web.env", ".env", "one.txt", "more/base.env", "conf/x", "conf/y/z", "other.txt"] {
            write(folder, path, b"A=1\n");
        }
        for number in 0..FILES_MAX {
            write(folder, &format!("src/{number}.rs"), b"x");
        }
        let read = AppFolder::read(folder).expect("read");
        assert_eq!(
            read.files.keys().collect::<Vec<_>>(),
            [
                ".env",
                "compose.yaml",
                "conf/x",
                "conf/y/z",
                "more/base.env",
                "more/base.yaml",
                "one.txt",
                "web.env"
            ]
        );
        write(folder, "conf/large", &vec![0; FOLDER_BYTES_MAX + 1]);
        assert_eq!(AppFolder::read(folder).map(drop).expect_err("too large").kind, Kind::Usage);
    }

    #[test]
    fn a_path_stays_below_the_folder() {
        let table = [
            ("", "./a", Some("a")),
            ("b", "../a", Some("a")),
            ("", "../a", None),
            ("", "/a", None),
            ("", "$A/b", None),
            ("", ".", Some("")),
            ("b/c", "./d/../e", Some("b/c/e")),
        ];
        for (base, text, expected) in table {
            assert_eq!(below(base, text).as_deref(), expected, "{base} {text}");
        }
    }
}
