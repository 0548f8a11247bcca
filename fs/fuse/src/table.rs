//! The kernel's table of mounts, which tells of a mount without asking it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount, as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The device number of its files.
    pub device: u64,
    /// Where it lies.
    pub path: PathBuf,
    /// What it says it is made of; for a volume `comb:` and the beginning of its public key.
    pub source: Vec<u8>,
}

/// All mounts. Of several on one path the last lies above.
pub fn read() -> io::Result<Vec<Entry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Takes the text of `/proc/self/mountinfo` apart; see proc_pid_mountinfo(5).
pub fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|&byte| byte == b'\n').filter_map(entry).collect()
}

fn entry(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    let (major, minor) = std::str::from_utf8(words.next()?).ok()?.split_once(':')?;
    let device = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    let path = PathBuf::from(OsString::from_vec(unescape(words.nth(1)?)));
    // Behind the lone "-": type, source, options.
    let source = unescape(words.skip_while(|word| *word != b"-").nth(2)?);
    Some(Entry { device, path, source })
}

/// The kernel writes space, tab, line break and backslash as `\040` and so on.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_kernel_come_apart() {
        assert_eq!(unescape(b"a\\040b\\134\\011"), b"a b\\\t");
        assert_eq!(unescape(b"\\9\\04"), b"\\9\\04");
    }
}
