//! Bringing an app's volumes to another store, and seeing that a store answers: `comb store move` and `comb store reach`, with what
//! the key ring has for the stores.

use std::time::Duration;

use super::volumes::{Commands, Refused, ended_well};
use crate::failure::{Failure, Kind, Result};

/// How long a store may take until it answers.
const REACH_WAIT: Duration = Duration::from_secs(30);
/// How long all of a volume may take to be elsewhere.
const MOVE_WAIT: Duration = Duration::from_secs(86_400);

/// What a command said, for who asked for it.
fn failure(refused: Refused) -> Failure {
    let kinds = [
        Kind::Usage,
        Kind::InTheWay,
        Kind::Foreign,
        Kind::NoSpace,
        Kind::NotPermitted,
        Kind::Behind,
        Kind::Unreachable,
    ];
    let kind = kinds.into_iter().find(|kind| refused.kind == Some(*kind as i32)).unwrap_or(Kind::Other);
    match refused.text.split_once("\nhint: ") {
        Some((what, hint)) => Failure::new(kind, what).hint(hint),
        None => Failure::new(kind, refused.text),
    }
}

impl Commands {
    /// Whether a store answers, and takes what the key ring has for it.
    pub async fn reach(&self, url: &str) -> Result<()> {
        let said = self.run_with(&["store", "reach", url], &[url.to_owned()], REACH_WAIT, &[]).await;
        said.and_then(ended_well).map(drop).map_err(failure)
    }

    /// Brings a volume of this machine to a store, which decides from then on who writes it.
    pub async fn move_to(&self, name: &str, url: &str) -> Result<()> {
        let mut stores = vec![url.to_owned()];
        stores.extend(self.stores(name));
        let said = self.run_with(&["store", "move", name, url], &stores, MOVE_WAIT, &[]).await;
        said.and_then(ended_well).map(drop).map_err(failure)
    }
}
