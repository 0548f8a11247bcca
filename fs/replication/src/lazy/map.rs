//! The two files of a pack that is not whole: its windows, each in its place, and the map that says which are here.
//!
//! `fs/docs/replication.md`, section 6, draws the map. Neither file is synced: a window counts only if it has the sum
//! that the map says, so what a crash leaves of either is a window that is not here.
//!
//! The sum is the window's part of the tree of hashes by which BLAKE3 names the pack: when all windows are here, their
//! sums make the name, and nothing is read again. So only one process writes them, who holds a lock on the first:
//! others read past them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use fs_format::PackId;
use fs_format::pack::PACK_BYTES_MAX;

use super::{WINDOW_BYTES, WINDOWS};

const MAGIC: &[u8; 8] = b"COMBWIND";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 32;
const LINE_BYTES: usize = 40;
/// Windows of the largest pack.
const LINES_MAX: usize = (PACK_BYTES_MAX / WINDOW_BYTES) as usize;

/// What the map says of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// How many of its bytes are here, from its first on.
    pub len: u32,
    /// Their part of the pack's hash.
    pub sum: ChainingValue,
}

impl Line {
    /// The line of a window with these bytes.
    pub fn of(window: usize, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(window as u64 * WINDOW_BYTES);
        let sum = hasher.update(bytes).finalize_non_root();
        Self { len: bytes.len() as u32, sum }
    }
}

/// The name of a pack with these windows, if it has more than one.
pub fn name(lines: &[Line]) -> Option<PackId> {
    let (left, right) = halves(lines)?;
    let hash = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    Some(PackId(*hash.as_bytes()))
}

fn subtree(lines: &[Line]) -> ChainingValue {
    match halves(lines) {
        None => lines[0].sum,
        Some((left, right)) => merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash),
    }
}

/// As BLAKE3 splits: on the left as many as a power of two has, and on the right at least one.
fn halves(lines: &[Line]) -> Option<(&[Line], &[Line])> {
    (lines.len() > 1).then(|| lines.split_at(lines.len().next_power_of_two() / 2))
}

/// The files of a pack that is not whole.
#[derive(Debug)]
pub struct Files {
    /// The windows, each in its place.
    pub pack: File,
    map: File,
}

fn pack_path(folder: &Path, id: &PackId) -> PathBuf {
    folder.join(WINDOWS).join(id.to_hex())
}

fn map_path(folder: &Path, id: &PackId) -> PathBuf {
    folder.join(WINDOWS).join(format!("{id}.map"))
}

/// What is here of a pack: its files, its length if that is known, and the lines of its windows.
pub type Kept = (Files, Option<u64>, Vec<Option<Line>>);

