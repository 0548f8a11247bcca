//! The key ring as an object: clear header, encrypted body, hash; and what the body holds.
//!
//! `fs/docs/crypto.md` draws the bytes. The plain body is made of secrets: here they are borrowed from
//! whoever holds them, never copied but into the bytes that the caller hands out, and nothing prints them.
//!
//! Invariants
//! - What decodes encodes to the same bytes.
//! - The parameters of Argon2id lie within their bounds, in every header there is.

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::ids::{AccountId, RingNumber, Timestamp, VolumeId};

/// The newest format of a ring.
pub const RING_FORMAT: u16 = 1;
/// The clear header's bytes.
pub const RING_HEADER_BYTES: usize = 224;
/// The plain body's length is a multiple of this.
pub const RING_BODY_STEP: usize = 4096;
/// The longest plain body, in bytes; 4,096 entries and 64 stores at their longest take less.
pub const RING_BODY_BYTES_MAX: usize = 1 << 20;
/// The largest ring, in bytes.
pub const RING_BYTES_MAX: usize = RING_HEADER_BYTES + RING_BODY_BYTES_MAX + TAG_BYTES + HASH_BYTES;
/// The most keys in a ring.
pub const RING_ENTRIES_MAX: usize = 4096;
/// The most stores in a ring.
pub const RING_STORES_MAX: usize = 64;
/// The longest name of an entry, in bytes.
pub const RING_NAME_BYTES_MAX: usize = 64;
/// The longest URL of a store, in bytes.
pub const RING_URL_BYTES_MAX: usize = 2048;
/// The longest credentials of a store, in bytes.
pub const RING_CREDENTIALS_BYTES_MAX: usize = 4096;

const MAGIC: &[u8; 8] = b"COMBRING";
const TAG_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Volume, kind, key, the length of a name and one letter of it, added.
const ENTRY_BYTES_MIN: usize = 32 + 1 + 32 + 2 + 8;
/// The length of a URL and one letter of it, the length of the credentials.
const STORE_BYTES_MIN: usize = 2 + 1;

/// What Argon2id is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// How often the memory is gone over.
    pub passes: u32,
    /// In how many parts it is.
    pub lanes: u32,
}

impl Argon {
    /// The least that is accepted, and what a new ring gets.
    pub const MIN: Argon = Argon { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// The most that is accepted: a foreign object must not exhaust the machine that looks at it.
    pub const MAX: Argon = Argon { memory_kib: 256 << 10, passes: 12, lanes: 16 };

    fn check(&self) -> Result<(), DecodeError> {
        let (min, max) = (Self::MIN, Self::MAX);
        for (what, value, least, most) in [
            ("memory of Argon2id", self.memory_kib, min.memory_kib, max.memory_kib),
            ("passes of Argon2id", self.passes, min.passes, max.passes),
            ("lanes of Argon2id", self.lanes, min.lanes, max.lanes),
        ] {
            if value > most {
                return Err(DecodeError::TooLarge(what));
            }
            if value < least {
                return Err(DecodeError::Invalid(what));
            }
        }
        Ok(())
    }
}

/// The part in front of the encrypted body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingHeader {
    /// Whose ring it is.
    pub account: AccountId,
    /// Which version of it.
    pub number: RingNumber,
    /// How the passphrase becomes a key.
    pub argon: Argon,
    /// Makes that key unique.
    pub passphrase_salt: [u8; 32],
    /// The ring key, wrapped by the passphrase.
    pub by_passphrase: [u8; 48],
    /// The ring key, wrapped by the recovery kit.
    pub by_kit: [u8; 48],
    /// Makes the body's key unique.
    pub salt: [u8; 32],
}

