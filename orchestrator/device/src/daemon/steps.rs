//! What an app's phases ask for (`failover.md`, section 6).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use orchestrator_api::ids::{AppId, VolumeId, Writer};
use orchestrator_api::placement::{Expect, Head, Phase, Problem, Why};
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::command::Seen;
use orchestrator_api::wire::value::Number;
use serde::{Deserialize, Serialize};

use super::files::{AppFile, Ended, Rollback};
use super::moments::seal_every;
use super::{World, history};
use crate::app::volume_name;
use crate::doors::clock;
use crate::doors::disk;
use crate::doors::docker::State;
use crate::doors::volumes::Unclaimed;
use crate::trouble::{Result, Trouble};
use crate::{Boottime, Done, Event, Look, NotClaimed, Published, Step};

/// The grace of containers when a lease ends, or somebody else has the app.
const GRACE_MAX: Duration = Duration::from_secs(10);
/// The longest grace that a compose file may ask for.
const GRACE_FILE_MAX: Duration = Duration::from_secs(300);
/// How long publishing before a stop may take, while the app runs.
const SYNC_BEFORE: Duration = Duration::from_secs(60);
/// How long publishing may take of volumes that went back and stay stopped.
const SYNC_BACK: Duration = Duration::from_secs(120);
/// How long a volume may take to notice that somebody took it over.
const NOTICE_WAIT: Duration = Duration::from_secs(30);
/// How long a mount may take to answer.
const ALIVE_WAIT: Duration = Duration::from_secs(5);
/// Before Docker is asked again that does not answer.
const DOCKER_AGAIN: Duration = Duration::from_secs(2);

/// What stands beside an app's data in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Its public key.
    pub volume: Hex<32>,
    /// The app.
    pub app: Uuid,
    /// Its name in the compose file.
    pub name: String,
}

impl World {
    pub(super) async fn step(&self, app: AppId, what: Step) -> Done {
        match what {
            Step::Look(volumes) => Done::Looked(self.look_at(app, volumes).await),
            // Claims are begun together.
            Step::Claim(volume, expect) => Done::Claimed(volume, self.claim(app, volume, &expect).await),
            Step::Mount { volumes, rollback_to, lease } => {
                let mounted = self.mount_all(app, &volumes, &rollback_to, lease).await;
                Done::Mounted(self.told(app, mounted))
            }
            Step::StartContainers(term) => {
                let up = self.start_containers(app, term).await;
                Done::Up(self.told(app, up))
            }
            Step::StopContainers { publish } => {
                let stopped = self.stop_containers(app, publish).await;
                Done::Stopped(self.told(app, stopped))
            }
            Step::Publish(until) => self.publish(app, until).await,
            Step::Unmount => {
                self.unmount_all(app).await;
                Done::Unmounted
            }
            Step::Settle => Done::Settled(self.settle(app).await),
        }
    }

    fn told(&self, app: AppId, result: Result<()>) -> std::result::Result<(), Problem> {
        result.map_err(|trouble| {
            self.trouble(app, &trouble);
            trouble.problem
        })
    }

    pub(super) fn file(&self, app: AppId) -> AppFile {
        self.app(app, |state| state.file.clone())
    }

    /// What volumes of an app are called on this device.
    pub(super) fn names(&self, app: AppId) -> BTreeMap<VolumeId, String> {
        let named = self.file(app).volumes;
        named.iter().map(|one| (VolumeId(one.volume.0), volume_name(app, &one.name))).collect()
    }

    fn name(&self, app: AppId, volume: VolumeId) -> Result<String> {
        self.names(app).remove(&volume).ok_or_else(|| {
            Trouble::new(Problem::KeyMissing, format!("volume {volume} is not one of the app's"))
        })
    }

    async fn look_at(&self, app: AppId, volumes: Vec<VolumeId>) -> BTreeMap<VolumeId, Option<Look>> {
        // What a former process or term left is gone first.
        loop {
            match self.remove_containers(app, Some(GRACE_MAX)).await {
                Ok(()) => break,
                Err(trouble) => {
                    self.trouble(app, &trouble);
                    tokio::time::sleep(DOCKER_AGAIN).await;
                }
            }
        }
        self.unmount_all(app).await;
        let looks = volumes.iter().map(|volume| async {
            let look = self.look_one(app, *volume).await;
            if let Err(trouble) = &look {
                self.trouble(app, trouble);
            }
            (*volume, look.ok())
        });
        let looks: BTreeMap<_, _> = join_all(looks).await.into_iter().collect();
        if let Err(trouble) = self.forget_rollback(app, &looks) {
            // It is looked again: nothing is claimed while it is not known what the volumes go back to.
            self.trouble(app, &trouble);
            return looks.into_keys().map(|volume| (volume, None)).collect();
        }
        let seen = |(volume, look): (&VolumeId, &Option<Look>)| {
            let store = look.as_ref()?.store;
            let (head, writer) = store.newest?;
            let writer =
                store.claim.filter(|(epoch, _)| *epoch > head.epoch).map_or(writer, |(_, claimer)| claimer);
            Some(Seen {
                volume: Hex(volume.0),
                epoch: Number::from(store.epoch().0),
                seq: Number::from(head.seq.0),
                writer: Hex(writer.0),
            })
        };
        let seen = looks.iter().filter_map(seen).collect();
        self.app(app, |state| state.seen_heads = seen);
        looks
    }

