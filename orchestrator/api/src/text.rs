//! Forms of texts that travel (`api.md`, section 1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `[a-z][a-z0-9-]{0,62}`: names of apps and devices.
pub fn is_app_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// `[A-Za-z0-9._-]{1,64}`, not beginning with `-`.
pub fn is_short_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether a character turns the direction of what stands beside it.
fn turns(one: char) -> bool {
    matches!(one, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character shows nothing by itself, steers what shows it, or changes how what stands beside it is shown. Where names of
/// others are shown it stands as its number, or is left out.
pub fn is_unseen(one: char) -> bool {
    one.is_control()
        || turns(one)
        || matches!(one,
            '\u{00ad}' | '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text without control characters, without those that end a line, and without those that turn the direction of what stands beside
/// them. Others that show nothing are in it: letters of some scripts, and pictures, are joined by them.
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(|one| one.is_control() || turns(one) || matches!(one, '\u{2028}' | '\u{2029}'))
}

/// 1 to 64 characters without control characters: what people call a thing.
pub fn is_title(text: &str) -> bool {
    is_plain(text) && (1..=64).contains(&text.chars().take(65).count())
}

/// One `@`, no blanks, at most 254 bytes, not beginning with `-`.
pub fn is_email(text: &str) -> bool {
    let parts = text.split('@').collect::<Vec<_>>();
    text.len() <= 254
        && !text.starts_with('-')
        && !text.chars().any(|one| one.is_whitespace() || one.is_control())
        && matches!(parts[..], [name, host] if !name.is_empty() && !host.is_empty())
}

/// A domain in lower case: labels of letters, digits and hyphens, at most 253 bytes.
pub fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A UUID of version 4, lower case with hyphens: the only form in which it travels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not {0}")]
pub struct FormError(pub &'static str);

impl FromStr for Uuid {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let wrong = FormError("a UUID of version 4 in lower case");
        let bytes = text.as_bytes();
        if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|at| bytes[*at] != b'-') {
            return Err(wrong);
        }
        let digits: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'-').collect();
        let id = from_hex::<16>(&digits).ok_or(wrong)?;
        if id[6] >> 4 != 4 || id[8] >> 6 != 2 { Err(wrong) } else { Ok(Self(id)) }
    }
}

impl TryFrom<String> for Uuid {
    type Error = FormError;

    fn try_from(text: String) -> Result<Self, FormError> {
        text.parse()
    }
}

impl From<Uuid> for String {
    fn from(id: Uuid) -> String {
        id.to_string()
    }
}

/// Bytes that travel as lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        from_hex(text.as_bytes())
            .map(Self)
            .ok_or(FormError("lower-case hexadecimal digits of the right number"))
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = FormError;

    fn try_from(text: String) -> Result<Self, FormError> {
        text.parse()
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(hex: Hex<N>) -> String {
        hex.to_string()
    }
}

fn from_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(digits[2 * at])? << 4 | digit(digits[2 * at + 1])?;
    }
    Some(bytes)
}

/// Milliseconds since 1970, which travel as RFC 3339 in UTC: `2026-11-22T08:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub i64);

/// The last moment that can be written: the end of the year 9999.
const TIME_MS_MAX: i64 = 253_402_300_799_999;

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.clamp(0, TIME_MS_MAX);
        let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
        // Years are counted from March, so that the leap day is the last of one.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
    }
}

impl FromStr for Time {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let wrong = FormError("a time like 2026-11-22T08:30:00.000Z");
        let bytes = text.as_bytes();
        let frame = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if !(20..=24).contains(&bytes.len()) || frame.iter().any(|(at, byte)| bytes[*at] != *byte) {
            return Err(wrong);
        }
        let number = |from: usize, to: usize| {
            bytes[from..to].iter().try_fold(0i64, |number, byte| {
                byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
            })
        };
        let fraction = match &bytes[19..] {
            b"Z" => 0,
            [b'.', digits @ .., b'Z'] if (1..=3).contains(&digits.len()) => {
                number(20, 20 + digits.len()).ok_or(wrong)? * 10i64.pow(3 - digits.len() as u32)
            }
            _ => return Err(wrong),
        };
        let part = |from, to| number(from, to).ok_or(wrong);
        let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
        let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return Err(wrong),
        };
        if year < 1970 || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return Err(wrong);
        }
        let shifted = if month <= 2 { year - 1 } else { year };
        let (era, year_of_era) = (shifted / 400, shifted % 400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        Ok(Self(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + fraction))
    }
}

