//! The catalog: a folder whose sub-folders are compose projects, read for people who choose an app (`console.md`, section 10).
//!
//! Invariants
//! - Nothing outside of the folder is read: links are followed by nobody.
//! - What is wrong with one app is told beside it, and keeps no other one from being shown.
//! - Everything has a limit, looked at before it is read.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_api::compose::variables::FILLED_ALWAYS;
use orchestrator_api::compose::{Block, Declared, FILES_MAX, FOLDER_BYTES_MAX, Files, Folder, Source};
use orchestrator_api::text::is_app_name;
use parking_lot::Mutex;

/// The most apps of a catalog.
const APPS_MAX: usize = 500;
/// The most entries that are looked at to find them.
const ENTRIES_MAX: usize = 5_000;
/// How deep an app's folder may go.
const DEPTH_MAX: usize = 16;
/// The largest `README.md`, in bytes.
const README_BYTES_MAX: u64 = 64 << 10;
/// The largest icon, in bytes.
const ICON_BYTES_MAX: u64 = 256 << 10;
/// The longest sentence about an app, in characters.
const SUMMARY_MAX: usize = 240;
/// How long what was read is shown again.
const FRESH: Duration = Duration::from_secs(5);

const README: &str = "README.md";
const ICONS: [(&str, &str); 2] = [("icon.svg", "image/svg+xml"), ("icon.png", "image/png")];
/// As compose looks for them.
const MAIN_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// A folder of apps.
pub struct Catalog {
    folder: PathBuf,
    kept: Mutex<Option<(Instant, Arc<Vec<Entry>>)>>,
}

/// An app of the catalog.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its folder's name.
    pub name: String,
    /// A sentence about it: the first one of its README, or of its compose file.
    pub summary: String,
    /// What else its README says, as it stands there.
    pub readme: String,
    /// Whether it has a picture.
    pub has_icon: bool,
    /// What it is, or why nobody can tell.
    pub project: Result<Project, String>,
}

/// What was read of an app's compose file.
#[derive(Debug, Clone)]
pub struct Project {
    /// The main file.
    pub main: String,
    /// Its `x-comb`.
    pub block: Block,
    /// What its services need.
    pub services: Vec<Declared>,
    /// Its files.
    pub files: Vec<PackFile>,
}

/// A file as it goes into a package.
#[derive(Clone)]
pub struct PackFile {
    /// Below the folder.
    pub path: String,
    /// At most 0777.
    pub mode: u32,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for PackFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PackFile").field(&self.path).finish()
    }
}

impl Entry {
    /// Whether each of these words, in small letters, stands somewhere in what is told of it.
    pub fn has(&self, words: &str) -> bool {
        let text = [&self.name, &self.summary, &self.readme].map(|text| text.to_lowercase());
        words.split_whitespace().all(|word| text.iter().any(|text| text.contains(word)))
    }
}

impl Catalog {
    /// Of a folder, which is looked at when somebody asks.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, kept: Mutex::new(None) }
    }

    /// All apps by name, without their files; an error if the folder cannot be read.
    pub async fn list(self: &Arc<Self>) -> io::Result<Arc<Vec<Entry>>> {
        if let Some((read, entries)) = &*self.kept.lock()
            && read.elapsed() < FRESH
        {
            return Ok(entries.clone());
        }
        let catalog = self.clone();
        let entries = Arc::new(blocking(move || catalog.read_all()).await?);
        *self.kept.lock() = Some((Instant::now(), entries.clone()));
        Ok(entries)
    }

    /// One app, read anew, with its files; none if there is none of that name.
    pub async fn get(self: &Arc<Self>, name: &str) -> Option<Entry> {
        // A name is a folder's, and cannot lead anywhere else.
        if !is_app_name(name) {
            return None;
        }
        let (folder, name) = (self.folder.join(name), name.to_owned());
        blocking(move || Ok(is_folder(&folder).then(|| read_app(&folder, name)))).await.ok().flatten()
    }

    /// The picture of an app, and what kind it is.
    pub async fn icon(self: &Arc<Self>, name: &str) -> Option<(&'static str, Vec<u8>)> {
        if !is_app_name(name) {
            return None;
        }
        let folder = self.folder.join(name);
        let read = move || Ok(if is_folder(&folder) { read_picture(&folder) } else { None });
        blocking(read).await.ok().flatten()
    }

    fn read_all(&self) -> io::Result<Vec<Entry>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)?.take(ENTRIES_MAX) {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && is_folder(&entry.path()) {
                names.insert((name, entry.path()));
            }
        }
        let read = |(name, path): (String, PathBuf)| {
            let mut entry = read_app(&path, name);
            if let Ok(project) = &mut entry.project {
                project.files.clear();
            }
            entry
        };
        Ok(names.into_iter().take(APPS_MAX).map(read).collect())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// A plain file of at most so many bytes; a link is not followed, and nothing that blocks is opened.
