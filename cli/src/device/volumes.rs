//! The filesystem's commands, as the device's daemon asks for them: each is this program, with its own state folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use fs_format::{DeviceId, Epoch, ManifestId, Seq, VolumeId};
use orchestrator_api::placement::{Expect, Head, Problem, StoreView};
use orchestrator_api::text::Hex;
use orchestrator_device::doors::program::{self, Call, Said};
use orchestrator_device::doors::volumes::{
    Answers, Branch, MountState, Seal, StoreState, Unclaimed, VolumeState, Volumes, Which,
};
use orchestrator_device::trouble::{Result, Trouble};
use orchestrator_device::{Boottime, Cut, Here, Look};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::credentials;
use crate::failure::Kind;
use crate::name::VolumeName;
use crate::report::{MountReport, SealReport, StoreReport};
use crate::state::State;

/// How long a command may take that only looks.
const LOOK_WAIT: Duration = Duration::from_secs(30);
/// How long a command may take that asks a store for more.
const STORE_WAIT: Duration = Duration::from_secs(120);
/// How long unmounting may take: a daemon seals, and its stores get 30 s.
const UNMOUNT_WAIT: Duration = Duration::from_secs(90);
/// How long a volume may be brought to its stores where nobody waits for it.
const SEAL_WAIT: &str = "5s";
/// What is read of a command's output, in bytes.
const OUTPUT_BYTES_MAX: usize = 32 << 20;

/// The commands of this program.
pub struct Commands {
    program: PathBuf,
    state: State,
    folder: PathBuf,
}

/// What a command answers that did not do what it was asked for.
pub(super) struct Refused {
    pub(super) kind: Option<i32>,
    pub(super) text: String,
}

impl Refused {
    fn is(&self, kind: Kind) -> bool {
        self.kind == Some(kind as i32)
    }

    fn trouble(self) -> Trouble {
        let problem = match self.kind {
            Some(code) if code == Kind::Damaged as i32 => Problem::VolumeDamaged,
            Some(code) if code == Kind::Foreign as i32 => Problem::KeyMissing,
            Some(code) if code == Kind::NotFound as i32 => Problem::KeyMissing,
            Some(code) if code == Kind::NoSpace as i32 => Problem::NoSpace,
            Some(code) if code == Kind::NotPermitted as i32 => Problem::VolumeReadOnly,
            Some(code) if code == Kind::Behind as i32 => Problem::PublishLate,
            Some(code) if code == Kind::Unexpected as i32 => Problem::HeadUnexpected,
            Some(code) if code == Kind::Silent as i32 => Problem::MountDead,
            _ if self.text.contains("denied") => Problem::StoreDenied,
            _ => Problem::StoreUnreachable,
        };
        Trouble::new(problem, self.text)
    }
}

pub(super) type Answer<T> = std::result::Result<T, Refused>;

impl Commands {
    /// This program on a state folder; `folder` is the device's own.
    pub fn new(state: State, folder: PathBuf) -> Self {
        let own = std::env::current_exe().ok().filter(|path| path.exists());
        Self { program: own.unwrap_or_else(|| "/proc/self/exe".into()), state, folder }
    }

    async fn run(&self, args: &[&str], stores: &[String], limit: Duration) -> Answer<Said> {
        self.run_with(args, stores, limit, &[]).await
    }

    /// The same with something on its standard input.
    pub(super) async fn run_with(
        &self,
        args: &[&str],
        stores: &[String],
        limit: Duration,
        input: &[u8],
    ) -> Answer<Said> {
        self.with_call(args, stores, limit, async |call| {
            program::run_with(&call, input)
                .await
                .map_err(|silent| Refused { kind: None, text: silent.to_string() })
        })
        .await
    }