impl RingHeader {
    /// The header's bytes, for a plain body of this length.
    pub fn encode(&self, body_bytes: usize) -> [u8; RING_HEADER_BYTES] {
        assert!(body_bytes <= RING_BODY_BYTES_MAX, "the body keeps its limits");
        let mut out = [0; RING_HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&RING_FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&((body_bytes + TAG_BYTES) as u32).to_le_bytes());
        out[16..32].copy_from_slice(&self.account.0);
        out[32..40].copy_from_slice(&self.number.0.to_le_bytes());
        out[40..44].copy_from_slice(&self.argon.memory_kib.to_le_bytes());
        out[44..48].copy_from_slice(&self.argon.passes.to_le_bytes());
        out[48..52].copy_from_slice(&self.argon.lanes.to_le_bytes());
        out[64..96].copy_from_slice(&self.passphrase_salt);
        out[96..144].copy_from_slice(&self.by_passphrase);
        out[144..192].copy_from_slice(&self.by_kit);
        out[192..].copy_from_slice(&self.salt);
        out
    }

    /// Reads what `encode` wrote, and how long the encrypted body is, its tag included.
    fn decode(bytes: &[u8; RING_HEADER_BYTES]) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.take(10)?;
        if reader.u16()? != 0 {
            return Err(DecodeError::Invalid("reserved bytes"));
        }
        let body_bytes = reader.u32()? as usize;
        if body_bytes > RING_BODY_BYTES_MAX + TAG_BYTES {
            return Err(DecodeError::TooLarge("key ring"));
        }
        if body_bytes <= TAG_BYTES || !(body_bytes - TAG_BYTES).is_multiple_of(RING_BODY_STEP) {
            return Err(DecodeError::Invalid("length of a key ring"));
        }
        let account = AccountId(reader.array()?);
        let number = RingNumber(reader.u64()?);
        if number.0 == 0 || number.0 > RING_NUMBER_MAX {
            return Err(DecodeError::Invalid("number of a key ring"));
        }
        let argon = Argon { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        argon.check()?;
        if reader.take(12)? != [0; 12] {
            return Err(DecodeError::Invalid("reserved bytes"));
        }
        let header = Self {
            account,
            number,
            argon,
            passphrase_salt: reader.array()?,
            by_passphrase: reader.array()?,
            by_kit: reader.array()?,
            salt: reader.array()?,
        };
        reader.finish()?;
        Ok((header, body_bytes))
    }

    /// What the object is called in a store.
    pub fn object_name(&self) -> String {
        ring_name(&self.account, self.number)
    }
}

/// What a version of an account's ring is called in a store.
pub fn ring_name(account: &AccountId, number: RingNumber) -> String {
    format!("{}{:016x}", ring_prefix(account), u64::MAX - number.0)
}

/// The largest number of a version: half of all, so that no sum with it is near the end.
pub const RING_NUMBER_MAX: u64 = (1 << 63) - 1;

/// Below this lie the versions of an account's ring in a store, the newest first.
pub fn ring_prefix(account: &AccountId) -> String {
    format!("k/{account}/")
}

/// What an object of this name must hold, if it is a version of a ring.
pub fn ring_of_name(name: &str) -> Option<(AccountId, RingNumber)> {
    let (account, number) = name.strip_prefix("k/")?.split_once('/')?;
    let account = AccountId::from_hex(account)?;
    if number.len() != 16 || !number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let number = u64::MAX - u64::from_str_radix(number, 16).ok()?;
    (1..=RING_NUMBER_MAX).contains(&number).then_some((account, RingNumber(number)))
}

/// A ring, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingObject<'a> {
    /// What stands in the clear.
    pub header: RingHeader,
    /// The header's bytes: the body's associated data.
    pub associated: &'a [u8; RING_HEADER_BYTES],
    /// The encrypted body.
    pub body: &'a [u8],
    /// Its tag.
    pub tag: &'a [u8; TAG_BYTES],
}

