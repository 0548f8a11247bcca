//! What an app's containers write: the last lines, and those that come.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::StatusCode;
use orchestrator_console::pages::own::{LogLine, Logs, Service, line, plain};
use orchestrator_console::render;
use orchestrator_console::show;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::frame::here;
use super::http::{Answer, Asked, refused};
use super::{app, link};
use crate::daemon::World;
use crate::doors::clock;
use crate::doors::docker::{Container, Line};
use crate::trouble::Result as Found;

/// How many lines are shown.
const LINES_MAX: usize = 1_000;
/// The longest line that is kept, in bytes.
const LINE_BYTES_MAX: usize = 8_192;
/// How much of text is kept of them, in bytes, and how large the page may become: what cannot be seen takes many times its room.
const TEXT_BYTES_MAX: usize = 2 << 20;
const PAGE_BYTES_MAX: usize = 4 << 20;
/// How long the last lines may take to come.
const LINES_WAIT: Duration = Duration::from_secs(10);
/// How long whoever looks live waits for lines that are there already, in all and for one more of them.
const BEGIN_WAIT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_millis(300);
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

/// The newest of the lines that came, in whatever order they came.
#[derive(Default)]
struct Newest {
    lines: Vec<Written>,
    bytes: usize,
}

impl Newest {
    fn add(&mut self, one: Written) {
        self.bytes += one.text.len();
        self.lines.push(one);
        if self.lines.len() > 2 * LINES_MAX || self.bytes > 2 * TEXT_BYTES_MAX {
            self.cut();
        }
    }

