//! The stores of a volume: what its config says of them, and how they are opened.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use fs_crypto::VolumeKey;
use fs_format::VolumeId;
use fs_format::manifest::ipns_signature_is_valid;
use fs_replication::{Remote, StoreId};
use fs_store::{HeadKey, Later, Patience, Patient, Store, StoreError, Surroundings, Url};
use fs_volume::Lease;
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Kind, Result};
use crate::keys;
use crate::lease::Leased;
use crate::mounts::{self, Lead};
use crate::state::State;

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
    /// The most bytes a second that go there, unless the mount says otherwise; none is as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
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

/// A store that a volume is read from, which is opened with the credentials of this process when it is first asked.
pub fn later(url: &str, volume: VolumeId) -> Result<Patient> {
    let around = around().of_volume(Arc::new(Head { volume, key: None }));
    Ok(Patient::new(Arc::new(Later::new(parsed(url)?, around)), seed()?))
}

/// Whether key rings can lie in a store, which some kinds keep for one volume alone.
pub fn holds_rings(url: &str) -> bool {
    parsed(url).is_ok_and(|url| !url.is_of_one_volume())
}

fn parsed(url: &str) -> Result<Url> {
    url.parse().map_err(|error: fs_store::BadUrl| Failure::new(Kind::Usage, error.to_string()))
}

/// What this process has around it for stores. A folder on a mount of ours is shut out each time, since a mount may come later than
/// the store: the daemon behind it may wait for that very store.
fn around() -> Surroundings {
    Surroundings::of_process().shutting_out(|folder| match mounts::lead(folder) {
        Ok(Lead { mount: Some(mount), .. }) => Some(format!(
            "a volume is mounted on {}, and no volume is a store of another or of itself; `comb unmount {0}` brings to light what \
             lies below, or mount it elsewhere",
            mount.display()
        )),
        // Whatever is wrong with the path, opening it says.
        _ => None,
    })
}

/// The folder that a store is, without links, if it is one.
pub fn folder(url: &str) -> Result<Option<PathBuf>> {
    parsed(url)?.folder().map(|folder| Ok(mounts::lead(folder)?.path)).transpose()
}

/// Refuses a folder as a store that ends with what it is to outlive: one in this state folder, or in a mounted volume.
pub fn refuse_own(state: &State, url: &str) -> Result<()> {
    let url = parsed(url)?;
    let Some(folder) = url.folder() else { return Ok(()) };
    let Lead { path, mount } = mounts::lead(folder)?;
    let root = mounts::lead(state.root())?.path;
    let (what, why) = match mount {
        Some(mount) => (
            format!("in the volume that is mounted on {}", mount.display()),
            "a volume is no store: what is to read it, or to bring it back, cannot lie in it",
        ),
        None if path.starts_with(&root) => (
            format!("in the state folder {}", root.display()),
            "what is lost with the volume cannot be its other copy",
        ),
        None => return Ok(()),
    };
    Err(Failure::new(Kind::Usage, format!("{} lies {what}: {why}", folder.display()))
        .hint("take a folder on another disk, on a share or in the cloud; any folder outside of both works"))
}

/// Opens a store with the credentials of this process. One try for each request, with deadlines.
pub async fn open(url: &str) -> Result<Patient> {
    open_with(url, around()).await
}

/// The same for a volume that is read there.
pub async fn open_to_read(url: &str, volume: VolumeId) -> Result<Patient> {
    let key = Arc::new(Head { volume, key: None });
    open_with(url, around().of_volume(key)).await
}

/// The same for a volume that is written there.
pub async fn open_to_write(url: &str, key: &VolumeKey) -> Result<Patient> {
    open_with(url, to_write(key)).await
}

/// The same for as long as a lease lasts.
pub async fn open_to_write_under(lease: &Arc<Lease>, url: &str, key: &VolumeKey) -> Result<Patient> {
    let inside = open_inside(url, to_write(key)).await?;
    patient(Arc::new(Leased::new(inside, lease.clone())))
}

fn to_write(key: &VolumeKey) -> Surroundings {
    let key = Arc::new(Head { volume: key.id(), key: Some(key.clone()) });
    around().of_volume(key)
}

async fn open_with(url: &str, around: Surroundings) -> Result<Patient> {
    patient(open_inside(url, around).await?)
}

async fn open_inside(url: &str, around: Surroundings) -> Result<Arc<dyn Store>> {
    fs_store::open(&parsed(url)?, &around).await.map_err(|error| failure(&error))
}

fn patient(inside: Arc<dyn Store>) -> Result<Patient> {
    Ok(Patient::new(inside, seed()?).with(Patience::Once))
}

/// The key under which a volume's head is found on IPFS; with what is secret of it, it is written there.
#[derive(Debug)]
struct Head {
    volume: VolumeId,
    key: Option<VolumeKey>,
}

impl HeadKey for Head {
    fn public(&self) -> [u8; 32] {
        self.volume.0
    }

    fn may_sign(&self) -> bool {
        self.key.is_some()
    }

    fn sign(&self, data: &[u8]) -> Option<[u8; 64]> {
        self.key.as_ref().map(|key| key.sign_ipns(data))
    }

    fn is_signed(&self, data: &[u8], signature: &[u8; 64]) -> bool {
        ipns_signature_is_valid(&self.volume, data, signature)
    }
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
impl From<fs_replication::Error> for Failure {
    fn from(error: fs_replication::Error) -> Self {
        use fs_replication::Error as Of;
        match error {
            Of::Store(error) => failure(&error),
            Of::Local(_) | Of::Damaged { .. } => Failure::new(Kind::Damaged, error.to_string()),
            Of::Silent { .. } => Failure::new(Kind::Unreachable, error.to_string())
                .hint("see that the store is up and can be reached from here"),
            _ => Failure::new(Kind::Foreign, error.to_string()),
        }
    }
}
