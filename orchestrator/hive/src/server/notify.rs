//! Notifications: what somebody should know, told by webhook and e-mail when it begins and when it is over.
//!
//! What there is to tell is found by `trouble`; here is where it is told, and how.
//!
//! Invariants
//! - What opens a mailbox is kept here, since the hive must use it; it is in no page, log or answer.
//! - A webhook is asked once, no redirect is followed, and nothing of its answer is shown but whether it was well.
//! - Only the hive's first account may send into the hive's own network.
//! - No channel waits for another one.

mod outbox;
mod trouble;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use orchestrator_api::error::Code;
use orchestrator_api::text::{Uuid, is_email};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::call::Call;
use super::chance;
use super::database::{How, Row, Tx};
use super::fail::Fail;
use super::scheduler::{accounts, each};
use super::tenant::{About, AccountId, Tenant, Told, json, read, uuid};
pub use outbox::Outbox;
pub use trouble::{BEHIND_MS, FAILED_MS, FailedUpdate};
use trouble::{look_at, troubles};

const CHANNELS_MAX: u64 = 20;
/// A message has so long to arrive.
const SEND_WAIT: Duration = Duration::from_secs(20);

/// Where messages go. Prints its kind only.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A POST with JSON.
    Webhook {
        /// Where to.
        url: String,
    },
    /// E-mail.
    Mail {
        /// To whom.
        to: String,
        /// From whom.
        from: String,
        /// The mail server.
        host: String,
        /// Its port.
        port: u16,
        /// `starttls`, `tls` or `none`.
        security: String,
        /// User and password.
        login: Option<(String, String)>,
    },
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl Target {
    /// Of an address.
    pub fn webhook(url: &str) -> Result<Self, Fail> {
        let parsed = reqwest::Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        match parsed {
            Some(_) if url.len() <= 2048 => Ok(Self::Webhook { url: url.to_owned() }),
            _ => Err(Fail::field("url", "an address begins with https:// or http://")),
        }
    }

    /// Of a mail server and addresses.
    pub fn mail(
        to: String,
        from: String,
        (host, port): (String, u16),
        security: &str,
        login: Option<(String, String)>,
    ) -> Result<Self, Fail> {
        for (field, address) in [("to", &to), ("from", &from)] {
            if !is_email(address) || address.parse::<lettre::Address>().is_err() {
                return Err(Fail::field(field, "this is no address of mail"));
            }
        }
        let is_host =
            host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':'));
        if host.is_empty() || host.len() > 253 || !is_host || port == 0 {
            return Err(Fail::field("host", "this is no name of a mail server"));
        }
        if !matches!(security, "starttls" | "tls" | "none") {
            return Err(Fail::field("security", "say how the mail server is spoken to"));
        }
        if login.as_ref().is_some_and(|(user, password)| user.len() > 320 || password.len() > 1024) {
            return Err(Fail::field("user", "this is too long"));
        }
        if security == "none" && login.is_some() {
            return Err(Fail::field("security", "a password is sent over an encrypted connection only"));
        }
        Ok(Self::Mail { to, from, host, port, security: security.to_owned(), login })
    }

    /// In a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "Webhook",
            Self::Mail { .. } => "E-mail",
        }
    }

    /// Where to, without what opens something: of a webhook its host, since paths often are secrets.
    pub fn shown(&self) -> String {
        match self {
            Self::Webhook { .. } => self.host(),
            Self::Mail { to, host, .. } => format!("{to} by {host}"),
        }
    }

    /// The machine that is spoken to.
    fn host(&self) -> String {
        match self {
            Self::Webhook { url } => {
                let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
                host.unwrap_or_default()
            }
            Self::Mail { host, .. } => host.clone(),
        }
    }

    /// What an event says of it: everybody of the account sees events, so nobody's address is in them.
    fn about(&self, id: Uuid) -> About {
        let way = match self {
            Self::Webhook { .. } => "webhook",
            Self::Mail { .. } => "mail",
        };
        About::default().with("channel", id.to_string()).with("way", way).with("host", self.host())
    }
}

/// A target that was set up.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its id.
    pub id: Uuid,
    /// Where messages go.
    pub target: Target,
    /// When the last one arrived.
    pub sent: Option<i64>,
    /// Why the last one did not.
    pub problem: Option<String>,
}

/// The channels of an account.
pub fn channels(tenant: &mut Tenant<'_>) -> Result<Vec<Channel>, Fail> {
    let sql = "SELECT channel, settings, sent, problem FROM channel WHERE account = $1 ORDER BY channel";
    let channel = |row: &Row| {
        Ok(Channel {
            id: uuid(row, 0)?,
            target: read(row.text(1)?)?,
            sent: row.maybe(2, Row::int)?,
            problem: row.maybe(3, Row::text)?.map(str::to_owned),
        })
    };
    tenant.query(sql, &[])?.iter().map(channel).collect()
}

