//! Hello, reports, commands and results.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_api::command::{CommandResult as Decided, Outcome, Verb};
use orchestrator_api::ids::{AppId, CommandNumber, SessionId, VolumeId};
use orchestrator_api::placement::Problem;
use orchestrator_api::release::Arch;
use orchestrator_api::report::{Hello, Refusal, Report, Welcome};
use orchestrator_api::text::Hex;
use orchestrator_api::wire::command::{Command, CommandResult, Commands, Cut, HeadAt, ResultState, WriterAt};
use orchestrator_api::wire::report::ReportAnswer;
use orchestrator_api::wire::value::{Key, List, Number, Text, Word};
use orchestrator_api::wire::{RING_BYTES_MAX, account, device as wire};
use serde::Deserialize;

use super::World;
use super::report::{problem_report, pseudonym, weight};
use crate::Event;
use crate::doors::disk::refusal;
use crate::doors::hive::{Ask, HiveError};
use crate::doors::{clock, ring};
use crate::trouble::{Result, Trouble};

/// How long an answer is waited for.
const REPORT_WAIT: Duration = Duration::from_secs(4);
/// How long a request for commands is held, and the way there and back.
const POLL_WAIT: Duration = Duration::from_secs(35);
/// Before commands are asked for again after a failure.
const POLL_AGAIN: Duration = Duration::from_secs(1);
/// How long other requests may take.
const ASK_WAIT: Duration = Duration::from_secs(15);
/// How often a ring that somebody else changed at the same time is united and sent again.
const RING_ROUNDS_MAX: usize = 8;

/// What this program can be asked for beside what all can.
const FEATURES: [&str; 4] = ["move", "auto", "update", "author"];

/// This machine's processor.
pub const ARCH: Arch = if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 };

#[derive(Deserialize)]
struct RingList {
    items: Vec<account::RingVersion>,
}

fn words() -> List<Word, { wire::FEATURES_MAX }> {
    List::cut(FEATURES.iter().filter_map(|word| word.parse().ok()))
}

/// What a device says of itself when it joins.
pub fn join_words(identity: [u8; 32], name: &str, version: &str) -> Option<wire::Join> {
    let name = String::from(name).try_into().ok()?;
    Some(wire::Join {
        identity: Hex(identity),
        name,
        version: Text::cut(version),
        arch: ARCH,
        features: words(),
    })
}

/// A hello without apps: of a device that has just joined.
pub fn first_hello(number: u64, run: [u8; 16], version: &str) -> wire::Hello {
    wire::Hello {
        hello: orchestrator_api::ids::HelloNumber(number),
        run: orchestrator_api::ids::RunId(run),
        incarnation: orchestrator_api::ids::Incarnation(0),
        version: Text::cut(version),
        arch: ARCH,
        features: words(),
        locked: true,
        auto_update: false,
        accepts_authoring: false,
        commands_have: CommandNumber(0),
        apps: List::default(),
        proof: None,
    }
}

impl World {
    pub(super) async fn hello(self: Arc<Self>, hello: Hello) {
        let hive_file = self.hive_file.lock().clone();
        let app = |(app, said): (&AppId, &orchestrator_api::report::HelloApp)| wire::HelloApp {
            app: *app,
            term: said.term,
            mine: said.mine,
            leased: said.leased,
            stopped: said.stopped,
            generation: said.generation,
            revision: Number::from(self.app(*app, |state| state.file.kept())),
        };
        let mut apps: Vec<_> = hello.apps.iter().collect();
        apps.sort_by_key(|(app, _)| self.phase(**app).map_or(u8::MAX, weight));
        let opened = ring::open(&self.setup.state).ok();
        let said = wire::Hello {
            hello: hello.number,
            run: hello.run,
            incarnation: hello.incarnation,
            version: Text::cut(&self.setup.version),
            arch: ARCH,
            features: words(),
            locked: opened.is_none(),
            auto_update: hive_file.auto_update,
            accepts_authoring: hive_file.accepts_authoring,
            commands_have: hello.command,
            apps: List::cut(apps.into_iter().map(app)),
            proof: opened.map(|ring| ring::proof(&ring, &hive_file.key.0, hive_file.device)),
        };
        let Ok(body) = serde_json::to_vec(&said) else { return };
        let path = "/v1/device/hello";
        let ask = Ask {
            session: None,
            number: Some(hello.number.0),
            method: "POST",
            path,
            body: &body,
            json: true,
            wait: REPORT_WAIT * 2,
            bytes_max: 64 << 10,
        };
        match self.hive.ask::<wire::Welcome>(&ask).await {
            Ok(welcome) if welcome.incarnation < hello.incarnation => {
                self.note_answer(&format!(
                    "{}: the hive that answers is the one from before a restore, and nothing that it says is done: end it, so \
                     that this device reaches the restored one",
                    Problem::HiveWentBack.text()
                ));
            }
            Ok(welcome) => {
                self.note_answer("online");
                let (session, incarnation) = (welcome.session, welcome.incarnation);
                {
                    let mut seen = self.seen.lock();
                    (seen.session, seen.is_locked) = (Some(session), welcome.locked);
                }
                let known = Welcome { number: hello.number, session, incarnation };
                let _ = self.events.send(Event::Welcome(Ok(known)));
                let exchanged = self.take_ring(session, welcome.ring.map_or(0, |number| number.0)).await;
                for app in welcome.packages.iter() {
                    self.bring_package(session, *app).await;
                }
                // A hive that knew no ring could not see that this device has it open.
                if welcome.locked && exchanged {
                    let _ = self.events.send(Event::Answered(session, Err(Refusal::SessionOver)));
                }
            }
            Err(error) => {
                self.note_answer(&error.to_string());
                if let Some(refusal) = refused(&error) {
                    tracing::error!(%error, "the hive refuses this device");
                    let _ = self.events.send(Event::Welcome(Err((hello.number, refusal))));
                }
            }
        }
    }

