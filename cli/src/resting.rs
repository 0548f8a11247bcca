//! What the stores lack of a volume that no daemon has, told without asking them.
//!
//! From what was seen in a store last (`seen/STORE`) and what is sealed here. A volume that was unmounted before everything
//! was sent stays loud: nobody else would notice.

use std::os::unix::ffi::OsStrExt;

use fs_format::Seq;
use fs_volume::{History, Options, SealInfo};

use crate::failure::Result;
use crate::notes::{self, Halted, Seen};
use crate::output;
use crate::promise::{Promise, seconds_since};
use crate::report::StoreReport;
use crate::state::{Config, State, VolumeFolder};
use crate::stores::StoreConfig;
use crate::{elsewhere, engine};

/// Changes that are in no seal: their bytes, and since when there are some, in nanoseconds since 1970.
struct Unsealed {
    bytes: u64,
    since: i64,
}

/// How far each store of a volume is that is not mounted.
pub fn reports(
    state: &State,
    volume: &VolumeFolder,
    config: &Config,
    history: &History,
) -> Result<Vec<StoreReport>> {
    if config.stores.is_empty() {
        return Ok(Vec::new());
    }
    // Who only looks has nothing to send.
    if config.follows {
        return Ok(config.stores.iter().map(|store| followed(volume, store)).collect());
    }
    let seals = history.seals().map_err(|error| engine::open_failure(volume, &error))?;
    let unsealed = unsealed(state, volume, seals.last())?;
    let fenced = notes::ended(volume)?.map(|ended| ended.told());
    let now = engine::now_nanos();
    config
        .stores
        .iter()
        .map(|store| {
            let seen = match Seen::read(volume, &store.name) {
                Ok(seen) => seen.map(|seen| Seq(seen.seq)),
                // Nothing is sent there before somebody says what to believe, so it is loud at once.
                Err(failure) => {
                    let unknown = StoreReport { behind: true, ..StoreReport::new(store, "unknown") };
                    return Ok(unknown.with_error(failure));
                }
            };
            let halted = Halted::read(volume, &store.name)?;
            let has = halted.as_ref().map_or(seen, |halted| halted.left_of(seen));
            let report = report(store, has, &seals, unsealed.as_ref(), fenced.as_deref(), now);
            Ok(match halted.filter(|_| fenced.is_none()) {
                Some(halted) => halted_report(report, halted, now),
                None => report,
            })
        })
        .collect()
}

/// A store of a volume that another device writes: what was seen there last is shown here.
pub fn followed(volume: &VolumeFolder, store: &StoreConfig) -> StoreReport {
    match Seen::read(volume, &store.name) {
        Ok(seen) => {
            StoreReport { replicated_seq: seen.map(|seen| seen.seq), ..StoreReport::new(store, "followed") }
        }
        // Nothing new of it is shown before somebody says what to believe.
        Err(failure) => StoreReport::new(store, "unknown").with_error(failure),
    }
}

/// That of a store to which nothing goes before somebody mends it.
fn halted_report(report: StoreReport, halted: Halted, now: i64) -> StoreReport {
    let noticed = halted.noticed.parse::<jiff::Timestamp>().ok();
    let noticed = noticed.and_then(|noticed| i64::try_from(noticed.as_nanosecond()).ok());
    StoreReport {
        behind: true,
        last_error: Some(halted.why),
        last_error_seconds_ago: noticed.map(|noticed| seconds_since(noticed, now)),
        needs_somebody: true,
        ..report
    }
}

