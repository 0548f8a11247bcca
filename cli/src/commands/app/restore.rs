//! `comb app restore`.

use std::path::PathBuf;

use clap::Args;
use orchestrator_api::wire::app::{App, Restore};
use orchestrator_api::wire::operation::Ordered;

use crate::commands::restore;
use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, find, moments};
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
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, name)?;
    match split_path(rest) {
        Some((when, path)) => files(state, &client, &app, when, path, args),
        None => {
            let into = args.new.clone().unwrap_or_else(|| format!("{}-restored", app.name));
            let name =
                into.parse().map_err(|error| Failure::new(Kind::Usage, format!("the new name {error}")))?;
            let to = moments::find(&moments::of(&client, &app)?.items, rest)?;
            let ordered: Ordered =
                client.post(&format!("/v1/apps/{}/restore", app.id), &Restore { to, into: name })?;
            args.order.finish(&client, ordered, &format!("making \"{into}\" of \"{}\"", app.name)).map(drop)
        }
    }
}

/// The moment and the path behind it. Times have colons too, each between digits.
fn split_path(rest: &str) -> Option<(&str, &str)> {
    let bytes = rest.as_bytes();
    let is_of_time = |at: usize| {
        at > 0 && bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
    };
    let at = rest.match_indices(':').map(|(at, _)| at).find(|at| !is_of_time(*at))?;
    Some((&rest[..at], &rest[at + 1..]))
}

fn files(
    state: &State,
    client: &Client,
    app: &App,
    when: &str,
    path: &str,
    args: &RestoreArgs,
) -> Result<()> {
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
    let to = moments::find(&moments::of(client, app)?.items, when)?;
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
    let when = match &to {
        orchestrator_api::wire::command::MomentName::Tag(tag) => tag.to_string(),
        orchestrator_api::wire::command::MomentName::Seals(seals) => {
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

    #[test]
    fn a_path_begins_behind_a_colon_that_is_not_of_a_time() {
        let table = [
            ("release", None),
            ("release:/a", Some(("release", "/a"))),
            ("2026-11-21T18:00:00Z", None),
            ("2026-11-21T18:00:00Z:/a:b", Some(("2026-11-21T18:00:00Z", "/a:b"))),
            ("yesterday 18:00", None),
            ("yesterday 18:00:a/1", Some(("yesterday 18:00", "a/1"))),
        ];
        for (text, expected) in table {
            assert_eq!(split_path(text), expected, "{text}");
        }
    }
}
