//! A node of IPFS behind the RPC of kubo, as its documentation says (docs.ipfs.tech/reference/kubo/rpc).
//!
//! Invariants
//! - A block that went in has the name that was computed here, and one that comes out is the one that was asked for.
//! - What a node says is bounded before it is kept.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;

use super::cid::{Cid, Codec};
use super::dag::{BLOCK_BYTES_MAX, Block};
use super::index::Blocks;
use super::record::RECORD_BYTES_MAX;
use crate::http::{Client, Failure};
use crate::url::Url;
use crate::{Kind, StoreError, Surroundings};

/// The most bytes of an answer that is no block: 10,000 pins.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// Bytes of nodes that are kept, since every way into an index goes through the same ones.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Where a secret for the RPC is looked for.
const AUTH_VARIABLE: &str = "IPFS_API_AUTH";

/// A node behind its RPC.
pub(super) struct Node {
    client: Client,
    root: url::Url,
    url: Url,
    auth: Option<HeaderValue>,
    kept: Mutex<Kept>,
}

/// Nodes that were read or made, the oldest first. They never change.
#[derive(Default)]
struct Kept {
    blocks: HashMap<Cid, Bytes>,
    order: VecDeque<Cid>,
    bytes: usize,
}

/// The secret is left out.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("root", &self.root.as_str()).finish_non_exhaustive()
    }
}

/// What `block/put` answers.
#[derive(Deserialize)]
struct Put {
    #[serde(rename = "Key")]
    key: String,
}

/// What `pin/ls` answers.
#[derive(Deserialize)]
struct Pins {
    #[serde(rename = "Keys", default)]
    keys: Option<HashMap<String, serde::de::IgnoredAny>>,
}

/// What `pin/remote/ls` answers, once for each pin.
#[derive(Deserialize)]
struct RemotePin {
    #[serde(rename = "Cid")]
    cid: String,
}

/// What `routing/get` answers.
#[derive(Deserialize)]
struct Value {
    #[serde(rename = "Extra", default)]
    extra: String,
}

impl Node {
    /// The node of a URL. Asks nobody yet.
    pub(super) fn open(url: &Url, host: &str, around: &Surroundings) -> Result<Node, StoreError> {
        let refused = |why: String| StoreError::new(Kind::Refused, "open", url, why);
        let root = url::Url::parse(&format!("http://{host}/api/v0/"));
        let root = root.map_err(|error| refused(error.to_string()))?;
        let denied = |why: &str| StoreError::new(Kind::Denied, "open", url, format!("{AUTH_VARIABLE} {why}"));
        let auth = around.variable(AUTH_VARIABLE).map(|secret| {
            let header = match secret.split_once(':') {
                Some(("bearer", token)) => format!("Bearer {token}"),
                Some(("basic", login)) => format!("Basic {}", BASE64_STANDARD.encode(login)),
                _ => return Err(denied("is neither bearer:TOKEN nor basic:NAME:PASSWORD")),
            };
            let header = HeaderValue::from_str(&header);
            let mut header = header.map_err(|_| denied("has letters that no header can hold"))?;
            header.set_sensitive(true);
            Ok(header)
        });
        let client = Client::new().map_err(refused)?;
        Ok(Node { client, root, url: url.clone(), auth: auth.transpose()?, kept: Mutex::default() })
    }

    /// An error that met a request for something.
    pub(super) fn error(
        &self,
        kind: Kind,
        action: &'static str,
        object: impl fmt::Display,
        why: impl ToString,
    ) -> StoreError {
        StoreError::new(kind, action, format_args!("{object} in {}", self.url), why)
    }

    /// Puts a block in.
    pub(super) async fn put(&self, block: &Block) -> Result<(), StoreError> {
        let Block { cid, bytes } = block;
        let parameters =
            [("cid-codec", cid.codec.name()), ("mhtype", "sha2-256"), ("mhlen", "32"), ("pin", "false")];
        let answer = self.call("block/put", &parameters, Some((cid, bytes.clone()))).await;
        let answer = answer.map_err(|failure| self.failed("create", cid, "block/put", &failure))?;
        let found: Put = self.read("create", cid, &answer)?;
        if Cid::parse(&found.key) != Some(*cid) {
            let what = format_args!("the node says that the block is {}", found.key);
            return Err(self.error(Kind::Damaged, "create", cid, what));
        }
        if cid.codec == Codec::DagPb {
            self.keep(cid, bytes.clone());
        }
        Ok(())
    }

    /// The block of that name, from wherever the node has or finds it.
    pub(super) async fn get(&self, cid: &Cid) -> Result<Bytes, StoreError> {
        if let Some(kept) = self.kept().blocks.get(cid) {
            return Ok(kept.clone());
        }
        let name = cid.to_string();
        let answer = self.send("block/get", &[("arg", &name)], None, BLOCK_BYTES_MAX).await;
        let bytes = answer.map_err(|failure| self.failed("get", cid, "block/get", &failure))?;
        if !cid.names(&bytes) {
            let what = format_args!("{} bytes came that are another block", bytes.len());
            return Err(self.error(Kind::Damaged, "get", cid, what));
        }
        if cid.codec == Codec::DagPb {
            self.keep(cid, bytes.clone());
        }
        Ok(bytes)
    }

