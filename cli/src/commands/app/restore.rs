//! `comb app restore`.

use std::path::PathBuf;

use clap::Args;
use orchestrator_api::wire::app::{App, Restore};
use orchestrator_api::wire::command::MomentName;
use orchestrator_api::wire::operation::Ordered;

use crate::commands::restore;
use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{find, moments};
use crate::state::State;

/// Bring back what an app had at a moment: as an app of its own, or files
///
/// Without a path a new, stopped app is made of the moment; `comb app rollback` puts the app itself back. With a path, on a
/// machine that has the app's volumes, `comb restore` brings the files back: the part of the path before the first slash is
/// the volume, where the app has several.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The app, the moment, and the files if not all of it
    #[arg(value_name = "NAME@WHEN[:PATH]")]
    at: String,

    /// What the new app is called [default: NAME-restored]
    #[arg(long = "as", value_name = "NEW", conflicts_with = "to")]
    new: Option<String>,

    /// Where the files go
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,

    #[command(flatten)]
    order: OrderArgs,
}

/// Restores.
pub fn run(state: &State, args: &RestoreArgs) -> Result<()> {
    let (name, rest) = moments::split(&args.at);
    let rest = rest.ok_or_else(|| {
        Failure::new(Kind::Usage, "say which moment: NAME@WHEN").hint("`comb app log NAME` lists them")
    })?;
    let readings = readings(rest, &jiff::Zoned::now());
    // What was said besides tells which of several is meant.
    let fits = |(_, path): &Reading<'_>| match path {
        Some(_) => args.new.is_none(),
        None => args.to.is_none(),
    };
    let readings: Vec<_> = readings.into_iter().filter(fits).collect();
    if readings.is_empty() {
        return Err(match args.to {
            Some(_) => Failure::new(Kind::Usage, "say which files go to --to: NAME@WHEN:PATH")
                .hint("without --to the moment becomes an app of its own"),
            None => Failure::new(Kind::Usage, "--as names a new app, and files become none")
                .hint("--to says where files go; without a path the moment becomes an app of its own"),
        });
    }
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, name)?;
    let moments = moments::of(&client, &app)?;
    let (to, path) = first_found(&readings, |when| moments::find(&moments.items, when))?;
    match path {
        Some(path) => files(state, &app, &to, path, args),
        None => {
            let into = args.new.clone().unwrap_or_else(|| format!("{}-restored", app.name));
            let name =
                into.parse().map_err(|error| Failure::new(Kind::Usage, format!("the new name {error}")))?;
            let ordered: Ordered =
                client.post(&format!("/v1/apps/{}/restore", app.id), &Restore { to, into: name })?;
            args.order.finish(&client, ordered, &format!("making \"{into}\" of \"{}\"", app.name)).map(drop)
        }
    }
}

/// A moment, and the path behind it.
type Reading<'a> = (&'a str, Option<&'a str>);

/// All that a person may mean: a moment, and the path behind it. Moments and paths may hold colons, so a moment is what
/// reads as one and ends at a colon or at the end; the longest comes first. None holds a slash.
fn readings<'a>(rest: &'a str, now: &jiff::Zoned) -> Vec<Reading<'a>> {
    let moment_max = rest.find('/').unwrap_or(rest.len());
    let whole = (moment_max == rest.len()).then_some((rest, None));
    let colons = rest[..moment_max].rmatch_indices(':');
    let parts = colons.map(|(at, _)| (&rest[..at], Some(&rest[at + 1..])));
    let all: Vec<_> = whole.into_iter().chain(parts).collect();
    let read: Vec<_> =
        all.into_iter().filter(|(when, _)| crate::when::When::parse(when, now).is_ok()).collect();
    match read.as_slice() {
        // What is no moment at all is refused as one.
        [] => vec![(rest, None)],
        // With a zone a time is whole, and nobody calls a file like the rest of one.
        [first, ..] if first.0.contains(['Z', 'z']) || first.0.matches(':').count() > 2 => vec![*first],
        _ => read,
    }
}

/// The first reading whose moment there is; if there is none, what is wrong with the first.
fn first_found<'a, T>(
    readings: &[Reading<'a>],
    find: impl Fn(&str) -> Result<T>,
) -> Result<(T, Option<&'a str>)> {
    let mut wrong = None;
    for (when, path) in readings {
        match find(when) {
            Ok(found) => return Ok((found, *path)),
            Err(failure) => wrong = wrong.or(Some(failure)),
        }
    }
    Err(wrong.unwrap_or_else(|| Failure::new(Kind::Usage, "say which moment: NAME@WHEN")))
}

