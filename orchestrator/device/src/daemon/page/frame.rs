//! What all pages have: where one is, which moment, and what could not be shown.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use orchestrator_api::ids::AppId;
use orchestrator_api::text::Time;
use orchestrator_console::layout::{Frame, Link, Problem, Theme};
use orchestrator_console::pages::own::{Bar, Choice, Crumb, Lost};
use orchestrator_console::render;
use orchestrator_console::show::{self, Html};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::http::{Answer, Asked};
use super::link;
use crate::app::volume_name;
use crate::daemon::loaded::wall_clock;
use crate::doors::past::{Moment, Place, Seen, Unseen, Why};

/// The most moments that a page lists.
pub const MOMENTS_MAX: usize = 1_000;
/// The most that can be chosen from.
const CHOICES_MAX: usize = 300;
/// How long somebody waits for a turn.
const TURN_WAIT: Duration = Duration::from_secs(30);
/// How long an answer of a volume may take, with what is read of a file for a page. A little more than the question itself has, which
/// says better what is wrong.
pub const ANSWER_WAIT: Duration = Duration::from_secs(125);
/// The folder of an app's volume that the app sees; beside it lies what says whose volume it is.
pub const DATA: &[u8] = b"data";
/// What the tag of an instant begins with that an operation of the hive made.
const OPERATION_TAG: &str = "comb-";

/// Why there are moments, by their tags.
const REASONS: [(&str, &str); 5] = [
    ("asked", "asked for"),
    ("update", "before an update"),
    ("update-failed", "what a failed update wrote"),
    ("move-failed", "what a failed move wrote"),
    ("regular", "kept by itself"),
];

/// A volume as a person knows it.
#[derive(Debug, Clone)]
pub struct Known {
    /// The app that it is of, and what that is called.
    pub app: Option<(AppId, String)>,
    /// What it is called in its app, or here; without a branch.
    pub name: String,
    /// The branch, if it is one.
    pub branch: Option<String>,
}

impl Known {
    /// What it is called.
    pub fn label(&self) -> Html {
        show::name(&self.plain())
    }

    fn plain(&self) -> String {
        match &self.branch {
            Some(branch) => format!("{}, saved as {branch}", self.name),
            None => self.name.clone(),
        }
    }

    /// The folder where its files begin for a person.
    pub fn base(&self) -> &'static [u8] {
        if self.app.is_some() { DATA } else { b"" }
    }

    /// Whether a path of it can be brought back: all of a plain volume, of an app's what the app sees.
    pub fn can_come_back(&self, path: &[u8]) -> bool {
        match &self.app {
            Some(_) => path.strip_prefix(DATA).is_some_and(|rest| rest.len() > 1 && rest[0] == b'/'),
            None => !path.is_empty(),
        }
    }
}

impl Asked {
    /// What every page has.
    pub fn frame(&self) -> Frame {
        let link = |path: &str, label| Link { path: path.to_owned(), label, is_here: self.path == path };
        let nav = vec![link("/", "Apps and files"), link("/doctor", "Doctor")];
        Frame {
            now: wall_clock(),
            theme: Theme::of(&self.theme),
            csrf: self.token.clone(),
            path: self.whole.clone(),
            is_posted: false,
            is_once: false,
            nav: if self.token.is_empty() { Vec::new() } else { nav },
            person: None,
            done: None,
            problem: None,
            live: None,
            place: format!("device {}", self.device()),
        }
    }

    /// The same with what went wrong at a field.
    pub fn frame_with(&self, field: &str, message: &str) -> Frame {
        let problem = Problem { message: message.to_owned(), hint: None, field: Some(field.to_owned()) };
        Frame { problem: Some(problem), ..self.frame() }
    }

    /// What the device is called.
    pub fn device(&self) -> String {
        self.world.hive_file.lock().name.clone()
    }