    /// Pins all that a root leads to, under a name.
    pub(super) async fn pin(&self, root: &Cid, name: &str) -> Result<(), StoreError> {
        let cid = root.to_string();
        let parameters = [("arg", cid.as_str()), ("recursive", "true"), ("name", name)];
        self.done("create", root, "pin/add", &parameters).await
    }

    /// The same, where what another root leads to is pinned already.
    pub(super) async fn pin_beside(&self, root: &Cid, pinned: &Cid) -> Result<(), StoreError> {
        let (old, new) = (pinned.to_string(), root.to_string());
        let parameters = [("arg", old.as_str()), ("arg", new.as_str()), ("unpin", "false")];
        match self.call("pin/update", &parameters, None).await {
            // By us, before a crash, or because another volume holds the same: all empty ones do.
            Err(failure) if says(&failure, "already recursively pinned") => Ok(()),
            answer => answer.map(drop).map_err(|failure| self.failed("create", root, "pin/update", &failure)),
        }
    }

    /// Lets the node collect what nothing else pins.
    pub(super) async fn unpin(&self, root: &Cid) -> Result<(), StoreError> {
        let cid = root.to_string();
        match self.call("pin/rm", &[("arg", cid.as_str()), ("recursive", "true")], None).await {
            Err(failure) if says(&failure, "not pinned") => Ok(()),
            answer => answer.map(drop).map_err(|failure| self.failed("remove", root, "pin/rm", &failure)),
        }
    }

    /// The roots that are pinned under a name.
    pub(super) async fn pinned(&self, name: &str) -> Result<BTreeSet<Cid>, StoreError> {
        let parameters = [("type", "recursive"), ("names", "true"), ("name", name)];
        let answer = self.call("pin/ls", &parameters, None).await;
        let answer = answer.map_err(|failure| self.failed("list", name, "pin/ls", &failure))?;
        let pins: Pins = self.read("list", name, &answer)?;
        Ok(pins.keys.unwrap_or_default().keys().filter_map(|key| Cid::parse(key)).collect())
    }

    /// Asks a remote service to pin all that a root leads to.
    pub(super) async fn pin_remotely(&self, root: &Cid, name: &str, service: &str) -> Result<(), StoreError> {
        let cid = root.to_string();
        let parameters =
            [("arg", cid.as_str()), ("service", service), ("name", name), ("background", "true")];
        self.done("create", root, "pin/remote/add", &parameters).await
    }

    /// The roots that a remote service has pinned under a name.
    pub(super) async fn pinned_remotely(
        &self,
        name: &str,
        service: &str,
    ) -> Result<BTreeSet<Cid>, StoreError> {
        let parameters = [("service", service), ("name", name), ("status", "pinned")];
        let answer = self.call("pin/remote/ls", &parameters, None).await;
        let answer = answer.map_err(|failure| self.failed("list", name, "pin/remote/ls", &failure))?;
        let pins: Result<Vec<RemotePin>, _> =
            serde_json::Deserializer::from_slice(&answer).into_iter::<RemotePin>().collect();
        let pins = pins.map_err(|error| self.error(Kind::Unreachable, "list", name, error))?;
        Ok(pins.iter().filter_map(|pin| Cid::parse(&pin.cid)).collect())
    }

    /// Asks a remote service to pin a root no more.
    pub(super) async fn unpin_remotely(
        &self,
        root: &Cid,
        name: &str,
        service: &str,
    ) -> Result<(), StoreError> {
        let cid = root.to_string();
        let parameters = [("service", service), ("name", name), ("cid", cid.as_str()), ("force", "true")];
        self.done("remove", root, "pin/remote/rm", &parameters).await
    }

    /// Gives a record to the node, for itself and its network.
    pub(super) async fn publish(&self, name: &str, record: Bytes) -> Result<(), StoreError> {
        let key = format!("/ipns/{name}");
        // So that no part of the body is its boundary.
        let mark = Cid::of(Codec::Raw, &record);
        let parameters = [("arg", key.as_str()), ("allow-offline", "true")];
        let answer = self.call("routing/put", &parameters, Some((&mark, record))).await;
        answer.map(drop).map_err(|failure| self.failed("create", key, "routing/put", &failure))
    }

