//! Whether this machine's clocks can be believed: what `comb doctor` says of them.
//!
//! Values in, values out. Leases are counted on `CLOCK_BOOTTIME`, which is believed to 1 % (`failover.md`, section 3); the
//! wall clock is shown to people, ends packages, and stores check it.

use std::collections::VecDeque;

use crate::Boottime;

/// How often a look is kept, and for how long, in milliseconds.
const LOOK_EVERY: u64 = 60_000;
const LOOKS_FOR: u64 = 3_600_000;
/// Two clocks are compared over no shorter time.
const COMPARED_OVER: u64 = 600_000;
/// The wall clock may be so far from the hive's, which tells whole seconds.
const APART_MAX_S: i64 = 60;
/// 2026: no machine with this program ran before.
const EARLIEST_MS: i64 = 1_767_225_600_000;

/// What the clocks said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clocks {
    looks: VecDeque<(Boottime, i64)>,
    now: (Boottime, i64),
    ahead_of_hive_s: Option<i64>,
}

impl Clocks {
    /// A look at both: `CLOCK_BOOTTIME` and the wall clock, in milliseconds.
    pub fn look(&mut self, boottime: Boottime, wall: i64) {
        self.now = (boottime, wall);
        if self.looks.back().is_none_or(|(last, _)| boottime.saturating_sub(*last) >= LOOK_EVERY) {
            self.looks.push_back((boottime, wall));
        }
        while self.looks.front().is_some_and(|(first, _)| boottime.saturating_sub(*first) > LOOKS_FOR) {
            self.looks.pop_front();
        }
    }

    /// What the hive's clock said in an answer, and this one's wall clock then; both in seconds.
    pub fn heard(&mut self, hive: i64, wall: i64) {
        self.ahead_of_hive_s = Some(wall.saturating_sub(hive));
    }

    /// What is right about them, or wrong.
    pub fn check(&self) -> Result<String, String> {
        if self.now.1 < EARLIEST_MS {
            return Err(format!(
                "this machine believes that it is {}: {SET_IT}",
                orchestrator_api::text::Time(self.now.1)
            ));
        }
        if let Some(ahead) = self.ahead_of_hive_s.filter(|ahead| ahead.abs() > APART_MAX_S) {
            let way = if ahead > 0 { "ahead of" } else { "behind" };
            return Err(format!(
                "this machine's clock is {} {way} the hive's, so one of the two is wrong: {SET_IT}",
                length(ahead.unsigned_abs())
            ));
        }
        let Some((first, wall)) = self.looks.front() else {
            return Ok("nothing is known of it yet".to_owned());
        };
        let passed = self.now.0.saturating_sub(*first);
        let apart = (self.now.1 - wall).abs_diff(i64::try_from(passed).unwrap_or(i64::MAX));
        if passed >= COMPARED_OVER && apart > passed / 100 {
            return Err(format!(
                "in the last {} the wall clock and the one that counts leases came {} apart: if nobody set the clock, one of \
                 them runs more than 1 % wrong, and leases are counted wrong with it; see what `timedatectl` says, and use no \
                 `auto` app here until it is right",
                length(passed / 1_000),
                length(apart / 1_000),
            ));
        }
        let beside = self.ahead_of_hive_s.map_or("", |_| ", and goes with the hive's");
        Ok(format!("it has been even for {}{beside}", length(passed / 1_000)))
    }
}

const SET_IT: &str = "moments get a wrong time, packages end too early or too late, and stores such as S3 refuse requests; \
                      `timedatectl set-ntp true` sets it";

/// A length of time in the two units that matter.
fn length(seconds: u64) -> String {
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => two(seconds / 60, "min", seconds % 60, "s"),
        7_200..172_800 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "days", seconds % 86_400 / 3_600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: i64 = 1_795_000_000_000;

    fn after(minutes: u64, wall_for_a_minute: i64) -> Clocks {
        let mut clocks = Clocks::default();
        for minute in 0..=minutes {
            clocks
                .look(5_000 + minute * 60_000, WALL + i64::try_from(minute).unwrap_or(0) * wall_for_a_minute);
        }
        clocks
    }

    #[test]
    fn clocks_that_go_together_are_right() {
        assert_eq!(after(30, 60_000).check().as_deref(), Ok("it has been even for 30 min"));
        assert!(after(600, 60_100).check().is_ok_and(|text| text.contains("60 min")), "only the last hour");
        assert!(after(5, 90_000).check().is_ok(), "too short to tell");
        assert!(Clocks::default().check().is_err(), "1970");
    }

    #[test]
    fn a_clock_that_runs_wrong_or_was_set_is_told() {
        for wall in [60_700, 59_300, 90_000, 0] {
            let text = after(30, wall).check().expect_err("they came apart");
            assert!(text.contains("apart") && text.contains("timedatectl"), "{text}");
        }
        assert!(
            after(30, 60_700).check().is_err_and(|text| text.contains("30 min") && text.contains("21 s"))
        );
    }

    #[test]
    fn a_clock_that_is_far_from_the_hives_is_told_with_its_way() {
        let mut clocks = after(30, 60_000);
        clocks.heard(1_000_000, 1_000_059);
        assert_eq!(clocks.check().as_deref(), Ok("it has been even for 30 min, and goes with the hive's"));
        clocks.heard(1_000_000, 1_007_265);
        assert!(clocks.check().is_err_and(|text| text.contains("2 h 1 min ahead of the hive's")));
        clocks.heard(1_000_000, 1_000_000 - 259_200);
        assert!(clocks.check().is_err_and(|text| text.contains("3 days behind the hive's")));
    }
}