    /// A call of this program with its state folder, and what the stores ask for.
    pub(super) async fn with_call<T>(
        &self,
        args: &[&str],
        stores: &[String],
        limit: Duration,
        work: impl AsyncFnOnce(Call<'_>) -> Answer<T>,
    ) -> Answer<T> {
        let failed = |text: String| Refused { kind: None, text };
        let root = self.state.root().to_string_lossy().into_owned();
        let mut all = vec!["--state", root.as_str()];
        all.extend(args);
        let mut environment = credentials::environment(self.state.root(), &self.credentials(), stores)
            .map_err(|error| failed(format!("credentials of stores: {error}")))?;
        let home = self.folder.join("home").to_string_lossy().into_owned();
        environment.insert("HOME".to_owned(), home);
        let call = Call {
            program: &self.program,
            args: &all,
            environment: &environment,
            folder: Path::new("/"),
            limit,
            output_bytes_max: OUTPUT_BYTES_MAX,
        };
        work(call).await
    }

    async fn ask(&self, args: &[&str], stores: &[String], limit: Duration) -> Answer<Said> {
        ended_well(self.run(args, stores, limit).await?)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        args: &[&str],
        stores: &[String],
        limit: Duration,
    ) -> Answer<T> {
        self.json_with(args, stores, limit, &[]).await
    }

    /// What a command answers that gets `input`.
    pub(super) async fn json_with<T: DeserializeOwned>(
        &self,
        args: &[&str],
        stores: &[String],
        limit: Duration,
        input: &[u8],
    ) -> Answer<T> {
        read(&ended_well(self.run_with(args, stores, limit, input).await?)?)
    }

    /// Where a volume of this machine goes.
    pub(super) fn stores(&self, name: &str) -> Vec<String> {
        let volume = name.parse::<VolumeName>().ok().and_then(|name| self.state.volume(&name).ok());
        let config = volume.and_then(|volume| volume.config().ok());
        config.map(|config| config.stores.into_iter().map(|store| store.url).collect()).unwrap_or_default()
    }

    /// The folder with the credentials of stores.
    fn credentials(&self) -> PathBuf {
        self.folder.join("stores")
    }

    /// Adds what a volume does not go to yet.
    async fn add_stores(&self, name: &str, stores: &[String]) -> Answer<()> {
        let there = self.stores(name);
        for url in stores.iter().filter(|url| !there.contains(url)) {
            self.ask(&["store", "add", name, url], stores, STORE_WAIT).await?;
        }
        Ok(())
    }
}

/// What a command said that did what it was asked for; else why it did not.
pub(super) fn ended_well(said: Said) -> Answer<Said> {
    match said.code {
        Some(0) => Ok(said),
        kind => {
            let lines =
                said.errors.lines().filter(|line| line.starts_with("error:") || line.starts_with("hint:"));
            let text = lines.collect::<Vec<_>>().join("\n");
            Err(Refused { kind, text: text.trim_start_matches("error: ").to_owned() })
        }
    }
}

pub(super) fn read<T: DeserializeOwned>(said: &Said) -> Answer<T> {
    serde_json::from_slice(&said.output).map_err(|error| Refused {
        kind: None,
        text: format!("what the command said is not understood: {error}"),
    })
}

#[derive(Deserialize)]
struct Named {
    public_key: Hex<32>,
}

#[derive(Deserialize)]
struct Slot {
    epoch: u64,
    seq: u64,
    manifest: Hex<32>,
    #[serde(default)]
    parent: Option<Hex<32>>,
    #[serde(default)]
    writer: Option<Hex<16>>,
    #[serde(default)]
    is_own: bool,
    #[serde(default)]
    is_here: bool,
}

impl Slot {
    fn head(&self) -> Head {
        Head { epoch: Epoch(self.epoch), seq: Seq(self.seq), manifest: ManifestId(self.manifest.0) }
    }
}

#[derive(Deserialize)]
struct Claim {
    epoch: u64,
    writer: Hex<16>,
}

#[derive(Deserialize)]
struct HereReport {
    writer: Hex<16>,
    epoch: Option<u64>,
    is_others: bool,
    taken_over: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct HeadReport {
    newest: Option<Slot>,
    claim: Option<Claim>,
    here: HereReport,
}

impl HeadReport {
    fn look(&self) -> Look {
        let writer = |hex: Hex<16>| DeviceId(hex.0);
        let fenced = self.here.is_others || self.here.taken_over.is_some();
        let newest = self.newest.as_ref();
        let parent = newest.filter(|newest| newest.is_own).and_then(|newest| newest.parent);
        Look {
            store: StoreView {
                newest: newest.and_then(|slot| Some((slot.head(), writer(slot.writer?)))),
                claim: self.claim.as_ref().map(|claim| (Epoch(claim.epoch), writer(claim.writer))),
            },
            writer: writer(self.here.writer),
            here: self.here.epoch.map(|epoch| Here {
                epoch: Epoch(epoch),
                parent: parent.filter(|parent| parent.0 != [0; 32]).map(|parent| ManifestId(parent.0)),
                has_newest: newest.is_some_and(|newest| newest.is_here),
                fenced,
            }),
        }
    }
}

#[derive(Deserialize)]
struct OpenReport {
    cut: Option<Slot>,
    parent: Option<Slot>,
}

#[derive(Deserialize)]
struct BranchReport {
    name: String,
    seals: Vec<SealReport>,
    bytes: u64,
    seconds: Option<f64>,
}

#[derive(Deserialize)]
struct StatusReport {
    name: String,
    public_key: Hex<32>,
    head: Option<SealReport>,
    #[serde(default)]
    damage: Vec<String>,
    #[serde(default)]
    mounts: Vec<MountReport>,
    #[serde(default)]
    taken_over: Option<serde_json::Value>,
    #[serde(default)]
    stores: Vec<StoreReport>,
}

fn seal(report: &SealReport) -> Option<Seal> {
    let manifest: Hex<32> = report.manifest.parse().ok()?;
    Some(Seal {
        seq: Seq(report.seq),
        manifest: ManifestId(manifest.0),
        time: report.time.clone(),
        files: report.files,
        bytes: report.bytes,
        snapshot: report.snapshot.as_ref().map(|label| (label.uuid.clone(), label.tags.clone())),
    })
}

fn answers(store: &StoreReport) -> Answers {
    match &store.last_error {
        None => Answers::Well,
        // What failed before the last success is over.
        Some(_) if store.state == "replicated" => Answers::Well,
        Some(error) if error.contains("denied") || error.contains("credentials") => Answers::Denied,
        Some(error) if error.contains("reach") || error.contains("answer") || error.contains("connect") => {
            Answers::Unreachable
        }
        Some(_) => Answers::Otherwise,
    }
}

impl From<StatusReport> for VolumeState {
    fn from(report: StatusReport) -> Self {
        let live = report.mounts.iter().find(|mount| mount.moment.is_none());
        let stores: Vec<&StoreReport> =
            live.map_or(report.stores.iter().collect(), |live| live.stores.iter().collect());
        let arbiter = stores.iter().find(|store| store.arbiter);
        let followed = stores.iter().any(|store| store.state == "followed");
        VolumeState {
            volume: VolumeId(report.public_key.0),
            head: live.map(|live| &live.head).or(report.head.as_ref()).and_then(seal),
            is_others: report.taken_over.is_some() || followed,
            damaged: report.head.is_none() || !report.damage.is_empty(),
            mount: live.map(|live| MountState {
                folder: live.mount_point.clone(),
                takes_changes: !live.read_only && live.trouble.is_none(),
                lease: live.lease.as_ref().map(|lease| lease.end_boottime_ms),
                ending: live.ending,
                dirty_bytes: live.dirty_bytes,
                held_up: live.room.as_ref().filter(|room| room.refused).and_then(|room| room.held_up.clone()),
            }),
            arbiter: arbiter.map(|store| StoreState {
                replicated: store.replicated_seq.map(Seq),
                backlog_bytes: store.unsafe_bytes,
                backlog_age: Duration::from_secs_f64(store.unsafe_seconds.max(0.0)),
                fenced: store.state == "fenced",
            }),
            behind: stores.iter().filter(|store| !store.arbiter && store.behind).count() as u64,
            stores: stores.iter().map(|store| (store.url.clone(), answers(store))).collect(),
            name: report.name,
        }
    }
}

fn seconds(span: Duration) -> String {
    format!("{}s", span.as_secs().max(1))
}

#[async_trait]
impl Volumes for Commands {
    async fn renew_credentials(&self) -> Result<()> {
        let denied =
            |why: String| Trouble::new(Problem::StoreDenied, format!("credentials of stores: {why}"));
        let volumes = self.state.volumes().map_err(|failure| denied(failure.in_one_line()))?;
        // One whose config is damaged goes nowhere.
        let configs = volumes.iter().filter_map(|volume| volume.config().ok());
        let stores: BTreeSet<String> =
            configs.flat_map(|config| config.stores).map(|store| store.url).collect();
        let stores: Vec<String> = stores.into_iter().collect();
        credentials::write(self.state.root(), &self.credentials(), &stores)
            .map_err(|error| denied(error.to_string()))
    }

