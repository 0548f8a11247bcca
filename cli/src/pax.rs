//! Writing archives in the pax format of POSIX.1-2001, as GNU tar, bsdtar and Python read them.
//!
//! What a tar header has no room for stands in records before it: times to the nanosecond, names of any length and any
//! bytes, numbers of any size, attributes as `SCHILY.xattr.…`. A file with holes is written as GNU's sparse format 1.0.
//! It is written here, since what crates there are for tar write neither of these.

use std::io::{self, Write};

use fs_format::Timestamp;

/// Everything in an archive begins at a multiple of this.
const BLOCK: usize = 512;
/// Bytes of a name in a header.
const NAME_BYTES: usize = 100;

/// What an entry is; the byte that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// A file with bytes.
    File = b'0',
    /// One more name of a file that came before.
    Link = b'1',
    /// A symbolic link.
    Symlink = b'2',
    /// A device.
    CharDevice = b'3',
    /// The other kind of device.
    BlockDevice = b'4',
    /// A folder.
    Directory = b'5',
    /// A pipe.
    Fifo = b'6',
}

/// What is said of an entry before its bytes.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// What it is.
    pub what: What,
    /// Its path in the archive, any bytes but NUL.
    pub path: &'a [u8],
    /// Where a link of either kind leads.
    pub target: &'a [u8],
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Last read.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Where a file's bytes are: `size` in all, and what lies between the holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// Bytes of the file.
    pub size: u64,
    /// Offset and length of each run of data, in ascending order.
    pub data: Vec<(u64, u64)>,
}

impl Runs {
    fn has_holes(&self) -> bool {
        self.size > 0 && self.data != [(0, self.size)]
    }

    fn bytes(&self) -> u64 {
        self.data.iter().map(|(_, len)| len).sum()
    }

    /// The map of a sparse file as it stands before its data, in whole blocks.
    fn map(&self) -> Vec<u8> {
        let end = self.data.last().map_or(0, |(offset, len)| offset + len);
        // A hole at the end is shown by a run of nothing behind it.
        let last = (end < self.size).then_some((self.size, 0));
        let runs: Vec<(u64, u64)> = self.data.iter().copied().chain(last).collect();
        let mut text = format!("{}\n", runs.len());
        for (offset, len) in runs {
            text += &format!("{offset}\n{len}\n");
        }
        let mut map = text.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        map
    }
}

/// An archive that is being written.
pub struct Archive<W> {
    out: W,
    /// Bytes of the file that is being written which are still to come.
    left: u64,
    /// What fills its last block.
    padding: usize,
}

impl<W: Write> Archive<W> {
    /// An archive without an entry.
    pub fn new(out: W) -> Self {
        Self { out, left: 0, padding: 0 }
    }

    /// Adds what has no bytes.
    pub fn add(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.header(entry, entry.path, 0, Vec::new())
    }

    /// Begins a file; exactly its data follows, by [`Archive::data`].
    pub fn begin(&mut self, entry: &Entry<'_>, runs: &Runs) -> io::Result<()> {
        if !runs.has_holes() {
            self.header(entry, entry.path, runs.size, Vec::new())?;
            return self.expect(runs.size);
        }
        let map = runs.map();
        let stored = map.len() as u64 + runs.bytes();
        let mut records = Vec::new();
        record(&mut records, b"GNU.sparse.major", b"1");
        record(&mut records, b"GNU.sparse.minor", b"0");
        record(&mut records, b"GNU.sparse.name", entry.path);
        record(&mut records, b"GNU.sparse.realsize", runs.size.to_string().as_bytes());
        // Who does not know the format gets a file that says so.
        let (folder, name) = split(entry.path);
        let path = [folder, b"GNUSparseFile.0/", name].concat();
        self.header(entry, &path, stored, records)?;
        self.out.write_all(&map)?;
        self.expect(runs.bytes())
    }

