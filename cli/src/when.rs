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
//! 2026-11-21T18:00:00Z.3          seal 3, as `.snapshots` lists it among several of one second
//! 2026-11-21 18:00  2026-11-21    the same in local time
//! today 09:30  yesterday 18:00
//! 10m ago  10m                    s, m, h, d, w
//! ```
//!
//! Seals have nanoseconds, and lists show whole seconds. So a time is as long as it is written: a second
//! is all of it, a minute too, and the newest seal within it is meant. A time that a list shows finds
//! what it was shown for. A date alone is the midnight that begins it.
//!
//! A tag wins over the beginning of a uuid, and a number or a time over both: [`check_tag`] refuses tags that
//! would never be found. What may begin a uuid, such as `100d`, is no time without "ago": nothing but what was meant is found.

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
                         2026-11-21T18:00:00Z, \"2026-11-21 18:00\", \"yesterday 18:00\" or 10m (ago)";

/// A moment as written, not yet looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// The newest seal.
    Head,
    /// A seal by number. Also a possible beginning of a uuid, kept as written.
    Seq(u64, String),
    /// The newest seal within a time; if there is none, the newest before it.
    Time(Span),
    /// A seal by its time and number, as `.snapshots` lists it.
    Listed(Span, u64),
    /// A tag, or the beginning of a uuid.
    Name(String),
}

/// A time as long as it was written: a minute, a second or a nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first nanosecond since 1970.
    first: i128,
    /// Its last.
    last: i128,
}

/// A second, in nanoseconds.
const SECOND: i128 = 1_000_000_000;
/// A minute, in nanoseconds.
const MINUTE: i128 = 60 * SECOND;
/// A day, in nanoseconds.
const DAY: i128 = 24 * 60 * MINUTE;

impl Span {
    fn new(first: i128, nanos: i128) -> Self {
        Self { first, last: first + nanos - 1 }
    }

    fn instant(time: Timestamp) -> Self {
        Self::new(time.as_nanosecond(), 1)
    }

