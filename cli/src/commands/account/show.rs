//! `comb account show`.

use clap::Args;
use orchestrator_api::wire::people::Me;

use crate::failure::Result;
use crate::hive::HiveArgs;
use crate::output;
use crate::state::State;

/// Show who you are at the hive, and which key ring the account has
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows the account.
pub fn run(state: &State, args: &ShowArgs) -> Result<()> {
    let login = args.hive.login(state)?;
    let client = args.hive.client(state)?;
    let me: Me = client.get("/v1/me")?;
    if args.json {
        return output::json(&me);
    }
    let shown = |text: &str| output::escape(text.as_bytes());
    for (what, value) in [
        ("hive", login.hive.to_string()),
        ("key", login.key.to_string()),
        ("you", format!("{} ({})", shown(&me.name), me.role.text())),
        ("account", shown(&me.account.title)),
        ("letters", shown(&me.account.letters)),
        ("ring", me.account.ring_account.map_or_else(|| "none yet".to_owned(), |ring| ring.to_string())),
        ("until", output::time_local(login.ends.0.saturating_mul(1_000_000))),
    ] {
        output::line(&format!("{what:<8} {value}"))?;
    }
    Ok(())
}
