//! The key ring of an account: its keys in one object, opened by a passphrase, a recovery kit or a device.
//!
//! `fs/docs/crypto.md` draws the bytes and says what a ring promises.
//!
//! Invariants
//! - The ring key is wrapped by each passphrase salt, kit and device salt once.
//! - A version's number is one above the newest that was opened or made; its salt is its own.
//! - Nothing but opening tells whether a passphrase is right.
//!
//! Chance comes from the caller, 32 random bytes a step, which are used for nothing else.

use std::collections::BTreeMap;

use fs_format::ring::{
    Argon, DeviceRingKey, RING_BODY_BYTES_MAX, RING_CREDENTIALS_BYTES_MAX, RING_ENTRIES_MAX,
    RING_HEADER_BYTES, RING_NUMBER_MAX, RING_STORES_MAX, RingBody, RingHeader, RingKeyKind, RingObject,
    is_ring_name, is_ring_url, open_ring, ring_hash,
};
use fs_format::{AccountId, DecodeError, RingNumber, Timestamp, VolumeId, ring};
use zeroize::Zeroizing;

use crate::cipher::{Cipher, OpenFailed, Suite};
use crate::keys::{DeviceSecret, ReadKey, VolumeKey, context, derive, hedged_salt, hide};
use crate::kit::RecoveryKit;
use crate::owner::OwnerKey;
use crate::passphrase::Passphrase;

/// What is damaged when the ring key does not open it.
const BODY: &str = "body of a key ring";