/// Sets one up.
pub fn add(tenant: &mut Tenant<'_>, target: Target) -> Result<(), Fail> {
    let count = tenant.one("SELECT count(*) FROM channel WHERE account = $1", &[])?;
    if count.map(|row| row.count(0)).transpose()?.unwrap_or(0) >= CHANNELS_MAX {
        return Err(Fail::state("there are 20 of them already").hint("Remove one first."));
    }
    let id = chance::uuid();
    tenant.execute(
        "INSERT INTO channel (account, channel, settings, sent, problem) VALUES ($1, $2, $3, NULL, NULL)",
        &[id.0.into(), json(&target).into()],
    )?;
    tenant.event("channel", target.about(id));
    Ok(())
}

/// Removes one.
pub fn remove(tenant: &mut Tenant<'_>, id: Uuid) -> Result<(), Fail> {
    let sql = "SELECT settings FROM channel WHERE account = $1 AND channel = $2";
    let row = tenant.one(sql, &[id.0.into()])?.ok_or_else(Fail::not_found)?;
    let target: Target = read(row.text(0)?)?;
    tenant.execute("DELETE FROM channel WHERE account = $1 AND channel = $2", &[id.0.into()])?;
    tenant.event("channel_gone", target.about(id));
    Ok(())
}

/// A message.
#[derive(Debug, Clone, Serialize)]
pub struct Note {
    /// For programs: `silent`, `not_well`, `behind`, `failed_over`, `update_failed`, `over`, `test`.
    pub kind: &'static str,
    /// A few words.
    pub title: String,
    /// A sentence or two.
    pub text: String,
    /// When.
    pub time: String,
}

impl Note {
    fn new(kind: &'static str, title: String, text: String) -> Self {
        Self { kind, title, text, time: chance::time(chance::now()).to_string() }
    }
}

/// The address that is meant: one of IPv4 where it is written, or translated on the way, as one of IPv6.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(it) = address else { return address };
    let inside = match it.segments() {
        // NAT64, and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let bits = u32::from(high) << 16 | u32::from(low);
            Some(Ipv4Addr::from_bits(bits))
        }
        _ => it.to_ipv4(),
    };
    inside.map_or(address, IpAddr::V4)
}

/// Addresses that are of the hive's own machine and network wherever it stands.
fn is_near(address: IpAddr) -> bool {
    match meant(address) {
        IpAddr::V4(it) => {
            let [a, b, ..] = it.octets();
            it.is_private()
                || it.is_loopback()
                || it.is_link_local()
                || it.is_unspecified()
                || it.is_broadcast()
                || it.is_multicast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(it) => {
            it.is_loopback()
                || it.is_unspecified()
                || it.is_multicast()
                // Its own, those of one link or site, and NAT64 of a network's own.
                || matches!(it.segments(), [0xfc00..=0xfdff | 0xfe80..=0xfeff, ..] | [0x64, 0xff9b, 1, ..])
        }
    }
}

/// Whether an address that is unique in the world is this machine's, or in a network that the machine is in: by the
/// address from which the machine would reach it. Asking for that sends nothing; where no way leads there, nothing is sent
/// later either.
fn is_beside(address: IpAddr) -> bool {
    let to = meant(address);
    // Nobody's: one for documents.
    let (any, nobodys) = match to {
        IpAddr::V4(_) => (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from([192, 0, 2, 1])),
        IpAddr::V6(_) => {
            (IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]))
        }
    };
    // Any port: none is spoken to.
    let begin = |from: IpAddr| UdpSocket::bind((from, 0));
    let from = begin(any).and_then(|socket| socket.connect((to, 9)).and_then(|()| socket.local_addr()));
    // Not each of its addresses is one that it speaks from, but it can. Some machines let any address be used so.
    let is_own = begin(to).is_ok() && begin(nobodys).is_err();
    is_own || from.is_ok_and(|from| shares_network(from.ip(), to))
}

/// Whether two addresses are of one machine or, of IPv6, in one network.
fn shares_network(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V6(one), IpAddr::V6(other)) => one.segments()[..4] == other.segments()[..4],
        _ => one == other,
    }
}

async fn addresses(host: &str, port: u16, may_be_near: bool) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
    let all: Vec<SocketAddr> = found.map_err(|_| "its name leads nowhere".to_owned())?.collect();
    if !may_be_near && all.iter().any(|address| is_near(address.ip()) || is_beside(address.ip())) {
        return Err("it lies in the hive's own network".to_owned());
    }
    if all.is_empty() { Err("its name leads nowhere".to_owned()) } else { Ok(all) }
}