impl TryFrom<String> for Time {
    type Error = FormError;

    fn try_from(text: String) -> Result<Self, FormError> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_are_what_the_table_says() {
        assert!(is_app_name("a") && is_app_name("hasty-hopper-2") && is_app_name(&"a".repeat(63)));
        for text in ["", "-a", "2a", "A", "a_b", "a.b", &"a".repeat(64)] {
            assert!(!is_app_name(text), "{text}");
        }
        assert!(
            is_short_name("a.b_C-1") && !is_short_name("-a") && !is_short_name("a b") && !is_short_name("")
        );
        assert!(
            is_email("a@b.c")
                && !is_email("a@b@c")
                && !is_email("-a@b")
                && !is_email("a b@c")
                && !is_email("@b")
        );
        assert!(is_domain("app.example.org") && is_domain("a"));
        for text in ["", ".", "a..b", "-a.b", "a-.b", "A.b", "a.b.", "a_b.c", &"a".repeat(64)] {
            assert!(!is_domain(text), "{text}");
        }
        assert!(is_title("Zürich 5") && is_title(&"ü".repeat(64)));
        assert!(!is_title("") && !is_title(&"ü".repeat(65)) && !is_title("a\nb"));
        assert!(is_plain("Zürich \"5\"") && !is_plain("a\nb") && !is_plain("a\u{2028}b"));
        for one in ['\u{61c}', '\u{200e}', '\u{200f}', '\u{202e}', '\u{2067}'] {
            assert!(!is_title(&format!("a{one}b")), "{:x} turns the direction", u32::from(one));
        }
        assert!(is_title("👩\u{200d}🚒 \u{2764}\u{fe0f}"), "pictures are joined by what shows nothing");
    }

    #[test]
    fn what_is_refused_anywhere_is_seen_nowhere() {
        for one in (0..=0x10_ffff).filter_map(char::from_u32) {
            let is_plain = is_plain(one.encode_utf8(&mut [0; 4]));
            assert!(is_plain || is_unseen(one), "{:x}", u32::from(one));
        }
        for one in ['\u{ad}', '\u{3164}', '\u{200b}', '\u{fe0f}', '\u{feff}', '\0', '\t'] {
            assert!(is_unseen(one), "{:x}", u32::from(one));
        }
        assert!(!"aü 日本\u{a0}👩".chars().any(is_unseen));
    }

    #[test]
    fn a_uuid_has_one_form() {
        let text = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
        assert_eq!(text.parse::<Uuid>().expect("version 4").to_string(), text);
        for text in [
            "3F2504E0-4F89-41D3-9A0C-0305E82C3301",
            "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
            "3f2504e0-4f89-41d3-ca0c-0305e82c3301",
            "3f2504e04f8941d39a0c0305e82c3301",
            "{3f2504e0-4f89-41d3-9a0c-0305e82c3301}",
            "3f2504e0-4f89-41d3-9a0c-0305e82c33-1",
            "",
        ] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_comes_back() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_336_200_123, "2026-11-22T08:30:00.123Z"),
            (TIME_MS_MAX, "9999-12-31T23:59:59.999Z"),
        ];
        for (ms, text) in table {
            assert_eq!(Time(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Time(ms)));
        }
        assert_eq!("2026-11-22T08:30:00Z".parse(), Ok(Time(1_795_336_200_000)));
        assert_eq!("2026-11-22T08:30:00.5Z".parse(), Ok(Time(1_795_336_200_500)));
        for text in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T08:30:00+01:00",
            "2026-11-22 08:30:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-22T08:30:00.Z",
            "2026-11-22T08:30:00.1234Z",
            "+026-11-22T08:30:00Z",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_comes_back(ms in 0..=TIME_MS_MAX) {
            prop_assert_eq!(Time(ms).to_string().parse::<Time>(), Ok(Time(ms)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9TZ:.-]{18,26}") {
            let _ = (text.parse::<Time>(), text.parse::<Uuid>(), text.parse::<Hex<16>>());
            let _ = (is_app_name(&text), is_domain(&text), is_email(&text), is_plain(&text));
        }
    }
}
