//! What differs between two moments.

use std::time::Duration;

use orchestrator_console::pages::own::{self, Chosen, Compare, CompareText, DiffLine, Difference, How};
use orchestrator_console::render;
use orchestrator_console::show;
use similar::{ChangeTag, TextDiff};

use super::file::{UNREAD, beginning};
use super::frame::{self, MOMENTS_MAX, choices, count};
use super::http::{Answer, Asked};
use super::link;
use super::sniff::{self, Content, TEXT_BYTES_MAX};
use crate::doors::past::{Change, Kind, Place, Why};

/// How many changes a page has.
const ROWS: u64 = 200;
/// How long two texts are compared; then it is told more roughly.
const COMPARE_WAIT: Duration = Duration::from_secs(1);
/// Lines that stay around what changed.
const AROUND: usize = 3;
/// The most lines that are shown.
const LINES_MAX: usize = 4_000;

/// Two moments of a volume.
pub async fn compare(asked: Asked) -> Result<Answer, Answer> {
    let place = asked.place()?;
    let (from, to) = (asked.number("from")?, asked.number("to")?);
    let first = asked.number("first")?.unwrap_or(0);
    let from = from.ok_or_else(|| asked.wrong())?;
    // The earlier one comes first, whichever was chosen first.
    let (from, to) = match to {
        Some(to) if to < from => (to, Some(from)),
        to => (from, to),
    };
    let past = &asked.world.setup.past;
    let (compared, moments) = tokio::join!(
        asked.question(past.compare(&place.volume, from, to, first, ROWS)),
        asked.question(past.moments(&place.volume, MOMENTS_MAX))
    );
    let (compared, moments) = (compared?, moments?);
    let (from, to) = (compared.from.seq, compared.to.seq);
    let known = asked.known(&place.volume);
    let volume = link::encode(place.volume.as_bytes());
    let row = |(change, kind, path): &(Change, Kind, Vec<u8>)| {
        let seq = if *change == Change::Removed { from } else { to };
        let there = Place { volume: place.volume.clone(), seq: Some(seq), path: path.clone() };
        let route = if *kind == Kind::Folder { "files" } else { "file" };
        let shown = match path.strip_prefix(known.base()).and_then(|rest| rest.strip_prefix(b"/")) {
            Some(rest) if !rest.is_empty() && known.app.is_some() => rest,
            _ => path,
        };
        Difference {
            how: match change {
                Change::Added => How::Added,
                Change::Modified => How::Changed,
                Change::Removed => How::Removed,
            },
            name: if path.is_empty() { known.label() } else { show::name_bytes(shown) },
            path: Some(link::to(route, &there)),
            inside: (*kind == Kind::File && *change == Change::Modified).then(|| {
                format!("/compare/text?volume={volume}&from={from}&to={to}&path={}", link::encode(path))
            }),
        }
    };
    let total = compared.counts.0 + compared.counts.1 + compared.counts.2;
    let shown = compared.changes.len() as u64;
    let page_at = |first: u64| format!("/compare?volume={volume}&from={from}&to={to}&first={first}");
    let page = Compare {
        frame: asked.frame(),
        crumbs: asked.way(&known, &place.volume),
        name: known.label(),
        chosen: Chosen {
            volume: place.volume.clone(),
            from: choices(&moments, Some(from)),
            to: choices(&moments, Some(to)),
        },
        times: (show::when(compared.from.time), show::when(compared.to.time)),
        counts: (count(compared.counts.0), count(compared.counts.1), count(compared.counts.2)),
        rows: compared.changes.iter().map(row).collect(),
        shown: (shown > 0 && shown < total)
            .then(|| format!("{} to {}", count(first + 1), count(first + shown))),
        earlier_page: (first > 0).then(|| page_at(first.saturating_sub(ROWS))),
        later_page: (shown > 0 && first + shown < total).then(|| page_at(first + ROWS)),
    };
    Ok(Answer::page(render(&page)))
}

/// The text of a file at a moment; of one that was not there nothing.
async fn text_at(asked: &Asked, place: &Place) -> Result<Result<Option<(String, bool)>, String>, Answer> {
    let past = &asked.world.setup.past;
    let looked = match asked.ask(past.look(place, 0, 1)).await {
        Ok(looked) => looked,
        Err(unseen) if unseen.why == Why::Missing => return Ok(Ok(None)),
        Err(unseen) => return Err(asked.unseen(unseen)),
    };
    if looked.found.kind != Kind::File {
        return Ok(Err("Only files are compared line by line.".to_owned()));
    }
    if looked.found.bytes > TEXT_BYTES_MAX as u64 {
        let most = show::bytes(TEXT_BYTES_MAX as u64);
        return Ok(Err(format!("It is larger than {most}: download both and compare them there.")));
    }
    let Some(bytes) = beginning(asked, place, &looked.found).await? else {
        return Ok(Err(UNREAD.to_owned()));
    };
    match sniff::content(&bytes) {
        Content::Text => Ok(Ok(Some(sniff::text(&bytes)))),
        _ => Ok(Err("It is no text. Look at it before and after instead.".to_owned())),
    }
}

