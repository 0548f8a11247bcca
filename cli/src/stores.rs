//! The stores of a volume: what its config says of them, and how they are opened.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use fs_format::VolumeId;
use fs_replication::{Remote, StoreId};
use fs_store::{Later, Patience, Patient, Store, StoreError, Surroundings, Url};
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Kind, Result};
use crate::keys;

/// A store of a volume, as its config holds it. The URL holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreConfig {
    /// What a person calls it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The store's own id for the volume, 32 hexadecimal digits.
    pub id: String,
    /// Whether it decides who may write; one of them does.
    pub arbiter: bool,
    /// What it costs, if a person said so ([`crate::cost::Prices`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<String>,
}

impl StoreConfig {
    /// The id as the store has it.
    pub fn store_id(&self) -> Result<StoreId> {
        let damaged =
            || Failure::new(Kind::Damaged, format!("the config has no id of store \"{}\"", self.name));
        let number = u128::from_str_radix(&self.id, 16).map_err(|_| damaged())?;
        Ok(StoreId(number.to_be_bytes()))
    }

    /// A name that no store of the volume has: its kind, with a number from the second on.
    pub fn free_name(url: &str, stores: &[StoreConfig]) -> String {
        let kind = match url.split("://").next() {
            Some("file") => "folder",
            Some("http" | "https") => "webdav",
            Some(kind) => kind,
            None => "store",
        };
        let mut name = kind.to_owned();
        for number in 2.. {
            if stores.iter().all(|store| store.name != name) {
                break;
            }
            name = format!("{kind}{number}");
        }
        name
    }

    /// The text of an id.
    pub fn id_text(id: StoreId) -> String {
        format!("{:032x}", u128::from_be_bytes(id.0))
    }
}

/// The URL that a person gave, as it is kept.
///
/// Not left to the parser of the command line, which repeats in its errors what was given: it may hold a secret.
pub fn parse_url(text: &str) -> Result<String> {
    let url: Url =
        text.parse().map_err(|error: fs_store::BadUrl| Failure::new(Kind::Usage, error.to_string()))?;
    match url.to_string() {
        memory if memory.starts_with("memory://") => Err(Failure::new(
            Kind::Usage,
            "what is in memory:// ends with the process that made it: a volume needs a store that stays",
        )
        .hint("file:///FOLDER is the simplest one")),
        url => Ok(url),
    }
}

/// A store that is opened with the credentials of this process when it is first asked.
pub fn later(url: &str) -> Result<Patient> {
    Ok(Patient::new(Arc::new(Later::new(parsed(url)?, Surroundings::of_process())), seed()?))
}

fn parsed(url: &str) -> Result<Url> {
    url.parse().map_err(|error: fs_store::BadUrl| Failure::new(Kind::Usage, error.to_string()))
}

/// Opens a store with the credentials of this process. One try for each request, with deadlines.
pub async fn open(url: &str) -> Result<Patient> {
    let url = parsed(url)?;
    let inside = fs_store::open(&url, &Surroundings::of_process()).await.map_err(|error| failure(&error))?;
    Ok(Patient::new(inside, seed()?).with(Patience::Once))
}

/// A volume's objects in a store.
pub fn remote(store: &Patient, volume: VolumeId) -> Remote {
    Remote::new(Arc::new(store.clone()) as Arc<dyn Store>, volume)
}

/// Runs what a command has to do with stores.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime(1)?.block_on(work)
}

/// The threads of this process that wait for stores on behalf of files; they end with it.
pub fn handle() -> Result<tokio::runtime::Handle> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle().clone());
    }
    let made = runtime(2)?;
    Ok(RUNTIME.get_or_init(|| made).handle().clone())
}

/// A runtime for work with stores.
pub fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("comb-store")
        .enable_all()
        .build()
        .context("starting the threads for stores")
}

/// A number that differs between machines, for the length of pauses.
pub fn seed() -> Result<u64> {
    Ok(u64::from_le_bytes(keys::chance()?))
}

/// A store's refusal in words for a person.
pub fn failure(error: &StoreError) -> Failure {
    use fs_store::Kind as Of;
    let kind = match error.kind() {
        Of::Absent => Kind::NotFound,
        Of::Exists => Kind::InTheWay,
        Of::Denied => Kind::NotPermitted,
        Of::Refused => Kind::Usage,
        Of::Damaged => Kind::Damaged,
        Of::Busy | Of::Unreachable => Kind::Unreachable,
    };
    Failure::new(kind, error.to_string())
}

/// What went wrong between a volume and a store, in words for a person.
pub fn replication_failure(error: &fs_replication::Error) -> Failure {
    use fs_replication::Error as Of;
    match error {
        Of::Store(error) => failure(error),
        Of::Local(_) | Of::Damaged { .. } => Failure::new(Kind::Damaged, error.to_string()),
        Of::Silent { .. } => Failure::new(Kind::Unreachable, error.to_string())
            .hint("see that the store is up and can be reached from here"),
        _ => Failure::new(Kind::Foreign, error.to_string()),
    }
}
