//! Keys on their way between files, the engine and a person.
//!
//! Key bytes never appear in arguments, in the environment or in messages.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use fs_crypto::{DeviceSecret, KeyError, KeyFile, ReadKey, VolumeKey};
use zeroize::Zeroizing;

use crate::failure::{Context, Failure, Kind, Result};
use crate::state::{State, VolumeFolder, write_new};

/// The largest key file that is read, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// The system's chance.
pub fn random() -> Result<Zeroizing<[u8; 32]>> {
    let mut random = Zeroizing::new([0; 32]);
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random[..]))
        .context("/dev/urandom")?;
    Ok(random)
}

/// A new key of the system's chance.
pub fn generate() -> Result<VolumeKey> {
    Ok(VolumeKey::from_seed(*random()?))
}

/// Bytes of the system's chance that are no secret.
pub fn chance<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("/dev/urandom")?;
    Ok(bytes)
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

fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    // Room for all of it: a vector that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    let file = File::open(path).context(path.display())?;
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes).context(path.display())?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<VolumeKey> {
    let bytes = read_bytes(path)?;
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

/// The read key in a person's file: bare base64, as `comb key share NAME --read` writes it.
pub fn import_read_key(path: &Path) -> Result<ReadKey> {
    let bytes = read_bytes(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::NotAKey);
    text.and_then(ReadKey::from_base64).map_err(|_| {
        Failure::new(Kind::Foreign, format!("{} is not a read key", path.display()))
            .hint("`comb key share NAME --read --out F` writes such a file")
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
