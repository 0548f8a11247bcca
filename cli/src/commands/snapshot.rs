//! `comb snapshot`.

use std::io::Read;

use clap::Args;
use fs_format::manifest::{MESSAGE_BYTES_MAX, TAGS_MAX};

use super::daemon::new_label;
use crate::control::{Address, Request};
use crate::failure::{Context, Failure, Kind, Result};
use crate::name::VolumeName;
use crate::report::SealReport;
use crate::state::{State, VolumeFolder};
use crate::{engine, output, progress, when};

/// Keep this moment of a volume under a uuid, with a message and tags
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The volume; mounted or not
    name: VolumeName,

    /// What to say of it
    #[arg(short, long, value_name = "TEXT", default_value = "", value_parser = parse_message)]
    message: String,

    /// Read that from standard input
    #[arg(long, conflicts_with = "message")]
    message_stdin: bool,

    /// A word to find it by; may be given several times
    #[arg(long = "tag", value_name = "TAG", value_parser = parse_tag)]
    tags: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_message(text: &str) -> std::result::Result<String, String> {
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(format!("a message has at most {MESSAGE_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

fn parse_tag(text: &str) -> std::result::Result<String, String> {
    when::check_tag(text).map(|()| text.to_owned())
}

/// A message on standard input, to its end; without the line break that an editor or `echo` puts there.
pub(super) fn piped() -> Result<String> {
    let mut bytes = Vec::new();
    let mut input = std::io::stdin().lock().take(MESSAGE_BYTES_MAX as u64 + 1);
    input.read_to_end(&mut bytes).context("standard input")?;
    let usage = |text: String| Failure::new(Kind::Usage, text);
    let text = String::from_utf8(bytes).map_err(|_| usage("a message is UTF-8".to_owned()))?;
    parse_message(text.trim_end_matches(['\n', '\r'])).map_err(usage)
}

/// Takes a snapshot.
pub fn run(state: &State, args: SnapshotArgs) -> Result<()> {
    if args.tags.len() > TAGS_MAX {
        return Err(Failure::new(Kind::Usage, format!("a snapshot has at most {TAGS_MAX} tags")));
    }
    let message = if args.message_stdin { piped()? } else { args.message };
    let volume = state.volume(&args.name)?;
    let bar = progress::waiting("sealing");
    let seal = take(state, &volume, message, args.tags)?;
    bar.finish_and_clear();
    let uuid = seal.snapshot.as_ref().map(|label| label.uuid.clone()).unwrap_or_default();
    volume.link_snapshot(&uuid)?;
    if args.json {
        return output::json(&seal);
    }
    output::line(&uuid)?;
    output::note(&format!("snapshot {} of \"{}\": {} files", seal.seq, volume.name, seal.files));
    Ok(())
}

/// Through the daemon if the volume is mounted, else by opening it.
pub(super) fn take(
    state: &State,
    volume: &VolumeFolder,
    message: String,
    tags: Vec<String>,
) -> Result<SealReport> {
    let request = Request::Snapshot { message: message.clone(), tags: tags.clone() };
    if let Some(seal) = Address::live(&volume.path).ask(&request)? {
        return Ok(seal);
    }
    let lock = volume.lock()?;
    let opened = engine::open_to_write(state, volume, &lock)?;
    let seal = opened
        .seal_timed(Some(new_label(message, tags)))
        .map_err(|error| engine::fs_failure(&volume.name, &error))?;
    Ok(SealReport::from(&seal))
}
