//! Passphrases and recovery kits on their way from a person: typed without echo, or from a file.
//!
//! Never from an argument or the environment, which others on the machine may read.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use fs_crypto::{Passphrase, RecoveryKit, RingError, Zeroizing};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::failure::{Context, Failure, Kind, Result};
use crate::{output, ring};

/// The fewest characters of a new passphrase.
const CHARACTERS_MIN: usize = 12;
/// The fewest different ones among them.
const DIFFERENT_MIN: usize = 6;
/// With fewer than this it is accepted with a warning.
const CHARACTERS_GOOD: usize = 20;
/// How often a person may try who types.
const TRIES: usize = 3;
/// The most bytes that are read from a terminal or a file: more than a passphrase or a printed kit has.
const INPUT_BYTES_MAX: usize = 8192;

/// Where the passphrase comes from that opens the key ring.
#[derive(Debug, Clone, Default, Args)]
pub struct PassphraseArgs {
    /// Take the key ring's passphrase from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    /// The file that it is taken from, if one was named.
    pub fn file(&self) -> Option<&Path> {
        self.passphrase_file.as_deref()
    }

    /// From this file, or asked for.
    pub fn of(passphrase_file: Option<PathBuf>) -> Self {
        Self { passphrase_file }
    }

    /// The passphrase of a key ring; one try.
    pub fn read(&self, what: &str) -> Result<Passphrase> {
        match &self.passphrase_file {
            Some(path) => from_file(path),
            None => typed(&format!("Passphrase of {what}: ")),
        }
    }

    /// Opens a key ring with the passphrase; who mistypes it may try again.
    pub fn open<T>(
        &self,
        what: &str,
        attempt: impl Fn(&Passphrase) -> std::result::Result<T, RingError>,
    ) -> Result<T> {
        if let Some(path) = &self.passphrase_file {
            return attempt(&from_file(path)?).map_err(|error| ring::failure(what, &error));
        }
        let mut tries = 1;
        loop {
            let passphrase = typed(&format!("Passphrase of {what}: "))?;
            match attempt(&passphrase) {
                Err(RingError::WrongPassphrase) if tries < TRIES => {
                    output::note(&format!("{what} does not open with this passphrase"));
                    tries += 1;
                }
                done => return done.map_err(|error| ring::failure(what, &error)),
            }
        }
    }
}

/// A new passphrase, from this file or asked for twice.
pub fn make(file: Option<&Path>) -> Result<Passphrase> {
    let passphrase = match file {
        Some(path) => from_file(path)?,
        None => typed("New passphrase of the key ring: ")?,
    };
    judge(passphrase.text())?;
    if file.is_none() && typed("The same once more: ")?.text() != passphrase.text() {
        return Err(Failure::new(Kind::Usage, "the two passphrases differ; nothing was changed"));
    }
    Ok(passphrase)
}

/// A recovery kit, from this file or typed.
pub fn kit(file: Option<&Path>) -> Result<RecoveryKit> {
    if let Some(path) = file {
        let text = read_private(path)?;
        return RecoveryKit::from_text(&text).map_err(|error| {
            Failure::new(Kind::Usage, format!("the recovery kit in {} {error}", path.display()))
        });
    }
    let mut tries = 1;
    loop {
        let text = hidden("Letters of the recovery kit, all in one line: ")?;
        match RecoveryKit::from_text(&text) {
            Ok(kit) => return Ok(kit),
            Err(error) if tries < TRIES => output::note(&format!("what was typed {error}")),
            Err(error) => return Err(Failure::new(Kind::Usage, format!("what was typed {error}"))),
        }
        tries += 1;
    }
}

/// Something that opens a door and no key ring (the password of a hive, a code), from this file or typed.
pub fn secret(prompt: &str, file: Option<&Path>) -> Result<Zeroizing<String>> {
    let text = match file {
        Some(path) => read_private(path)?,
        None => hidden(prompt)?,
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

/// Refuses what is guessed too soon. Nobody can tell a good passphrase from its letters; this tells bad ones.
fn judge(text: &str) -> Result<()> {
    let refuse = |why: String| {
        Err(Failure::new(Kind::Usage, format!("this passphrase is too easy to guess: {why}")).hint(
            "whoever gets a copy of the key ring can try passphrases for as long as they like; six random words are good",
        ))
    };
    let count = text.chars().count();
    if count < CHARACTERS_MIN {
        return refuse(format!("it has fewer than {CHARACTERS_MIN} characters"));
    }
    if text.chars().collect::<BTreeSet<char>>().len() < DIFFERENT_MIN {
        return refuse(format!("it has fewer than {DIFFERENT_MIN} different characters"));
    }
    if count < CHARACTERS_GOOD {
        output::note(&format!(
            "warning: with fewer than {CHARACTERS_GOOD} characters a passphrase is good only if they are random; \
             six random words are better"
        ));
    }
    Ok(())
}

fn typed(prompt: &str) -> Result<Passphrase> {
    let text = hidden(prompt)?;
    Passphrase::new(&text).map_err(|error| Failure::new(Kind::Usage, format!("the passphrase {error}")))
}

fn from_file(path: &Path) -> Result<Passphrase> {
    let text = read_private(path)?;
    // One line break ends the line; a second one is an accident, and refused as a control character.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Passphrase::new(line)
        .map_err(|error| Failure::new(Kind::Usage, format!("the passphrase in {} {error}", path.display())))
}

/// A file that nobody else may read.
fn read_private(path: &Path) -> Result<Zeroizing<String>> {
    let file = File::open(path).context(path.display())?;
    let metadata = file.metadata().context(path.display())?;
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && metadata.uid() != 0 {
        return Err(Failure::new(
            Kind::NotPermitted,
            format!("{} belongs to another user, who knows what is in it", path.display()),
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(Failure::new(Kind::NotPermitted, format!("{} is open to other users", path.display()))
            .hint(format!("`chmod 600 {}` makes it yours alone", path.display())));
    }
    // Room for all of it: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(INPUT_BYTES_MAX + 1));
    file.take(INPUT_BYTES_MAX as u64).read_to_end(&mut bytes).context(path.display())?;
    as_text(bytes, &path.display().to_string())
}

/// The same bytes as text.
fn as_text(mut bytes: Zeroizing<Vec<u8>>, what: &str) -> Result<Zeroizing<String>> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(Failure::new(Kind::Usage, format!("{what} is not text in UTF-8")))
        }
    }
}

/// A line from the terminal, which does not show it.
fn hidden(prompt: &str) -> Result<Zeroizing<String>> {
    // Also where input and output lead elsewhere.
    let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Failure::new(Kind::Usage, "there is no terminal to ask on")
            .hint("`--passphrase-file F`, or `--kit-file F`, reads it from a file that only you may read")
    })?;
    let line = {
        let _quiet = Quiet::new(&tty)?;
        (&tty).write_all(prompt.as_bytes()).context("the terminal")?;
        read_line(&tty)
    };
    (&tty).write_all(b"\n").context("the terminal")?;
    as_text(line?, "what was typed")
}