fn read_file(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() > max {
        return Err(io::Error::other("it is no plain file, or too large"));
    }
    let mut bytes = Vec::with_capacity(found.len() as usize);
    // It may grow meanwhile.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(io::Error::other("it is too large")) } else { Ok(bytes) }
}

/// The picture in an app's folder, and what kind it is: the first that is one.
fn read_picture(folder: &Path) -> Option<(&'static str, Vec<u8>)> {
    ICONS.iter().find_map(|(file, kind)| {
        let bytes = read_file(&folder.join(file), ICON_BYTES_MAX).ok()?;
        is_picture(kind, &bytes).then_some((*kind, bytes))
    })
}

/// Whether bytes are what their file's name says. An SVG is shown as a picture only, where no script of it runs.
fn is_picture(kind: &str, bytes: &[u8]) -> bool {
    match kind {
        "image/png" => bytes.starts_with(b"\x89PNG\r\n\x1a\n"),
        _ => std::str::from_utf8(bytes).is_ok_and(|text| text.contains("<svg")),
    }
}

fn read_app(folder: &Path, name: String) -> Entry {
    let readme = read_file(&folder.join(README), README_BYTES_MAX).unwrap_or_default();
    let readme = String::from_utf8_lossy(&readme).into_owned();
    let has_icon = read_picture(folder).is_some();
    let project = read_project(folder, &name);
    let (first, rest) = opening(&readme);
    let summary = match (first.is_empty(), &project) {
        (true, Ok(project)) => {
            Some(project.comment()).filter(|text| !text.is_empty()).unwrap_or_else(|| project.parts())
        }
        _ => first,
    };
    Entry { name, summary: shortened(&summary), readme: rest, has_icon, project }
}

fn read_project(folder: &Path, name: &str) -> Result<Project, String> {
    if !is_app_name(name) {
        return Err("the folder's name is no name of an app: small letters, digits and hyphens".to_owned());
    }
    let files = read_files(folder)?;
    let main = MAIN_FILES.into_iter().find(|main| files.iter().any(|file| file.path == *main));
    let main = main.ok_or("it has no compose.yaml")?.to_owned();
    let texts: Files = files.iter().map(|file| (file.path.clone(), file.bytes.clone())).collect();
    let given = FILLED_ALWAYS.iter().map(|name| (*name).to_owned()).collect();
    let source = Source::read(Folder { files: &texts, main: &main }, &given).map_err(|refusals| {
        refusals.first().map_or_else(|| "it is refused".to_owned(), ToString::to_string)
    })?;
    Ok(Project { main, block: source.block().clone(), services: source.declared(), files })
}