fn files(state: &State, app: &App, to: &MomentName, path: &str, args: &RestoreArgs) -> Result<()> {
    let path = path.trim_start_matches('/');
    let (volume, path) = match app.volumes.as_slice() {
        [] => return Err(Failure::new(Kind::NotFound, format!("\"{}\" has no volumes", app.name))),
        [only] => (only, path),
        several => {
            let (name, rest) = path.split_once('/').unwrap_or((path, ""));
            let names: Vec<&str> = several.iter().map(|volume| volume.name.as_str()).collect();
            let volume = several.iter().find(|volume| volume.name == name).ok_or_else(|| {
                Failure::new(Kind::Usage, "the path begins with the name of a volume").hint(format!(
                    "\"{}\" has {}",
                    app.name,
                    names.join(", ")
                ))
            })?;
            (volume, rest)
        }
    };
    let key = volume.volume;
    let missing = || {
        Failure::new(Kind::NotFound, format!("volume \"{}\" of \"{}\" is not on this machine", volume.name, app.name))
            .hint("files are restored where the volumes are: do it on its device, or open the volume here with `comb volume open`")
    };
    let here = state
        .volumes()?
        .into_iter()
        .find(|here| key.is_some_and(|key| key.0 == here.id.0))
        .ok_or_else(missing)?;
    let when = match to {
        MomentName::Tag(tag) => tag.to_string(),
        MomentName::Seals(seals) => {
            let seq = key.and_then(|key| seals.get(&key));
            seq.ok_or_else(|| Failure::new(Kind::NotFound, "the volume has no such moment"))?.0.to_string()
        }
    };
    // What the app sees is the folder `data` of its volume.
    let place = format!("{}@{when}:/data/{path}", here.name);
    restore::run(state, &restore::RestoreArgs::of(place, args.to.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> jiff::Zoned {
        "2026-11-21T12:00:00+00:00[UTC]".parse().expect("a time")
    }

    #[test]
    fn a_path_begins_where_the_moment_ends() {
        let table: &[(&str, &[Reading<'_>])] = &[
            ("release", &[("release", None)]),
            ("release:/a", &[("release", Some("/a"))]),
            ("v2:2019/a.jpg", &[("v2", Some("2019/a.jpg"))]),
            ("v2:2019", &[("v2", Some("2019"))]),
            ("4:12:30/a", &[("4", Some("12:30/a"))]),
            ("2026-11-21T18:00:00Z", &[("2026-11-21T18:00:00Z", None)]),
            ("2026-11-21T18:00:00Z:/a:b", &[("2026-11-21T18:00:00Z", Some("/a:b"))]),
            ("2026-11-21T18:00:00+02:00:1/a", &[("2026-11-21T18:00:00+02:00", Some("1/a"))]),
            ("yesterday 18:00", &[("yesterday 18:00", None)]),
            ("yesterday 18:00:a/1", &[("yesterday 18:00", Some("a/1"))]),
            ("yesterday 18:00:2019/a.jpg", &[("yesterday 18:00", Some("2019/a.jpg"))]),
            ("2026-11-21T18:00:00Z.3:1/a", &[("2026-11-21T18:00:00Z.3", Some("1/a"))]),
            // Seconds, or a folder of that name: a slash before it says that it is one.
            ("yesterday 18:00:30", &[("yesterday 18:00:30", None), ("yesterday 18:00", Some("30"))]),
            ("yesterday 18:00:/30", &[("yesterday 18:00", Some("/30"))]),
            ("2026-11-21:12:30", &[("2026-11-21", Some("12:30"))]),
            ("no moment!", &[("no moment!", None)]),
            ("a b:c", &[("a b:c", None)]),
            ("ä:1", &[("ä:1", None)]),
        ];
        for (text, expected) in table {
            assert_eq!(readings(text, &now()), *expected, "{text}");
        }
    }

    #[test]
    fn where_a_moment_is_not_found_the_next_reading_is_tried() {
        let readings = readings("yesterday 18:00:30", &now());
        let find = |there: &'static str| {
            move |when: &str| match when == there {
                true => Ok(when.to_owned()),
                false => Err(Failure::new(Kind::NotFound, format!("no moment {when}"))),
            }
        };
        let found =
            |there| first_found(&readings, find(there)).map(|(when, path)| (when, path.map(str::to_owned)));
        assert_eq!(found("yesterday 18:00:30"), Ok(("yesterday 18:00:30".to_owned(), None)));
        assert_eq!(found("yesterday 18:00"), Ok(("yesterday 18:00".to_owned(), Some("30".to_owned()))));
        assert_eq!(found("head").expect_err("neither").message, "no moment yesterday 18:00:30");
    }
}
