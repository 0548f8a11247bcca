//! HTTP: a request becomes a [`Call`], a [`Reply`] becomes an answer. Who is asking is found here, before a handler sees
//! anything.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::Signer;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use orchestrator_api::error::{Code, ErrorBody};
use orchestrator_api::request::{Answer, DeviceHeader, HIVE_CONTEXT, Request, show_signature};
use orchestrator_api::route::{IdempotencyKey, segments};
use orchestrator_api::wire::{BODY_BYTES_MAX, HIVE_HEADER, IDEMPOTENCY_HEADER, JOIN_HEADER};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::auth::{self, Whose};
use super::call::{Body, Call, Caller, Reply, not_logged_in};
use super::chance;
use super::database::{How, Row, Tx};
use super::fail::Fail;
use super::gate::Part;
use super::pages;
use super::people::may;
use super::routes::{self, Door, Handler, Route, Who};
use super::tenant::Tenant;
use super::{Shared, operations};

/// How long a request may take to arrive.
const ARRIVE_WAIT: Duration = Duration::from_secs(30);
/// How long who is answered may take nothing of it. No wait for a head runs meanwhile.
const TAKE_WAIT: Duration = Duration::from_secs(30);
/// The longest head, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a large one may take.
const ARRIVE_WAIT_LARGE: Duration = Duration::from_secs(600);
/// How much of a form that is too large is read and dropped, and for how long.
const DROP_BYTES_MAX: usize = 8 << 20;
const DROP_WAIT: Duration = Duration::from_secs(5);
const REMEMBERED_MS: i64 = 24 * 3_600_000;

type Sent = BoxBody<Bytes, Infallible>;

/// Serves one connection.
pub async fn connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    must_take_within(&stream, TAKE_WAIT);
    served(shared, stream, peer).await;
}

/// Lets the kernel end a connection whose other side takes nothing of what was sent for so long. Each byte that is taken begins the
/// wait anew, which writes that wait for room would not show: the room for a slow reader is large.
fn must_take_within(stream: &TcpStream, wait: Duration) {
    let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, ms) {
        tracing::debug!(%error, "a connection that takes nothing will not be ended");
    }
}

/// Serves what is asked, by HTTP/1.1: there each wait for a head has an end, whether it is the first one or not begun yet. Of HTTP/2
/// a silent connection would be kept for ever.
async fn served<S>(shared: Arc<Shared>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = shared.clone();
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(shared, request, peer.ip()).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(ARRIVE_WAIT).max_header_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => {}
        () = closing.closed() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(Duration::from_secs(5), connection).await;
        }
    }
}

/// The same, behind TLS.
pub async fn secured(
    shared: Arc<Shared>,
    acceptor: tokio_rustls::TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) {
    must_take_within(&stream, TAKE_WAIT);
    match tokio::time::timeout(ARRIVE_WAIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => served(shared, stream, peer).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection did not become TLS"),
        Err(_) => {}
    }
}

/// Says that there is no room for another connection, without waiting for anybody. Who speaks TLS finds it closed.
pub fn turn_away(stream: TcpStream, tls: bool) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    if let (false, Ok(mut stream)) = (tls, stream.into_std()) {
        // It does not block: there is room for so much, or nobody reads.
        let _ = std::io::Write::write(&mut stream, FULL);
    }
}

