//! Commands: what a record decides about is made ready for that, the others are done beside it (`api.md`, section 6).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use orchestrator_api::command as pure;
use orchestrator_api::ids::{AppId, OperationId, SessionId, Term, VolumeId};
use orchestrator_api::package::PackageError;
use orchestrator_api::placement::{Expect, Phase, Problem, Why};
use orchestrator_api::report::Refusal;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::command::{
    Command, CommandResult, Data, MomentName, MomentReason, Order, ResultState, Start,
};
use orchestrator_api::wire::value::{List, Number};

use super::files::{AppFile, AppVolume, Ended, Rollback, Update};
use super::loaded::wall_clock;
use super::moments::retention;
use super::results::Begun;
use super::streams::Stream;
use super::talk::failed;
use super::{AppState, GoBack, World};
use crate::app::package::SealError;
use crate::app::{message, volume_name};
use crate::doors::docker::State;
use crate::doors::{clock, ring};
use crate::trouble::{Result, Trouble};
use crate::{Event, Look};

/// Before a result is sent again.
const RESULT_AGAIN: Duration = Duration::from_secs(5);
/// How long an app may take to be where a command wants it, beside what it may take to get healthy.
const PHASE_WAIT: Duration = Duration::from_secs(900);
/// Before an app that is to begin again is told so once more.
const AGAIN_EVERY: u64 = 1_000;
/// How long a planned move fills the target before it goes on.
const PRECOPY_MAX: Duration = Duration::from_secs(600);

/// An update that went back.
fn rolled_back(text: &str, service: Option<String>) -> Trouble {
    let back = Trouble::new(Problem::UpdateRolledBack, text);
    match service {
        Some(service) => back.of(service),
        None => back,
    }
}

impl World {
    /// What a record decides about, with all that it needs; none for what is done beside it.
    pub(super) async fn translate(
        &self,
        session: SessionId,
        command: &Command,
    ) -> Result<Option<pure::Command>> {
        let Some(mut decided) = command.decided() else { return Ok(None) };
        let (record, busy) = self.app(decided.app, |state| {
            let record = state.record.clone();
            let busy = record.as_ref().is_some_and(|record| record.phase.is_live());
            (record, busy)
        });
        let done = record.as_ref().is_some_and(|record| decided.number <= record.command);
        match &command.order {
            _ if done => {}
            Order::Start(start) if record.as_ref().is_none_or(|record| decided.term > record.term) => {
                let file = self.of_start(session, decided.app, start).await?;
                if let pure::Order::Start(order) = &mut decided.order {
                    let told: BTreeMap<&str, &_> =
                        start.volumes.iter().map(|one| (one.name.as_str(), one)).collect();
                    for one in &file.volumes {
                        let expect = told.get(one.name.as_str()).map(|told| Expect::from(&told.expect));
                        let expect = expect.unwrap_or(Expect::Since {
                            epoch: fs_format::Epoch(0),
                            seq: fs_format::Seq(0),
                            writers: Default::default(),
                        });
                        order.volumes.insert(VolumeId(one.volume.0), expect);
                    }
                }
                self.write_file(decided.app, file)?;
            }
            Order::Prepare(prepare) if !busy => {
                let before = self.app(decided.app, |state| state.file.clone());
                let (given, seen) = (prepare.revision.0, before.highest);
                if given < seen {
                    return Err(SealError::from(PackageError::Old { given, seen }).into());
                }
                let volumes = prepare.volumes.iter();
                let volumes =
                    volumes.map(|one| AppVolume { name: one.name.as_str().to_owned(), volume: one.volume });
                let file = AppFile {
                    revision: prepare.revision.0,
                    stores: prepare.stores.to_vec(),
                    volumes: volumes.collect(),
                    update: None,
                    ..before
                };
                self.write_file(decided.app, file)?;
                self.app(decided.app, |state| state.fill = prepare.fill);
            }
            Order::Settings(settings) => {
                self.change_file(decided.app, |file| file.seal_every_s = settings.seal_every_s.0)?;
            }
            _ => {}
        }
        Ok(Some(decided))
    }

