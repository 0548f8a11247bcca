//! The hive, as a person speaks with it: `orchestrator/docs/api.md`, sections 4 and 11.
//!
//! - `address`   where it is, and whether a token may be sent there
//! - `logins`    the hives that this machine knows, with their tokens
//! - `client`    requests and answers; errors of a hive in words for a person
//! - `find`      names of apps, devices and stores, as a person writes them
//! - `orders`    watching what was ordered until it ends
//! - `words`     codes in words for a person
//! - `ring`      the key ring of this machine and of the hive
//! - `folder`, `compose`, `author`, `sealed`   making a package of an app's folder
//! - `stream`    what a device says to whoever has the ring
//! - `here`      orders that this machine's device takes where the hive does not answer
//! - `moments`   the past of an app
//! - `old`       a compose project as it ran before it was an app of Comb
//!
//! Answers to people are not signed: TLS protects them, or that both are one machine. So a token goes over plain http to
//! loopback only, unless a person says that the network is theirs. What a hive says is shown and placed, and never
//! decides what is opened: keys come from the ring.

pub mod address;
pub mod author;
pub mod client;
pub mod compose;
pub mod find;
pub mod folder;
pub mod here;
pub mod logins;
pub mod moments;
pub mod old;
pub mod orders;
pub mod ring;
pub mod sealed;
pub mod stream;
pub mod words;

pub use client::Client;
pub use logins::HiveArgs;

use orchestrator_api::wire::value::Hidden;

use crate::failure::{Failure, Kind, Result};

/// Something secret that was typed, as it travels.
pub fn hidden(text: &str) -> Result<Hidden> {
    Hidden::new(text.to_owned()).map_err(|error| Failure::new(Kind::Usage, format!("what was given {error}")))
}