/// Reads keys up to the end of the line. The terminal does no editing meanwhile, so it is done here.
fn read_line(mut input: impl Read) -> Result<Zeroizing<Vec<u8>>> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const BACKSPACE: [u8; 2] = [0x08, 0x7f];
    const KILL: u8 = 0x15;
    let interrupted = || Failure::other("interrupted; nothing was changed");
    let mut line = Zeroizing::new(Vec::with_capacity(INPUT_BYTES_MAX));
    // One at a time: what is typed behind the end of the line belongs to whoever reads next.
    let mut byte = Zeroizing::new([0]);
    while input.read(&mut byte[..]).context("the terminal")? == 1 {
        match byte[0] {
            b'\n' | b'\r' => return Ok(line),
            END if !line.is_empty() => return Ok(line),
            END | INTERRUPT => return Err(interrupted()),
            KILL => line.clear(),
            erase if BACKSPACE.contains(&erase) => {
                // A letter may be several bytes; those behind the first begin with the bits 10.
                while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            byte if line.len() < INPUT_BYTES_MAX => line.push(byte),
            _ => return Err(Failure::new(Kind::Usage, "what was typed is too long")),
        }
    }
    Err(interrupted())
}

/// While it lives, the terminal shows nothing, and hands out each key as it is pressed.
///
/// Keys that would end or stop the program are handed out too: ended by them, it could not put the terminal back.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(tty: &'a File) -> Result<Self> {
        let before = tcgetattr(tty).context("the terminal")?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        quiet.input_modes |= InputModes::ICRNL;
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(tty, OptionalActions::Flush, &quiet).context("the terminal")?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that went away has nothing to put back.
        let _ = tcsetattr(self.tty, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_line_is_edited_as_on_a_terminal() {
        let table: &[(&[u8], Option<&str>)] = &[
            (b"plain words\n", Some("plain words")),
            (b"plain\rmore", Some("plain")),
            (b"ab\x7fc\n", Some("ac")),
            (b"\x7f\x08a\n", Some("a")),
            ("gr\u{f6}\u{df}\x7f\x7foe\n".as_bytes(), Some("groe")),
            (b"wrong\x15right\n", Some("right")),
            (b"enough\x04more", Some("enough")),
            (b"\x04", None),
            (b"never mind\x03\n", None),
            (b"the line goes dead", None),
        ];
        for (keys, expected) in table {
            let line = read_line(*keys).ok().map(|line| String::from_utf8_lossy(&line).into_owned());
            assert_eq!(line.as_deref(), *expected, "{keys:?}");
        }
        assert!(read_line(&[b'a'; INPUT_BYTES_MAX + 1][..]).is_err());
    }

    #[test]
    fn a_new_passphrase_must_not_be_guessed_at_once() {
        for bad in ["short", "eleven char", "aaaaaaaaaaaaaaaaaaaaaaaa", "ababcababcababc"] {
            assert!(judge(bad).is_err(), "{bad}");
        }
        for good in ["twelve chars", "four or more random words"] {
            assert!(judge(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_file_is_one_line_that_nobody_else_may_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("passphrase");
        let read = |bytes: &[u8], mode: u32| {
            fs::write(&path, bytes).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
            from_file(&path).map(|passphrase| passphrase.text().to_owned())
        };
        for bytes in [&b"some words"[..], b"some words\n", b"some words\r\n"] {
            assert_eq!(read(bytes, 0o600).as_deref(), Ok("some words"));
            assert_eq!(read(bytes, 0o400).as_deref(), Ok("some words"));
        }
        for mode in [0o640, 0o604, 0o660, 0o622] {
            assert_eq!(read(b"some words", mode).map_err(|failure| failure.kind), Err(Kind::NotPermitted));
        }
        for bad in [&b""[..], b"\n", b"one\ntwo\n", b"one\n\n", b"\xff\xfe"] {
            assert_eq!(read(bad, 0o600).map_err(|failure| failure.kind), Err(Kind::Usage), "{bad:?}");
        }
    }
}
