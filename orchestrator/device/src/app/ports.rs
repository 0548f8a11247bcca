//! Which port of the machine each published port gets.
//!
//! Invariant: what was given stays given, as long as nobody else took it while the app was stopped.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use orchestrator_api::compose::{PlannedPort, Protocol};
use orchestrator_api::placement::Problem;
use serde::{Deserialize, Serialize};

use crate::trouble::{Result, Trouble};

/// Where a port is given from if none is wished for, or the wish is taken.
const GIVEN: std::ops::RangeInclusive<u16> = 20_000..=29_999;

/// A port of the machine that leads to one of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GivenPort {
    /// The service.
    pub service: String,
    /// In its containers.
    pub port: u16,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Whether only the machine itself may reach it.
    pub loopback: bool,
    /// Of the machine.
    pub given: u16,
}

/// Gives every planned port one of the machine.
///
/// `kept` is what it had before; `is_free` asks the machine.
pub fn give(
    planned: &[PlannedPort],
    kept: &[GivenPort],
    is_free: impl Fn(u16, Protocol) -> bool,
) -> Result<Vec<GivenPort>> {
    let mut used = BTreeSet::new();
    let mut given = Vec::new();
    for plan in planned {
        let before = kept.iter().find(|one| {
            (&one.service, one.port, one.protocol, one.loopback)
                == (&plan.service, plan.port, plan.protocol, plan.loopback)
                && !used.contains(&(one.given, one.protocol))
        });
        let wishes = before.map(|one| one.given).into_iter().chain(plan.wish);
        let port = wishes
            .chain(GIVEN)
            .find(|port| !used.contains(&(*port, plan.protocol)) && is_free(*port, plan.protocol))
            .ok_or_else(|| {
                Trouble::new(Problem::PortTaken, "no port from 20000 to 29999 is free")
                    .of(&plan.service)
                    .counted(i64::from(plan.port))
            })?;
        used.insert((port, plan.protocol));
        given.push(GivenPort {
            service: plan.service.clone(),
            port: plan.port,
            protocol: plan.protocol,
            loopback: plan.loopback,
            given: port,
        });
    }
    Ok(given)
}

/// Whether nobody on this machine has a port.
pub fn is_free(port: u16, protocol: Protocol) -> bool {
    let address = (Ipv4Addr::UNSPECIFIED, port);
    match protocol {
        Protocol::Tcp => TcpListener::bind(address).is_ok(),
        Protocol::Udp => UdpSocket::bind(address).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(service: &str, port: u16, wish: Option<u16>) -> PlannedPort {
        PlannedPort { service: service.to_owned(), port, protocol: Protocol::Tcp, wish, loopback: false }
    }

    #[test]
    fn wishes_are_taken_where_they_are_free_and_what_was_given_stays() {
        let planned = [plan("a", 80, Some(8080)), plan("b", 80, Some(8080)), plan("c", 5432, None)];
        let numbers = |given: &[GivenPort]| given.iter().map(|one| one.given).collect::<Vec<_>>();
        let first = give(&planned, &[], |port, _| port != 20_000).expect("there is room");
        assert_eq!(numbers(&first), [8080, 20_001, 20_002]);
        let again = give(&planned, &first, |_, _| true).expect("there is room");
        assert_eq!(again, first);
        let taken = give(&planned, &first, |port, _| port != 20_001).expect("there is room");
        assert_eq!(numbers(&taken), [8080, 20_000, 20_002]);
        let none = give(&planned, &[], |_, _| false).expect_err("nothing is free");
        assert_eq!((none.problem, none.number), (Problem::PortTaken, Some(80)));
    }

    #[test]
    fn a_port_that_somebody_has_is_not_free() {
        let held = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let port = held.local_addr().expect("it is bound").port();
        assert!(!is_free(port, Protocol::Tcp));
    }
}