    /// What a start says of its app; volumes that are not there yet are made, and their keys are with the hive before
    /// anything is written into them.
    async fn of_start(&self, session: SessionId, app: AppId, start: &Start) -> Result<AppFile> {
        // What was to be gone back to in an older term, and did not begin, is nothing to this one.
        let before = self.app(app, |state| {
            state.rollback = None;
            state.file.clone()
        });
        let loaded = self.load(app, start.revision.0).await?;
        let block = loaded.text.source.block();
        let urls: Vec<String> = start.stores.iter().map(|store| store.url.as_str().to_owned()).collect();
        let (mut volumes, mut made) = (Vec::new(), false);
        for one in start.volumes.iter() {
            let (plain, name) = (one.name.as_str(), volume_name(app, one.name.as_str()));
            let known = match one.volume {
                Some(volume) => Some(volume),
                None => self.made_elsewhere(&name).await?,
            };
            let volume = match known {
                Some(volume) => volume,
                None => {
                    let settings = block.volumes.get(plain);
                    let quota = settings.and_then(|settings| settings.quota_bytes);
                    let id = self.setup.volumes.create(&name, quota, &urls).await?;
                    self.setup.volumes.retain(&name, &retention(block, plain)).await?;
                    made = true;
                    Hex(id.0)
                }
            };
            volumes.push(AppVolume { name: plain.to_owned(), volume });
        }
        if made {
            self.publish_ring(session).await?;
        }
        let rollback_tag = match &start.rollback_to {
            Some(MomentName::Tag(tag)) => Some(tag.as_str().to_owned()),
            _ => None,
        };
        Ok(AppFile {
            name: loaded.package.authorization.name.clone(),
            revision: start.revision.0,
            highest: start.revision.0,
            stores: start.stores.to_vec(),
            seal_every_s: start.seal_every_s.0,
            volumes,
            ports: before.ports,
            rollback_tag,
            update: None,
            // What was begun in an older term is finished here, unless the start says something else or others wrote since.
            rollback: before.rollback,
            ended: None,
        })
    }

    /// A volume that another device made, though the hive knows none: the key ring has its key, under the same name. An
    /// empty one in its place would hide what the app wrote. What its store holds is compared with what the hive expects,
    /// as with each start.
    async fn made_elsewhere(&self, name: &str) -> Result<Option<Hex<32>>> {
        // What this device had, what a crash left here, or what was filled here for an app that is adopted.
        if self.setup.volumes.find(name).await?.is_some() {
            return Ok(None);
        }
        let ring = ring::open(&self.setup.state)?;
        let mut made = ring.entries().filter(|entry| entry.name == name);
        match (made.next(), made.next()) {
            (None, _) => Ok(None),
            (Some(entry), None) => Ok(Some(Hex(entry.volume.0))),
            (Some(_), Some(_)) => Err(Trouble::new(
                Problem::HeadUnexpected,
                format!(
                    "the key ring has several volumes \"{name}\", and the hive does not say which is meant"
                ),
            )),
        }
    }

    /// Looks at package, images and store, and follows the volumes.
    pub(super) async fn prepare(self: Arc<Self>, app: AppId, volumes: Vec<VolumeId>) {
        let writers = self.prepared(app, volumes).await.map_err(|trouble| {
            self.trouble(app, &trouble);
            trouble.problem
        });
        let _ = self.events.send(Event::Prepared { app, writers });
    }

    async fn prepared(
        &self,
        app: AppId,
        volumes: Vec<VolumeId>,
    ) -> Result<BTreeMap<VolumeId, fs_format::DeviceId>> {
        let (file, fill) = self.app(app, |state| (state.file.clone(), state.fill));
        self.warm(app, file.revision).await?;
        // It was signed by the owner, so what came before it is over.
        if file.highest < file.revision {
            self.change_file(app, |known| known.highest = file.revision)?;
        }
        let looks = volumes.into_iter().map(|volume| async move {
            let look = self.look_one(app, volume).await?;
            let ours = look.here.is_some_and(|here| !here.fenced);
            if let (false, Some(name)) = (ours, self.names(app).remove(&volume)) {
                let urls = self.app(app, |state| state.file.urls());
                let fill = fill.then_some(PRECOPY_MAX);
                let missing = self.setup.volumes.follow(&name, volume, &urls, fill).await?;
                return Ok((volume, look.writer, missing));
            }
            Ok((volume, look.writer, Some(0)))
        });
        let looks: Vec<_> = join_all(looks).await.into_iter().collect::<Result<_>>()?;
        let missing = looks.iter().map(|(.., missing)| *missing).sum();
        self.app(app, |state| state.missing_bytes = missing);
        Ok(looks.into_iter().map(|(volume, writer, _)| (volume, writer)).collect())
    }

