//! What was found damaged since a volume was opened, for its status.

use fs_format::Seq;
use parking_lot::Mutex;

use crate::FsError;

/// The most places that are kept: enough to see what is wrong. `check` finds them all.
const FINDINGS_MAX: usize = 16;
/// The longest text of one, in characters: a long path is cut.
const TEXT_CHARS_MAX: usize = 600;

/// Damaged places, each once, in the order in which they were met.
#[derive(Default)]
pub struct Findings(Mutex<Vec<Finding>>);

struct Finding {
    what: String,
    /// The newest moment that is known to need it, where it matters for as long as that is kept.
    of: Option<Seq>,
}

impl Findings {
    /// Keeps a place in mind.
    pub fn note(&self, what: String) {
        let what = shortened(&what);
        let mut known = self.0.lock();
        if known.len() < FINDINGS_MAX && known.iter().all(|finding| finding.what != what) {
            known.push(Finding { what, of: None });
        }
    }

    /// Says of a place that was noted that it was met in this moment.
    pub fn met_in(&self, what: &str, seq: Seq) {
        let what = shortened(what);
        let mut known = self.0.lock();
        if let Some(finding) = known.iter_mut().find(|finding| finding.what == what) {
            finding.of = finding.of.max(Some(seq));
        }
    }

    /// The moments in which something was met.
    pub fn moments(&self) -> Vec<Seq> {
        self.0.lock().iter().filter_map(|finding| finding.of).collect()
    }

    /// Forgets what was met in this moment, and in none that is newer.
    pub fn forget(&self, seq: Seq) {
        self.0.lock().retain(|finding| finding.of != Some(seq));
    }

    /// Keeps an error in mind that is about the disk or what lies on it.
    pub fn note_error(&self, error: &FsError) {
        if error.is_about_the_disk() {
            self.note(error.to_string());
        }
    }

    /// What is known.
    pub fn list(&self) -> Vec<String> {
        self.0.lock().iter().map(|finding| finding.what.clone()).collect()
    }
}

fn shortened(what: &str) -> String {
    what.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_once_and_their_number_is_bounded() {
        let findings = Findings::default();
        for i in 0..100 {
            findings.note_error(&FsError::Damaged(format!("packs/{}", i / 2)));
            findings.note_error(&FsError::NotFound);
        }
        let list = findings.list();
        assert_eq!(list.len(), FINDINGS_MAX);
        assert_eq!(list[1], "damaged: packs/1");
    }

    #[test]
    fn what_only_a_moment_needed_is_forgotten_with_it() {
        let findings = Findings::default();
        for what in ["volume", "old", "both"] {
            findings.note(what.into());
        }
        findings.met_in("old", Seq(3));
        findings.met_in("both", Seq(5));
        findings.met_in("both", Seq(3));
        findings.met_in("never noted", Seq(3));
        assert_eq!(findings.moments(), [Seq(3), Seq(5)]);
        findings.forget(Seq(3));
        assert_eq!(findings.list(), ["volume", "both"]);
    }
}
