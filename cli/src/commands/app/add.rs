//! `comb app add`.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::placement::Policy;
use orchestrator_api::wire::account::Store;
use orchestrator_api::wire::app::{App, MakeApp, Wanted};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::report::Phase;
use orchestrator_api::wire::value::{List, Number};

use super::authoring::{self, AuthorArgs};
use crate::failure::{Failure, Kind, Result};
use crate::hive::compose::Images;
use crate::hive::folder::AppFolder;
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, author, find, ring};
use crate::output;
use crate::passphrase::PassphraseArgs;
use crate::state::State;

/// How long an app's address is waited for, which comes with its device's next report.
const REPORT_WAIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Add an app: check its compose file, sign it, and start it on a device
///
/// DIR is an ordinary compose project: a folder with a compose.yaml, or the file. What it may not say is told with file
/// and line, before anything is sent; what it asks for beyond that is asked of you in words (or granted with --allow).
/// Options without a default are asked for, passwords that nobody gives are generated. The whole goes to the hive signed
/// and sealed under the key ring: the hive can place it, and read none of it. Named volumes and relative folders become
/// volumes of Comb, made at the first start.
///
/// Images are named by digest, so Docker is needed here: on a device, say. What the file says how to build is built now,
/// here; such an image is in no registry, so the app starts only where it is.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The app's folder, or its compose file
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// What the app is called [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Its name in the net [default: what x-comb says, else two words below the hive's domain]
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,

    /// The device to run it on [default: the hive chooses]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    #[command(flatten)]
    keeping: KeepingArgs,

    /// Add it and do not start it
    #[arg(long)]
    stopped: bool,

    #[command(flatten)]
    author: AuthorArgs,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// What is chosen of a new app beside its package: who moves it, and where its data goes.
#[derive(Debug, Args)]
pub struct KeepingArgs {
    /// Whether it moves by itself when its device is lost
    #[arg(long, value_enum, default_value_t = PolicyArg::Manual)]
    pub policy: PolicyArg,

    /// A store for its volumes, by URL or id; may be given several times, and the first decides who writes
    /// [default: those of the account]
    #[arg(long, value_name = "STORE")]
    pub store: Vec<String>,
}

/// Who moves an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// A person moves it; a home without net stops nothing
    Manual,
    /// It moves by itself when its device is lost; it stops where its device hears nothing of the hive
    Auto,
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Policy {
        match policy {
            PolicyArg::Manual => Policy::Manual,
            PolicyArg::Auto => Policy::Auto,
        }
    }
}

/// Adds an app.
pub fn run(state: &State, args: &AddArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let folder = AppFolder::read(&args.dir)?;
    let wishes = author::Wishes {
        name: args.name.clone(),
        domain: args.domain.clone(),
        ..args.author.wishes(state, &client, Images::Here)?
    };
    let device = match &args.device {
        Some(name) => Some(find::device(&client, name)?.id),
        None => None,
    };
    let adding = Adding {
        folder,
        wishes,
        device,
        policy: args.keeping.policy.into(),
        // What would be refused at the end is told before anybody is asked anything.
        stores: stores(&client, &args.keeping.store, device)?,
        start: !args.stopped,
    };
    adding.run(state, &client, &args.passphrase, &args.order)
}

/// An app that is being added.
pub struct Adding {
    /// Its folder.
    pub folder: AppFolder,
    /// What was chosen.
    pub wishes: author::Wishes,
    /// Where it is to run; the hive chooses if nothing is said.
    pub device: Option<DeviceId>,
    /// Who moves it.
    pub policy: Policy,
    /// Where its data goes; the first decides who writes.
    pub stores: Vec<Store>,
    /// Whether it is started.
    pub start: bool,
}

impl Adding {
    /// Signs, sends, and watches it start.
    pub fn run(
        &self,
        state: &State,
        client: &Client,
        passphrase: &PassphraseArgs,
        order: &OrderArgs,
    ) -> Result<()> {
        if let Some(name) = self.wishes.name.clone().or_else(|| self.folder.name()) {
            refuse_second(client, &name)?;
        }
        let opened = ring::open(state, client, passphrase)?;
        let draft = author::draft(opened.ring.account(), &self.folder, &self.wishes, None)?;
        authoring::tell_only_here(&draft);
        let revision = authoring::post(client, opened.ring.owner(), &draft, 1)?;
        // Nobody needs the ring while the app starts, and its device does.
        drop(opened);

        let name = draft.name().to_owned();
        let make = MakeApp {
            app: AppId(draft.app().0),
            revision: Number(revision),
            device: self.device,
            policy: self.policy,
            stores: List::cut(self.stores.iter().map(|store| store.id)),
            start: self.start,
        };
        let ordered: Ordered = client.post("/v1/apps", &make)?;
        if !order.json {
            output::note(&format!("app \"{name}\" is added, revision {revision}"));
        }
        let what = if self.start { "starting" } else { "adding" };
        let watched = order.finish(client, ordered, &format!("{what} \"{name}\""))?;
        match watched.waited && !order.json {
            true => tell_started(client, make.app),
            false => Ok(()),
        }
    }
}

/// Where an app is to be seen that was just started: its device's next report says so.
pub fn tell_started(client: &Client, app: AppId) -> Result<()> {
    let begun = Instant::now();
    loop {
        let app: App = client.get(&format!("/v1/apps/{app}"))?;
        let runs = app.report.as_ref().is_some_and(|aged| aged.report.phase == Phase::Running);
        if runs || app.wanted == Wanted::Stopped || begun.elapsed() > REPORT_WAIT {
            return tell(&app);
        }
        sleep(LOOK_EVERY);
    }
}

/// Where the app is to be seen.
pub fn tell(app: &App) -> Result<()> {
    let address = app.report.as_ref().and_then(|aged| aged.report.address.as_ref().map(ToString::to_string));
    match address.or_else(|| app.address.clone()) {
        Some(address) => output::line(&output::escape(address.as_bytes())),
        None => Ok(()),
    }
}

/// Refuses a name that an app has already.
pub fn refuse_second(client: &Client, name: &str) -> Result<()> {
    if find::apps(client)?.iter().any(|app| app.name == name) {
        return Err(Failure::new(Kind::InTheWay, format!("there is an app \"{name}\" already")).hint(
            format!(
                "`comb app update {name} DIR` gives it what the folder has now; --name takes another name"
            ),
        ));
    }
    Ok(())
}

/// The stores of a new app: those that were named, else all of the account that its device reaches; one that can decide who
/// writes comes first.
pub fn stores(client: &Client, named: &[String], device: Option<DeviceId>) -> Result<Vec<Store>> {
    if !named.is_empty() {
        return named.iter().map(|name| find::store(client, name)).collect();
    }
    let stores = reached(client, device)?;
    if stores.is_empty() {
        return Err(Failure::new(Kind::NotFound, "the account has no store that the app's data could go to")
            .hint("`comb account store add URL` adds one: s3://…, or file:///mnt/nas/comb --shared"));
    }
    Ok(stores)
}

/// The stores of the account that a device reaches, the best to decide who writes first.
pub fn reached(client: &Client, device: Option<DeviceId>) -> Result<Vec<Store>> {
    let mut stores = find::stores(client)?;
    stores
        .retain(|store| store.shared || store.device.is_none() || store.device == device || device.is_none());
    // A store that only keeps copies never decides.
    stores.sort_by_key(|store| (!decides(&store.url), store.device.is_some()));
    Ok(stores)
}

/// Whether a store can say who writes.
pub fn decides(url: &str) -> bool {
    ["s3://", "gs://", "az://", "file://"].iter().any(|kind| url.starts_with(kind))
}
