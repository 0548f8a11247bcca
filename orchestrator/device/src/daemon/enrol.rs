//! How a machine becomes a device of a hive (`security.md`, section 4).

use std::io;
use std::path::Path;
use std::time::Duration;

use fs_crypto::{Identity, Ring};
use orchestrator_api::code::JoinCode;
use orchestrator_api::ids::{HelloNumber, SessionId};
use orchestrator_api::text::Hex;
use orchestrator_api::wire::{RING_BYTES_MAX, account, device as wire};
use serde::Deserialize;

use super::files::{Folder, HiveFile};
use super::talk::{first_hello, join_words};
use crate::doors::disk::Files;
use crate::doors::hive::{Ask, Hive, HiveError};
use crate::doors::ring;
use crate::record;

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(30);

/// Why a machine did not become a device.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The hive says no, or is away.
    #[error(transparent)]
    Hive(#[from] HiveError),
    /// The disk.
    #[error("{0}")]
    Disk(#[from] io::Error),
    /// Its name is none.
    #[error("{0:?} is no name for a device: 1 to 64 characters that can be shown")]
    Name(String),
}

/// What a join is made of.
pub struct JoinOf<'a> {
    /// The state folder of `comb`.
    pub state: &'a Path,
    /// Where the hive is.
    pub url: &'a str,
    /// The code that it made.
    pub code: &'a JoinCode,
    /// What the device is to be called.
    pub name: &'a str,
    /// Of this program.
    pub version: &'a str,
    /// Whether the hive may have packages sealed here.
    pub accepts_authoring: bool,
    /// The seed of the new identity, which is kept should the join have to be said again.
    pub seed: [u8; 32],
    /// Random bytes that name this run of the process.
    pub run: [u8; 16],
}

/// A device that has just joined, and speaks to its hive.
pub struct Enrolled {
    /// What the hive said.
    pub joined: wire::Joined,
    hive: Hive,
    session: SessionId,
}

#[derive(Deserialize)]
struct RingList {
    items: Vec<account::RingVersion>,
}

/// Joins: the identity is on the disk before the hive hears of it, so a lost answer is asked for again as the same device.
pub async fn join(of: JoinOf<'_>) -> Result<Enrolled, EnrolError> {
    let folder = Folder::of(of.state);
    let pending = folder.0.join("identity.pending");
    crate::doors::disk::make(&folder.0)?;
    let seed = match std::fs::read(&pending) {
        Ok(seed) => seed.try_into().unwrap_or(of.seed),
        Err(_) => of.seed,
    };
    crate::doors::disk::replace(&pending, &seed)?;
    let identity = Identity::from_seed(seed);
    let words = join_words(identity.public(), of.name, of.version);
    let words = words.ok_or_else(|| EnrolError::Name(of.name.to_owned()))?;
    let hive = Hive::new(of.url, of.code.hive, None, identity.clone())?;
    let joined: wire::Joined = match hive.join(of.code, &words).await {
        // The code was used up, or never was one: the next try begins with a new identity.
        Err(error @ HiveError::Refused { .. }) => {
            let _ = std::fs::remove_file(&pending);
            return Err(error.into());
        }
        answer => answer?,
    };
    let file = HiveFile {
        url: of.url.trim_end_matches('/').to_owned(),
        key: Hex(of.code.hive),
        device: joined.device,
        account: joined.account,
        name: joined.name.clone(),
        accepts_authoring: of.accepts_authoring,
        auto_update: joined.auto_update,
    };
    folder.joined(&identity, &file)?;
    std::fs::remove_file(&pending)?;
    Files::new(&folder.0)?
        .write_identity(&record::Identity { hello: HelloNumber(1), ..record::Identity::default() })?;
    let hive = Hive::new(of.url, of.code.hive, Some(joined.device), identity)?;
    let hello = serde_json::to_vec(&first_hello(1, of.run, of.version)).map_err(io::Error::from)?;
    let ask = Ask {
        session: None,
        number: Some(1),
        method: "POST",
        path: "/v1/device/hello",
        body: &hello,
        json: true,
        wait: WAIT,
        bytes_max: 64 << 10,
    };
    let welcome: wire::Welcome = hive.ask(&ask).await?;
    Ok(Enrolled { joined, hive, session: welcome.session })
}

impl Enrolled {
    /// The newest key ring that the hive has.
    pub async fn ring(&self) -> Result<Option<Vec<u8>>, EnrolError> {
        let list: RingList = self.hive.ask(&Ask::get(self.session, "/v1/ring", WAIT)).await?;
        let Some(newest) = list.items.first() else { return Ok(None) };
        let path = format!("/v1/ring/{}", newest.number.0);
        let ask = Ask { bytes_max: RING_BYTES_MAX, ..Ask::get(self.session, &path, WAIT) };
        Ok(Some(self.hive.bytes(&ask).await?))
    }

    /// Hands a key ring to the hive.
    pub async fn put_ring(&self, ring: &Ring, object: &[u8]) -> Result<(), EnrolError> {
        let path = ring::path(ring, object);
        let ask = Ask { method: "PUT", json: false, ..Ask::post(self.session, &path, object, WAIT) };
        self.hive.bytes(&ask).await?;
        Ok(())
    }
}
