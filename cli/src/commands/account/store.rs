//! `comb account store`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use orchestrator_api::ids::DeviceId;
use orchestrator_api::wire::account::{Made, MakeStore, Store};

use crate::commands::key::ring::store as ring_store;
use crate::failure::{Failure, Kind, Result};
use crate::hive::{Client, HiveArgs, find, ring};
use crate::output::{self, Align, Table};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{ring as local, stores};

/// The stores that the account's apps are replicated to
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: Option<StoreCommand>,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    Add(AddArgs),
    /// Take a store out of the account; an app that uses it keeps it
    Remove {
        /// Its URL or id
        store: String,
        #[command(flatten)]
        hive: HiveArgs,
    },
}

/// Add a store to the account
///
/// The hive learns where it is and never the credentials: those go into the key ring, in which they travel encrypted to
/// the account's devices.
#[derive(Debug, Args)]
struct AddArgs {
    /// Where it is, as `comb store add` takes it: s3://bucket/folder?endpoint=https://… or file:///mnt/nas/comb
    #[arg(value_name = "URL")]
    url: String,

    /// A file with what this kind of store reads: for s3:// an AWS credentials file with one profile
    #[arg(long, value_name = "F")]
    credentials_file: Option<PathBuf>,

    /// Of a folder: each device sees the same one under this path, as on a network share
    #[arg(long)]
    shared: bool,

    /// Of a folder: the device that has it, and no other
    #[arg(long, value_name = "DEVICE", conflicts_with = "shared")]
    device: Option<String>,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    hive: HiveArgs,
}

/// Lists stores, adds or removes one.
pub fn run(state: &State, args: &StoreArgs) -> Result<()> {
    match &args.command {
        None => list(state, args),
        Some(StoreCommand::Add(args)) => add(state, args),
        Some(StoreCommand::Remove { store, hive }) => {
            let client = hive.client(state)?;
            let store = find::store(&client, store)?;
            client.delete(&format!("/v1/stores/{}", store.id))?;
            output::note(&format!(
                "{} is no store of the account any more; what lies there stays",
                store.url
            ));
            Ok(())
        }
    }
}

fn list(state: &State, args: &StoreArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let stores = find::stores(&client)?;
    if args.json {
        return output::json(&stores);
    }
    let names = find::device_names(&find::devices(&client)?);
    let mut table = Table::new(&[("STORE", Align::Left), ("REACHED BY", Align::Left), ("ID", Align::Left)]);
    for Store { id, url, device, .. } in stores {
        let by = device
            .map_or_else(|| "every device".to_owned(), |device| crate::hive::words::named(&names, &device));
        table.row(vec![output::escape(url.as_bytes()), output::escape(by.as_bytes()), id.to_string()]);
    }
    table.print()
}

/// Puts what opens a store into the key ring, here and at the hive.
pub fn keep_credentials(
    state: &State,
    client: &Client,
    passphrase: &PassphraseArgs,
    url: &str,
    file: &Path,
) -> Result<()> {
    let credentials = ring_store::read(file, url)?;
    let mut opened = ring::open(state, client, passphrase)?;
    opened.ring.add_store(url, credentials).map_err(|error| local::failure("the key ring", &error))?;
    opened.save()?;
    ring::publish(state, &mut opened, client)
}

/// A store as the hive is to know it: a folder is the same one on each device, or one device's.
pub fn made(url: &str, shared: bool, device: Option<DeviceId>) -> Result<MakeStore> {
    let is_folder = is_folder(url);
    if is_folder && !shared && device.is_none() {
        return Err(Failure::new(Kind::Usage, format!("{url} is a folder of one machine: say whose"))
            .hint("--device DEVICE names it; --shared says that each device sees the same folder there"));
    }
    if !is_folder && (shared || device.is_some()) {
        return Err(Failure::new(
            Kind::Usage,
            format!("{url} is no folder: only a folder is shared, or one device's"),
        ));
    }
    let url = url.parse().map_err(|error| Failure::new(Kind::Usage, format!("the URL {error}")))?;
    Ok(MakeStore { url, shared, device })
}

/// Whether a store is a folder, which other machines may not see.
pub fn is_folder(url: &str) -> bool {
    url.starts_with("file://")
}

fn add(state: &State, args: &AddArgs) -> Result<()> {
    let url = stores::parse_url(&args.url)?;
    stores::refuse_own(state, &url)?;
    let client = args.hive.client(state)?;
    let device = match &args.device {
        Some(name) => Some(find::device(&client, name)?.id),
        None => None,
    };
    let make = made(&url, args.shared, device)?;
    if let Some(file) = &args.credentials_file {
        keep_credentials(state, &client, &args.passphrase, &url, file)?;
    }
    let Made { id } = client.post("/v1/stores", &make)?;
    output::note(&format!("the account has the store {}, {id}", args.url));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_shared_or_one_devices_and_nothing_else_is() {
        let device = Some(DeviceId([7; 16]));
        for (url, shared, device, is_made) in [
            ("file:///mnt/nas/comb", true, None, true),
            ("file:///mnt/nas/comb", false, device, true),
            ("file:///mnt/nas/comb", false, None, false),
            ("s3://bucket/folder", false, None, true),
            ("s3://bucket/folder", true, None, false),
            ("s3://bucket/folder", false, device, false),
        ] {
            assert_eq!(made(url, shared, device).is_ok(), is_made, "{url} {shared} {device:?}");
        }
    }
}