    /// Does what no record decides about, and tells of it.
    pub(super) fn beside(self: &Arc<Self>, session: SessionId, command: Command) {
        let known = match self.results.begin(&command) {
            Begun::Known(known) => Some(*known),
            Begun::Already => return,
            Begun::Now => None,
        };
        self.spawn(move |world| async move {
            let result = match known {
                Some(known) => known,
                None => {
                    let begun = clock::boottime();
                    let done = world.order(session, &command).await;
                    tracing::info!(
                        number = command.number.0,
                        took_ms = clock::boottime() - begun,
                        ok = done.is_ok(),
                        "done"
                    );
                    match done {
                        Ok(data) => CommandResult {
                            number: command.number,
                            state: ResultState::Done,
                            code: None,
                            problem: None,
                            data,
                            ended_age_ms: Number(0),
                        },
                        Err(trouble) => {
                            let failed = world.with_torn(&command, failed(command.number, &trouble));
                            world.with_late(&command, failed).await
                        }
                    }
                }
            };
            world.keep_and_send(session, &command, result);
        });
    }

    /// Keeps a result, and sends it until the hive has it.
    pub(super) fn keep_and_send(self: &Arc<Self>, _: SessionId, command: &Command, result: CommandResult) {
        let is_written = self.results.keep(command, &result);
        let command = command.clone();
        self.spawn(move |world| async move {
            if is_written {
                world.write_results().await;
            }
            loop {
                let session = world.seen.lock().session;
                if let Some(session) = session
                    && world.send_result(session, &result).await
                {
                    return world.results.told(&command);
                }
                tokio::time::sleep(RESULT_AGAIN).await;
            }
        });
    }

    async fn order(self: &Arc<Self>, session: SessionId, command: &Command) -> Result<Data> {
        let app =
            command.app.ok_or_else(|| Trouble::new(Problem::UnknownCommand, "the command names no app"));
        if let (
            Some(app),
            Some(term),
            Order::Restart { .. } | Order::Rollback { .. } | Order::Update { .. },
        ) = (command.app, command.term, &command.order)
        {
            self.must_have(app, term)?;
        }
        // Who was given it before may have ended; what that one began is finished, or taken back, before the app runs again.
        let mut has_waited = false;
        if let (Some(app), Order::Rollback { .. } | Order::Update { .. }) = (command.app, &command.order) {
            has_waited = self.arrived(app).await;
            if let Some(term) = command.term {
                self.must_have(app, term)?;
            }
        }
        match &command.order {
            Order::Ring { version } => {
                self.take_ring(session, version.0).await;
                let number = ring::open(&self.setup.state)?.number().0;
                // With the account's first ring here the hive can see that this device has it open.
                if self.seen.lock().is_locked {
                    let _ = self.events.send(Event::Answered(session, Err(Refusal::SessionOver)));
                }
                Ok(Data { number: Some(Number::from(number)), ..Data::default() })
            }
            Order::Facts { stream } => self.facts(session, *stream).await,
            Order::Doctor { stream } => self.doctor(session, *stream).await,
            Order::Forget { keep_data, discard } => {
                let term = command.term.unwrap_or(Term(0));
                self.forget(app?, term, *keep_data, *discard).await
            }
            Order::Restart { services } => {
                let services: Option<Vec<String>> =
                    services.as_ref().map(|list| list.iter().map(|one| one.as_str().to_owned()).collect());
                self.restart(app?, services.as_deref()).await?;
                Ok(Data::default())
            }
            Order::Snapshot { tag, message } => {
                let tag = match tag {
                    Some(tag) => String::from(tag.clone()),
                    None => command.operation.instant_tag(),
                };
                let app = app?;
                let message = match message {
                    Some(sealed) => message::open(ring::open(&self.setup.state)?.owner(), app, &sealed.0)?,
                    None => String::new(),
                };
                let moment = self.snapshot(app, &tag, &message, MomentReason::Asked).await?;
                Ok(Data { moment: Some(moment), ..Data::default() })
            }
            Order::Moments => {
                let moments = self.moments(app?).await?;
                Ok(Data { moments: List::cut(moments), ..Data::default() })
            }
            Order::Rollback { to, start } => {
                let app = app?;
                // What was on its way runs now, or does not any more: that is not rolled back as if it had been stopped.
                if has_waited && *start != Some(false) {
                    self.settled(app, None).await?;
                }
                self.rollback(app, command.operation, to, *start).await
            }
            Order::Update { revision } => self.update(app?, command.operation, revision.0).await,
            Order::Action { name, input, stream } => {
                let values =
                    input.iter().map(|one| (one.name.as_str().to_owned(), one.value.reveal().to_owned()));
                self.action(session, app?, name.as_str(), values.collect(), *stream).await
            }
            Order::Logs { services, lines, follow, stream } => {
                let services: Option<Vec<String>> =
                    services.as_ref().map(|list| list.iter().map(|one| one.as_str().to_owned()).collect());
                self.logs(session, app?, services, lines.0, *follow, *stream).await
            }
            Order::Fork(fork) => self.fork(session, app?, command.operation, fork).await,
            Order::Author(wish) => self.author(session, wish).await,
            Order::UpdateDevice { release, signature } => {
                self.update_device(session, &release.0, &signature.0).await
            }
            _ => Err(Trouble::new(Problem::UnknownCommand, "this device does not know the command")),
        }
    }

