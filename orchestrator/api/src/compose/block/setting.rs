//! Options: what people choose, and what a value must be.

use regex::RegexBuilder;

use crate::text::is_email;

/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 4096;
/// Compiled bytes of an option's pattern.
const PATTERN_COMPILED_MAX: usize = 256 << 10;
/// The largest number that a JSON reader keeps whole.
const NUMBER_MAX: i64 = 1 << 53;

/// What an option holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionType {
    /// One line.
    String,
    /// Lines.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// 1 to 65535.
    Port,
    /// An address of a person.
    Email,
    /// An absolute path in a container.
    Path,
    /// One line that nobody but the owner may see.
    Secret,
    /// One of [`Setting::values`].
    Enum,
}

impl OptionType {
    pub(super) const NAMES: [(&str, Self); 9] = [
        ("string", Self::String),
        ("text", Self::Text),
        ("number", Self::Number),
        ("flag", Self::Flag),
        ("port", Self::Port),
        ("email", Self::Email),
        ("path", Self::Path),
        ("secret", Self::Secret),
        ("enum", Self::Enum),
    ];
}

/// Something that people choose; it becomes a variable of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The variable.
    pub name: String,
    /// What it holds.
    pub kind: OptionType,
    /// What it is if nobody says anything.
    pub default: Option<String>,
    /// For people.
    pub hint: Option<String>,
    /// Of an enum.
    pub values: Vec<String>,
    /// What the whole value must match.
    pub pattern: Option<String>,
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" {problem}")]
pub struct OptionValueError {
    /// The option or input.
    pub name: String,
    /// What it must be.
    pub problem: String,
}

impl Setting {
    /// Whether somebody must give a value.
    pub fn is_required(&self) -> bool {
        self.default.is_none() && self.kind != OptionType::Secret
    }

    /// Checks a value, which is not repeated in the error: it may be secret.
    pub fn check(&self, value: &str) -> Result<(), OptionValueError> {
        let problem = if value.len() > VALUE_BYTES_MAX {
            Some(format!("is longer than {VALUE_BYTES_MAX} bytes"))
        } else {
            self.problem_with(value).map(str::to_owned).or_else(|| match self.kind {
                OptionType::Enum if !self.values.iter().any(|one| one == value) => {
                    Some(format!("must be one of {}", self.values.join(", ")))
                }
                _ => None,
            })
        };
        let problem = problem.or_else(|| match self.pattern.as_deref().map(compile) {
            Some(Some(pattern)) if pattern.is_match(value) => None,
            Some(_) => Some("does not have the form that the app asks for".to_owned()),
            None => None,
        });
        match problem {
            Some(problem) => Err(OptionValueError { name: self.name.clone(), problem }),
            None => Ok(()),
        }
    }

    fn problem_with(&self, value: &str) -> Option<&'static str> {
        let one_line = !value.chars().any(char::is_control);
        let (fits, problem) = match self.kind {
            OptionType::String | OptionType::Secret => {
                (one_line, "must be one line without control characters")
            }
            OptionType::Text => (
                value.chars().all(|one| !one.is_control() || matches!(one, '\n' | '\t')),
                "must be text without control characters",
            ),
            OptionType::Number => (is_number(value), "must be a whole number"),
            OptionType::Flag => (matches!(value, "true" | "false"), "must be true or false"),
            OptionType::Port => (
                is_number(value) && value.parse::<u16>().is_ok_and(|port| port > 0),
                "must be a port from 1 to 65535",
            ),
            OptionType::Email => (is_email(value), "must be an address like name@example.org"),
            OptionType::Path => (
                one_line && value.starts_with('/') && value.split('/').all(|part| part != ".."),
                "must be an absolute path without \"..\"",
            ),
            OptionType::Enum => (true, ""),
        };
        (!fits).then_some(problem)
    }
}

/// A whole number in its one form, within ±2^53.
pub(super) fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number.abs() <= NUMBER_MAX && number.to_string() == text)
}

pub(super) fn compile(pattern: &str) -> Option<regex::Regex> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(PATTERN_COMPILED_MAX)
        .dfa_size_limit(PATTERN_COMPILED_MAX)
        .nest_limit(32)
        .build()
        .ok()
}

/// A password that nobody chose: 24 letters with 120 bits of the given chance.
pub fn generate_secret(random: &[u8; 24]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefgh";
    random.iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)])).collect()
}