async fn answer(shared: Arc<Shared>, request: HttpRequest<Incoming>, peer: IpAddr) -> Response<Sent> {
    let signed =
        header(request.headers(), AUTHORIZATION.as_str()).and_then(|text| DeviceHeader::parse(text).ok());
    let reply = match handled(&shared, request, peer, signed).await {
        Ok(reply) => reply,
        Err((fail, device)) => failed(fail, device),
    };
    let (status, retry) = (reply.0.status, reply.1);
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap_or(StatusCode::OK));
    if let Some(generation) = reply.0.etag {
        response = response.header(ETAG, format!("\"{generation}\""));
    }
    if let Some(ms) = retry {
        response = response.header(RETRY_AFTER, ms.div_ceil(1000));
    }
    if !reply.0.headers.iter().any(|(name, _)| *name == "cache-control") {
        response = response.header("cache-control", "no-store");
    }
    for (name, value) in &reply.0.headers {
        response = response.header(*name, value);
    }
    response = response.header("x-content-type-options", "nosniff");
    let (kind, bytes) = match reply.0.body {
        Body::Empty => (None, Bytes::new()),
        Body::Json(bytes) => (Some("application/json"), bytes.into()),
        Body::Object(bytes) => (Some("application/octet-stream"), bytes.into()),
        Body::Page(bytes) => {
            response = response
                .header("content-security-policy", orchestrator_console::POLICY)
                .header("referrer-policy", "no-referrer")
                .header("cross-origin-opener-policy", "same-origin")
                .header("x-frame-options", "DENY");
            (Some("text/html; charset=utf-8"), bytes.into())
        }
        Body::Picture(kind, bytes) => (Some(kind), bytes.into()),
        Body::Asset(asset) => (Some(asset.kind), Bytes::from_static(asset.bytes)),
        Body::Events(receive) => {
            let response = response.header(CONTENT_TYPE, "text/event-stream").body(events(receive));
            return response.unwrap_or_else(|_| Response::new(empty()));
        }
    };
    if let Some(kind) = kind {
        response = response.header(CONTENT_TYPE, kind);
    }
    if let Some(signed) = signed {
        let answer = Answer { hive: shared.public(), request: signed.signature, status, body: &bytes };
        let digest = fs_format::signature::signed_digest(HIVE_CONTEXT, &answer.bytes());
        let signature = shared.key.sign(&digest).to_bytes();
        response = response.header(HIVE_HEADER, show_signature(&signature));
    }
    response.body(Full::new(bytes).boxed()).unwrap_or_else(|_| Response::new(empty()))
}

fn empty() -> Sent {
    Full::new(Bytes::new()).boxed()
}

fn events(receive: mpsc::Receiver<Bytes>) -> Sent {
    struct Events(mpsc::Receiver<Bytes>);

    impl hyper::body::Body for Events {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
        }
    }
    BodyExt::boxed(Events(receive))
}

type Answered = (Reply, Option<u64>);

fn failed(fail: Fail, device: bool) -> Answered {
    let error = fail.answer();
    let status = match error.code {
        // Of a person's order the device is the matter; to a device it is the caller.
        Code::DeviceRevoked if !device => 422,
        code => code.status(),
    };
    let retry = error.retry_after_ms;
    (Reply::json(&ErrorBody { error: *error }).status(status), retry)
}

fn header<'h>(headers: &'h HeaderMap<HeaderValue>, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn query(text: &str) -> Result<BTreeMap<String, String>, Fail> {
    let wrong = || Fail::new(Code::BadRequest, "what stands behind the question mark cannot be read");
    let mut out = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = segments(&format!("/{value}")).map_err(|_| wrong())?;
        let value = decoded.into_iter().next().unwrap_or_default();
        if out.len() == 16 || out.insert(name.to_owned(), value).is_some() {
            return Err(wrong());
        }
    }
    Ok(out)
}

fn address(shared: &Shared, headers: &HeaderMap<HeaderValue>, peer: IpAddr) -> IpAddr {
    if !shared.proxies.contains(&peer) {
        return peer;
    }
    // The last one is what the proxy itself saw.
    let told =
        header(headers, "x-forwarded-for").and_then(|text| text.rsplit(',').next()?.trim().parse().ok());
    told.unwrap_or(peer)
}

