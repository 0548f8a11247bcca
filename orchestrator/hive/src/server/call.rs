//! A request on its way to a handler, and what a handler answers.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use orchestrator_api::ids::{DeviceId, SessionId};
use orchestrator_api::request::DeviceHeader;
use orchestrator_api::text::Uuid;
use orchestrator_api::wire;
use orchestrator_api::wire::operation::By;
use orchestrator_api::wire::people::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::Shared;
use super::fail::Fail;
use super::pages::Visit;
use super::tenant::{AccountId, Tenant};

/// Who is asking.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody that the hive knows.
    Nobody,
    /// A person, by a token.
    Person {
        /// Whose they are.
        account: AccountId,
        /// Their id.
        person: Uuid,
        /// The token's.
        token: Uuid,
        /// What the token may do.
        role: Role,
        /// Whether theirs is the hive's first account.
        first: bool,
    },
    /// A device, by its signature.
    Device {
        /// Whose it is.
        account: AccountId,
        /// Its id.
        device: DeviceId,
        /// In which session the request was signed; none for hello.
        session: Option<SessionId>,
    },
}

/// A request.
#[derive(Clone)]
pub struct Call {
    /// The hive.
    pub shared: Arc<Shared>,
    /// Who is asking.
    pub caller: Caller,
    /// What stands in the places of the pattern.
    pub params: Vec<String>,
    /// What stands behind the question mark.
    pub query: BTreeMap<String, String>,
    /// `If-Match`, without quotes.
    pub if_match: Option<u64>,
    /// `Last-Event-ID`.
    pub last_event: Option<String>,
    /// `Comb-Join`.
    pub join: Option<String>,
    /// What a device signed with.
    pub signed: Option<DeviceHeader>,
    /// Method.
    pub method: &'static str,
    /// Path and query, as sent.
    pub path_and_query: String,
    /// What came.
    pub body: Bytes,
    /// From where.
    pub address: IpAddr,
    /// Of a request for a page: cookies and form.
    pub visit: Visit,
}

/// What a handler answers.
pub struct Reply {
    /// Of HTTP.
    pub status: u16,
    /// What is sent.
    pub body: Body,
    /// The generation of what is shown.
    pub etag: Option<u64>,
    /// Whether it holds what is shown once, and so is kept for nobody.
    pub secret: bool,
    /// An operation that began, which the caller may wait for.
    pub order: Option<orchestrator_api::ids::OperationId>,
    /// Headers beside the usual ones.
    pub headers: Vec<(&'static str, String)>,
}

/// What is sent.
pub enum Body {
    /// Nothing.
    Empty,
    /// JSON.
    Json(Vec<u8>),
    /// An object.
    Object(Vec<u8>),
    /// Server-sent events.
    Events(mpsc::Receiver<Bytes>),
    /// A page of the console.
    Page(Vec<u8>),
    /// A picture that somebody put into the catalog: its kind, and it.
    Picture(&'static str, Vec<u8>),
    /// What pages load.
    Asset(&'static orchestrator_console::assets::Asset),
}

impl Reply {
    /// A thing.
    pub fn json<T: Serialize>(thing: &T) -> Self {
        let body = serde_json::to_vec(thing).expect("what the hive answers is JSON");
        Self { body: Body::Json(body), ..Self::none().status(200) }
    }

    /// Nothing to say.
    pub fn none() -> Self {
        Self { status: 204, body: Body::Empty, etag: None, secret: false, order: None, headers: Vec::new() }
    }

    /// An object.
    pub fn object(bytes: Vec<u8>) -> Self {
        Self { body: Body::Object(bytes), ..Self::none().status(200) }
    }

    /// With another status.
    #[must_use]
    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// With what `If-Match` is compared with.
    #[must_use]
    pub fn etag(self, generation: u64) -> Self {
        Self { etag: Some(generation), ..self }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, header: (&'static str, String)) -> Self {
        self.headers.push(header);
        self
    }

    /// What it answers, as a value: pages ask the same handlers as programs.
    pub fn thing<T: DeserializeOwned>(&self) -> Result<T, Fail> {
        let Body::Json(bytes) = &self.body else { return Err(Fail::start("an answer is no JSON")) };
        serde_json::from_slice(bytes).map_err(|error| Fail::start(format!("an answer of our own: {error}")))
    }

    /// It is shown once.
    #[must_use]
    pub fn once(self) -> Self {
        Self { secret: true, ..self }
    }
}

/// What a handler of its own answers with.
pub type Answering = Pin<Box<dyn Future<Output = Result<Reply, Fail>> + Send>>;

impl Call {
    /// The same request with a JSON body: what a form stands for. Fields that are null say nothing.
    pub fn asking(&self, body: &serde_json::Value) -> Self {
        Self { body: body.to_string().into(), ..self.clone() }
    }

    /// The same request with other words behind the question mark.
    pub fn listing<const N: usize>(&self, query: [(&str, Option<String>); N]) -> Self {
        let query = query.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        Self { query, ..self.clone() }
    }

    /// What came, as a type; unknown fields are refused.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Fail> {
        let empty: &[u8] = b"{}";
        let bytes = if self.body.is_empty() { empty } else { &self.body };
        wire::request(bytes).map_err(Fail::Api)
    }

    /// What stands in a place of the pattern, as a type: what is no id is nobody's.
    pub fn param<T: std::str::FromStr>(&self, at: usize) -> Result<T, Fail> {
        self.params.get(at).and_then(|text| text.parse().ok()).ok_or_else(Fail::not_found)
    }

    /// A number of the query.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Fail> {
        let Some(text) = self.query.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number <= wire::NUMBER_MAX);
        number.map(Some).ok_or_else(|| Fail::field(name, format!("{name} is no number")))
    }

