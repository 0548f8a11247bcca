//! People, tokens, stores, notifications, retention.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Html};

/// A person.
#[derive(Debug, Clone)]
pub struct PersonRow {
    /// Their name.
    pub name: Html,
    /// What they may do: the field that changes it.
    pub role: Field,
    /// Whether they log in with a second factor.
    pub has_second: bool,
    /// Whether it is who looks.
    pub is_self: bool,
    /// Where they are changed: `/settings/people/<id>`.
    pub path: String,
}

/// An invitation that nobody took up yet.
#[derive(Debug, Clone)]
pub struct InviteRow {
    /// What the guest will be.
    pub role: &'static str,
    /// Until when.
    pub ends: Html,
    /// Where it is taken back.
    pub path: String,
}

/// A token of a program.
#[derive(Debug, Clone)]
pub struct TokenRow {
    /// What it is called.
    pub title: Html,
    /// Whose it is.
    pub person: Html,
    /// What it may do.
    pub role: &'static str,
    /// Until when.
    pub ends: Html,
    /// Where it is ended.
    pub path: String,
}

/// A store.
#[derive(Debug, Clone)]
pub struct StoreRow {
    /// Its address, without credentials.
    pub url: Html,
    /// How it answers devices.
    pub state: Html,
    /// Where it is removed.
    pub path: String,
}

/// Where notifications go.
#[derive(Debug, Clone)]
pub struct ChannelRow {
    /// Webhook or e-mail.
    pub kind: &'static str,
    /// Where to.
    pub to: Html,
    /// How the last one went.
    pub state: Html,
    /// `/settings/channels/<id>`.
    pub path: String,
}

/// How long moments of an app are kept.
#[derive(Debug, Clone)]
pub struct RetentionRow {
    /// The app's page.
    pub path: String,
    /// Its name.
    pub name: Html,
    /// What is kept.
    pub keeps: String,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "pages/settings.html")]
pub struct Settings {
    /// What all pages have.
    pub frame: Frame,
    /// Whether this person may change what is the account's.
    pub can_own: bool,
    /// People, for owners.
    pub people: Vec<PersonRow>,
    /// Open invitations, for owners.
    pub invites: Vec<InviteRow>,
    /// A new invitation.
    pub invite: Vec<Field>,
    /// Tokens.
    pub tokens: Vec<TokenRow>,
    /// A new token.
    pub token: Vec<Field>,
    /// Stores.
    pub stores: Vec<StoreRow>,
    /// A new store.
    pub store: Vec<Field>,
    /// Where notifications go, for owners.
    pub channels: Vec<ChannelRow>,
    /// A new webhook.
    pub webhook: Vec<Field>,
    /// A new address of mail.
    pub mail: Vec<Field>,
    /// How long moments are kept.
    pub retention: Vec<RetentionRow>,
    /// Of the hive: what, and its value.
    pub facts: Vec<(&'static str, Html)>,
    /// Which form went wrong: its part of the page is open.
    pub open: &'static str,
}
