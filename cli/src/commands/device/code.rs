//! `comb device code`.

use clap::Args;
use orchestrator_api::code::JoinCode;
use orchestrator_api::wire::account::{MakeDeviceCode, NewDeviceCode};
use orchestrator_api::wire::value::Hidden;

use crate::failure::{Failure, Kind, Result};
use crate::hive::HiveArgs;
use crate::output;
use crate::state::State;

/// Make a code by which one machine joins, within 15 minutes, and print the command for it
///
/// The code says which hive it is and lets one machine in. It opens no data: the machine asks for the passphrase of the
/// key ring on its own terminal.
#[derive(Debug, Args)]
pub struct CodeArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// What the device is called [default: the name of its machine]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The device takes updates of comb by itself, when an owner signed them
    #[arg(long)]
    auto_update: bool,

    /// Print the command that runs the device in a container
    #[arg(long, conflicts_with = "json")]
    docker: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Makes a code.
pub fn run(state: &State, args: &CodeArgs) -> Result<()> {
    let login = args.hive.login(state)?;
    let client = args.hive.client(state)?;
    let name = args.name.as_ref().map(|name| name.parse()).transpose();
    let name = name.map_err(|error| Failure::new(Kind::Usage, format!("the device's name {error}")))?;
    let mut made: NewDeviceCode =
        client.post_once("/v1/device-codes", &MakeDeviceCode { name, auto_update: args.auto_update })?;
    // A device trusts the key in its code, and nothing else says which hive it joins.
    let code = JoinCode::parse(made.code.reveal())
        .map_err(|error| Failure::new(Kind::Foreign, format!("the hive's answer is no code: {error}")))?;
    if code.hive != login.key.0 {
        return Err(Failure::new(
            Kind::Foreign,
            format!("the code is not of the hive that you logged in at: its key is not {}", login.key),
        )
        .hint("somebody may answer in the hive's place; if it was made anew, `comb account logout --forget`, then log in"));
    }
    // The hive does not know under which address it is reached.
    for line in [&mut made.command, &mut made.docker] {
        let filled = line.reveal().replacen(" HIVE ", &format!(" {} ", login.hive), 1);
        *line = Hidden::new(filled).map_err(|error| Failure::new(Kind::Foreign, error.to_string()))?;
    }
    if args.json {
        return output::json(&made);
    }
    output::line(if args.docker { made.docker.reveal() } else { made.command.reveal() })?;
    output::note(&format!(
        "good once, until {}; run it as root on the machine that is to join{}",
        output::time_local(made.ends.0.saturating_mul(1_000_000)),
        if args.docker { "" } else { " (--docker prints the command for a container)" }
    ));
    Ok(())
}
