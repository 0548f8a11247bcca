//! `comb hive run`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use orchestrator_hive::{Options, Server};

use crate::failure::Result;
use crate::output;
use crate::state::State;

/// Serve devices and people, until a signal
///
/// The first time it prints a setup code, once: with it `comb account create` makes the first account. What it prints is its own
/// public key too, by which devices know it again.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where it keeps what it knows: sqlite:PATH or postgres://USER@HOST/NAME, with ?sslmode=verify-full for one that
    /// others run [default: hive.db in the state folder]
    #[arg(long, value_name = "URL")]
    db: Option<String>,

    /// Where it listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8420")]
    listen: SocketAddr,

    /// The base of apps' names
    #[arg(long, default_value = "home.arpa")]
    domain: String,

    /// The first store of the account that is made with the setup code
    #[arg(long, value_name = "URL")]
    store: Option<String>,

    /// A certificate in PEM, with those that vouch for it; with --tls-key it makes this HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Its key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// A proxy whose word of other addresses is taken; for limits and events only
    #[arg(long, value_name = "IP")]
    proxy: Vec<IpAddr>,

    /// Make another setup code, while there is no account
    #[arg(long)]
    new_setup_code: bool,

    /// Where a backup is made each night; the last seven are kept
    #[arg(long, value_name = "DIR")]
    backups: Option<PathBuf>,

    /// A folder of apps to choose from in the console: each sub-folder is a compose project, with a README.md and an
    /// icon.svg or icon.png if you like
    #[arg(long, value_name = "DIR")]
    catalog: Option<PathBuf>,
}

/// Serves until a signal.
pub fn run(state: &State, args: RunArgs) -> Result<()> {
    let beside = Options::new(super::database(state, args.db.as_deref())?, args.listen);
    let options = Options {
        domain: args.domain,
        store: args.store,
        tls: args.tls_cert.zip(args.tls_key),
        proxies: args.proxy,
        new_setup_code: args.new_setup_code,
        backups: args.backups,
        catalog: args.catalog,
        history: beside.history.clone().or_else(|| Some(state.root().join("history.jsonl"))),
        ..beside
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMB_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    let secure = options.tls.is_some();
    super::block_on(orchestrator_hive::run(options, |server| told(server, secure)))
}

/// What a person must know, once.
fn told(server: &Server, secure: bool) {
    let scheme = if secure { "https" } else { "http" };
    let key: String = server.key().iter().map(|byte| format!("{byte:02x}")).collect();
    // A terminal that is gone is no reason to serve nobody.
    let say = |text: &str| drop(output::line(text));
    if let Ok(address) = server.address() {
        say(&format!("listening on {scheme}://{address}"));
    }
    if let Some(caution) = server.caution() {
        say(caution);
    }
    say(&format!("key {key}"));
    if let Ok(address) = server.address() {
        // A browser cannot go to the address that stands for all of them.
        let any = address.ip().is_unspecified();
        let host = if any { format!("localhost:{}", address.port()) } else { address.to_string() };
        say(&format!("open {scheme}://{host} in a browser, or use `comb login`"));
    }
    if let Some(code) = server.setup_code() {
        say(&format!("setup code {code}"));
        say("it is shown once; the first page of the console asks for it, or `comb account create`");
    }
}
