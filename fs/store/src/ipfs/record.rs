//! IPNS records: the signed statement where the head of an index is (specs.ipfs.tech/ipns/ipns-record).
//!
//! Invariants
//! - What is read was signed: nothing of a record is looked at before its signature.
//! - Only version 2 is made; of older fields beside it, only that they say the same is believed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::cid::Cid;
use super::wire::{Field, put_bytes, take_field};
use crate::HeadKey;

/// The largest record that a node must take.
pub(super) const RECORD_BYTES_MAX: usize = 10 << 10;
/// How long a record is valid; a node of the network keeps it for 48 hours.
pub(super) const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// For how long others may use it without a look for a newer one.
const TTL: Duration = Duration::from_secs(60);

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// The root of the index.
    pub(super) root: Cid,
    /// Which of the records is newer.
    pub(super) sequence: u64,
    /// When it ends, in seconds since 1970.
    pub(super) until: u64,
}

/// Why a record is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    /// It is larger than a record may be.
    #[error("the record has more than {RECORD_BYTES_MAX} bytes")]
    Large,
    /// It cannot be read.
    #[error("the record cannot be read")]
    Odd,
    /// Its signature is not the volume's.
    #[error("the record is not signed by the volume's key")]
    Signature,
    /// It leads to what is no index of ours.
    #[error("the record leads elsewhere than to a block of IPFS")]
    Elsewhere,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Record {
    /// The signed record; nothing if that key cannot sign.
    pub(super) fn sign(&self, key: &dyn HeadKey) -> Option<Vec<u8>> {
        let data = self.data();
        let signature = key.sign(&data)?;
        let mut record = Vec::new();
        put_bytes(&mut record, 8, &signature);
        put_bytes(&mut record, 9, &data);
        Some(record)
    }

    /// Checks a record and reads it; whether it has ended is for the caller to say.
    pub(super) fn open(record: &[u8], key: &dyn HeadKey) -> Result<Record, BadRecord> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(BadRecord::Large);
        }
        let (mut signature, mut data, mut older) = (None, None, Vec::new());
        let mut rest = record;
        while !rest.is_empty() {
            match take_field(&mut rest).ok_or(BadRecord::Odd)? {
                (8, Field::Bytes(bytes)) => signature = <&[u8; 64]>::try_from(bytes).ok(),
                (9, Field::Bytes(bytes)) => data = Some(bytes),
                // The older signature proves nothing, and the key stands in the name.
                (2 | 7, _) => {}
                other => older.push(other),
            }
        }
        let data = data.ok_or(BadRecord::Odd)?;
        if !signature.is_some_and(|signature| key.is_signed(data, signature)) {
            return Err(BadRecord::Signature);
        }
        let fields = Fields::read(data).ok_or(BadRecord::Odd)?;
        let same = |field: &(u64, Field<'_>)| match *field {
            (1, Field::Bytes(value)) => value == fields.value,
            (3, Field::Number(kind)) => kind == 0,
            (4, Field::Bytes(validity)) => validity == fields.validity,
            (5, Field::Number(sequence)) => sequence == fields.sequence,
            (6, Field::Number(ttl)) => ttl == fields.ttl,
            _ => true,
        };
        if !older.iter().all(same) {
            return Err(BadRecord::Odd);
        }
        let value = std::str::from_utf8(fields.value).ok().and_then(|value| value.strip_prefix("/ipfs/"));
        let root = value.and_then(Cid::parse).ok_or(BadRecord::Elsewhere)?;
        let until = read_time(fields.validity).ok_or(BadRecord::Odd)?;
        Ok(Record { root, sequence: fields.sequence, until })
    }

    /// The map that is signed, in DAG-CBOR: keys by length, then by letters.
    fn data(&self) -> Vec<u8> {
        let mut data = vec![0xa5];
        put_text(&mut data, "TTL");
        put_head(&mut data, 0, TTL.as_nanos() as u64);
        put_text(&mut data, "Value");
        put_byte_string(&mut data, format!("/ipfs/{}", self.root).as_bytes());
        put_text(&mut data, "Sequence");
        put_head(&mut data, 0, self.sequence);
        put_text(&mut data, "Validity");
        put_byte_string(&mut data, time(self.until).as_bytes());
        put_text(&mut data, "ValidityType");
        put_head(&mut data, 0, 0);
        data
    }
}

/// The fields that a record must have.
struct Fields<'a> {
    value: &'a [u8],
    validity: &'a [u8],
    sequence: u64,
    ttl: u64,
}

impl<'a> Fields<'a> {
    /// Reads the map; fields that others may add are passed if they are as simple as these.
    fn read(mut rest: &'a [u8]) -> Option<Fields<'a>> {
        let (5, number) = take_head(&mut rest)? else { return None };
        let (mut value, mut validity, mut sequence, mut ttl, mut kind) = (None, None, None, None, None);
        for _ in 0..number {
            let (3, length) = take_head(&mut rest)? else { return None };
            let key = take(&mut rest, length)?;
            let (major, argument) = take_head(&mut rest)?;
            let bytes = match major {
                0 | 1 => &[][..],
                2 | 3 => take(&mut rest, argument)?,
                _ => return None,
            };
            match (key, major) {
                (b"Value", 2) => value = Some(bytes),
                (b"Validity", 2) => validity = Some(bytes),
                (b"Sequence", 0) => sequence = Some(argument),
                (b"TTL", 0) => ttl = Some(argument),
                (b"ValidityType", 0) => kind = Some(argument),
                _ => {}
            }
        }
        let fields = Fields { value: value?, validity: validity?, sequence: sequence?, ttl: ttl? };
        (rest.is_empty() && kind == Some(0)).then_some(fields)
    }
}

/// Appends the first bytes of an item of CBOR: what it is, and a number in its shortest form.
fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..24 => out.push(major | value as u8),
        24..0x100 => out.extend([major | 24, value as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend((value as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend((value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(value.to_be_bytes());
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_byte_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, 2, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(bytes)
}

fn take_head(rest: &mut &[u8]) -> Option<(u8, u64)> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    let more = match first & 31 {
        small @ 0..24 => return Some((first >> 5, u64::from(small))),
        size @ 24..28 => 1 << (size - 24),
        _ => return None,
    };
    let bytes = take(rest, more)?;
    Some((first >> 5, bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))))
}

/// A time as records have it, as in `1970-01-01T00:00:00.000000000Z`.
fn time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days in eras of 400 years that begin in March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * part + 2) / 5 + 1, if part < 10 { part + 3 } else { part - 9 });
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000000000Z")
}

