//! Names that a person gives: volumes, tags, sizes, spans of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest volume name, in bytes.
pub const VOLUME_NAME_BYTES_MAX: usize = 64;

/// A volume's name: 1 to 64 letters, digits, `.`, `_` or `-`, beginning with none of `.` and `-`; or that of one of its
/// branches, `NAME/BRANCH`, of which both parts are so.
///
/// The parts are file names in the state folder, so nothing else may pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName(String);

impl VolumeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The volume and its branch, if it is one of a branch.
    pub fn branch(&self) -> Option<(Self, &str)> {
        let (volume, branch) = self.0.split_once('/')?;
        Some((Self(volume.to_owned()), branch))
    }

    /// The name of a branch of this volume, if it can be one.
    pub fn with_branch(&self, branch: &str) -> Option<Self> {
        format!("{self}/{branch}").parse().ok()
    }
}

impl FromStr for VolumeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.splitn(2, '/').try_for_each(|part| check_part("volume", part))?;
        Ok(Self(text.to_owned()))
    }
}

fn check_part(of: &str, part: &str) -> Result<(), String> {
    if part.is_empty() {
        return Err(format!("a {of} name is not empty"));
    }
    if part.len() > VOLUME_NAME_BYTES_MAX {
        return Err(format!("a {of} name has at most {VOLUME_NAME_BYTES_MAX} characters"));
    }
    if part.starts_with(['-', '.']) {
        return Err(format!("a {of} name does not begin with '-' or '.'"));
    }
    match part.chars().find(|c| !is_name_char(*c)) {
        None => Ok(()),
        Some(bad) => Err(format!("a {of} name has letters, digits, '.', '_' and '-', but no {bad:?}")),
    }
}

/// Reads the name of a store, which is made as one of the parts of a volume's name.
pub fn parse_store_name(text: &str) -> Result<String, String> {
    check_part("store", text).map(|()| text.to_owned())
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether volume names and tags may hold this character.
pub fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Reads a size in bytes: `500M`, `10G`, `1.5T`, `4096`; powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size: write 500M, 10G or 1.5T");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    let digits = digits.trim_end();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    // Twelve decimals are far below one byte of a terabyte; more would only overflow.
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 12 {
        return Err(bad());
    }
    let unit = 1u128 << shift;
    let whole: u128 = whole.parse().map_err(|_| bad())?;
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = fraction.parse().map_err(|_| bad())?;
    let bytes = whole.checked_mul(unit).ok_or_else(bad)? + fraction * unit / scale;
    // The kernel counts bytes of a filesystem in signed 64 bits.
    u64::try_from(bytes).ok().filter(|bytes| *bytes <= i64::MAX as u64).ok_or_else(bad)
}

/// Reads a span: `60s`, `10m`, `2h`, `1d`, `1w`; a number without a unit is seconds.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no span of time: write 60s, 10m, 2h, 1d or 1w");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(bad()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let count: u64 = digits.parse().map_err(|_| bad())?;
    // A thousand years: enough for everybody, and no sum of times overflows.
    let seconds =
        count.checked_mul(seconds).filter(|seconds| *seconds <= 1000 * 31_556_952).ok_or_else(bad)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_name_is_a_plain_file_name() {
        for good in ["photos", "a", "A.b_c-9", "0", &"x".repeat(64)] {
            assert_eq!(good.parse::<VolumeName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "-rf",
            "a/",
            "/b",
            "a/.b",
            "a/b/c",
            "a b",
            "a@b",
            "a:b",
            "ü",
            "a\n",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?} was taken");
        }
        assert_eq!(parse_store_name("attic.2"), Ok("attic.2".into()));
        for bad in ["", "a b", ".a", "a/b"] {
            let said = parse_store_name(bad).expect_err("it is a file's name");
            assert!(said.starts_with("a store name "), "{said}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let table = [
            ("0", 0),
            ("4096", 4096),
            ("1k", 1024),
            ("10G", 10 << 30),
            ("10 GiB", 10 << 30),
            ("1.5T", 3 << 39),
            ("0.5k", 512),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "1.2.3G", "-1G", "1X", "1.", ".5G", "9999999999999T", "1e3", "0.0000000000001G"]
        {
            assert!(parse_size(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn spans_have_one_unit() {
        for (text, seconds) in
            [("90", 90), ("60s", 60), ("10m", 600), ("2h", 7200), ("1d", 86400), ("2w", 1209600)]
        {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "m", "1y", "-1s", "1.5h", "1h30m", "99999999999999999999s", "999999999w"] {
            assert!(parse_span(bad).is_err(), "{bad:?} was taken");
        }
    }
}
