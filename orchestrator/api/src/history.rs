//! What hive and device write down as it happens, one line of JSON each: `failover.md`, section 15.
//!
//! Numbers, ids and words of ours only: never a name or a text of an app. `comb-history` (in `tests`) reads the lines of
//! all parties and finds what breaks an invariant.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, DeviceId, Generation, OperationId, Term};
use crate::text::Hex;

/// The longest line that is read, in bytes.
pub const LINE_BYTES_MAX: usize = 4 << 10;

/// A word of ours: a phase, a reason, a step.
pub type Word = Cow<'static, str>;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `CLOCK_BOOTTIME` when it was written.
    pub boottime_ms: u64,
    /// The boot that this counts from.
    pub boot: Hex<16>,
    /// Who wrote it.
    pub who: Who,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// Who writes a history: `hive`, or a device by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// The hive.
    Hive,
    /// A device.
    Device(DeviceId),
}

impl From<Who> for String {
    fn from(who: Who) -> String {
        match who {
            Who::Hive => "hive".to_owned(),
            Who::Device(id) => id.to_string(),
        }
    }
}

impl TryFrom<String> for Who {
    type Error = crate::text::FormError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "hive" => Ok(Self::Hive),
            id => id.parse().map(Self::Device),
        }
    }
}

/// A manifest of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Manifest {
    /// The volume.
    pub volume: Hex<32>,
    /// Its epoch.
    pub epoch: u64,
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub manifest: Hex<32>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The hive gave a term of an app to a device.
    Granted {
        /// The app.
        app: AppId,
        /// Its term, new.
        term: Term,
        /// Who has it.
        device: DeviceId,
        /// The app's.
        generation: Generation,
        /// Whether it ends when it is not renewed.
        leased: bool,
    },
    /// The hive ended a term.
    Ended {
        /// The app.
        app: AppId,
        /// The term that is over.
        term: Term,
    },
    /// A device has a lease with another end, or needs none any more.
    Lease {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// When volumes refuse writes, in `CLOCK_BOOTTIME`; none if nothing but an order ends the term.
        end_ms: Option<u64>,
    },
    /// A device begins to stop an app.
    Stopping {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// Why.
        reason: Word,
    },
    /// Nothing of the term runs or is mounted any more.
    Stopped {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// Why.
        reason: Word,
    },
    /// A claim was won.
    Claimed {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// The manifest in the slot that was won.
        #[serde(flatten)]
        cut: Manifest,
        /// The manifest that it extends; none if it is the first.
        parent: Option<Hex<32>>,
    },
    /// A volume can be written from now on.
    WriteBegan {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// The volume.
        volume: Hex<32>,
        /// Its epoch.
        epoch: u64,
    },
    /// It cannot be any more.
    WriteEnded {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// The volume.
        volume: Hex<32>,
    },
    /// An app is in another phase.
    Phase {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// The phase.
        phase: Word,
    },
    /// A volume was sealed.
    Sealed(Manifest),
    /// The arbiter has a manifest: it was told to be safe.
    Replicated(Manifest),
    /// The store has a later epoch of a volume than this device.
    Fenced {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// The volume.
        volume: Hex<32>,
    },
    /// A tail is kept as a branch.
    Branch {
        /// The app.
        app: AppId,
        /// The volume.
        volume: Hex<32>,
        /// The branch: `cut-<seq>-e<epoch>`.
        name: Word,
    },
    /// An operation is in another step or state.
    Operation {
        /// The operation.
        operation: OperationId,
        /// Its app, if it is of one.
        app: Option<AppId>,
        /// Its kind.
        kind: Word,
        /// Its step.
        step: Word,
        /// `running`, `done`, `failed`, `cancelled`, `lost`.
        state: Word,
    },
}

impl Line {
    /// As it is written, with its newline.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string(self).expect("a line has text keys only, and no number that JSON lacks");
        text.push('\n');
        text
    }

    /// Reads a line.
    pub fn from_json(text: &str) -> Result<Self, String> {
        if text.len() > LINE_BYTES_MAX {
            return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let manifest = Manifest { volume: Hex([1; 32]), epoch: 3, seq: 70, manifest: Hex([2; 32]) };
        let app = AppId(*b"\x07\x07\x07\x07\x07\x07\x47\x07\x87\x07\x07\x07\x07\x07\x07\x07");
        let device = DeviceId(app.0);
        let all = [
            What::Granted { app, term: Term(4), device, generation: Generation(2), leased: true },
            What::Claimed { app, term: Term(4), cut: manifest, parent: None },
            What::Claimed { app, term: Term(4), cut: manifest, parent: Some(Hex([5; 32])) },
            What::Replicated(manifest),
            What::Phase { app, term: Term(4), phase: "running".into() },
        ];
        for (who, what) in [Who::Hive, Who::Device(device)]
            .into_iter()
            .flat_map(|who| all.iter().map(move |what| (who, what)))
        {
            let line = Line { boottime_ms: 12, boot: Hex([3; 16]), who, what: what.clone() };
            let text = line.to_json();
            assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
            assert_eq!(Line::from_json(text.trim_end()), Ok(line), "{text}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            &"x".repeat(LINE_BYTES_MAX + 1),
            r#"{"boottime_ms":1,"boot":"00","who":"hive","what":"ended"}"#,
        ] {
            assert!(Line::from_json(text).is_err(), "{text}");
        }
    }
}
