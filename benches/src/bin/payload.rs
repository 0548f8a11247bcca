//! What the contents of a tree take when nothing is stored beside them: `payload FOLDER…` prints the files, their bytes, the
//! bytes of different chunks, the bytes of these, each chunk alone compressed as Comb compresses it, or as it is
//! where that saves less than one part in 32, and what all files of up to 2 KiB take in the same way.
//!
//! These count as one chunk each, longer ones are cut by content with Comb's limits.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use fastcdc::v2020::{FastCDC, Normalization};

/// Comb's level of zstd.
const LEVEL: i32 = 1;

struct Payload {
    seen: HashSet<[u8; 32]>,
    compressor: zstd::bulk::Compressor<'static>,
    files: u64,
    bytes: u64,
    different: u64,
    stored: u64,
    small: u64,
}

impl Payload {
    fn stored(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let compressed = self.compressor.compress(bytes)?.len();
        Ok(if compressed + bytes.len() / 32 < bytes.len() { compressed } else { bytes.len() } as u64)
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().all(|&byte| byte == 0) || !self.seen.insert(*blake3::hash(bytes).as_bytes()) {
            return Ok(());
        }
        self.different += bytes.len() as u64;
        self.stored += self.stored(bytes)?;
        Ok(())
    }

    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folder(&entry.path())?;
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path())?;
                self.files += 1;
                self.bytes += bytes.len() as u64;
                if bytes.len() <= 2048 {
                    self.chunk(&bytes)?;
                    self.small += self.stored(&bytes)?;
                    continue;
                }
                let (min, aim, max) = (64 << 10, 128 << 10, 1 << 20);
                for cut in FastCDC::with_level(&bytes, min, aim, max, Normalization::Level1) {
                    self.chunk(&bytes[cut.offset..][..cut.length])?;
                }
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let compressor = match zstd::bulk::Compressor::new(LEVEL) {
        Ok(compressor) => compressor,
        Err(error) => {
            eprintln!("error: zstd does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut payload =
        Payload { seen: HashSet::new(), compressor, files: 0, bytes: 0, different: 0, stored: 0, small: 0 };
    for folder in std::env::args_os().skip(1) {
        if let Err(error) = payload.folder(Path::new(&folder)) {
            eprintln!("error: {}: {error}", folder.to_string_lossy());
            return ExitCode::FAILURE;
        }
    }
    let Payload { files, bytes, different, stored, small, .. } = payload;
    println!("{files} {bytes} {different} {stored} {small}");
    ExitCode::SUCCESS
}
