//! Credentials of stores: from the key ring into files, 0600, in a folder that commands are told by their environment.
//!
//! Invariant: the environment has a path, never a secret.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fs_store::{STORE_CREDENTIALS, Url};
use orchestrator_device::doors::{disk, ring};
use parking_lot::Mutex;

/// The environment for a command about a volume that goes to these stores.
pub fn environment(state: &Path, folder: &Path, stores: &[String]) -> io::Result<BTreeMap<String, String>> {
    write(state, folder, stores)?;
    Ok(BTreeMap::from([(STORE_CREDENTIALS.to_owned(), folder.to_string_lossy().into_owned())]))
}

/// Writes what the key ring has for these stores, where it is not in their files yet.
///
/// What the ring has no more goes. While it is locked, files stay as they are.
pub fn write(state: &Path, folder: &Path, stores: &[String]) -> io::Result<()> {
    /// Several commands may be about one store.
    static WRITING: Mutex<()> = Mutex::new(());

    let file = |url: &String| Some((url.clone(), url.parse::<Url>().ok()?.credentials_in(folder)?));
    let files: Vec<(String, PathBuf)> = stores.iter().filter_map(file).collect();
    if files.is_empty() {
        return Ok(());
    }
    // Held before the ring is read, so that an older version never comes after a newer one.
    let _alone = WRITING.lock();
    let Ok(ring) = ring::open(state) else { return Ok(()) };
    for (url, path) in files {
        let text = ring.stores().find(|(held, _)| *held == url).map_or("", |(_, text)| text);
        if text.is_empty() {
            disk::gone(fs::remove_file(&path))?;
        } else if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            disk::make(folder)?;
            disk::replace(&path, text.as_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fs_crypto::{DeviceSecret, Passphrase, Ring, Zeroizing};
    use fs_format::Timestamp;

    use super::*;

    const HOME: &str = "s3://comb/a/?endpoint=http://minio.lan:9000";
    const PROVIDER: &str = "s3://comb/a/";
    const NAS: &str = "https://nas.lan/dav/";

    /// A ring on this disk with these stores, which opens without a question.
    fn keep_ring(state: &Path, stores: &[(&str, &str)]) {
        let passphrase = Passphrase::new("of a test, and long enough").expect("a passphrase");
        let mut ring = Ring::new(&passphrase, Timestamp(1), &[1; 32]).expect("a ring");
        for (url, text) in stores {
            ring.add_store(url, Zeroizing::new((*text).to_owned())).expect("added");
        }
        let object = ring.next_version(Timestamp(2), &[2; 32]).expect("sealed");
        let key = ring.for_device(&DeviceSecret::from_bytes([7; 32]), &[3; 32]);
        for (name, bytes) in [("device", vec![7; 32]), ("ring", object), ("ring.key", key)] {
            fs::write(state.join(name), bytes).expect("written");
        }
    }

    fn held(folder: &Path, url: &str) -> Option<String> {
        let url: Url = url.parse().expect("a URL");
        fs::read_to_string(url.credentials_in(folder).expect("its kind has one")).ok()
    }

    #[test]
    fn each_store_has_its_own_file_and_the_environment_only_the_folder() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().join("stores");
        let stores = [HOME, PROVIDER, NAS, "file:///srv/store/"].map(str::to_owned);
        let expected = BTreeMap::from([(
            "COMB_STORE_CREDENTIALS".to_owned(),
            folder.to_str().expect("text").to_owned(),
        )]);
        let told = || environment(state.path(), &folder, &stores).expect("written");

        // Without a ring that opens there is nothing to write.
        assert_eq!(told(), expected);
        assert!(!folder.exists());

        keep_ring(
            state.path(),
            &[(HOME, "at home"), (PROVIDER, "elsewhere"), ("s3://other/", "not asked for")],
        );
        assert_eq!(told(), expected);
        assert_eq!(held(&folder, HOME).as_deref(), Some("at home"));
        assert_eq!(held(&folder, PROVIDER).as_deref(), Some("elsewhere"));
        assert_eq!(held(&folder, NAS), None);
        let files = || fs::read_dir(&folder).expect("there").map(|entry| entry.expect("an entry").path());
        assert_eq!(files().count(), 2, "of no other store, and nothing beside");
        for file in files() {
            assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        }

        // A new version: changed, withdrawn, new.
        keep_ring(state.path(), &[(HOME, "new"), (PROVIDER, ""), (NAS, "machine")]);
        assert_eq!(told(), expected);
        assert_eq!(held(&folder, HOME).as_deref(), Some("new"));
        assert_eq!(held(&folder, PROVIDER), None);
        assert_eq!(held(&folder, NAS).as_deref(), Some("machine"));

        // Locked: what was there stays.
        fs::remove_file(state.path().join("ring.key")).expect("there");
        assert_eq!(told(), expected);
        assert_eq!(held(&folder, HOME).as_deref(), Some("new"));
    }
}
