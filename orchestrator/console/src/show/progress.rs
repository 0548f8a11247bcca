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
    /// What is counted.
    pub of: Counted,
}

/// What progress counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counted {
    /// Bytes.
    #[default]
    Bytes,
    /// Apps: there are no steps beside.
    Apps,
}

impl Progress {
    /// In words: `step 2 of 4: prepare, 1 GiB of 3 GiB`, or `1 of 3 apps`.
    pub fn words(&self) -> String {
        if self.of == Counted::Apps {
            return match (self.done, self.total) {
                (Some(done), Some(total)) if total > 0 => {
                    format!("{done} of {total} app{}", if total == 1 { "" } else { "s" })
                }
                _ => "waiting".to_owned(),
            };
        }
        let at = self.step.as_ref().and_then(|step| self.steps.iter().position(|one| one == step));
        let mut text = match (at, &self.step) {
            (Some(at), Some(step)) if self.steps.len() > 1 => {
                format!("step {} of {}: {}", at + 1, self.steps.len(), words(step))
            }
            (_, Some(step)) => words(step),
            (_, None) => "waiting".to_owned(),
        };
        if let (Some(done), Some(total)) = (self.done, self.total) {
            text.push_str(&format!(", {} of {}", bytes(done), bytes(total)));
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
            of: Counted::Bytes,
        };
        assert_eq!(progress.words(), "step 2 of 3: prepare, 1 GiB of 3 GiB");
        assert!(progress.html().as_str().contains("value=\"33\""));
        progress.step = Some("<b>".to_owned());
        assert!(progress.html().as_str().contains("&lt;b&gt;, 1 GiB"), "{}", progress.html());
        assert_eq!(Progress::default().words(), "waiting");
        let apps = |done, total| {
            let step = Some("drain".to_owned());
            Progress { step, done: Some(done), total: Some(total), of: Counted::Apps, ..Progress::default() }
                .words()
        };
        assert_eq!((apps(0, 3), apps(0, 1)), ("0 of 3 apps".to_owned(), "0 of 1 app".to_owned()));
        assert_eq!(apps(0, 0), "waiting", "nobody has looked yet which there are");
    }
}