    /// Brings the package of an app to a hive that was restored from before it.
    async fn bring_package(&self, session: SessionId, app: AppId) {
        let revision = self.app(app, |state| state.file.kept());
        let brought = match self.folder.read_package(app, revision) {
            Ok(Some(package)) => self.post_package(session, &package).await,
            Ok(None) => Err(Trouble::new(Problem::PackageWrong, "it is not here")),
            Err(error) => Err(Trouble::new(Problem::PackageWrong, error.to_string())),
        };
        match brought {
            Ok(()) => tracing::info!(%app, revision, "brought the hive a package that it lacked"),
            Err(trouble) => tracing::warn!(%app, revision, problem = ?trouble, "the hive lacks a package"),
        }
    }

    fn note_answer(&self, answer: &str) {
        let mut seen = self.seen.lock();
        if seen.answer != answer {
            tracing::info!(answer, hive = self.hive.url(), "the hive");
            answer.clone_into(&mut seen.answer);
        }
        if answer == "online" {
            seen.online = Some(clock::boottime());
        }
    }

    pub(super) async fn report(self: Arc<Self>, session: SessionId, report: Report) {
        let (number, told) = (report.number, self.full_report(&report));
        let Ok(body) = serde_json::to_vec(&told) else { return };
        let ask =
            Ask { number: Some(number.0), ..Ask::post(session, "/v1/device/report", &body, REPORT_WAIT) };
        match self.hive.ask::<ReportAnswer>(&ask).await {
            Ok(answer) => {
                self.note_answer("online");
                self.seen.lock().reported = Some(clock::boottime());
                let answer = answer.decided(number);
                let _ = self.events.send(Event::Answered(session, Ok(answer)));
            }
            Err(error) => {
                self.note_answer(&error.to_string());
                if let Some(refusal) = refused(&error) {
                    let _ = self.events.send(Event::Answered(session, Err(refusal)));
                }
            }
        }
    }

    /// Asks for commands, again and again, as long as the session lasts.
    pub(super) fn poll(self: &Arc<Self>, session: SessionId) {
        let mut seen = self.seen.lock();
        if seen.polls == Some(session) {
            return;
        }
        seen.polls = Some(session);
        seen.commands_have = 0;
        drop(seen);
        self.spawn(move |world| async move {
            loop {
                let have = world.seen.lock().commands_have;
                let path = format!("/v1/device/commands?have={have}");
                let ask = Ask { bytes_max: 4 << 20, ..Ask::get(session, &path, POLL_WAIT) };
                let answer = world.hive.ask::<Commands>(&ask).await;
                if world.seen.lock().polls != Some(session) {
                    return;
                }
                match answer {
                    Ok(commands) => world.take_commands(session, commands.commands.into_vec()),
                    Err(error) => match refused(&error) {
                        Some(refusal) => {
                            world.seen.lock().polls = None;
                            let _ = world.events.send(Event::Commands(session, Err(refusal)));
                            return;
                        }
                        None => tokio::time::sleep(POLL_AGAIN).await,
                    },
                }
            }
        });
    }