async fn handled(
    shared: &Arc<Shared>,
    request: HttpRequest<Incoming>,
    peer: IpAddr,
    signed: Option<DeviceHeader>,
) -> Result<Answered, (Fail, bool)> {
    let device = signed.is_some();
    let person = |fail: Fail| (fail, device);
    let (head, incoming) = request.into_parts();
    let path = head.uri.path().to_owned();
    let path_and_query = head.uri.path_and_query().map_or(path.clone(), |all| all.as_str().to_owned());
    let found = segments(&path)
        .map_err(|error| Fail::new(Code::BadRequest, error.to_string()))
        .map(|parts| routes::find(head.method.as_str(), &parts));
    let address = address(shared, &head.headers, peer);
    let is_page = match &found {
        Ok(Some((route, _))) => route.door != Door::Json,
        // Of what leads nowhere a browser says that it wants a page.
        _ => {
            header(&head.headers, "accept").is_some_and(|kinds| kinds.contains("text/html"))
                && !path.starts_with("/v1/")
        }
    };
    if is_page {
        let is_secure = shared.is_secure(&head.headers, peer);
        let wish = match found {
            Ok(Some(page)) => wish(shared, page, &head, incoming, (address, is_secure)).await,
            Ok(None) => Err(Fail::new(Code::NotFound, "no page has this address")),
            Err(fail) => Err(fail),
        };
        let (wish, _part) = wish.map_or_else(|fail| (Err(fail), None), |(wish, part)| (Ok(wish), part));
        let asked = pages::Asked { wish, path_and_query, address, is_secure };
        return Ok((pages::answer(shared, asked, &head).await, None));
    }
    let Some((route, params)) = found.map_err(person)? else {
        return Err(person(Fail::new(Code::NotFound, "there is no such route")));
    };
    let query = query(head.uri.query().unwrap_or_default()).map_err(person)?;
    let bearer = header(&head.headers, AUTHORIZATION.as_str()).and_then(|text| text.strip_prefix("Bearer "));
    let by_device = signed.filter(|_| matches!(route.who, Who::Device | Who::Hello | Who::Either(_)));
    let known = known(shared, route, bearer, by_device, address).await.map_err(person)?;
    let (body, _part) = read(shared, route, &head.headers, incoming, address).await.map_err(person)?;
    let caller = match (known, by_device) {
        (Some(known), _) => known,
        (None, Some(header)) => {
            let asked = Asked { path_and_query: &path_and_query, body: &body };
            let found = by_signature(shared, route, header, &asked).await;
            if found.is_err() {
                shared.limits.waste(Whose::Near(address.into()));
            }
            let caller = found.map_err(person)?;
            let own = shared.limits.take(Whose::Device(header.device));
            own.map_err(Fail::slow_down).map_err(person)?;
            caller
        }
        (None, None) => Caller::Nobody,
    };
    let if_match = header(&head.headers, IF_MATCH.as_str());
    let if_match = if_match.map(|text| text.trim_matches('"').parse::<u64>());
    let if_match =
        if_match.transpose().map_err(|_| person(Fail::field("If-Match", "If-Match is no generation")))?;
    let key = header(&head.headers, IDEMPOTENCY_HEADER).map(str::to_owned);
    let call = Arc::new(Call {
        shared: shared.clone(),
        caller,
        params,
        query,
        if_match,
        last_event: header(&head.headers, "last-event-id").map(str::to_owned),
        join: header(&head.headers, JOIN_HEADER).map(str::to_owned),
        signed,
        method: route.method,
        path_and_query,
        body,
        address,
        visit: pages::Visit::default(),
    });
    let reply = match route.handler {
        Handler::Free(handler) => handler(call.clone()).await,
        Handler::Read(handler) => looked(&call, handler).await,
        Handler::Write(handler) => changed(&call, handler, key).await,
    };
    let reply = match reply {
        Ok(Reply { order: Some(id), .. }) if matches!(call.caller, Caller::Person { .. }) => {
            let reply = reply.map_err(person)?;
            operations::wait(&call, id, reply).await
        }
        reply => reply,
    };
    reply.map(|reply| (reply, None)).map_err(person)
}

/// What is asked of a page that there is, and what it takes of all that may be under way.
async fn wish(
    shared: &Arc<Shared>,
    (route, params): (&'static Route, Vec<String>),
    head: &Parts,
    mut incoming: Incoming,
    (address, is_secure): (IpAddr, bool),
) -> Result<(pages::Wish, Option<Part>), Fail> {
    let query = pages::query(head.uri.query().unwrap_or_default())?;
    let limit = route.max as u64;
    if told_length(&head.headers).is_some_and(|told| told > limit) {
        // A browser that still sends would not see the answer.
        let _ = tokio::time::timeout(DROP_WAIT, drop_some(&mut incoming)).await;
        return Err(form_too_large(limit));
    }
    // Whoever is nobody is led to the login, whatever the form holds.
    let is_read = route.max <= BODY_BYTES_MAX || pages::is_visited(shared, head, is_secure).await;
    let (body, part) = match is_read {
        true => read(shared, route, &head.headers, incoming, address).await.map_err(|fail| match fail {
            Fail::Api(error) if error.code == Code::TooLarge => form_too_large(limit),
            other => other,
        })?,
        false => (Bytes::new(), None),
    };
    Ok((pages::Wish { route, params, query, body }, part))
}

fn form_too_large(limit: u64) -> Fail {
    Fail::new(
        Code::TooLarge,
        format!("what was sent is too long: this page takes {} KiB at most", limit >> 10),
    )
    .hint("Go back, and send less.")
}

/// Reads a body on without keeping it, as far as that makes sense.
async fn drop_some(incoming: &mut Incoming) {
    let mut left = DROP_BYTES_MAX;
    while let Some(Ok(frame)) = incoming.frame().await {
        let len = frame.data_ref().map_or(0, Bytes::len);
        if len > left {
            return;
        }
        left -= len;
    }
}

fn told_length(headers: &HeaderMap<HeaderValue>) -> Option<u64> {
    header(headers, "content-length").and_then(|text| text.parse().ok())
}

/// Reads a body, with what it takes of all that may be under way.
async fn read(
    shared: &Shared,
    route: &Route,
    headers: &HeaderMap<HeaderValue>,
    incoming: Incoming,
    address: IpAddr,
) -> Result<(Bytes, Option<Part>), Fail> {
    let too_large = || {
        Fail::new(Code::TooLarge, format!("a request of this route has at most {} bytes", route.max))
            .detail("limit", route.max)
    };
    if told_length(headers).is_some_and(|told| told > route.max as u64) {
        return Err(too_large());
    }
    let part = match incoming.size_hint().exact() {
        Some(0) => None,
        size => {
            let size = size.unwrap_or(route.max as u64);
            Some(shared.bodies.take(address, size).ok_or_else(Fail::full)?)
        }
    };
    let wait = if route.max > (8 << 20) { ARRIVE_WAIT_LARGE } else { ARRIVE_WAIT };
    match tokio::time::timeout(wait, Limited::new(incoming, route.max).collect()).await {
        Ok(Ok(body)) => Ok((body.to_bytes(), part)),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Fail::new(Code::BadRequest, "the request did not arrive whole")),
        Err(_) => Err(Fail::new(Code::BadRequest, "the request did not arrive in time")),
    }
}

