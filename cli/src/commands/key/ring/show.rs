//! `comb key ring show`.

use clap::Args;
use fs_crypto::EntryKey;
use serde::Serialize;

use crate::failure::Result;
use crate::output::{self, Align, Table};
use crate::passphrase::PassphraseArgs;
use crate::ring;
use crate::state::State;

/// Show what is in the key ring: names and public keys, no secrets
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// The ring, as `--json` shows it.
#[derive(Debug, Serialize)]
struct RingReport {
    /// The account's pseudonym.
    account: String,
    /// The number of the newest version.
    number: u64,
    /// What that version is called in a store.
    object: String,
    /// When it was made, RFC 3339.
    time: String,
    /// When the recovery kit was made that opens it, RFC 3339.
    kit: Option<String>,
    /// The public half of the owner's signing key.
    owner: String,
    /// The keys in it.
    keys: Vec<KeyReport>,
    /// The URLs of its stores.
    stores: Vec<String>,
    /// Those of which it has credentials.
    credentials: Vec<String>,
}

/// A key of the ring.
#[derive(Debug, Serialize)]
struct KeyReport {
    name: String,
    public_key: String,
    /// `volume` or `read`.
    kind: &'static str,
    added: String,
    #[serde(skip)]
    added_local: String,
}

/// Shows the ring.
pub fn run(state: &State, args: &ShowArgs) -> Result<()> {
    let ring = ring::open(state, &args.passphrase)?.ring;
    let report = RingReport {
        account: ring.account().to_hex(),
        number: ring.number().0,
        object: ring.object_name(),
        time: output::time_utc(ring.time().0),
        kit: ring.kit_time().map(|time| output::time_utc(time.0)),
        owner: ring.owner().public().iter().map(|byte| format!("{byte:02x}")).collect(),
        keys: ring
            .entries()
            .map(|entry| KeyReport {
                name: entry.name.clone(),
                public_key: entry.volume.to_hex(),
                kind: match entry.key {
                    EntryKey::Volume(_) => "volume",
                    EntryKey::Read(_) => "read",
                },
                added: output::time_utc(entry.added.0),
                added_local: output::time_local(entry.added.0),
            })
            .collect(),
        credentials: ring
            .stores()
            .filter(|(_, credentials)| !credentials.is_empty())
            .map(|(url, _)| url.to_owned())
            .collect(),
        stores: ring.stores().map(|(url, _)| url.to_owned()).collect(),
    };
    if args.json {
        return output::json(&report);
    }
    let kit = ring
        .kit_time()
        .map_or("none: `comb key ring kit` makes one".into(), |time| output::time_local(time.0));
    for (what, value) in [
        ("account", report.account),
        ("version", format!("{} of {}", report.number, output::time_local(ring.time().0))),
        ("kit", kit),
    ] {
        output::line(&format!("{what:<8} {value}"))?;
    }
    for store in report.stores {
        let with = if report.credentials.contains(&store) { ", with its credentials" } else { "" };
        output::line(&format!("{:<8} {store}{with}", "store"))?;
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("KEY", Align::Left),
        ("PUBLIC KEY", Align::Left),
        ("ADDED", Align::Left),
    ]);
    for key in report.keys {
        table.row(vec![key.name, key.kind.into(), key.public_key, key.added_local]);
    }
    table.print()
}