    /// Waits for a turn, which ends when it is dropped.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, Answer> {
        turn(&self.world.page.questions, TURN_WAIT).await.map_err(|unseen| self.unseen(unseen))
    }

    /// Waits for its turn, and asks.
    pub async fn ask<T>(&self, question: impl Future<Output = Seen<T>>) -> Seen<T> {
        let _permit = turn(&self.world.page.questions, TURN_WAIT).await?;
        within(ANSWER_WAIT, question).await
    }

    /// The same; what cannot be seen is told on a page.
    pub async fn question<T>(&self, question: impl Future<Output = Seen<T>>) -> Result<T, Answer> {
        self.ask(question).await.map_err(|unseen| self.unseen(unseen))
    }

    /// The place that the query names.
    pub fn place(&self) -> Result<Place, Answer> {
        self.place_of(&self.query)
    }

    /// The place that fields name.
    pub fn place_of(&self, fields: &link::Fields) -> Result<Place, Answer> {
        let volume = fields.text("volume").filter(|name| !name.is_empty() && name.len() <= 129);
        let path = match fields.has("packed") {
            true => fields.packed_path("packed"),
            false => fields.path("path"),
        };
        match (volume, fields.number("at"), path) {
            (Some(volume), Some(seq), Some(path)) => Ok(Place { volume: volume.to_owned(), seq, path }),
            _ => Err(self.wrong()),
        }
    }

    /// A number of the query.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Answer> {
        self.query.number(name).ok_or_else(|| self.wrong())
    }

    /// The address is of nothing that there could be.
    pub fn wrong(&self) -> Answer {
        self.lost(StatusCode::BAD_REQUEST, "This address leads nowhere", &["It was written or cut wrongly."])
    }

    /// A page that says what could not be shown.
    pub fn lost(&self, status: StatusCode, title: &'static str, what: &[&str]) -> Answer {
        let what = what.iter().map(|text| orchestrator_console::pages::own::line(text)).collect();
        let page = Lost { frame: self.frame(), title, what, back: "/".to_owned() };
        Answer::page(render(&page)).status(status)
    }

    /// The same of what a volume could not show.
    pub fn unseen(&self, unseen: Unseen) -> Answer {
        self.unseen_as(None, unseen)
    }

    /// The same of something that was begun before, and failed. What is asked now was answered: a page that looks again by itself
    /// takes a status of 500 and above for a device that is away.
    pub fn failed(&self, unseen: Unseen) -> Answer {
        self.unseen_as(Some(StatusCode::CONFLICT), unseen)
    }

    fn unseen_as(&self, status: Option<StatusCode>, unseen: Unseen) -> Answer {
        let (usual, title) = match unseen.why {
            Why::Missing => (StatusCode::NOT_FOUND, "There is nothing here"),
            Why::InTheWay => (StatusCode::CONFLICT, "Something is in the way"),
            Why::ReadOnly => (StatusCode::CONFLICT, "It takes no changes here"),
            Why::Full => (StatusCode::INSUFFICIENT_STORAGE, "There is no room"),
            Why::Damaged => (StatusCode::BAD_GATEWAY, "This is damaged"),
            Why::Away => (StatusCode::BAD_GATEWAY, "It is not on this machine now"),
            Why::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Too much is asked at once"),
            Why::Otherwise => (StatusCode::BAD_GATEWAY, "This could not be read"),
        };
        let lines: Vec<String> = unseen.text.lines().map(show::capital).collect();
        self.lost(status.unwrap_or(usual), title, &lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Whose volume it is.
    pub fn known(&self, volume: &str) -> Known {
        let (plain, branch) = match volume.split_once('/') {
            Some((plain, branch)) => (plain, Some(branch.to_owned())),
            None => (volume, None),
        };
        let apps = self.world.apps.lock();
        let found = apps.iter().find_map(|(app, state)| {
            let of = state.file.volumes.iter().find(|one| volume_name(*app, &one.name) == plain)?;
            Some((*app, state.file.name.clone(), of.name.clone()))
        });
        match found {
            Some((app, called, name)) => Known { app: Some((app, called)), name, branch },
            None => Known { app: None, name: plain.to_owned(), branch },
        }
    }

    /// The way to a volume.
    pub fn way(&self, known: &Known, volume: &str) -> Vec<Crumb> {
        let crumb = |label: Html, path: String| Crumb { label, path: Some(path) };
        let mut crumbs = vec![crumb(show::name(&self.device()), "/".to_owned())];
        if let Some((app, name)) = &known.app {
            crumbs.push(crumb(show::name(name), format!("/app?app={app}")));
        }
        if known.branch.is_some() {
            let plain = volume.split('/').next().unwrap_or_default();
            let path = format!("/moments?volume={}", link::encode(plain.as_bytes()));
            crumbs.push(crumb(show::name(&known.name), path));
        }
        let label = known.branch.as_deref().map_or_else(|| show::name(&known.name), show::name);
        crumbs.push(crumb(label, format!("/moments?volume={}", link::encode(volume.as_bytes()))));
        crumbs
    }

    /// The way to a place in it.
    pub fn way_to(&self, known: &Known, place: &Place) -> Vec<Crumb> {
        let mut crumbs = self.way(known, &place.volume);
        let (base, is_below) = match place.path.strip_prefix(known.base()) {
            Some(rest) if known.base().is_empty() || rest.is_empty() || rest[0] == b'/' => {
                (known.base(), true)
            }
            _ => (&b""[..], false),
        };
        let at = |path: &[u8]| link::to("files", &Place { path: path.to_vec(), ..place.clone() });
        let label = if is_below { "Files" } else { "Everything" };
        crumbs.push(Crumb { label: Html::text(label), path: Some(at(base)) });
        let mut end = base.len();
        while end < place.path.len() {
            let begin = if place.path[end] == b'/' { end + 1 } else { end };
            let len = place.path[begin..].iter().position(|byte| *byte == b'/');
            end = len.map_or(place.path.len(), |len| begin + len);
            crumbs.push(Crumb {
                label: show::name_bytes(&place.path[begin..end]),
                path: Some(at(&place.path[..end])),
            });
        }
        crumbs
    }
}

/// A turn, of so many at a time.
async fn turn(of: &Arc<Semaphore>, wait: Duration) -> Seen<OwnedSemaphorePermit> {
    let busy = "as much is asked of this device already as it answers at a time: end downloads that are not needed, and try again";
    match timeout(wait, of.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Unseen { why: Why::Busy, text: busy.to_owned() }),
    }
}