    /// Hands commands on: those of one app in their order, apps beside each other. What one of them waits for, maybe a store
    /// that is away, holds up no other app.
    fn take_commands(self: &Arc<Self>, session: SessionId, commands: Vec<Command>) {
        for command in commands {
            let number = command.number;
            tracing::info!(number = number.0, verb = ?super::results::verb(&command.order), "a command");
            match command.app {
                Some(app) => self.take_in_turn(app, session, command),
                None => self.beside(session, command),
            }
            let mut seen = self.seen.lock();
            seen.commands_have = seen.commands_have.max(number.0);
        }
    }

    /// Takes a command when those before it of its app are taken.
    pub(super) fn take_in_turn(self: &Arc<Self>, app: AppId, session: SessionId, command: Command) {
        let world = self.clone();
        let mut apps = self.apps.lock();
        let state = apps.entry(app).or_default();
        let former = state.commands.take();
        state.commands = Some(tokio::spawn(async move {
            if let Some(former) = former {
                let _ = former.await;
            }
            world.take(app, session, command).await;
        }));
    }

    /// Hands on a command that a record decides about, or does it beside the records.
    async fn take(self: &Arc<Self>, app: AppId, session: SessionId, command: Command) {
        // It may have waited for long: what came of it may be known, and another session may have begun.
        let known = self.results.known(&command);
        if let Some(known) = known {
            return self.keep_and_send(session, &command, known);
        }
        let session = self.seen.lock().session.unwrap_or(session);
        match self.translate(session, &command).await {
            Ok(Some(decided)) => {
                let session = self.seen.lock().session.unwrap_or(session);
                let _ = self.events.send(Event::Commands(session, Ok(vec![decided])));
            }
            Ok(None) => self.beside(session, command),
            Err(trouble) => {
                tracing::warn!(problem = ?trouble, "a command cannot be done");
                self.trouble(app, &trouble);
                let result = failed(command.number, &trouble);
                self.keep_and_send(session, &command, result);
            }
        }
    }

    pub(super) async fn result(self: Arc<Self>, session: SessionId, result: Decided) {
        let mut told = CommandResult::of(&result, 0);
        let (trouble, record, file, seen, missing) = self.app(result.app, |state| {
            let seen = state.seen_heads.clone();
            (state.trouble.clone(), state.record.clone(), state.file.clone(), seen, state.missing_bytes)
        });
        if !told.data.writers.is_empty() {
            // Of a `prepare`.
            told.data.missing_bytes = missing.map(Number::from);
        }
        if let (Outcome::Failed(problem), Some(trouble)) = (result.outcome, trouble)
            && trouble.problem == problem
        {
            told.problem = Some(problem_report(&trouble));
        }
        if result.outcome == Outcome::Failed(Problem::HeadUnexpected) {
            told.data.seen = List::cut(seen);
        }
        // A stop ends whether the store answers or not; what it lacks is told with it.
        let is_stop = |kept: &crate::record::Kept| {
            kept.result.number == result.number && kept.verb == Verb::Stop && result.outcome == Outcome::Done
        };
        if result.outcome == Outcome::Failed(Problem::PublishLate)
            || record.as_ref().is_some_and(|record| record.results.iter().any(is_stop))
        {
            told.data.late = List::cut(self.late(result.app, false).await.unwrap_or_default());
        }
        // A start that failed tells them, too: what was claimed may have been written to, and nobody else knows of it.
        if let Some(record) = record.filter(|_| told.state != ResultState::Obsolete) {
            let cuts = record.volumes.iter().filter_map(|(volume, kept)| {
                let (cut, name) = (kept.cut?, file.name_of(*volume)?.to_owned());
                let HeadAt { volume, epoch, seq, manifest } = HeadAt::of(*volume, &cut.head);
                let parent = cut.parent.map(|parent| Hex(parent.0));
                let name: Key = name.try_into().ok()?;
                Some(Cut { name, volume, epoch, seq, manifest, parent, parent_age_ms: None })
            });
            told.data.cuts = List::cut(cuts);
            let writer = |cut: &Cut| WriterAt {
                volume: cut.volume,
                writer: Hex(pseudonym(&self.setup.state, VolumeId(cut.volume.0))),
            };
            if told.data.writers.is_empty() {
                told.data.writers = List::cut(told.data.cuts.iter().map(writer));
            }
        }
        if self.send_result(session, &told).await {
            let _ = self.events.send(Event::Kept(result.number));
        }
    }

    /// Whether the hive has it now, or never gave the command.
    pub(super) async fn send_result(&self, session: SessionId, result: &CommandResult) -> bool {
        let Ok(body) = serde_json::to_vec(result) else { return false };
        let path = format!("/v1/device/commands/{}/result", result.number.0);
        match self.hive.bytes(&Ask::post(session, &path, &body, ASK_WAIT)).await {
            Ok(_) | Err(HiveError::Refused { status: 404, .. }) => true,
            Err(error) => {
                tracing::warn!(%error, number = result.number.0, "the hive does not take a result");
                false
            }
        }
    }