/// Splits a ring; needs no secret. The hash tells damage before anything else is believed.
pub fn open_ring(object: &[u8]) -> Result<RingObject<'_>, DecodeError> {
    if object.len() > RING_BYTES_MAX {
        return Err(DecodeError::TooLarge("key ring"));
    }
    let mut reader = Reader::new(object);
    if reader.take(8)? != MAGIC {
        return Err(DecodeError::Foreign("key ring"));
    }
    let Some((hashed, hash)) = object.split_last_chunk::<HASH_BYTES>() else {
        return Err(DecodeError::Truncated);
    };
    if blake3::hash(hashed).as_bytes() != hash {
        return Err(DecodeError::Damaged("hash of a key ring"));
    }
    let format = reader.u16()?;
    if format > RING_FORMAT {
        return Err(DecodeError::Newer { found: format.into(), supported: RING_FORMAT.into() });
    }
    if format == 0 {
        return Err(DecodeError::Invalid("format"));
    }
    let Some((associated, rest)) = hashed.split_first_chunk() else { return Err(DecodeError::Truncated) };
    let (header, body_bytes) = RingHeader::decode(associated)?;
    match rest.len().cmp(&body_bytes) {
        std::cmp::Ordering::Less => return Err(DecodeError::Truncated),
        std::cmp::Ordering::Greater => return Err(DecodeError::Trailing),
        std::cmp::Ordering::Equal => {}
    }
    let Some((body, tag)) = rest.split_last_chunk() else { return Err(DecodeError::Truncated) };
    Ok(RingObject { header, associated, body, tag })
}

/// The hash that ends a ring, of all before it.
pub fn ring_hash(before: &[u8]) -> [u8; HASH_BYTES] {
    *blake3::hash(before).as_bytes()
}

/// What a key in a ring allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RingKeyKind {
    /// A volume key: writes.
    Volume = 1,
    /// A read key: opens.
    Read = 2,
}

/// A key in a ring.
#[derive(Clone, Copy)]
pub struct RingEntry<'a> {
    /// The volume's public key.
    pub volume: VolumeId,
    /// What the key allows.
    pub kind: RingKeyKind,
    /// The key.
    pub key: &'a [u8; 32],
    /// What the volume is called.
    pub name: &'a str,
    /// When it was put into the ring.
    pub added: Timestamp,
}

/// A store in a ring.
#[derive(Clone, Copy)]
pub struct RingStore<'a> {
    /// Where it is.
    pub url: &'a str,
    /// What it asks for; may be empty.
    pub credentials: &'a str,
}

/// The plain body of a ring.
#[derive(Clone)]
pub struct RingBody<'a> {
    /// When this version was made.
    pub time: Timestamp,
    /// When the passphrase was set.
    pub passphrase: Timestamp,
    /// When the recovery kit was made; `Timestamp(0)` if there is none.
    pub kit: Timestamp,
    /// The seed of the owner's signing key.
    pub owner: &'a [u8; 32],
    /// The ring key before this one; zeros if there was none.
    pub before: &'a [u8; 32],
    /// In ascending order of volumes.
    pub entries: Vec<RingEntry<'a>>,
    /// In ascending order of URLs.
    pub stores: Vec<RingStore<'a>>,
}

/// Whether a ring can hold this as a name.
pub fn is_ring_name(name: &str) -> bool {
    is_text(name, RING_NAME_BYTES_MAX)
}

/// Whether a ring can hold this as a URL.
pub fn is_ring_url(url: &str) -> bool {
    is_text(url, RING_URL_BYTES_MAX)
}

fn is_text(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
}

impl<'a> RingBody<'a> {
    /// Appends the body with its padding. Room for [`RING_BODY_BYTES_MAX`] leaves no copies behind.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&self.time.0.to_le_bytes());
        out.extend_from_slice(&self.passphrase.0.to_le_bytes());
        out.extend_from_slice(&self.kit.0.to_le_bytes());
        out.extend_from_slice(self.owner);
        out.extend_from_slice(self.before);
        put_varint(out, self.entries.len() as u64);
        for entry in &self.entries {
            out.extend_from_slice(&entry.volume.0);
            out.push(entry.kind as u8);
            out.extend_from_slice(entry.key);
            put_bytes(out, entry.name.as_bytes());
            out.extend_from_slice(&entry.added.0.to_le_bytes());
        }
        put_varint(out, self.stores.len() as u64);
        for store in &self.stores {
            put_bytes(out, store.url.as_bytes());
            put_bytes(out, store.credentials.as_bytes());
        }
        out.resize(begin + (out.len() - begin).next_multiple_of(RING_BODY_STEP), 0);
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > RING_BODY_BYTES_MAX {
            return Err(DecodeError::TooLarge("key ring"));
        }
        let mut reader = Reader::new(bytes);
        let time = Timestamp(reader.i64()?);
        let passphrase = Timestamp(reader.i64()?);
        let kit = Timestamp(reader.i64()?);
        let owner = borrowed(&mut reader)?;
        let before = borrowed(&mut reader)?;