    async fn create(&self, name: &str, quota: Option<u64>, stores: &[String]) -> Result<VolumeId> {
        let made: Answer<VolumeId> = async {
            let quota = quota.map(|bytes| bytes.to_string());
            let mut args = vec!["volume", "create", name, "--json"];
            if let Some(quota) = &quota {
                args.extend(["--quota", quota]);
            }
            let id = match self.json::<Named>(&args, stores, LOOK_WAIT).await {
                Ok(named) => named.public_key,
                // What a crash left: it was never written to, or the start would know it.
                Err(refused) if refused.is(Kind::InTheWay) => {
                    self.json::<Named>(&["volume", "show", name, "--json"], stores, LOOK_WAIT)
                        .await?
                        .public_key
                }
                Err(refused) => return Err(refused),
            };
            self.add_stores(name, stores).await?;
            self.ask(&["key", "ring", "publish"], stores, STORE_WAIT).await?;
            Ok(VolumeId(id.0))
        }
        .await;
        made.map_err(Refused::trouble)
    }

    async fn find(&self, name: &str) -> Result<Option<VolumeId>> {
        let wrong = |text: String| Trouble::new(Problem::VolumeDamaged, text);
        let name: VolumeName = name.parse().map_err(wrong)?;
        match self.state.volume(&name) {
            Ok(volume) => Ok(Some(volume.id)),
            Err(failure) if failure.kind == Kind::NotFound => Ok(None),
            Err(failure) => Err(wrong(failure.in_one_line())),
        }
    }

