//! `comb login`.

use std::path::PathBuf;

use clap::Args;
use orchestrator_api::wire::people::{Login as Request, Me, NewToken};
use orchestrator_api::wire::value::{Title, Within};

use crate::failure::{Failure, Kind, Result};
use crate::hive::address::Address;
use crate::hive::logins::{self, Login};
use crate::hive::{Client, hidden};
use crate::state::State;
use crate::{ask, output, passphrase};

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Log in at a hive
///
/// The hive gives this machine a token, which is kept in hive.json in the state folder, for its owner alone. The password
/// opens no key ring, and the passphrase of the key ring logs nobody in: they should differ.
///
/// What a hive answers people is not signed. Over https, or on this machine, nobody can change it on the way; so plain
/// http to another machine is refused unless --insecure-http says that the network is yours.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Where the hive is: https://hive.example.org, or http://127.0.0.1:8420
    #[arg(value_name = "HIVE")]
    hive: String,

    /// Your name at the hive; of another than its first account NAME@LETTERS. Asked for if it is not said
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    how: PasswordArgs,

    /// For how many days the login is good
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=365))]
    days: u64,
}

/// How a person proves who they are, and over which way.
#[derive(Debug, Args)]
pub struct PasswordArgs {
    /// Take the password of the login from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    password_file: Option<PathBuf>,

    /// Speak with a hive on another machine without encryption: whoever is on the way can read and change everything
    #[arg(long)]
    pub insecure_http: bool,
}

impl PasswordArgs {
    /// The password of a login that is there.
    pub fn password(&self, of: &str) -> Result<orchestrator_api::wire::value::Hidden> {
        hidden(&passphrase::secret(&format!("Password of {of}: "), self.password_file.as_deref())?)
    }

    /// A new one: asked for twice.
    pub fn new_password(&self, of: &str) -> Result<orchestrator_api::wire::value::Hidden> {
        let first = self.password(of)?;
        if self.password_file.is_none() && self.password("the same once more")? != first {
            return Err(Failure::new(Kind::Usage, "the two passwords differ; nothing was changed"));
        }
        if first.reveal().len() < orchestrator_api::wire::people::PASSWORD_BYTES_MIN {
            return Err(Failure::new(Kind::Usage, "a password has at least 12 characters; nothing was changed")
                .hint("it is guarded by the hive, which slows guessing down; the passphrase of the key ring is another one"));
        }
        Ok(first)
    }
}

/// Logs in.
pub fn run(state: &State, args: &LoginArgs) -> Result<()> {
    let hive = Address::parse(&args.hive)?;
    hive.allow(args.how.insecure_http)?;
    let client = Client::new(hive)?;
    let info = client.info()?;
    if let Some(before) = logins::of(state, client.hive())?
        && before.key != info.key
    {
        return Err(Failure::new(
            Kind::Foreign,
            format!("the hive at {} has key {}, and had {} when you logged in first", client.hive(), info.key, before.key),
        )
        .hint("if it was made anew, `comb account logout --forget` forgets the old one; else somebody answers in its place"));
    }
    if !info.set_up {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("the hive at {} has no account yet", client.hive()),
        )
        .hint(format!(
            "`comb account create {}` makes the first one, with the setup code that it printed",
            client.hive()
        )));
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => ask::line("Name: ")?,
    };
    let mut request = Request {
        name: name.parse().map_err(|error| Failure::new(Kind::Usage, format!("the name {error}")))?,
        password: args.how.password(&format!("\"{name}\" at {}", client.hive()))?,
        title: title(),
        ends_in_s: Some(Within(args.days * DAY_S)),
        second: None,
    };
    let token: NewToken = match client.try_post_once("/v1/login", &request)? {
        Ok(token) => token,
        // The password is right: the code is asked for on the terminal, since it is good for half a minute.
        Err(_) => {
            let code = ask::line("Code of your authenticator app, or a recovery code: ")?;
            let code = code.trim().parse();
            request.second =
                Some(code.map_err(|error| Failure::new(Kind::Usage, format!("the code {error}")))?);
            client.post_once("/v1/login", &request)?
        }
    };
    welcome(state, client, info.key, token, args.how.insecure_http)
}

/// What this machine is called in the list of tokens.
pub fn title() -> Option<Title> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("comb on {name}").chars().take(64).collect::<String>().parse().ok()
}

/// Keeps a new token, and says who one is now.
pub fn welcome(
    state: &State,
    client: Client,
    key: orchestrator_api::text::Hex<32>,
    token: NewToken,
    insecure_http: bool,
) -> Result<()> {
    let client = client.with_token(token.token.clone());
    let me: Me = client.get("/v1/me")?;
    let hive = client.hive().clone();
    let (name, account) = (me.name.clone(), me.account.title.clone());
    let login = Login {
        hive: hive.clone(),
        key,
        name: me.name,
        account: me.account.title,
        role: token.role,
        ends: token.ends,
        insecure_http,
        is_of_up: false,
        token: token.token,
    };
    logins::keep(state, login)?;
    output::note(&format!(
        "logged in at {hive} as \"{}\" ({}) of \"{}\", until {}",
        output::escape(name.as_bytes()),
        token.role.text(),
        output::escape(account.as_bytes()),
        output::time_local(token.ends.0.saturating_mul(1_000_000))
    ));
    Ok(())
}