    /// The best record that the node or its network has.
    pub(super) async fn record(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let key = format!("/ipns/{name}");
        let answer = match self.call("routing/get", &[("arg", key.as_str())], None).await {
            Ok(answer) => answer,
            Err(failure) if says(&failure, "not found") => return Ok(None),
            Err(failure) => return Err(self.failed("get", key, "routing/get", &failure)),
        };
        let value: Value = self.read("get", &key, &answer)?;
        let record =
            BASE64_STANDARD.decode(&value.extra).ok().filter(|bytes| bytes.len() <= RECORD_BYTES_MAX);
        let odd = || self.error(Kind::Damaged, "get", &key, "what came is no record");
        Ok(Some(record.ok_or_else(odd)?.into()))
    }

    /// A call of which only matters that it was done.
    async fn done(
        &self,
        action: &'static str,
        root: &Cid,
        call: &'static str,
        parameters: &[(&str, &str)],
    ) -> Result<(), StoreError> {
        let answer = self.call(call, parameters, None).await;
        answer.map(drop).map_err(|failure| self.failed(action, root, call, &failure))
    }

    async fn call(
        &self,
        call: &str,
        parameters: &[(&str, &str)],
        file: Option<(&Cid, Bytes)>,
    ) -> Result<Bytes, Failure> {
        self.send(call, parameters, file, ANSWER_BYTES_MAX).await
    }

    /// Makes a call, with one file in its body if there is one, behind a boundary that cannot be in it.
    async fn send(
        &self,
        call: &str,
        parameters: &[(&str, &str)],
        file: Option<(&Cid, Bytes)>,
        most: usize,
    ) -> Result<Bytes, Failure> {
        let mut address = self.root.join(call).map_err(|error| Failure::Lost(error.to_string()))?;
        address.query_pairs_mut().extend_pairs(parameters).append_pair("cid-base", "base32");
        let (mut headers, mut body) = (HeaderMap::new(), VecDeque::new());
        if let Some(auth) = &self.auth {
            headers.insert(AUTHORIZATION, auth.clone());
        }
        if let Some((mark, bytes)) = file {
            // Nothing holds its own hash.
            let boundary = format!("comb-{mark}");
            let before = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            );
            let kind = format!("multipart/form-data; boundary={boundary}");
            let kind = HeaderValue::from_str(&kind).map_err(|error| Failure::Lost(error.to_string()))?;
            headers.insert(CONTENT_TYPE, kind);
            body.extend([before.into(), bytes, Bytes::from(format!("\r\n--{boundary}--\r\n"))]);
        }
        headers.insert(CONTENT_LENGTH, body.iter().map(Bytes::len).sum::<usize>().into());
        let answer = self.client.send(Method::POST, address, headers, body).await?;
        answer.into_body().whole(most).await
    }

    fn read<'a, T: Deserialize<'a>>(
        &self,
        action: &'static str,
        object: impl fmt::Display,
        answer: &'a [u8],
    ) -> Result<T, StoreError> {
        let odd = |error| {
            self.error(Kind::Refused, action, object, format_args!("what answers is no kubo: {error}"))
        };
        serde_json::from_slice(answer).map_err(odd)
    }

    /// What a failed call means.
    fn failed(
        &self,
        action: &'static str,
        object: impl fmt::Display,
        call: &str,
        failure: &Failure,
    ) -> StoreError {
        let (kind, hint) = match failure {
            Failure::Lost(_) => (Kind::Unreachable, String::new()),
            Failure::Untrusted(_) => (Kind::Refused, String::new()),
            Failure::TooLarge => (Kind::Damaged, String::new()),
            Failure::Answer(answer) => match answer.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.auth.is_none() => {
                    (Kind::Denied, format!("the RPC wants a secret: set {AUTH_VARIABLE}: "))
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    (Kind::Denied, format!("{AUTH_VARIABLE} is wrong, or may not do {call}: "))
                }
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                    (Kind::Refused, format!("what answers is no RPC of kubo, or has no {call}: "))
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    (Kind::Busy, String::new())
                }
                status if status.is_server_error() => (Kind::Unreachable, format!("{call}: ")),
                _ => (Kind::Refused, format!("{call}: ")),
            },
        };
        self.error(kind, action, object, format_args!("{hint}{failure}"))
    }

    fn keep(&self, cid: &Cid, bytes: Bytes) {
        let mut kept = self.kept();
        let size = bytes.len();
        if kept.blocks.insert(*cid, bytes).is_some() {
            return;
        }
        kept.order.push_back(*cid);
        kept.bytes += size;
        while kept.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.bytes -= kept.blocks.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }

    /// No step under the lock leaves it in between, so a panic elsewhere does not spoil it.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blocks for Node {
    async fn block(&self, cid: &Cid) -> Result<Bytes, StoreError> {
        self.get(cid).await
    }

    fn odd(&self, cid: &Cid) -> StoreError {
        self.error(Kind::Damaged, "get", cid, "it is no directory of an index")
    }
}

/// Whether the node says this of why it failed.
fn says(failure: &Failure, words: &str) -> bool {
    matches!(failure, Failure::Answer(answer)
        if answer.status == StatusCode::INTERNAL_SERVER_ERROR && answer.message.contains(words))
}