    async fn follow(
        &self,
        name: &str,
        volume: VolumeId,
        stores: &[String],
        fill: Option<Duration>,
    ) -> Result<Option<u64>> {
        let here = self.find(name).await?;
        if here.is_some_and(|here| here != volume) {
            let text = format!("volume \"{name}\" is another one on this device");
            return Err(Trouble::new(Problem::MarkerWrong, text));
        }
        let mut args = vec!["volume", "open", name, "--read-only"];
        let keys = self.folder.join("keys");
        let key_file = keys.join(format!("{}-{name}", std::process::id()));
        let key_path = key_file.to_string_lossy().into_owned();
        let first = match (here, stores.first()) {
            (None, Some(url)) => {
                let failed = |error: std::io::Error| Trouble::new(Problem::NoSpace, error.to_string());
                let ring = orchestrator_device::doors::ring::open(self.state.root())?;
                let missing = || {
                    Trouble::new(Problem::KeyMissing, format!("the key ring has no key of volume {volume}"))
                };
                let entry = ring.entry(&volume).ok_or_else(missing)?;
                let text = match &entry.key {
                    fs_crypto::EntryKey::Volume(key) => fs_crypto::KeyFile::encode(key),
                    _ => return Err(missing()),
                };
                orchestrator_device::doors::disk::make(&keys).map_err(failed)?;
                orchestrator_device::doors::disk::replace(&key_file, text.as_bytes()).map_err(failed)?;
                args.extend(["--store", url, "--key-file", &key_path]);
                true
            }
            _ => false,
        };
        if fill.is_some() {
            args.push("--wait");
        }
        let limit = fill.unwrap_or(STORE_WAIT);
        let opened = self.ask(&args, stores, limit).await;
        if first {
            let _ = std::fs::remove_file(&key_file);
        }
        match opened {
            // What is not here yet is fetched when it is read.
            Err(refused) if fill.is_some() && refused.kind.is_none() => Ok(None),
            // It ends when all of it is here.
            opened => opened.map(|_| fill.map(|_| 0)).map_err(Refused::trouble),
        }
    }

    async fn look(&self, name: &str) -> Result<Look> {
        let stores = self.stores(name);
        let report: HeadReport = self
            .json(&["volume", "head", name, "--json"], &stores, LOOK_WAIT)
            .await
            .map_err(Refused::trouble)?;
        Ok(report.look())
    }

