//! How far a store of a volume is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::promise::Promise;
use crate::stores::StoreConfig;

/// How far a store of a volume is, as `comb status` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Whether it decides who may write.
    pub arbiter: bool,
    /// What is done: `starting`, `sending`, `replicated`, `waiting`, `fenced`, `lease-over`, `not-open`. Of a volume at rest `not-mounted`, or
    /// `unknown` where nobody knows what it has; `no-answer` where its daemon does not tell; `followed` where another device
    /// writes it.
    pub state: String,
    /// The last seal that it has; of a store that is followed, that was seen there last.
    pub replicated_seq: Option<u64>,
    /// Up to when all changes are in it, RFC 3339; none if it has nothing yet.
    pub safe_as_of: Option<String>,
    /// For how long there have been changes that it lacks, in seconds.
    pub unsafe_seconds: f64,
    /// Bytes that it lacks: packs on their way, and what is not sealed.
    pub unsafe_bytes: u64,
    /// Bytes a second that go there now.
    pub rate: u64,
    /// Bytes of packs that were sent since the mount began.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Within how many seconds a change is promised to be in it: the pause before a seal, and sending.
    #[serde(default)]
    pub promised_seconds: f64,
    /// By how many seconds it is later than that.
    #[serde(default)]
    pub late_seconds: f64,
    /// Whether it is later than promised.
    pub behind: bool,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How many seconds ago that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_seconds_ago: Option<f64>,
    /// In how many seconds it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_seconds: Option<f64>,
    /// Whether it has said that it has what is told of it, since somebody asked for that last (`comb sync`).
    #[serde(default)]
    pub verified: bool,
    /// For how long a store that is followed has not been seen; none if it was when it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_seconds: Option<f64>,
    /// Whether trying again will not help before somebody mends it.
    pub needs_somebody: bool,
}

impl StoreReport {
    /// A store of which nothing is known.
    pub fn new(store: &StoreConfig, state: &str) -> Self {
        Self {
            name: store.name.clone(),
            url: store.url.clone(),
            arbiter: store.arbiter,
            state: state.into(),
            replicated_seq: None,
            safe_as_of: None,
            unsafe_seconds: 0.0,
            unsafe_bytes: 0,
            rate: 0,
            sent_bytes: 0,
            promised_seconds: Promise::USUAL.seconds(),
            late_seconds: 0.0,
            behind: false,
            last_error: None,
            last_error_seconds_ago: None,
            next_try_seconds: None,
            verified: false,
            unseen_seconds: None,
            needs_somebody: false,
        }
    }

    /// With what somebody must mend.
    pub fn with_error(self, failure: Failure) -> Self {
        Self { last_error: Some(failure.in_one_line()), needs_somebody: true, ..self }
    }

    /// Whether nobody knows that it has this seal: it did not say so since it was asked.
    pub fn may_lack(&self, seq: u64) -> bool {
        self.replicated_seq < Some(seq) || self.needs_somebody || !self.verified
    }

    /// Whether it is no use to wait for this store, as was found within this time.
    pub fn is_stuck(&self, within: Duration) -> bool {
        let found = self.last_error_seconds_ago.is_some_and(|ago| ago < within.as_secs_f64());
        self.needs_somebody && found
    }
}
