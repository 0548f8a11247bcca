//! Sizes and rates, with units, in powers of 1,024.

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

fn scaled(number: f64) -> String {
    let mut number = number.max(0.0);
    let mut unit = 0;
    while number >= 1023.5 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || number >= 99.5 { 0 } else { 1 };
    let text = format!("{number:.digits$}");
    let text = if digits == 1 { text.trim_end_matches(".0") } else { &text };
    format!("{text} {}", UNITS[unit])
}

/// A size: `1.4 GiB`.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64)
}

/// A rate: `1.4 MiB/s`.
pub fn rate(bytes_per_s: f64) -> String {
    format!("{}/s", scaled(bytes_per_s))
}

/// A part of something: `42 %`. Of nothing it is none.
pub fn percent(part: u64, whole: u64) -> u64 {
    (part.min(whole) as f64 * 100.0 / whole.max(1) as f64).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (200 << 20, "200 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (u64::MAX, "16384 PiB"),
        ];
        for (number, text) in table {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(rate(1_500_000.0), "1.4 MiB/s");
        assert_eq!(rate(-1.0), "0 B/s");
        assert_eq!((percent(1, 3), percent(5, 0), percent(9, 4)), (33, 0, 100));
    }
}
