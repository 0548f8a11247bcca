//! A folder at a moment.

use orchestrator_console::pages::own::{Folder, Row, RowKind};
use orchestrator_console::render;
use orchestrator_console::show;

use super::frame::{self, MOMENTS_MAX, count, several};
use super::http::{Answer, Asked};
use super::link;
use crate::doors::past::{Entry, Kind, Place};

/// How many entries a page has.
const ROWS: u64 = 200;

/// The page.
pub async fn files(asked: Asked) -> Result<Answer, Answer> {
    let place = asked.place()?;
    let first = asked.number("from")?.unwrap_or(0);
    let past = &asked.world.setup.past;
    let (looked, moments) = tokio::join!(
        asked.question(past.look(&place, first, ROWS)),
        asked.question(past.moments(&place.volume, MOMENTS_MAX))
    );
    let looked = looked?;
    let place = Place { seq: Some(looked.moment.seq), ..place };
    if looked.found.kind != Kind::Folder {
        return Ok(Answer::see(&link::to("file", &place)));
    }
    let known = asked.known(&place.volume);
    let frame = asked.frame();
    let bar = frame::bar("files", &place, &looked.moment, &moments.unwrap_or_default(), frame.now);
    let shown = looked.entries.len() as u64;
    let page_at = |from: u64| format!("{}&from={from}", link::to("files", &place));
    let has_all = first == 0 && shown == looked.total;
    let page = Folder {
        crumbs: frame::here(asked.way_to(&known, &place)),
        name: if place.path == known.base() || place.path.is_empty() {
            known.label()
        } else {
            show::name_bytes(frame::base_name(&place.path))
        },
        rows: looked.entries.iter().map(|entry| row(&place, entry)).collect(),
        count: several(looked.total, "entry", "entries"),
        shown: (!has_all && shown > 0).then(|| format!("{} to {}", count(first + 1), count(first + shown))),
        earlier_page: (first > 0).then(|| page_at(first.saturating_sub(ROWS))),
        later_page: (first + shown < looked.total && shown > 0).then(|| page_at(first + ROWS)),
        download: link::to("download", &place),
        versions: (!place.path.is_empty())
            .then(|| link::to("versions", &Place { seq: None, ..place.clone() })),
        restore: known.can_come_back(&place.path).then(|| link::to("restore", &place)),
        bar,
        frame,
    };
    Ok(Answer::page(render(&page)))
}

fn row(folder: &Place, entry: &Entry) -> Row {
    let slash: &[u8] = if folder.path.is_empty() { b"" } else { b"/" };
    let place = Place { path: [&folder.path, slash, &entry.name].concat(), ..folder.clone() };
    let (kind, route) = match entry.kind {
        Kind::Folder => (RowKind::Folder, "files"),
        Kind::File => (RowKind::File, "file"),
        Kind::Link => (RowKind::Link, "file"),
        Kind::Special => (RowKind::Special, "file"),
    };
    Row {
        kind,
        name: show::name_bytes(&entry.name),
        path: Some(link::to(route, &place)),
        target: entry.target.as_deref().map(show::name),
        bytes: (entry.kind == Kind::File).then(|| show::bytes(entry.bytes)),
        modified: show::when(entry.modified),
        versions: link::to("versions", &Place { seq: None, ..place }),
    }
}
