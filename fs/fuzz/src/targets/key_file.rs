//! A key file, or a bare key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_crypto::{KeyError, KeyFile, VolumeKey};

use crate::outcome::{Outcome, judge};

pub fn run(input: &[u8]) -> Outcome {
    // What is no text is refused by whoever reads the file.
    let text = std::str::from_utf8(input);
    judge(
        input,
        || text.map_err(|_| KeyError::NotAKey).and_then(KeyFile::decode),
        |key| {
            let text = text.map_err(|error| error.to_string())?;
            // One key has one spelling; only the space around it is free.
            let spelling = key.to_base64();
            if !text.lines().any(|line| line.trim() == spelling.as_str()) && text.trim() != spelling.as_str()
            {
                return Err("a key that the text does not spell".into());
            }
            match KeyFile::decode(&KeyFile::encode(key)) {
                Ok(again) if again.to_base64() == spelling => Ok(u64::from(text.trim() == spelling.as_str())),
                _ => Err("a key that does not come back".into()),
            }
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    [[0; 32], [7; 32], [0xff; 32]]
        .map(VolumeKey::from_seed)
        .iter()
        .flat_map(|key| [KeyFile::encode(key).as_bytes().to_vec(), key.to_base64().as_bytes().to_vec()])
        .collect()
}

/// Writes the checksum of the lines before it as the last line.
pub fn repair(input: &mut Vec<u8>) {
    let lines = input.strip_suffix(b"\n").unwrap_or(input);
    let Some(end) = lines.iter().rposition(|&byte| byte == b'\n') else { return };
    input.truncate(end + 1);
    let check = STANDARD.encode(&blake3::hash(input).as_bytes()[..16]);
    input.extend_from_slice(check.as_bytes());
    input.push(b'\n');
}
