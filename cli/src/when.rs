//! WHEN: how a person names a moment of a volume.
//!
//! Two steps, both pure. [`When::parse`] knows the grammar and no volume; [`When::resolve`]
//! finds the moment among the seals of one.
//!
//! ```text
//! 42                              the seal with this number
//! head                            the newest seal
//! release-1                       the newest snapshot with this tag
//! 7d0c2e4a-… or 7d0c              a snapshot by its uuid or the beginning of it (4 digits or more)
//! 2026-11-21T18:00:00Z            the newest seal at or before this time (RFC 3339)
//! 2026-11-21 18:00  2026-11-21    the same in local time
//! today 09:30  yesterday 18:00
//! 10m ago                         s, m, h, d, w
//! ```
//!
//! A tag wins over the beginning of a uuid, and a number over both: [`check_tag`] refuses tags that
//! would never be found.

use fs_format::manifest::TAG_BYTES_MAX;
use fs_volume::SealInfo;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use crate::failure::{Failure, Kind, Result};
use crate::name::{is_name_char, parse_span};
use crate::output;

/// The fewest digits of a uuid that are taken for its beginning.
pub const UUID_DIGITS_MIN: usize = 4;
/// How many matches an "ambiguous" message names.
const MATCHES_SHOWN_MAX: usize = 8;

/// What a person may write for a moment; for messages.
pub const FORMS: &str = "a moment is a seq (42), `head`, a tag, a snapshot's uuid or its beginning, \
                         2026-11-21T18:00:00Z, \"2026-11-21 18:00\", \"yesterday 18:00\" or \"10m ago\"";

/// A moment as written, not yet looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// The newest seal.
    Head,
    /// A seal by number. Also a possible beginning of a uuid, kept as written.
    Seq(u64, String),
    /// The newest seal at or before a time.
    Time(Timestamp),
    /// A tag, or the beginning of a uuid.
    Name(String),
}

impl When {
    /// Reads the grammar above. `now` brings the time and the time zone.
    pub fn parse(text: &str, now: &Zoned) -> Result<When> {
        let refused = || Failure::new(Kind::Usage, format!("{text:?} names no moment")).hint(FORMS);
        let trimmed = text.trim();
        if trimmed == "head" {
            return Ok(When::Head);
        }
        if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
            let seq = trimmed.parse().map_err(|_| refused())?;
            return Ok(When::Seq(seq, trimmed.to_owned()));
        }
        if let Some(time) = parse_time(trimmed, now) {
            return Ok(When::Time(time));
        }
        if trimmed.is_empty() || trimmed.len() > TAG_BYTES_MAX || !trimmed.chars().all(is_name_char) {
            return Err(refused());
        }
        Ok(When::Name(trimmed.to_owned()))
    }

    /// Finds the seal among all seals of a volume, which come oldest first.
    pub fn resolve<'a>(&self, seals: &'a [SealInfo]) -> Result<&'a SealInfo> {
        let newest = seals.last().ok_or_else(|| Failure::new(Kind::NotFound, "the volume has no seals"))?;
        match self {
            When::Head => Ok(newest),
            When::Seq(seq, text) => match seals.iter().find(|seal| seal.seq.0 == *seq) {
                Some(seal) => Ok(seal),
                None => by_uuid(text, seals)?.ok_or_else(|| {
                    Failure::new(
                        Kind::NotFound,
                        format!("there is no seal {seq}; the newest is {}", newest.seq),
                    )
                }),
            },
            When::Time(time) => {
                // Seals are in order of seq. After a clock was set back their times are not, and
                // then the later seal is the one a person means.
                let nanos = i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
                seals.iter().rev().find(|seal| seal.time.0 <= nanos).ok_or_else(|| {
                    let first = &seals[0];
                    Failure::new(
                        Kind::NotFound,
                        format!("there is nothing sealed at or before {}", output::time_utc(nanos)),
                    )
                    .hint(format!(
                        "the first seal is {} of {}",
                        first.seq,
                        output::time_utc(first.time.0)
                    ))
                })
            }
            When::Name(name) => {
                if let Some(seal) = seals.iter().rev().find(|seal| has_tag(seal, name)) {
                    return Ok(seal);
                }
                by_uuid(name, seals)?.ok_or_else(|| {
                    Failure::new(Kind::NotFound, format!("no snapshot has the tag or uuid {name:?}"))
                        .hint("`comb log NAME` lists the moments of a volume")
                })
            }
        }
    }
}

