//! A part of a long list: `--page FROM:COUNT`.

use std::ops::Range;
use std::str::FromStr;

/// The most that one page has.
const COUNT_MAX: usize = 10_000;

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    from: usize,
    count: usize,
}

impl FromStr for Page {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no part of a list: write FROM:COUNT, like 0:100");
        let (from, count) = text.split_once(':').ok_or_else(wrong)?;
        let from = from.parse().map_err(|_| wrong())?;
        let count = count.parse().map_err(|_| wrong())?;
        match count {
            1..=COUNT_MAX => Ok(Self { from, count }),
            _ => Err(format!("a page has 1 to {COUNT_MAX} entries")),
        }
    }
}

impl Page {
    /// What of a list of this length is on it.
    pub fn of(self, len: usize) -> Range<usize> {
        let from = self.from.min(len);
        from..from.saturating_add(self.count).min(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_part_of_what_there_is() {
        let of = |text: &str, len| text.parse::<Page>().map(|page| page.of(len));
        assert_eq!(of("0:2", 5), Ok(0..2));
        assert_eq!(of("4:2", 5), Ok(4..5));
        assert_eq!(of("9:2", 5), Ok(5..5));
        assert_eq!(of("18446744073709551615:10000", 5), Ok(5..5));
        for text in ["", "1", "1:", ":1", "-1:2", "0:0", "0:10001", "0:1:2"] {
            assert!(text.parse::<Page>().is_err(), "{text}");
        }
    }
}
