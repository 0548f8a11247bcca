//! The hives that this machine knows: `STATE/hive.json`, for its owner alone.
//!
//! The hive's key is kept from the first login on. It signs nothing that people are answered, but it is in each code for
//! a device, so a code of another hive is noticed, and so is a hive that was made anew under the same address.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use orchestrator_api::text::{Hex, Time};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::value::Hidden;
use serde::{Deserialize, Serialize};

use super::{Client, address::Address};
use crate::failure::{Context, Failure, Kind, Result};
use crate::output;
use crate::state::{State, replace};

/// Which hive is asked.
#[derive(Debug, Clone, Default, Args)]
pub struct HiveArgs {
    /// The hive, where this machine knows more than one
    #[arg(long, value_name = "URL")]
    pub hive: Option<String>,
}

/// A login that is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Login {
    /// Where the hive is.
    pub hive: Address,
    /// The hive's key, as it was at the first login.
    pub key: Hex<32>,
    /// What the person logs in as.
    pub name: String,
    /// What the account is called.
    pub account: String,
    /// What the token may do.
    pub role: Role,
    /// Until when.
    pub ends: Time,
    /// Whether the person allowed plain http to another machine.
    #[serde(default)]
    pub insecure_http: bool,
    /// Whether the hive is the one that `comb up` runs in this state folder.
    #[serde(default)]
    pub is_of_up: bool,
    /// The token.
    pub token: Hidden,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    logins: Vec<Login>,
}

fn path(state: &State) -> PathBuf {
    state.root().join("hive.json")
}

/// The logins of this machine.
pub fn all(state: &State) -> Result<Vec<Login>> {
    let path = path(state);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.context(path.display())?,
    };
    serde_json::from_slice::<Kept>(&text).map(|kept| kept.logins).map_err(|_| {
        Failure::new(Kind::Damaged, format!("{} holds no logins", path.display()))
            .hint("remove it, and `comb login HIVE` makes it anew")
    })
}

/// The login at a hive, if there is one.
pub fn of(state: &State, hive: &Address) -> Result<Option<Login>> {
    Ok(all(state)?.into_iter().find(|login| login.hive == *hive))
}

/// Keeps a login, in the place of an earlier one at the same hive.
pub fn keep(state: &State, login: Login) -> Result<()> {
    change(state, |logins| {
        logins.retain(|one| one.hive != login.hive);
        logins.push(login);
    })
}

/// Forgets the login at a hive.
pub fn forget(state: &State, hive: &Address) -> Result<()> {
    change(state, |logins| logins.retain(|one| one.hive != *hive))
}

fn change(state: &State, change: impl FnOnce(&mut Vec<Login>)) -> Result<()> {
    state.prepare()?;
    let mut kept = Kept { logins: all(state)? };
    change(&mut kept.logins);
    let text = serde_json::to_vec_pretty(&kept).map_err(std::io::Error::from).context("the logins")?;
    replace(&path(state), &text)
}

impl HiveArgs {
    /// The login that is meant.
    pub fn login(&self, state: &State) -> Result<Login> {
        let mut logins = all(state)?;
        let Some(hive) = &self.hive else {
            return match logins.len() {
                1 => Ok(logins.remove(0)),
                0 => Err(Failure::new(Kind::NotFound, "this machine knows no hive")
                    .hint("`comb login HIVE` makes it known; `comb up` starts one on this machine")),
                _ => {
                    let known: Vec<String> = logins.iter().map(|login| login.hive.to_string()).collect();
                    Err(Failure::new(
                        Kind::Usage,
                        format!("this machine knows several hives: {}", known.join(", ")),
                    )
                    .hint("say which one with --hive URL"))
                }
            };
        };
        let hive = Address::parse(hive)?;
        logins.into_iter().find(|login| login.hive == hive).ok_or_else(|| {
            Failure::new(Kind::NotFound, format!("this machine has no login at {hive}"))
                .hint(format!("`comb login {hive}` makes one"))
        })
    }

    /// A client that is logged in.
    pub fn client(&self, state: &State) -> Result<Client> {
        let login = self.login(state)?;
        let left = login.ends.0 - jiff::Timestamp::now().as_millisecond();
        if (0..7 * 86_400_000).contains(&left) {
            output::warn_once(&format!(
                "the login at {} ends {}; `comb login` makes a new one",
                login.hive,
                output::time_local(login.ends.0.saturating_mul(1_000_000))
            ));
        }
        Client::logged_in(&login)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn login(hive: &str) -> Login {
        Login {
            hive: Address::parse(hive).expect("an address"),
            key: Hex([1; 32]),
            name: "me".to_owned(),
            account: "Home".to_owned(),
            role: Role::Owner,
            ends: Time(0),
            insecure_http: false,
            is_of_up: false,
            token: Hidden::new("comb_secret".to_owned()).expect("is short"),
        }
    }

    #[test]
    fn a_login_is_kept_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::locate(Some(&folder.path().join("state"))).expect("a path");
        let args = HiveArgs::default();
        assert_eq!(args.login(&state).map(drop).map_err(|failure| failure.kind), Err(Kind::NotFound));

        keep(&state, login("https://a")).expect("kept");
        keep(&state, Login { name: "you".to_owned(), ..login("https://a") }).expect("kept");
        assert_eq!(args.login(&state).expect("the only one").name, "you");
        let mode = fs::metadata(path(&state)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        assert!(!format!("{:?}", all(&state)).contains("comb_secret"));

        keep(&state, login("https://b")).expect("kept");
        assert_eq!(args.login(&state).map(drop).map_err(|failure| failure.kind), Err(Kind::Usage));
        let args = HiveArgs { hive: Some("https://b/".to_owned()) };
        assert_eq!(args.login(&state).expect("named").name, "me");
        forget(&state, &login("https://b").hive).expect("forgotten");
        assert_eq!(args.login(&state).map(drop).map_err(|failure| failure.kind), Err(Kind::NotFound));
    }
}