    /// Puts them into the order in which they were written, and drops the oldest beyond what is shown; whether for their length.
    fn cut(&mut self) -> bool {
        self.lines.sort_by(|one, other| one.time.cmp(&other.time));
        let (mut count, mut bytes) = (0, 0);
        for one in self.lines.iter().rev().take(LINES_MAX) {
            if bytes + one.text.len() > TEXT_BYTES_MAX {
                break;
            }
            bytes += one.text.len();
            count += 1;
        }
        let is_long = count < self.lines.len().min(LINES_MAX);
        self.lines.drain(..self.lines.len() - count);
        self.bytes = bytes;
        is_long
    }
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

async fn last(world: &World, containers: &[Container]) -> Found<Newest> {
    let mut newest = Newest::default();
    let until = Instant::now() + LINES_WAIT;
    for one in containers {
        let mut log = world.docker.logs(one, LINES_MAX as u32, false, true).await?;
        while let Ok(Some(part)) = timeout_at(until, log.next()).await {
            written(&one.service, part.is_error, &part.bytes).for_each(|line| newest.add(line));
        }
    }
    Ok(newest)
}

/// The lines as a page has them, and whether some are left out because the page would be too large.
fn shown(mut newest: Newest) -> (Vec<LogLine>, bool) {
    let mut is_cut = newest.cut();
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for one in newest.lines.iter().rev() {
        let text = line(&one.text);
        bytes += text.as_str().len();
        if bytes > PAGE_BYTES_MAX {
            is_cut = true;
            break;
        }
        lines.push(LogLine { service: show::name(&one.service), is_error: one.is_error, text });
    }
    lines.reverse();
    (lines, is_cut)
}

/// The page.
pub async fn logs(asked: Asked) -> Result<Answer, Answer> {
    let app = asked.app()?;
    let world = asked.world.clone();
    // So many lines take their room: no more at once than volumes are asked.
    let _permit = asked.turn().await?;
    let found = async {
        let containers = containers(&world, &asked, app).await?;
        let newest = last(&world, &containers).await?;
        Ok::<_, crate::trouble::Trouble>((shown(newest), !containers.is_empty()))
    }
    .await;
    let is_asked = found.is_ok();
    let ((lines, is_cut), trouble, is_there) = match found {
        Ok((lines, is_there)) => (lines, None, is_there),
        Err(_) => (
            (Vec::new(), false),
            Some("Docker does not answer on this machine, so nothing of its logs can be shown.".to_owned()),
            false,
        ),
    };
    // It may have left while Docker was asked.
    let known = world.apps.lock().get(&app).filter(|state| state.record.is_some()).map(|state| {
        let services: Vec<String> = state.containers.iter().map(|one| one.service.clone()).collect();
        (state.file.name.clone(), services)
    });
    let Some((name, mut services)) = known else { return Err(asked.no_app()) };
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
        is_cut,
        lines,
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

/// What is there already of logs that go on, and whether they ended. It comes at once, and of several services not in its order; who
/// writes all the time is not waited for.
async fn first(all: &mut (impl Stream<Item = (String, Line)> + Unpin)) -> (Newest, bool) {
    let mut newest = Newest::default();
    let until = Instant::now() + BEGIN_WAIT;
    while Instant::now() < until
        && let Ok(next) = timeout_at(until.min(Instant::now() + SILENCE), all.next()).await
    {
        let Some((service, part)) = next else { return (newest, true) };
        written(&service, part.is_error, &part.bytes).for_each(|line| newest.add(line));
    }
    (newest, false)
}

/// The last lines again, and those that come.
pub async fn live(asked: Asked) -> Result<Answer, Answer> {
    let app = asked.app()?;
    let Ok(permit) = asked.world.page.lives.clone().try_acquire_owned() else {
        return Err(refused(StatusCode::TOO_MANY_REQUESTS, "too many logs are looked at"));
    };
    let away = |_| refused(StatusCode::BAD_GATEWAY, "Docker does not answer");
    let containers = containers(&asked.world, &asked, app).await.map_err(away)?;
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
        let (mut known, mut ended) = first(&mut all).await;
        known.cut();
        // Where there are none, whoever looks keeps what came before.
        let begun = if containers.is_empty() { "none" } else { "begun" };
        if to.send(event(begun, &json!({}))).await.is_err() {
            return;
        }
        for one in known.lines {
            if to.send(told(&one)).await.is_err() {
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

    fn at(second: usize, text: &str) -> Written {
        let time = format!("2026-11-22T08:{:02}:{:02}.000000000Z", second / 60, second % 60);
        Written { time, service: "web".to_owned(), is_error: false, text: text.to_owned() }
    }

    #[test]
    fn of_many_lines_the_newest_are_shown_in_their_order() {
        let mut newest = Newest::default();
        // One service after the other, the older lines last.
        for second in (1_500..3_000).chain(0..1_500) {
            newest.add(at(second, &second.to_string()));
        }
        let (lines, is_cut) = shown(newest);
        assert_eq!((lines.len(), is_cut), (LINES_MAX, false));
        assert_eq!((lines[0].text.as_str(), lines[LINES_MAX - 1].text.as_str()), ("2000", "2999"));
    }

    #[test]
    fn a_log_that_is_made_to_fill_the_page_is_cut() {
        let mut newest = Newest::default();
        let text = "\u{1b}".repeat(LINE_BYTES_MAX);
        for second in 0..3_000 {
            newest.add(at(second, &text));
            assert!(newest.bytes <= 2 * TEXT_BYTES_MAX + LINE_BYTES_MAX);
        }
        newest.add(at(3_000, "the end"));
        let (lines, is_cut) = shown(newest);
        let bytes: usize = lines.iter().map(|line| line.text.as_str().len()).sum();
        assert!(is_cut && bytes <= PAGE_BYTES_MAX, "{bytes}");
        assert_eq!(lines.last().map(|line| line.text.as_str()), Some("the end"));
    }

    #[tokio::test]
    async fn a_log_that_is_written_all_the_time_goes_live() {
        // Old lines at once, and then one after the other for ever.
        let line = |at: usize| async move {
            if at > 1_000 {
                tokio::time::sleep(SILENCE / 2).await;
            }
            let bytes = format!("2026-11-22T08:30:00.{at:09}Z {at}\n").into_bytes();
            Some((("web".to_owned(), Line { is_error: false, bytes }), at + 1))
        };
        let mut all = futures_util::stream::unfold(0, line).boxed();
        let began = tokio::time::timeout(BEGIN_WAIT * 5, first(&mut all)).await;
        let (mut newest, ended) = began.expect("it does not wait for silence");
        newest.cut();
        assert!(!ended && newest.lines.len() == LINES_MAX, "{}", newest.lines.len());
        // Who writes faster than is read does not hold it up, either.
        let flood = || ("web".to_owned(), Line { is_error: false, bytes: b"x".to_vec() });
        let mut all = futures_util::stream::repeat_with(flood).boxed();
        assert!(tokio::time::timeout(BEGIN_WAIT * 5, first(&mut all)).await.is_ok());
        // What ended is told as that.
        let mut all = futures_util::stream::empty().boxed();
        assert!(first(&mut all).await.1);
    }

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