    pub(super) fn phase(&self, app: AppId) -> Option<Phase> {
        self.app(app, |state| state.record.as_ref().map(|record| record.phase))
    }

    /// What was ordered of an app in one term is not done in another one.
    fn must_have(&self, app: AppId, term: Term) -> Result<()> {
        match self.app(app, |state| state.record.as_ref().map(|record| (record.term, record.mine))) {
            Some((has, true)) if has == term => Ok(()),
            _ => Err(Trouble::new(
                Problem::TermOver,
                "the app was ordered elsewhere, or anew, since this was asked for",
            )),
        }
    }

    /// Only what runs here can be asked for something.
    fn must_run(&self, app: AppId) -> Result<()> {
        match self.phase(app) {
            Some(Phase::Running) => Ok(()),
            _ => Err(Trouble::new(Problem::State, "the app does not run here")),
        }
    }

    /// Has an app that runs begin again, and waits until it runs again or stands still.
    ///
    /// That it runs says nothing before it has stopped running, which is only said when it is on the disk. An event that did not
    /// lead there is lost where a record could not be written, so it is given again; whatever the app stopped for meanwhile
    /// comes to the same.
    async fn begin_again(&self, app: AppId) -> Result<()> {
        let time = self.app(app, |state| state.runs);
        self.must_run(app)?;
        self.settled(app, Some(time)).await
    }

    /// Waits until an app runs, or stands still. One that is to begin again has run so many times before.
    async fn settled(&self, app: AppId, before: Option<u64>) -> Result<()> {
        let begun = clock::boottime();
        let mut ask_at = begun;
        let term = |state: &mut AppState| state.record.as_ref().map(|record| record.term);
        let begun_in = self.app(app, term);
        // An update that goes back waits for two revisions.
        let gate_s = || {
            let loaded = self.app(app, |state| state.loaded.clone());
            loaded.map_or(0, |loaded| u64::from(loaded.package.authorization.health_seconds))
        };
        let mut longest_s = gate_s();
        loop {
            longest_s = longest_s.max(gate_s());
            let now = clock::boottime();
            // Looked at and asked at once: it is not asked of an app that runs again.
            let is_before = self.app(app, |state| {
                let runs = state.record.as_ref().is_some_and(|record| record.phase == Phase::Running);
                let is_before = runs && before == Some(state.runs);
                if is_before && now >= ask_at {
                    ask_at = now + AGAIN_EVERY;
                    let _ = self.events.send(Event::Again(app));
                }
                is_before
            });
            if self.app(app, term) != begun_in {
                return Err(Trouble::new(Problem::TermOver, "the app was ordered anew meanwhile"));
            }
            match self.phase(app) {
                Some(Phase::Running) if !is_before => return Ok(()),
                Some(Phase::Stopped(Why::Failed(problem))) => {
                    let trouble = self.app(app, |state| state.trouble.clone());
                    return Err(
                        trouble.unwrap_or_else(|| Trouble::new(problem, "the app did not start again"))
                    );
                }
                Some(Phase::Stopped(_) | Phase::StandingBy | Phase::Settling) | None => {
                    return Err(Trouble::new(Problem::State, "the app was stopped meanwhile"));
                }
                Some(_) if clock::boottime() - begun > (PHASE_WAIT.as_secs() + 2 * longest_s) * 1_000 => {
                    return Err(Trouble::new(Problem::GateLate, "the app did not start again in time"));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(250)).await,
            }
        }
    }