        let count = count(&mut reader, RING_ENTRIES_MAX, ENTRY_BYTES_MIN, "number of keys")?;
        let mut entries: Vec<RingEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let volume = VolumeId(reader.array()?);
            if entries.last().is_some_and(|before| before.volume >= volume) {
                return Err(DecodeError::Invalid("order of keys"));
            }
            let kind = match reader.u8()? {
                1 => RingKeyKind::Volume,
                2 => RingKeyKind::Read,
                _ => return Err(DecodeError::Invalid("kind of key")),
            };
            let key = borrowed(&mut reader)?;
            let name = text(reader.bytes(RING_NAME_BYTES_MAX, "name")?, "name")?;
            if !is_ring_name(name) {
                return Err(DecodeError::Invalid("name"));
            }
            entries.push(RingEntry { volume, kind, key, name, added: Timestamp(reader.i64()?) });
        }

        let count = self::count(&mut reader, RING_STORES_MAX, STORE_BYTES_MIN, "number of stores")?;
        let mut stores: Vec<RingStore> = Vec::with_capacity(count);
        for _ in 0..count {
            let url = text(reader.bytes(RING_URL_BYTES_MAX, "URL")?, "URL")?;
            if !is_ring_url(url) {
                return Err(DecodeError::Invalid("URL"));
            }
            if stores.last().is_some_and(|before| before.url >= url) {
                return Err(DecodeError::Invalid("order of stores"));
            }
            let credentials = text(reader.bytes(RING_CREDENTIALS_BYTES_MAX, "credentials")?, "credentials")?;
            stores.push(RingStore { url, credentials });
        }

        let padding = reader.take(reader.remaining())?;
        let length = (bytes.len() - padding.len()).next_multiple_of(RING_BODY_STEP);
        if bytes.len() != length || padding.iter().any(|&byte| byte != 0) {
            return Err(DecodeError::Invalid("padding"));
        }
        Ok(Self { time, passphrase, kit, owner, before, entries, stores })
    }
}

/// Thirty-two bytes where they lie: a key is not copied on its way.
fn borrowed<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8; 32], DecodeError> {
    Ok(reader.take(32)?.try_into().expect("take returns exactly 32 bytes"))
}

/// A number of values, each of which takes at least `bytes_min`.
fn count(
    reader: &mut Reader<'_>,
    max: usize,
    bytes_min: usize,
    what: &'static str,
) -> Result<usize, DecodeError> {
    let count = reader.varint()?;
    if count > max.min(reader.remaining() / bytes_min) as u64 {
        return Err(DecodeError::TooLarge(what));
    }
    Ok(count as usize)
}

fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid(what))
}

/// What stands before a device's wrapped ring key, and that key: the file `ring.key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRingKey {
    /// Whose ring it is.
    pub account: AccountId,
    /// Makes the wrapping key unique.
    pub salt: [u8; 32],
    /// The ring key, wrapped by the device's secret.
    pub wrapped: [u8; 48],
}

/// The bytes of `ring.key`.
pub const DEVICE_RING_KEY_BYTES: usize = 112;
const DEVICE_MAGIC: &[u8; 8] = b"COMBRKEY";

