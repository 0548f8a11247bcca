//! Creates many small files: open, write, close, in one thread.
//!
//! `smallfiles make DIR FOLDERS FILES BYTES SEED` makes DIR with FOLDERS folders in it, spreads FILES files of BYTES bytes over
//! them, and prints the seconds it took. Half of each file is random and half text, and no two are alike, so that nobody gains
//! by deduplicating them. `smallfiles check …` fails unless each holds just that.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// xorshift64: fast, and good enough to be incompressible.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog; ";

/// What the command line asks for.
struct Command {
    folder: PathBuf,
    folders: usize,
    files: usize,
    bytes: usize,
    seed: u64,
}

impl Command {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Option<Command> {
        let folder = words.next()?.into();
        let mut number = || words.next()?.to_str()?.parse::<u64>().ok();
        let (folders, files, bytes, seed) =
            (number()? as usize, number()? as usize, number()? as usize, number()?);
        (folders > 0).then_some(Command { folder, folders, files, bytes, seed })
    }

    fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        for number in 0..self.folders {
            fs::create_dir(self.folder_path(number))?;
        }
        self.each(|path, data| fs::File::create_new(path)?.write_all(data))
    }

    fn check(&self) -> io::Result<()> {
        self.each(|path, data| match fs::read(&path)? == data {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} is not what was written", path.display()))),
        })
    }

    fn folder_path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("d{number:04}"))
    }

    /// Calls `with` for each file, with its path and what it holds.
    fn each(&self, mut with: impl FnMut(PathBuf, &[u8]) -> io::Result<()>) -> io::Result<()> {
        // The generator must not start at 0, where it would stay.
        let mut chance = Chance(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut data: Vec<u8> = TEXT.iter().copied().cycle().take(self.bytes).collect();
        let folders: Vec<PathBuf> = (0..self.folders).map(|number| self.folder_path(number)).collect();
        for number in 0..self.files {
            for word in data[..self.bytes / 2].chunks_mut(8) {
                let random = chance.next().to_le_bytes();
                word.copy_from_slice(&random[..word.len()]);
            }
            let path = folders[number % self.folders].join(format!("f{number:07}"));
            with(path, &data)?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (action, command) = (words.next().unwrap_or_default(), Command::parse(words));
    let begin = Instant::now();
    let done = match (action.to_str(), &command) {
        (Some("make"), Some(command)) => command.create(),
        (Some("check"), Some(command)) => command.check(),
        _ => {
            eprintln!("usage: smallfiles make|check DIR FOLDERS FILES BYTES SEED");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => {
            println!("{:.6}", begin.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