/// Why a ring does not open, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The bytes are no ring, a damaged or a newer one.
    #[error(transparent)]
    Format(#[from] DecodeError),
    /// Ask for the passphrase again.
    #[error("does not open with this passphrase")]
    WrongPassphrase,
    /// It is the kit of another account, or one that a newer kit has replaced.
    #[error("does not open with this recovery kit")]
    WrongKit,
    /// Another device made a new ring key: ask for the passphrase.
    #[error("does not open with the key that this device keeps")]
    WrongKey,
    /// Argon2id needs memory that the machine does not have.
    #[error("needs {mib} MiB of memory to be opened, which this machine does not have")]
    Memory {
        /// How much.
        mib: u32,
    },
    /// A limit of rings.
    #[error("has no room for more {0}")]
    Full(&'static str),
    /// A name, URL or credentials that a ring cannot hold.
    #[error("cannot hold this {0}: it is empty, too long or has control characters in it")]
    Text(&'static str),
}

/// A key in a ring.
#[derive(Debug, Clone)]
pub enum EntryKey {
    /// Writes.
    Volume(VolumeKey),
    /// Opens.
    Read(ReadKey),
}

/// A volume's key with what it is called.
#[derive(Debug, Clone)]
pub struct RingEntry {
    /// The volume's public key.
    pub volume: VolumeId,
    /// The key.
    pub key: EntryKey,
    /// What the volume is called; two may be called alike.
    pub name: String,
    /// When it was put into the ring.
    pub added: Timestamp,
}

impl RingEntry {
    fn kind(&self) -> RingKeyKind {
        match self.key {
            EntryKey::Volume(_) => RingKeyKind::Volume,
            EntryKey::Read(_) => RingKeyKind::Read,
        }
    }

    /// Whether both are the same but for the time.
    fn says(&self, other: &RingEntry) -> bool {
        let same_key = match (&self.key, &other.key) {
            (EntryKey::Volume(one), EntryKey::Volume(two)) => one.0 == two.0,
            (EntryKey::Read(one), EntryKey::Read(two)) => one.0 == two.0,
            _ => false,
        };
        same_key && self.name == other.name
    }

    /// Whether this one is kept where there are two of one volume.
    fn beats(&self, other: &RingEntry) -> bool {
        let rank = |entry: &RingEntry| (entry.kind() == RingKeyKind::Volume, entry.added);
        rank(self) > rank(other)
    }
}

struct RingKey(Zeroizing<[u8; 32]>);

hide!(RingKey);

/// An open key ring.
#[derive(Debug)]
pub struct Ring {
    /// As of the newest version; number 0 if there is none.
    header: RingHeader,
    key: RingKey,
    before: Option<RingKey>,
    time: Timestamp,
    passphrase_time: Timestamp,
    kit_time: Timestamp,
    owner: OwnerKey,
    entries: BTreeMap<VolumeId, RingEntry>,
    stores: BTreeMap<String, Secret>,
}

struct Secret(Zeroizing<String>);

hide!(Secret);

impl Ring {
    /// A ring without entries, and without a version: [`Ring::next_version`] makes the first.
    pub fn new(passphrase: &Passphrase, time: Timestamp, random: &[u8; 32]) -> Result<Self, RingError> {
        let account = secret(random, "account", time);
        let mut ring = Self {
            header: RingHeader {
                account: AccountId(account[..16].try_into().expect("half of 32 bytes")),
                number: RingNumber(0),
                argon: Argon::MIN,
                passphrase_salt: [0; 32],
                by_passphrase: [0; 48],
                by_kit: [0; 48],
                salt: [0; 32],
            },
            key: RingKey(Zeroizing::new([0; 32])),
            before: None,
            time,
            passphrase_time: time,
            kit_time: Timestamp(0),
            owner: OwnerKey(secret(random, "owner", time)),
            entries: BTreeMap::new(),
            stores: BTreeMap::new(),
        };
        ring.renew_key(passphrase, time, random)?;
        ring.before = None;
        Ok(ring)
    }

    /// Opens a version with the passphrase. Takes the time and memory of Argon2id, right or wrong.
    pub fn open_with_passphrase(object: &[u8], passphrase: &Passphrase) -> Result<Self, RingError> {
        let parts = open_ring(object)?;
        let key = passphrase.stretch(&parts.header.argon, &parts.header.passphrase_salt)?;
        let wrapping = wrapping(context::RING_PASSPHRASE, &key, &[&parts.header.account.0]);
        let key = unwrap(&wrapping, &parts.header.by_passphrase).map_err(|_| RingError::WrongPassphrase)?;
        Self::open(&parts, key)
    }

    /// Opens a version with the recovery kit.
    pub fn open_with_kit(object: &[u8], kit: &RecoveryKit) -> Result<Self, RingError> {
        let parts = open_ring(object)?;
        let wrapping = wrapping(context::RING_KIT, &kit.0, &[&parts.header.account.0]);
        let key = unwrap(&wrapping, &parts.header.by_kit).map_err(|_| RingError::WrongKit)?;
        Self::open(&parts, key)
    }

    /// Opens a version with what [`Ring::for_device`] made for this device.
    pub fn open_on_device(object: &[u8], file: &[u8], device: &DeviceSecret) -> Result<Self, RingError> {
        let parts = open_ring(object)?;
        let file = DeviceRingKey::decode(file).map_err(|_| RingError::WrongKey)?;
        if file.account != parts.header.account {
            return Err(RingError::WrongKey);
        }
        let wrapping = wrapping(context::RING_DEVICE, &device.0, &[&file.account.0, &file.salt]);
        let key = unwrap(&wrapping, &file.wrapped).map_err(|_| RingError::WrongKey)?;
        Self::open_sharing(&parts, key)
    }

    /// Opens another version of this ring with the ring key of this one, or with the one before.
    pub fn open_sibling(&self, object: &[u8]) -> Result<Self, RingError> {
        let parts = open_ring(object)?;
        if parts.header.account != self.header.account {
            return Err(RingError::WrongKey);
        }
        let with = |key: &RingKey| Self::open_sharing(&parts, RingKey(key.0.clone()));
        match (with(&self.key), &self.before) {
            (Err(RingError::WrongKey), Some(before)) => with(before),
            (opened, _) => opened,
        }
    }

    /// Opens with a key that was kept, so that one that does not fit tells of a new ring key, not of damage.
    fn open_sharing(parts: &RingObject<'_>, key: RingKey) -> Result<Self, RingError> {
        Self::open(parts, key).map_err(|error| match error {
            RingError::Format(DecodeError::Damaged(BODY)) => RingError::WrongKey,
            other => other,
        })
    }

    fn open(parts: &RingObject<'_>, key: RingKey) -> Result<Self, RingError> {
        let mut plain = Zeroizing::new(parts.body.to_vec());
        body_cipher(&key, &parts.header.salt)
            .open(0, parts.associated, &mut plain, parts.tag)
            .map_err(|_| DecodeError::Damaged(BODY))?;
        let body = RingBody::decode(&plain)?;
        let mut entries = BTreeMap::new();
        for entry in &body.entries {
            let key = match entry.kind {
                RingKeyKind::Volume => EntryKey::Volume(VolumeKey(Zeroizing::new(*entry.key))),
                RingKeyKind::Read => EntryKey::Read(ReadKey(Zeroizing::new(*entry.key))),
            };
            if let EntryKey::Volume(key) = &key
                && key.id() != entry.volume
            {
                return Err(DecodeError::Damaged("a volume key of a key ring").into());
            }
            let entry =
                RingEntry { volume: entry.volume, key, name: entry.name.to_owned(), added: entry.added };
            entries.insert(entry.volume, entry);
        }
        let stores = body
            .stores
            .iter()
            .map(|store| (store.url.to_owned(), Secret(Zeroizing::new(store.credentials.to_owned()))));
        Ok(Self {
            header: parts.header.clone(),
            key,
            // Never a key: everybody knows it, and could make versions under it.
            before: (*body.before != [0; 32]).then(|| RingKey(Zeroizing::new(*body.before))),
            time: body.time,
            passphrase_time: body.passphrase,
            kit_time: body.kit,
            owner: OwnerKey(Zeroizing::new(*body.owner)),
            entries,
            stores: stores.collect(),
        })
    }

    /// Makes the version after the newest, of what the ring holds now.
    ///
    /// [`Ring::object_name`] says what it is called in a store.
    pub fn next_version(&mut self, time: Timestamp, random: &[u8; 32]) -> Result<Vec<u8>, RingError> {
        if self.header.number.0 >= RING_NUMBER_MAX {
            return Err(RingError::Full("versions"));
        }
        self.header.number.0 += 1;
        self.time = time;
        // Room for all of it: a vector that grows leaves copies of the keys behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(RING_BODY_BYTES_MAX));
        self.body().encode(&mut plain);
        let AccountId(account) = self.header.account;
        self.header.salt = hedged_salt(random, &[&account, &self.header.number.0.to_le_bytes(), &plain]);

        let header = self.header.encode(plain.len());
        let tag = body_cipher(&self.key, &self.header.salt).seal(0, &header, &mut plain);
        let mut object = Vec::with_capacity(RING_HEADER_BYTES + plain.len() + 16 + 32);
        object.extend_from_slice(&header);
        object.extend_from_slice(&plain);
        object.extend_from_slice(&tag);
        object.extend_from_slice(&ring_hash(&object));
        Ok(object)
    }

    fn body(&self) -> RingBody<'_> {
        let entries = self.entries.values().map(|entry| ring::RingEntry {
            volume: entry.volume,
            kind: entry.kind(),
            key: match &entry.key {
                EntryKey::Volume(key) => &key.0,
                EntryKey::Read(key) => &key.0,
            },
            name: &entry.name,
            added: entry.added,
        });
        let stores =
            self.stores.iter().map(|(url, credentials)| ring::RingStore { url, credentials: &credentials.0 });
        RingBody {
            time: self.time,
            passphrase: self.passphrase_time,
            kit: self.kit_time,
            owner: &self.owner.0,
            before: self.before.as_ref().map_or(&[0; 32], |key| &key.0),
            entries: entries.collect(),
            stores: stores.collect(),
        }
    }

    /// The file with which this device opens the ring from now on, as long as the ring key stays.
    pub fn for_device(&self, device: &DeviceSecret, random: &[u8; 32]) -> Vec<u8> {
        let account = self.header.account;
        let salt = hedged_salt(random, &[&account.0, &self.header.number.0.to_le_bytes()]);
        let wrapping = wrapping(context::RING_DEVICE, &device.0, &[&account.0, &salt]);
        DeviceRingKey { account, salt, wrapped: wrap(&wrapping, &self.key) }.encode().to_vec()
    }

    /// Sets another passphrase for the versions from the next one on. The kit and the devices stay good.
    pub fn set_passphrase(
        &mut self,
        passphrase: &Passphrase,
        time: Timestamp,
        random: &[u8; 32],
    ) -> Result<(), RingError> {
        let (argon, salt) = (Argon::MIN, *secret(random, "passphrase salt", time));
        let key = passphrase.stretch(&argon, &salt)?;
        let wrapping = wrapping(context::RING_PASSPHRASE, &key, &[&self.header.account.0]);
        self.header.argon = argon;
        self.header.passphrase_salt = salt;
        self.header.by_passphrase = wrap(&wrapping, &self.key);
        self.passphrase_time = time;
        Ok(())
    }

    /// Makes a new ring key, with the passphrase alone to open it: other devices ask for it, and the kit is void.
    pub fn renew_key(
        &mut self,
        passphrase: &Passphrase,
        time: Timestamp,
        random: &[u8; 32],
    ) -> Result<(), RingError> {
        let old = std::mem::replace(&mut self.key, RingKey(secret(random, "ring key", time)));
        if let Err(error) = self.set_passphrase(passphrase, time, random) {
            self.key = old;
            return Err(error);
        }
        self.before = Some(old);
        // A kit that nobody keeps, so that every version looks alike.
        self.new_kit(time, random);
        self.kit_time = Timestamp(0);
        Ok(())
    }

    /// Makes a recovery kit that opens the versions from the next one on, in place of any earlier kit.
    pub fn new_kit(&mut self, time: Timestamp, random: &[u8; 32]) -> RecoveryKit {
        let kit = RecoveryKit(secret(random, "kit", time));
        let wrapping = wrapping(context::RING_KIT, &kit.0, &[&self.header.account.0]);
        self.header.by_kit = wrap(&wrapping, &self.key);
        self.kit_time = time;
        kit
    }

    /// Puts a key into the ring; a volume key is never replaced by a read key. Says whether anything changed.
    pub fn add(&mut self, entry: RingEntry) -> Result<bool, RingError> {
        if !is_ring_name(&entry.name) {
            return Err(RingError::Text("name"));
        }
        if let Some(held) = self.entries.get(&entry.volume) {
            if held.says(&entry) || !entry.beats(held) {
                return Ok(false);
            }
        } else if self.entries.len() >= RING_ENTRIES_MAX {
            return Err(RingError::Full("keys"));
        }
        self.entries.insert(entry.volume, entry);
        Ok(true)
    }

    /// Notes a store and what it asks for, which may be nothing.
    pub fn add_store(&mut self, url: &str, credentials: Zeroizing<String>) -> Result<(), RingError> {
        if !is_ring_url(url) {
            return Err(RingError::Text("URL"));
        }
        if credentials.len() > RING_CREDENTIALS_BYTES_MAX {
            return Err(RingError::Text("credential"));
        }
        if self.stores.len() >= RING_STORES_MAX && !self.stores.contains_key(url) {
            return Err(RingError::Full("stores"));
        }
        self.stores.insert(url.to_owned(), Secret(credentials));
        Ok(())
    }

    /// Takes over what another version of this ring has and this one lacks; see "In a store" in the document.
    ///
    /// Afterwards the number is the higher of the two, so the next version is above both.
    pub fn unite(&mut self, other: &Ring) -> Result<(), RingError> {
        if other.header.account != self.header.account {
            return Err(RingError::WrongKey);
        }
        for entry in other.entries.values() {
            self.add(entry.clone())?;
        }
        for (url, credentials) in &other.stores {
            if self.stores.get(url).is_none_or(|held| held.0.is_empty()) {
                self.add_store(url, credentials.0.clone())?;
            }
        }
        // What wraps another ring key is of no use here.
        if self.shares_key_with(other) {
            if other.passphrase_time > self.passphrase_time {
                self.header.argon = other.header.argon;
                self.header.passphrase_salt = other.header.passphrase_salt;
                self.header.by_passphrase = other.header.by_passphrase;
                self.passphrase_time = other.passphrase_time;
            }
            if other.kit_time > self.kit_time {
                self.header.by_kit = other.header.by_kit;
                self.kit_time = other.kit_time;
            }
        }
        self.header.number = self.header.number.max(other.header.number);
        Ok(())
    }

    /// Whether uniting with another version of this ring would change nothing but the number.
    pub fn covers(&self, other: &Ring) -> bool {
        let entry_is_here = |entry: &RingEntry| {
            self.entries.get(&entry.volume).is_some_and(|held| held.says(entry) || !entry.beats(held))
        };
        let store_is_here = |(url, credentials): (&String, &Secret)| {
            self.stores.get(url).is_some_and(|held| !held.0.is_empty() || credentials.0.is_empty())
        };
        other.entries.values().all(entry_is_here)
            && other.stores.iter().all(store_is_here)
            && (!self.shares_key_with(other)
                || other.passphrase_time <= self.passphrase_time && other.kit_time <= self.kit_time)
    }

    /// Whether both versions have one ring key.
    pub fn shares_key_with(&self, other: &Ring) -> bool {
        self.key.0 == other.key.0
    }

    /// Whose ring it is.
    pub fn account(&self) -> AccountId {
        self.header.account
    }

    /// The number of the newest version; 0 if there is none yet.
    pub fn number(&self) -> RingNumber {
        self.header.number
    }

    /// What the newest version is called in a store.
    pub fn object_name(&self) -> String {
        self.header.object_name()
    }

    /// When the newest version was made.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// When the recovery kit was made that opens the newest version, if there is one.
    pub fn kit_time(&self) -> Option<Timestamp> {
        (self.kit_time != Timestamp(0)).then_some(self.kit_time)
    }

    /// The owner's signing key.
    pub fn owner(&self) -> &OwnerKey {
        &self.owner
    }

    /// The keys, in the order of their volumes.
    pub fn entries(&self) -> impl Iterator<Item = &RingEntry> {
        self.entries.values()
    }

    /// The key of a volume.
    pub fn entry(&self, volume: &VolumeId) -> Option<&RingEntry> {
        self.entries.get(volume)
    }

    /// The stores with what they ask for, in the order of their URLs.
    pub fn stores(&self) -> impl Iterator<Item = (&str, &str)> {
        self.stores.iter().map(|(url, credentials)| (url.as_str(), credentials.0.as_str()))
    }
}

/// A new secret for one purpose.
fn secret(random: &[u8; 32], what: &str, time: Timestamp) -> Zeroizing<[u8; 32]> {
    derive(context::RING_SECRET, random, &[what.as_bytes(), &time.0.to_le_bytes()])
}

fn wrapping(context: &str, secret: &[u8; 32], parts: &[&[u8]]) -> Cipher {
    Cipher::new(Suite::ChaCha20Poly1305, &derive(context, secret, parts))
}

fn body_cipher(key: &RingKey, salt: &[u8; 32]) -> Cipher {
    Cipher::new(Suite::ChaCha20Poly1305, &derive(context::RING_BODY, &key.0, &[salt]))
}

/// The nonce is fixed, because a wrapping key wraps one ring key.
fn wrap(wrapping: &Cipher, key: &RingKey) -> [u8; 48] {
    let mut plain = key.0.clone();
    let tag = wrapping.seal(0, b"", &mut plain[..]);
    let mut out = [0; 48];
    out[..32].copy_from_slice(&plain[..]);
    out[32..].copy_from_slice(&tag);
    out
}

fn unwrap(wrapping: &Cipher, wrapped: &[u8; 48]) -> Result<RingKey, OpenFailed> {
    let (sealed, tag) = wrapped.split_first_chunk::<32>().expect("48 bytes begin with 32");
    let mut key = Zeroizing::new(*sealed);
    wrapping.open(0, b"", &mut key[..], tag.try_into().expect("48 bytes less 32"))?;
    Ok(RingKey(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fs_format::ring::ring_of_name;

    use super::*;

    const NOON: Timestamp = Timestamp(1_795_262_400_000_000_000);
    const RANDOM: [u8; 32] = [0x11; 32];

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text).expect("a passphrase")
    }

    fn later(seconds: i64) -> Timestamp {
        Timestamp(NOON.0 + seconds * 1_000_000_000)
    }

    fn volume(n: u8, name: &str) -> RingEntry {
        let key = VolumeKey::from_seed([n; 32]);
        RingEntry { volume: key.id(), key: EntryKey::Volume(key), name: name.into(), added: NOON }
    }

    fn reader(n: u8, name: &str) -> RingEntry {
        let key = VolumeKey::from_seed([n; 32]);
        RingEntry { volume: key.id(), key: EntryKey::Read(key.read_key()), name: name.into(), added: NOON }
    }

    fn ring() -> Ring {
        let mut ring = Ring::new(&passphrase("correct horse"), NOON, &RANDOM).expect("memory");
        ring.add(volume(1, "photos")).expect("room");
        ring.add(reader(2, "music")).expect("room");
        ring
    }

    fn version(ring: &mut Ring) -> Vec<u8> {
        ring.next_version(NOON, &[ring.number().0 as u8; 32]).expect("room")
    }

    fn names(ring: &Ring) -> BTreeSet<(String, bool)> {
        ring.entries().map(|entry| (entry.name.clone(), entry.kind() == RingKeyKind::Volume)).collect()
    }

    /// With other bytes at a place, and a hash that matches them.
    fn forged(object: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut object = object[..object.len() - 32].to_vec();
        object[at..at + bytes.len()].copy_from_slice(bytes);
        object.extend_from_slice(&ring_hash(&object));
        object
    }

    #[test]
    fn a_version_is_these_bytes() {
        let mut ring = ring();
        ring.add_store("s3://bucket", Zeroizing::new("key".into())).expect("room");
        let kit = ring.new_kit(later(5), &[0x22; 32]);
        let object = ring.next_version(later(9), &[0x33; 32]).expect("room");
        let device = DeviceSecret::from_bytes([9; 32]);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // The hash of everything, computed by a separate program with other implementations.
        assert_eq!(ring.object_name(), "k/871119a464831cac5a5e24a0aa6d39c9/fffffffffffffffe");
        assert_eq!(
            hex(&object[object.len() - 32..]),
            "8567a29da98ac63f7687d581df5739e1dcb34250620eed6ee4fdde075e85841c"
        );
        assert_eq!(
            hex(&ring.for_device(&device, &[0x44; 32])[64..]),
            "3cef89214a2feeb45719c6f12ebee4d558119f7c2312cba76113275405b16caa365fe262b7744e02df5041b168c2ebe1"
        );
        assert_eq!(
            *kit.to_text(),
            "RFFR1 4JH0G S2SP7 WVPWM 07CP4\nJFDJR DQP9Q 28XYX PQ335 KJEXP\nEM2S9 C2H91 TVQ09\n"
        );
    }

    #[test]
    fn passphrase_kit_and_device_open_the_same_ring() {
        let mut ring = ring();
        let kit = ring.new_kit(NOON, &[2; 32]);
        let object = version(&mut ring);
        let device = DeviceSecret::from_bytes([9; 32]);
        let file = ring.for_device(&device, &[3; 32]);
        for opened in [
            Ring::open_with_passphrase(&object, &passphrase("correct horse")),
            Ring::open_with_kit(&object, &kit),
            Ring::open_on_device(&object, &file, &device),
            ring.open_sibling(&object),
        ] {
            let opened = opened.expect("it opens");
            assert_eq!(names(&opened), names(&ring));
            assert_eq!((opened.number(), opened.time()), (RingNumber(1), NOON));
            assert_eq!(opened.owner().public(), ring.owner().public());
            let entry = opened.entry(&volume(1, "").volume).expect("the volume");
            assert!(
                matches!(&entry.key, EntryKey::Volume(key) if *key.to_base64() == *VolumeKey::from_seed([1; 32]).to_base64())
            );
        }
        assert_eq!(ring_of_name(&ring.object_name()), Some((ring.account(), ring.number())));
    }

    #[test]
    fn nothing_else_opens_it() {
        let mut ring = ring();
        let object = version(&mut ring);
        let stranger = RecoveryKit(Zeroizing::new([5; 32]));
        let device = DeviceSecret::from_bytes([9; 32]);
        let file = ring.for_device(&device, &[3; 32]);
        let refused = |opened: Result<Ring, RingError>| opened.map(|_| ()).expect_err("it does not open");
        for wrong in ["correct horse ", "Correct horse", "x"] {
            assert_eq!(
                refused(Ring::open_with_passphrase(&object, &passphrase(wrong))),
                RingError::WrongPassphrase
            );
        }
        assert_eq!(refused(Ring::open_with_kit(&object, &stranger)), RingError::WrongKit);
        let other = DeviceSecret::from_bytes([8; 32]);
        assert_eq!(refused(Ring::open_on_device(&object, &file, &other)), RingError::WrongKey);
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            assert_eq!(refused(Ring::open_on_device(&object, &flipped, &device)), RingError::WrongKey);
        }
        let foreign = Ring::new(&passphrase("correct horse"), NOON, &[0x12; 32]).expect("memory");
        assert_eq!(refused(foreign.open_sibling(&object)), RingError::WrongKey);
    }

    #[test]
    fn a_forged_byte_anywhere_is_noticed_by_who_has_the_ring_key() {
        let mut ring = ring();
        let object = version(&mut ring);
        for at in 8..object.len() - 32 {
            let flipped = forged(&object, at, &[object[at] ^ 1]);
            let opened = ring.open_sibling(&flipped).map(|_| ());
            assert!(
                matches!(opened, Err(RingError::WrongKey | RingError::Format(_))),
                "byte {at}: {opened:?}"
            );
        }
    }

    #[test]
    fn a_forged_wrap_is_told_from_a_forged_body() {
        let mut ring = ring();
        let object = version(&mut ring);
        let open = |object: &[u8]| {
            Ring::open_with_passphrase(object, &passphrase("correct horse")).map(|_| ()).expect_err("forged")
        };
        // Of the passphrase's salt and wrap; of the kit's wrap; of the body.
        assert_eq!(open(&forged(&object, 64, &[object[64] ^ 1])), RingError::WrongPassphrase);
        assert_eq!(open(&forged(&object, 96, &[object[96] ^ 1])), RingError::WrongPassphrase);
        let damaged = RingError::Format(DecodeError::Damaged("body of a key ring"));
        assert_eq!(open(&forged(&object, 144, &[object[144] ^ 1])), damaged);
        assert_eq!(open(&forged(&object, 300, &[object[300] ^ 1])), damaged);
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_before_anything_is_done() {
        let mut ring = ring();
        let object = version(&mut ring);
        // 4 TiB would end the program, 2³² passes the day.
        for at in [40, 44, 48] {
            let greedy = forged(&object, at, &u32::MAX.to_le_bytes());
            let refused = Ring::open_with_passphrase(&greedy, &passphrase("x")).map(|_| ());
            assert!(matches!(refused, Err(RingError::Format(DecodeError::TooLarge(_)))), "{refused:?}");
        }
    }

    #[test]
    fn a_new_passphrase_leaves_kit_and_devices_as_they_are() {
        let mut ring = ring();
        let kit = ring.new_kit(NOON, &[2; 32]);
        let device = DeviceSecret::from_bytes([9; 32]);
        let file = ring.for_device(&device, &[3; 32]);
        let old = version(&mut ring);
        ring.set_passphrase(&passphrase("battery staple"), later(1), &[4; 32]).expect("memory");
        let new = version(&mut ring);

        assert!(Ring::open_with_passphrase(&new, &passphrase("battery staple")).is_ok());
        assert!(Ring::open_with_passphrase(&new, &passphrase("correct horse")).is_err());
        assert!(Ring::open_with_kit(&new, &kit).is_ok());
        assert!(Ring::open_on_device(&new, &file, &device).is_ok());
        // An old version stays what it was.
        assert!(Ring::open_with_passphrase(&old, &passphrase("correct horse")).is_ok());
    }

    #[test]
    fn a_new_ring_key_opens_with_the_passphrase_alone() {
        let mut ring = ring();
        let kit = ring.new_kit(NOON, &[2; 32]);
        let device = DeviceSecret::from_bytes([9; 32]);
        let file = ring.for_device(&device, &[3; 32]);
        let old = version(&mut ring);
        ring.renew_key(&passphrase("correct horse"), later(1), &[4; 32]).expect("memory");
        assert_eq!(ring.kit_time(), None);
        let new = version(&mut ring);

        let opened = Ring::open_with_passphrase(&new, &passphrase("correct horse")).expect("it opens");
        assert_eq!(names(&opened), names(&ring));
        assert!(matches!(Ring::open_with_kit(&new, &kit), Err(RingError::WrongKit)));
        assert!(matches!(Ring::open_on_device(&new, &file, &device), Err(RingError::WrongKey)));
        // The new one opens the old one, not the other way round, and not the one before that.
        assert_eq!(names(&ring.open_sibling(&old).expect("the key before")), names(&ring));
        let old_ring = Ring::open_with_passphrase(&old, &passphrase("correct horse")).expect("it opens");
        assert!(matches!(old_ring.open_sibling(&new), Err(RingError::WrongKey)));
        let mut later_ring = ring.open_sibling(&new).expect("its own");
        later_ring.renew_key(&passphrase("correct horse"), later(2), &[6; 32]).expect("memory");
        assert!(matches!(later_ring.open_sibling(&old), Err(RingError::WrongKey)));
        // Who has only the new one's kit does not open what is older, and the other way round.
        let new_kit = ring.new_kit(later(2), &[5; 32]);
        let newest = version(&mut ring);
        assert!(Ring::open_with_kit(&newest, &new_kit).is_ok());
        assert!(matches!(Ring::open_with_kit(&old, &new_kit), Err(RingError::WrongKit)));
    }

    #[test]
    fn a_version_under_a_key_that_everybody_knows_does_not_open() {
        let mut ring = ring();
        let object = version(&mut ring);
        let mut forger = ring.open_sibling(&object).expect("its header is public");
        forger.key = RingKey(Zeroizing::new([0; 32]));
        let forged = version(&mut forger);
        for ring in [&ring, &ring.open_sibling(&object).expect("its own")] {
            assert!(matches!(ring.open_sibling(&forged), Err(RingError::WrongKey)));
        }
    }

    #[test]
    fn a_new_kit_replaces_the_old_one() {
        let mut ring = ring();
        assert_eq!(ring.kit_time(), None);
        let one = ring.new_kit(NOON, &[2; 32]);
        let two = ring.new_kit(later(1), &[2; 32]);
        assert_eq!(ring.kit_time(), Some(later(1)));
        let object = version(&mut ring);
        assert!(matches!(Ring::open_with_kit(&object, &one), Err(RingError::WrongKit)));
        assert!(Ring::open_with_kit(&object, &two).is_ok());
    }

    #[test]
    fn no_salt_and_no_wrap_is_used_twice() {
        let mut ring = ring();
        let mut seen = BTreeSet::new();
        let mut check = |ring: &mut Ring| {
            // Chance that repeats itself: what differs must keep them apart.
            let object = ring.next_version(NOON, &RANDOM).expect("room");
            assert!(seen.insert(object[192..224].to_vec()), "a salt of a version repeats");
        };
        check(&mut ring);
        check(&mut ring);
        ring.add(volume(3, "more")).expect("room");
        check(&mut ring);
        let before = ring.header.clone();
        ring.renew_key(&passphrase("correct horse"), later(1), &RANDOM).expect("memory");
        check(&mut ring);
        assert_ne!(before.passphrase_salt, ring.header.passphrase_salt);
        assert_ne!(before.by_passphrase, ring.header.by_passphrase);
        assert_ne!(before.by_kit, ring.header.by_kit);
    }

    #[test]
    fn versions_of_two_devices_unite() {
        let mut one = ring();
        let base = version(&mut one);
        let mut two = one.open_sibling(&base).expect("the same ring");
        one.add(volume(3, "of one")).expect("room");
        one.add_store("file:///one", Zeroizing::default()).expect("room");
        two.add(volume(4, "of two")).expect("room");
        two.add(volume(2, "music")).expect("room");
        two.add_store("file:///one", Zeroizing::new("secret".into())).expect("room");
        two.set_passphrase(&passphrase("battery staple"), later(1), &[4; 32]).expect("memory");
        let kit = two.new_kit(later(1), &[5; 32]);
        version(&mut one);
        let theirs = version(&mut two);

        // The first to publish wins the number; the other unites and takes the next.
        let theirs = one.open_sibling(&theirs).expect("the same ring key");
        assert!(!one.covers(&theirs) && !theirs.covers(&one) && one.covers(&one));
        one.unite(&theirs).expect("room");
        assert!(one.covers(&theirs) && !theirs.covers(&one));
        let united = version(&mut one);
        assert_eq!(one.number(), RingNumber(3));
        for opened in [
            Ring::open_with_passphrase(&united, &passphrase("battery staple")),
            Ring::open_with_kit(&united, &kit),
        ] {
            let opened = opened.expect("the later passphrase and kit");
            let expected = ["photos", "music", "of one", "of two"].map(|name| (name.to_owned(), true)).into();
            assert_eq!(names(&opened), expected, "a volume key wins over a read key");
            assert_eq!(opened.stores().collect::<Vec<_>>(), [("file:///one", "secret")]);
        }
        let foreign = Ring::new(&passphrase("x"), NOON, &[0x12; 32]).expect("memory");
        assert!(matches!(one.unite(&foreign), Err(RingError::WrongKey)));
    }

    #[test]
    fn a_ring_with_another_ring_key_gives_its_keys_only() {
        let mut one = ring();
        let base = version(&mut one);
        let mut two = one.open_sibling(&base).expect("the same ring");
        two.add(volume(4, "of two")).expect("room");
        two.set_passphrase(&passphrase("of two"), later(9), &[4; 32]).expect("memory");
        one.renew_key(&passphrase("of one"), later(1), &[4; 32]).expect("memory");
        one.unite(&two).expect("room");
        let united = version(&mut one);
        let opened = Ring::open_with_passphrase(&united, &passphrase("of one")).expect("it opens");
        assert!(names(&opened).contains(&("of two".into(), true)));
    }

    #[test]
    fn adding_says_whether_anything_changed() {
        let mut ring = ring();
        let mut add = |entry: RingEntry| ring.add(entry);
        assert_eq!(add(RingEntry { added: later(1), ..volume(1, "photos") }), Ok(false), "the same");
        assert_eq!(add(reader(1, "photos")), Ok(false), "less than is there");
        assert_eq!(add(RingEntry { added: later(1), ..volume(1, "pictures") }), Ok(true), "another name");
        assert_eq!(add(volume(2, "music")), Ok(true), "more than is there");
        assert_eq!(add(volume(3, "music")), Ok(true), "another volume of that name");
        assert_eq!(add(volume(4, "")), Err(RingError::Text("name")));
        assert_eq!(add(volume(4, "a\nb")), Err(RingError::Text("name")));
        assert_eq!(ring.add_store("", Zeroizing::default()), Err(RingError::Text("URL")));
    }

    #[test]
    fn a_ring_has_an_end() {
        let mut ring = ring();
        for n in 0..RING_ENTRIES_MAX as u32 - 2 {
            let mut id = VolumeId([0xee; 32]);
            id.0[..4].copy_from_slice(&n.to_be_bytes());
            let key = EntryKey::Read(ReadKey::from_bytes([1; 32]));
            ring.add(RingEntry { volume: id, key, name: "x".into(), added: NOON }).expect("room");
        }
        assert_eq!(ring.add(volume(9, "one more")), Err(RingError::Full("keys")));
        let object = version(&mut ring);
        assert_eq!(ring.open_sibling(&object).expect("it opens").entries().count(), RING_ENTRIES_MAX);
        ring.header.number = RingNumber(RING_NUMBER_MAX);
        assert_eq!(ring.next_version(NOON, &RANDOM), Err(RingError::Full("versions")));
    }

    #[test]
    fn a_key_under_a_foreign_name_is_damage() {
        let mut ring = ring();
        let wrong = VolumeId([0xee; 32]);
        ring.entries.insert(wrong, RingEntry { volume: wrong, ..volume(5, "wrong") });
        let object = version(&mut ring);
        let refused = ring.open_sibling(&object).map(|_| ());
        assert_eq!(refused, Err(RingError::Format(DecodeError::Damaged("a volume key of a key ring"))));
    }

    #[test]
    fn a_length_of_bodies_comes_in_steps() {
        let mut ring = ring();
        let mut lengths = BTreeSet::new();
        for n in 3..20 {
            ring.add(volume(n, "a name")).expect("room");
            lengths.insert(version(&mut ring).len());
        }
        assert_eq!(lengths.len(), 1);
    }

    #[test]
    fn printing_a_ring_shows_no_secret() {
        let mut ring = ring();
        ring.add_store("s3://bucket", Zeroizing::new("canary".into())).expect("room");
        let shown = format!("{ring:?}");
        assert!(shown.contains("RingKey(..)") && shown.contains("OwnerKey(..)"), "{shown}");
        assert!(shown.contains("VolumeKey(..)") && shown.contains("ReadKey(..)"), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}
