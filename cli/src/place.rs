//! `NAME@WHEN:PATH`: a place in a moment of a volume.
//!
//! Names hold neither `@` nor `:`, so the name ends at the first of them. A moment may hold colons
//! (`yesterday 18:00`) and a path anything, so the moment is the *longest* beginning that reads as
//! one and is followed by `:` or the end. No moment holds `/`: a path written with a leading `/`
//! is never taken for a part of the moment.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use jiff::Zoned;

use crate::failure::{Context, Failure, Kind, Result};
use crate::name::VolumeName;
use crate::when::{FORMS, When};

/// The longest place that is read from standard input, in bytes: longer than any path in a volume that can be opened.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// A place or a path as it was given; for `-` it is what standard input holds, to its end and byte by byte.
///
/// The words of a command are seen by everybody on the machine, and what a file is called is as private as what is in it.
pub fn given(text: &OsStr) -> Result<Cow<'_, OsStr>> {
    if text != "-" {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::new();
    let mut input = std::io::stdin().lock().take(INPUT_BYTES_MAX + 1);
    input.read_to_end(&mut bytes).context("standard input")?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::new(
            Kind::Usage,
            format!("a place on standard input has at most {INPUT_BYTES_MAX} bytes"),
        ));
    }
    Ok(Cow::Owned(OsString::from_vec(bytes)))
}

/// A volume, perhaps a moment, perhaps a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The volume.
    pub name: VolumeName,
    /// The moment, with the text that named it.
    pub when: Option<(When, String)>,
    /// The path below the root: no empty parts, no leading or trailing `/`. Empty is the root.
    pub path: Option<Vec<u8>>,
}

impl Place {
    /// Reads `NAME`, `NAME:PATH`, `NAME@WHEN` or `NAME@WHEN:PATH`.
    pub fn parse(text: &OsStr, now: &Zoned) -> Result<Place> {
        let bytes = text.as_bytes();
        let end = bytes.iter().position(|b| matches!(b, b'@' | b':')).unwrap_or(bytes.len());
        let name = String::from_utf8_lossy(&bytes[..end]);
        let name = name.parse().map_err(|problem: String| {
            Failure::new(Kind::Usage, format!("{:?}: {problem}", text.to_string_lossy()))
                .hint("a place is written NAME@WHEN:PATH, for example `photos@yesterday 18:00:/2026/a.jpg`")
        })?;
        match bytes.get(end) {
            None => Ok(Place { name, when: None, path: None }),
            Some(b':') => Ok(Place { name, when: None, path: Some(clean(&bytes[end + 1..])?) }),
            Some(_) => {
                let (when, path) = split_when(&bytes[end + 1..], now)?;
                let path = path.map(clean).transpose()?;
                Ok(Place { name, when: Some(when), path })
            }
        }
    }

    /// The moment; refused if it was left out.
    pub fn when_required(&self, command: &str) -> Result<&When> {
        self.when.as_ref().map(|(when, _)| when).ok_or_else(|| {
            Failure::new(Kind::Usage, format!("`comb {command}` needs a moment: {}@WHEN", self.name))
                .hint(FORMS)
        })
    }

    /// The path; refused if it was left out.
    pub fn path_required(&self, command: &str) -> Result<&[u8]> {
        self.path.as_deref().ok_or_else(|| {
            let moment = self.when.as_ref().map_or_else(String::new, |(_, text)| format!("@{text}"));
            Failure::new(Kind::Usage, format!("`comb {command}` needs a path: {}{moment}:PATH", self.name))
                .hint("a path below the root of the volume; `/` alone is the root")
        })
    }

    /// Refuses a path where a command works on whole moments.
    pub fn path_refused(&self, command: &str) -> Result<()> {
        match &self.path {
            None => Ok(()),
            Some(_) => {
                Err(Failure::new(Kind::Usage, format!("`comb {command}` takes a whole moment, not a path"))
                    .hint("leave out the colon and what follows it"))
            }
        }
    }
}

type WhenAndPath<'a> = ((When, String), Option<&'a [u8]>);

fn split_when<'a>(bytes: &'a [u8], now: &Zoned) -> Result<WhenAndPath<'a>> {
    let moment_max = bytes.iter().position(|b| *b == b'/').unwrap_or(bytes.len());
    let mut ends: Vec<usize> = (0..moment_max).filter(|i| bytes[*i] == b':').collect();
    if moment_max == bytes.len() {
        ends.push(bytes.len());
    }
    for end in ends.into_iter().rev() {
        let Ok(text) = std::str::from_utf8(&bytes[..end]) else { continue };
        if let Ok(when) = When::parse(text, now) {
            let path = if end == bytes.len() { None } else { Some(&bytes[end + 1..]) };
            return Ok(((when, text.to_owned()), path));
        }
    }
    let text = String::from_utf8_lossy(bytes);
    Err(Failure::new(Kind::Usage, format!("there is no moment in {text:?}")).hint(FORMS))
}