/// The files of an app, but for those that only the catalog shows.
fn read_files(folder: &Path) -> Result<Vec<PackFile>, String> {
    let mut files = Vec::new();
    let mut left = FOLDER_BYTES_MAX as u64;
    let mut queue = vec![(folder.to_path_buf(), String::new(), 0)];
    let wrong = |path: &str, what: &str| format!("\"{}\" {what}", path.escape_debug());
    while let Some((folder, base, depth)) = queue.pop() {
        let entries =
            fs::read_dir(&folder).map_err(|error| wrong(&base, &format!("cannot be read: {error}")))?;
        for entry in entries {
            let entry = entry.map_err(|error| wrong(&base, &format!("cannot be read: {error}")))?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| wrong(&name.to_string_lossy(), "is no text"))?;
            let shown = base.is_empty() && (name == README || ICONS.iter().any(|(icon, _)| *icon == name));
            if shown || name == ".git" {
                continue;
            }
            let path = if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") };
            let found = fs::symlink_metadata(entry.path())
                .map_err(|error| wrong(&path, &format!("cannot be read: {error}")))?;
            if found.is_dir() {
                if depth == DEPTH_MAX || queue.len() == FILES_MAX {
                    return Err(wrong(&path, "is too deep, or one folder too many"));
                }
                queue.push((entry.path(), path, depth + 1));
                continue;
            }
            if !found.is_file() {
                return Err(wrong(&path, "is no plain file, and a package holds nothing else"));
            }
            if files.len() == FILES_MAX {
                return Err(format!("it has more than {FILES_MAX} files"));
            }
            if found.len() > left {
                return Err(format!(
                    "its files have more than {FOLDER_BYTES_MAX} bytes together; large ones belong into an image"
                ));
            }
            let bytes = read_file(&entry.path(), left)
                .map_err(|error| wrong(&path, &format!("cannot be read: {error}")))?;
            left -= bytes.len() as u64;
            files.push(PackFile { path, mode: found.mode() & 0o777, bytes });
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

impl Project {
    /// What stands at the top of the compose file, as a comment.
    fn comment(&self) -> String {
        let Some(file) = self.files.iter().find(|file| file.path == self.main) else { return String::new() };
        let text = String::from_utf8_lossy(&file.bytes);
        let lines = text.lines().take_while(|line| line.starts_with('#')).take(8);
        lines.map(|line| line.trim_start_matches('#').trim()).collect::<Vec<_>>().join(" ")
    }

    /// What it is made of, where nobody says what it is.
    fn parts(&self) -> String {
        let names: Vec<&str> = self.services.iter().map(|one| one.service.as_str()).collect();
        format!("Made of {}", names.join(", "))
    }

    /// For which processors it is; none if it does not say.
    pub fn platforms(&self) -> BTreeSet<&str> {
        self.services.iter().filter_map(|one| one.platform.as_deref()).collect()
    }

    /// Why no device installs it by itself: what a person with the key ring has to grant, or to build.
    pub fn needs_a_person(&self) -> Vec<String> {
        let asks = |one: &Declared| -> Vec<String> {
            let built =
                one.is_built.then(|| format!("{}: an image that is built on the machine", one.service));
            let asked = one.asks.iter().map(|ask| format!("{}: {ask}", one.service));
            built.into_iter().chain(asked).collect()
        };
        self.services.iter().flat_map(asks).collect()
    }
}

/// The first paragraph of a README that is no heading, on one line, and the text behind it.
fn opening(readme: &str) -> (String, String) {
    let mut first = Vec::new();
    let mut rest = readme.lines();
    for line in rest.by_ref() {
        let line = line.trim();
        let is_prose = !line.is_empty() && !line.starts_with(['#', '!', '<', '`', '|']);
        match (is_prose, first.is_empty()) {
            (true, _) => first.push(line),
            (false, true) => {}
            (false, false) => break,
        }
    }
    (first.join(" "), rest.collect::<Vec<_>>().join("\n").trim().to_owned())
}

fn shortened(text: &str) -> String {
    let text: String = text.chars().filter(|one| !one.is_control()).collect();
    match text.char_indices().nth(SUMMARY_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Arc<Catalog>) {
        let folder = tempfile::tempdir().expect("there is a disk");
        for (path, bytes) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("has a folder")).expect("is made");
            fs::write(path, bytes).expect("is written");
        }
        let catalog = Arc::new(Catalog::new(folder.path().to_path_buf()));
        (folder, catalog)
    }

    const APP: &[u8] = b"# Keeps photos.\n# Well.\nservices:\n  web:\n    image: nginx:1\n";

    #[tokio::test]
    async fn what_is_wrong_with_one_app_keeps_no_other_from_being_shown() {
        let large = vec![b'x'; FOLDER_BYTES_MAX + 1];
        let (folder, catalog) = catalog(&[
            ("photos/compose.yaml", APP),
            ("photos/README.md", b"# Photos\n\nAll of them,\nin one place.\n\n## More\n- of it"),
            ("photos/icon.png", b"\x89PNG\r\n\x1a\nrest"),
            ("notes/docker-compose.yml", APP),
            ("<b>Bad/compose.yaml", APP),
            ("broken/compose.yaml", b"services: [\n"),
            ("empty/readme.txt", b""),
            ("large/compose.yaml", &large),
            ("link/compose.yaml", APP),
            (".git/compose.yaml", APP),
            ("file", b"is no folder"),
        ]);
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link/secret")).expect("is made");
        std::os::unix::fs::symlink(folder.path().join("photos"), folder.path().join("other"))
            .expect("is made");
        let all = catalog.list().await.expect("is read");
        let names: Vec<&str> = all.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["<b>Bad", "broken", "empty", "large", "link", "notes", "photos"]);
        let why = |name: &str| {
            let entry = all.iter().find(|entry| entry.name == name).expect("is there");
            entry.project.as_ref().err().cloned().unwrap_or_default()
        };
        assert!(why("broken").starts_with("compose.yaml:"), "{}", why("broken"));
        assert!(why("empty").contains("no compose.yaml") && why("large").contains("bytes together"));
        assert!(
            why("link").contains("\"secret\" is no plain file")
                && why("<b>Bad").contains("no name of an app")
        );
        let photos = catalog.get("photos").await.expect("is there");
        assert_eq!(
            (photos.summary.as_str(), photos.readme.as_str()),
            ("All of them, in one place.", "## More\n- of it")
        );
        let project = photos.project.expect("is an app");
        assert_eq!(project.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["compose.yaml"]);
        assert_eq!(catalog.icon("photos").await.map(|(kind, _)| kind), Some("image/png"));
        assert_eq!(catalog.get("notes").await.expect("is there").summary, "Keeps photos. Well.");
        for outside in ["other", "..", "../x", "nobody", "Photos", "link/.."] {
            assert!(
                catalog.get(outside).await.is_none() && catalog.icon(outside).await.is_none(),
                "{outside}"
            );
        }
    }

    #[tokio::test]
    async fn a_picture_is_what_its_name_says_or_there_is_none() {
        let (folder, catalog) = catalog(&[
            ("one/icon.png", b"<html><script>"),
            ("two/icon.svg", b"<svg xmlns=\"x\"><script>alert(1)</script></svg>"),
            ("three/icon.svg", &vec![b'<'; ICON_BYTES_MAX as usize + 1]),
        ]);
        std::fs::create_dir(folder.path().join("four")).expect("is made");
        std::os::unix::fs::symlink(folder.path().join("two/icon.svg"), folder.path().join("four/icon.svg"))
            .expect("is made");
        assert_eq!(catalog.icon("two").await.map(|(kind, _)| kind), Some("image/svg+xml"));
        // No page links to what is not there.
        for entry in catalog.list().await.expect("is read").iter() {
            assert_eq!(entry.has_icon, catalog.icon(&entry.name).await.is_some(), "{}", entry.name);
            assert_eq!(entry.has_icon, entry.name == "two", "{}", entry.name);
        }
    }
}