async fn post(url: &str, note: &Note, may_be_near: bool) -> Result<(), String> {
    let url = reqwest::Url::parse(url).map_err(|_| "its address is wrong".to_owned())?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let all = addresses(&host, url.port_or_known_default().unwrap_or(443), may_be_near).await?;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(SEND_WAIT)
        .no_proxy()
        // The addresses that were looked at, and no others.
        .resolve_to_addrs(&host, &all)
        .build()
        .map_err(|_| "no client can be made".to_owned())?;
    let body = serde_json::to_vec(note).map_err(|_| "it cannot be written".to_owned())?;
    let sent = client.post(url).header("content-type", "application/json").body(body).send().await;
    match sent {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("it answers with {}", answer.status().as_u16())),
        Err(error) if error.is_timeout() => Err("it does not answer in time".to_owned()),
        Err(_) => Err("it cannot be reached".to_owned()),
    }
}

async fn mail(target: &Target, note: &Note, may_be_near: bool) -> Result<(), String> {
    let Target::Mail { to, from, host, port, security, login } = target else { return Ok(()) };
    let all = addresses(host, *port, may_be_near).await?;
    let address = |text: &str| text.parse().map_err(|_| "an address of mail is wrong".to_owned());
    let message = Message::builder()
        .from(address(from)?)
        .to(address(to)?)
        .subject(format!("Comb: {}", note.title))
        .header(ContentType::TEXT_PLAIN)
        .body(format!("{}\n\n{}\n", note.text, note.time))
        .map_err(|_| "the message cannot be written".to_owned())?;
    let tls =
        || TlsParameters::new(host.clone()).map_err(|_| "TLS cannot be begun with that name".to_owned());
    let tls = match security.as_str() {
        "tls" => Tls::Wrapper(tls()?),
        "starttls" => Tls::Required(tls()?),
        _ => Tls::None,
    };
    // The address that was looked at; TLS still asks for the name.
    let server = all.first().map(|address| address.ip().to_string()).unwrap_or_default();
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server)
        .port(*port)
        .tls(tls)
        .hello_name(ClientId::Domain("comb".to_owned()))
        .timeout(Some(SEND_WAIT));
    if let Some((user, password)) = login {
        transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
    }
    match transport.build().send(message).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_permanent() => Err("the mail server refuses it".to_owned()),
        Err(error) if error.is_timeout() => Err("the mail server does not answer in time".to_owned()),
        Err(_) => Err("the mail server cannot be used so".to_owned()),
    }
}

/// Sends a note to a channel that is there, and writes down how that went.
async fn send(shared: &Arc<Shared>, account: AccountId, id: Uuid, note: Note) -> Result<(), String> {
    let read = move |tx: &mut dyn Tx| {
        let rows = tx.query("SELECT first FROM account WHERE account = $1", &[account.into()])?;
        let is_first = rows.first().map(|row| row.flag(0)).transpose()?.unwrap_or(false);
        let found = channels(&mut Tenant::new(tx, account))?.into_iter().find(|channel| channel.id == id);
        Ok((is_first, found))
    };
    let (is_first, channel) = match shared.database.transact(How::Read, read).await {
        Ok((is_first, Some(channel))) => (is_first, channel),
        Ok((_, None)) => return Err("it was removed meanwhile".to_owned()),
        Err(fail) => return Err(format!("where it goes cannot be read: {fail}")),
    };
    let work = async {
        match &channel.target {
            Target::Webhook { url } => post(url, &note, is_first).await,
            target => mail(target, &note, is_first).await,
        }
    };
    let done = tokio::time::timeout(SEND_WAIT * 2, work)
        .await
        .unwrap_or_else(|_| Err("it takes too long".to_owned()));
    let problem = done.clone().err();
    let kept = shared
        .database
        .transact(How::Write, move |tx| {
            let sql = "UPDATE channel SET problem = $3, sent = CASE WHEN $4 = 1 THEN $5 ELSE sent END \
                 WHERE account = $1 AND channel = $2";
            let is_well = problem.is_none();
            Tenant::new(tx, account)
                .execute(sql, &[id.0.into(), problem.clone().into(), is_well.into(), chance::now().into()])?;
            Ok(())
        })
        .await;
    if let Err(fail) = kept {
        tracing::warn!(%fail, "how a notification went could not be written down");
    }
    done
}