impl Files {
    /// Makes the files, or opens those that are there; `WouldBlock` if another process has them.
    pub fn make(folder: &Path, id: &PackId) -> io::Result<Files> {
        let open = |path: &Path| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
        };
        let pack = open(&pack_path(folder, id))?;
        pack.try_lock()?;
        Ok(Files { pack, map: open(&map_path(folder, id))? })
    }

    /// What an earlier run left; `None` if there is nothing. `WouldBlock` if another process has it.
    pub fn find(folder: &Path, id: &PackId) -> io::Result<Option<Kept>> {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let (pack, map) = match (open(&pack_path(folder, id)), open(&map_path(folder, id))) {
            (Err(error), _) | (_, Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(None),
            (pack, map) => (pack?, map?),
        };
        pack.try_lock()?;
        let len = map.metadata()?.len().min((HEADER_BYTES + LINES_MAX * LINE_BYTES) as u64) as usize;
        let mut bytes = vec![0; len];
        map.read_exact_at(&mut bytes, 0)?;
        let (pack_bytes, lines) = decode(&bytes);
        Ok(Some((Files { pack, map }, pack_bytes, lines)))
    }

    /// Writes down how long the pack is, and makes room for it in the file, not on the disk.
    pub fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.pack.set_len(bytes)?;
        self.map.write_all_at(&encode_header(bytes), 0)
    }

    /// Puts bytes that begin with the window `first` in their place; returns their lines.
    pub fn put(&self, first: usize, bytes: &[u8]) -> io::Result<Vec<Line>> {
        self.pack.write_all_at(bytes, first as u64 * WINDOW_BYTES)?;
        let windows = bytes.chunks(WINDOW_BYTES as usize).enumerate();
        let lines: Vec<Line> = windows.map(|(index, bytes)| Line::of(first + index, bytes)).collect();
        let encoded: Vec<u8> = lines.iter().flat_map(|line| encode_line(Some(*line))).collect();
        self.map.write_all_at(&encoded, (HEADER_BYTES + first * LINE_BYTES) as u64)?;
        Ok(lines)
    }

    /// Strikes windows out.
    pub fn forget(&self, first: usize, count: usize) -> io::Result<()> {
        let lines: Vec<u8> = (0..count).flat_map(|_| encode_line(None)).collect();
        self.map.write_all_at(&lines, (HEADER_BYTES + first * LINE_BYTES) as u64)
    }

    /// Whether a window is what its line says.
    pub fn proves(&self, window: usize, line: Line) -> bool {
        let mut bytes = vec![0; line.len as usize];
        self.pack.read_exact_at(&mut bytes, window as u64 * WINDOW_BYTES).is_ok()
            && Line::of(window, &bytes) == line
    }

    /// Gives the pack its place among those that are whole.
    pub fn promote(&self, folder: &Path, id: &PackId) -> io::Result<()> {
        // A pack that has its name is believed to be whole, so it is before it gets it.
        self.pack.sync_data()?;
        let to = folder.join("packs").join(id.to_hex());
        match fs::rename(pack_path(folder, id), &to) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::NotFound && to.exists() => {}
            other => other?,
        }
        match fs::remove_file(map_path(folder, id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Removes both files of a pack that nobody has; returns whether they are gone.
pub fn remove(folder: &Path, id: &PackId) -> io::Result<bool> {
    let path = pack_path(folder, id);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => return Ok(false),
        locked => locked?,
    }
    // A map alone says nothing: whoever makes the other file anew finds windows that have not its sums.
    fs::remove_file(&path)?;
    match fs::remove_file(map_path(folder, id)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}

fn encode_header(bytes: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&bytes.to_le_bytes());
    let sum = blake3::hash(&header[..24]);
    header[24..].copy_from_slice(&sum.as_bytes()[..8]);
    header
}

fn encode_line(line: Option<Line>) -> [u8; LINE_BYTES] {
    let mut out = [0; LINE_BYTES];
    if let Some(line) = line {
        out[..32].copy_from_slice(&line.sum);
        out[32..36].copy_from_slice(&line.len.to_le_bytes());
    }
    out
}

/// What a map says. Whatever it says is only tried: a wrong length is none, a wrong line is that of no window.
fn decode(bytes: &[u8]) -> (Option<u64>, Vec<Option<Line>>) {
    let Some((header, lines)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return (None, Vec::new()) };
    let pack_bytes = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
    let is_known = *header == encode_header(pack_bytes) && (1..=PACK_BYTES_MAX).contains(&pack_bytes);
    let line = |line: &[u8]| {
        let len = u32::from_le_bytes(line[32..36].try_into().expect("four bytes"));
        let line = Line { len, sum: line[..32].try_into().expect("a sum") };
        (1..=WINDOW_BYTES as u32).contains(&len).then_some(line)
    };
    (is_known.then_some(pack_bytes), lines.chunks_exact(LINE_BYTES).take(LINES_MAX).map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_all_windows_make_the_name() {
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 251) as u8).collect();
        let window = WINDOW_BYTES as usize;
        for len in [window + 1, 2 * window, 3 * window - 7, 7 * window, 8 * window, 9 * window + 1, 2_000_000]
        {
            let windows = bytes[..len].chunks(window).enumerate();
            let lines: Vec<Line> = windows.map(|(index, bytes)| Line::of(index, bytes)).collect();
            let whole = PackId(*blake3::hash(&bytes[..len]).as_bytes());
            assert_eq!(name(&lines), Some(whole), "{len}");
        }
        assert_eq!(name(&[Line::of(0, b"one")]), None);
    }

    #[test]
    fn a_map_says_what_was_written_and_survives_anything() {
        let line = Line { len: 65_536, sum: [7; 32] };
        let mut map = encode_header(100_000).to_vec();
        map.extend(encode_line(Some(line)));
        map.extend(encode_line(None));
        assert_eq!(decode(&map), (Some(100_000), vec![Some(line), None]));
        for end in 0..map.len() {
            decode(&map[..end]);
        }
        for at in 0..HEADER_BYTES {
            let mut bad = map.clone();
            bad[at] ^= 1;
            assert_eq!(decode(&bad).0, None, "byte {at}");
        }
        map[HEADER_BYTES + 32..HEADER_BYTES + 36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&map).1, [None, None], "longer than a window");
        decode(&vec![0xff; 1 << 20]);
    }
}
