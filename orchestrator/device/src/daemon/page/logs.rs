//! What an app's containers write: the last lines, and those that come.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::StatusCode;
use orchestrator_console::pages::own::{LogLine, Logs, Service, line, plain};
use orchestrator_console::render;
use orchestrator_console::show;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::frame::here;
use super::http::{Answer, Asked, refused};
use super::{app, link};
use crate::daemon::World;
use crate::doors::clock;
use crate::doors::docker::Container;
use crate::trouble::Result as Found;

/// How many lines are shown.
const LINES_MAX: usize = 1_000;
/// The longest line that is kept, in bytes.
const LINE_BYTES_MAX: usize = 8_192;
/// How long the last lines may take to come.
const LINES_WAIT: Duration = Duration::from_secs(10);
/// How often a reader is told that it is still there, and its session is looked at.
const TICK: Duration = Duration::from_secs(10);
/// Lines that wait for a slow reader.
const WAITING_MAX: usize = 256;

/// A line with when it was written and by whom.
struct Written {
    time: String,
    service: String,
    is_error: bool,
    text: String,
}

/// A line as Docker gives it: its time, a blank, and what was written.
fn written(service: &str, is_error: bool, bytes: &[u8]) -> impl Iterator<Item = Written> {
    let bytes = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let text = String::from_utf8_lossy(bytes).into_owned();
    let service = service.to_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.into_iter().map(move |text| {
        let (time, text) = match text.split_once(' ') {
            Some((time, rest)) if time.len() >= 20 && time.ends_with('Z') => {
                (time.to_owned(), rest.to_owned())
            }
            _ => (String::new(), text),
        };
        Written { time, service: service.clone(), is_error, text }
    })
}

async fn containers(
    world: &World,
    asked: &Asked,
    app: orchestrator_api::ids::AppId,
) -> Found<Vec<Container>> {
    let all = world.docker.containers(Some(app)).await?;
    let wanted = asked.query.text("service").filter(|service| !service.is_empty());
    Ok(all.into_iter().filter(|one| wanted.is_none_or(|wanted| one.service == wanted)).collect())
}

async fn last(world: &World, containers: &[Container]) -> Found<Vec<Written>> {
    let mut lines = Vec::new();
    let until = Instant::now() + LINES_WAIT;
    for one in containers {
        let mut log = world.docker.logs(one, LINES_MAX as u32, false, true).await?;
        while let Ok(Some(part)) = tokio::time::timeout_at(until, log.next()).await {
            lines.extend(written(&one.service, part.is_error, &part.bytes));
        }
    }
    // Of several services as they were written.
    lines.sort_by(|one, other| one.time.cmp(&other.time));
    lines.drain(..lines.len().saturating_sub(LINES_MAX));
    Ok(lines)
}

/// The page.
pub async fn logs(asked: Asked) -> Result<Answer, Answer> {
    let app = asked.app()?;
    let world = asked.world.clone();
    let found = async {
        let containers = containers(&world, &asked, app).await?;
        let lines = last(&world, &containers).await?;
        Ok::<_, crate::trouble::Trouble>((lines, !containers.is_empty()))
    }
    .await;
    let is_asked = found.is_ok();
    let (lines, trouble, is_there) = match found {
        Ok((lines, is_there)) => (lines, None, is_there),
        Err(_) => (
            Vec::new(),
            Some("Docker does not answer on this machine, so nothing of its logs can be shown.".to_owned()),
            false,
        ),
    };
    let (name, mut services) = world.app(app, |state| {
        let services: Vec<String> = state.containers.iter().map(|one| one.service.clone()).collect();
        (state.file.name.clone(), services)
    });
    services.sort();
    services.dedup();
    let wanted = asked.query.text("service").unwrap_or_default();
    let mut tabs = vec![Service { name: None, path: format!("/logs?app={app}"), is_here: wanted.is_empty() }];
    tabs.extend(services.iter().map(|service| Service {
        name: Some(show::name(service)),
        path: format!("/logs?app={app}&service={}", link::encode(service.as_bytes())),
        is_here: wanted == service,
    }));
    let page = Logs {
        frame: asked.frame(),
        crumbs: here(vec![
            app::own_crumb(&asked),
            orchestrator_console::pages::own::Crumb {
                label: show::name(&name),
                path: Some(format!("/app?app={app}")),
            },
            orchestrator_console::pages::own::Crumb { label: show::Html::text("Logs"), path: None },
        ]),
        name: show::name(&name),
        services: tabs,
        lines: lines
            .iter()
            .map(|one| LogLine {
                service: show::name(&one.service),
                is_error: one.is_error,
                text: line(&one.text),
            })
            .collect(),
        trouble,
        runs: is_there,
        live: is_asked.then(|| format!("/logs/live?app={app}&service={}", link::encode(wanted.as_bytes()))),
        lines_max: LINES_MAX,
    };
    Ok(Answer::page(render(&page)))
}

