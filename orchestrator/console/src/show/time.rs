//! Times: relative, with the exact one on hover and for programs.

use orchestrator_api::text::Time;

use super::html::Html;

/// A length of time in words: two digits are enough.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (number, unit) = match seconds {
        0..=119 => return format!("{seconds} s"),
        120..=7_199 => (seconds / 60, "min"),
        7_200..=172_799 => (seconds / 3_600, "h"),
        172_800..=5_183_999 => (seconds / 86_400, "days"),
        5_184_000..=63_071_999 => (seconds / 2_592_000, "months"),
        _ => (seconds / 31_536_000, "years"),
    };
    format!("{number} {unit}")
}

/// The exact time, as a person reads it.
pub fn exact(time: Time) -> String {
    let text = time.to_string();
    let (date, clock) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {} UTC", clock.get(..8).unwrap_or(clock))
}

fn time(then: Time, words: &str, kind: &str) -> Html {
    // What the script counts on; without one it stays as it was when the page was made.
    Html::of(format!("<time datetime=\"{then}\" title=\"{}\"{kind}>{words}</time>", exact(then)))
}

/// When something happened: `4 s ago`.
pub fn ago(then: Time, now: Time) -> Html {
    match u64::try_from(now.0 - then.0) {
        Ok(ms) => time(then, &format!("{} ago", span(ms)), " data-ago"),
        Err(_) => time(then, "just now", " data-ago"),
    }
}

/// How old something is that was reported `age_ms` before now: `4 s ago`.
pub fn as_of(age_ms: u64, now: Time) -> Html {
    ago(Time(now.0.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX))), now)
}

/// For how long something has been so that began `age_ms` before now: `32 s`.
pub fn lasting(age_ms: u64, now: Time) -> Html {
    let then = Time(now.0.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX)));
    time(then, &span(age_ms), " data-for")
}

/// When something will end: `in 15 min`.
pub fn until(then: Time, now: Time) -> Html {
    match u64::try_from(then.0 - now.0) {
        Ok(ms) => time(then, &format!("in {}", span(ms)), " data-until"),
        Err(_) => time(then, "over", " data-until"),
    }
}

/// The exact time, shown.
pub fn when(then: Time) -> Html {
    time(then, &exact(then), "")
}

/// The time of its day, to the second.
pub fn clock(then: Time) -> Html {
    let text = then.to_string();
    time(then, text.get(11..19).unwrap_or_default(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit() {
        let table = [
            (0, "0 s"),
            (999, "0 s"),
            (4_000, "4 s"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (7_199_000, "119 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 days"),
            (86_400_000 * 60, "2 months"),
            (86_400_000 * 730, "2 years"),
        ];
        for (ms, words) in table {
            assert_eq!(span(ms), words);
        }
    }

    #[test]
    fn a_time_is_relative_and_exact() {
        let now: Time = "2026-11-22T08:30:04.500Z".parse().expect("is a time");
        let then: Time = "2026-11-22T08:30:00.000Z".parse().expect("is a time");
        let told = "<time datetime=\"2026-11-22T08:30:00.000Z\" title=\"2026-11-22 08:30:00 UTC\" data-ago>4 s ago</time>";
        assert_eq!(ago(then, now).as_str(), told);
        assert_eq!(as_of(4_500, now).as_str(), told);
        assert!(ago(now, then).as_str().ends_with(">just now</time>"));
        assert!(until(now, then).as_str().ends_with(">in 4 s</time>"));
        assert!(until(then, now).as_str().ends_with(">over</time>"));
        assert!(as_of(u64::MAX, now).as_str().contains("1970-01-01"));
    }
}
