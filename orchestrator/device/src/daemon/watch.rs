//! What is looked at while apps run: containers, mounts, volumes, Docker, the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use orchestrator_api::ids::{AppId, Epoch, VolumeId};
use orchestrator_api::placement::{Phase, Problem};
use orchestrator_api::wire::report::Docker as DockerState;

use super::facts::{Ticks, load};
use super::loaded::wall_clock;
use super::steps::{is_alive, is_mounted};
use super::{World, history};
use crate::Event;
use crate::app::gate::Verdict;
use crate::doors::clock;
use crate::doors::docker::{Container, SLOW_AFTER, State};
use crate::trouble::{Result, Trouble};

/// How often mounts and containers are looked at, beside Docker's events.
const LOOK_ALIVE_EVERY: Duration = Duration::from_secs(2);
/// How often Docker is asked whether it answers.
const DOCKER_EVERY: Duration = Duration::from_secs(3);
/// How often volumes are asked how they are.
const VOLUMES_EVERY: Duration = Duration::from_secs(3);
/// How often the machine is looked at.
const MACHINE_EVERY: Duration = Duration::from_secs(5);
/// How often containers are asked what they use.
const USAGE_EVERY: u64 = 10_000;

impl World {
    /// Watches an app that runs, until its record says that it does not.
    pub(super) fn watch_app(self: &Arc<Self>, app: AppId) {
        let world = self.clone();
        let watcher = tokio::spawn(async move { world.watched(app).await });
        if let Some(former) = self.app(app, |state| state.watcher.replace(watcher)) {
            former.abort();
        }
    }

    async fn watched(&self, app: AppId) {
        let (wake, mut usage_at, mut away) = (self.app(app, |state| state.wake.clone()), 0, false);
        // A process that begins anew has to know what runs.
        let revision = self.app(app, |state| state.file.revision);
        loop {
            // What a former process did not live to let go on waits for nothing. Where Docker does not answer, that is seen below.
            let _ = self.end_pause(app).await;
            let Err(trouble) = self.plan_of(app, revision).await else { break };
            // Nobody looks after it meanwhile, which is told.
            self.trouble(app, &trouble);
            tokio::time::sleep(DOCKER_EVERY).await;
        }
        // The first look is at once, so that soon it is known how the app is.
        wake.notify_one();
        loop {
            let _ = tokio::time::timeout(LOOK_ALIVE_EVERY, wake.notified()).await;
            if !self.mounts_alive(app).await {
                let _ = self.events.send(Event::MountDied(app));
                continue;
            }
            match self.look_at_containers(app, away).await {
                Ok(gone) => {
                    away = false;
                    if let Some(event) = gone {
                        let _ = self.events.send(event);
                    }
                }
                Err(trouble) => {
                    away = true;
                    self.app(app, |state| state.trouble = Some(trouble));
                    continue;
                }
            }
            let now = clock::boottime();
            if now >= usage_at {
                usage_at = now + USAGE_EVERY;
                self.look_at_usage(app).await;
            }
        }
    }

    async fn plan_of(&self, app: AppId, revision: u64) -> Result<()> {
        let loaded = self.load_running(app, revision).await?;
        self.plan(app, &loaded).await?;
        let file = self.app(app, |state| state.file.clone());
        self.note_address(app, &file, &loaded);
        Ok(())
    }

    async fn mounts_alive(&self, app: AppId) -> bool {
        let names =
            self.app(app, |state| state.file.volumes.iter().map(|one| one.name.clone()).collect::<Vec<_>>());
        for name in names {
            let folder = self.folder.mount(app, &name);
            if !is_mounted(&folder).await || !is_alive(&folder).await {
                return false;
            }
        }
        true
    }

    /// Looks at an app's containers, starts again what the file says; what happened if something is gone that should be there.
    pub(super) async fn look_at_containers(&self, app: AppId, was_away: bool) -> Result<Option<Event>> {
        let Some(loaded) = self.app(app, |state| state.loaded.clone()) else { return Ok(None) };
        let planned = self.plan(app, &loaded).await?;
        let containers = self.docker.containers(Some(app)).await?;
        let (term, verdict, start) = self.app(app, |state| {
            let (verdict, start) = state.watch.look(&planned.plan.services, &containers, clock::boottime());
            state.containers.clone_from(&containers);
            state.is_looked_at = true;
            (state.record.as_ref().map(|record| record.term), verdict, start)
        });
        let still = match containers.iter().any(|one| one.state == State::Paused) {
            true => self.end_pause(app).await?,
            false => None,
        };
        self.app(app, |state| state.stands_still = still.is_some());
        let here = |name: &str| containers.iter().any(|one| one.service == name && Some(one.term) == term);
        if planned.plan.services.iter().any(|service| !here(&service.name)) {
            let event = if was_away { Event::EndedWithDocker } else { Event::ContainersGone };
            return Ok(Some(event(app)));
        }
        // After dockerd was restarted nothing of ours runs: it never starts a container by itself.
        if was_away
            && containers.iter().any(|one| matches!(one.state, State::Exited | State::Dead | State::Created))
        {
            return Ok(Some(Event::EndedWithDocker(app)));
        }
        self.app(app, |state| {
            let stands_still = |service| {
                let text = "it stands still (`docker unpause`), and Docker does not let it go on";
                Trouble::new(Problem::Unhealthy, text).of(service)
            };
            state.trouble = match verdict {
                Verdict::Unwell(trouble) => Some(trouble),
                Verdict::Well | Verdict::Waiting => still.map(stands_still),
            };
        });
        for one in &start {
            self.start_again(app, one).await?;
        }
        Ok(None)
    }