/// An answer that takes no longer than this.
pub async fn within<T>(wait: Duration, question: impl Future<Output = Seen<T>>) -> Seen<T> {
    let late = "it did not come in time: a store may be slow, or not answer. Try again later";
    timeout(wait, question)
        .await
        .unwrap_or_else(|_| Err(Unseen { why: Why::Otherwise, text: late.to_owned() }))
}

/// Where one is has no link.
pub fn here(mut crumbs: Vec<Crumb>) -> Vec<Crumb> {
    if let Some(last) = crumbs.last_mut() {
        last.path = None;
    }
    crumbs
}

/// The last part of a path.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Why there is a moment; what came by itself says so too.
pub fn reason(moment: &Moment) -> String {
    let Some((tags, _)) = &moment.snapshot else { return "saved by itself".to_owned() };
    let known = tags.iter().find_map(|tag| REASONS.iter().find(|(one, _)| one == tag));
    match known {
        Some((_, words)) => (*words).to_owned(),
        None if tags.iter().any(|tag| tag.starts_with("before-restore-")) => {
            "before something was brought back".to_owned()
        }
        None => "kept on purpose".to_owned(),
    }
}

/// The tags that somebody gave.
pub fn tags(moment: &Moment) -> Vec<&str> {
    let all = moment.snapshot.iter().flat_map(|(tags, _)| tags);
    let is_given = |tag: &&str| {
        !REASONS.iter().any(|(one, _)| one == tag)
            && !tag.starts_with(OPERATION_TAG)
            && !tag.starts_with("before-restore-")
    };
    all.map(String::as_str).filter(is_given).collect()
}

/// Which moments can be chosen.
pub fn choices(moments: &[Moment], here: Option<u64>) -> Vec<Choice> {
    let is_shown = |at: usize, moment: &Moment| at < CHOICES_MAX || Some(moment.seq) == here;
    let all = moments.iter().enumerate().filter(|(at, moment)| is_shown(*at, moment));
    let choice = |(_, moment): (usize, &Moment)| {
        let mut label = show::exact(moment.time);
        if moment.snapshot.is_some() {
            let tags = tags(moment).join(", ");
            label.push_str(&format!(" – {}", if tags.is_empty() { reason(moment) } else { tags }));
        }
        Choice { seq: moment.seq, label, is_here: Some(moment.seq) == here }
    };
    all.map(choice).collect()
}

/// Of which moment a page is, and the way to others.
pub fn bar(route: &'static str, place: &Place, moment: &Moment, moments: &[Moment], now: Time) -> Bar {
    let at = moments.iter().position(|one| one.seq == moment.seq);
    let to = |moment: &Moment| link::to(route, &Place { seq: Some(moment.seq), ..place.clone() });
    Bar {
        time: show::when(moment.time),
        ago: show::ago(moment.time, now),
        seq: moment.seq,
        reason: reason(moment),
        is_newest: at == Some(0),
        route,
        volume: place.volume.clone(),
        packed: link::encode(&place.path),
        choices: choices(moments, Some(moment.seq)),
        earlier: at.and_then(|at| moments.get(at + 1)).map(to),
        later: at.and_then(|at| at.checked_sub(1)).and_then(|at| moments.get(at)).map(to),
    }
}

/// A number with marks between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something.
pub fn several(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_marks() {
        assert_eq!(
            (count(0).as_str(), count(999).as_str(), count(1_234_567).as_str()),
            ("0", "999", "1,234,567")
        );
        assert_eq!(several(1, "file", "files"), "1 file");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_turn_or_an_answer_without_an_end() {
        let (all, wait) = (Arc::new(Semaphore::new(1)), Duration::from_millis(50));
        let first = turn(&all, wait).await.expect("it is free");
        let busy = turn(&all, wait).await.expect_err("it is taken");
        assert_eq!(busy.why, Why::Busy);
        drop(first);
        drop(turn(&all, wait).await.expect("it is free again"));
        let late = within(wait, std::future::pending::<Seen<()>>()).await.expect_err("it never comes");
        assert_eq!(late.why, Why::Otherwise);
    }

    #[test]
    fn of_an_apps_volume_only_what_the_app_sees_comes_back() {
        let app = Known { app: Some((AppId([1; 16]), "photos".into())), name: "db".into(), branch: None };
        for (path, can) in [
            (&b"data/a"[..], true),
            (b"data", false),
            (b"", false),
            (b"comb.json", false),
            (b"database/a", false),
            (b"data/", false),
        ] {
            assert_eq!(app.can_come_back(path), can, "{path:?}");
        }
        let plain = Known { app: None, ..app };
        assert!(plain.can_come_back(b"a") && !plain.can_come_back(b""));
    }
}
