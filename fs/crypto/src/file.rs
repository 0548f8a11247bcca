//! A key in a file: a volume key, or a read key with the volume that it opens.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_format::VolumeId;
use zeroize::Zeroizing;

use crate::keys::{KeyError, ReadKey, VolumeKey};

/// The text form of a stored volume key: three lines, so that damage and newer versions are told apart.
///
/// ```text
/// comb volume key 1
/// <base64 of the seed>
/// <base64 of 16 bytes of BLAKE3 over the two lines before, newlines included>
/// ```
pub struct KeyFile;

/// The text form of a read key: the same with a line more, since a read key does not say what it opens.
///
/// ```text
/// comb read key 1
/// <public key of the volume, 64 hexadecimal digits>
/// <base64 of the read key>
/// <base64 of 16 bytes of BLAKE3 over the three lines before, newlines included>
/// ```
pub struct ReadKeyFile;

const TITLE: &str = "comb volume key ";
const READ_TITLE: &str = "comb read key ";
/// More than the lines of either take.
const TEXT_BYTES_MAX: usize = 192;
/// How much of a foreign version number an error repeats.
const VERSION_CHARS_MAX: usize = 16;

impl KeyFile {
    /// The file's text.
    pub fn encode(key: &VolumeKey) -> Zeroizing<String> {
        written(TITLE, &[&key.to_base64()])
    }

    /// Reads a key file, or a bare base64 seed as the seed documents show it.
    pub fn decode(text: &str) -> Result<VolumeKey, KeyError> {
        // A file of ours whose title was damaged has more lines than a seed, and is refused as one.
        match checked(text, TITLE)? {
            None => VolumeKey::from_base64(text),
            Some([seed]) => VolumeKey::from_base64(seed),
        }
    }
}

impl ReadKeyFile {
    /// The file's text.
    pub fn encode(volume: &VolumeId, key: &ReadKey) -> Zeroizing<String> {
        written(READ_TITLE, &[&volume.to_hex(), &key.to_base64()])
    }

    /// Reads such a file; none if it is another one.
    pub fn decode(text: &str) -> Result<Option<(VolumeId, ReadKey)>, KeyError> {
        let Some([volume, key]) = checked(text, READ_TITLE)? else { return Ok(None) };
        let volume = VolumeId::from_hex(volume).ok_or(KeyError::Damaged)?;
        Ok(Some((volume, ReadKey::from_base64(key)?)))
    }
}

/// Title and version, these lines, and a checksum of them.
fn written(title: &str, lines: &[&str]) -> Zeroizing<String> {
    // Room for all of it: a string that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
    text.push_str(title);
    text.push_str("1\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let check = checksum(&text);
    text.push_str(&check);
    text.push('\n');
    text
}

/// The lines between the title and the checksum; none if the text begins with something else.
fn checked<'a, const N: usize>(text: &'a str, title: &str) -> Result<Option<[&'a str; N]>, KeyError> {
    let Some(rest) = text.strip_prefix(title) else { return Ok(None) };
    // The last line checks those before it in every version, so a damaged number is not taken for a newer one.
    let Some((body, check)) = split_last_line(text) else { return Err(KeyError::Damaged) };
    if checksum(body) != check {
        return Err(KeyError::Damaged);
    }
    let mut lines = rest[..body.len() - title.len()].lines();
    match lines.next() {
        Some("1") => {
            let lines: Vec<&str> = lines.collect();
            lines.try_into().map(Some).map_err(|_| KeyError::Damaged)
        }
        None => Err(KeyError::Damaged),
        Some(version) => Err(KeyError::Newer(version.chars().take(VERSION_CHARS_MAX).collect())),
    }
}

/// Splits off the last line; the text must end where that line ends.
fn split_last_line(text: &str) -> Option<(&str, &str)> {
    let lines = text.strip_suffix('\n')?;
    let end = lines.rfind('\n')? + 1;
    Some((&text[..end], &lines[end..]))
}

