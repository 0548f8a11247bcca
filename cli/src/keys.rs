//! Keys on their way between files, the engine and a person.
//!
//! Key bytes never appear in arguments, in the environment or in messages.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_crypto::{DeviceSecret, EntryKey, KeyError, KeyFile, ReadKey, ReadKeyFile, VolumeKey};
use fs_format::VolumeId;
use zeroize::Zeroizing;

use crate::failure::{Context, Failure, Kind, Result};
use crate::output;
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

/// The key of a volume, as this machine holds it.
#[derive(Debug, Clone)]
pub enum Key {
    /// Writes, reads, signs.
    Volume(VolumeKey),
    /// Opens what this volume sealed, and cannot sign.
    Read(VolumeId, ReadKey),
}

impl Key {
    /// The volume's public key.
    pub fn id(&self) -> VolumeId {
        match self {
            Self::Volume(key) => key.id(),
            Self::Read(volume, _) => *volume,
        }
    }

    /// What opens it.
    pub fn read_key(&self) -> ReadKey {
        match self {
            Self::Volume(key) => key.read_key(),
            Self::Read(_, key) => key.clone(),
        }
    }

    /// What signs for it, where this machine may.
    pub fn signing(&self) -> Option<&VolumeKey> {
        match self {
            Self::Volume(key) => Some(key),
            Self::Read(..) => None,
        }
    }

    /// As a key ring holds it.
    pub fn entry(self) -> EntryKey {
        match self {
            Self::Volume(key) => EntryKey::Volume(key),
            Self::Read(_, key) => EntryKey::Read(key),
        }
    }
}

/// The volume key in a person's file: a key file or bare base64.
pub fn import(path: &Path) -> Result<VolumeKey> {
    match import_any(path)? {
        Key::Volume(key) => Ok(key),
        Key::Read(volume, _) => Err(Failure::new(
            Kind::Foreign,
            format!("{} is a read key: it opens volume {volume}, and cannot write", path.display()),
        )
        .hint("`comb volume open NAME --key-file F --store URL` opens it to be read")),
    }
}

/// The key in a person's file, of either kind.
pub fn import_any(path: &Path) -> Result<Key> {
    warn_if_open(path);
    read(path).map_err(|failure| match failure.kind {
        Kind::Foreign => failure.hint(
            "`comb volume key NAME --out F` writes such a file, and `comb key share NAME --read --out F` one that can only read",
        ),
        _ => failure,
    })
}

/// The key of a volume, of either kind.
pub fn load_any(volume: &VolumeFolder) -> Result<Key> {
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

/// The key that signs for a volume.
pub fn load(volume: &VolumeFolder) -> Result<VolumeKey> {
    match load_any(volume)? {
        Key::Volume(key) => Ok(key),
        Key::Read(..) => Err(reads_only(volume)),
    }
}

/// What is said of everything that needs more than a read key.
pub fn reads_only(volume: &VolumeFolder) -> Failure {
    Failure::new(
        Kind::NotPermitted,
        format!("this machine holds a read key of volume \"{0}\" only: it can be read here, not written", volume.name),
    )
    .hint(format!(
        "`comb fork {0}@head NEW` makes a volume of your own; with the volume key, `comb volume remove {0}` and then \
         `comb volume open` writes this one",
        volume.name
    ))
}

/// Says that others may read a key, or credentials, and what to do about it. No more than that: a stick may know no modes.
pub fn warn_if_open(path: &Path) {
    if path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o077 != 0) {
        let shown = path.display();
        output::warn_once(&format!("the file {shown} is open to other users, who can use what is in it"));
        output::note(&format!("hint: `chmod 600 {shown}` makes it yours alone"));
    }
}

fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    // Room for all of it: a vector that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    let file = File::open(path).context(path.display())?;
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes).context(path.display())?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<Key> {
    let bytes = read_bytes(path)?;
    let decoded = match std::str::from_utf8(&bytes) {
        Ok(text) => match ReadKeyFile::decode(text) {
            Ok(Some((volume, key))) => Ok(Key::Read(volume, key)),
            Ok(None) => KeyFile::decode(text).map(Key::Volume),
            Err(error) => Err(error),
        },
        Err(_) if bytes.starts_with(b"comb volume key ") || bytes.starts_with(b"comb read key ") => {
            Err(KeyError::Damaged)
        }
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

/// The read key in a person's file, as `comb key share NAME --read` writes it, and the volume that it opens.
pub fn import_read_key(path: &Path) -> Result<(VolumeId, ReadKey)> {
    warn_if_open(path);
    match read(path) {
        Ok(Key::Read(volume, key)) => Ok((volume, key)),
        Ok(Key::Volume(_)) => Err(not_a_read_key(path)),
        Err(failure) if failure.kind == Kind::Foreign => Err(not_a_read_key(path)),
        Err(failure) => Err(failure),
    }
}

fn not_a_read_key(path: &Path) -> Failure {
    Failure::new(Kind::Foreign, format!("{} is not a read key", path.display()))
        .hint("`comb key share NAME --read --out F` writes such a file")
}

/// Puts a key into a new volume's folder.
pub fn store(folder: &Path, key: &VolumeKey) -> Result<()> {
    write_new(&folder.join("key"), KeyFile::encode(key).as_bytes())
}

/// Puts a key of either kind into a new volume's folder.
pub fn store_any(folder: &Path, key: &Key) -> Result<()> {
    match key {
        Key::Volume(key) => store(folder, key),
        Key::Read(volume, key) => write_new(&folder.join("key"), ReadKeyFile::encode(volume, key).as_bytes()),
    }
}

/// The key as a person keeps it.
pub fn export(volume: &VolumeFolder) -> Result<Zeroizing<String>> {
    Ok(load(volume)?.to_base64())
}

/// The device's secret.
pub fn device(state: &State) -> Result<DeviceSecret> {
    state.device_secret().map(DeviceSecret::from_bytes)
}