    /// Takes the hive's ring, if it is a newer one, and hands ours on, if that is; whether one of them was done.
    pub(super) async fn take_ring(&self, session: SessionId, number: u64) -> bool {
        // A command on this machine may have changed it.
        self.renew_credentials().await;
        let here = ring::open(&self.setup.state).map(|ring| ring.number().0);
        let outcome = match here {
            Ok(here) if here == number => return false,
            Ok(here) if here < number => self.fetch_ring(session, number).await,
            Ok(_) => self.publish_ring(session).await,
            // Locked: a person has to type the passphrase first.
            Err(_) => return false,
        };
        if let Err(trouble) = &outcome {
            tracing::warn!(problem = ?trouble, "the key ring is not the hive's");
        }
        outcome.is_ok()
    }

    async fn fetch_ring(&self, session: SessionId, number: u64) -> Result<()> {
        let object = self.ring_object(session, number).await?;
        self.unite_ring(&object).await
    }

    /// Takes over what another version of the ring has, and gives stores the credentials in it.
    pub(super) async fn unite_ring(&self, object: &[u8]) -> Result<()> {
        self.setup.rings.unite(object)?;
        self.renew_credentials().await;
        Ok(())
    }

    async fn renew_credentials(&self) {
        if let Err(trouble) = self.setup.volumes.renew_credentials().await {
            tracing::warn!(why = trouble.text(), "the stores of volumes here get no other credentials");
        }
    }

    async fn ring_object(&self, session: SessionId, number: u64) -> Result<Vec<u8>> {
        let path = format!("/v1/ring/{number}");
        let ask = Ask { bytes_max: RING_BYTES_MAX, ..Ask::get(session, &path, ASK_WAIT) };
        self.hive.bytes(&ask).await.map_err(|error| late(&error))
    }

    /// The newest version of the ring that the hive has, for somebody who is to open it.
    pub(super) async fn newest_ring(&self) -> Result<Option<Vec<u8>>> {
        let session = self.seen.lock().session;
        let session = session.ok_or_else(|| late(&HiveError::Away("there is no session yet".to_owned())))?;
        let list: RingList =
            self.hive.ask(&Ask::get(session, "/v1/ring", ASK_WAIT)).await.map_err(|error| late(&error))?;
        match list.items.first() {
            Some(version) => self.ring_object(session, version.number.0).await.map(Some),
            None => Ok(None),
        }
    }

    /// Brings the ring of this machine to the hive; what somebody else put there meanwhile is united with it.
    pub(super) async fn publish_ring(&self, session: SessionId) -> Result<()> {
        for _ in 0..RING_ROUNDS_MAX {
            let opened = ring::open(&self.setup.state)?;
            let object = ring::object(&self.setup.state)
                .map_err(|error| Trouble::new(Problem::PackageSealed, error.to_string()))?;
            let (number, path) = (opened.number().0, ring::path(&opened, &object));
            drop(opened);
            let ask = Ask { method: "PUT", json: false, ..Ask::post(session, &path, &object, ASK_WAIT) };
            match self.hive.bytes(&ask).await {
                Ok(_) => return Ok(()),
                Err(HiveError::Refused { code, .. }) if code == "ring_moved" => {
                    let list: RingList = self
                        .hive
                        .ask(&Ask::get(session, "/v1/ring", ASK_WAIT))
                        .await
                        .map_err(|error| late(&error))?;
                    let newest = list.items.first().map_or(number, |version| version.number.0);
                    self.fetch_ring(session, newest).await?;
                }
                Err(error) => return Err(late(&error)),
            }
        }
        Err(Trouble::new(Problem::RingLate, "others change the key ring all the time"))
    }
}

fn late(error: &HiveError) -> Trouble {
    Trouble::new(Problem::RingLate, error.to_string())
}

fn refused(error: &HiveError) -> Option<Refusal> {
    match error {
        HiveError::Refused { code, .. } => refusal(code),
        _ => None,
    }
}

/// The result of a command that was not done.
pub(super) fn failed(number: CommandNumber, trouble: &Trouble) -> CommandResult {
    CommandResult {
        number,
        state: ResultState::Failed,
        code: Some(trouble.problem),
        problem: Some(problem_report(trouble)),
        data: Default::default(),
        ended_age_ms: Number(0),
    }
}
