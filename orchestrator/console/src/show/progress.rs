//! How far something is.

use super::html::{Html, escape};
use super::size::{bytes, percent};

/// A word for programs, for people: `hand_over` is `hand over`.
pub fn words(code: &str) -> String {
    code.replace('_', " ")
}

/// With a capital letter: what begins a sentence. An address or a path stays as it is.
pub fn capital(text: &str) -> String {
    if text.split(' ').next().is_some_and(|first| first.contains('/')) {
        return text.to_owned();
    }
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// How far an operation is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// All steps.
    pub steps: Vec<String>,
    /// The present one.
    pub step: Option<String>,
    /// How much of it is done.
    pub done: Option<u64>,
    /// Of so much.
    pub total: Option<u64>,
    /// Whether that is counted in bytes.
    pub is_bytes: bool,
}

impl Progress {
    /// In words: `step 2 of 4: prepare, 1 GiB of 3 GiB`.
    pub fn words(&self) -> String {
        let at = self.step.as_ref().and_then(|step| self.steps.iter().position(|one| one == step));
        let mut text = match (at, &self.step) {
            (Some(at), Some(step)) if self.steps.len() > 1 => {
                format!("step {} of {}: {}", at + 1, self.steps.len(), words(step))
            }
            (_, Some(step)) => words(step),
            (_, None) => "waiting".to_owned(),
        };
        let count = |number: u64| if self.is_bytes { bytes(number) } else { number.to_string() };
        if let (Some(done), Some(total)) = (self.done, self.total) {
            text.push_str(&format!(", {} of {}", count(done), count(total)));
        }
        text
    }

    /// The bar and the words.
    pub fn html(&self) -> Html {
        let value = match (self.done, self.total) {
            (Some(done), Some(total)) if total > 0 => format!(" value=\"{}\"", percent(done, total)),
            _ => String::new(),
        };
        let words = escape(&self.words());
        Html::of(format!(
            "<span class=\"progress\"><progress max=\"100\"{value} aria-label=\"{words}\"></progress><span>{words}</span></span>"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_begins_with_a_capital() {
        assert_eq!((capital("über"), capital("")), ("Über".to_owned(), String::new()));
        for kept in ["http://10.77.0.1:57617 answers", "s3://comb-test/", "/dev/fuse opens"] {
            assert_eq!(capital(kept), kept);
        }
    }

    #[test]
    fn progress_is_told_in_words() {
        let mut progress = Progress {
            steps: ["check", "prepare", "hand_over"].map(str::to_owned).to_vec(),
            step: Some("prepare".to_owned()),
            done: Some(1 << 30),
            total: Some(3 << 30),
            is_bytes: true,
        };
        assert_eq!(progress.words(), "step 2 of 3: prepare, 1 GiB of 3 GiB");
        assert!(progress.html().as_str().contains("value=\"33\""));
        progress.step = Some("<b>".to_owned());
        assert!(progress.html().as_str().contains("&lt;b&gt;, 1 GiB"), "{}", progress.html());
        assert_eq!(Progress::default().words(), "waiting");
    }
}
