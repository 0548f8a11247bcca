//! The account's key ring on this machine.
//!
//! ```text
//! STATE/ring       the newest version of the ring that this machine knows, as it lies in a store
//! STATE/ring.key   what opens it here without a question: its key, wrapped by the device's secret
//! ```
//!
//! Invariants
//! - Both change under one lock, each whole or not at all, the ring first. If a crash leaves a `ring.key`
//!   that does not fit, the passphrase opens the ring and puts it right.
//! - The ring of this machine never goes back to a lower number, and never becomes another account's.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_crypto::{EntryKey, Passphrase, Ring, RingEntry, RingError, VolumeKey};
use fs_format::ring::RING_BYTES_MAX;
use fs_format::{DecodeError, Timestamp, VolumeId};

use crate::failure::{Context, Failure, Kind, Result};
use crate::name::{VOLUME_NAME_BYTES_MAX, VolumeName};
use crate::passphrase::PassphraseArgs;
use crate::state::{Config, State, VolumeFolder, replace};
use crate::{keys, output, ring_store};

/// The ring, open and locked until it is saved or dropped.
pub struct Opened<'a> {
    state: &'a State,
    /// What is in the ring.
    pub ring: Ring,
    /// Whether `ring.key` opens it.
    kept: bool,
    _lock: File,
}

/// Whether this machine has a key ring.
pub fn exists(state: &State) -> bool {
    ring_path(state).exists()
}

/// Makes a ring without keys; nothing is on the disk until it is saved.
pub fn make(state: &State, ask: impl FnOnce() -> Result<Passphrase>) -> Result<Opened<'_>> {
    refuse_second(state)?;
    let passphrase = ask()?;
    state.prepare()?;
    let lock = state.lock_ring()?;
    refuse_second(state)?;
    let ring = Ring::new(&passphrase, now(), &*keys::random()?)
        .map_err(|error| failure("the new key ring", &error))?;
    Ok(Opened { state, ring, kept: false, _lock: lock })
}

fn refuse_second(state: &State) -> Result<()> {
    if !exists(state) {
        return Ok(());
    }
    let path = ring_path(state);
    Err(Failure::new(Kind::InTheWay, format!("there is a key ring already: {}", path.display()))
        .hint("`comb key ring show` shows it; `comb key ring passphrase` sets another passphrase"))
}

/// Opens the ring of this machine: without a question where it can, else with the passphrase.
pub fn open<'a>(state: &'a State, passphrase: &PassphraseArgs) -> Result<Opened<'a>> {
    let object = read_ring(state)?;
    let lock = state.lock_ring()?;
    if let Some(opened) = open_unattended(state, lock)? {
        return Ok(opened);
    }
    // The lock is not held while a person thinks, so the ring may be a newer one afterwards.
    let ring = passphrase.open("the key ring", |typed| Ring::open_with_passphrase(&object, typed))?;
    let lock = state.lock_ring()?;
    let newest = read_ring(state)?;
    let ring = if newest == object { Ok(ring) } else { ring.open_sibling(&newest) };
    let ring = ring.map_err(|error| failure("the key ring", &error))?;
    let mut opened = Opened { state, ring, kept: false, _lock: lock };
    opened.keep()?;
    Ok(opened)
}

/// Opens the ring without a question, or says that there must be one.
pub fn open_here(state: &State) -> Result<Opened<'_>> {
    let opened = open_unattended(state, state.lock_ring()?)?;
    opened.ok_or_else(|| failure("the key ring", &RingError::WrongKey))
}

/// Opens the ring with `ring.key`, if that fits.
fn open_unattended(state: &State, lock: File) -> Result<Option<Opened<'_>>> {
    let object = read_ring(state)?;
    let path = key_path(state);
    let file = match read_at_most(&path, fs_format::ring::DEVICE_RING_KEY_BYTES) {
        Err(failure) if failure.kind == Kind::NotFound => return Ok(None),
        read => read?,
    };
    match Ring::open_on_device(&object, &file, &keys::device(state)?) {
        Ok(ring) => Ok(Some(Opened { state, ring, kept: true, _lock: lock })),
        Err(RingError::WrongKey) => Ok(None),
        Err(error) => Err(failure(ring_path(state).display(), &error)),
    }
}

