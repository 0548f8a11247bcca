//! What is told: these fields and no others (`api.md`, section 5), from what was seen last.

use std::path::Path;
use std::time::Duration;

use orchestrator_api::ids::{AppId, CommandNumber, VolumeId};
use orchestrator_api::placement::Phase;
use orchestrator_api::report::{AppReport as Decided, Report as DecidedReport};
use orchestrator_api::text::Hex;
use orchestrator_api::wire::report::{
    AppReport, AppTerm, Branch, ContainerState, Disk, DiskUse, Docker, Health, PortReport, ProblemReport,
    Progress, Report, ServiceReport, StoreReport, StoreState, VolumeReport, VolumeState as Told,
};
use orchestrator_api::wire::value::{List, Number, Text, Within};

use super::facts::{self, Ticks};
use super::{AppState, Seen, World, room};
use crate::app::volume_name;
use crate::doors::clock;
use crate::doors::docker::{self, State};
use crate::doors::volumes::{Answers, VolumeState};
use crate::trouble::Trouble;

/// A trouble as it travels: without its words.
pub(super) fn problem_report(trouble: &Trouble) -> ProblemReport {
    ProblemReport {
        service: trouble.service.clone().and_then(|name| name.try_into().ok()),
        file: trouble.file.as_deref().map(Text::cut),
        line: trouble.line.map(|line| Number::from(u64::from(line))),
        number: trouble.number.and_then(|number| u64::try_from(number).ok()).map(Number::from),
        ..ProblemReport::new(trouble.problem)
    }
}

impl World {
    /// A report with all that is seen.
    pub(super) fn full_report(&self, report: &DecidedReport) -> Report {
        let now = clock::boottime();
        let mut apps = self.apps.lock();
        let seen = self.seen.lock();
        let commands_have = apps
            .values()
            .filter_map(|state| state.record.as_ref().map(|record| record.command.0))
            .fold(seen.commands_have, u64::max);
        let mut told: Vec<_> = report.apps.iter().collect();
        told.sort_by_key(|(_, decided)| weight(decided.phase));
        let told = told.into_iter().map(|(app, decided)| {
            app_report(*app, decided, apps.entry(*app).or_default(), &seen, self.setup.state.as_path(), now)
        });
        Report {
            number: report.number,
            boottime_ms: Number::from(now),
            version: Text::cut(&self.setup.version),
            update: self.update_report(seen.updating),
            commands_have: CommandNumber(commands_have),
            load: seen.load.unwrap_or_else(|| facts::load(Ticks::default(), Ticks::default())),
            disks: List::cut(self.disks(seen.docker_root.as_deref())),
            docker: seen.docker.unwrap_or(if report.docker { Docker::Ok } else { Docker::Stopped }),
            renew: List::cut(report.renew.iter().map(|(app, term)| AppTerm { app: *app, term: *term })),
            apps: List::cut(told.collect::<Vec<_>>()),
            stores: List::cut(stores(&apps, &seen)),
        }
    }
}

impl World {
    /// Room on the disks of this device. Docker's own folder may be out of sight: for a device in a container it is.
    pub(super) fn disks(&self, docker: Option<&Path>) -> Vec<Disk> {
        let own = [(DiskUse::State, self.setup.state.as_path()), (DiskUse::Apps, self.setup.apps.as_path())];
        let all = own.into_iter().chain(docker.map(|root| (DiskUse::Docker, root)));
        all.filter_map(|(what, path)| facts::disk(what, path)).collect()
    }
}

/// What is told first where there is more than can be told: an app that runs, then one that ran, then what stands by.
pub(super) fn weight(phase: Phase) -> u8 {
    match phase {
        phase if phase.is_live() => 0,
        Phase::Stopped(_) => 1,
        Phase::Settling => 2,
        _ => 3,
    }
}

fn stores(apps: &std::collections::BTreeMap<AppId, AppState>, seen: &Seen) -> Vec<StoreReport> {
    let mut told: Vec<StoreReport> = Vec::new();
    for store in apps.values().flat_map(|state| &state.file.stores) {
        if told.iter().any(|one| one.store == store.store) {
            continue;
        }
        let answers = seen.volumes.iter().flat_map(|volume| &volume.stores);
        let answers = answers.filter(|(url, _)| url == store.url.as_str()).map(|(_, answers)| *answers);
        let state = answers.fold(None, |worst, one| match (worst, one) {
            (Some(worst), Answers::Well) => Some(worst),
            (_, one) => Some(one),
        });
        let state = match state {
            None => continue,
            Some(Answers::Well) => StoreState::Ok,
            Some(Answers::Unreachable) => StoreState::Unreachable,
            Some(Answers::Denied) => StoreState::Denied,
            Some(Answers::Otherwise) => StoreState::Other,
        };
        told.push(StoreReport { store: store.store, state });
    }
    told
}

