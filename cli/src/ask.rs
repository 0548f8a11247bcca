//! Questions to a person, on the terminal; also where input and output lead elsewhere.
//!
//! What must not be seen is asked for in `passphrase`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Write};

use crate::failure::{Context, Failure, Kind, Result};

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 8192;

/// The terminal, if there is one and somebody can be asked.
fn terminal() -> Option<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok().filter(File::is_terminal)
}

/// Whether somebody can be asked.
pub fn is_possible() -> bool {
    terminal().is_some()
}

/// A line of an answer.
pub fn line(question: &str) -> Result<String> {
    let tty = terminal().ok_or_else(|| Failure::new(Kind::Usage, "there is no terminal to ask on"))?;
    (&tty).write_all(question.as_bytes()).context("the terminal")?;
    let mut text = String::new();
    let mut reader = BufReader::new(std::io::Read::take(&tty, ANSWER_BYTES_MAX));
    if reader.read_line(&mut text).context("the terminal")? == 0 {
        return Err(Failure::other("interrupted; nothing was changed"));
    }
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Whether a person says yes. Anything else is no.
pub fn confirm(question: &str) -> Result<bool> {
    let answer = line(&format!("{question} [y/N] "))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
