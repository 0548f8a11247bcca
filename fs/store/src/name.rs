//! What objects are called.
//!
//! Invariant: a name means the same in every kind of store. So it has no letter that some file system
//! folds, escapes or hides: lower case, digits, `-`, `_`, and `.` but for a part's first letter. That also
//! leaves out `..` and what a folder keeps for itself.
//!
//! One object's name must not be the folder of another's (`a` and `a/b`): a folder cannot hold both.

use std::fmt;

/// The most bytes a name may have; some stores end at 1,024, and a person puts a prefix before it.
pub const NAME_BYTES_MAX: usize = 512;
/// The most bytes between two slashes; file systems end at 255.
pub const PART_BYTES_MAX: usize = 128;

/// The name of an object: parts with slashes between them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A folder of names: nothing, or parts with a slash after each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

/// Why something is no name of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It is too long.
    #[error("a name of {0} bytes is longer than {NAME_BYTES_MAX}, or one of its parts than {PART_BYTES_MAX}")]
    Long(usize),
    /// A part is empty: two slashes together, or one at the beginning or the end.
    #[error("the name {0:?} has an empty part")]
    EmptyPart(String),
    /// A letter that not every store keeps as it is.
    #[error(
        "the name {0:?} has something other than a-z, 0-9, '-', '_' and '.', or a part that begins with '.'"
    )]
    Letter(String),
}

fn check(text: &str) -> Result<(), BadName> {
    if text.len() > NAME_BYTES_MAX {
        return Err(BadName::Long(text.len()));
    }
    for part in text.split('/') {
        let letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        if part.is_empty() {
            return Err(BadName::EmptyPart(text.to_owned()));
        }
        if part.len() > PART_BYTES_MAX {
            return Err(BadName::Long(part.len()));
        }
        if part.starts_with('.') || !part.bytes().all(letter) {
            return Err(BadName::Letter(text.to_owned()));
        }
    }
    Ok(())
}

impl Name {
    /// Checks a name.
    pub fn new(text: impl Into<String>) -> Result<Name, BadName> {
        let text = text.into();
        check(&text)?;
        Ok(Name(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    /// Everything.
    pub fn all() -> Prefix {
        Prefix(String::new())
    }

    /// Checks a prefix: empty, or ending with a slash.
    pub fn new(text: impl Into<String>) -> Result<Prefix, BadName> {
        let text = text.into();
        if !text.is_empty() {
            check(text.strip_suffix('/').ok_or_else(|| BadName::EmptyPart(text.clone()))?)?;
        }
        Ok(Prefix(text))
    }

    /// The name of something below this.
    pub fn name(&self, rest: &str) -> Result<Name, BadName> {
        Name::new(format!("{}{rest}", self.0))
    }

    /// Whether a name lies below this.
    pub fn holds(&self, name: &Name) -> bool {
        name.0.starts_with(&self.0)
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_every_store_can_keep() {
        let part = "x".repeat(PART_BYTES_MAX);
        for good in ["id", "v/00ff/m/ffff", "c/e-1_2.3", "a..b", &part] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        let long = "x".repeat(PART_BYTES_MAX + 1);
        let deep = vec!["x"; NAME_BYTES_MAX].join("/");
        let bad = [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.b", "A", "a b", "a\\b", "é", "a\0", "%2e",
            &long, &deep,
        ];
        for bad in bad {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_ends_with_a_slash() {
        for good in ["", "v/", "v/00/"] {
            assert!(Prefix::new(good).is_ok(), "{good}");
        }
        for bad in ["/", "v", "v//", "../", "v/."] {
            assert!(Prefix::new(bad).is_err(), "{bad}");
        }
        let prefix = Prefix::new("v/").expect("good");
        assert!(prefix.holds(&Name::new("v/a").expect("good")));
        assert!(!prefix.holds(&Name::new("va").expect("good")));
    }
}