    pub(super) async fn look_one(&self, app: AppId, volume: VolumeId) -> Result<Look> {
        let name = self.name(app, volume)?;
        if self.setup.volumes.find(&name).await?.is_none() {
            self.setup.volumes.follow(&name, volume, &self.file(app).urls(), None).await?;
        }
        self.setup.volumes.look(&name).await
    }

    pub(super) async fn claim_all(&self, app: AppId, step: u64, claims: Vec<(VolumeId, Expect)>) {
        let claims = claims.into_iter().map(|(volume, expect)| async move {
            let done = Done::Claimed(volume, self.claim(app, volume, &expect).await);
            let _ = self.events.send(Event::Done { app, step, done });
        });
        join_all(claims).await;
    }

    async fn claim(
        &self,
        app: AppId,
        volume: VolumeId,
        expect: &Expect,
    ) -> std::result::Result<crate::Cut, NotClaimed> {
        let name = match self.name(app, volume) {
            Ok(name) => name,
            Err(trouble) => {
                self.trouble(app, &trouble);
                return Err(NotClaimed::Unreachable);
            }
        };
        self.setup.volumes.claim(&name, expect, &self.file(app).urls()).await.map_err(|unclaimed| {
            match unclaimed {
                Unclaimed::Unexpected => NotClaimed::Unexpected,
                Unclaimed::Rival => NotClaimed::Rival,
                Unclaimed::Failed(trouble) => {
                    self.trouble(app, &trouble);
                    NotClaimed::Unreachable
                }
            }
        })
    }

    pub(super) async fn mount_all(
        &self,
        app: AppId,
        volumes: &[VolumeId],
        rollback_to: &BTreeMap<VolumeId, Head>,
        lease: Option<Boottime>,
    ) -> Result<()> {
        self.unmount_all(app).await;
        if let Some((rollback, why)) = self.goes_back(app, volumes, rollback_to).await? {
            self.go_back_to(app, &rollback, why).await?;
            self.is_back(app, rollback)?;
        } else if self.file(app).rollback_tag.is_some() {
            self.change_file(app, |file| file.rollback_tag = None)?;
        }
        let file = self.file(app);
        // A package that does not open any more keeps the app from starting, and says so there.
        let loaded = self.load(app, file.revision).await.ok();
        let block = loaded.as_ref().map(|loaded| loaded.text.source.block());
        let mounts = volumes.iter().map(|volume| {
            let file = &file;
            async move {
                let plain = file.name_of(*volume).unwrap_or_default().to_owned();
                let folder = self.folder.mount(app, &plain);
                mount_point(&folder)?;
                let every = seal_every(block, &plain, file.seal_every_s);
                self.setup.volumes.mount(&volume_name(app, &plain), &folder, every, lease).await?;
                self.mark(app, *volume, &plain, &folder)
            }
        });
        join_all(mounts).await.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(())
    }

    /// What the volumes go back to before they are mounted, and the tag of what that puts into the past: by what a start says,
    /// by what was begun, by what was ordered in this term.
    async fn goes_back(
        &self,
        app: AppId,
        volumes: &[VolumeId],
        rollback_to: &BTreeMap<VolumeId, Head>,
    ) -> Result<Option<(Rollback, Option<&'static str>)>> {
        let of_start = |whens| Rollback { order: None, starts: true, whens };
        if !rollback_to.is_empty() {
            let seals = rollback_to.iter().map(|(volume, head)| (Hex(volume.0), head.seq.0.to_string()));
            return Ok(Some((of_start(seals.collect()), Some("move-failed"))));
        }
        let file = self.file(app);
        if let Some(tag) = &file.rollback_tag {
            let names = volumes.iter().map(|volume| self.name(app, *volume)).collect::<Result<Vec<_>>>()?;
            if self.is_gone_back_to(&names, tag).await? {
                let whens = volumes.iter().map(|volume| (Hex(volume.0), tag.clone())).collect();
                return Ok(Some((of_start(whens), Some("update-failed"))));
            }
        }
        let ordered = self.app(app, |state| {
            let term = state.record.as_ref().map(|record| record.term);
            let ordered = state.rollback.as_ref().filter(|ordered| Some(ordered.term) == term);
            ordered.map(|ordered| ordered.rollback.clone())
        });
        Ok(file.rollback.or(ordered).map(|rollback| (rollback, None)))
    }