    fn expect(&mut self, bytes: u64) -> io::Result<()> {
        self.left = bytes;
        self.padding = (bytes.next_multiple_of(BLOCK as u64) - bytes) as usize;
        self.data(&[])
    }

    /// Adds bytes of the file that was begun.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() as u64 <= self.left, "a file has as many bytes as its header says");
        self.out.write_all(bytes)?;
        self.left -= bytes.len() as u64;
        if self.left == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.out.write_all(&[0; BLOCK][..padding])?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        assert_eq!(self.left, 0, "the last file is whole");
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Writes a header, behind the records that it has no room for.
    fn header(&mut self, entry: &Entry<'_>, path: &[u8], size: u64, more: Vec<u8>) -> io::Result<()> {
        let is_text = [path, entry.target].iter().all(|name| std::str::from_utf8(name).is_ok());
        let mut records = Vec::new();
        if !is_text {
            record(&mut records, b"hdrcharset", b"BINARY");
        }
        record(&mut records, b"mtime", time(entry.mtime).as_bytes());
        record(&mut records, b"atime", time(entry.atime).as_bytes());
        for (key, name) in [(&b"path"[..], path), (b"linkpath", entry.target)] {
            if name.len() > NAME_BYTES || !name.is_ascii() {
                record(&mut records, key, name);
            }
        }
        for (key, number, digits) in
            [("uid", u64::from(entry.uid), 7), ("gid", u64::from(entry.gid), 7), ("size", size, 11)]
        {
            if octal(number, digits).is_none() {
                record(&mut records, key.as_bytes(), number.to_string().as_bytes());
            }
        }
        for (name, value) in entry.xattrs {
            record(&mut records, &[&b"SCHILY.xattr."[..], &keyword(name)].concat(), value);
        }
        records.extend(more);
        let mut about = Header::new(b'x', &pax_name(path), records.len() as u64);
        about.number(Field::Mode, 0o644);
        self.out.write_all(&about.finish())?;
        records.resize(records.len().next_multiple_of(BLOCK), 0);
        self.out.write_all(&records)?;

        let mut header = Header::new(entry.what as u8, path, size);
        header.number(Field::Mode, u64::from(entry.mode));
        header.number(Field::Uid, entry.uid.into());
        header.number(Field::Gid, entry.gid.into());
        header.number(Field::Mtime, u64::try_from(entry.mtime.0.div_euclid(NANOS)).unwrap_or(0));
        header.text(Field::Target, entry.target);
        header.number(Field::Major, entry.device.0.into());
        header.number(Field::Minor, entry.device.1.into());
        self.out.write_all(&header.finish())
    }
}

const NANOS: i64 = 1_000_000_000;

/// Seconds with nine decimals. A time before 1970 counts down from there: −1.5 is half a second before −1.
fn time(time: Timestamp) -> String {
    let nanos = time.0.unsigned_abs();
    let sign = if time.0 < 0 { "-" } else { "" };
    format!("{sign}{}.{:09}", nanos / NANOS as u64, nanos % NANOS as u64)
}

/// An attribute's name as part of a key, in which `=` would end it.
fn keyword(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            byte => key.push(*byte),
        }
    }
    key
}

/// Adds a record: its length, which counts itself, the key and the value.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(len.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// A path's folder with the `/` behind it, and its name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    path.split_at(at)
}

/// What the records are called for who takes them for a file.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    [b"PaxHeaders/", split(trimmed).1].concat()
}

/// Digits with a leading zero for each that it has not; `None` if it has more.
fn octal(number: u64, digits: usize) -> Option<String> {
    let text = format!("{number:0digits$o}");
    (text.len() <= digits).then_some(text)
}

/// The fields of a header that is written here.
#[derive(Debug, Clone, Copy)]
enum Field {
    Name,
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    Target,
    Major,
    Minor,
}

