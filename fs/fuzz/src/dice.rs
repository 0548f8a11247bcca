//! Chance with a seed. The simulator has the same dice, and the whole engine behind them, which no decoder needs.

/// A small generator (SplitMix64).
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed and label.
    pub fn seeded(seed: u64, label: &str) -> Self {
        let hash = blake3::hash(label.as_bytes());
        let label = hash.as_bytes()[..8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        Self(seed ^ label)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.roll() % end as u64) as usize }
    }

    /// Whether something of `percent` likelihood happens.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
