//! `comb app update`.

use std::path::PathBuf;

use clap::Args;
use orchestrator_api::wire::app::{App, Update};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::Number;

use super::authoring::{self, AuthorArgs};
use crate::failure::Result;
use crate::hive::author::Wishes;
use crate::hive::compose::Images;
use crate::hive::folder::AppFolder;
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, author, find, ring, sealed};
use crate::output;
use crate::passphrase::PassphraseArgs;
use crate::state::State;

/// Update an app: from its folder as it is now, or with newer images of the same tags
///
/// The device takes a snapshot of all its volumes first. If the new revision does not get well, the old one is started
/// again with the data of that snapshot. Options, generated passwords and permissions stay as they are, but for what is
/// given here; what the new file asks for beyond them is asked of you.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The app
    name: String,

    /// Its folder, or its compose file; without it the signed files stay, and tags are looked up anew
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Look tags up anew also where a folder is given and the images are on this machine
    #[arg(long)]
    pull: bool,

    /// Sign and send it also where nothing changed
    #[arg(long)]
    always: bool,

    #[command(flatten)]
    author: AuthorArgs,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// Updates an app.
pub fn run(state: &State, args: &UpdateArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let images = if args.dir.is_none() || args.pull { Images::Anew } else { Images::Here };
    let wishes = args.author.wishes(state, &client, images)?;
    let folder = args.dir.as_deref().map(AppFolder::read).transpose()?;
    let updated = update(state, &client, &app, folder, &wishes, args.always, &args.passphrase, &args.order)?;
    if !updated {
        output::note(&format!("nothing changed: \"{}\" stays at revision {}", app.name, app.revision.0));
    }
    Ok(())
}

/// Signs what is there now and has it started, if it differs from what runs; says whether it does.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a thing of its own, and both callers have all of them"
)]
pub fn update(
    state: &State,
    client: &Client,
    app: &App,
    folder: Option<AppFolder>,
    wishes: &Wishes,
    always: bool,
    passphrase: &PassphraseArgs,
    order: &OrderArgs,
) -> Result<bool> {
    let opened = ring::open(state, client, passphrase)?;
    let before = sealed::fetch(client, opened.ring.owner(), app)?;
    let folder = folder.unwrap_or_else(|| AppFolder::of_package(&before.1.compose, &before.1.files));
    let draft = author::draft(opened.ring.account(), &folder, wishes, Some(&before))?;
    if draft.is_same(&before) && !always {
        return Ok(false);
    }
    authoring::tell_only_here(&draft);
    let revision = authoring::post(client, opened.ring.owner(), &draft, app.revision.0 + 1)?;
    drop(opened);
    let ordered: Ordered =
        client.post(&format!("/v1/apps/{}/update", app.id), &Update { revision: Number(revision) })?;
    order.finish(client, ordered, &format!("updating \"{}\" to revision {revision}", app.name))?;
    Ok(true)
}