impl Opened<'_> {
    /// Puts a key into the ring, to be saved. Says whether anything changed.
    pub fn add(&mut self, volume: VolumeId, key: EntryKey, name: &VolumeName) -> Result<bool> {
        let entry = RingEntry { volume, key, name: name.to_string(), added: now() };
        self.ring.add(entry).map_err(|error| failure("the key ring", &error))
    }

    /// Makes a new ring key; other devices will ask for the passphrase.
    pub fn renew_key(&mut self, passphrase: &Passphrase) -> Result<()> {
        self.kept = false;
        let renewed = self.ring.renew_key(passphrase, now(), &*keys::random()?);
        renewed.map_err(|error| failure("the key ring", &error))
    }

    /// Writes the version after the newest.
    pub fn save(&mut self) -> Result<()> {
        let object = self.ring.next_version(now(), &*keys::random()?);
        let object = object.map_err(|error| failure("the key ring", &error))?;
        replace(&ring_path(self.state), &object)?;
        self.keep()
    }

    /// What was in it, for reading only: others may open and change it from now on.
    pub fn close(self) -> Ring {
        self.ring
    }

    /// The newest version, as it lies on the disk.
    pub fn object(&self) -> Result<Vec<u8>> {
        read_ring(self.state)
    }

    /// Goes on with another version of the same ring, under the same ring key and with a higher number.
    pub fn take(&mut self, ring: Ring, object: &[u8]) -> Result<()> {
        assert!(ring.number() > self.ring.number(), "a ring never goes back");
        replace(&ring_path(self.state), object)?;
        self.ring = ring;
        Ok(())
    }

    /// Sees to it that this machine opens the ring without a question.
    fn keep(&mut self) -> Result<()> {
        if !self.kept {
            let file = self.ring.for_device(&keys::device(self.state)?, &*keys::random()?);
            replace(&key_path(self.state), &file)?;
            self.kept = true;
        }
        Ok(())
    }
}

/// Puts the key of a volume that was just made into the ring, if there is one.
///
/// The volume is there whether this succeeds or not, so a failure is a warning.
pub fn remember(state: &State, volume: &VolumeFolder, key: &VolumeKey) {
    if !exists(state) {
        return;
    }
    let remembered = || -> Result<()> {
        let mut opened = open_here(state)?;
        opened.add(volume.id, EntryKey::Volume(key.clone()), &volume.name)?;
        opened.save()?;
        ring_store::publish(state, &mut opened);
        Ok(())
    };
    if let Err(failure) = remembered() {
        output::note(&format!(
            "warning: the key of \"{0}\" is not in the key ring: {1}\nhint: `comb key ring add {0}` puts it there",
            volume.name, failure.message
        ));
    }
}

/// Makes a recovered ring that of this machine, unless a newer version of it is here.
pub fn adopt(state: &State, ring: Ring, object: &[u8]) -> Result<()> {
    state.prepare()?;
    let lock = state.lock_ring()?;
    if exists(state) {
        let path = ring_path(state);
        let held = read_ring(state)?;
        let held = fs_format::ring::open_ring(&held)
            .map_err(|error| failure(path.display(), &RingError::Format(error)))?
            .header;
        if held.account != ring.account() {
            return Err(Failure::new(
                Kind::InTheWay,
                format!("{} is the key ring of another account", path.display()),
            )
            .hint("recover into another state folder: `comb --state DIR recover …`"));
        }
        if held.number >= ring.number() {
            return Ok(());
        }
    }
    replace(&ring_path(state), object)?;
    Opened { state, ring, kept: false, _lock: lock }.keep()
}

/// What became of a key of a ring.
pub enum SetUp {
    /// The volume has a folder now, with its key and what `fill` put there.
    Made(VolumeFolder),
    /// It was here before, under this name.
    Here(VolumeFolder),
    /// It is a read key; the volume must be opened from a store.
    ReadKey,
}

/// Sets up the volume of a key in this state folder; `fill` brings what a store has of it.
pub fn set_up(
    state: &State,
    entry: &RingEntry,
    fill: impl FnOnce(&Path, &VolumeKey) -> Result<()>,
) -> Result<SetUp> {
    let volumes = state.volumes()?;
    if let Some(here) = volumes.iter().find(|volume| volume.id == entry.volume) {
        return Ok(SetUp::Here(here.clone()));
    }
    let EntryKey::Volume(key) = &entry.key else { return Ok(SetUp::ReadKey) };
    let name = free_name(entry, &volumes);
    let config = Config::new(&name);
    let made = state.add(&config, &name, entry.volume, |folder| {
        keys::store(folder, key)?;
        fill(folder, key)
    })?;
    Ok(SetUp::Made(made))
}