struct Asked<'a> {
    path_and_query: &'a str,
    body: &'a Bytes,
}

/// Who asks, as far as the headers say it: of people all, of devices that there is one. Nobody sends a large body before.
async fn known(
    shared: &Arc<Shared>,
    route: &'static Route,
    bearer: Option<&str>,
    by_device: Option<DeviceHeader>,
    address: IpAddr,
) -> Result<Option<Caller>, Fail> {
    if let Some(header) = by_device {
        // Whoever knows a device's id can name it: what is its own is counted when it has signed.
        let near = Whose::Near(address.into());
        shared.limits.look(near).map_err(Fail::slow_down)?;
        if route.max > BODY_BYTES_MAX {
            let there = move |tx: &mut dyn Tx| auth::is_device(tx, header.device);
            let there = shared.database.transact(How::Read, there).await;
            if there.is_err() {
                shared.limits.waste(near);
            }
            there?;
        }
        return Ok(None);
    }
    let role = match route.who {
        Who::Person(role) | Who::Either(role) => Some(role),
        Who::Device | Who::Hello => {
            return Err(Fail::new(
                Code::BadSignature,
                "this route is for devices, which sign their requests",
            ));
        }
        Who::All | Who::Join => None,
    };
    let found = match bearer {
        Some(token) if token.len() <= 256 => {
            let token = token.to_owned();
            shared.database.transact(How::Read, move |tx| auth::person(tx, &token)).await
        }
        _ => Err(not_logged_in()),
    };
    match (role, found) {
        (Some(role), Ok(caller)) => {
            if let Caller::Person { token, .. } = &caller {
                shared.limits.take(Whose::Token(token.0)).map_err(Fail::slow_down)?;
            }
            may(&caller, role)?;
            Ok(Some(caller))
        }
        (Some(_), Err(fail)) => {
            // Guessing tokens is no faster than guessing passwords.
            tracing::debug!(%address, "a request without a login");
            Err(fail)
        }
        (None, Ok(caller)) if route.who == Who::All => Ok(Some(caller)),
        (None, _) => Ok(None),
    }
}

/// The device that signed.
async fn by_signature(
    shared: &Arc<Shared>,
    route: &'static Route,
    header: DeviceHeader,
    asked: &Asked<'_>,
) -> Result<Caller, Fail> {
    let (path, body, hive) = (asked.path_and_query.to_owned(), asked.body.clone(), shared.public());
    let hello = route.who == Who::Hello;
    shared
        .database
        .transact(How::Read, move |tx| {
            let request = Request {
                hive,
                session: [0; 16],
                device: header.device,
                number: header.number,
                method: route.method,
                path_and_query: &path,
                body: &body,
            };
            auth::device(tx, &header, &request, hello)
        })
        .await
}

