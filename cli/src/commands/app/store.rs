//! `comb app store`.

use clap::Args;
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::account::Store;
use orchestrator_api::wire::app::{App, ChangeApp, Plain, Wanted};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::people::{Me, Role};
use orchestrator_api::wire::value::List;
use orchestrator_device::daemon::files::Folder;

use super::{add, eject};
use crate::device::Commands;
use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, find};
use crate::state::State;
use crate::{output, progress, stores};

/// Bring an app's data to another store, or keep a copy of it in one more
///
/// The app is stopped, its data is brought there, the store decides from then on who writes it, and the app is started again: any
/// device that reaches the store may take it over then. That is for an app whose data goes to a folder of one machine, which no
/// other device ever saw, and is done on that machine. With --copy the store that decides stays, and the other one gets all of it
/// from the app's next start on.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The app
    name: String,

    /// The store, a URL or an id; `comb account store add` makes one known
    store: String,

    /// Keep a copy there, and leave it to the present store who writes
    #[arg(long)]
    copy: bool,

    #[command(flatten)]
    order: OrderArgs,
}

/// Changes where an app's data goes.
pub fn run(state: &State, args: &StoreArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let (app, store) = (find::app(&client, &args.name)?, find::store(&client, &args.store)?);
    match args.copy {
        true => copy(&client, &app, &store, &args.order),
        false => decide(state, &client, &app, &store, &args.order),
    }
}

/// The store that decides who writes an app's data.
pub fn deciding<'a>(app: &App, known: &'a [Store]) -> Option<&'a Store> {
    app.stores.first().and_then(|first| known.iter().find(|store| store.id == *first))
}

/// Has a store get all of an app's data, too.
pub fn copy(client: &Client, app: &App, store: &Store, order: &OrderArgs) -> Result<()> {
    if app.stores.contains(&store.id) {
        output::note(&format!("the data of \"{}\" goes to {} already", app.name, store.url));
        return Ok(());
    }
    let mut all = app.stores.clone();
    all.push(store.id);
    change(client, app, all, order)?;
    if app.wanted == Wanted::Running {
        output::note(&format!(
            "it begins with the next start: `comb app stop {0}`, `comb app start {0}`",
            app.name
        ));
    }
    Ok(())
}

/// Brings an app's data to a store that decides from then on who writes it.
pub fn decide(state: &State, client: &Client, app: &App, store: &Store, order: &OrderArgs) -> Result<()> {
    if app.stores.first() == Some(&store.id) {
        output::note(&format!("{} decides already who writes the data of \"{}\"", store.url, app.name));
        return Ok(());
    }
    let known = find::stores(client)?;
    refuse(app, deciding(app, &known), store)?;
    let me: Me = client.get("/v1/me")?;
    is_owners(app.name.as_str(), me.role)?;
    let volumes = eject::volumes_here(state, app)?;
    let commands = Commands::new(state.clone(), Folder::of(state.root()).0);
    stores::block_on(commands.reach(&store.url))?;

    let runs = app.wanted == Wanted::Running;
    // What comes next needs their end.
    let order = OrderArgs { no_wait: false, json: false, ..order.clone() };
    if runs {
        let ordered: Ordered = client.post(&format!("/v1/apps/{}/stop", app.id), &Plain {})?;
        order.finish(client, ordered, &format!("stopping \"{}\"", app.name))?;
    }
    let bar = progress::waiting("bringing the data to the store");
    let moved = volumes
        .iter()
        .try_for_each(|(_, volume)| stores::block_on(commands.move_to(volume.name.as_str(), &store.url)));
    bar.finish_and_clear();
    let rest = app.stores.iter().skip(1).copied().filter(|id| *id != store.id);
    let changed =
        moved.and_then(|()| change(client, app, [store.id].into_iter().chain(rest).collect(), &order));
    // Here it runs whatever came of it: each volume knows by itself where it goes.
    if runs {
        let ordered: Ordered = client.post(&format!("/v1/apps/{}/start", app.id), &Plain {})?;
        order.finish(client, ordered, &format!("starting \"{}\"", app.name))?;
    }
    changed?;
    output::note(&format!(
        "the data of \"{}\" is in {}, which decides from now on who writes it; what lies in the store before stays there",
        app.name, store.url
    ));
    Ok(())
}

/// What cannot be, before anything is stopped.
fn refuse(app: &App, before: Option<&Store>, store: &Store) -> Result<()> {
    let copy = format!("`comb app store {} {} --copy` keeps a copy there", app.name, store.url);
    if let Some(before) = before.filter(|before| !before.is_of_one_device()) {
        return Err(Failure::new(
            Kind::InTheWay,
            format!(
                "{} decides who writes the data of \"{}\", and other devices may have it from there",
                before.url, app.name
            ),
        )
        .hint(copy));
    }
    if !add::decides(&store.url) {
        return Err(Failure::new(
            Kind::Foreign,
            format!("{} cannot decide who writes the data of an app", store.url),
        )
        .hint(copy));
    }
    if store.is_of_one_device() && store.device.is_some() && store.device != app.device {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("{} is a folder of another device than the one that has \"{}\"", store.url, app.name),
        ));
    }
    Ok(())
}

/// The hive takes the change from an owner only, and is told last: so it is seen before anything is stopped.
fn is_owners(app: &str, role: Role) -> Result<()> {
    if role >= Role::Owner {
        return Ok(());
    }
    let text =
        format!("where the data of \"{app}\" goes is changed by an owner, and you are {}", role.text());
    Err(Failure::new(Kind::NotPermitted, text)
        .hint("nothing was stopped; `comb login` as an owner on this machine, then the same again"))
}

fn change(client: &Client, app: &App, stores: Vec<Uuid>, order: &OrderArgs) -> Result<()> {
    let stores = List::try_from(stores).map_err(|_| {
        Failure::new(Kind::InTheWay, format!("\"{}\" has as many stores as an app can have", app.name))
    })?;
    let change = ChangeApp { stores: Some(stores), ..ChangeApp::default() };
    let ordered: Ordered = client.patch(&format!("/v1/apps/{}", app.id), &change)?;
    order.finish(client, ordered, &format!("stores of \"{}\"", app.name)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_change_where_data_goes_is_told_before_anything_is_stopped() {
        for role in [Role::Viewer, Role::Operator] {
            let failure = is_owners("photos", role).expect_err("an owner's");
            assert_eq!(failure.kind, Kind::NotPermitted);
            assert!(failure.message.contains(role.text()), "{}", failure.message);
        }
        is_owners("photos", Role::Owner).expect("may");
    }
}