/// The name that the volume of a key gets beside these.
pub fn free_name(entry: &RingEntry, volumes: &[VolumeFolder]) -> VolumeName {
    let taken = |name: &VolumeName| volumes.iter().any(|volume| volume.name == *name);
    local_name(&entry.name, &entry.volume, taken)
}

/// The name that a volume gets here: its own, or with the beginning of its public key where that does not do.
fn local_name(name: &str, volume: &VolumeId, taken: impl Fn(&VolumeName) -> bool) -> VolumeName {
    if let Ok(own) = name.parse::<VolumeName>()
        && own.branch().is_none()
        && !taken(&own)
    {
        return own;
    }
    let mark = format!("-{}", &volume.to_hex()[..8]);
    let kept: String = name
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-'))
        .skip_while(|letter| matches!(letter, '.' | '-'))
        .take(VOLUME_NAME_BYTES_MAX - mark.len())
        .collect();
    let stem = if kept.is_empty() { "volume" } else { &kept };
    format!("{stem}{mark}").parse().expect("letters that a name may have, no more than it may have")
}

/// The ring of this machine, as it lies in a store.
fn read_ring(state: &State) -> Result<Vec<u8>> {
    read_object(&ring_path(state)).map_err(|failure| match failure.kind {
        Kind::NotFound => {
            Failure::new(Kind::NotFound, format!("there is no key ring in {}", state.root().display()))
                .hint("`comb key ring init` makes one, `comb recover` brings one back")
        }
        _ => failure,
    })
}

/// A ring in a file.
pub fn read_object(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, RING_BYTES_MAX)
}

/// A file; of one that is too long so much that its decoder refuses it.
fn read_at_most(path: &Path, max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).context(path.display())?;
    file.take(max as u64 + 1).read_to_end(&mut bytes).context(path.display())?;
    Ok(bytes)
}

/// An error of a ring in words for a person.
pub fn failure(what: impl Display, error: &RingError) -> Failure {
    let kind = match error {
        RingError::Format(DecodeError::Newer { .. } | DecodeError::Foreign(_))
        | RingError::WrongPassphrase
        | RingError::WrongKit
        | RingError::WrongKey => Kind::Foreign,
        RingError::Format(_) => Kind::Damaged,
        RingError::Memory { .. } | RingError::Full(_) => Kind::NoSpace,
        RingError::Text(_) => Kind::Usage,
    };
    let failure = Failure::new(kind, format!("{what} {error}"));
    match error {
        RingError::WrongPassphrase => {
            failure.hint("an older copy of the key ring may open with an older passphrase")
        }
        RingError::WrongKit => failure.hint("a newer recovery kit takes the place of the ones before it"),
        RingError::Format(_) => failure.hint("take another copy of the key ring"),
        RingError::WrongKey => failure.hint(
            "another device made a new ring key: give the passphrase to a command that asks for it, such as `comb key ring show`",
        ),
        _ => failure,
    }
}

fn ring_path(state: &State) -> PathBuf {
    state.root().join("ring")
}

fn key_path(state: &State) -> PathBuf {
    state.root().join("ring.key")
}

/// The time that goes into a ring.
pub fn now() -> Timestamp {
    let nanos = jiff::Timestamp::now().as_nanosecond();
    Timestamp(i64::try_from(nanos).expect("the clock is before the year 2262"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_volume_gets_a_name_that_is_free() {
        let volume = VolumeId([0xab; 32]);
        let long = "x".repeat(64);
        let table = [
            ("photos", false, "photos"),
            ("photos", true, "photos-abababab"),
            ("größe", false, "gre-abababab"),
            ("..hidden", false, "hidden-abababab"),
            ("日本", false, "volume-abababab"),
            (&long, true, &format!("{}-abababab", "x".repeat(55))),
        ];
        for (name, taken, expected) in table {
            assert_eq!(local_name(name, &volume, |_| taken).as_str(), expected);
        }
    }
}
