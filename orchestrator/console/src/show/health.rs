//! Health: a circle whose form says the same as its colour, and words beside it.

use super::html::{Html, escape};

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All is as it should be.
    Well,
    /// Something is being done.
    Busy,
    /// It is off because somebody wished so.
    Off,
    /// It goes on, and somebody should look.
    Warn,
    /// It is not as it should be.
    Bad,
    /// Nobody knows.
    Unknown,
}

impl Health {
    /// Its class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Busy => "busy",
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }

    /// What is drawn inside of the circle, so that it differs without colours.
    fn mark(self) -> &'static str {
        match self {
            Self::Well => "<path d=\"M4.7 8.2l2.3 2.3 4.3-4.8\"/>",
            Self::Busy => "<path d=\"M8 4.5V8l2.3 1.6\"/>",
            Self::Off => "<path d=\"M5 8h6\"/>",
            Self::Warn => "<path d=\"M8 4.2v4.6M8 11.4v.2\"/>",
            Self::Bad => "<path d=\"M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2\"/>",
            Self::Unknown => "<path d=\"M6.2 6.3a1.8 1.8 0 1 1 2.6 1.6c-.6.3-.8.6-.8 1.2M8 11.4v.2\"/>",
        }
    }
}

/// The circle with its words.
pub fn health(health: Health, words: &str) -> Html {
    Html::of(format!(
        "<span class=\"health {}\"><svg viewBox=\"0 0 16 16\" width=\"16\" height=\"16\" aria-hidden=\"true\">\
         <circle cx=\"8\" cy=\"8\" r=\"7\"/>{}</svg><span>{}</span></span>",
        health.class(),
        health.mark(),
        escape(words)
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn health_is_told_by_words_and_form_and_not_by_colour_alone() {
        use Health::{Bad, Busy, Off, Unknown, Warn, Well};
        let all = [Well, Busy, Off, Warn, Bad, Unknown];
        let marks: BTreeSet<&str> = all.iter().map(|one| one.mark()).collect();
        assert_eq!(marks.len(), all.len());
        let shown = health(Warn, "no copy <elsewhere>");
        assert!(shown.as_str().contains("class=\"health warn\""));
        assert!(shown.as_str().ends_with("<span>no copy &lt;elsewhere&gt;</span></span>"), "{shown}");
    }
}
