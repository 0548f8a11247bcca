//! One app: its containers, volumes, and moments of all of them.

use hyper::StatusCode;
use orchestrator_api::ids::AppId;
use orchestrator_api::wire::command::MomentReason;
use orchestrator_console::pages::own::{App, Container, Instant, line};
use orchestrator_console::render;
use orchestrator_console::show::{self, Health};

use super::http::{Answer, Asked};
use super::{frame, link, start};
use crate::app::volume_name;
use crate::daemon::moments::RETAIN;
use crate::doors::docker::{self, State};
use crate::doors::past::Place;

/// The most moments that are listed.
const INSTANTS_MAX: usize = 40;

impl Asked {
    /// The app that the query names.
    pub fn app(&self) -> Result<AppId, Answer> {
        let app =
            self.query.text("app").and_then(|text| text.parse::<AppId>().ok()).ok_or_else(|| self.wrong())?;
        let is_here = self.world.apps.lock().get(&app).is_some_and(|state| state.record.is_some());
        if is_here {
            return Ok(app);
        }
        Err(self.no_app())
    }

    /// There is none, or none any more.
    pub fn no_app(&self) -> Answer {
        let why = &["It may have moved to another device."];
        self.lost(StatusCode::NOT_FOUND, "There is no such app here", why)
    }
}

/// How a container is, in words.
fn container_health(one: &docker::Container) -> show::Html {
    let (health, words) = match (one.state, one.health) {
        (State::Running, Some(docker::Health::Unhealthy)) => {
            (Health::Bad, "runs, and says that it is not well".to_owned())
        }
        (State::Running, Some(docker::Health::Starting)) => (Health::Busy, "starts".to_owned()),
        (State::Running, _) => (Health::Well, "runs".to_owned()),
        (State::Exited | State::Dead, _) => match one.exit {
            Some(0) => (Health::Off, "ended".to_owned()),
            Some(exit) => (Health::Bad, format!("ended with {exit}")),
            None => (Health::Bad, "ended".to_owned()),
        },
        (State::Paused, _) => (Health::Warn, "is paused".to_owned()),
        (State::Created | State::Restarting, _) => (Health::Busy, "starts".to_owned()),
    };
    show::health(health, &words)
}

fn words(reason: MomentReason) -> &'static str {
    match reason {
        MomentReason::Asked => "asked for",
        MomentReason::Update => "before an update",
        MomentReason::UpdateFailed => "what a failed update wrote",
        MomentReason::MoveFailed => "what a failed move wrote",
        MomentReason::Regular => "kept by itself",
    }
}

/// The page of an app.
pub async fn app(asked: Asked) -> Result<Answer, Answer> {
    let app = asked.app()?;
    let permit = asked.turn().await?;
    let (moments, unasked) = match asked.world.moments(app).await {
        Ok(moments) => (moments, None),
        Err(trouble) => (Vec::new(), Some(line(trouble.text()))),
    };
    drop(permit);
    let page = {
        let apps = asked.world.apps.lock();
        let seen = asked.world.seen.lock();
        let Some(state) = apps.get(&app) else { return Err(asked.wrong()) };
        let name = state.file.name.clone();
        let names: Vec<(String, String)> =
            state.file.volumes.iter().map(|one| (volume_name(app, &one.name), one.name.clone())).collect();
        let block = state.loaded.as_ref().map(|loaded| loaded.text.source.block());
        let retention = block.iter().flat_map(|block| {
            names.iter().map(move |(_, plain)| {
                let said = block.volumes.get(plain).and_then(|one| one.retain.as_deref());
                (show::name(plain), said.unwrap_or(RETAIN).to_owned())
            })
        });
        let called = |volume: &[u8; 32]| {
            let found = state.file.volumes.iter().find(|one| one.volume.0 == *volume)?;
            Some((volume_name(app, &found.name), found.name.clone()))
        };
        let now = asked.frame().now;
        let tagged: Vec<_> = moments.iter().filter(|moment| moment.tag.is_some()).collect();
        let instant = |moment: &&orchestrator_api::wire::command::Moment| {
            let tag = moment.tag.as_ref().map(|tag| tag.as_str().to_owned()).unwrap_or_default();
            let volumes = moment.volumes.iter().filter_map(|one| {
                let (whole, plain) = called(&one.volume.0)?;
                let place = Place { volume: whole, seq: Some(one.seq.0), path: frame::DATA.to_vec() };
                Some((show::name(&plain), link::to("files", &place)))
            });
            let quoted = show::quoted(format!("{name}@{tag}"));
            Instant {
                time: show::when(moment.time),
                ago: show::ago(moment.time, now),
                reason: words(moment.reason).to_owned(),
                volumes: volumes.collect(),
                rollback: format!("comb app rollback {quoted}"),
                fork: format!("comb app fork {quoted} --as {}", show::quoted(format!("{name}-then"))),
                tag,
            }
        };
        let container = |one: &docker::Container| Container {
            service: show::name(&one.service),
            health: container_health(one),
            logs: format!("/logs?app={app}&service={}", link::encode(one.service.as_bytes())),
        };
        App {
            frame: asked.frame(),
            crumbs: frame::here(vec![
                own_crumb(&asked),
                orchestrator_console::pages::own::Crumb { label: show::name(&name), path: None },
            ]),
            health: start::health(state, &seen),
            trouble: state.trouble.as_ref().map(|trouble| line(trouble.text())),
            address: state
                .address
                .clone()
                .filter(|address| address.starts_with("http://") || address.starts_with("https://")),
            logs: format!("/logs?app={app}"),
            containers: state.containers.iter().map(container).collect(),
            volumes: names
                .iter()
                .map(|(whole, plain)| start::row(&seen, Some(state), whole, plain))
                .collect(),
            retention: retention.collect(),
            unasked,
            instants: tagged.iter().take(INSTANTS_MAX).map(instant).collect(),
            is_cut: tagged.len() > INSTANTS_MAX,
            name: show::name(&name),
        }
    };
    Ok(Answer::page(render(&page)))
}

/// The first page, as a part of the way.
pub fn own_crumb(asked: &Asked) -> orchestrator_console::pages::own::Crumb {
    orchestrator_console::pages::own::Crumb { label: show::name(&asked.device()), path: Some("/".to_owned()) }
}