fn app_report(
    app: AppId,
    decided: &Decided,
    state: &mut AppState,
    seen: &Seen,
    folder: &std::path::Path,
    now: u64,
) -> AppReport {
    use orchestrator_api::wire::report::Phase as WirePhase;
    let record = state.record.as_ref();
    // Who is not ready to take the app stands by for nobody, and names no volumes that it could claim.
    let is_ready = decided.phase != Phase::StandingBy || record.is_none_or(|record| record.ready);
    let (phase, why) = if is_ready { WirePhase::of(decided.phase) } else { (WirePhase::Absent, None) };
    let live = decided.phase.is_live();
    let volumes = state.file.volumes.iter().filter(|_| is_ready).map(|one| {
        let volume = VolumeId(one.volume.0);
        let name = volume_name(app, &one.name);
        let found = seen.volumes.iter().find(|found| found.name == name);
        let writer = pseudonym(folder, volume);
        let told = volume_report(volume, found, writer, epoch(folder, volume));
        VolumeReport { name: one.name.clone().try_into().ok(), ..told }
    });
    let operation = record.and_then(|record| record.doing.as_ref()).and_then(|command| {
        let step = if state.step.is_empty() { "waiting" } else { state.step.as_str() };
        Some(Progress { command: command.number, step: step.parse().ok()?, done: None, total: None })
    });
    let failed = match decided.phase {
        Phase::Stopping(orchestrator_api::placement::Why::Failed(problem))
        | Phase::Flushing(orchestrator_api::placement::Why::Failed(problem))
        | Phase::Stopped(orchestrator_api::placement::Why::Failed(problem)) => Some(problem),
        _ => None,
    };
    let problem = match (failed, &state.trouble) {
        (Some(problem), Some(trouble)) if trouble.problem == problem => Some(problem_report(trouble)),
        (Some(problem), _) => Some(ProblemReport::new(problem)),
        (None, Some(trouble)) => Some(problem_report(trouble)),
        (None, None) if live => room::trouble(app, &state.file, seen, folder).as_ref().map(problem_report),
        (None, None) => None,
    };
    AppReport {
        app,
        term: decided.term,
        generation: record.map_or(orchestrator_api::ids::Generation(0), |record| record.generation),
        revision: Number::from(state.file.kept()),
        phase,
        why,
        phase_age_ms: Number::from(now.saturating_sub(state.phase_at)),
        health: health(decided.phase, state, seen),
        operation,
        problem,
        services: List::cut(services(state)),
        ports: List::cut(state.file.ports.iter().filter(|_| live).filter_map(|one| {
            Some(PortReport {
                service: one.service.clone().try_into().ok()?,
                port: Within(u64::from(one.port)),
                protocol: one.protocol,
                given: Within(u64::from(one.given)),
            })
        })),
        address: state.address.as_deref().filter(|_| live).map(Text::cut),
        missing_bytes: state.missing_bytes.filter(|_| !live).map(Number::from),
        volumes: List::cut(volumes),
        branches: List::cut(branches(app, state)),
    }
}

