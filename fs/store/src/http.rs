//! HTTP, as all kinds of store over a network use it: one client, in which bytes are seen moving.
//!
//! Invariants
//! - Nothing is tried again, and no redirect is followed: both are for who asked to decide.
//! - What is sent goes in pieces, each told to the [`Flow`] of the request when it goes.
//! - Bodies that are kept whole before anybody looks (listings, errors) are bounded.
//! - An error holds no header and no query of the request, so no secret.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Method, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::flow::Flow;
use crate::tls;

/// Bytes that are told, and waited for, at once.
///
/// Small enough that a slow line moves one well within a deadline: at 100 kbit/s it takes 5 s.
const PIECE_BYTES: usize = 64 * 1024;

/// The most bytes of a listing: 100,000 names as WebDAV lists them, in one answer, come close to it.
pub(crate) const LISTING_BYTES_MAX: usize = 128 << 20;
/// The most bytes of an error's body that are looked at.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How long a connection may be opened for; the deadline of a request is told apart from this by its words.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(9);
/// The same for the service that gives credentials to machines in a cloud: elsewhere nobody listens there.
const INSTANCE_TIME_MAX: Duration = Duration::from_secs(1);
/// Longer than a server keeps a connection open that nobody uses would be for nothing.
const IDLE_TIME_MAX: Duration = Duration::from_secs(50);

/// A client for one store.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    inside: reqwest::Client,
}

/// Why a request brought nothing back.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server answered that it will not, or cannot.
    Answer(Answer),
    /// No answer came, or not to its end.
    Lost(String),
    /// Its certificate is not one that the system trusts for that name: nothing was sent.
    Untrusted(String),
    /// The answer is larger than anything that is kept.
    TooLarge,
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// The code in its body, as in `NoSuchBucket`; empty if there is none.
    pub(crate) code: String,
    /// What the server says of it for a person; empty if nothing.
    pub(crate) message: String,
    /// Where a redirect leads to.
    pub(crate) to: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Answer(answer) => write!(f, "{answer}"),
            Failure::Lost(why) => f.write_str(why),
            Failure::Untrusted(why) => write!(
                f,
                "the server's certificate is not trusted: {why}. Is the URL right? An authority of your own goes among those of the system"
            ),
            Failure::TooLarge => write!(f, "the answer has more than {LISTING_BYTES_MAX} bytes"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_u16())?;
        let words = [self.code.as_str(), self.message.as_str()];
        if words.iter().all(|words| words.is_empty()) {
            return write!(f, " {}", self.status.canonical_reason().unwrap_or_default());
        }
        words.iter().filter(|words| !words.is_empty()).try_for_each(|words| write!(f, " {words}"))
    }
}

impl Error for Failure {}

impl Client {
    /// A client for a store.
    pub(crate) fn new() -> Result<Client, String> {
        Client::with(CONNECT_TIME_MAX)
    }

    /// A client that opens a connection in that time, or not at all.
    fn with(connect: Duration) -> Result<Client, String> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("comb/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(connect)
            .pool_idle_timeout(IDLE_TIME_MAX)
            .tcp_nodelay(true)
            .tls_backend_preconfigured(tls::client()?);
        Ok(Client { inside: builder.build().map_err(|error| root(&error))? })
    }

