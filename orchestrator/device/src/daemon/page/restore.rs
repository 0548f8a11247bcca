//! Bringing a file or folder back: what would happen, doing it, and what came of it.
//!
//! It goes on when the browser is gone: whoever comes back finds what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use orchestrator_console::pages::own::{self, Restore, Restoring, Way, WorkRow};
use orchestrator_console::render;
use orchestrator_console::show::{self, Health, Html};
use tokio::sync::Notify;

use super::frame::{self, Known, several};
use super::http::{Answer, Asked};
use super::link;
use crate::daemon::World;
use crate::doors::past::{Back, Done, Kind, Looked, Place, Restored, Seen};

/// How long an answer waits for it before it says that it goes on.
const ANSWER_WAIT: Duration = Duration::from_secs(4);
/// How many of those that are over the first page lists.
const LISTED_MAX: usize = 5;
/// How many of those that are over are remembered.
const KEPT_MAX: usize = 64;
/// The most at a time.
const AT_ONCE_MAX: usize = 4;

/// What is brought back, and was.
#[derive(Default)]
pub struct Works {
    last: u64,
    all: BTreeMap<u64, Work>,
}

/// One of them.
#[derive(Clone)]
struct Work {
    place: Place,
    done: Option<Done>,
    ended: Option<Seen<Restored>>,
    over: Arc<Notify>,
}

impl Works {
    /// Begins one; none if too many are under way.
    fn begin(&mut self, place: &Place) -> Option<u64> {
        if self.all.values().filter(|work| work.ended.is_none()).count() >= AT_ONCE_MAX {
            return None;
        }
        let over: Vec<u64> =
            self.all.iter().filter(|(_, work)| work.ended.is_some()).map(|(at, _)| *at).collect();
        for at in over.iter().take(over.len().saturating_sub(KEPT_MAX)) {
            self.all.remove(at);
        }
        self.last += 1;
        let work = Work { place: place.clone(), done: None, ended: None, over: Arc::default() };
        self.all.insert(self.last, work);
        Some(self.last)
    }

    fn go_on(&mut self, at: u64, done: Done) {
        if let Some(work) = self.all.get_mut(&at) {
            work.done = Some(done);
        }
    }

    fn end(&mut self, at: u64, ended: Seen<Restored>) {
        if let Some(work) = self.all.get_mut(&at) {
            work.ended = Some(ended);
            work.over.notify_waiters();
        }
    }
}

/// Why a volume takes nothing back here; nothing if it does.
fn closed(world: &World, known: &Known, volume: &str) -> Option<String> {
    let plain = volume.split('/').next().unwrap_or_default();
    let seen = world.seen.lock();
    let mount = seen.volumes.iter().find(|one| one.name == plain).and_then(|one| one.mount.as_ref());
    let who = known.app.as_ref().map_or("the volume", |(_, name)| name);
    match mount {
        Some(mount) if mount.takes_changes && !mount.ending => None,
        Some(_) => {
            Some(format!("“{who}” takes no changes here now, so nothing can be brought back into it."))
        }
        None if known.app.is_some() => {
            Some(format!("“{who}” does not run on this device. Start it here first, then bring this back."))
        }
        None => Some(
            "The volume is not mounted on this machine. Mount it first, then bring this back.".to_owned(),
        ),
    }
}

/// Says what would happen, or does it.
pub async fn restore(asked: Asked) -> Result<Answer, Answer> {
    let is_sent = asked.form.text("way").is_some();
    let place = if is_sent { asked.place_of(&asked.form)? } else { asked.place()? };
    let known = asked.known(&place.volume);
    if !known.can_come_back(&place.path) {
        let text = "The whole of it is not brought back file by file: go back with the app, or roll the volume back.";
        return Err(asked.lost(StatusCode::BAD_REQUEST, "Not like this", &[text]));
    }
    if !is_sent {
        let looked = asked.question(asked.world.setup.past.look(&place, 0, 1)).await?;
        return Ok(question(&asked, &known, place, &looked));
    }
    let back = match asked.form.text("way") {
        Some("in-place") => Back::InPlace,
        Some("beside") => Back::Beside,
        _ => return Err(asked.wrong()),
    };
    // Nobody means the newest moment without having seen which that is.
    if place.seq.is_none() {
        return Err(asked.wrong());
    }
    let begun = asked.world.page.works.lock().begin(&place);
    let Some(at) = begun else {
        let text = "Some things are being brought back already: try again when they are.";
        return Err(asked.lost(StatusCode::TOO_MANY_REQUESTS, "One after the other", &[text]));
    };
    let world = asked.world.clone();
    tokio::spawn(async move {
        let told = |done| world.page.works.lock().go_on(at, done);
        let ended = world.setup.past.restore(&place, back, &told).await;
        world.page.works.lock().end(at, ended);
    });
    Ok(Answer::see(&format!("/restored?work={at}")))
}

fn question(asked: &Asked, known: &Known, place: Place, looked: &Looked) -> Answer {
    let place = Place { seq: Some(looked.moment.seq), ..place };
    let is_folder = looked.found.kind == Kind::Folder;
    let name = show::name_bytes(frame::base_name(&place.path));
    let ways = match closed(&asked.world, known, &place.volume) {
        Some(why) => Err(why),
        None => Ok(ways(is_folder, looked.moment.seq)),
    };
    let what = match looked.found.kind {
        Kind::File => format!("A file, {}", show::bytes(looked.found.bytes)),
        Kind::Folder => format!("A folder with {}", several(looked.total, "entry", "entries")),
        Kind::Link => "A link".to_owned(),
        Kind::Special => "A special file".to_owned(),
    };
    let whole = [format!("{}@{}:/", place.volume, looked.moment.seq).as_bytes(), &place.path].concat();
    let page = Restore {
        frame: asked.frame(),
        crumbs: asked.way_to(known, &place),
        name,
        what,
        time: show::when(looked.moment.time),
        volume: place.volume.clone(),
        seq: looked.moment.seq,
        packed: link::encode(&place.path),
        ways,
        command: format!("comb restore {} --to DIR", show::quoted(&whole)),
        back: link::to(if is_folder { "files" } else { "file" }, &place),
    };
    Answer::page(render(&page))
}

