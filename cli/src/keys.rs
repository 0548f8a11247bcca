//! Keys on their way between files, the engine and a person.
//!
//! Key bytes never appear in arguments, in the environment or in messages.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use fs_crypto::{DeviceSecret, KeyError, KeyFile, VolumeKey};
use zeroize::Zeroizing;

use crate::failure::{Context, Failure, Kind, Result};
use crate::state::{State, VolumeFolder, write_new};

/// The largest key file that is read, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// A new key of the system's chance.
pub fn generate() -> Result<VolumeKey> {
    let mut seed = Zeroizing::new([0; 32]);
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut seed[..]))
        .context("/dev/urandom")?;
    Ok(VolumeKey::from_seed(*seed))
}

/// The key in a person's file: a key file or bare base64.
pub fn import(path: &Path) -> Result<VolumeKey> {
    read(path).map_err(|failure| match failure.kind {
        Kind::Foreign => failure.hint("`comb volume key NAME --out F` writes such a file"),
        _ => failure,
    })
}

/// The key of a volume.
pub fn load(volume: &VolumeFolder) -> Result<VolumeKey> {
    let key = read(&volume.key_path()).map_err(|failure| match failure.kind {
        Kind::NotFound | Kind::Foreign | Kind::Damaged => {
            failure.hint("put a copy of the volume's key there; nothing else opens the volume")
        }
        _ => failure,
    })?;
    if key.id() != volume.id {
        return Err(Failure::new(
            Kind::Foreign,
            format!("{} holds the key of another volume", volume.key_path().display()),
        )
        .hint(format!("volume \"{}\" has the public key {}", volume.name, volume.id)));
    }
    Ok(key)
}

fn read(path: &Path) -> Result<VolumeKey> {
    // Room for all of it: a vector that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    let file = File::open(path).context(path.display())?;
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes).context(path.display())?;
    let decoded = match std::str::from_utf8(&bytes) {
        Ok(text) => KeyFile::decode(text),
        Err(_) if bytes.starts_with(b"comb volume key ") => Err(KeyError::Damaged),
        Err(_) => Err(KeyError::NotAKey),
    };
    decoded.map_err(|error| {
        let kind = match error {
            KeyError::Damaged => Kind::Damaged,
            KeyError::NotAKey | KeyError::Newer(_) => Kind::Foreign,
        };
        Failure::new(kind, format!("{} {error}", path.display()))
    })
}

/// Puts a key into a new volume's folder.
pub fn store(folder: &Path, key: &VolumeKey) -> Result<()> {
    write_new(&folder.join("key"), KeyFile::encode(key).as_bytes())
}

/// The key as a person keeps it.
pub fn export(volume: &VolumeFolder) -> Result<Zeroizing<String>> {
    Ok(load(volume)?.to_base64())
}

/// The device's secret.
pub fn device(state: &State) -> Result<DeviceSecret> {
    state.device_secret().map(DeviceSecret::from_bytes)
}