    /// Sends one request. Its answer is a success, and its body not yet read.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: reqwest::Url,
        headers: HeaderMap,
        body: VecDeque<Bytes>,
    ) -> Result<http::Response<Download>, Failure> {
        let listing = is_listing(&method, url.query());
        let flow = Flow::current();
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = headers;
        if !body.is_empty() || request.headers().contains_key(CONTENT_LENGTH) {
            *request.body_mut() = Some(reqwest::Body::wrap(Upload::new(body, flow.clone())));
        }
        let answer = self.inside.execute(request).await.map_err(|error| match is_untrusted(&error) {
            true => Failure::Untrusted(root(&error)),
            false => Failure::Lost(root(&error)),
        })?;
        if let Some(flow) = &flow {
            flow.moved();
        }
        let (parts, inside) = http::Response::from(answer).into_parts();
        let left = if listing { LISTING_BYTES_MAX } else { usize::MAX };
        let body = Download { inside, flow, left };
        if parts.status.is_success() {
            return Ok(http::Response::from_parts(parts, body));
        }
        let to = parts.headers.get(http::header::LOCATION).and_then(|to| to.to_str().ok());
        let to = to.map(|to| to.split('?').next().unwrap_or_default().to_owned());
        // Without its words the status still says what to do.
        let words = body.beginning(ERROR_BYTES_MAX).await;
        let words = String::from_utf8_lossy(&words);
        let (mut code, message) = (element(&words, "Code"), element(&words, "Message"));
        if code.is_empty() {
            // As whoever gives tokens answers.
            code = field(&words, "error").unwrap_or_default();
        }
        Err(Failure::Answer(Answer { status: parts.status, code, message, to }))
    }
}

/// Whether the answer is a list, which is kept whole before it is looked at; only objects are not.
fn is_listing(method: &Method, query: Option<&str>) -> bool {
    let query = query.unwrap_or_default();
    *method != Method::GET || query.contains("list-type=") || query.contains("comp=list")
}

/// What stands in the first element of that name in an error's body, in XML or in JSON.
fn element(text: &str, name: &str) -> String {
    let between = |from: &str, to: &str| {
        let rest = &text[text.find(from)? + from.len()..];
        Some(rest[..rest.find(to)?].trim().to_owned())
    };
    let lower = name.to_lowercase();
    let xml = between(&format!("<{name}>"), &format!("</{name}>"));
    let json = || between(&format!("\"{lower}\": \""), "\"");
    xml.or_else(json).or_else(|| field(text, name)).unwrap_or_default()
}

/// The text of that field of an object in JSON, as kubo answers.
fn field(text: &str, name: &str) -> Option<String> {
    let object: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(object.get(name)?.as_str()?.to_owned())
}

/// The first cause of an error, which is the one that says something, without the URL.
fn root(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Whether no request was sent because of who answered.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return matches!(error, rustls::Error::InvalidCertificate(_));
        }
        // An error of input or output leaves itself out where it tells its source.
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    false
}

/// A body on its way to the store.
struct Upload {
    rest: VecDeque<Bytes>,
    flow: Option<Flow>,
    /// Until when the next piece waits, once it was asked for.
    turn: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    fn new(mut rest: VecDeque<Bytes>, flow: Option<Flow>) -> Upload {
        rest.retain(|part| !part.is_empty());
        Upload { rest, flow, turn: None }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        let Some(part) = this.rest.front_mut() else { return Poll::Ready(None) };
        let size = part.len().min(PIECE_BYTES);
        if let Some(flow) = &this.flow {
            let turn = this.turn.get_or_insert_with(|| Box::pin(sleep_until(flow.may_send(size))));
            if turn.deadline() > Instant::now() {
                ready!(turn.as_mut().poll(context));
            }
            this.turn = None;
        }
        let piece = part.split_to(size);
        if part.is_empty() {
            this.rest.pop_front();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.iter().map(|part| part.len() as u64).sum())
    }
}

/// A body on its way from the store.
pub(crate) struct Download {
    inside: reqwest::Body,
    flow: Option<Flow>,
    /// How many bytes more are taken.
    left: usize,
}

