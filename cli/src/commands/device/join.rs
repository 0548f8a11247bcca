//! `comb device join`.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use fs_crypto::Ring;
use orchestrator_api::code::JoinCode;
use orchestrator_device::daemon::enrol::{self, EnrolError, Enrolled, JoinOf};
use orchestrator_device::daemon::files::Folder;
use orchestrator_device::doors::hive::HiveError;

use crate::commands::key::ring::kit;
use crate::failure::{Context, Failure, Kind, Result};
use crate::state::State;
use crate::{keys, output, passphrase, ring, stores};

/// Make this machine a device of a hive
///
/// The code comes from `comb device code` and names the hive's key, so nobody else can take its place. The passphrase of the
/// key ring is asked for here and never travels; where the account has no key ring yet, it is made here, and a terminal
/// shows its recovery kit, once. Then `comb device run` runs the device, or `comb device install-unit` has systemd do so.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Where the hive is, as in https://hive.example.org
    #[arg(value_name = "HIVE")]
    hive: String,

    /// The code that the hive made: valid once, for 15 minutes
    #[arg(long, value_name = "C")]
    code: String,

    /// What the device is called [default: this machine's name]
    #[arg(long, value_name = "N")]
    name: Option<String>,

    /// Take the key ring's passphrase from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    passphrase_file: Option<PathBuf>,

    /// Let the hive install apps on this device by itself: whoever controls the hive can then run programs in containers
    /// here, without access to the data of other apps
    #[arg(long)]
    accept_authoring: bool,

    /// Ask for no passphrase now: the device starts no app before `comb device unlock`
    #[arg(long, conflicts_with = "passphrase_file")]
    locked: bool,
}

/// Joins.
pub fn run(state: &State, args: &JoinArgs) -> Result<()> {
    state.prepare()?;
    if Folder::of(state.root()).hive().context("the device's folder")?.is_some() {
        return Err(Failure::new(Kind::InTheWay, "this machine is a device of a hive already")
            .hint("`comb device status` shows which; another --state makes another device"));
    }
    let enrolled = enrol(state, &args.hive, &args.code, args.name.as_deref(), args.accept_authoring)?;
    if args.locked {
        tell_locked();
        return Ok(());
    }
    open_ring(state, args, &enrolled)?;
    output::note("`comb device run` runs it; `comb device install-unit` has systemd do so");
    Ok(())
}

/// Joins, and leaves the device locked: for one that runs where nobody can be asked.
pub fn locked(
    state: &State,
    hive: &str,
    code: &str,
    name: Option<&str>,
    accepts_authoring: bool,
) -> Result<()> {
    enrol(state, hive, code, name, accepts_authoring)?;
    tell_locked();
    Ok(())
}

fn tell_locked() {
    output::note("it is locked: `comb device unlock` asks for the passphrase; before that it starts no app");
}

/// Makes this machine a device, without a word about its ring.
fn enrol(
    state: &State,
    hive: &str,
    code: &str,
    name: Option<&str>,
    accepts_authoring: bool,
) -> Result<Enrolled> {
    let code = JoinCode::parse(code).map_err(|error| {
        Failure::new(Kind::Usage, format!("the code is not one: {error}"))
            .hint("`comb device code` on a machine that is logged in makes one")
    })?;
    let name = name.map_or_else(host_name, str::to_owned);
    let run: [u8; 16] = keys::chance()?;
    let of = JoinOf {
        state: state.root(),
        url: hive,
        code: &code,
        name: &name,
        version: env!("CARGO_PKG_VERSION"),
        accepts_authoring,
        seed: *keys::random()?,
        run,
    };
    let enrolled = stores::block_on(async { enrol::join(of).await.map_err(|error| failure(hive, &error)) })?;
    output::line(&format!("this machine is device \"{}\" of {hive}", enrolled.joined.name))?;
    if accepts_authoring {
        output::note(
            "The hive may install apps on this device by itself. Whoever controls the hive can then run programs in containers here, \
             without access to the data of other apps.",
        );
    }
    Ok(enrolled)
}

/// Opens the account's ring here, or makes it.
fn open_ring(state: &State, args: &JoinArgs, enrolled: &Enrolled) -> Result<()> {
    let hive = |error: EnrolError| failure(&args.hive, &error);
    let object = stores::block_on(async { enrolled.ring().await.map_err(hive) })?;
    match object {
        Some(object) => {
            let asked = passphrase::PassphraseArgs::of(args.passphrase_file.clone());
            let ring = asked.open("the key ring", |typed| Ring::open_with_passphrase(&object, typed))?;
            check_owner(&ring, enrolled)?;
            ring::adopt(state, ring, &object)
        }
        None => {
            let mut page = None;
            let is_new = !ring::exists(state);
            if is_new {
                let mut opened = ring::make(state, || passphrase::make(args.passphrase_file.as_deref()))?;
                // Only a person may see it: where no terminal is, what is printed lies in somebody's log.
                if std::io::stdout().is_terminal() {
                    page = Some(kit::new_page(&mut opened, state)?);
                }
                opened.save()?;
            }
            let opened = ring::open_here(state)?;
            let object = opened.object()?;
            stores::block_on(async { enrolled.put_ring(&opened.ring, &object).await.map_err(hive) })?;
            if let Some(page) = page {
                output::line("")?;
                output::line(page.trim_end())?;
                output::line("")?;
                output::note(
                    "the account's key ring is made, and this is its recovery kit, shown once: write it down or print it",
                );
            } else if is_new {
                output::note(
                    "the account's key ring is made. If you forget the passphrase, only a recovery kit opens it: `comb account kit --out FILE` makes one to print",
                );
            }
            Ok(())
        }
    }
}

/// A ring that opens is the passphrase's; the hive's word of whose it is must fit.
fn check_owner(ring: &Ring, enrolled: &Enrolled) -> Result<()> {
    match enrolled.joined.owner {
        Some(owner) if owner.0 != ring.owner().public() => Err(Failure::new(
            Kind::Foreign,
            "the hive says that another key is the owner's than the one in the key ring of your passphrase",
        )
        .hint("is this the hive that you expect?")),
        _ => Ok(()),
    }
}

fn failure(hive: &str, error: &EnrolError) -> Failure {
    let told = |kind, hint: &str| Failure::new(kind, format!("{hive}: {error}")).hint(hint);
    match error {
        EnrolError::Hive(HiveError::Away(_)) => {
            told(Kind::Unreachable, "is the URL right, and the hive running?")
        }
        EnrolError::Hive(HiveError::Foreign) => {
            told(Kind::Foreign, "this is not the hive that made the code, or something stands between")
        }
        EnrolError::Hive(HiveError::Refused { code, .. }) => match code.as_str() {
            "code_wrong" | "code_used" | "code_expired" => told(
                Kind::NotPermitted,
                "`comb device code` on a machine that is logged in makes another one",
            ),
            "exists" => told(Kind::InTheWay, "--name gives it another name; the code is still good"),
            _ => told(Kind::NotPermitted, "the hive's log says more"),
        },
        EnrolError::Hive(HiveError::Form) => told(Kind::Foreign, "is this comb as new as the hive?"),
        EnrolError::Disk(error) => Failure::io("the device's folder", error),
        EnrolError::Name(_) => told(Kind::Usage, "--name gives another one"),
    }
}

/// What this machine calls itself.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(64).collect();
    if name.is_empty() { "device".to_owned() } else { name }
}