/// One text file, line by line.
pub async fn text(asked: Asked) -> Result<Answer, Answer> {
    let place = asked.place()?;
    let (Some(from), Some(to)) = (asked.number("from")?, asked.number("to")?) else {
        return Err(asked.wrong());
    };
    let (before, after) =
        (Place { seq: Some(from), ..place.clone() }, Place { seq: Some(to), ..place.clone() });
    let past = &asked.world.setup.past;
    let (old, new, moments) = tokio::join!(
        text_at(&asked, &before),
        text_at(&asked, &after),
        asked.question(past.moments(&place.volume, MOMENTS_MAX))
    );
    let (old, new, moments) = (old?, new?, moments?);
    let mut said = None;
    let mut there = (true, true);
    let mut counts = (0, 0);
    let lines = match (old, new) {
        (Ok(None), Ok(None)) => {
            let gone = crate::doors::past::Unseen {
                why: Why::Missing,
                text: "Neither moment has this file.".to_owned(),
            };
            return Err(asked.unseen(gone));
        }
        (Ok(old), Ok(new)) => {
            there = (old.is_some(), new.is_some());
            said = match there {
                (false, _) => Some("It was not there before.".to_owned()),
                (_, false) => Some("It was removed.".to_owned()),
                _ => None,
            };
            let (old, new) =
                (old.map_or_else(String::new, |text| text.0), new.map_or_else(String::new, |text| text.0));
            // It takes a processor for up to a second.
            let compared = tokio::task::spawn_blocking(move || differ(&old, &new)).await;
            let (lines, found) = compared.unwrap_or_default();
            counts = found;
            if lines.len() >= LINES_MAX {
                said = Some(format!("The first {} lines of the changes.", count(LINES_MAX as u64)));
            }
            Ok(lines)
        }
        (Err(why), _) | (_, Err(why)) => Err(why),
    };
    let known = asked.known(&place.volume);
    let time = |seq: u64| {
        let found = moments.iter().find(|moment| moment.seq == seq);
        found.map_or_else(|| show::Html::text(&format!("moment {seq}")), |moment| show::when(moment.time))
    };
    let page = CompareText {
        frame: asked.frame(),
        crumbs: asked.way_to(&known, &after),
        name: show::name_bytes(frame::base_name(&place.path)),
        times: (time(from), time(to)),
        lines,
        counts,
        said,
        files: (there.0.then(|| link::to("file", &before)), there.1.then(|| link::to("file", &after))),
    };
    Ok(Answer::page(render(&page)))
}

/// What differs, with some lines around; and how many lines were added and removed.
fn differ(old: &str, new: &str) -> (Vec<DiffLine>, (usize, usize)) {
    let diff = TextDiff::configure().timeout(COMPARE_WAIT).diff_lines(old, new);
    let (mut lines, mut counts) = (Vec::new(), (0, 0));
    for (at, group) in diff.grouped_ops(AROUND).iter().enumerate() {
        if at > 0 {
            lines.push(DiffLine { how: How::Same, numbers: (None, None), text: None });
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let how = match change.tag() {
                ChangeTag::Equal => How::Same,
                ChangeTag::Insert => How::Added,
                ChangeTag::Delete => How::Removed,
            };
            counts.0 += usize::from(how == How::Added);
            counts.1 += usize::from(how == How::Removed);
            if lines.len() < LINES_MAX {
                let numbers = (change.old_index().map(|at| at + 1), change.new_index().map(|at| at + 1));
                let text = own::line(change.value().trim_end_matches(['\n', '\r']));
                lines.push(DiffLine { how, numbers, text: Some(text) });
            }
        }
    }
    (lines, counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_has_what_changed_and_a_little_around() {
        let old: String = (0..40).map(|at| format!("line {at}\n")).collect();
        let new = old.replace("line 5\n", "line <b>five</b>\n").replace("line 30\n", "");
        let (lines, counts) = differ(&old, &new);
        assert_eq!(counts, (1, 2));
        assert_eq!(
            lines.iter().filter(|line| line.text.is_none()).count(),
            1,
            "what is the same is left out"
        );
        let added = lines.iter().find(|line| line.how == How::Added).and_then(|line| line.text.clone());
        assert_eq!(added.expect("one is").as_str(), "line &lt;b&gt;five&lt;/b&gt;");
        assert!(differ(&old, &old).0.is_empty());
    }
}
