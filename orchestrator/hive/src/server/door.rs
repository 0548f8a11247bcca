//! Doors that anybody may knock at: logins, setup, invitations, joining. What was wrong is counted by address.
//!
//! Invariants
//! - A try counts as a failure until it was right: nobody guesses faster by asking at once, or by not waiting.
//! - An IPv6 address counts with its /64, which is what one household has.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use orchestrator_api::error::Code;
use parking_lot::Mutex;

use super::auth::Whose;
use super::call::Call;
use super::fail::Fail;

/// Wrong passwords and codes of an address within [`WINDOW`].
const FAILURES_MAX: usize = 20;
const WINDOW: Duration = Duration::from_secs(600);
/// Addresses that are remembered. Beyond, only what a name is wrong about counts.
const PLACES_MAX: usize = 100_000;

/// From where somebody comes, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(IpAddr);

impl From<IpAddr> for Place {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(it) => {
                let [a, b, c, d, ..] = it.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        })
    }
}

/// What was tried in vain.
#[derive(Debug, Default)]
pub struct Doors {
    tried: Mutex<HashMap<Place, VecDeque<Instant>>>,
}

impl Doors {
    /// Counts a try, or says after how many milliseconds there is another one.
    fn knock(&self, place: Place, now: Instant) -> Result<(), u64> {
        let is_old = |at: &Instant| now.duration_since(*at) >= WINDOW;
        let mut tried = self.tried.lock();
        if tried.len() >= PLACES_MAX && !tried.contains_key(&place) {
            tried.retain(|_, times| !times.back().is_none_or(is_old));
            if tried.len() >= PLACES_MAX {
                return Ok(());
            }
        }
        let times = tried.entry(place).or_default();
        while times.front().is_some_and(is_old) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= FAILURES_MAX => {
                let wait = WINDOW.saturating_sub(now.duration_since(*first));
                Err(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1))
            }
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }

    /// Takes back what counted as a failure and was none.
    fn forgive(&self, place: Place, at: Instant) {
        let mut tried = self.tried.lock();
        let Some(times) = tried.get_mut(&place) else { return };
        if let Some(one) = times.iter().position(|time| *time == at) {
            times.remove(one);
        }
        if times.is_empty() {
            tried.remove(&place);
        }
    }
}

fn is_guess(fail: &Fail) -> bool {
    let Fail::Api(error) = fail else { return false };
    matches!(
        error.code,
        Code::LoginWrong
            | Code::SecondWrong
            | Code::CodeWrong
            | Code::CodeUsed
            | Code::CodeExpired
            | Code::SetupCodeWrong
    )
}

/// Does what somebody wants who may be anybody, if not too much of what came from there was wrong.
pub async fn knock<T>(call: &Call, work: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
    let (place, now) = (Place::from(call.address), Instant::now());
    call.shared.limits.take(Whose::Door(place)).map_err(Fail::slow_down)?;
    call.shared
        .doors
        .knock(place, now)
        .map_err(|ms| Fail::wait(ms, "too many passwords or codes from this address were wrong"))?;
    let done = work.await;
    if !done.as_ref().is_err_and(is_guess) {
        call.shared.doors.forgive(place, now);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::from(text.parse::<IpAddr>().expect("is an address"))
    }

    #[test]
    fn a_place_is_a_household() {
        assert_eq!(place("2001:db8:1:2::1"), place("2001:db8:1:2:ffff::9"));
        assert_ne!(place("2001:db8:1:2::1"), place("2001:db8:1:3::1"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
        assert_ne!(place("192.0.2.1"), place("192.0.2.2"));
    }

    #[test]
    fn twenty_failures_in_ten_minutes_are_enough() {
        let (doors, begun) = (Doors::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let here = place("2001:db8::1");
        for number in 0..20 {
            // One that was right leaves nothing behind, however many there are.
            assert_eq!(doors.knock(here, at(number)), Ok(()));
            doors.forgive(here, at(number));
            assert_eq!(doors.knock(place("2001:db8::2"), at(number)), Ok(()));
        }
        assert_eq!(doors.knock(here, at(60)), Err(540_000));
        assert_eq!(doors.knock(place("192.0.2.1"), at(60)), Ok(()));
        assert_eq!(doors.knock(here, at(600)), Ok(()), "the first one is ten minutes old");
        assert_eq!(doors.knock(here, at(600)), Err(1_000));
    }
}