    /// A part of the query, as a type.
    pub fn query_as<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Fail> {
        let Some(text) = self.query.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Fail::field(name, format!("{name} is not what it must be")))
    }

    /// How much of a list is wanted.
    pub fn limit(&self) -> Result<usize, Fail> {
        match self.number("limit")? {
            None => Ok(100),
            Some(limit @ 1..=200) => Ok(limit as usize),
            Some(_) => Err(Fail::field("limit", "limit is a number from 1 to 200")),
        }
    }

    /// Whose rows are asked for.
    pub fn account(&self) -> Result<AccountId, Fail> {
        match &self.caller {
            Caller::Person { account, .. } | Caller::Device { account, .. } => Ok(*account),
            Caller::Nobody => Err(not_logged_in()),
        }
    }

    /// The person.
    pub fn person(&self) -> Result<(Uuid, Uuid, Role), Fail> {
        match &self.caller {
            Caller::Person { person, token, role, .. } => Ok((*person, *token, *role)),
            _ => Err(not_logged_in()),
        }
    }

    /// The device, and its session.
    pub fn device(&self) -> Result<(DeviceId, Option<SessionId>), Fail> {
        match &self.caller {
            Caller::Device { device, session, .. } => Ok((*device, *session)),
            _ => Err(not_logged_in()),
        }
    }

    /// Says in a transaction who does it.
    pub fn sign<'a>(&self, tenant: Tenant<'a>) -> Tenant<'a> {
        let by = match &self.caller {
            Caller::Person { person, token, .. } => {
                By { person: Some(*person), token: Some(*token), ..By::default() }
            }
            Caller::Device { device, .. } => By { device: Some(*device), ..By::default() },
            Caller::Nobody => By::default(),
        };
        Tenant { by, from: Some(self.address.to_string()), ..tenant }
    }

    /// Refuses if the thing is not in the generation that the caller saw.
    pub fn matches(&self, generation: u64) -> Result<(), Fail> {
        match self.if_match {
            Some(seen) if seen != generation => Err(Fail::new(
                orchestrator_api::error::Code::Changed,
                "somebody changed it meanwhile: look at it again",
            )
            .detail("generation", generation)),
            _ => Ok(()),
        }
    }
}

/// Nobody asks.
pub fn not_logged_in() -> Fail {
    Fail::new(orchestrator_api::error::Code::NotLoggedIn, "this needs a login").hint("`comb login` makes one")
}