    /// The millisecond since 1970 that it ends in.
    pub fn end_ms(&self) -> i64 {
        i64::try_from(self.last.div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    fn holds(&self, seal: &SealInfo) -> bool {
        (self.first..=self.last).contains(&i128::from(seal.time.0))
    }

    fn is_before_end(&self, seal: &SealInfo) -> bool {
        i128::from(seal.time.0) <= self.last
    }
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
        if let Some((time, seq)) = parse_listed(trimmed) {
            return Ok(When::Listed(time, seq));
        }
        let is_name =
            !trimmed.is_empty() && trimmed.len() <= TAG_BYTES_MAX && trimmed.chars().all(is_name_char);
        if !is_name || is_like_a_time(trimmed) {
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
                let newest_where =
                    |is_meant: &dyn Fn(&SealInfo) -> bool| seals.iter().rev().find(|s| is_meant(s));
                newest_where(&|seal| time.holds(seal))
                    .or_else(|| newest_where(&|seal| time.is_before_end(seal)))
                    .ok_or_else(|| {
                        let first = &seals[0];
                        let what = match i64::try_from(time.first) {
                            Ok(nanos) => format!("at or before {}", output::time_utc(nanos)),
                            Err(_) => "so early".into(),
                        };
                        Failure::new(Kind::NotFound, format!("there is nothing sealed {what}")).hint(format!(
                            "the first seal is {} of {}",
                            first.seq,
                            output::time_utc(first.time.0)
                        ))
                    })
            }
            When::Listed(time, seq) => {
                seals.iter().find(|seal| seal.seq.0 == *seq && time.holds(seal)).ok_or_else(|| {
                    Failure::new(Kind::NotFound, format!("there is no seal {seq} of that time"))
                        .hint("`comb log NAME` lists the moments of a volume")
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

/// Whether it may be a uuid or the beginning of one.
fn may_begin_a_uuid(text: &str) -> bool {
    text.bytes().filter(|b| *b != b'-').count() >= UUID_DIGITS_MIN
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// The snapshot whose uuid begins with `text`; `None` if there is none or `text` is no such beginning.
fn by_uuid<'a>(text: &str, seals: &'a [SealInfo]) -> Result<Option<&'a SealInfo>> {
    if !may_begin_a_uuid(text) {
        return Ok(None);
    }
    let lower = text.to_ascii_lowercase();
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
    // The answer does not depend on the hour.
    let noon = Zoned::new(Timestamp::UNIX_EPOCH, TimeZone::UTC);
    match When::parse(tag, &noon) {
        Ok(When::Name(_)) => Ok(()),
        _ => Err(format!("{tag:?} would be read as a number or a time, and never be found")),
    }
}

fn parse_time(text: &str, now: &Zoned) -> Option<Span> {
    if let Some(span) = text.strip_suffix("ago") {
        return span.ends_with(char::is_whitespace).then(|| ago(span.trim_end(), now)).flatten();
    }
    if !may_begin_a_uuid(text)
        && let Some(time) = ago(text, now)
    {
        return Some(time);
    }
    if let Some(clock) = text.strip_prefix("today ") {
        return local(now.date(), clock, now.time_zone());
    }
    if let Some(clock) = text.strip_prefix("yesterday ") {
        return local(now.date().checked_sub(1.day()).ok()?, clock, now.time_zone());
    }
    let date: Date = parse_date(text.get(..10)?)?;
    match text.get(10..)? {
        "" => Some(Span::instant(at(date, Time::midnight(), now.time_zone()))),
        rest if is_zoned(rest) => rfc3339(date, rest),
        rest => local(date, rest.strip_prefix(['T', 't', ' '])?, now.time_zone()),
    }
}

/// `2026-11-21T18:00:00Z.3`: a whole second in UTC and a seq.
fn parse_listed(text: &str) -> Option<(Span, u64)> {
    let (time, seq) = text.rsplit_once('.')?;
    let clock = time.get(10..).filter(|clock| clock.len() == "T18:00:00Z".len() && clock.ends_with('Z'))?;
    let digits = seq.bytes().all(|b| b.is_ascii_digit());
    let time = rfc3339(parse_date(&time[..10])?, clock)?;
    if digits { Some((time, seq.parse().ok()?)) } else { None }
}

/// `10m`: so long before now.
fn ago(span: &str, now: &Zoned) -> Option<Span> {
    if span.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    now.timestamp().checked_sub(parse_span(span).ok()?).ok().map(Span::instant)
}

/// Exactly `YYYY-MM-DD`.
fn parse_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let shaped =
        bytes.iter().enumerate().all(|(i, b)| if i == 4 || i == 7 { *b == b'-' } else { b.is_ascii_digit() });
    if shaped { text.parse().ok() } else { None }
}

/// Exactly `HH:MM` or `HH:MM:SS`; how long it is, too.
fn parse_clock(text: &str) -> Option<(Time, i128)> {
    let text = text.trim_start();
    let bytes = text.as_bytes();
    let shaped =
        bytes.iter().enumerate().all(|(i, b)| if i == 2 || i == 5 { *b == b':' } else { b.is_ascii_digit() });
    let nanos = match bytes.len() {
        5 => MINUTE,
        8 => SECOND,
        _ => return None,
    };
    if shaped { Some((text.parse().ok()?, nanos)) } else { None }
}

/// Whether the part behind the date ends with `Z` or an offset such as `+02:00`.
fn is_zoned(rest: &str) -> bool {
    rest.ends_with(['Z', 'z']) || rest.bytes().skip(1).any(|b| b == b'+' || b == b'-')
}

/// `T18:00:00Z`, `T18:00:00.25+02:00`: the clock has seconds and the offset a colon.
fn rfc3339(date: Date, rest: &str) -> Option<Span> {
    let body = rest.strip_prefix(['T', 't', ' '])?;
    let offset_len = if body.ends_with(['Z', 'z']) { 1 } else { 6 };
    let (clock, offset) = body.split_at_checked(body.len().checked_sub(offset_len)?)?;
    let (whole, fraction) =
        clock.split_once('.').map_or((clock, None), |(whole, fraction)| (whole, Some(fraction)));
    if whole.len() != 8 || fraction.is_some_and(|f| f.is_empty() || !f.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let (time, _) = parse_clock(whole)?;
    let offset = if offset_len == 6 { parse_offset(offset)? } else { 0 };
    let (fraction, nanos) = fraction.map_or((0, SECOND), |digits| (nanoseconds(digits), 1));
    // By hand, since the years 0 and 9999 are valid to their ends, whatever the offset.
    let days = i128::from(date.since(Date::constant(1970, 1, 1)).ok()?.get_days());
    let of_day = (i128::from(time.hour()) * 60 + i128::from(time.minute())) * MINUTE
        + i128::from(time.second()) * SECOND;
    Some(Span::new(days * DAY + of_day + fraction - offset, nanos))
}

/// The first nine digits of a fraction of a second; seals have no more.
fn nanoseconds(digits: &str) -> i128 {
    digits
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'))
}

/// `+02:00`, in nanoseconds.
fn parse_offset(text: &str) -> Option<i128> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (clock, nanos) = parse_clock(text.get(1..)?)?;
    (nanos == MINUTE).then(|| sign * (i128::from(clock.hour()) * 60 + i128::from(clock.minute())) * MINUTE)
}

/// Whether it begins like a time, which is then a mistake and no name.
fn is_like_a_time(text: &str) -> bool {
    let shape = b"dddd-dd-ddTd";
    text.len() >= shape.len()
        && text.bytes().zip(shape).all(|(byte, &want)| match want {
            b'd' => byte.is_ascii_digit(),
            want => byte.eq_ignore_ascii_case(&want),
        })
}

/// A local time as long as its clock is written.
fn local(date: Date, clock: &str, zone: &TimeZone) -> Option<Span> {
    let (time, nanos) = parse_clock(clock)?;
    Some(Span::new(at(date, time, zone).as_nanosecond(), nanos))
}

/// A local time; in the gap of a time change the later reading, in the fold the earlier.
fn at(date: Date, time: Time, zone: &TimeZone) -> Timestamp {
    // It fails at the ends of time alone.
    let end = if date.year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
    date.to_datetime(time).to_zoned(zone.clone()).map_or(end, |zoned| zoned.timestamp())
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
            ("10m", 5),
            ("10min", 5),
            ("3h", 4),
            ("1d", 0),
            ("0s", 6),
            ("2026-12-24 18:00", 6),
            ("2026-11-20T17:59:59.9999999999999Z", 2),
            ("2026-11-20T12:00:00-05:30", 2),
            ("9999-12-31T23:59:59Z", 6),
            ("9999-12-31T23:59:59-23:59", 6),
            ("9999-12-31", 6),
            ("0000-01-01T00:00:00Z", 0),
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
            "m ago",
            "10mago",
            "ten minutes ago",
            "2026-11-21 18",
            "2026-13-01 10:00",
            "2026-11-21T18:00:00+0200",
            "2026-11-21T18:00:00.Z",
            "2026-11-21T24",
            "2026-11-21T24:00:00Z",
            "2026-11-21T18:00:00+25:00",
            "2026-02-29T18:00:00Z",
            "a tag",
            "a/b",
            "a:b",
            "größe",
            "99999999999999999999999",
        ];
        for text in table {
            match When::parse(text, &now()) {
                // These have the letters of a tag; that they are none is for the volume to say.
                Ok(When::Name(_)) => assert!(["yesterday", "10mago"].contains(&text), "{text:?}"),
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
        for text in ["7", "0", "nothing", "abc", "ffff", "2026-11-20T15:59:59Z", "99d ago", "99d", "100d"] {
            assert_eq!(find(text).expect_err(text).kind, Kind::NotFound, "{text:?}");
        }
    }

    #[test]
    fn after_a_clock_was_set_back_the_later_seal_is_meant() {
        let seals = [seal(1, "2026-11-21T10:00:00Z"), seal(2, "2026-11-21T09:00:00Z")];
        let found =
            When::Time(Span::instant(utc("2026-11-21T10:30:00Z"))).resolve(&seals).expect("both are before");
        assert_eq!(found.seq, Seq(2));
    }

    #[test]
    fn a_time_that_a_list_shows_finds_what_it_was_shown_for() {
        let seals = [
            seal(1, "2026-11-21T09:28:35.1Z"),
            seal(2, "2026-11-21T09:28:35.9Z"),
            seal(3, "2026-11-21T09:28:36.5Z"),
            seal(4, "2026-11-21T09:29:10Z"),
            // The clock was set back.
            seal(5, "2026-11-21T09:28:00Z"),
        ];
        let table = [
            ("2026-11-21T09:28:35Z", 2),
            ("2026-11-21 10:28:35", 2),
            ("today 10:28:35", 2),
            ("2026-11-21T09:28:36Z", 3),
            ("2026-11-21 10:28:36", 3),
            ("2026-11-21 10:29", 4),
            ("2026-11-21T09:28:35.5Z", 5),
            ("2026-11-21T09:28:35.9Z", 2),
            ("2026-11-21T09:28:37Z", 5),
            ("2026-11-21T09:28:35Z.1", 1),
            ("2026-11-21T09:28:35Z.2", 2),
        ];
        for (text, seq) in table {
            let found = When::parse(text, &now()).and_then(|when| when.resolve(&seals).cloned());
            assert_eq!(
                found.unwrap_or_else(|failure| panic!("{text:?}: {failure}")).seq,
                Seq(seq),
                "{text:?}"
            );
        }
        for text in ["2026-11-21T09:28:35Z.3", "2026-11-21T09:28:35Z.9"] {
            let when = When::parse(text, &now()).expect("the form of a moment");
            assert_eq!(when.resolve(&seals).expect_err(text).kind, Kind::NotFound);
        }
        for text in ["2026-11-21T09:28:35Z.", "2026-11-21T09:28:35Z.x", "2026-11-21T09:28Z.1"] {
            assert_eq!(When::parse(text, &now()).expect_err(text).kind, Kind::Usage);
        }
    }

    #[test]
    fn a_time_in_the_hour_that_the_clock_skips_is_read_an_hour_later() {
        // Berlin skips from 02:00 to 03:00 on 29 March 2026.
        let read = When::parse("2026-03-29 02:30", &now()).expect("a time");
        assert_eq!(read, When::Time(Span::new(utc("2026-03-29T01:30:00Z").as_nanosecond(), MINUTE)));
    }

    #[test]
    fn a_tag_that_would_never_be_found_is_refused() {
        for good in ["release", "v1.2", "beef", "a-b_c", "2026-11-21-evening"] {
            assert_eq!(check_tag(good), Ok(()), "{good}");
        }
        for bad in
            ["", "head", "12", "10m", "2026-11-21", "2026-11-21T18:00:00", "a b", "ü", &"x".repeat(256)]
        {
            assert!(check_tag(bad).is_err(), "{bad:?} was taken");
        }
    }
}