    /// Brings volumes that are not mounted back: what is begun is written down first, and is not over before [`World::is_back`].
    /// Done again, it comes to the same, since nothing is written in between.
    async fn go_back_to(&self, app: AppId, rollback: &Rollback, why: Option<&str>) -> Result<()> {
        // A volume that the app has no more is not mounted either.
        let known = self.names(app);
        let named = |(volume, when): (&Hex<32>, _)| Some((known.get(&VolumeId(volume.0))?, when));
        let named: Vec<(&String, &String)> = rollback.whens.iter().filter_map(named).collect();
        let begun = self.file(app).rollback;
        let is_begun = begun.as_ref().is_some_and(|begun| begun.whens == rollback.whens);
        if let Some(why) = why.filter(|_| !is_begun) {
            // What was written since stays a moment, under a tag that says why.
            for (name, _) in &named {
                self.setup.volumes.snapshot(name, &[why.to_owned()], "").await?;
            }
        }
        if begun.as_ref() != Some(rollback) {
            self.change_file(app, |file| file.rollback = Some(rollback.clone()))?;
        }
        for (name, when) in named {
            self.setup.volumes.rollback(name, when).await?;
        }
        Ok(())
    }

    /// All volumes are back.
    fn is_back(&self, app: AppId, rollback: Rollback) -> Result<()> {
        let ended = rollback.order.filter(|_| rollback.starts);
        let ended = ended.map(|order| Ended { order, went_back: false, service: None });
        self.change_file(app, |file| {
            (file.rollback, file.rollback_tag) = (None, None);
            file.ended = ended.or(file.ended.take());
        })?;
        self.app(app, |state| state.rollback = None);
        Ok(())
    }

    /// Brings the volumes of an app back that stands still, and hands that on.
    pub(super) async fn roll_back(&self, app: AppId, rollback: Rollback) -> Result<()> {
        if !matches!(
            self.app(app, |state| state.record.as_ref().map(|record| record.phase)),
            Some(Phase::Stopped(Why::Ordered | Why::Failed(_)))
        ) {
            return Err(Trouble::new(
                Problem::State,
                "the app neither runs here nor was stopped here by order: it is on its way, or given up",
            ));
        }
        self.go_back_to(app, &rollback, None).await?;
        // Nobody mounts it who would bring it to the stores; another device is not to find some volumes back and others not.
        for (volume, name) in self.names(app) {
            if rollback.whens.contains_key(&Hex(volume.0)) {
                self.setup.volumes.sync(&name, Some(SYNC_BACK)).await?;
            }
        }
        self.is_back(app, rollback)
    }

    /// What others wrote since is not what was to go back: a rollback that was begun here is over where each volume has another
    /// writer since.
    pub(super) fn forget_rollback(&self, app: AppId, looks: &BTreeMap<VolumeId, Option<Look>>) -> Result<()> {
        let is_others = |look: &Option<Look>| {
            look.is_some_and(|look| look.store.newest.is_some_and(|(_, writer)| writer != look.writer))
        };
        if self.file(app).rollback.is_none() || looks.is_empty() || !looks.values().all(is_others) {
            return Ok(());
        }
        tracing::warn!(%app, "a rollback that was begun here is over: others wrote since");
        self.change_file(app, |file| file.rollback = None)
    }

    /// Checks the marker of a mounted volume; one that is new gets it, with its folder.
    fn mark(&self, app: AppId, volume: VolumeId, name: &str, folder: &Path) -> Result<()> {
        let marker = Marker { volume: Hex(volume.0), app: Uuid(app.0), name: name.to_owned() };
        let failed = |error: std::io::Error| {
            Trouble::new(Problem::MountDead, format!("{}: {error}", folder.display()))
        };
        match disk::read_json::<Marker>(&folder.join("comb.json")).map_err(failed)? {
            Some(found) if found == marker => Ok(()),
            Some(_) => {
                Err(Trouble::new(Problem::MarkerWrong, format!("{} is another volume's", folder.display())))
            }
            None => match std::fs::read_dir(folder).map_err(failed)?.next() {
                None => disk::replace_json(&folder.join("comb.json"), &marker).map_err(failed),
                Some(_) => Err(Trouble::new(
                    Problem::MarkerWrong,
                    format!("{} holds what no app put there", folder.display()),
                )),
            },
        }
    }

