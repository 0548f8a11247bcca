//! A volume key in a file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::keys::{KeyError, VolumeKey};

/// The text form of a stored volume key: three lines, so that damage and newer versions are told apart.
///
/// ```text
/// comb volume key 1
/// <base64 of the seed>
/// <base64 of 16 bytes of BLAKE3 over the two lines before, newlines included>
/// ```
pub struct KeyFile;

const TITLE: &str = "comb volume key ";

impl KeyFile {
    /// The file's text.
    pub fn encode(key: &VolumeKey) -> Zeroizing<String> {
        let body = Zeroizing::new(format!("{TITLE}1\n{}\n", key.to_base64().as_str()));
        Zeroizing::new(format!("{}{}\n", body.as_str(), checksum(&body)))
    }

    /// Reads a key file, or a bare base64 seed as the seed documents show it.
    pub fn decode(text: &str) -> Result<VolumeKey, KeyError> {
        let Some(rest) = text.strip_prefix(TITLE) else {
            // A file of ours whose first bytes were damaged is no seed either.
            return VolumeKey::from_base64(text);
        };
        let mut lines = rest.lines();
        let version = lines.next().unwrap_or_default();
        if version != "1" {
            let newer =
                !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()) && version != "0";
            return Err(if newer { KeyError::Newer(version.into()) } else { KeyError::Damaged });
        }
        let (Some(seed), Some(check), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(KeyError::Damaged);
        };
        let body = Zeroizing::new(format!("{TITLE}1\n{seed}\n"));
        if checksum(&body) != check || !text.ends_with('\n') {
            return Err(KeyError::Damaged);
        }
        VolumeKey::from_base64(seed)
    }
}

fn checksum(body: &str) -> String {
    STANDARD.encode(&blake3::hash(body.as_bytes()).as_bytes()[..16])
}
