//! Where credentials may lie outside of a URL: variables of the environment, the home folder, a volume's key.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{HeadKey, Url};

/// The variable that names the folder in which stores have files with credentials of their own.
pub const STORE_CREDENTIALS: &str = "COMB_STORE_CREDENTIALS";

/// The most bytes of a file with credentials; larger ones are something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The variables and the home folder that stores are opened with.
///
/// A value, so that a daemon can open a store with what it was told, and tests with what they made up.
#[derive(Clone, Default)]
pub struct Surroundings {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
    head_key: Option<Arc<dyn HeadKey>>,
    shut_out: Option<ShutOut>,
}

/// Why the folder of a store must not be touched now, if it must not.
pub type ShutOut = fn(&Path) -> Option<String>;

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Surroundings {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        // What is no text is nothing that a store asks for.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Surroundings { variables: variables.collect(), home, head_key: None, shut_out: None }
    }

    /// Others, as a test or a daemon has them.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>, home: Option<PathBuf>) -> Surroundings {
        Surroundings { variables: variables.into_iter().collect(), home, head_key: None, shut_out: None }
    }

    /// The same for one volume, which some kinds of store are found by.
    pub fn of_volume(self, key: Arc<dyn HeadKey>) -> Surroundings {
        Surroundings { head_key: Some(key), ..self }
    }

    /// The same for who must not touch some folders: it is asked before a store in one is opened.
    pub fn shutting_out(self, shut_out: ShutOut) -> Surroundings {
        Surroundings { shut_out: Some(shut_out), ..self }
    }

    pub(crate) fn shut_out(&self, folder: &Path) -> Option<String> {
        self.shut_out.and_then(|shut_out| shut_out(folder))
    }

    pub(crate) fn head_key(&self) -> Option<Arc<dyn HeadKey>> {
        self.head_key.clone()
    }

    /// The value of a variable that is set, and not to nothing.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The file that a variable names, else this one below the home folder.
    pub(crate) fn file(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        match self.variable(variable) {
            Some(path) => self.path(path),
            None => self.home.as_ref().map(|home| home.join(below_home)),
        }
    }

    /// A path as somebody wrote it into a variable.
    fn path(&self, text: &str) -> Option<PathBuf> {
        match text.strip_prefix("~/") {
            Some(rest) => self.home.as_ref().map(|home| home.join(rest)),
            None => Some(PathBuf::from(text)),
        }
    }

    /// The file that the store of a URL has for itself, be it there or not.
    pub(crate) fn own_file(&self, url: &Url) -> Option<PathBuf> {
        url.credentials_in(&self.path(self.variable(STORE_CREDENTIALS)?)?)
    }

    /// The files that the store of a URL looks at, its own before those of its kind.
    pub(crate) fn files(&self, url: &Url, of_kind: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
        self.own_file(url).into_iter().chain(of_kind).collect()
    }
}

/// Variables hold secrets.
impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("home", &self.home).finish_non_exhaustive()
    }
}

/// Of files that were looked at, the one that is there first.
pub(crate) fn first(files: &[PathBuf]) -> Option<&PathBuf> {
    files.iter().find(|path| path.exists())
}

/// The paths of files, for a person.
pub(crate) fn in_words(files: &[PathBuf]) -> String {
    if files.is_empty() {
        return "no file, since there is no home folder".to_owned();
    }
    files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The text of a file, if there is one. An error says what is wrong with which file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, String> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let size = read.map_err(|error| format!("{}: {error}", path.display()))?;
    if size as u64 > FILE_BYTES_MAX {
        return Err(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_variable_or_lies_below_home() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let home = Some(PathBuf::from("/home/u"));
        let around = Surroundings::new([pair("A", "/etc/a"), pair("B", "~/b"), pair("C", "")], home);
        for (variable, path) in
            [("A", "/etc/a"), ("B", "/home/u/b"), ("C", "/home/u/.x"), ("D", "/home/u/.x")]
        {
            assert_eq!(around.file(variable, ".x"), Some(path.into()), "{variable}");
        }
        assert_eq!(Surroundings::default().file("A", ".x"), None);
        assert!(!format!("{around:?}").contains("/etc/a"));
    }
}
