//! `comb retain`.

use clap::Args;
use fs_volume::retention::{Policy, PolicyError};
use serde::Serialize;

use crate::control::{Address, Request};
use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::retention;
use crate::state::{State, VolumeFolder};
use crate::when::check_tag;
use crate::{engine, output};

const LONG_HELP: &str = "\
A policy is a list of rules; a moment is kept if any of them keeps it.
  keep 5m for 3h, 1h for 2d      the newest moment of each 5 minutes, as far as it is at most 3 hours old, …
  keep all for 2d                every moment of the last 2 days
  keep tag release forever       snapshots with this tag
  keep snapshots for 90d         snapshots made by hand; without such a rule, all of them
  keep last 3                    the newest ones
Lengths are numbers with s, m, h, d, w, mo or y. The newest moment is always kept.";

/// Say which moments of a volume are kept, or show it; `comb prune` drops the others
#[derive(Debug, Args)]
#[command(after_long_help = LONG_HELP)]
pub struct RetainArgs {
    /// The volume; mounted or not
    name: VolumeName,

    /// The policy, as "keep 5m for 3h, 1h for 2d, 1d for 30d, 1w for 1y; keep tag release forever"; without it, the one in
    /// force is shown
    policy: Option<String>,

    /// Keep every moment again
    #[arg(long, conflicts_with = "policy")]
    none: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A policy and what it means now.
#[derive(Debug, Serialize)]
struct Report {
    policy: Option<String>,
    /// Moments that a prune would keep, and drop.
    keeps: usize,
    drops: usize,
}

/// Shows or sets the policy.
pub fn run(state: &State, args: &RetainArgs) -> Result<()> {
    let policy = args.policy.as_deref().map(parse).transpose()?;
    let volume = state.volume(&args.name)?;
    if policy.is_some() || args.none {
        set(state, &volume, policy.as_ref())?;
    }
    show(&volume, args.json)
}

fn parse(text: &str) -> Result<Policy> {
    let policy = Policy::parse(text).map_err(|error| Failure::new(Kind::Usage, pointed(text, &error)))?;
    // Else the rule would keep nothing, and nobody would learn that before it is gone.
    for tag in policy.tags() {
        check_tag(tag).map_err(|why| {
            let what = format!("no snapshot can have the tag \"{}\": {why}", output::escape(tag.as_bytes()));
            Failure::new(Kind::Usage, what)
        })?;
    }
    Ok(policy)
}

/// The line of a policy that is not understood, with a mark below the place.
fn pointed(text: &str, error: &PolicyError) -> String {
    let start = text[..error.at.start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let before = text[start..error.at.start].chars().count();
    let marks = text[error.at.clone()].trim_end_matches('\n').chars().count().max(1);
    format!("{error}\n  {}\n  {}{}", output::escape(line.as_bytes()), " ".repeat(before), "^".repeat(marks))
}

/// Through the daemon if the volume is mounted, else by opening it.
fn set(state: &State, volume: &VolumeFolder, policy: Option<&Policy>) -> Result<()> {
    let request = Request::Retain { policy: policy.map(ToString::to_string) };
    if Address::live(&volume.path).ask::<crate::report::SealReport>(&request)?.is_some() {
        return Ok(());
    }
    let lock = volume.lock()?;
    let opened = engine::open_to_write(state, volume, &lock)?;
    retention::set(&volume.name.to_string(), &opened, policy).map(drop)
}

fn show(volume: &VolumeFolder, json: bool) -> Result<()> {
    let history = engine::history(volume)?;
    let failed = |error| engine::fs_failure(&volume.name, &error);
    let policy = history.policy().map_err(failed)?;
    let report = match &policy {
        None => {
            let keeps = engine::seals(volume, &history)?.len();
            Report { policy: None, keeps, drops: 0 }
        }
        Some(policy) => {
            let plan = retention::plan_now(&history, &retention::pinned(volume)?, policy).map_err(failed)?;
            Report { policy: Some(policy.to_string()), keeps: plan.keep.len(), drops: plan.drop.len() }
        }
    };
    if json {
        return output::json(&report);
    }
    let Some(policy) = &report.policy else {
        output::line("keep all forever")?;
        output::note("no policy is set");
        return Ok(());
    };
    output::line(policy)?;
    output::note(&format!(
        "of {} moments this keeps {}; `comb prune {} --dry-run` says which",
        report.keeps + report.drops,
        report.keeps,
        volume.name
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_marked_where_it_is() {
        let said = |text: &str| parse(text).expect_err("refused").message;
        let lines: Vec<String> = said("keep 1h for 2d; keep weekly").lines().map(str::to_owned).collect();
        assert_eq!(lines[1..], ["  keep 1h for 2d; keep weekly", "                       ^^^^^^"]);
        let lines: Vec<String> = said("keep last 3\nkeep é for").lines().map(str::to_owned).collect();
        assert_eq!(lines[2], "       ^");
        assert!(said("keep 1h for").ends_with("             ^"));
    }

    #[test]
    fn a_rule_for_a_tag_that_nothing_can_have_is_refused() {
        for tag in ["ünï", "2026-01-01", "17"] {
            let failure = parse(&format!("keep 1h for 2d; keep tag {tag} forever")).expect_err("refused");
            assert!(
                failure.message.contains(&format!("no snapshot can have the tag \"{tag}\"")),
                "{failure}"
            );
            assert_eq!(failure.kind, Kind::Usage);
        }
        parse("keep tag release-1.0 forever").expect("a tag");
    }
}