    /// Waits until an app that was stopped stands still.
    pub(super) async fn stopped(&self, app: AppId) -> Result<()> {
        let begun = clock::boottime();
        loop {
            // What was ordered is heard first.
            tokio::time::sleep(Duration::from_millis(250)).await;
            match self.phase(app) {
                Some(phase) if !phase.is_live() => return Ok(()),
                None => return Ok(()),
                Some(_) if clock::boottime() - begun > PHASE_WAIT.as_secs() * 1_000 => {
                    return Err(Trouble::new(Problem::StopLate, "the app is not stopped yet"));
                }
                Some(_) => {}
            }
        }
    }

    pub(super) async fn restart(self: &Arc<Self>, app: AppId, services: Option<&[String]>) -> Result<()> {
        self.must_run(app)?;
        let Some(services) = services else { return self.begin_again(app).await };
        let hands = self.app(app, |state| state.hands.clone());
        let _hands = hands.lock().await;
        let containers = self.docker.containers(Some(app)).await?;
        for one in containers.iter().filter(|one| services.contains(&one.service)) {
            self.docker.stop(one, Duration::from_secs(10)).await?;
            self.must_run(app)?;
            self.docker.start(one).await?;
        }
        Ok(())
    }

    /// Waits for an app that is on its way; whether there was something to wait for.
    async fn arrived(&self, app: AppId) -> bool {
        let is_on_its_way = self.phase(app).is_some_and(|phase| phase.is_live() && phase != Phase::Running);
        if is_on_its_way {
            // What came of it is seen by who asks.
            let _ = self.settled(app, None).await;
        }
        is_on_its_way
    }

    /// What came of an order that a former process was given, if it came that far.
    fn ended(&self, app: AppId, order: &str) -> Option<Ended> {
        self.app(app, |state| state.file.ended.clone()).filter(|ended| ended.order == order)
    }

    /// Stops, goes back, starts if it ran, unless it is to stay stopped.
    async fn rollback(
        self: &Arc<Self>,
        app: AppId,
        operation: OperationId,
        to: &MomentName,
        start: Option<bool>,
    ) -> Result<Data> {
        let order = operation.instant_tag();
        let is_begun = self.app(app, |state| {
            let begun = state.file.rollback.as_ref();
            begun.is_some_and(|begun| begun.starts && begun.order.as_ref() == Some(&order))
        });
        // A start finished it since, or could not.
        if is_begun || self.ended(app, &order).is_some() {
            self.settled(app, None).await?;
            return self.restored(app).await;
        }
        let runs = self.phase(app) == Some(Phase::Running);
        let names = self.names(app);
        // What is to be gone back to must be there in each volume before anything is touched.
        let whens = self.whens(&names, to).await?;
        let whens = whens.into_iter().map(|(volume, when)| (Hex(volume.0), when)).collect();
        let starts = runs && start != Some(false);
        let rollback = Rollback { order: Some(order), starts, whens };
        if starts {
            // Looking for the moment took a while: what does not run any more is not gone back with later.
            let is_armed = self.app(app, |state| {
                let record = state.record.as_ref().filter(|record| record.phase == Phase::Running);
                state.rollback = record.map(|record| GoBack { term: record.term, rollback });
                state.rollback.is_some()
            });
            let again = match is_armed {
                true => self.begin_again(app).await,
                false => Err(Trouble::new(Problem::State, "the app does not run here any more")),
            };
            // Told as failed, it is not begun by a later start.
            self.app(app, |state| state.rollback = None);
            again?;
            return self.restored(app).await;
        }
        if runs {
            self.must_run(app)?;
            let _ = self.events.send(Event::StopHere(app));
            self.stopped(app).await?;
        } else if start == Some(true) {
            return Err(Trouble::new(Problem::State, "it does not run: a start brings it back"));
        }
        self.roll_back(app, rollback).await?;
        Ok(Data { heads: List::cut(self.heads(app).await), ..Data::default() })
    }

    /// An app runs on what it went back to, and is told.
    async fn restored(&self, app: AppId) -> Result<Data> {
        let loaded = self.app(app, |state| state.loaded.clone());
        let hook = loaded.and_then(|loaded| loaded.text.source.block().after_restore.clone());
        if let Some(hook) = hook {
            self.hook(app, &hook).await?;
        }
        Ok(Data { heads: List::cut(self.heads(app).await), ..Data::default() })
    }