fn ways(is_folder: bool, seq: u64) -> Vec<Way> {
    let texts = |texts: &[&str]| texts.iter().map(|text| Html::text(text)).collect::<Vec<_>>();
    let beside = [
        format!(
            "It comes next to what is there now. Its name tells the moment that it is of: “(seq {seq})” is added to it."
        ),
        "Nothing that is there now is touched.".to_owned(),
    ];
    let mut place = vec!["First, everything as it is now is kept as a moment: this can be undone."];
    if is_folder {
        place.push(
            "Then files in this folder are replaced by those of then. What came into it since then stays.",
        );
    } else {
        place.push("Then this file is replaced by the one of then. If it was removed, it is there again.");
    }
    place.push("A program that has it open, as a database has its files, may not notice, or break: stop the app first if it does.");
    vec![
        Way {
            word: "beside",
            title: "Next to what is there",
            what: beside.iter().map(|text| Html::text(text)).collect(),
            button: "Bring it back beside",
            is_replacing: false,
        },
        Way {
            word: "in-place",
            title: "In its old place",
            what: texts(&place),
            button: if is_folder { "Replace what is in the folder" } else { "Replace it" },
            is_replacing: true,
        },
    ]
}

/// How much is back.
fn words(done: Option<Done>) -> String {
    let Some(done) = done else { return "It begins".to_owned() };
    let bytes = match done.total {
        Some(total) => format!("{} of {}", show::bytes(done.bytes), show::bytes(total)),
        None => show::bytes(done.bytes),
    };
    match done.files {
        // A file counts when it is whole.
        0 => bytes,
        files => format!("{}, {bytes}", several(files, "file or folder", "files and folders")),
    }
}

/// What is being brought back, and was lately: whoever left finds it again.
pub fn listed(asked: &Asked) -> Vec<WorkRow> {
    let all = asked.world.page.works.lock().all.clone();
    let (mut rows, mut over) = (Vec::new(), 0);
    for (at, work) in all.into_iter().rev() {
        over += usize::from(work.ended.is_some());
        if work.ended.is_some() && over > LISTED_MAX {
            continue;
        }
        let state = match &work.ended {
            None => show::health(Health::Busy, &words(work.done)),
            Some(Ok(_)) => show::health(Health::Well, "it is back"),
            Some(Err(_)) => show::health(Health::Bad, "it did not work"),
        };
        rows.push(WorkRow {
            name: show::name_bytes(frame::base_name(&work.place.path)),
            volume: asked.known(&work.place.volume).label(),
            state,
            path: format!("/restored?work={at}"),
        });
    }
    rows
}

/// What came of it.
pub async fn restored(asked: Asked) -> Result<Answer, Answer> {
    let at = asked.number("work")?.ok_or_else(|| asked.wrong())?;
    let find = || asked.world.page.works.lock().all.get(&at).cloned();
    let Some(work) = find() else {
        let text = "The device was started anew since then, or this was long ago. Look at the files to see what is there.";
        return Err(asked.lost(StatusCode::NOT_FOUND, "This is not known any more", &[text]));
    };
    if work.ended.is_none() {
        let over = work.over.notified();
        if find().is_some_and(|work| work.ended.is_none()) {
            let _ = tokio::time::timeout(ANSWER_WAIT, over).await;
        }
    }
    let Some(work) = find() else { return Err(asked.wrong()) };
    let known = asked.known(&work.place.volume);
    let restored = match work.ended {
        None => {
            let page = Restoring {
                frame: asked.frame(),
                crumbs: asked.way(&known, &work.place.volume),
                name: show::name_bytes(frame::base_name(&work.place.path)),
                words: words(work.done),
                percent: work.done.and_then(|done| Some(show::percent(done.bytes, done.total?))),
            };
            return Ok(Answer::page(render(&page)));
        }
        Some(Err(unseen)) => return Err(asked.failed(unseen)),
        Some(Ok(restored)) => restored,
    };
    // What a branch held is in the volume that it is of.
    let volume = work.place.volume.split('/').next().unwrap_or_default().to_owned();
    let above = restored.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash);
    let folder = Place { volume: volume.clone(), seq: None, path: restored.path[..above].to_vec() };
    let kept = restored.kept.as_ref().map(|kept| {
        let path = link::to("files", &Place { seq: Some(kept.seq), ..folder.clone() });
        (kept.seq, path)
    });
    let page = own::Restored {
        frame: asked.frame(),
        crumbs: asked.way(&known, &volume),
        name: show::name_bytes(frame::base_name(&restored.path)),
        count: several(restored.files, "file or folder is", "files and folders are"),
        folder: link::to("files", &folder),
        kept,
    };
    Ok(Answer::page(render(&page)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_is_back_is_told_in_words() {
        let done = |files, bytes, total| words(Some(Done { files, bytes, total }));
        assert_eq!(words(None), "It begins");
        assert_eq!(done(0, 1 << 30, Some(3 << 30)), "1 GiB of 3 GiB");
        assert_eq!(done(1, 0, None), "1 file or folder, 0 B");
        assert_eq!(done(1_200, 5 << 20, None), "1,200 files and folders, 5 MiB");
    }
}
