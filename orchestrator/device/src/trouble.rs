//! What went wrong on this device, and where: the code that travels, and the words that stay.

use std::fmt;

use orchestrator_api::placement::Problem;

/// The longest text that is kept of another program's words, in bytes.
const TEXT_BYTES_MAX: usize = 2_000;

/// A problem with its place.
///
/// What travels in the clear is the code, the service, the file, the line and the number. The text may hold words of an
/// app, of compose or of Docker: it is shown on this machine and sent in sealed streams, and nowhere else, so `Debug`
/// leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What kind it is.
    pub problem: Problem,
    /// The service of the app.
    pub service: Option<String>,
    /// A file of the package.
    pub file: Option<String>,
    /// Its line.
    pub line: Option<u32>,
    /// What else there is to count.
    pub number: Option<i64>,
    text: String,
}

/// What doors and steps return.
pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// A problem, with words for a person at this machine.
    pub fn new(problem: Problem, text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.len() > TEXT_BYTES_MAX {
            let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        Self { problem, service: None, file: None, line: None, number: None, text }
    }

    /// Names the service.
    #[must_use]
    pub fn of(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Names the place in the package.
    #[must_use]
    pub fn at(mut self, file: impl Into<String>, line: u32) -> Self {
        (self.file, self.line) = (Some(file.into()), Some(line));
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn counted(mut self, number: i64) -> Self {
        self.number = Some(number);
        self
    }

    /// The words, for this machine's own eyes.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Whether a problem is Docker's: what failed is done again when Docker answers, and says nothing of the app.
pub fn is_of_docker(problem: Problem) -> bool {
    matches!(problem, Problem::DockerStopped | Problem::DockerSlow)
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem.text())?;
        self.service.iter().try_for_each(|service| write!(f, " of service {service:?}"))?;
        if let (Some(file), Some(line)) = (&self.file, self.line) {
            write!(f, " at {file:?}:{line}")?;
        }
        self.number.iter().try_for_each(|number| write!(f, " ({number})"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}: {}", self.text)
    }
}
