//! Moments over time, drawn here as SVG. The list below it says the same in words.
//!
//! Retention keeps many moments of the last hours and few of last year, so the scale is of ages: each step to the left is
//! a longer one.

use std::fmt;

use askama::FastWritable;
use askama::filters::HtmlSafe;
use orchestrator_api::text::Time;

use crate::show::{escape, exact};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 150.0;
/// Where bars stand.
const FLOOR: f64 = 118.0;
const BAR_MAX: f64 = 88.0;
/// Ages below this look alike, in milliseconds; of a short past it is less.
const GRAIN_MS: f64 = 300_000.0;
/// Ages that are written below, with whether a narrow screen has room for them.
const AGES: [(u64, &str, bool); 11] = [
    (60_000, "1 min", false),
    (600_000, "10 min", false),
    (3_600_000, "1 h", true),
    (21_600_000, "6 h", false),
    (86_400_000, "1 day", true),
    (3 * 86_400_000, "3 days", false),
    (7 * 86_400_000, "1 week", true),
    (30 * 86_400_000, "1 month", true),
    (90 * 86_400_000, "3 months", false),
    (365 * 86_400_000, "1 year", true),
    (5 * 365 * 86_400_000, "5 years", true),
];

/// A moment.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Its number.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// What it added, in bytes.
    pub added: u64,
    /// Tags, or why; nothing of those that come by themselves.
    pub label: Option<String>,
    /// Where it leads.
    pub path: String,
}

/// A drawing of moments.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Now.
    pub now: Time,
    /// The moments.
    pub marks: Vec<Mark>,
}

impl HtmlSafe for Timeline {}

impl Timeline {
    fn age(&self, time: Time) -> f64 {
        self.now.0.saturating_sub(time.0).max(0) as f64
    }

    /// Where an age lies between the oldest and now.
    fn at(&self, age_ms: f64) -> f64 {
        let oldest = self.marks.iter().map(|mark| self.age(mark.time)).fold(10_000.0, f64::max);
        let grain = GRAIN_MS.min(oldest / 10.0);
        let of = |ms: f64| (1.0 + ms / grain).ln();
        WIDTH - 14.0 - (WIDTH - 40.0) * of(age_ms) / of(oldest)
    }

    fn write(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let most = self.marks.iter().map(|mark| mark.added).max().unwrap_or(0).max(1);
        let oldest = self.marks.iter().map(|mark| mark.time).min().unwrap_or(self.now);
        write!(
            f,
            "<svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"group\" aria-label=\"{} moments since {}; the list below has each of them\">",
            self.marks.len(),
            exact(oldest),
        )?;
        write!(f, "<path class=\"floor\" d=\"M0 {FLOOR}H{WIDTH}\"/>")?;
        let span = self.age(oldest);
        for (age, label, is_wide) in AGES {
            if (age as f64) < span {
                let (x, class) = (self.at(age as f64), if is_wide { "" } else { " class=\"minor\"" });
                write!(
                    f,
                    "<g{class}><path class=\"step\" d=\"M{x:.1} 14V{FLOOR}\"/><text x=\"{x:.1}\" y=\"142\">{label}</text></g>"
                )?;
            }
        }
        write!(f, "<text class=\"now\" x=\"{WIDTH}\" y=\"142\">now</text>")?;
        // Oldest first, so that newer ones lie above.
        for mark in self.marks.iter().rev() {
            let x = self.at(self.age(mark.time));
            // Twice as much is one step higher.
            let height = 8.0 + (BAR_MAX - 8.0) * (1.0 + mark.added as f64).ln() / (1.0 + most as f64).ln();
            let top = FLOOR - height;
            let label = mark.label.as_deref().unwrap_or("saved by itself");
            write!(
                f,
                "<a href=\"{}\" tabindex=\"-1\"><title>{}, {}, {} changed</title><path class=\"hit\" d=\"M{x:.1} 10V{FLOOR}\"/><path class=\"bar-line{}\" d=\"M{x:.1} {top:.1}V{FLOOR}\"/>",
                escape(&mark.path),
                exact(mark.time),
                escape(label),
                crate::show::bytes(mark.added),
                if mark.label.is_some() { " kept" } else { "" },
            )?;
            if mark.label.is_some() {
                write!(f, "<path class=\"flag-mark\" d=\"M{x:.1} {:.1}l7 7l-7 7l-7-7z\"/>", top - 12.0)?;
            }
            f.write_str("</a>")?;
        }
        f.write_str("</svg><p class=\"legend-own small soft\"><span class=\"key-bar\">saved by itself, higher where more changed</span> <span class=\"key-flag\">kept on purpose</span></p>")
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

impl FastWritable for Timeline {
    fn write_into(&self, into: &mut dyn fmt::Write, _: &dyn askama::Values) -> askama::Result<()> {
        Ok(self.write(into)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_is_drawn_inside_and_newer_ones_further_right() {
        let now = Time(400 * 86_400_000);
        let ages = [0, 60_000, 3_600_000, 86_400_000, 380 * 86_400_000, u64::MAX >> 20];
        let mark = |age: u64| Mark {
            seq: 1,
            time: Time(now.0 - i64::try_from(age).expect("fits")),
            added: age,
            label: (age == 0).then(|| "<tag>".to_owned()),
            path: "/files?volume=a&at=1".to_owned(),
        };
        let timeline = Timeline { now, marks: ages.iter().map(|age| mark(*age)).collect() };
        let places: Vec<f64> =
            timeline.marks.iter().map(|mark| timeline.at(timeline.age(mark.time))).collect();
        assert!(places.is_sorted_by(|one, other| one > other), "{places:?}");
        assert!(places.iter().all(|x| (0.0..=WIDTH).contains(x)), "{places:?}");
        let drawn = timeline.to_string();
        assert_eq!(drawn.matches("<a href=\"/files?volume=a&amp;at=1\"").count(), ages.len());
        assert!(drawn.contains("&lt;tag&gt;") && !drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        let one = Timeline { now, marks: vec![mark(0)] };
        assert!(!one.to_string().contains("NaN"));
    }
}