    /// Writes what is known of an app, and keeps it.
    pub(super) fn write_file(&self, app: AppId, file: AppFile) -> Result<()> {
        self.change_file(app, |known| *known = file)
    }

    /// Changes what is known of an app: on the disk, then here. Where it cannot be written it stays as it was.
    pub(super) fn change_file(&self, app: AppId, change: impl FnOnce(&mut AppFile)) -> Result<()> {
        let _one = self.writes.lock();
        let mut file = self.file(app);
        change(&mut file);
        self.folder
            .write_app(app, &file)
            .map_err(|error| crate::app::folder::no_space(&self.folder.app(app), &error))?;
        self.app(app, |state| state.file = file);
        Ok(())
    }

    pub(super) async fn unmount_all(&self, app: AppId) {
        let folders: Vec<_> =
            self.file(app).volumes.iter().map(|one| self.folder.mount(app, &one.name)).collect();
        let gone = folders.iter().map(|folder| async move {
            // Until it is gone: an app goes nowhere while a daemon of its term may write.
            while is_mounted(folder).await {
                if let Err(trouble) = self.setup.volumes.unmount(folder).await {
                    tracing::warn!(%app, problem = ?trouble, "a volume is not unmounted yet");
                    self.app(app, |state| state.trouble = Some(trouble));
                    tokio::time::sleep(DOCKER_AGAIN).await;
                }
            }
        });
        join_all(gone).await;
    }

    /// How long containers may take to end, by what the app is stopped for.
    fn grace(&self, app: AppId) -> Option<Duration> {
        let phase = self.app(app, |state| state.record.as_ref().map(|record| record.phase));
        match phase {
            Some(Phase::Stopping(Why::LeaseOver | Why::Fenced)) => Some(GRACE_MAX),
            _ => None,
        }
    }

    async fn stop_containers(&self, app: AppId, publish: bool) -> Result<()> {
        if publish {
            let names = self.names(app);
            // While it runs, so that the last seal is small; what fails here is tried again when it stands still.
            let syncs = names.values().map(|name| self.setup.volumes.sync(name, Some(SYNC_BEFORE)));
            join_all(syncs).await;
        }
        self.remove_containers(app, self.grace(app)).await
    }

    /// Stops an app's containers and removes them; those of any term.
    pub(super) async fn remove_containers(&self, app: AppId, grace: Option<Duration>) -> Result<()> {
        let hands = self.app(app, |state| state.hands.clone());
        let _hands = hands.lock().await;
        let mut containers = self.docker.containers(Some(app)).await?;
        if containers.is_empty() {
            return Ok(());
        }
        let limit = grace.unwrap_or(GRACE_FILE_MAX);
        if let Some(loaded) = self.app(app, |state| state.loaded.clone()) {
            let folder = self.app_folder(app, &loaded);
            if folder.run_file().exists() {
                let (files, run_file) = (folder.files(), folder.run_file());
                let name = crate::app::project(app);
                let project = crate::doors::compose::Project { name: &name, folder: &files, file: &run_file };
                if let Err(trouble) = self.compose.down(project, grace, limit).await {
                    tracing::warn!(%app, problem = ?trouble, "compose did not stop the app");
                }
                containers = self.docker.containers(Some(app)).await?;
            }
        }
        // What compose did not know, or a former process left.
        let stops = containers.iter().map(|one| async move {
            if matches!(one.state, State::Running | State::Paused | State::Restarting) {
                self.docker.stop(one, grace.unwrap_or(GRACE_MAX)).await?;
            }
            self.docker.remove(one).await
        });
        join_all(stops).await.into_iter().collect::<Result<Vec<()>>>()?;
        let left = self.docker.containers(Some(app)).await?;
        self.app(app, |state| state.containers.clear());
        if !left.is_empty() {
            return Err(Trouble::new(Problem::StopLate, "containers did not stop in time"));
        }
        // They only lead into mounts, which go now; the next start makes them again.
        self.remove_docker_volumes(app).await;
        Ok(())
    }