impl DeviceRingKey {
    /// The file's bytes.
    pub fn encode(&self) -> [u8; DEVICE_RING_KEY_BYTES] {
        let mut out = [0; DEVICE_RING_KEY_BYTES];
        out[..8].copy_from_slice(DEVICE_MAGIC);
        out[8..10].copy_from_slice(&RING_FORMAT.to_le_bytes());
        out[16..32].copy_from_slice(&self.account.0);
        out[32..64].copy_from_slice(&self.salt);
        out[64..].copy_from_slice(&self.wrapped);
        out
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.take(8)? != DEVICE_MAGIC {
            return Err(DecodeError::Foreign("key of a key ring"));
        }
        let format = reader.u16()?;
        if format > RING_FORMAT {
            return Err(DecodeError::Newer { found: format.into(), supported: RING_FORMAT.into() });
        }
        if format == 0 {
            return Err(DecodeError::Invalid("format"));
        }
        if reader.take(6)? != [0; 6] {
            return Err(DecodeError::Invalid("reserved bytes"));
        }
        let key =
            Self { account: AccountId(reader.array()?), salt: reader.array()?, wrapped: reader.array()? };
        reader.finish()?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RingHeader {
        RingHeader {
            account: AccountId([1; 16]),
            number: RingNumber(7),
            argon: Argon::MIN,
            passphrase_salt: [2; 32],
            by_passphrase: [3; 48],
            by_kit: [4; 48],
            salt: [5; 32],
        }
    }

    fn object() -> Vec<u8> {
        let mut object = header().encode(RING_BODY_STEP).to_vec();
        object.resize(RING_HEADER_BYTES + RING_BODY_STEP + TAG_BYTES, 9);
        object.extend_from_slice(&ring_hash(&object));
        object
    }

    /// With other bytes at a place, and a hash that matches them.
    fn changed(at: usize, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut object = object();
        object[at..at + bytes.len()].copy_from_slice(bytes);
        rehash(&mut object);
        open_ring(&object).map(|_| ())
    }

    fn rehash(object: &mut Vec<u8>) {
        object.truncate(object.len() - HASH_BYTES);
        object.extend_from_slice(&ring_hash(object));
    }

    #[test]
    fn a_ring_comes_back() {
        let object = object();
        let ring = open_ring(&object).expect("what was encoded");
        assert_eq!(ring.header, header());
        assert_eq!(ring.associated[..], object[..RING_HEADER_BYTES]);
        assert_eq!((ring.body.len(), ring.tag), (RING_BODY_STEP, &[9; TAG_BYTES]));
    }

    #[test]
    fn a_ring_with_any_byte_flipped_or_missing_is_refused() {
        let object = object();
        for at in 0..object.len() {
            let mut flipped = object.clone();
            flipped[at] ^= 0x10;
            let refused = open_ring(&flipped).expect_err("damage");
            let expected = match at {
                0..8 => DecodeError::Foreign("key ring"),
                _ => DecodeError::Damaged("hash of a key ring"),
            };
            assert_eq!(refused, expected, "byte {at}");
            assert!(open_ring(&object[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_no_writer_makes_is_refused_though_its_hash_is_right() {
        let number = |number: u32| number.to_le_bytes();
        let table: &[(usize, &[u8], DecodeError)] = &[
            (8, &[2, 0], DecodeError::Newer { found: 2, supported: 1 }),
            (8, &[0, 0], DecodeError::Invalid("format")),
            (10, &[1], DecodeError::Invalid("reserved bytes")),
            (63, &[1], DecodeError::Invalid("reserved bytes")),
            (12, &number(16), DecodeError::Invalid("length of a key ring")),
            (12, &number(0), DecodeError::Invalid("length of a key ring")),
            (12, &number(4096), DecodeError::Invalid("length of a key ring")),
            (12, &number(8192 + 16), DecodeError::Truncated),
            (12, &number(u32::MAX), DecodeError::TooLarge("key ring")),
            (32, &[0; 8], DecodeError::Invalid("number of a key ring")),
            (39, &[0x80], DecodeError::Invalid("number of a key ring")),
            (40, &number(65_535), DecodeError::Invalid("memory of Argon2id")),
            (40, &number(262_145), DecodeError::TooLarge("memory of Argon2id")),
            (40, &number(u32::MAX), DecodeError::TooLarge("memory of Argon2id")),
            (44, &number(2), DecodeError::Invalid("passes of Argon2id")),
            (44, &number(13), DecodeError::TooLarge("passes of Argon2id")),
            (48, &number(3), DecodeError::Invalid("lanes of Argon2id")),
            (48, &number(17), DecodeError::TooLarge("lanes of Argon2id")),
        ];
        for (at, bytes, expected) in table {
            assert_eq!(changed(*at, bytes), Err(expected.clone()), "{bytes:?} at {at}");
        }
        for (at, bytes) in [(40, number(262_144)), (44, number(12)), (48, number(16))] {
            assert_eq!(changed(at, &bytes), Ok(()));
        }
        let mut long = object();
        long.extend_from_slice(&[0; 16]);
        rehash(&mut long);
        assert_eq!(open_ring(&long), Err(DecodeError::Trailing));
        assert_eq!(open_ring(&vec![0; RING_BYTES_MAX + 1]), Err(DecodeError::TooLarge("key ring")));
    }

    #[test]
    fn the_newest_version_comes_first_in_a_listing() {
        let name = |number| RingHeader { number: RingNumber(number), ..header() }.object_name();
        assert_eq!(name(1), "k/01010101010101010101010101010101/fffffffffffffffe");
        let numbers = [1, 2, 16, 1 << 40, RING_NUMBER_MAX];
        assert!(numbers.windows(2).all(|pair| name(pair[0]) > name(pair[1])));
        for number in numbers {
            assert_eq!(ring_of_name(&name(number)), Some((header().account, RingNumber(number))));
        }
        let prefix = ring_prefix(&header().account);
        for rest in ["ffffffffffffffff", "0000000000000000", "FFFFFFFFFFFFFFFE", "fffe", "+ffffffffffffffe"] {
            assert_eq!(ring_of_name(&format!("{prefix}{rest}")), None, "{rest}");
        }
        assert_eq!(ring_of_name("v/01010101010101010101010101010101/fffffffffffffffe"), None);
    }

    fn entry(n: u8, name: &'static str) -> RingEntry<'static> {
        let kind = if n.is_multiple_of(2) { RingKeyKind::Read } else { RingKeyKind::Volume };
        RingEntry { volume: VolumeId([n; 32]), kind, key: &[7; 32], name, added: Timestamp(-5) }
    }

    fn body() -> RingBody<'static> {
        RingBody {
            time: Timestamp(5),
            passphrase: Timestamp(6),
            kit: Timestamp(0),
            owner: &[8; 32],
            before: &[9; 32],
            entries: vec![entry(1, "photos"), entry(2, "größe")],
            stores: vec![
                RingStore { url: "file:///nas", credentials: "" },
                RingStore { url: "s3://bucket", credentials: "key\nsecret" },
            ],
        }
    }

    fn encoded(body: &RingBody) -> Vec<u8> {
        let mut out = Vec::new();
        body.encode(&mut out);
        out
    }

    /// Why a body with this one change is refused.
    fn refused(change: impl FnOnce(&mut RingBody)) -> DecodeError {
        let mut body = body();
        change(&mut body);
        RingBody::decode(&encoded(&body)).map(|_| ()).expect_err("no writer makes it")
    }

    #[test]
    fn a_body_comes_back() {
        let empty = RingBody { entries: vec![], stores: vec![], ..body() };
        let many: Vec<_> = (0..200).map(|n| entry(n, "name")).collect();
        for body in [body(), empty, RingBody { entries: many, ..body() }] {
            let bytes = encoded(&body);
            assert!(bytes.len().is_multiple_of(RING_BODY_STEP));
            let again = RingBody::decode(&bytes).expect("what was encoded");
            assert_eq!(again.entries.len(), body.entries.len());
            assert!(encoded(&again) == bytes);
            for len in 0..bytes.len() {
                assert!(RingBody::decode(&bytes[..len]).is_err(), "cut at {len}");
            }
        }
    }

    #[test]
    fn a_body_is_these_bytes() {
        let bytes = encoded(&body());
        let mut expected = Vec::new();
        expected.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[6, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0; 8]);
        expected.extend_from_slice(&[8; 32]);
        expected.extend_from_slice(&[9; 32]);
        expected.push(2);
        expected.extend_from_slice(&[1; 33]);
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(b"\x06photos\xfb\xff\xff\xff\xff\xff\xff\xff");
        expected.extend_from_slice(&[2; 33]);
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(b"\x07gr\xc3\xb6\xc3\x9fe\xfb\xff\xff\xff\xff\xff\xff\xff");
        expected.extend_from_slice(b"\x02\x0bfile:///nas\x00\x0bs3://bucket\x0akey\nsecret");
        expected.resize(4096, 0);
        assert!(bytes == expected);
    }

    #[test]
    fn bodies_that_no_writer_makes_are_refused() {
        assert_eq!(refused(|body| body.entries.swap(0, 1)), DecodeError::Invalid("order of keys"));
        assert_eq!(refused(|body| body.entries[1] = body.entries[0]), DecodeError::Invalid("order of keys"));
        assert_eq!(refused(|body| body.stores.swap(0, 1)), DecodeError::Invalid("order of stores"));
        assert_eq!(refused(|body| body.entries[0].name = ""), DecodeError::Invalid("name"));
        assert_eq!(refused(|body| body.entries[0].name = "a\nb"), DecodeError::Invalid("name"));
        assert_eq!(refused(|body| body.stores[0].url = ""), DecodeError::Invalid("URL"));
        let long = "x".repeat(RING_NAME_BYTES_MAX + 1);
        let mut named = body();
        named.entries[0].name = &long;
        assert!(matches!(RingBody::decode(&encoded(&named)), Err(DecodeError::TooLarge("name"))));

        let mut bytes = encoded(&body());
        bytes[88] = 100;
        assert!(matches!(RingBody::decode(&bytes), Err(DecodeError::TooLarge("number of keys"))));
        let mut bytes = encoded(&body());
        bytes[89 + 32] = 3;
        assert!(matches!(RingBody::decode(&bytes), Err(DecodeError::Invalid("kind of key"))));
        let mut bytes = encoded(&body());
        *bytes.last_mut().expect("padding") = 1;
        assert!(matches!(RingBody::decode(&bytes), Err(DecodeError::Invalid("padding"))));
        let mut bytes = encoded(&body());
        bytes.resize(2 * RING_BODY_STEP, 0);
        assert!(matches!(RingBody::decode(&bytes), Err(DecodeError::Invalid("padding"))));
    }

    #[test]
    fn the_fullest_body_keeps_its_limit() {
        let name = "n".repeat(RING_NAME_BYTES_MAX);
        let urls: Vec<String> =
            (0..RING_STORES_MAX).map(|n| format!("{n:0width$}", width = RING_URL_BYTES_MAX)).collect();
        let credentials = "c".repeat(RING_CREDENTIALS_BYTES_MAX);
        let entries = (0..RING_ENTRIES_MAX).map(|n| {
            let mut volume = VolumeId([0; 32]);
            volume.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
            RingEntry { volume, name: &name, ..entry(1, "") }
        });
        let stores = urls.iter().map(|url| RingStore { url, credentials: &credentials });
        let bytes = encoded(&RingBody { entries: entries.collect(), stores: stores.collect(), ..body() });
        assert!(bytes.len() <= RING_BODY_BYTES_MAX, "{}", bytes.len());
        assert!(RingBody::decode(&bytes).is_ok());
    }

    #[test]
    fn a_devices_key_comes_back_and_what_no_writer_makes_is_refused() {
        let key = DeviceRingKey { account: AccountId([1; 16]), salt: [2; 32], wrapped: [3; 48] };
        let bytes = key.encode();
        assert_eq!(DeviceRingKey::decode(&bytes), Ok(key));
        for len in 0..bytes.len() {
            assert!(DeviceRingKey::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        let changed = |at: usize, byte: u8| {
            let mut bytes = bytes;
            bytes[at] = byte;
            DeviceRingKey::decode(&bytes).map(|_| ())
        };
        assert_eq!(changed(0, b'X'), Err(DecodeError::Foreign("key of a key ring")));
        assert_eq!(changed(8, 2), Err(DecodeError::Newer { found: 2, supported: 1 }));
        assert_eq!(changed(8, 0), Err(DecodeError::Invalid("format")));
        assert_eq!(changed(15, 1), Err(DecodeError::Invalid("reserved bytes")));
        let mut long = bytes.to_vec();
        long.push(0);
        assert_eq!(DeviceRingKey::decode(&long), Err(DecodeError::Trailing));
    }
}