    /// Of a rollback that failed: whether volumes may be back while others are not. What has begun is finished by the next
    /// start, wherever that is.
    fn with_torn(&self, command: &Command, mut result: CommandResult) -> CommandResult {
        if let (Some(app), Order::Rollback { .. }) = (command.app, &command.order) {
            let order = command.operation.instant_tag();
            let begun = self.app(app, |state| state.file.rollback.clone());
            if begun.is_some_and(|begun| begun.order == Some(order)) {
                result.data.rolled_back = Some(false);
            }
        }
        result
    }

    async fn heads(&self, app: AppId) -> Vec<orchestrator_api::wire::command::HeadAt> {
        let names = self.names(app);
        let looks = names.iter().map(|(volume, name)| async move {
            let look: Look = self.setup.volumes.look(name).await.ok()?;
            look.store.newest.map(|(head, _)| orchestrator_api::wire::command::HeadAt::of(*volume, &head))
        });
        join_all(looks).await.into_iter().flatten().collect()
    }

    /// Another revision; back to the one before, with its data, if the new one is not well (`failover.md`, section 11).
    async fn update(self: &Arc<Self>, app: AppId, operation: OperationId, revision: u64) -> Result<Data> {
        let tag = operation.instant_tag();
        if let Some(ended) = self.ended(app, &tag) {
            return self.updated(app, ended).await;
        }
        self.must_run(app)?;
        let term = self.app(app, |state| state.record.as_ref().map(|record| record.term));
        for name in self.names(app).values() {
            // The moment is taken once: another one of its tag would be another instant in some volumes than in others.
            if self.has_moment(name, &tag).await? {
                let text = "who updated the app did not live to begin it: the old revision runs on";
                return Err(Trouble::new(Problem::UpdateRolledBack, text));
            }
        }
        let old = self.app(app, |state| state.loaded.clone());
        // The old one runs on while images come, and if they do not.
        let warm = self.warm(app, revision).await;
        if let Err(trouble) = warm {
            self.app(app, |state| state.loaded = old);
            return Err(trouble);
        }
        let moment = self.snapshot(app, &tag, "", MomentReason::Update).await?;
        self.must_run(app)?;
        if let Some(term) = term {
            self.must_have(app, term)?;
        }
        self.app(app, |state| (state.updating, state.went_back) = (true, None));
        let written = self.change_file(app, |file| {
            file.update = Some(Update { from: file.kept(), tag });
            file.revision = revision;
        });
        let again = match written {
            Ok(()) => self.begin_again(app).await,
            Err(trouble) => Err(trouble),
        };
        let went_back = self.app(app, |state| {
            state.updating = false;
            state.went_back.take()
        });
        again?;
        match went_back {
            None => Ok(Data { moment: Some(moment), rolled_back: Some(false), ..Data::default() }),
            Some(trouble) => Err(rolled_back(trouble.text(), trouble.service.clone())),
        }
    }

    /// What came of an update that a former process was given.
    async fn updated(&self, app: AppId, ended: Ended) -> Result<Data> {
        if !ended.went_back {
            let moment = self.moment_of(app, &ended.order).await?;
            return Ok(Data { moment: Some(moment), rolled_back: Some(false), ..Data::default() });
        }
        if self.app(app, |state| state.file.rollback.is_some()) {
            let text = "an update goes back, and not all volumes are back: the next start finishes it";
            return Err(Trouble::new(Problem::InstantTorn, text));
        }
        Err(rolled_back("it went back before this device's process began anew", ended.service))
    }