/// A path below the root in its plainest form. `..` is refused: there is nothing it could mean
/// that the person could not write plainly.
pub fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                let shown = String::from_utf8_lossy(path).into_owned();
                return Err(Failure::new(Kind::Usage, format!("the path {shown:?} has `..` in it")));
            }
            _ => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Place> {
        let now = "2026-11-21T12:00:00+00:00[UTC]".parse().expect("a time");
        Place::parse(OsStr::new(text), &now)
    }

    #[test]
    fn a_place_comes_apart_where_a_person_means_it() {
        let table: &[(&str, &str, Option<&str>, Option<&str>)] = &[
            ("photos", "photos", None, None),
            ("photos:", "photos", None, Some("")),
            ("photos:a/b", "photos", None, Some("a/b")),
            ("photos:/a//./b/", "photos", None, Some("a/b")),
            ("photos:a@b:c", "photos", None, Some("a@b:c")),
            ("photos@4", "photos", Some("4"), None),
            ("photos@4:", "photos", Some("4"), Some("")),
            ("photos@4:/", "photos", Some("4"), Some("")),
            ("photos@4:a:b@c", "photos", Some("4"), Some("a:b@c")),
            ("photos@head:a", "photos", Some("head"), Some("a")),
            ("photos@v1.0:x", "photos", Some("v1.0"), Some("x")),
            ("photos@yesterday 18:00", "photos", Some("yesterday 18:00"), None),
            ("photos@yesterday 18:00:etc/passwd", "photos", Some("yesterday 18:00"), Some("etc/passwd")),
            // The longest moment wins; a leading slash says where the path begins.
            ("photos@yesterday 18:00:30:x", "photos", Some("yesterday 18:00:30"), Some("x")),
            ("photos@yesterday 18:00:/30:x", "photos", Some("yesterday 18:00"), Some("30:x")),
            ("photos@2026-11-21T18:00:00Z:a", "photos", Some("2026-11-21T18:00:00Z"), Some("a")),
            ("photos@2026-11-21T18:00:00Z.3:a", "photos", Some("2026-11-21T18:00:00Z.3"), Some("a")),
            ("photos@2026-11-21T18:00:00+02:00:a", "photos", Some("2026-11-21T18:00:00+02:00"), Some("a")),
            ("photos@2026-11-21 18:00:a", "photos", Some("2026-11-21 18:00"), Some("a")),
            ("photos@10m ago:a b", "photos", Some("10m ago"), Some("a b")),
        ];
        for (text, name, when, path) in table {
            let place = parse(text).unwrap_or_else(|failure| panic!("{text:?}: {failure}"));
            assert_eq!(place.name.as_str(), *name, "{text:?}");
            assert_eq!(place.when.as_ref().map(|(_, text)| text.as_str()), *when, "{text:?}");
            assert_eq!(place.path.as_deref(), path.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_place_is_told_why() {
        for text in [
            "",
            "@4",
            ":a",
            "a b@4:x",
            "-x",
            "photos@",
            "photos@:a",
            "photos@a b:c",
            "photos@18:x",
            "photos:../a",
        ] {
            match parse(text) {
                // `18` is a number, hence a seq; whether it exists is for the volume to say.
                Ok(place) => assert_eq!((text, place.path), ("photos@18:x", Some(b"x".to_vec()))),
                Err(failure) => assert_eq!(failure.kind, Kind::Usage, "{text:?}"),
            }
        }
    }

    #[test]
    fn a_path_need_not_be_text() {
        let now = "2026-11-21T12:00:00+00:00[UTC]".parse().expect("a time");
        let place = Place::parse(OsStr::from_bytes(b"photos@4:\xff\xfe/x"), &now).expect("any bytes");
        assert_eq!(place.path.as_deref(), Some(&b"\xff\xfe/x"[..]));
    }

    #[test]
    fn what_a_command_needs_is_asked_for_by_name() {
        let failure = parse("photos")
            .and_then(|place| place.when_required("rollback").cloned())
            .expect_err("no moment");
        assert_eq!(failure.message, "`comb rollback` needs a moment: photos@WHEN");
        let failure = parse("photos@4")
            .and_then(|place| Ok(place.path_required("cat")?.to_vec()))
            .expect_err("no path");
        assert_eq!(failure.message, "`comb cat` needs a path: photos@4:PATH");
        assert!(parse("photos@4:x").and_then(|place| place.path_refused("rollback")).is_err());
    }
}
