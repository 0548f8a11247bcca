//! Logins of an account: `api.md`, section 4.

use serde::{Deserialize, Serialize};

use super::value::{Hidden, Name, Text, Title, Within};
use crate::text::{Hex, Time, Uuid};

/// The least bytes of a password.
pub const PASSWORD_BYTES_MIN: usize = 12;
/// The longest life of a token, in seconds.
pub const TOKEN_S_MAX: u64 = 31_536_000;
/// The life of a token if nothing is said: 90 days.
pub const TOKEN_S: u64 = 90 * 86_400;
/// The longest life of an invitation, in seconds.
pub const INVITE_S_MAX: u64 = 604_800;

/// What a person may do. Each may all that the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Runs, moves, updates and restores apps; drains devices.
    Operator,
    /// Everything.
    Owner,
}

impl Role {
    /// As it travels.
    pub fn text(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Owner => "owner",
        }
    }
}

/// `POST /v1/setup`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// What the hive printed once.
    pub setup_code: Hidden,
    /// What the account is called.
    pub account: Title,
    /// What the first owner logs in as.
    pub name: Name,
    /// 12 to 1,024 bytes.
    pub password: Hidden,
}

/// `POST /v1/login`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Login {
    /// A name of the hive's first account, or `name@letters` of another.
    pub name: Text<80>,
    /// The login password; the passphrase of the ring never goes here.
    pub password: Hidden,
    /// What the token is called in lists.
    #[serde(default)]
    pub title: Option<Title>,
    /// How long it is good.
    #[serde(default)]
    pub ends_in_s: Option<Within<1, TOKEN_S_MAX>>,
    /// A code of the second factor, or a recovery code, where the person has one.
    #[serde(default)]
    pub second: Option<Text<32>>,
}

/// The answer to setup, login, an accepted invitation and a new token: the only time that it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewToken {
    /// Its id, by which it is removed.
    pub id: Uuid,
    /// `comb_` and 43 letters.
    pub token: Hidden,
    /// What it may do.
    pub role: Role,
    /// Until when.
    pub ends: Time,
}

/// `GET /v1/me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    /// The person's id.
    pub person: Uuid,
    /// What they log in as.
    pub name: String,
    /// What this token may do.
    pub role: Role,
    /// Whose they are.
    pub account: Account,
}

/// An account, as its people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id in this hive.
    pub id: Uuid,
    /// What it is called.
    pub title: String,
    /// Eight letters that people of other than the first account log in with.
    pub letters: String,
    /// The pseudonym that its ring has; none before there is one.
    pub ring_account: Option<Hex<16>>,
    /// The public key that signs its packages; none before there is a ring.
    pub owner_key: Option<Hex<32>>,
    /// Whether it is the hive's first.
    #[serde(default)]
    pub first: bool,
}

/// `PUT /v1/me/password`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangePassword {
    /// The present one.
    pub old: Hidden,
    /// 12 to 1,024 bytes.
    pub new: Hidden,
}

/// `POST /v1/people/invites`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// What the guest will be.
    pub role: Role,
    /// How long it is good; a day if nothing is said.
    #[serde(default)]
    pub ends_in_s: Option<Within<1, INVITE_S_MAX>>,
    /// Whether it is for an account of its own, whose first owner the guest will be.
    #[serde(default)]
    pub new_account: bool,
}

/// Its answer: the only time that the letters are shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewInvite {
    /// Its id, by which it is removed.
    pub id: Uuid,
    /// 32 letters.
    pub invite: Hidden,
    /// Until when.
    pub ends: Time,
}

/// An invitation that nobody accepted yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvite {
    /// Its id.
    pub id: Uuid,
    /// What the guest will be.
    pub role: Role,
    /// Whether it is for an account of its own.
    pub new_account: bool,
    /// Until when.
    pub ends: Time,
}

/// `POST /v1/people/accept`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accept {
    /// The 32 letters.
    pub invite: Hidden,
    /// What the person logs in as.
    pub name: Name,
    /// 12 to 1,024 bytes.
    pub password: Hidden,
    /// What the account is called, if the invitation is for a new one.
    #[serde(default)]
    pub account: Option<Title>,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Their id.
    pub id: Uuid,
    /// What they log in as.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// `PATCH /v1/people/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePerson {
    /// What they may do from now on.
    pub role: Role,
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeToken {
    /// What it is called in lists.
    pub title: Title,
    /// Not above one's own.
    pub role: Role,
    /// How long it is good.
    #[serde(default)]
    pub ends_in_s: Option<Within<1, TOKEN_S_MAX>>,
}

/// A token, without its letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub person: Uuid,
    /// What it is called.
    pub title: String,
    /// What it may do.
    pub role: Role,
    /// Until when.
    pub ends: Time,
    /// When it was used last, by the day.
    pub used: Option<Time>,
    /// Whether it is the one that asks.
    #[serde(default)]
    pub this: bool,
}