impl Download {
    /// All of it, of which there may be so many bytes.
    pub(crate) async fn whole(mut self, most: usize) -> Result<Bytes, Failure> {
        self.left = self.left.min(most);
        let mut bytes = BytesMut::with_capacity(self.size_hint().lower().min(self.left as u64) as usize);
        while let Some(frame) = self.frame().await {
            if let Ok(data) = frame?.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    }

    /// As much of its beginning as can be had, of which there may be so many bytes.
    async fn beginning(mut self, most: usize) -> BytesMut {
        let mut bytes = BytesMut::new();
        while bytes.len() < most
            && let Some(Ok(frame)) = self.frame().await
        {
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        bytes.truncate(most);
        bytes
    }

    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, Failure>> {
        poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let frame = match ready!(Pin::new(&mut self.inside).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(Failure::Lost(root(&error))))),
            Some(Ok(frame)) => frame,
        };
        let size = frame.data_ref().map_or(0, Bytes::len);
        if let Some(flow) = &self.flow {
            flow.received(size);
        }
        Poll::Ready(Some(match self.left.checked_sub(size) {
            None => Err(Failure::TooLarge),
            Some(left) => {
                self.left = left;
                Ok(frame)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inside.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inside.size_hint()
    }
}

/// The options that [`Connector`] knows as ours.
pub(crate) fn client_options() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT_TIME_MAX).with_allow_http(true)
}

/// Who asks `object_store` for a client gets ours.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Only for credentials of an instance does it set a time of its own: there, nobody may listen.
        let connect = |options: &ClientOptions| options.get_config_value(&ClientConfigKey::ConnectTimeout);
        let credentials = connect(options) != connect(&client_options());
        let client = Client::with(if credentials { INSTANCE_TIME_MAX } else { CONNECT_TIME_MAX })
            .map_err(|error| object_store::Error::Generic { store: "HTTP", source: error.into() })?;
        Ok(HttpClient::new(Service { client, credentials }))
    }
}

/// That the service was asked which gives credentials to machines in a cloud, and did not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoInstanceCredentials(pub(crate) Failure);

/// That what came as a listing is none.
#[derive(Debug, thiserror::Error)]
#[error("what came is no listing")]
struct NoListing;

#[derive(Debug)]
struct Service {
    client: Client,
    /// Whether it is asked for credentials only.
    credentials: bool,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url =
            parse(&parts.uri).map_err(|why| HttpError::new(HttpErrorKind::Unknown, Failure::Lost(why)))?;
        let failed = |failure| match self.credentials {
            true => HttpError::new(HttpErrorKind::Unknown, NoInstanceCredentials(failure)),
            false => HttpError::new(HttpErrorKind::Unknown, failure),
        };
        let listing = parts.method == Method::GET && is_listing(&parts.method, url.query());
        let answer = self.client.send(parts.method, url, parts.headers, pieces(body).await?).await;
        let (parts, body) = answer.map_err(failed)?.into_parts();
        if !listing {
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(Answered(body))));
        }
        let body = body.whole(LISTING_BYTES_MAX).await.map_err(failed)?;
        // Else any page that can be read, as of a login to some network, would look like an empty bucket.
        let beginning = String::from_utf8_lossy(&body[..body.len().min(1024)]);
        if !["<ListBucketResult", "<EnumerationResults"].iter().any(|root| beginning.contains(root)) {
            return Err(HttpError::new(HttpErrorKind::Decode, NoListing));
        }
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

fn parse(uri: &Uri) -> Result<reqwest::Url, String> {
    uri.to_string().parse().map_err(|error| format!("no URL: {error}"))
}

/// The parts of a body, which are not copied.
async fn pieces(mut body: HttpRequestBody) -> Result<VecDeque<Bytes>, HttpError> {
    let mut parts = VecDeque::new();
    if let Some(bytes) = body.as_bytes() {
        parts.push_back(bytes.clone());
        return Ok(parts);
    }
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        parts.extend(frame?.into_data());
    }
    Ok(parts)
}

/// A body with the error type that `object_store` wants.
struct Answered(Download);

impl Body for Answered {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(context));
        Poll::Ready(
            frame.map(|frame| frame.map_err(|failure| HttpError::new(HttpErrorKind::Unknown, failure))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