/// Not a secret's guard: it tells damage from a wrong key, nothing more.
fn checksum(body: &str) -> String {
    STANDARD.encode(&blake3::hash(body.as_bytes()).as_bytes()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "sETuhFwbQf9NJVAEOhu/QFhhhmKxY+f4VNFrO2IowGk=";

    fn key() -> VolumeKey {
        VolumeKey::from_base64(SEED).expect("the seed documents' key")
    }

    #[test]
    fn a_key_file_is_these_bytes() {
        let text = KeyFile::encode(&key());
        assert_eq!(*text, format!("comb volume key 1\n{SEED}\nyUkingBbZLKlRGTC0JmPdA==\n"));
        assert_eq!(KeyFile::decode(&text).map(|key| key.id()), Ok(key().id()));
        assert!(text.len() <= TEXT_BYTES_MAX, "it never grew, so no copy of the seed is left");
    }

    #[test]
    fn a_read_key_file_says_which_volume_it_opens() {
        let (volume, read) = (key().id(), key().read_key());
        let text = ReadKeyFile::encode(&volume, &read);
        assert!(text.len() <= TEXT_BYTES_MAX, "it never grew");
        assert!(text.starts_with(&format!("comb read key 1\n{}\n", volume.to_hex())), "{}", *text);
        let (opened, back) = ReadKeyFile::decode(&text).expect("whole").expect("a read key");
        assert_eq!((opened, back.to_bytes()), (volume, read.to_bytes()));
        assert!(matches!(ReadKeyFile::decode(&KeyFile::encode(&key())), Ok(None)), "a volume key is none");
        assert_eq!(
            KeyFile::decode(&text).map(|key| key.id()),
            Err(KeyError::NotAKey),
            "and it is no volume key"
        );
        for bit in READ_TITLE.len() * 8..text.len() * 8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(flipped) = std::str::from_utf8(&bytes) else { continue };
            assert!(matches!(ReadKeyFile::decode(flipped), Err(KeyError::Damaged)), "bit {bit}");
        }
        for len in READ_TITLE.len()..text.len() {
            assert!(ReadKeyFile::decode(&text[..len]).is_err(), "the first {len} bytes");
        }
    }

    #[test]
    fn a_bare_seed_is_a_key_file_too() {
        for text in [SEED.to_string(), format!("{SEED}\n"), format!("  {SEED} \r\n")] {
            assert_eq!(KeyFile::decode(&text).map(|key| key.id()), Ok(key().id()));
        }
    }

    #[test]
    fn a_key_file_with_any_bit_flipped_is_refused() {
        let text = KeyFile::encode(&key());
        for bit in 0..text.len() * 8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // What is no text at all is refused by whoever reads the file.
            let Ok(flipped) = std::str::from_utf8(&bytes) else { continue };
            let refused = KeyFile::decode(flipped).expect_err("damage");
            let expected = if bit / 8 < TITLE.len() { KeyError::NotAKey } else { KeyError::Damaged };
            assert_eq!(refused, expected, "bit {bit}");
        }
    }

    #[test]
    fn a_key_file_cut_anywhere_is_refused() {
        let text = KeyFile::encode(&key());
        for len in 0..text.len() {
            assert!(KeyFile::decode(&text[..len]).is_err(), "the first {len} bytes");
        }
        assert!(KeyFile::decode(&format!("{}{SEED}\n", text.as_str())).is_err());
    }

    #[test]
    fn a_newer_key_file_is_told_from_a_damaged_one() {
        // What the next version may look like: other lines, the last checks those before it.
        let newer = format!("comb volume key 2\n{SEED}\nnn5WXDP4gXwTUcFhjAOWuQ==\n");
        assert_eq!(KeyFile::decode(&newer).err(), Some(KeyError::Newer("2".into())));
        let damaged = newer.replace("nn5W", "nn6W");
        assert_eq!(KeyFile::decode(&damaged).err(), Some(KeyError::Damaged));
    }
}