/// Reads such a time, to the second. One before 1970 is over, like 1970.
fn read_time(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (date, clock) = text.split_once('T')?;
    let clock = clock.split('.').next()?;
    let numbers = |text: &str, by: char| {
        let parts: Option<Vec<u64>> = text
            .split(by)
            .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten())
            .collect();
        <[u64; 3]>::try_from(parts?).ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let sane = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !sane {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let year_of_era = year % 400;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (year / 400 * 146_097 + day_of_era).saturating_sub(719_468);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::super::cid::{Codec, ipns_name};
    use super::super::tests::Key;
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
            .collect()
    }

    fn root() -> Cid {
        Cid::of(Codec::DagPb, b"\x0a\x02\x08\x01")
    }

    /// Made by the package `ipns` 10.1.6 (JavaScript) with the key of 32 bytes 7.
    const VECTOR: &str = "42403654fc7c818e10415ec55abd4ed5c1f277687755b6c48422b58a73dde2977e34bf73914daae7c798bb14\
        bc66be30c991d1f88cd5143c39ced084f5cf31b36c004a9801a56354544c1b0000000df84758006556616c756558412f697066\
        732f62616679626569637a73736364736273376666717a3535617371646633736d76366b6c637733676f66737a76776c7961726\
        36934376267663335346853657175656e6365036856616c6964697479581e323132362d31302d32385431373a32383a33392e30\
        32343030303030305a6c56616c69646974795479706500";

    #[test]
    fn a_record_of_others_is_read() {
        let vector = bytes(&VECTOR.replace(' ', ""));
        let record = Record::open(&vector, &Key(7, true)).expect("read");
        assert_eq!((record.root, record.sequence), (root(), 3));
        assert_eq!(time(record.until), "2126-10-28T17:28:39.000000000Z");
        assert_eq!(
            ipns_name(&Key(7, true).public()),
            "k51qzi5uqu5dm0t4vbwri4lkg76q03b4x9tsvekgvbu4zli6454ff7w8wdosa4"
        );
    }

    #[test]
    fn a_record_is_made_as_others_make_it() {
        let vector = bytes(&VECTOR.replace(' ', ""));
        let mut record = Record::open(&vector, &Key(7, true)).expect("read");
        let made = record.sign(&Key(7, true)).expect("signed");
        assert_eq!(Record::open(&made, &Key(7, true)), Ok(record));
        // But for the nanoseconds of its end, and so its signature, it is the same.
        let (at, end) = (made.len() - 24, made.len() - 14);
        assert_eq!(made[66..at], vector[66..at]);
        assert_eq!(made[end..], vector[end..]);
        record.sequence = u64::MAX;
        let made = record.sign(&Key(7, true)).expect("signed");
        assert_eq!(Record::open(&made, &Key(7, true)), Ok(record));
    }

    #[test]
    fn what_is_not_signed_so_is_refused() {
        let record = Record { root: root(), sequence: 300, until: now() + 60 };
        let made = record.sign(&Key(1, true)).expect("signed");
        assert_eq!(Record::open(&made, &Key(2, true)), Err(BadRecord::Signature));
        for at in 0..made.len() {
            for bit in 0..8 {
                let mut flipped = made.clone();
                flipped[at] ^= 1 << bit;
                assert!(Record::open(&flipped, &Key(1, true)).is_err(), "bit {bit} of byte {at}");
            }
        }
        for cut in 0..made.len() {
            assert!(Record::open(&made[..cut], &Key(1, true)).is_err(), "{cut}");
        }
        assert_eq!(Record::open(&vec![0; RECORD_BYTES_MAX + 1], &Key(1, true)), Err(BadRecord::Large));
        // Older fields beside it must say the same.
        let beside = |field: u8, value: u64| {
            let mut record = made.clone();
            super::super::wire::put_number(&mut record, field, value);
            Record::open(&record, &Key(1, true))
        };
        assert_eq!(beside(5, 300), Ok(record));
        assert_eq!(beside(5, 301), Err(BadRecord::Odd));
    }

    #[test]
    fn times_are_written_and_read() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000000Z"),
            (1_795_274_800, "2026-11-21T15:26:40.000000000Z"),
            (4_102_444_800, "2100-01-01T00:00:00.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(time(seconds), text);
            assert_eq!(read_time(text.as_bytes()), Some(seconds), "{text}");
        }
        assert_eq!(read_time(b"1970-01-01T00:00:01Z"), Some(1));
        for odd in
            ["", "Z", "1970-01-01", "1970-13-01T00:00:00Z", "1970-01-01T24:00:00Z", "-1-01-01T00:00:00Z"]
        {
            assert_eq!(read_time(odd.as_bytes()), None, "{odd}");
        }
    }
}
