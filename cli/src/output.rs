//! How things are printed: tables for people, JSON for programs.
//!
//! - Results go to standard output, everything said about them to standard error.
//! - Times are local for people, RFC 3339 in UTC for programs.
//! - Names of files are any bytes: people see control characters and bytes that are no text
//!   escaped as `\n`, `\x1b`, `\\`, so that a name can neither forge a line nor steer a terminal;
//!   programs get the name as text and, where it is none, its bytes in `path_hex`.
//! - A reader that goes away (`comb log x | head -1`) is no error.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::failure::{Context, Result};

/// Prints a line.
pub fn line(text: &str) -> Result<()> {
    ignore_closed(writeln!(io::stdout(), "{text}"))
}

/// Says something that is not the result.
pub fn note(text: &str) {
    // Nobody is left to be told when even standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says a warning, unless it was said before.
pub fn warn_once(text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned()) {
        note(&format!("warning: {text}"));
    }
}

/// Prints a value as indented JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from).context("writing JSON")?;
    line(&text)
}

fn ignore_closed(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}

/// How a column lines up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headings, each column as wide as its widest cell.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    headings: bool,
}

impl Table {
    /// A table with these headings.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), headings: true }
    }

    /// Leaves the headings out.
    pub fn bare(mut self) -> Self {
        self.headings = false;
        self
    }

    /// Adds a row with a cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// Prints it; an empty table prints nothing.
    pub fn print(&self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        ignore_closed(io::stdout().lock().write_all(self.render().as_bytes()))
    }

    fn render(&self) -> String {
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let shown: Vec<&Vec<String>> =
            self.headings.then_some(&headings).into_iter().chain(&self.rows).collect();
        let width = |column: usize| shown.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in shown {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    line.push_str("  ");
                }
                let padding = " ".repeat(widths[column] - cell.chars().count());
                match self.columns[column].1 {
                    Align::Left => line.extend([cell.as_str(), &padding]),
                    Align::Right => line.extend([padding.as_str(), cell]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A name for a person to read; see the module's head.
pub fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        text.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A path for a program to read.
#[derive(Debug, Serialize)]
pub struct JsonPath {
    /// The path as text, with replacement characters where it is none.
    pub path: String,
    /// Its bytes, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
}

impl JsonPath {
    /// Both forms of a path.
    pub fn new(path: &[u8]) -> Self {
        let path_hex = std::str::from_utf8(path)
            .is_err()
            .then(|| path.iter().map(|byte| format!("{byte:02x}")).collect());
        Self { path: String::from_utf8_lossy(path).into_owned(), path_hex }
    }
}

/// Bytes for a person: `0 B`, `4.0 KiB`, `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time in nanoseconds since 1970, for a person: local, to the second.
pub fn time_local(nanos: i64) -> String {
    timestamp(nanos).to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time in nanoseconds since 1970, for a program: RFC 3339 in UTC.
pub fn time_utc(nanos: i64) -> String {
    timestamp(nanos).to_string()
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).expect("64 bits of nanoseconds lie within jiff's years")
}

/// Permissions as `ls -l` shows them, with the letter of the kind in front.
pub fn mode(kind: fs_format::FileKind, mode: u16) -> String {
    use fs_format::FileKind;
    let mut text = String::with_capacity(10);
    text.push(match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Socket => 's',
    });
    // setuid, setgid and sticky share a place with the x of owner, group and others.
    for (shift, special, letters) in
        [(6, 0o4000, ['s', 'S']), (3, 0o2000, ['s', 'S']), (0, 0o1000, ['t', 'T'])]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letters[0],
            (true, false) => letters[1],
        });
    }
    text
}

/// The word of a kind in JSON.
pub fn kind(kind: fs_format::FileKind) -> &'static str {
    use fs_format::FileKind;
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::CharDevice => "char-device",
        FileKind::BlockDevice => "block-device",
        FileKind::Socket => "socket",
    }
}

#[cfg(test)]
mod tests {
    use fs_format::FileKind;

    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line_or_steer_a_terminal() {
        let table: &[(&[u8], &str)] = &[
            (b"plain name.txt", "plain name.txt"),
            ("größe".as_bytes(), "größe"),
            (b"a\nb\t\r", "a\\nb\\t\\r"),
            (b"\x1b[31mred", "\\x1b[31mred"),
            ("\u{9b}x".as_bytes(), "\\xc2\\x9bx"),
            (b"back\\slash", "back\\\\slash"),
            (b"\xff\xfe", "\\xff\\xfe"),
        ];
        for (name, shown) in table {
            assert_eq!(escape(name), *shown);
        }
    }

    #[test]
    fn a_path_that_is_no_text_keeps_its_bytes_for_programs() {
        let text = serde_json::to_string(&JsonPath::new(b"a/b")).expect("JSON");
        assert_eq!(text, r#"{"path":"a/b"}"#);
        let text = serde_json::to_string(&JsonPath::new(b"a\xff")).expect("JSON");
        assert_eq!(text, "{\"path\":\"a\u{fffd}\",\"path_hex\":\"61ff\"}");
    }

    #[test]
    fn sizes_have_one_decimal() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn columns_line_up_by_characters() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right)]);
        table.row(vec!["größe".into(), "1".into()]);
        table.row(vec!["a".into(), "1000".into()]);
        assert_eq!(table.render(), "NAME   SIZE\ngröße     1\na      1000\n");
        assert_eq!(table.bare().render(), "größe     1\na      1000\n");
    }

    #[test]
    fn permissions_read_as_in_ls() {
        let table = [
            (FileKind::File, 0o644, "-rw-r--r--"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::File, 0o4755, "-rwsr-xr-x"),
            (FileKind::File, 0o6644, "-rwSr-Sr--"),
            (FileKind::Directory, 0o1770, "drwxrwx--T"),
            (FileKind::Symlink, 0o777, "lrwxrwxrwx"),
        ];
        for (kind, bits, text) in table {
            assert_eq!(mode(kind, bits), text);
        }
    }

    #[test]
    fn the_ends_of_time_print() {
        assert_eq!(time_utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_utc(1_500_000_000), "1970-01-01T00:00:01.5Z");
        time_utc(i64::MIN);
        time_local(i64::MAX);
    }
}
