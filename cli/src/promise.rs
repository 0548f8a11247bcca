//! How soon a change is in the stores of a volume, and how late one is.

use std::time::Duration;

/// How often what changed is sealed where it goes to stores, if nobody says otherwise.
pub const SEND_EVERY: Duration = Duration::from_secs(15);
/// How long sealing and sending may take before a volume is loud.
const SENDING: Duration = Duration::from_secs(45);

/// How soon a change is in the stores.
///
/// What is promised follows from how often the volume is sealed: whoever wants fewer seals waits longer for each change, and is
/// not told that this is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// None seals only when asked: then what is sealed is promised, and no more.
    pub seal_every: Option<Duration>,
}

impl Promise {
    /// That of a volume of which nothing else was said.
    pub const USUAL: Self = Self { seal_every: Some(SEND_EVERY) };

    /// From the oldest change on; from the oldest seal on, where nobody knows when the next is made.
    pub fn seconds(&self) -> f64 {
        (self.seal_every.unwrap_or_default() + SENDING).as_secs_f64()
    }

    /// By how many seconds a store is late that lacks changes since then, and seals since then, in nanoseconds since 1970.
    pub fn late_seconds(&self, now: i64, changes: Option<i64>, seals: Option<i64>) -> f64 {
        let since = if self.seal_every.is_some() { changes } else { seals };
        since.map_or(0.0, |since| (seconds_since(since, now) - self.seconds()).max(0.0))
    }
}

/// The seconds between two moments, in nanoseconds since 1970; none if a clock was set back.
pub fn seconds_since(then: i64, now: i64) -> f64 {
    now.saturating_sub(then).max(0) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_follows_from_how_often_it_is_sealed() {
        let late = |seal_every: Option<u64>, change: Option<i64>, seal: Option<i64>| {
            let at = |ago: i64| (1000 - ago) * 1_000_000_000;
            let promise = Promise { seal_every: seal_every.map(Duration::from_secs) };
            promise.late_seconds(1000 * 1_000_000_000, change.map(at), seal.map(at))
        };
        assert_eq!(late(Some(15), None, None), 0.0, "idle");
        assert_eq!(late(Some(15), Some(60), None), 0.0);
        assert_eq!(late(Some(15), Some(61), None), 1.0);
        assert_eq!(late(Some(300), Some(345), Some(45)), 0.0, "slower, as somebody wished");
        assert_eq!(late(Some(300), Some(400), None), 55.0);
        assert_eq!(late(None, Some(900), None), 0.0, "nobody asked for a seal");
        assert_eq!(late(None, Some(900), Some(50)), 5.0, "somebody did");
        assert_eq!(late(Some(15), Some(-100), None), 0.0, "a clock that was set back");
    }
}