/// Sends a test, and says what came of it.
pub async fn test(call: &Arc<Call>) -> Result<(), Fail> {
    let (account, id): (AccountId, Uuid) = (call.account()?, call.param(0)?);
    let found =
        call.shared.database.transact(How::Read, move |tx| channels(&mut Tenant::new(tx, account))).await?;
    if !found.iter().any(|channel| channel.id == id) {
        return Err(Fail::not_found());
    }
    let note = Note::new(
        "test",
        "a test".to_owned(),
        "This is how the hive tells when something is the matter.".to_owned(),
    );
    send(&call.shared, account, id, note)
        .await
        .map_err(|problem| Fail::new(Code::State, format!("the test did not arrive: {problem}")))
}

/// Sends a note; how that went stands beside the channel.
async fn deliver(shared: Arc<Shared>, account: AccountId, channel: Uuid, note: Note) {
    if let Err(problem) = send(&shared, account, channel, note).await {
        tracing::warn!(%channel, %problem, "a notification did not arrive");
    }
}

/// Looks for trouble of each account, and tells what lasts. Sending goes on beside.
pub async fn look(shared: &Arc<Shared>, outbox: &mut Outbox) -> Result<Told, Fail> {
    let mut present = Vec::new();
    for account in accounts(&shared.database).await? {
        // Every report is read for it, which takes long: reports that come meanwhile are not to wait for that.
        let read = move |tx: &mut dyn Tx| troubles(&mut Tenant::new(tx, account));
        match shared.database.transact(How::Read, read).await {
            Ok(found) => present.extend(found.map(|found| (account, found))),
            Err(fail) => {
                tracing::warn!(account = %Uuid(account), %fail, "trouble of an account could not be looked for");
            }
        }
    }
    let compare = |tenant: &mut Tenant<'_>, found: &trouble::Found| {
        let notes = look_at(tenant, found)?;
        let to = if notes.is_empty() { Vec::new() } else { channels(tenant)? };
        Ok((tenant.account, to, notes))
    };
    let (told, notes) = each(&shared.database, present, "trouble could not be compared", compare).await;
    for (account, to, notes) in notes {
        for channel in to {
            for note in notes.clone() {
                let (shared, id) = (shared.clone(), channel.id);
                outbox.put((account, id), note, move |note| deliver(shared.clone(), account, id, note));
            }
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_shows_nothing_that_opens_something() {
        let hook = Target::webhook("https://hooks.example.org/T0/secret-letters").expect("is an address");
        assert_eq!(hook.shown(), "hooks.example.org");
        let login = Some(("ada".to_owned(), "hunter22".to_owned()));
        let mail = |to: &str, security: &str, login| {
            Target::mail(
                to.to_owned(),
                "hive@example.org".to_owned(),
                ("mail.example.org".to_owned(), 587),
                security,
                login,
            )
        };
        let kept = mail("ada@example.org", "starttls", login.clone()).expect("is right");
        assert_eq!(
            (kept.shown().as_str(), format!("{kept:?}").as_str()),
            ("ada@example.org by mail.example.org", "E-mail")
        );
        assert!(mail("ada@example.org", "none", login).is_err(), "no password without encryption");
        assert!(mail("ada\r\nBcc: eve@example.org", "tls", None).is_err());
        for url in ["", "ftp://example.org", "file:///etc/passwd", "https://", "javascript:alert(1)"] {
            assert!(Target::webhook(url).is_err(), "{url}");
        }
    }

    #[test]
    fn near_addresses_are_known() {
        for near in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.1.2.3",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:c0a8:1::1",
            "fec0::1",
        ] {
            assert!(is_near(near.parse().expect("is an address")), "{near}");
        }
        for far in ["192.0.2.1", "8.8.8.8", "2001:db8::1", "64:ff9b::8.8.8.8", "2002:808:808::1"] {
            assert!(!is_near(far.parse().expect("is an address")), "{far}");
        }
    }

    #[test]
    fn addresses_beside_the_machine_are_known() {
        let shares = |one: &str, other: &str| {
            shares_network(one.parse().expect("is an address"), other.parse().expect("is an address"))
        };
        assert!(shares("203.0.113.5", "203.0.113.5") && !shares("203.0.113.5", "203.0.113.6"));
        assert!(
            shares("2001:db8:0:7::5", "2001:db8:0:7:1:2:3:4")
                && !shares("2001:db8:0:7::5", "2001:db8:0:8::5")
        );
        // An address of the machine is reached from itself, whichever it is.
        for own in ["127.0.0.1", "127.0.0.9", "::ffff:127.0.0.9"] {
            assert!(is_beside(own.parse().expect("is an address")), "{own}");
        }
        let socket = UdpSocket::bind("0.0.0.0:0").expect("there is a port");
        if socket.connect("192.0.2.1:9").is_ok() {
            let own = socket.local_addr().expect("it has one").ip();
            assert!(is_beside(own) && !is_beside("192.0.2.1".parse().expect("is an address")), "{own}");
        }
    }
}
