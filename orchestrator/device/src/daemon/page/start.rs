//! Letting a browser in, and the first page.

use hyper::StatusCode;
use hyper::header::CACHE_CONTROL;
use orchestrator_api::placement::Phase;
use orchestrator_console::pages::own::{self, AppTile, Enter, Start, VolumeRow};
use orchestrator_console::show::{self, Field, Health, Html, Kind};
use orchestrator_console::{assets, render};

use super::frame::{self, several};
use super::http::{Answer, Asked, refused};
use super::keys::Wrong;
use super::link;
use super::restore;
use crate::app::volume_name;
use crate::daemon::loaded::wall_clock;
use crate::daemon::{AppState, Seen, report};
use crate::doors::clock;
use crate::doors::past::Place;
use crate::doors::volumes::VolumeState;

type Page = Result<Answer, Answer>;

/// The form for the code; begins a session.
pub async fn code(asked: Asked) -> Page {
    let Some(text) = asked.form.text("code") else {
        if !asked.token.is_empty() {
            return Ok(Answer::see("/"));
        }
        return Ok(enter(&asked, None, StatusCode::OK));
    };
    let random = [(asked.world.setup.chance)(), (asked.world.setup.chance)()];
    let entered = asked.world.page.keys.lock().enter(text, asked.peer, random, clock::boottime());
    let wrong = match entered {
        Ok(cookie) => return Ok(Answer::see("/").begin(&cookie)),
        Err(Wrong::Form) => "A code has eight letters, as the terminal shows them".to_owned(),
        Err(Wrong::Other(left)) => {
            format!("This is another code. {} left", several(u64::from(left), "try is", "tries are"))
        }
        Err(Wrong::None) => {
            "No code is good now: it was used, its five minutes are over, or it was tried too often. `comb device page` prints a new one"
                .to_owned()
        }
    };
    Ok(enter(&asked, Some(wrong), StatusCode::FORBIDDEN))
}

fn enter(asked: &Asked, wrong: Option<String>, status: StatusCode) -> Answer {
    let field = Field::new("code", "Code from the terminal", Kind::Text)
        .hint("Eight letters, like KQ7M-2XVD")
        .length(16)
        .error(wrong.clone())
        .focus();
    let frame = match &wrong {
        Some(wrong) => asked.frame_with("code", wrong),
        None => asked.frame(),
    };
    let page = Enter { frame, field, device: asked.device(), is_from_elsewhere: asked.is_from_elsewhere };
    Answer::page(render(&page)).status(status)
}

/// Ends the session.
pub async fn leave(asked: Asked) -> Page {
    if let Some(cookie) = &asked.cookie {
        asked.world.page.keys.lock().leave(cookie);
    }
    Ok(Answer::see("/code").end())
}

/// Light or dark.
pub async fn theme(asked: Asked) -> Page {
    let theme = orchestrator_console::layout::Theme::of(asked.form.text("theme").unwrap_or_default());
    let back = asked.form.text("back").unwrap_or("/");
    // Back to a page of ours and nowhere else.
    let is_own = back.starts_with('/')
        && !back.starts_with("//")
        && back.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    Ok(Answer::see(if is_own { back } else { "/" }).theme(theme.text()))
}

/// Style sheets, scripts, the logo.
pub async fn asset(asked: Asked) -> Page {
    match own::find(&asked.path) {
        Some(asset) => {
            Ok(Answer::of(asset.kind, asset.bytes).header(CACHE_CONTROL, assets::CACHING.to_owned()))
        }
        None => Err(refused(StatusCode::NOT_FOUND, "there is no such file")),
    }
}

/// What browsers ask for by themselves.
pub async fn icon(_: Asked) -> Page {
    Ok(Answer::see(&assets::logo().path))
}

/// Apps and volumes.
pub async fn start(asked: Asked) -> Page {
    let mut taken = Vec::new();
    let mut tiles = Vec::new();
    {
        let apps = asked.world.apps.lock();
        let seen = asked.world.seen.lock();
        for (app, state) in apps.iter().filter(|(_, state)| state.record.is_some()) {
            let names =
                state.file.volumes.iter().map(|one| (volume_name(*app, &one.name), one.name.as_str()));
            let names: Vec<(String, &str)> = names.collect();
            tiles.push(AppTile {
                name: show::name(&state.file.name),
                path: format!("/app?app={app}"),
                logs: format!("/logs?app={app}"),
                health: health(state, &seen),
                volumes: names.iter().map(|(whole, plain)| row(&seen, Some(state), whole, plain)).collect(),
            });
            taken.extend(names.into_iter().map(|(whole, _)| whole));
        }
    }
    let seen = asked.world.seen.lock();
    let others = seen.volumes.iter().filter(|volume| !taken.contains(&volume.name));
    let others = others.map(|volume| row(&seen, None, &volume.name, &volume.name)).collect();
    drop(seen);
    let works = restore::listed(&asked);
    let page = Start { frame: asked.frame(), device: asked.device(), apps: tiles, others, works, ends: None };
    Ok(Answer::page(render(&page)))
}

/// How an app is, with its words.
pub fn health(state: &AppState, seen: &Seen) -> Html {
    use orchestrator_api::wire::report::Health as Told;
    let Some(record) = &state.record else { return show::health(Health::Unknown, "not known") };
    let (health, words) = match (record.phase, report::health(record.phase, state, seen)) {
        (Phase::Running, Told::Unknown) if !state.is_looked_at => (Health::Unknown, "not looked at yet"),
        (_, Told::Unknown) => (Health::Unknown, "Docker does not answer"),
        (Phase::Running, Told::Unhealthy) => (Health::Bad, "not well"),
        (Phase::Running, _) => (Health::Well, "runs"),
        (Phase::Stopped(orchestrator_api::placement::Why::Failed(_)), _) => {
            (Health::Bad, "stopped: it failed")
        }
        (Phase::Stopped(_), _) => (Health::Off, "does not run here"),
        (Phase::StandingBy, _) => (Health::Off, "stands by"),
        (phase, _) if phase.is_live() => (Health::Busy, "starts"),
        _ => (Health::Busy, "is on its way"),
    };
    show::health(health, words)
}

/// A volume, from what was seen last.
pub fn row(seen: &Seen, state: Option<&AppState>, whole: &str, plain: &str) -> VolumeRow {
    let found: Option<&VolumeState> = seen.volumes.iter().find(|one| one.name == whole);
    let head = found.and_then(|found| found.head.as_ref());
    let time = head.and_then(|head| super::super::moments::time_of(&head.time));
    let path = if state.is_some() { frame::DATA.to_vec() } else { Vec::new() };
    let place = Place { volume: whole.to_owned(), seq: None, path };
    let holds = match head {
        Some(head) => format!("{}, {}", several(head.files, "file", "files"), show::bytes(head.bytes)),
        None => "nothing is saved yet".to_owned(),
    };
    let trouble = match found {
        None => Some("It is not on this device yet".to_owned()),
        Some(found) if found.damaged => Some("A part of it is damaged: `comb check` names it".to_owned()),
        Some(found) if found.is_others => Some("Another device writes it; this one looks on".to_owned()),
        Some(_) => None,
    };
    let branches = state.map_or(0, |state| state.branches.iter().filter(|(name, _)| name == whole).count());
    VolumeRow {
        name: show::name(plain),
        moments: format!("/moments?volume={}", link::encode(whole.as_bytes())),
        files: head.map(|_| link::to("files", &place)),
        newest: time.map(|time| show::ago(time, wall_clock())),
        holds,
        trouble,
        branches,
    }
}