    async fn action(
        &self,
        session: SessionId,
        app: AppId,
        name: &str,
        values: BTreeMap<String, String>,
        stream: Uuid,
    ) -> Result<Data> {
        self.must_run(app)?;
        let loaded = self.app(app, |state| state.loaded.clone());
        let unknown = || Trouble::new(Problem::UnknownCommand, "the app has no such action");
        let action = loaded
            .as_ref()
            .and_then(|loaded| loaded.text.source.block().actions.get(name))
            .ok_or_else(unknown)?;
        let (argv, input) = action.fill(&values).map_err(|wrong| {
            Trouble::new(Problem::HookFailed, format!("{} {}", wrong.name, wrong.problem))
        })?;
        let containers = self.docker.containers(Some(app)).await?;
        let service = action.run.service.clone();
        let one = containers.iter().find(|one| one.service == service && one.state == State::Running);
        let one =
            one.ok_or_else(|| Trouble::new(Problem::HookFailed, "its service does not run").of(&service))?;
        let (to, mut lines) = tokio::sync::mpsc::channel(256);
        let limit = Duration::from_secs(u64::from(action.run.timeout_s));
        let run = self.docker.exec(one, &argv, input.as_deref(), limit, move |line| {
            // A reader that is too slow misses lines; the action goes on.
            let _ = to.try_send(line);
        });
        let mut stream = Stream::begin(self, session, stream)?;
        let read = async {
            while let Some(line) = lines.recv().await {
                for text in String::from_utf8_lossy(&line.bytes).lines() {
                    stream.line(&service, line.is_error, text).await;
                }
            }
            stream.end().await;
        };
        let (exit, ()) = tokio::join!(run, read);
        Ok(Data { exit: Some(i16::try_from(exit?).unwrap_or(-1)), ..Data::default() })
    }

    async fn logs(
        &self,
        session: SessionId,
        app: AppId,
        services: Option<Vec<String>>,
        lines: u64,
        follow: bool,
        stream: Uuid,
    ) -> Result<Data> {
        let containers = self.docker.containers(Some(app)).await?;
        let wanted = containers
            .iter()
            .filter(|one| services.as_ref().is_none_or(|names| names.contains(&one.service)));
        let mut parts = Vec::new();
        for one in wanted {
            let service = one.service.clone();
            let lines = u32::try_from(lines).unwrap_or(u32::MAX);
            let log = self.docker.logs(one, lines, follow, false).await?;
            parts.push(log.map(move |line| (service.clone(), line)).boxed());
        }
        let mut all = futures_util::stream::select_all(parts);
        let mut stream = Stream::begin(self, session, stream)?;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                next = all.next() => match next {
                    Some((service, line)) => {
                        for text in String::from_utf8_lossy(&line.bytes).lines() {
                            stream.line(&service, line.is_error, text).await;
                        }
                    }
                    None => break,
                },
                _ = tick.tick() => stream.flush().await,
            }
            if !stream.is_open() {
                return Ok(Data::default());
            }
        }
        stream.end().await;
        Ok(Data::default())
    }

    async fn facts(&self, session: SessionId, stream: Uuid) -> Result<Data> {
        let mut stream = Stream::begin(self, session, stream)?;
        for (what, text) in self.facts_now().await {
            stream.line("", false, &format!("{what}: {text}")).await;
        }
        stream.end().await;
        Ok(Data::default())
    }

    /// What there is to know of this machine, in words.
    pub(super) async fn facts_now(&self) -> Vec<(&'static str, String)> {
        let (docker, compose) = (self.look_at_docker().await, self.compose.version().await);
        let version = |found: Result<String>| found.unwrap_or_else(|trouble| trouble.to_string());
        let seen = self.seen.lock();
        vec![
            ("comb", self.setup.version.clone()),
            ("docker", version(docker)),
            ("compose", version(compose)),
            ("clock", format!("{}, {}", wall_clock(), seen.clocks.check().unwrap_or_else(|wrong| wrong))),
            ("boottime_ms", clock::boottime().to_string()),
            ("load", serde_json::to_string(&seen.load).unwrap_or_default()),
            ("disks", serde_json::to_string(&self.disks(seen.docker_root.as_deref())).unwrap_or_default()),
            ("docker_state", serde_json::to_string(&seen.docker).unwrap_or_default()),
        ]
    }

    async fn doctor(&self, session: SessionId, stream: Uuid) -> Result<Data> {
        let mut stream = Stream::begin(self, session, stream)?;
        let (mut passed, mut wrong) = (0, 0);
        for check in self.checks().await {
            let (word, text) = match &check.1 {
                Ok(text) => ("ok", text),
                Err(text) => ("wrong", text),
            };
            match check.1 {
                Ok(_) => passed += 1,
                Err(_) => wrong += 1,
            }
            stream.line("", word == "wrong", &format!("{word}: {}: {text}", check.0)).await;
        }
        stream.end().await;
        Ok(Data { passed: Some(Number(passed)), failed: Some(Number(wrong)), ..Data::default() })
    }
}