/// The starts of containers, in an order of their own.
fn starts(containers: &[Container]) -> Vec<(&str, Option<&str>)> {
    let mut all: Vec<_> = containers.iter().map(|one| (one.id.as_str(), one.started.as_deref())).collect();
    all.sort_unstable();
    all
}

fn event(name: &str, data: &serde_json::Value) -> std::io::Result<Bytes> {
    Ok(Bytes::from(format!("event: {name}\ndata: {data}\n\n")))
}

fn told(one: &Written) -> std::io::Result<Bytes> {
    event("line", &json!({ "service": plain(&one.service), "error": one.is_error, "text": plain(&one.text) }))
}

/// The last lines again, and those that come.
pub async fn live(asked: Asked) -> Result<Answer, Answer> {
    let app = asked.app()?;
    let Ok(permit) = asked.world.page.lives.clone().try_acquire_owned() else {
        return Err(refused(StatusCode::TOO_MANY_REQUESTS, "too many logs are looked at"));
    };
    let away = |_| refused(StatusCode::BAD_GATEWAY, "Docker does not answer");
    let containers = containers(&asked.world, &asked, app).await.map_err(away)?;
    let mut ended = containers.is_empty();
    let mut parts = Vec::new();
    for one in &containers {
        let service = one.service.clone();
        let log = asked.world.docker.logs(one, LINES_MAX as u32, true, true).await.map_err(away)?;
        parts.push(log.map(move |part| (service.clone(), part)).boxed());
    }
    let (to, receive) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        let _permit = permit;
        let mut all = futures_util::stream::select_all(parts);
        // What is there already comes at once, and of several services not in its order.
        let mut known = Vec::new();
        while !ended && let Ok(next) = timeout(Duration::from_millis(300), all.next()).await {
            let Some((service, part)) = next else {
                ended = true;
                break;
            };
            known.extend(written(&service, part.is_error, &part.bytes));
            if known.len() >= LINES_MAX * 4 {
                break;
            }
        }
        known.sort_by(|one, other| one.time.cmp(&other.time));
        // Where there are none, whoever looks keeps what came before.
        let begun = if containers.is_empty() { "none" } else { "begun" };
        if to.send(event(begun, &json!({}))).await.is_err() {
            return;
        }
        for one in &known[known.len().saturating_sub(LINES_MAX)..] {
            if to.send(told(one)).await.is_err() {
                return;
            }
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                next = all.next(), if !ended => match next {
                    Some((service, part)) => {
                        for one in written(&service, part.is_error, &part.bytes) {
                            if to.send(told(&one)).await.is_err() {
                                return;
                            }
                        }
                    }
                    None => ended = true,
                },
                _ = tick.tick() => {
                    let cookie = asked.cookie.as_deref().unwrap_or_default();
                    let is_open = asked.world.page.keys.lock().session(cookie, asked.peer, clock::boottime()).is_some();
                    if !is_open || to.send(Ok(Bytes::from_static(b": here\n\n"))).await.is_err() {
                        return;
                    }
                    // A container that ended writes no more; one that was started since is found by a new question.
                    let now = self::containers(&asked.world, &asked, app).await;
                    if now.is_ok_and(|now| starts(&now) != starts(&containers)) {
                        return;
                    }
                }
            }
        }
    });
    Ok(Answer::parts("text/event-stream", receive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_loses_its_time_and_nothing_else() {
        let one: Vec<Written> = written("web", true, b"2026-11-22T08:30:00.123456789Z a b\n").collect();
        assert_eq!((one[0].text.as_str(), one[0].time.len(), one[0].is_error), ("a b", 30, true));
        let plain: Vec<Written> = written("web", false, b"\xffno time\nsecond").collect();
        assert_eq!((plain[0].text.as_str(), plain[1].text.as_str()), ("\u{fffd}no time", "second"));
        let event = told(&Written {
            time: String::new(),
            service: "w".into(),
            is_error: false,
            text: "a\n\nevent: x\u{202e}".into(),
        });
        let event = String::from_utf8(event.expect("bytes").to_vec()).expect("text");
        assert_eq!(event.matches("\n\n").count(), 1, "{event}");
        assert!(!event.contains('\u{202e}'));
    }
}
