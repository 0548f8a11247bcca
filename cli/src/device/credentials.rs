//! Credentials of stores: from the key ring into files, 0600, that commands are pointed to by their environment.
//!
//! Invariant: the environment has a path, never a secret.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orchestrator_device::doors::{disk, ring};

/// By which variable the tools of a kind of store are told their file.
fn variable(url: &str) -> Option<&'static str> {
    match url.split("://").next() {
        Some("s3") => Some("AWS_SHARED_CREDENTIALS_FILE"),
        Some("http" | "https") => Some("NETRC"),
        Some("gs") => Some("GOOGLE_APPLICATION_CREDENTIALS"),
        _ => None,
    }
}

fn file(folder: &Path, url: &str) -> PathBuf {
    folder.join(&blake3::hash(url.as_bytes()).to_hex()[..16])
}

/// The environment for a command about a volume that goes to these stores.
///
/// Of several stores of one kind the first decides: a command reads one file of each kind.
pub fn environment(state: &Path, folder: &Path, stores: &[String]) -> io::Result<BTreeMap<String, String>> {
    let mut environment = BTreeMap::new();
    let wanted = stores.iter().filter_map(|url| Some((url, variable(url)?)));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(environment);
    }
    let Ok(ring) = ring::open(state) else { return Ok(environment) };
    for (url, variable) in wanted {
        let Some((_, text)) = ring.stores().find(|(held, _)| *held == url.as_str()) else { continue };
        let path = file(folder, url);
        if !text.is_empty() && !environment.contains_key(variable) {
            if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                disk::make(folder)?;
                disk::replace(&path, text.as_bytes())?;
            }
            environment.insert(variable.to_owned(), path.to_string_lossy().into_owned());
        }
    }
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_store_has_its_variable_and_each_url_its_file() {
        assert_eq!(variable("s3://bucket/prefix"), Some("AWS_SHARED_CREDENTIALS_FILE"));
        assert_eq!(variable("https://dav.example.org/comb"), Some("NETRC"));
        assert_eq!(variable("gs://bucket"), Some("GOOGLE_APPLICATION_CREDENTIALS"));
        assert_eq!(variable("file:///srv/store"), None);
        let folder = Path::new("/stores");
        assert_ne!(file(folder, "s3://a"), file(folder, "s3://b"));
    }
}
