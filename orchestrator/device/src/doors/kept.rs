//! Room on a disk that is kept for what must be written though the disk is full.
//!
//! ```text
//! two halves of 256 KiB, each:  number u64 LE | length u64 LE | BLAKE3 of all that follows it here and of both | bytes
//! ```
//!
//! Invariants
//! - It is written in place, and takes no more room by that.
//! - What was written last but one stays until what is written now is whole: a torn half does not count.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Room for one version, in bytes.
const HALF_BYTES: usize = 256 << 10;
const HEADER_BYTES: usize = 8 + 8 + 32;

/// Makes the room, where it is not there whole.
pub fn keep(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let has = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if has >= 2 * HALF_BYTES {
        return Ok(());
    }
    // Written, not only reserved: then the blocks are there, and writing again takes no more.
    file.write_all_at(&vec![0; 2 * HALF_BYTES - has], has as u64)?;
    file.sync_all()
}

/// Writes a version with its number, durably, in the place of the older one of two.
pub fn write(path: &Path, number: u64, bytes: &[u8]) -> io::Result<()> {
    if HEADER_BYTES + bytes.len() > HALF_BYTES {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let newest = halves(&file).max_by_key(|(_, number, _)| *number);
    let at = newest.map_or(0, |(half, ..)| 1 - half);
    let mut all = number.to_le_bytes().to_vec();
    all.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    all.extend_from_slice(hash(number, bytes).as_bytes());
    all.extend_from_slice(bytes);
    file.write_all_at(&all, (at * HALF_BYTES) as u64)?;
    file.sync_data()
}

/// The newest version that is whole, with its number.
pub fn read(path: &Path) -> Option<(u64, Vec<u8>)> {
    let file = File::open(path).ok()?;
    let newest = halves(&file).max_by_key(|(_, number, _)| *number);
    newest.map(|(_, number, bytes)| (number, bytes))
}

fn hash(number: u64, bytes: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    hasher.finalize()
}

/// Those halves that are whole: which, its number, its bytes.
fn halves(file: &File) -> impl Iterator<Item = (usize, u64, Vec<u8>)> {
    (0..2).filter_map(|half| {
        let mut all = vec![0; HALF_BYTES];
        file.read_exact_at(&mut all, (half * HALF_BYTES) as u64).ok()?;
        let number = u64::from_le_bytes(all[..8].try_into().ok()?);
        let len = usize::try_from(u64::from_le_bytes(all[8..16].try_into().ok()?)).ok()?;
        let bytes = all.get(HEADER_BYTES..HEADER_BYTES.checked_add(len)?)?;
        (*hash(number, bytes).as_bytes() == all[16..HEADER_BYTES]).then(|| (half, number, bytes.to_vec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_version_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kept");
        assert_eq!(read(&path), None);
        assert!(write(&path, 1, b"nowhere").is_err(), "room is kept before it is needed");
        keep(&path).expect("made");
        assert_eq!(read(&path), None);
        for number in 1..=5 {
            write(&path, number, format!("version {number}").as_bytes()).expect("written");
            assert_eq!(read(&path), Some((number, format!("version {number}").into_bytes())));
        }
        // The fifth lies in the first half.
        let file = OpenOptions::new().write(true).open(&path).expect("there");
        file.write_all_at(b"x", 50).expect("written");
        assert_eq!(read(&path), Some((4, b"version 4".to_vec())));
        write(&path, 6, b"version 6").expect("written");
        assert_eq!(read(&path), Some((6, b"version 6".to_vec())));
        assert_eq!(file.metadata().expect("there").len(), 2 * HALF_BYTES as u64);
        assert!(write(&path, 7, &vec![0; HALF_BYTES]).is_err(), "more than there is room for");
        keep(&path).expect("there");
        assert_eq!(read(&path).map(|(number, _)| number), Some(6));
    }
}
