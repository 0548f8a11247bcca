//! A file at a moment: what is known of it, a preview, its bytes.

use hyper::StatusCode;
use orchestrator_console::pages::own::{File, Preview, lines};
use orchestrator_console::render;
use orchestrator_console::show::{self, Html};
use tokio::io::AsyncReadExt;

use super::frame::{self, ANSWER_WAIT, MOMENTS_MAX, count};
use super::http::{Answer, Asked, refused};
use super::link;
use super::sniff::{self, Content, PICTURE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::doors::past::{Entry, Kind, Looked, Place, Reading};

/// How many lines of a text are shown.
const LINES_MAX: usize = 5_000;
/// What is read of a file to know whether it is a picture, in bytes.
const SNIFF_BYTES: usize = 16;

/// What is said where bytes are missing. Why is in an exit code alone.
pub const UNREAD: &str = "Not all of its bytes could be read: it is damaged, or in a store that does not answer. `comb check` names what is damaged.";

/// Reads the first bytes of a file; what follows stays to be read.
async fn first(reading: &mut Reading, max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reading.take(max as u64).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// As much of a file as is shown as text; none if less came than it has.
pub async fn beginning(asked: &Asked, place: &Place, found: &Entry) -> Result<Option<Vec<u8>>, Answer> {
    let read = async {
        let mut reading = asked.world.setup.past.read(place).await?;
        Ok(first(&mut reading, TEXT_BYTES_MAX).await.unwrap_or_default())
    };
    let bytes = asked.question(read).await?;
    let is_all = bytes.len() as u64 == found.bytes.min(TEXT_BYTES_MAX as u64);
    Ok(is_all.then_some(bytes))
}

/// The page.
pub async fn file(asked: Asked) -> Result<Answer, Answer> {
    let place = asked.place()?;
    let past = &asked.world.setup.past;
    let (looked, moments) = tokio::join!(
        asked.question(past.look(&place, 0, 1)),
        asked.question(past.moments(&place.volume, MOMENTS_MAX))
    );
    let looked = looked?;
    let place = Place { seq: Some(looked.moment.seq), ..place };
    if looked.found.kind == Kind::Folder {
        return Ok(Answer::see(&link::to("files", &place)));
    }
    let preview = preview(&asked, &place, &looked.found).await?;
    let known = asked.known(&place.volume);
    let frame = asked.frame();
    let page = File {
        crumbs: frame::here(asked.way_to(&known, &place)),
        name: show::name_bytes(frame::base_name(&place.path)),
        facts: facts(&looked),
        preview,
        download: (looked.found.kind == Kind::File).then(|| link::to("download", &place)),
        versions: link::to("versions", &Place { seq: None, ..place.clone() }),
        restore: known.can_come_back(&place.path).then(|| link::to("restore", &place)),
        bar: frame::bar("file", &place, &looked.moment, &moments.unwrap_or_default(), frame.now),
        frame,
    };
    Ok(Answer::page(render(&page)))
}

fn facts(looked: &Looked) -> Vec<(&'static str, Html)> {
    let found = &looked.found;
    let kind = match found.kind {
        Kind::File => "a file",
        Kind::Folder => "a folder",
        Kind::Link => "a symbolic link, which is not followed",
        Kind::Special => "a device, a pipe or a socket",
    };
    let mut facts = vec![("Kind", Html::text(kind))];
    if found.kind == Kind::File {
        let exact = format!("{} ({} bytes)", show::bytes(found.bytes), count(found.bytes));
        facts.push(("Size", Html::text(&exact)));
    }
    if let Some(target) = &found.target {
        facts.push(("Leads to", show::name(target)));
    }
    facts.push(("Changed", show::when(found.modified)));
    let (user, group) = found.owner;
    facts.push(("Rights", Html::text(&format!("{}, user {user}, group {group}", found.mode))));
    facts
}

async fn preview(asked: &Asked, place: &Place, found: &Entry) -> Result<Preview, Answer> {
    if found.kind != Kind::File {
        return Ok(Preview::None("There is nothing in it to be shown.".to_owned()));
    }
    if found.bytes == 0 {
        return Ok(Preview::None("It is empty.".to_owned()));
    }
    let Some(bytes) = beginning(asked, place, found).await? else {
        return Ok(Preview::None(UNREAD.to_owned()));
    };
    Ok(match sniff::content(&bytes) {
        Content::Picture(_) if found.bytes <= PICTURE_BYTES_MAX => {
            Preview::Picture(link::to("picture", place))
        }
        Content::Picture(_) => Preview::None(format!(
            "A picture of more than {} is not shown here.",
            show::bytes(PICTURE_BYTES_MAX)
        )),
        Content::Binary => {
            Preview::None("It is neither text nor a picture. Download it to open it.".to_owned())
        }
        Content::Text => {
            let (text, is_utf8) = sniff::text(&bytes);
            let mut shown = lines(&text);
            let mut said = Vec::new();
            if (bytes.len() as u64) < found.bytes {
                said.push(format!("The first {} of it.", show::bytes(bytes.len() as u64)));
            }
            if shown.len() > LINES_MAX {
                shown.truncate(LINES_MAX);
                said.push(format!("The first {} lines of it.", count(LINES_MAX as u64)));
            }
            if !is_utf8 {
                said.push("It is not UTF-8: each byte is shown as a letter of Latin-1.".to_owned());
            }
            Preview::Text(shown, (!said.is_empty()).then(|| said.join(" ")))
        }
    })
}

/// A picture's bytes.
pub async fn picture(asked: Asked) -> Result<Answer, Answer> {
    let place = asked.place()?;
    let no = |text: &str| refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    let looked = asked.question(asked.world.setup.past.look(&place, 0, 1)).await?;
    let found = looked.found;
    if found.kind != Kind::File || found.bytes > PICTURE_BYTES_MAX {
        return Err(no("this is no picture that is shown"));
    }
    let place = Place { seq: Some(looked.moment.seq), ..place };
    let permit = asked.turn().await?;
    let begun = async {
        let mut reading = asked.world.setup.past.read(&place).await?;
        let head = first(&mut reading, SNIFF_BYTES).await.unwrap_or_default();
        Ok((reading, head))
    };
    let begun = frame::within(ANSWER_WAIT, begun).await;
    let (reading, head) = begun.map_err(|unseen| asked.unseen(unseen))?;
    let kind =
        sniff::picture(&head).ok_or_else(|| no("its first bytes are of no kind of picture that is shown"))?;
    let answer = Answer::reading(kind, head, reading, Some(found.bytes), permit);
    Ok(answer.named(frame::base_name(&place.path)))
}

/// A file as it is, or a folder as an archive.
pub async fn download(asked: Asked) -> Result<Answer, Answer> {
    let place = asked.place()?;
    let looked = asked.question(asked.world.setup.past.look(&place, 0, 1)).await?;
    let place = Place { seq: Some(looked.moment.seq), ..place };
    let known = asked.known(&place.volume);
    let name = match frame::base_name(&place.path) {
        _ if place.path == known.base() => known.name.as_bytes(),
        name => name,
    };
    let permit = asked.turn().await?;
    let past = &asked.world.setup.past;
    let unseen = |unseen| asked.unseen(unseen);
    match looked.found.kind {
        Kind::File => {
            let reading = past.read(&place).await.map_err(unseen)?;
            let answer = Answer::reading(
                "application/octet-stream",
                Vec::new(),
                reading,
                Some(looked.found.bytes),
                permit,
            );
            Ok(answer.named(name))
        }
        Kind::Folder => {
            let reading = past.archive(&place).await.map_err(unseen)?;
            let answer = Answer::reading("application/x-tar", Vec::new(), reading, None, permit);
            Ok(answer.named(&[name, b".tar"].concat()))
        }
        Kind::Link | Kind::Special => Err(asked.lost(
            StatusCode::BAD_REQUEST,
            "There is nothing to download",
            &["It is no file and no folder."],
        )),
    }
}
