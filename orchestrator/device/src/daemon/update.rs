//! Another program for the device itself (`security.md`, section 9).
//!
//! The process that runs now fetches and checks it, puts it into its place and ends; whoever started it starts the next
//! one, which gets the same command again and answers it when it has shown that it is well. The one before answers if it
//! has to go on instead.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_api::ids::{AppId, SessionId};
use orchestrator_api::placement::{Phase, Problem};
use orchestrator_api::release::{Binary, Release, ReleaseError};
use orchestrator_api::wire::command::Data;
use orchestrator_api::wire::report::{Health, UpdateState, UpdateStep};
use orchestrator_api::wire::value::Number;

use super::World;
use super::report::health;
use super::talk::ARCH;
use crate::doors::hive::Ask;
use crate::doors::program::{self, Call};
use crate::doors::ring;
use crate::programs::{Programs, Updates};
use crate::trouble::{Result, Trouble};

/// How long a program may be fetched.
const FETCH_WAIT: Duration = Duration::from_secs(1_800);
/// By how much one may be longer than what was signed for, and still be looked at, in bytes.
const LONGER_MAX: u64 = 1 << 20;
/// How long a program may take to say its version.
const VERSION_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked whether all is well.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl World {
    fn programs(&self) -> Programs {
        Programs::of(&self.folder.0)
    }

    fn updates(&self) -> Result<Updates> {
        self.programs()
            .read()
            .map_err(|error| Trouble::new(Problem::NoSpace, format!("update.json: {error}")))
    }

    /// Takes a release; returns when it has shown that it is well, which may be in another process.
    pub(super) async fn update_device(
        self: &Arc<Self>,
        session: SessionId,
        release: &[u8],
        signature: &[u8],
    ) -> Result<Data> {
        if !self.setup.takes_updates {
            let text = "this device is part of another process, which is updated by hand";
            return Err(Trouble::new(Problem::State, text));
        }
        let wrong = |error: ReleaseError| Trouble::new(Problem::PackageWrong, error.to_string());
        let (release, account) = {
            let ring = ring::open(&self.setup.state)?;
            let signature = signature.try_into().map_err(|_| wrong(ReleaseError::Signature))?;
            let release = Release::open(release, signature, &ring.owner().public()).map_err(wrong)?;
            (release, ring.account())
        };
        if let Some(done) = self.verdict(release.number).await? {
            return Ok(done);
        }
        let binary = release.choose(account, self.updates()?.number, ARCH).map_err(wrong)?;
        self.note_update(UpdateStep::Fetching, release.number);
        let placed = self.fetch_program(session, release.number, &binary).await;
        self.note_update(UpdateStep::None, release.number);
        placed?;
        tracing::info!(release = release.number, "ends, to be started as another program");
        self.replaced.notify_one();
        // Who answers is the next process.
        std::future::pending().await
    }

    /// What became of a release that was here before; waits as long as it is being tried.
    async fn verdict(&self, number: u64) -> Result<Option<Data>> {
        loop {
            let known = self.updates()?;
            if known.number == number {
                return Ok(Some(Data { number: Some(Number::from(number)), ..Data::default() }));
            }
            if known.failed.contains(&number) {
                let text = format!(
                    "release {number} was not well here, and the program before it runs; a release is tried once"
                );
                return Err(Trouble::new(Problem::UpdateRolledBack, text));
            }
            if known.trying.is_none_or(|trying| trying.number != number) {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn fetch_program(&self, session: SessionId, number: u64, binary: &Binary) -> Result<()> {
        let failed = |text: String| Trouble::new(Problem::PackageWrong, text);
        let arch = serde_json::to_value(ARCH).unwrap_or_default();
        let path = format!("/v1/device/releases/{number}/{}", arch.as_str().unwrap_or_default());
        // A hive that has something else under this number is known by its signature, also where that is longer.
        let bytes_max = usize::try_from(binary.bytes.saturating_add(LONGER_MAX)).unwrap_or(usize::MAX);
        let ask = Ask { bytes_max, ..Ask::get(session, &path, FETCH_WAIT) };
        let bytes = self.hive.bytes(&ask).await.map_err(|error| {
            Trouble::new(Problem::Late, format!("the program of release {number}: {error}"))
        })?;
        if bytes.len() as u64 != binary.bytes || *blake3::hash(&bytes).as_bytes() != binary.blake3.0 {
            return Err(failed(format!(
                "the program of release {number} is not the one that was signed for"
            )));
        }
        let disk = |error: std::io::Error| {
            Trouble::new(Problem::NoSpace, format!("{}: {error}", self.folder.0.display()))
        };
        let programs = self.programs();
        let path = programs.keep(&bytes).map_err(disk)?;
        if let Err(trouble) = says_its_version(&path).await {
            programs.drop_new().map_err(disk)?;
            return Err(trouble);
        }
        let running = std::env::current_exe().map_err(disk)?;
        programs.place(number, self.healthy(), &running).map_err(disk)
    }

    /// Apps that run here and are well.
    fn healthy(&self) -> BTreeSet<AppId> {
        let apps = self.apps.lock();
        let seen = self.seen.lock();
        let well = apps.iter().filter(|(_, state)| {
            let phase = state.record.as_ref().map(|record| record.phase);
            phase.is_some_and(|phase| health(phase, state, &seen) == Health::Healthy)
        });
        well.map(|(app, _)| *app).collect()
    }

    fn note_update(&self, step: UpdateStep, number: u64) {
        self.seen.lock().updating = (step == UpdateStep::Fetching).then_some(number);
    }

    /// What is told of updates.
    pub(super) fn update_report(&self, fetching: Option<u64>) -> Option<UpdateState> {
        let known = self.programs().read().ok()?;
        let told =
            |number: u64, state| Some(UpdateState { number: Number::from(number), state, problem: None });
        match (fetching, known.trying, known.failed.last()) {
            (Some(number), ..) => told(number, UpdateStep::Fetching),
            (None, Some(trying), _) => told(trying.number, UpdateStep::Trying),
            (None, None, Some(failed)) if *failed > known.number => Some(UpdateState {
                number: Number::from(*failed),
                state: UpdateStep::GoneBack,
                problem: Some(Problem::UpdateRolledBack),
            }),
            _ if known.number > 0 => told(known.number, UpdateStep::Done),
            _ => None,
        }
    }

    /// Whether the program that is tried has shown that it is well: the hive answers its reports, and what was healthy
    /// before is healthy, or was stopped or taken away by order.
    fn is_well(&self, before: &BTreeSet<AppId>) -> bool {
        let now = self.healthy();
        if self.seen.lock().reported.is_none() {
            return false;
        }
        let apps = self.apps.lock();
        before.iter().all(|app| {
            let phase = apps.get(app).and_then(|state| state.record.as_ref()).map(|record| record.phase);
            let is_over = match phase {
                Some(Phase::Stopped(why)) => !matches!(why, orchestrator_api::placement::Why::Failed(_)),
                Some(phase) => !phase.is_live(),
                None => true,
            };
            now.contains(app) || is_over
        })
    }
}

/// Waits until the program that is tried is well, and says so to whoever started it.
pub(super) async fn watch(world: Arc<World>) {
    while let Ok(Some(trying)) = world.updates().map(|known| known.trying) {
        if world.is_well(&trying.healthy) {
            match world.programs().well() {
                Ok(()) => tracing::info!(release = trying.number, "is well as the new program"),
                Err(error) => tracing::warn!(%error, "that the new program is well cannot be written"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A program that cannot say its version here would not run either.
async fn says_its_version(program: &Path) -> Result<()> {
    let call = Call {
        program,
        args: &["--version"],
        environment: &BTreeMap::new(),
        folder: Path::new("/"),
        limit: VERSION_WAIT,
        output_bytes_max: 4096,
    };
    let wrong = |text: String| Trouble::new(Problem::PackageWrong, text);
    match program::run(&call).await {
        Ok(said) if said.is_ok() => Ok(()),
        Ok(said) => Err(wrong(format!("the new program does not run here: {}", said.errors.trim()))),
        Err(silent) => Err(wrong(silent.to_string())),
    }
}
