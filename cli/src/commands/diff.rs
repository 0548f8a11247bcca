//! `comb diff`.

use std::ffi::OsString;

use clap::Args;
use fs_format::FileKind;
use fs_volume::{Change, ChangeKind};
use serde::Serialize;

use crate::engine::Found;
use crate::failure::Result;
use crate::output::{self, JsonPath};
use crate::page::Page;
use crate::place::Place;
use crate::report::SealReport;
use crate::state::{State, VolumeFolder};
use crate::when::When;
use crate::{engine, progress};

/// List the paths that differ between two moments: A added, M modified, D removed
///
/// A file with several names (hard links) that changed is listed by each of them. To find them all the folders may have
/// to be searched, which takes about a tenth of a second for a million files; otherwise only what changed is read.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The volume and the earlier moment
    #[arg(value_name = "NAME@FROM")]
    place: OsString,

    /// The later moment; now if left out
    #[arg(value_name = "TO")]
    to: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print, as JSON, both moments, how many paths were added, modified and removed, and these of them
    #[arg(long, value_name = "FROM:COUNT", conflicts_with = "json")]
    page: Option<Page>,
}

#[derive(Serialize)]
struct Json {
    change: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    kind: &'static str,
}

impl Json {
    fn of(change: &Change) -> Self {
        Self { change: word(change.kind), path: JsonPath::new(&change.path), kind: output::kind(change.file) }
    }
}

#[derive(Serialize)]
struct JsonPage {
    from: SealReport,
    to: SealReport,
    added: usize,
    modified: usize,
    removed: usize,
    changes: Vec<Json>,
}

/// Lists the differences.
pub fn run(state: &State, args: &DiffArgs) -> Result<()> {
    let now = engine::now();
    let place = Place::parse(&args.place, &now)?;
    place.path_refused("diff")?;
    let from = place.when_required("diff")?;
    let to = args.to.as_deref().map(|text| When::parse(text, &now)).transpose()?;

    let volume = state.volume(&place.name)?;
    let to = engine::moment(state, &volume, to.as_ref())?;
    let outcome = compare(&volume, &to, from, args);
    to.end(outcome)
}

fn compare(volume: &VolumeFolder, to: &Found, from: &When, args: &DiffArgs) -> Result<()> {
    let from = engine::find(volume, &to.history, from)?;
    let bar = progress::waiting("comparing");
    let changes = to.history.diff(from.info().seq, to.view.info().seq);
    let changes = changes.map_err(|error| engine::fs_failure(&volume.name, &error))?;
    bar.finish_and_clear();

    let told = |changes: &[Change]| changes.iter().map(Json::of).collect::<Vec<_>>();
    if let Some(page) = args.page {
        let count = |kind| changes.iter().filter(|change| change.kind == kind).count();
        return output::json(&JsonPage {
            from: SealReport::from(from.info()),
            to: SealReport::from(to.view.info()),
            added: count(ChangeKind::Added),
            modified: count(ChangeKind::Modified),
            removed: count(ChangeKind::Removed),
            changes: told(&changes[page.of(changes.len())]),
        });
    }
    if args.json {
        return output::json(&told(&changes));
    }
    changes.iter().try_for_each(|change| output::line(&shown(change)))
}

/// `M photos/a.jpg`; a directory ends with a slash.
fn shown(change: &Change) -> String {
    let letter = match change.kind {
        ChangeKind::Added => 'A',
        ChangeKind::Removed => 'D',
        ChangeKind::Modified => 'M',
    };
    let slash = if change.file == FileKind::Directory { "/" } else { "" };
    format!("{letter} {}{slash}", output::escape(&change.path))
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Modified => "modified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_letter_and_a_path() {
        let change = |kind, path: &[u8], file| shown(&Change { kind, path: path.to_vec(), file });
        assert_eq!(change(ChangeKind::Added, b"a/b", FileKind::File), "A a/b");
        assert_eq!(change(ChangeKind::Removed, b"a\nb", FileKind::Directory), "D a\\nb/");
        assert_eq!(change(ChangeKind::Modified, b"", FileKind::Directory), "M /");
    }
}