    async fn claim(
        &self,
        name: &str,
        expect: &Expect,
        stores: &[String],
    ) -> std::result::Result<Cut, Unclaimed> {
        let mut args = vec!["volume".to_owned(), "open".to_owned(), name.to_owned(), "--json".to_owned()];
        match expect {
            Expect::Exactly(head) => {
                args.push("--expect".to_owned());
                args.push(format!("{}:{}:{}", head.epoch.0, head.seq.0, head.manifest.to_hex()));
            }
            Expect::Since { epoch, seq, writers } => {
                args.push("--since".to_owned());
                args.push(format!("{}:{}", epoch.0, seq.0));
                for writer in writers {
                    args.push("--writer".to_owned());
                    args.push(writer.to_hex());
                }
            }
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let report: OpenReport = self.json(&args, stores, STORE_WAIT).await.map_err(|refused| {
            if refused.is(Kind::Unexpected) {
                Unclaimed::Unexpected
            } else if refused.is(Kind::InTheWay) {
                Unclaimed::Rival
            } else {
                Unclaimed::Failed(refused.trouble())
            }
        })?;
        let cut = report.cut.ok_or_else(|| {
            Unclaimed::Failed(Trouble::new(
                Problem::StoreUnreachable,
                "the volume was opened without a claim",
            ))
        })?;
        self.add_stores(name, stores).await.map_err(|refused| Unclaimed::Failed(refused.trouble()))?;
        let parent = report.parent.filter(|parent| parent.manifest.0 != [0; 32]);
        Ok(Cut { head: cut.head(), parent: parent.map(|parent| parent.head().manifest) })
    }

    async fn mount(
        &self,
        name: &str,
        folder: &Path,
        seal_every: Duration,
        lease: Option<Boottime>,
    ) -> Result<()> {
        let (folder, every) = (folder.to_string_lossy().into_owned(), seconds(seal_every));
        let lease = lease.map(|end| format!("@{end}"));
        let mut args = vec!["mount", name, &folder, "--seal-every", &every];
        if let Some(end) = &lease {
            args.extend(["--lease", end]);
        }
        let mounted = self.ask(&args, &self.stores(name), STORE_WAIT).await;
        mounted.map(|_| ()).map_err(|refused| match refused.is(Kind::InTheWay) {
            true => Trouble::new(Problem::MountDead, refused.text),
            false => refused.trouble(),
        })
    }

    async fn unmount(&self, folder: &Path) -> Result<()> {
        let folder = folder.to_string_lossy().into_owned();
        match self.ask(&["unmount", &folder], &[], UNMOUNT_WAIT).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.is(Kind::NotFound) => Ok(()),
            Err(refused) => Err(Trouble::new(Problem::MountDead, refused.text)),
        }
    }

    async fn lease(&self, name: &str, end: Option<Boottime>) -> Result<()> {
        let end = end.map_or_else(|| "none".to_owned(), |end| format!("@{end}"));
        let moved = self.ask(&["lease", name, &end], &[], LOOK_WAIT).await;
        moved.map(|_| ()).map_err(|refused| Trouble::new(Problem::MountDead, refused.text))
    }

    async fn sync(&self, name: &str, wait: Option<Duration>) -> Result<()> {
        let limit = wait.map(seconds);
        let mut args = vec!["sync", name];
        match &limit {
            Some(limit) => args.extend(["--wait", "--limit", limit]),
            None => args.extend(["--limit", SEAL_WAIT]),
        }
        let more = wait.unwrap_or_default() + STORE_WAIT;
        self.ask(&args, &self.stores(name), more).await.map(|_| ()).map_err(Refused::trouble)
    }

    async fn snapshot(&self, name: &str, tags: &[String], message: &str) -> Result<Seal> {
        // What a person says goes by pipe: everybody on the machine sees arguments.
        let mut args = vec!["snapshot", name, "--json", "--message-stdin"];
        for tag in tags {
            args.extend(["--tag", tag]);
        }
        let taken = self.json_with(&args, &self.stores(name), STORE_WAIT, message.as_bytes()).await;
        let report: SealReport = taken.map_err(Refused::trouble)?;
        seal(&report).ok_or_else(|| Trouble::new(Problem::VolumeDamaged, "the snapshot has no name"))
    }

