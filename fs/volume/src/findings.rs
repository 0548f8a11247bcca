//! What was found damaged since a volume was opened, for its status.

use parking_lot::Mutex;

use crate::FsError;

/// The most places that are kept: enough to see what is wrong. `check` finds them all.
const FINDINGS_MAX: usize = 16;
/// The longest text of one, in characters: a long path is cut.
const TEXT_CHARS_MAX: usize = 600;

/// Damaged places, each once, in the order in which they were met.
#[derive(Default)]
pub struct Findings(Mutex<Vec<String>>);

impl Findings {
    /// Keeps a place in mind.
    pub fn note(&self, what: String) {
        let what: String = what.chars().take(TEXT_CHARS_MAX).collect();
        let mut known = self.0.lock();
        if known.len() < FINDINGS_MAX && !known.contains(&what) {
            known.push(what);
        }
    }

    /// Keeps an error in mind that is about the disk or what lies on it.
    pub fn note_error(&self, error: &FsError) {
        if error.is_about_the_disk() {
            self.note(error.to_string());
        }
    }

    /// What is known.
    pub fn list(&self) -> Vec<String> {
        self.0.lock().clone()
    }
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
}