    async fn publish(&self, app: AppId, until: Boottime) -> Done {
        let names = self.names(app);
        let wait = clock::until(until);
        let wait = (!wait.is_zero()).then_some(wait);
        let volumes = names.iter().map(|(volume, name)| async move {
            let synced = self.setup.volumes.sync(name, wait).await;
            if let Err(trouble) = &synced {
                self.trouble(app, trouble);
            }
            let look = match wait {
                Some(_) => self.setup.volumes.look(name).await.ok(),
                None => None,
            };
            (*volume, synced.is_ok(), look)
        });
        let (mut heads, mut state) = (BTreeMap::new(), Published::All);
        for (volume, synced, look) in join_all(volumes).await {
            let fenced = look.is_some_and(|look| look.here.is_some_and(|here| here.fenced));
            match look.and_then(|look| look.store.newest.map(|newest| (look, newest))) {
                Some((look, (head, writer))) if writer == look.writer && synced => {
                    heads.insert(volume, head);
                }
                _ if fenced => state = Published::Fenced,
                _ if state == Published::All => state = Published::Late,
                _ => {}
            }
        }
        Done::Published { heads, state }
    }

    async fn settle(&self, app: AppId) -> bool {
        let names = self.names(app);
        self.unmount_all(app).await;
        let mut settled = true;
        for (volume, name) in &names {
            match self.settle_one(app, *volume, name).await {
                Ok(done) => settled &= done,
                Err(trouble) => {
                    self.trouble(app, &trouble);
                    settled = false;
                }
            }
        }
        self.note_branches(app).await;
        settled
    }

    async fn settle_one(&self, app: AppId, volume: VolumeId, name: &str) -> Result<bool> {
        if self.setup.volumes.find(name).await?.is_none() {
            return Ok(true);
        }
        let look = self.setup.volumes.look(name).await?;
        let others = |writer: Writer| writer != look.writer;
        let later = look.store.newest.is_some_and(|(_, writer)| others(writer))
            || look.store.claim.is_some_and(|(_, writer)| others(writer))
            || look.here.is_some_and(|here| here.fenced);
        if later && !look.here.is_some_and(|here| here.fenced) {
            // The volume itself finds out by trying; that it fails is what is wanted.
            let _ = self.setup.volumes.sync(name, Some(NOTICE_WAIT)).await;
        }
        if later {
            self.setup.volumes.follow(name, volume, &self.file(app).urls(), None).await?;
        }
        Ok(later)
    }

    /// Looks for tails, to tell of them.
    pub(super) async fn note_branches(&self, app: AppId) {
        let (mut found, mut volumes) = (Vec::new(), Vec::new());
        for (volume, name) in &self.names(app) {
            if let Ok(branches) = self.setup.volumes.branches(name).await {
                volumes.extend(branches.iter().map(|branch| (*volume, branch.name.clone())));
                found.extend(branches.into_iter().map(|branch| (name.clone(), branch)));
            }
        }
        let before = self.app(app, |state| std::mem::replace(&mut state.branches, found));
        let before: Vec<&str> = before.iter().map(|(_, branch)| branch.name.as_str()).collect();
        let after = volumes.iter().map(|(volume, name)| (*volume, name.as_str()));
        self.history.write(history::of_branches(app, &before, after));
    }

    pub(super) async fn lease(&self, app: AppId, end: Option<Boottime>) {
        for name in self.names(app).into_values() {
            let folder_alive = self.setup.volumes.lease(&name, end).await;
            if let Err(trouble) = folder_alive {
                tracing::warn!(%app, problem = ?trouble, "a mount does not take its lease");
                // Where nothing is mounted yet, the mount gets it when it begins.
                let phase = self.app(app, |state| state.record.as_ref().map(|record| record.phase));
                if matches!(phase, Some(Phase::Running | Phase::Starting)) {
                    let _ = self.events.send(Event::MountDied(app));
                }
            }
        }
    }
}

/// The folder under a mount: empty, and nobody's.
pub(super) fn mount_point(folder: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let failed = |error: std::io::Error| crate::app::folder::no_space(folder, &error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o0)).map_err(failed)
}

/// Whether something is mounted on a folder, alive or dead.
pub(super) async fn is_mounted(folder: &Path) -> bool {
    let folder = folder.to_owned();
    let look = tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let wanted = folder.to_string_lossy().replace(' ', "\\040");
        text.lines().any(|line| line.split(' ').nth(4) == Some(wanted.as_str()))
    });
    look.await.unwrap_or(true)
}

/// Whether a mount's daemon answers in time. One that hangs holds the thread, not the device.
///
/// What the kernel remembers of files says nothing of the daemon; how much room there is, it always asks.
pub(super) async fn is_alive(folder: &Path) -> bool {
    let folder = folder.to_owned();
    let look = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder).is_ok());
    matches!(tokio::time::timeout(ALIVE_WAIT, look).await, Ok(Ok(true)))
}