fn report(
    store: &StoreConfig,
    seen: Option<Seq>,
    seals: &[SealInfo],
    unsealed: Option<&Unsealed>,
    fenced: Option<&str>,
    now: i64,
) -> StoreReport {
    let missing = || seals.iter().filter(|seal| Some(seal.seq) > seen);
    let since = missing().map(|seal| seal.time.0).chain(unsealed.map(|unsealed| unsealed.since)).min();
    let late_seconds = Promise::USUAL.late_seconds(now, since, None);
    StoreReport {
        replicated_seq: seen.map(|seq| seq.0),
        safe_as_of: seen.map(|_| output::time_utc(since.map_or(now, |since| since.min(now)))),
        unsafe_seconds: since.map_or(0.0, |since| seconds_since(since, now)),
        unsafe_bytes: missing().map(|seal| seal.added).sum::<u64>()
            + unsealed.map_or(0, |unsealed| unsealed.bytes),
        late_seconds,
        behind: late_seconds > 0.0 || fenced.is_some(),
        last_error: fenced.map(str::to_owned),
        needs_somebody: fenced.is_some(),
        ..StoreReport::new(store, if fenced.is_some() { "fenced" } else { "not-mounted" })
    }
}

/// What a daemon that was killed left in the journal. Nothing where somebody works on the volume right now, who seals it.
fn unsealed(state: &State, volume: &VolumeFolder, newest: Option<&SealInfo>) -> Result<Option<Unsealed>> {
    let Some(begun) = journal_begun(volume) else { return Ok(None) };
    let Ok(lock) = volume.lock_to_read() else { return Ok(None) };
    let options = Options { read_only: true, ..engine::command_options() };
    let here = elsewhere::door_of_what_is_here(volume)?;
    let status = engine::open_through(here, state, volume, &lock, options)?.status();
    if status.is_sealed {
        return Ok(None);
    }
    // After the newest seal, and not before the journal was begun.
    let sealed = newest.map_or(0, |seal| seal.time.0);
    Ok(Some(Unsealed { bytes: status.dirty_bytes, since: sealed.max(begun) }))
}

/// When the oldest part of the journal was begun, 0 where the disk does not tell; none if there is no journal, as a volume
/// is left that was unmounted.
pub fn journal_begun(volume: &VolumeFolder) -> Option<i64> {
    let entries = std::fs::read_dir(volume.path.join("journal")).ok()?.flatten();
    let segments = entries.filter(|entry| !entry.file_name().as_bytes().starts_with(b"."));
    let begun = |entry: std::fs::DirEntry| {
        let time = jiff::Timestamp::try_from(entry.metadata().ok()?.created().ok()?).ok()?;
        i64::try_from(time.as_nanosecond()).ok()
    };
    segments.map(|entry| begun(entry).unwrap_or(0)).min()
}

#[cfg(test)]
mod tests {
    use fs_format::{ManifestId, Timestamp};

    use super::*;

    fn seal(seq: u64, seconds: i64, added: u64) -> SealInfo {
        SealInfo {
            seq: Seq(seq),
            id: ManifestId([0; 32]),
            time: Timestamp(seconds * 1_000_000_000),
            files: 1,
            bytes: 0,
            added,
            snapshot: None,
        }
    }

    fn at(seen: Option<u64>, unsealed: Option<Unsealed>, now: i64) -> (f64, u64, bool) {
        let store = StoreConfig {
            name: "s3".into(),
            url: "s3://bucket".into(),
            id: String::new(),
            arbiter: true,
            prices: None,
            rate: None,
        };
        let seals = [seal(1, 100, 10), seal(2, 200, 20), seal(5, 300, 40)];
        let report = report(&store, seen.map(Seq), &seals, unsealed.as_ref(), None, now * 1_000_000_000);
        (report.unsafe_seconds, report.unsafe_bytes, report.behind)
    }

    #[test]
    fn what_is_sealed_and_was_not_seen_in_a_store_is_not_safe() {
        assert_eq!(at(Some(5), None, 900), (0.0, 0, false), "idle for long, and safe");
        assert_eq!(at(Some(2), None, 310), (10.0, 40, false), "within the promise");
        assert_eq!(at(Some(2), None, 361), (61.0, 40, true));
        assert_eq!(at(Some(1), None, 361), (161.0, 60, true));
        assert_eq!(at(None, None, 361), (261.0, 70, true), "a store that never had anything");
        assert_eq!(at(Some(2), None, 5), (0.0, 40, false), "a clock that was set back");
        let unsealed = || Some(Unsealed { bytes: 7, since: 800_000_000_000 });
        assert_eq!(at(Some(5), unsealed(), 900), (100.0, 7, true));
    }
}