    /// Starts an exited container, if the app still runs: whoever stops it holds the same lock.
    async fn start_again(&self, app: AppId, one: &Container) -> Result<()> {
        let hands = self.app(app, |state| state.hands.clone());
        let _hands = hands.lock().await;
        let runs = self.app(app, |state| {
            state
                .record
                .as_ref()
                .is_some_and(|record| record.phase == Phase::Running && record.term == one.term)
        });
        if !runs || !self.mounts_alive(app).await {
            return Ok(());
        }
        tracing::info!(%app, service = one.service, "is started again");
        self.docker.start(one).await
    }

    async fn look_at_usage(&self, app: AppId) {
        let containers = self.app(app, |state| state.containers.clone());
        for one in containers.iter().filter(|one| one.state == State::Running) {
            if let Ok(usage) = self.docker.usage(one).await {
                self.app(app, |state| {
                    let before = state.usage.get(&one.id).map(|(before, _)| (before.cpu_nanos, before.at));
                    let spent = before.map_or(0, |(nanos, at)| {
                        let millis = usage.at.saturating_sub(at).max(1);
                        usage.cpu_nanos.saturating_sub(nanos) / 10_000 / millis
                    });
                    state.usage.insert(one.id.clone(), (usage, spent));
                });
            }
        }
        self.app(app, |state| state.usage.retain(|id, _| containers.iter().any(|one| one.id == *id)));
    }
}

/// Looks at the machine and at Docker.
pub(super) async fn machine(world: Arc<World>) {
    let (mut before, mut looked, mut answers) = (Ticks::read(), 0, None);
    loop {
        let state = match world.docker.ping().await {
            Ok(took) if took <= SLOW_AFTER => DockerState::Ok,
            Ok(_) => DockerState::Slow,
            Err(trouble) if trouble.problem == Problem::DockerSlow => DockerState::Slow,
            Err(_) if world.docker.socket().exists() => DockerState::Stopped,
            Err(_) => DockerState::Missing,
        };
        world.seen.lock().docker = Some(state);
        let now_answers = matches!(state, DockerState::Ok | DockerState::Slow);
        let changed = answers != Some(now_answers);
        if changed {
            answers = Some(now_answers);
            let _ = world.events.send(Event::Docker(now_answers));
            wake_all(&world);
        }
        if now_answers && (changed || world.seen.lock().docker_root.is_none()) {
            let _ = world.look_at_docker().await;
        }
        let now = clock::boottime();
        if now >= looked + u64::try_from(MACHINE_EVERY.as_millis()).unwrap_or(u64::MAX) {
            let ticks = Ticks::read();
            world.seen.lock().load = Some(load(before, ticks));
            world.look_at_room();
            world.look_at_clocks();
            (before, looked) = (ticks, now);
        }
        tokio::time::sleep(DOCKER_EVERY).await;
    }
}

impl World {
    /// Asks Docker for its version, and where its own folder is: both may be others after each start of it.
    pub(super) async fn look_at_docker(&self) -> Result<String> {
        let (version, root) = self.docker.version().await?;
        self.seen.lock().docker_root = root;
        Ok(version)
    }

    /// How often Docker has ended, as far as that was noticed: each end of it ends its events.
    pub(super) fn docker_ends(&self) -> u64 {
        self.docker_ends.load(Ordering::Relaxed)
    }

    fn look_at_clocks(&self) {
        let heard = self.hive.heard();
        let mut seen = self.seen.lock();
        seen.clocks.look(clock::boottime(), wall_clock().0);
        if let Some((hive, wall)) = heard {
            seen.clocks.heard(hive, wall);
        }
    }
}

fn wake_all(world: &World) {
    world.apps.lock().values().for_each(|state| state.wake.notify_one());
}

/// Reacts to what Docker says, at once.
pub(super) async fn docker_events(world: Arc<World>) {
    loop {
        if let Ok(mut events) = world.docker.events().await {
            while let Some(event) = events.next().await {
                world.app(event.app, |state| state.wake.notify_one());
            }
            world.docker_ends.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(DOCKER_EVERY).await;
    }
}

/// Asks volumes how they are: what reports tell, and whether somebody else writes one.
pub(super) async fn volumes(world: Arc<World>) {
    loop {
        match world.setup.volumes.states().await {
            Ok(states) => {
                let fenced: Vec<_> = states
                    .iter()
                    .filter(|one| one.mount.is_some())
                    .filter(|one| one.is_others || one.arbiter.as_ref().is_some_and(|store| store.fenced))
                    .map(|one| one.volume)
                    .collect();
                let epochs = epochs(&world);
                let before = std::mem::replace(&mut world.seen.lock().volumes, states.clone());
                world.history.write(history::of_volumes(&before, &states, &epochs));
                for app in apps_of(&world, &fenced) {
                    let _ = world.events.send(Event::Fenced(app));
                }
            }
            Err(trouble) => tracing::warn!(problem = ?trouble, "volumes do not say how they are"),
        }
        tokio::time::sleep(VOLUMES_EVERY).await;
    }
}

/// The epochs that this device has.
fn epochs(world: &World) -> BTreeMap<VolumeId, Epoch> {
    let apps = world.apps.lock();
    let records = apps.values().filter_map(|state| state.record.as_ref());
    let volumes = records.flat_map(|record| &record.volumes);
    volumes.filter_map(|(volume, one)| Some((*volume, one.cut?.head.epoch))).collect()
}

fn apps_of(world: &World, volumes: &[orchestrator_api::ids::VolumeId]) -> Vec<AppId> {
    let apps = world.apps.lock();
    let has = |record: &crate::Record| record.volumes.keys().any(|volume| volumes.contains(volume));
    apps.iter().filter(|(_, state)| state.record.as_ref().is_some_and(has)).map(|(app, _)| *app).collect()
}
