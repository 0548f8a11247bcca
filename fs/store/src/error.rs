//! What can go wrong with a store, by what there is to do about it.

/// What to do depends on this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such object.
    Absent,
    /// There is an object of that name already; nothing was changed.
    Exists,
    /// The credentials do not allow it: tell, and try slowly.
    Denied,
    /// The store asks for fewer requests: slow down.
    Busy,
    /// The store did not answer, or not to the end, or could not: try again with growing pauses.
    ///
    /// Whether it was done is not known.
    Unreachable,
    /// The request itself is wrong, by a bug or a wrong URL: tell.
    Refused,
    /// The bytes are not what they must be: ask once more, then another copy.
    Damaged,
}

impl Kind {
    /// Whether the same request may succeed later without anybody doing something.
    pub fn passes(self) -> bool {
        matches!(self, Kind::Busy | Kind::Unreachable)
    }

    fn text(self) -> &'static str {
        match self {
            Kind::Absent => "there is no such object",
            Kind::Exists => "there is such an object already",
            Kind::Denied => "the store does not allow it",
            Kind::Busy => "the store is busy",
            Kind::Unreachable => "the store cannot be reached",
            Kind::Refused => "the store refused the request",
            Kind::Damaged => "what came back is damaged",
        }
    }
}

/// Letters of a store's own words that are kept; it may send more than a person reads.
const DETAIL_LETTERS_MAX: usize = 400;

/// What happened, to what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action} {object}: {}{}{detail}", kind.text(), if detail.is_empty() { "" } else { ": " })]
pub struct StoreError {
    kind: Kind,
    action: &'static str,
    object: String,
    detail: String,
}

impl StoreError {
    /// An error of `kind` that met a request, as in "create", "v/…/m/…", "503 Slow Down".
    pub fn new(kind: Kind, action: &'static str, object: impl ToString, detail: impl ToString) -> StoreError {
        let detail = detail.to_string();
        let words = detail.split_whitespace().collect::<Vec<_>>().join(" ");
        let detail = words.chars().take(DETAIL_LETTERS_MAX).collect();
        StoreError { kind, action, object: object.to_string(), detail }
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_happened_to_what() {
        let error = StoreError::new(Kind::Busy, "create", "v/1/m/2", "503\n Slow Down");
        assert_eq!(error.to_string(), "create v/1/m/2: the store is busy: 503 Slow Down");
        let error = StoreError::new(Kind::Absent, "get", "id", "");
        assert_eq!(error.to_string(), "get id: there is no such object");
        let error = StoreError::new(Kind::Refused, "get", "id", "é".repeat(100_000));
        assert!(error.to_string().len() < 1000);
    }
}
