//! `comb device page`.

use std::net::SocketAddr;

use clap::Args;
use orchestrator_device::daemon::socket::Ask;

use super::status;
use crate::failure::Result;
use crate::output;
use crate::state::State;

/// Open this device's own page in a browser: files of any moment, restoring them, logs of apps
///
/// The running device serves it, and lets in whoever types the code that is printed here: no login of the hive does. The
/// code is good for five minutes, five tries and one browser. Compare the fingerprint with the certificate that the
/// browser shows before the code is typed.
#[derive(Debug, Args)]
pub struct PageArgs {
    /// Where it listens [default: where it does, else all IPv4 addresses of this machine, port 8421 or the next free one]
    ///
    /// `[::]:8421` is all addresses, those of IPv6 too, which are often reached from everywhere.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Serve it no more, and end every session
    #[arg(long, conflicts_with_all = ["listen", "json"])]
    close: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the device to serve its page, or to stop that.
pub fn run(state: &State, args: &PageArgs) -> Result<()> {
    if args.close {
        status::of(state, &Ask::ClosePage)?;
        output::note("the page is closed, and every session has ended");
        return Ok(());
    }
    let opened = status::of(state, &Ask::Page { listen: args.listen })?;
    if args.json {
        return output::json(&opened);
    }
    let text = |name: &str| opened[name].as_str().unwrap_or_default().to_owned();
    output::line(&text("address"))?;
    for more in opened["addresses"].as_array().into_iter().flatten().skip(1) {
        output::line(&format!("{}   on this machine itself", more.as_str().unwrap_or_default()))?;
    }
    output::line(&format!(
        "certificate  {}   (SHA-256; compare it with what the browser shows)",
        text("fingerprint")
    ))?;
    output::line(&format!("code         {}   (5 minutes, one browser)", text("code")))
}