fn branches(app: AppId, state: &AppState) -> Vec<Branch> {
    let told = state.branches.iter().filter_map(|(name, branch)| {
        let volume = state.file.volumes.iter().find(|one| volume_name(app, &one.name) == *name)?;
        Some(Branch {
            volume: volume.volume,
            name: Text::cut(&branch.name),
            seals: Number::from(branch.seals),
            bytes: Number::from(branch.bytes),
            span_ms: Number::from(millis(branch.span)),
        })
    });
    told.collect()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn services(state: &AppState) -> Vec<ServiceReport> {
    let told = state.containers.iter().filter_map(|one| {
        let usage = state.usage.get(&one.id);
        Some(ServiceReport {
            name: one.service.clone().try_into().ok()?,
            state: match one.state {
                State::Created => ContainerState::Created,
                State::Running => ContainerState::Running,
                State::Paused => ContainerState::Paused,
                State::Restarting => ContainerState::Restarting,
                State::Exited => ContainerState::Exited,
                State::Dead => ContainerState::Dead,
            },
            health: container_health(one),
            exit: one.exit.and_then(|exit| i16::try_from(exit).ok()),
            restarts: Number::from(u64::from(state.watch.restarts(std::slice::from_ref(one), &one.service))),
            cpu_percent: Number::from(usage.map_or(0, |(_, percent)| *percent)),
            memory_bytes: Number::from(usage.map_or(0, |(usage, _)| usage.memory_bytes)),
        })
    });
    told.collect()
}

fn container_health(one: &docker::Container) -> Health {
    match one.health {
        Some(docker::Health::Healthy) => Health::Healthy,
        Some(docker::Health::Starting) => Health::Starting,
        Some(docker::Health::Unhealthy) => Health::Unhealthy,
        None => Health::None,
    }
}

/// What its services say together.
pub(super) fn health(phase: Phase, state: &AppState, seen: &Seen) -> Health {
    if matches!(seen.docker, Some(Docker::Stopped | Docker::Missing)) {
        return Health::Unknown;
    }
    let bad = |one: &docker::Container| {
        one.health == Some(docker::Health::Unhealthy)
            || matches!(one.state, State::Exited | State::Dead) && one.exit != Some(0)
    };
    match phase {
        Phase::Running if !state.is_looked_at => Health::Unknown,
        // One that stands still for a moment that is being taken is as well as it was.
        Phase::Running if state.stands_still || state.containers.iter().any(bad) => Health::Unhealthy,
        Phase::Running => Health::Healthy,
        Phase::Starting => Health::Starting,
        _ => Health::None,
    }
}

fn volume_report(
    volume: VolumeId,
    found: Option<&VolumeState>,
    writer: [u8; 16],
    epoch: Option<fs_format::Epoch>,
) -> VolumeReport {
    let state = match found {
        None => Told::Absent,
        Some(found) if found.damaged => Told::Damaged,
        Some(found) => match &found.mount {
            Some(_) if found.arbiter.as_ref().is_some_and(|store| store.fenced) => Told::Fenced,
            Some(mount) if mount.takes_changes => Told::Mounted,
            Some(_) => Told::ReadOnly,
            None if found.is_others => Told::Following,
            None => Told::Closed,
        },
    };
    let head = found.and_then(|found| found.head.as_ref());
    let arbiter = found.and_then(|found| found.arbiter.as_ref());
    let dirty = found.and_then(|found| found.mount.as_ref()).map_or(0, |mount| mount.dirty_bytes);
    // What the hive is told of is a manifest: the seq that is replicated only if it is the newest here.
    let replicated = arbiter.and_then(|store| store.replicated);
    let replicated = replicated.filter(|seq| head.is_some_and(|head| head.seq == *seq));
    VolumeReport {
        volume: Hex(volume.0),
        name: None,
        state,
        epoch: Number::from(epoch.map_or(0, |epoch| epoch.0)),
        seq: Number::from(head.map_or(0, |head| head.seq.0)),
        manifest: Hex(head.map_or([0; 32], |head| head.manifest.0)),
        writer: Hex(writer),
        replicated_seq: replicated.map(|seq| Number::from(seq.0)),
        replicated_age_ms: arbiter.map(|store| Number::from(millis(store.backlog_age))),
        backlog_bytes: Number::from(arbiter.map_or(dirty, |store| store.backlog_bytes)),
        backlog_age_ms: arbiter
            .filter(|store| store.backlog_bytes > 0)
            .map(|store| Number::from(millis(store.backlog_age))),
        bytes: Number::from(head.map_or(0, |head| head.bytes)),
        files: Number::from(head.map_or(0, |head| head.files)),
        stores_behind: Within(found.map_or(0, |found| found.behind).min(64)),
    }
}

/// This device's pseudonym in a volume.
pub(super) fn pseudonym(state: &std::path::Path, volume: VolumeId) -> [u8; 16] {
    let secret = std::fs::read(state.join("device")).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    secret.map_or([0; 16], |secret| fs_crypto::DeviceSecret::from_bytes(secret).pseudonym(&volume).0)
}

fn epoch(state: &std::path::Path, volume: VolumeId) -> Option<fs_format::Epoch> {
    let object = std::fs::read(state.join("volumes").join(volume.to_hex()).join("head")).ok()?;
    fs_format::manifest::open_manifest(&object).ok().map(|(header, ..)| header.epoch)
}
