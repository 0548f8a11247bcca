//! The key ring of this machine, and the versions of it that the hive keeps.
//!
//! The hive cannot read them. Whoever opens one here has its passphrase or this machine's key, so a hive that hands out
//! another account's ring, or an old one, gives nothing away and takes nothing: versions are united, and never go back.

use fs_crypto::Ring;
use fs_replication::RingVersion;
use orchestrator_api::error::Code;
use orchestrator_api::wire::account::RingVersion as Listed;
use orchestrator_api::wire::people::Me;
use orchestrator_api::wire::value::Page;
use orchestrator_device::doors::ring::path;

use super::Client;
use super::client::failure as refusal;
use crate::failure::{Failure, Kind, Result};
use crate::passphrase::PassphraseArgs;
use crate::ring::{self, Opened, failure};
use crate::ring_store;
use crate::state::State;

/// How often it begins again because other devices publish at the same time.
const ROUNDS_MAX: usize = 8;

/// Opens the account's ring here: this machine's, united with the hive's, or the hive's where this machine has none.
pub fn open<'a>(state: &'a State, client: &Client, passphrase: &PassphraseArgs) -> Result<Opened<'a>> {
    if !ring::exists(state) {
        fetch(state, client, passphrase)?;
    }
    let mut opened = ring::open(state, passphrase)?;
    let me: Me = client.get("/v1/me")?;
    if let Some(account) = me.account.ring_account
        && account.0 != opened.ring.account().0
    {
        return Err(Failure::new(
            Kind::Foreign,
            format!("the key ring of this machine is not that of the account \"{}\" at {}", me.account.title, client.hive()),
        )
        .hint("with another state folder (`comb --state DIR …`) this machine takes the account's ring from the hive"));
    }
    sync(&mut opened, client)?;
    Ok(opened)
}

/// The hive's ring becomes this machine's.
fn fetch(state: &State, client: &Client, passphrase: &PassphraseArgs) -> Result<()> {
    let Some(version) = newest(client)? else {
        return Err(Failure::new(Kind::NotFound, "the account has no key ring yet")
            .hint("`comb key ring init` makes one here; a first device that joins makes one, too"));
    };
    let opened = passphrase
        .open("the account's key ring", |typed| Ring::open_with_passphrase(&version.object, typed))?;
    ring::adopt(state, opened, &version.object)
}

/// The newest version that the hive has.
fn newest(client: &Client) -> Result<Option<RingVersion>> {
    let page: Page<Listed> = client.get("/v1/ring?limit=1")?;
    page.items.first().map(|listed| version(client, listed.number.0)).transpose()
}

fn version(client: &Client, number: u64) -> Result<RingVersion> {
    let object = client.object(&format!("/v1/ring/{number}"))?;
    RingVersion::open(object.into())
        .map_err(|error| failure("the key ring that the hive keeps", &fs_crypto::RingError::Format(error)))
}

/// Brings the ring of this machine and of the hive together; the stores of this machine's volumes are left to
/// [`ring_store::publish`].
pub fn sync(opened: &mut Opened<'_>, client: &Client) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let theirs = newest(client)?;
        if let Some(theirs) = &theirs {
            ring_store::join(opened, theirs)?;
        }
        let mine = opened.object()?;
        if theirs.is_some_and(|theirs| theirs.object == mine) {
            return Ok(());
        }
        match client.put_object(&path(&opened.ring, &mine), &mine)? {
            Ok(()) => return Ok(()),
            Err(error) if error.code == Code::RingMoved => {}
            Err(error) => return Err(refusal(client.hive(), *error)),
        }
    }
    Err(Failure::new(Kind::InTheWay, "other devices change the key ring all the time")
        .hint("nothing is lost: this machine has its own version; try again later"))
}

/// Brings the ring to the hive and to every store of this machine's volumes, after a change of it here.
pub fn publish(state: &State, opened: &mut Opened<'_>, client: &Client) -> Result<()> {
    sync(opened, client)?;
    ring_store::publish(state, opened);
    Ok(())
}