fn has_tag(seal: &SealInfo, tag: &str) -> bool {
    seal.snapshot.as_ref().is_some_and(|label| label.tags.iter().any(|have| have == tag))
}

/// The snapshot whose uuid begins with `text`; `None` if there is none or `text` is no such beginning.
fn by_uuid<'a>(text: &str, seals: &'a [SealInfo]) -> Result<Option<&'a SealInfo>> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.bytes().filter(|b| *b != b'-').count();
    if digits < UUID_DIGITS_MIN || !lower.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    // With or without the hyphens of the usual form.
    let begins = |seal: &&SealInfo| {
        seal.snapshot.as_ref().is_some_and(|label| {
            label.id.to_uuid().starts_with(&lower) || label.id.to_hex().starts_with(&lower)
        })
    };
    let matches: Vec<&SealInfo> = seals.iter().filter(begins).collect();
    match matches.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        many => {
            let shown: Vec<String> = many
                .iter()
                .take(MATCHES_SHOWN_MAX)
                .filter_map(|seal| seal.snapshot.as_ref().map(|label| (seal, label)))
                .map(|(seal, label)| format!("{} (seq {})", label.id.to_uuid(), seal.seq))
                .collect();
            let more = if many.len() > shown.len() { ", …" } else { "" };
            Err(Failure::new(Kind::Usage, format!("{} snapshots begin with {text:?}", many.len()))
                .hint(format!("write more of one of {}{more}", shown.join(", "))))
        }
    }
}

/// Whether a new snapshot may have this tag: one that [`When::parse`] would read as a name.
pub fn check_tag(tag: &str) -> std::result::Result<(), String> {
    if tag.is_empty() || tag.len() > TAG_BYTES_MAX {
        return Err(format!("a tag has 1 to {TAG_BYTES_MAX} characters"));
    }
    if let Some(bad) = tag.chars().find(|c| !is_name_char(*c)) {
        return Err(format!("a tag has letters, digits, '.', '_' and '-', but no {bad:?}"));
    }
    // The answer does not depend on the hour: every form that needs it has a space.
    let noon = Zoned::new(Timestamp::UNIX_EPOCH, TimeZone::UTC);
    match When::parse(tag, &noon) {
        Ok(When::Name(_)) => Ok(()),
        _ => Err(format!("{tag:?} would be read as a number or a time, and never be found")),
    }
}

fn parse_time(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Some(span) = text.strip_suffix("ago") {
        return ago(span, now);
    }
    if let Some(clock) = text.strip_prefix("today ") {
        return local(now.date(), parse_clock(clock)?, now.time_zone());
    }
    if let Some(clock) = text.strip_prefix("yesterday ") {
        return local(now.date().checked_sub(1.day()).ok()?, parse_clock(clock)?, now.time_zone());
    }
    let date: Date = parse_date(text.get(..10)?)?;
    match text.get(10..)? {
        "" => local(date, Time::midnight(), now.time_zone()),
        rest if is_zoned(rest) => rfc3339(date, rest),
        rest => local(date, parse_clock(rest.strip_prefix(['T', 't', ' '])?)?, now.time_zone()),
    }
}

/// `10m `, with whitespace before "ago".
fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span = text.trim_end();
    if span.len() == text.len() || span.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    now.timestamp().checked_sub(parse_span(span).ok()?).ok()
}

/// Exactly `YYYY-MM-DD`.
fn parse_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let shaped =
        bytes.iter().enumerate().all(|(i, b)| if i == 4 || i == 7 { *b == b'-' } else { b.is_ascii_digit() });
    if shaped { text.parse().ok() } else { None }
}