    async fn moments(&self, name: &str, which: Which, max: usize) -> Result<Vec<Seal>> {
        let max = max.to_string();
        let mut args = vec!["log", name, "--json", "--number", &max];
        if which == Which::Snapshots {
            args.push("--snapshots");
        }
        let list: Vec<SealReport> =
            self.json(&args, &self.stores(name), STORE_WAIT).await.map_err(Refused::trouble)?;
        Ok(list.iter().filter_map(seal).collect())
    }

    async fn moment(&self, name: &str, when: &str) -> Result<Option<Seal>> {
        let args = ["log", name, "--json", "--at", when];
        match self.json::<Vec<SealReport>>(&args, &self.stores(name), STORE_WAIT).await {
            Ok(list) => Ok(list.first().and_then(seal)),
            // No such moment, or nothing that could be one.
            Err(refused) if refused.is(Kind::NotFound) || refused.is(Kind::Usage) => Ok(None),
            Err(refused) => Err(refused.trouble()),
        }
    }

    async fn rollback(&self, name: &str, when: &str) -> Result<Seal> {
        let place = format!("{name}@{when}");
        let report: SealReport = self
            .json(&["rollback", &place, "--json"], &self.stores(name), STORE_WAIT)
            .await
            .map_err(Refused::trouble)?;
        seal(&report).ok_or_else(|| Trouble::new(Problem::VolumeDamaged, "the moment has no name"))
    }

    async fn fork(&self, from: &str, name: &str, stores: &[String]) -> Result<VolumeId> {
        let parent = from.split(['@', '/']).next().unwrap_or(from);
        let made: Answer<VolumeId> = async {
            let named: Named =
                self.json(&["fork", from, name, "--json"], &self.stores(parent), STORE_WAIT).await?;
            self.add_stores(name, stores).await?;
            self.ask(&["key", "ring", "publish"], stores, STORE_WAIT).await?;
            Ok(VolumeId(named.public_key.0))
        }
        .await;
        made.map_err(Refused::trouble)
    }

    async fn branches(&self, name: &str) -> Result<Vec<Branch>> {
        let list: Vec<BranchReport> =
            self.json(&["branch", "list", name, "--json"], &[], LOOK_WAIT).await.map_err(Refused::trouble)?;
        let branch = |one: BranchReport| Branch {
            name: one.name.rsplit('/').next().unwrap_or_default().to_owned(),
            seals: one.seals.len() as u64,
            bytes: one.bytes,
            span: Duration::from_secs_f64(one.seconds.unwrap_or_default().max(0.0)),
        };
        Ok(list.into_iter().map(branch).collect())
    }

    async fn states(&self) -> Result<Vec<VolumeState>> {
        // It ends with another code where something is not well; what it says is whole all the same.
        let said = self.run(&["status", "--json"], &[], LOOK_WAIT).await.map_err(Refused::trouble)?;
        let list: Vec<StatusReport> = read(&said).map_err(Refused::trouble)?;
        Ok(list.into_iter().map(VolumeState::from).collect())
    }

    async fn retain(&self, name: &str, policy: &str) -> Result<()> {
        let set = self.ask(&["retain", name, policy], &self.stores(name), STORE_WAIT).await;
        set.map(|_| ()).map_err(Refused::trouble)
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let wrong = |text: String| Trouble::new(Problem::VolumeDamaged, text);
        let parsed: VolumeName = name.parse().map_err(wrong)?;
        let tails = self.state.volume(&parsed).and_then(|volume| volume.branches());
        let tails = tails.map_err(|failure| wrong(failure.in_one_line()))?;
        let removed: Answer<()> = async {
            for tail in tails {
                self.ask(&["branch", "remove", &tail.name.to_string(), "--yes"], &[], LOOK_WAIT).await?;
            }
            self.ask(&["volume", "remove", name, "--yes"], &self.stores(name), STORE_WAIT).await?;
            Ok(())
        }
        .await;
        removed.map_err(Refused::trouble)
    }
}