type Work = fn(&Call, &mut Tenant<'_>) -> Result<Reply, Fail>;

/// A look, in a transaction of the caller's account.
pub async fn looked(call: &Arc<Call>, handler: Work) -> Result<Reply, Fail> {
    let (account, inside) = (call.account()?, call.clone());
    call.shared
        .database
        .transact(How::Read, move |tx| handler(&inside, &mut inside.sign(Tenant::new(tx, account))))
        .await
}

impl Call {
    /// A change in a transaction of the caller's account; what it wakes is told when it is committed.
    pub async fn write<R: Send + 'static>(
        self: &Arc<Self>,
        mut work: impl FnMut(&Call, &mut Tenant<'_>) -> Result<R, Fail> + Send + 'static,
    ) -> Result<R, Fail> {
        let (account, inside) = (self.account()?, self.clone());
        let (done, told) = self
            .shared
            .database
            .transact(How::Write, move |tx| {
                let mut tenant = inside.sign(Tenant::new(tx, account));
                if matches!(inside.caller, Caller::Person { .. }) {
                    tenant.alone()?;
                }
                let done = work(&inside, &mut tenant)?;
                Ok((done, tenant.end()?))
            })
            .await?;
        self.shared.deliver(told);
        Ok(done)
    }
}

async fn changed(call: &Arc<Call>, handler: Work, key: Option<String>) -> Result<Reply, Fail> {
    let token = match (&call.caller, call.method) {
        (Caller::Person { token, .. }, "POST") => Some(*token),
        _ => None,
    };
    let Some(token) = token else { return call.write(handler).await };
    let key = key.as_deref().and_then(IdempotencyKey::parse).ok_or_else(|| {
        Fail::new(Code::BadRequest, "an order carries Idempotency-Key, 1 to 64 letters, digits and hyphens")
    })?;
    call.write(move |call, tenant| once(call, tenant, token.0, &key, handler)).await
}

/// Does what is asked, or tells what came of it when it was asked before.
fn once(
    call: &Call,
    tenant: &mut Tenant<'_>,
    token: [u8; 16],
    key: &IdempotencyKey,
    handler: Work,
) -> Result<Reply, Fail> {
    let hash = *blake3::hash(&call.body).as_bytes();
    let sql = "SELECT path, body_hash, status, answer, ends FROM idempotency WHERE account = $1 AND token = $2 \
         AND key = $3";
    let found = tenant.one(sql, &[token.into(), key.as_str().into()])?;
    if let Some(row) = found.filter(|row| row.int(4).is_ok_and(|ends| ends > chance::now())) {
        let same = row.text(0)? == call.path_and_query && row.id::<32>(1)? == hash;
        let answer = row.maybe(3, Row::bytes)?;
        return match (same, answer) {
            (true, Some(answer)) => {
                let status = u16::try_from(row.int(2)?).unwrap_or(200);
                let order = serde_json::from_slice::<orchestrator_api::wire::operation::Ordered>(answer).ok();
                let reply = Reply {
                    status,
                    body: Body::Json(answer.to_vec()),
                    order: order.map(|ordered| ordered.operation.id),
                    ..Reply::none()
                };
                Ok(reply)
            }
            (true, None) => {
                Err(Fail::new(Code::Exists, "this was done, and what it showed is shown once only")
                    .hint("remove what was made, and make it anew with another Idempotency-Key"))
            }
            (false, _) => Err(Fail::new(Code::Exists, "another request had this Idempotency-Key")),
        };
    }
    let reply = handler(call, tenant)?;
    let answer = match &reply.body {
        Body::Json(bytes) if !reply.secret => Some(bytes.clone()),
        Body::Empty => Some(Vec::new()),
        _ => None,
    };
    tenant.execute(
        "INSERT INTO idempotency (account, token, key, path, body_hash, status, answer, ends) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (account, token, key) DO UPDATE SET \
         path = excluded.path, body_hash = excluded.body_hash, status = excluded.status, \
         answer = excluded.answer, ends = excluded.ends",
        &[
            token.into(),
            key.as_str().into(),
            (&call.path_and_query).into(),
            hash.into(),
            i64::from(reply.status).into(),
            answer.into(),
            (chance::now() + REMEMBERED_MS).into(),
        ],
    )?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_has_no_place_for_long() {
        let wait = Duration::from_secs(2);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("has one");
        let mut theirs = TcpStream::connect(address).await.expect("it listens");
        let (mut ours, _) = listener.accept().await.expect("it came");
        must_take_within(&ours, wait);
        let written = tokio::spawn(async move {
            let part = vec![0; 1 << 20];
            while ours.write_all(&part).await.is_ok() {}
        });
        // Who reads slowly is served on, though it takes longer than the wait.
        let mut part = vec![0; 256 << 10];
        for _ in 0..6 {
            tokio::time::sleep(wait / 2).await;
            theirs.read_exact(&mut part).await.expect("it is served");
        }
        assert!(!written.is_finished());
        let ended = tokio::time::timeout(Duration::from_secs(30), written).await;
        ended.expect("it ends").expect("it does not panic");
    }
}
