//! Actions and hooks: programs that run in an app's own containers, as lists of arguments.
//!
//! A value takes the place of a whole argument or is the standard input; nothing is ever parsed again.

use std::collections::BTreeMap;

use super::setting::{OptionValueError, is_number};
use crate::compose::variables::is_name;
use crate::text::{is_email, is_plain, is_short_name};

/// A program that runs in a service around a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The service.
    pub service: String,
    /// Arguments, the program first.
    pub argv: Vec<String>,
    /// How long it may take, in seconds.
    pub timeout_s: u32,
}

/// Something that people may ask of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Where and what runs. An argument `{name}` is replaced by that input.
    pub run: Hook,
    /// What is asked for, in the order of the file.
    pub input: Vec<(String, InputType)>,
    /// For people.
    pub label: Option<String>,
}

/// What an input of an action holds (`security.md`, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// A short word.
    Name,
    /// An address of a person.
    Email,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// Text, given on standard input only.
    Text,
}

impl InputType {
    pub(super) const NAMES: [(&str, Self); 5] = [
        ("name", Self::Name),
        ("email", Self::Email),
        ("number", Self::Number),
        ("flag", Self::Flag),
        ("text", Self::Text),
    ];

    /// Checks a value.
    pub fn check(self, name: &str, value: &str) -> Result<(), OptionValueError> {
        let (fits, problem) = match self {
            Self::Name => (is_short_name(value), "must be 1 to 64 of A-Z a-z 0-9 . _ - and not begin with -"),
            Self::Email => (is_email(value), "must be an address like name@example.org"),
            Self::Number => (is_number(value), "must be a whole number"),
            Self::Flag => (matches!(value, "true" | "false"), "must be true or false"),
            Self::Text => (
                value.len() <= 1024 && is_plain(value),
                "must be at most 1024 bytes without control characters",
            ),
        };
        if fits {
            Ok(())
        } else {
            Err(OptionValueError { name: name.to_owned(), problem: problem.to_owned() })
        }
    }
}

impl Action {
    /// The arguments and the standard input of a run with these values, each checked by its type.
    pub fn fill(
        &self,
        values: &BTreeMap<String, String>,
    ) -> Result<(Vec<String>, Option<String>), OptionValueError> {
        let wrong = |name: &str, problem: &str| OptionValueError {
            name: name.to_owned(),
            problem: problem.to_owned(),
        };
        if let Some(name) = values.keys().find(|name| !self.input.iter().any(|(one, _)| one == *name)) {
            return Err(wrong(&name.escape_debug().to_string(), "is not asked for"));
        }
        let mut input = None;
        for (name, kind) in &self.input {
            let value = values.get(name).ok_or_else(|| wrong(name, "is missing"))?;
            kind.check(name, value)?;
            if *kind == InputType::Text {
                input = Some(value.clone());
            }
        }
        let fill = |argument: &String| match placeholder(argument) {
            Some(name) => values.get(name).unwrap_or(argument).clone(),
            None => argument.clone(),
        };
        Ok((self.run.argv.iter().map(fill).collect(), input))
    }
}

/// The name in an argument that is `{name}` as a whole.
pub(super) fn placeholder(argument: &str) -> Option<&str> {
    argument.strip_prefix('{')?.strip_suffix('}').filter(|name| is_name(name))
}