/// Exactly `HH:MM` or `HH:MM:SS`.
fn parse_clock(text: &str) -> Option<Time> {
    let text = text.trim_start();
    let bytes = text.as_bytes();
    let shaped = matches!(bytes.len(), 5 | 8)
        && bytes
            .iter()
            .enumerate()
            .all(|(i, b)| if i == 2 || i == 5 { *b == b':' } else { b.is_ascii_digit() });
    if shaped { text.parse().ok() } else { None }
}

/// Whether the part behind the date ends with `Z` or an offset such as `+02:00`.
fn is_zoned(rest: &str) -> bool {
    rest.ends_with(['Z', 'z']) || rest.bytes().skip(1).any(|b| b == b'+' || b == b'-')
}

/// `T18:00:00Z`, `T18:00:00.25+02:00`: the clock has seconds and the offset a colon.
fn rfc3339(date: Date, rest: &str) -> Option<Timestamp> {
    let body = rest.strip_prefix(['T', 't', ' '])?;
    let offset_len = if body.ends_with(['Z', 'z']) { 1 } else { 6 };
    let (clock, offset) = body.split_at_checked(body.len().checked_sub(offset_len)?)?;
    let (whole, fraction) =
        clock.split_once('.').map_or((clock, None), |(whole, fraction)| (whole, Some(fraction)));
    if whole.len() != 8 || fraction.is_some_and(|f| f.is_empty() || !f.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    parse_clock(whole)?;
    if offset_len == 6 && offset.as_bytes()[3] != b':' {
        return None;
    }
    format!("{date}T{clock}{}", offset.to_ascii_uppercase()).parse().ok()
}

/// A local time; in the gap of a time change the later reading, in the fold the earlier.
fn local(date: Date, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    Some(date.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use fs_format::{ManifestId, Seq, SnapshotId, Timestamp as SealTime};
    use fs_volume::SnapshotLabel;

    use super::*;

    /// Noon of 21 November 2026 in Berlin, which is one hour ahead of UTC then.
    fn now() -> Zoned {
        "2026-11-21T12:00:00+01:00[Europe/Berlin]".parse().expect("a valid time")
    }

    fn utc(text: &str) -> Timestamp {
        text.parse().expect("a valid time")
    }

    fn seal(seq: u64, time: &str) -> SealInfo {
        SealInfo {
            seq: Seq(seq),
            id: ManifestId([seq as u8; 32]),
            time: SealTime(i64::try_from(utc(time).as_nanosecond()).expect("this century")),
            files: 0,
            bytes: 0,
            added: 0,
            snapshot: None,
        }
    }

    fn snapshot(seq: u64, time: &str, uuid: &str, tags: &[&str]) -> SealInfo {
        let id = SnapshotId::from_hex(&uuid.replace('-', "")).expect("a uuid");
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        SealInfo { snapshot: Some(SnapshotLabel { id, message: String::new(), tags }), ..seal(seq, time) }
    }

    fn history() -> Vec<SealInfo> {
        vec![
            seal(1, "2026-11-20T16:00:00Z"),
            snapshot(2, "2026-11-20T17:00:00Z", "abcd0000-0000-4000-8000-000000000001", &["release"]),
            seal(3, "2026-11-20T18:00:00Z"),
            snapshot(4, "2026-11-21T08:00:00Z", "abcd1111-0000-4000-8000-000000000002", &["release", "beef"]),
            snapshot(5, "2026-11-21T10:00:00Z", "beef2222-0000-4000-8000-000000000003", &[]),
            snapshot(6, "2026-11-21T10:55:00Z", "12342222-0000-4000-8000-000000000004", &[]),
        ]
    }

    fn find(text: &str) -> Result<u64> {
        When::parse(text, &now())?.resolve(&history()).map(|seal| seal.seq.0)
    }

    #[test]
    fn every_form_finds_its_moment() {
        let table = [
            ("head", 6),
            ("1", 1),
            ("4", 4),
            // A tag finds the newest snapshot that has it, before a uuid that begins like it.
            ("release", 4),
            ("beef", 4),
            ("beef2", 5),
            ("BEEF2222", 5),
            ("abcd0000-0000-4000-8000-000000000001", 2),
            ("abcd0000-00", 2),
            ("abcd1", 4),
            // Digits are a seq first, and the beginning of a uuid if there is no such seq.
            ("1234", 6),
            ("2026-11-20T17:00:00Z", 2),
            ("2026-11-20t17:59:59.999z", 2),
            ("2026-11-20T18:00:00+01:00", 2),
            ("2026-11-20 19:00:00-05:00", 3),
            ("2026-11-20 18:00", 2),
            ("2026-11-20T18:59:59", 2),
            ("2026-11-20 19:00", 3),
            ("2026-11-21", 3),
            ("yesterday 18:00", 2),
            ("yesterday 18:00:01", 2),
            ("yesterday 23:59", 3),
            ("today 09:30", 4),
            ("today 00:00", 3),
            ("10m ago", 5),
            ("5m ago", 6),
            ("3h ago", 4),
            ("1d ago", 0),
            ("0s ago", 6),
            ("2026-12-24 18:00", 6),
            (" head ", 6),
        ];
        for (text, seq) in table {
            match find(text) {
                Ok(found) => assert_eq!(found, seq, "{text:?}"),
                Err(failure) => assert_eq!((seq, failure.kind), (0, Kind::NotFound), "{text:?}: {failure}"),
            }
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_as_such() {
        let table = [
            "",
            " ",
            "yesterday",
            "yesterday 18",
            "yesterday 25:00",
            "today 9:30",
            "10 ago",
            "10m",
            "m ago",
            "10mago",
            "ten minutes ago",
            "2026-11-21 18",
            "2026-13-01 10:00",
            "2026-11-21T18:00:00+0200",
            "2026-11-21T18:00:00.Z",
            "a tag",
            "a/b",
            "a:b",
            "größe",
            "99999999999999999999999",
        ];
        for text in table {
            match When::parse(text, &now()) {
                // These have the letters of a tag; that they are none is for the volume to say.
                Ok(When::Name(_)) => assert!(["yesterday", "10m", "10mago"].contains(&text), "{text:?}"),
                Ok(other) => panic!("{text:?} was read as {other:?}"),
                Err(failure) => assert_eq!(failure.kind, Kind::Usage, "{text:?}"),
            }
        }
    }

    #[test]
    fn an_ambiguous_beginning_lists_the_matches() {
        let failure = find("abcd").expect_err("two snapshots begin so");
        assert_eq!(failure.kind, Kind::Usage);
        let hint = failure.hint.expect("a hint");
        assert!(hint.contains("abcd0000-0000-4000-8000-000000000001 (seq 2)"), "{hint}");
        assert!(hint.contains("abcd1111-0000-4000-8000-000000000002 (seq 4)"), "{hint}");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for text in ["7", "0", "nothing", "abc", "ffff", "2026-11-20T15:59:59Z", "99d ago"] {
            assert_eq!(find(text).expect_err(text).kind, Kind::NotFound, "{text:?}");
        }
    }

    #[test]
    fn after_a_clock_was_set_back_the_later_seal_is_meant() {
        let seals = [seal(1, "2026-11-21T10:00:00Z"), seal(2, "2026-11-21T09:00:00Z")];
        let found = When::Time(utc("2026-11-21T10:30:00Z")).resolve(&seals).expect("both are before");
        assert_eq!(found.seq, Seq(2));
    }

    #[test]
    fn a_time_in_the_hour_that_the_clock_skips_is_read_an_hour_later() {
        // Berlin skips from 02:00 to 03:00 on 29 March 2026.
        let read = When::parse("2026-03-29 02:30", &now()).expect("a time");
        assert_eq!(read, When::Time(utc("2026-03-29T01:30:00Z")));
    }

    #[test]
    fn a_tag_that_would_never_be_found_is_refused() {
        for good in ["release", "v1.2", "beef", "a-b_c", "2026-11-21-evening"] {
            assert_eq!(check_tag(good), Ok(()), "{good}");
        }
        for bad in ["", "head", "12", "2026-11-21", "2026-11-21T18:00:00", "a b", "ü", &"x".repeat(256)] {
            assert!(check_tag(bad).is_err(), "{bad:?} was taken");
        }
    }
}
