//! When a file or folder changed.

use orchestrator_console::pages::own::{VersionRow, Versions};
use orchestrator_console::render;
use orchestrator_console::show;

use super::frame;
use super::http::{Answer, Asked};
use super::link;
use crate::doors::past::{Kind, Place, Version};

/// The most versions that are listed.
const VERSIONS_MAX: usize = 300;

/// The page.
pub async fn versions(asked: Asked) -> Result<Answer, Answer> {
    let place = asked.place()?;
    let past = &asked.world.setup.past;
    let versions = asked.question(past.versions(&place.volume, &place.path, VERSIONS_MAX + 1)).await?;
    let known = asked.known(&place.volume);
    let frame = asked.frame();
    let row = |(at, version): (usize, &Version)| {
        let there = Place { seq: Some(version.seq), ..place.clone() };
        let before = versions.get(at + 1);
        let is_text = |version: &Version| version.file.is_none_or(|(kind, ..)| kind == Kind::File);
        let changes = before.filter(|before| is_text(before) && is_text(version)).map(|before| {
            let (volume, path) = (link::encode(place.volume.as_bytes()), link::encode(&place.path));
            format!("/compare/text?volume={volume}&from={}&to={}&path={path}", before.seq, version.seq)
        });
        let what = match version.file {
            None => "It was removed".to_owned(),
            Some((Kind::File, bytes, _)) => show::bytes(bytes),
            Some((Kind::Folder, ..)) => "A folder".to_owned(),
            Some((Kind::Link, ..)) => "A link".to_owned(),
            Some((Kind::Special, ..)) => "A special file".to_owned(),
        };
        VersionRow {
            seq: version.seq,
            time: show::when(version.sealed),
            ago: show::ago(version.sealed, frame.now),
            what,
            is_gone: version.file.is_none(),
            path: version
                .file
                .map(|(kind, ..)| link::to(if kind == Kind::Folder { "files" } else { "file" }, &there)),
            changes,
            restore: version
                .file
                .filter(|_| known.can_come_back(&place.path))
                .map(|_| link::to("restore", &there)),
        }
    };
    let rows = versions.iter().enumerate().take(VERSIONS_MAX).map(row).collect();
    let page = Versions {
        crumbs: asked.way_to(&known, &place),
        name: show::name_bytes(frame::base_name(&place.path)),
        rows,
        most: (versions.len() > VERSIONS_MAX).then_some(VERSIONS_MAX),
        frame,
    };
    Ok(Answer::page(render(&page)))
}