impl Field {
    fn range(self) -> std::ops::Range<usize> {
        match self {
            Self::Name => 0..100,
            Self::Mode => 100..108,
            Self::Uid => 108..116,
            Self::Gid => 116..124,
            Self::Size => 124..136,
            Self::Mtime => 136..148,
            Self::Target => 157..257,
            Self::Major => 329..337,
            Self::Minor => 337..345,
        }
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(what: u8, name: &[u8], size: u64) -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[156] = what;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header.text(Field::Name, name);
        for field in [Field::Mode, Field::Uid, Field::Gid, Field::Mtime, Field::Major, Field::Minor] {
            header.number(field, 0);
        }
        header.number(Field::Size, size);
        header
    }

    /// As much of a text as there is room for; if that is not all, a record has it.
    fn text(&mut self, field: Field, text: &[u8]) {
        let room = &mut self.0[field.range()];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text[..len]);
    }

    /// A number, or zero if it has no room; then a record has it.
    fn number(&mut self, field: Field, number: u64) {
        let room = &mut self.0[field.range()];
        let digits = room.len() - 1;
        let text = octal(number, digits).unwrap_or_else(|| "0".repeat(digits));
        room[..digits].copy_from_slice(text.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        record(&mut records, key, value);
        records
    }

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(written(b"a", b""), b"5 a=\n");
        assert_eq!(written(b"a", b"1234"), b"9 a=1234\n");
        // With one more digit it is longer by two.
        assert_eq!(written(b"a", b"12345"), b"11 a=12345\n");
        for len in 0..2000 {
            let record = written(b"key", &vec![b'x'; len]);
            let says: usize = String::from_utf8_lossy(&record)
                .split(' ')
                .next()
                .and_then(|digits| digits.parse().ok())
                .expect("a length");
            assert_eq!(says, record.len());
        }
    }

    #[test]
    fn times_have_nine_decimals_on_both_sides_of_1970() {
        assert_eq!(time(Timestamp(0)), "0.000000000");
        assert_eq!(time(Timestamp(1_500_000_001)), "1.500000001");
        assert_eq!(time(Timestamp(-500_000_000)), "-0.500000000");
        assert_eq!(time(Timestamp(i64::MIN)), "-9223372036.854775808");
    }

    #[test]
    fn a_map_of_holes_is_whole_blocks_and_shows_the_end() {
        let runs = Runs { size: 100, data: vec![(10, 20)] };
        let map = runs.map();
        assert_eq!(map.len(), BLOCK);
        assert!(map.starts_with(b"2\n10\n20\n100\n0\n\0"));
        let all = Runs { size: 30, data: vec![(10, 20)] };
        assert!(all.map().starts_with(b"1\n10\n20\n\0"));
        assert!(all.has_holes() && Runs { size: 9, data: vec![] }.has_holes());
        assert!(!Runs { size: 0, data: vec![] }.has_holes());
        assert!(!Runs { size: 9, data: vec![(0, 9)] }.has_holes());
    }

    #[test]
    fn what_a_header_has_no_room_for_is_in_a_record() {
        let path = [b'x'; 101];
        let entry = Entry {
            what: What::File,
            path: &path,
            target: b"",
            mode: 0o644,
            uid: u32::MAX,
            gid: 0,
            device: (0, 0),
            atime: Timestamp(0),
            mtime: Timestamp(0),
            xattrs: &[(b"user.a=b%".to_vec(), vec![0, b'\n'])],
        };
        let mut archive = Archive::new(Vec::new());
        archive.begin(&entry, &Runs { size: 3, data: vec![(0, 3)] }).expect("written");
        archive.data(b"ab").expect("written");
        archive.data(b"c").expect("written");
        let bytes = archive.finish().expect("written");
        assert_eq!(bytes.len() % BLOCK, 0);
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(has(b"uid=4294967295\n") && has(b"SCHILY.xattr.user.a%3Db%25=\0\n\n"));
        assert!(has(&[b"path=", &path[..], b"\n"].concat()));
        assert!(!has(b"gid=") && !has(b"size="));
    }
}
