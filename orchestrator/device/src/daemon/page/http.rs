//! Connections, and what every request passes before a page sees it (`docs/page.md`, section 2).

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST,
    HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN, SET_COOKIE,
};
use hyper::http::request::Parts as Head;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use orchestrator_console::{POLICY, show};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::keys::{Keys, SESSION_MS};
use super::link::Fields;
use super::routes::{self, Guard, Route};
use super::tls;
use crate::daemon::World;
use crate::doors::clock;
use crate::doors::past::Reading;

/// The most connections.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to become TLS, a head to arrive since the connection or the answer before it, and a form.
const ARRIVE_WAIT: Duration = Duration::from_secs(10);
/// How long who is answered may take nothing of it. No wait for a head runs meanwhile.
const TAKE_WAIT: Duration = Duration::from_secs(30);
/// The longest head and form, in bytes: a path of 4,096 bytes fits, each written by its number, in a form even twice.
const HEAD_BYTES_MAX: usize = 32 << 10;
const FORM_BYTES_MAX: usize = 32 << 10;
/// What is read of a file at a time, in bytes.
const PART_BYTES: usize = 64 << 10;
/// How many such parts wait for a slow reader.
const PARTS_MAX: usize = 2;
/// The cookies: `__Host-` lets no other host, no other path and no plain HTTP set them.
const SESSION_COOKIE: &str = "__Host-comb-page";
const THEME_COOKIE: &str = "__Host-comb-theme";

/// What a volume's own bytes may do in a browser: nothing.
pub const POLICY_OF_BYTES: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

/// What is asked.
pub struct Asked {
    /// The device.
    pub world: Arc<World>,
    /// The path, without the query.
    pub path: String,
    /// Path and query, as they came.
    pub whole: String,
    /// What stands behind the question mark.
    pub query: Fields,
    /// What a form holds.
    pub form: Fields,
    /// What forms of this session carry; empty without one.
    pub token: String,
    /// The cookie of the session.
    pub cookie: Option<String>,
    /// Light or dark.
    pub theme: String,
    /// Where it comes from.
    pub peer: IpAddr,
    /// Whether another site led here, so that cookies were not sent.
    pub is_from_elsewhere: bool,
}

/// What is answered.
pub struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Content,
    policy: &'static str,
}

enum Content {
    Bytes(Bytes),
    Parts(mpsc::Receiver<io::Result<Bytes>>),
}

type Sent = UnsyncBoxBody<Bytes, io::Error>;

impl Answer {
    /// A page.
    pub fn page(bytes: Vec<u8>) -> Self {
        Self::of("text/html; charset=utf-8", bytes)
    }

    /// Bytes of a type.
    pub fn of(kind: &str, bytes: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: vec![(CONTENT_TYPE, kind.to_owned())],
            body: Content::Bytes(bytes.into()),
            policy: POLICY,
        }
    }

    /// Another page is to be asked for.
    pub fn see(path: &str) -> Self {
        let answer = Self::of("text/plain; charset=utf-8", Bytes::new()).status(StatusCode::SEE_OTHER);
        answer.header(LOCATION, path.to_owned())
    }

    /// What comes piece by piece.
    pub fn parts(kind: &str, parts: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { body: Content::Parts(parts), ..Self::of(kind, Bytes::new()) }
    }

    /// The bytes of a file as they are read; a browser does nothing with them but show a picture or keep a file.
    ///
    /// `head` was read of it already.
    pub fn reading(
        kind: &str,
        head: Vec<u8>,
        reading: Reading,
        len: Option<u64>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (to, parts) = mpsc::channel(PARTS_MAX);
        tokio::spawn(async move {
            let _permit = permit;
            copy(head, reading, len, to).await;
        });
        let answer = Self { policy: POLICY_OF_BYTES, ..Self::parts(kind, parts) };
        match len {
            Some(len) => answer.header(CONTENT_LENGTH, len.to_string()),
            None => answer,
        }
    }

    /// With another status.
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// To be kept as a file of this name.
    #[must_use]
    pub fn named(self, name: &[u8]) -> Self {
        self.header(CONTENT_DISPOSITION, super::link::disposition(name))
    }

    /// Begins a session in the browser.
    #[must_use]
    pub fn begin(self, cookie: &str) -> Self {
        let seconds = SESSION_MS / 1000;
        self.header(SET_COOKIE, format!("{SESSION_COOKIE}={cookie}; {COOKIE_RULES}; Max-Age={seconds}"))
    }

    /// Ends it.
    #[must_use]
    pub fn end(self) -> Self {
        self.header(SET_COOKIE, format!("{SESSION_COOKIE}=; {COOKIE_RULES}; Max-Age=0"))
    }

    /// Keeps the choice of light or dark.
    #[must_use]
    pub fn theme(self, theme: &str) -> Self {
        self.header(SET_COOKIE, format!("{THEME_COOKIE}={theme}; {COOKIE_RULES}; Max-Age=31536000"))
    }

    fn sent(self) -> Response<Sent> {
        let mut response = Response::builder().status(self.status);
        let is_kept = self.headers.iter().any(|(name, _)| name == CACHE_CONTROL);
        for (name, value) in self.headers {
            // What is no header is left out: names of files are made so that they are.
            if let Ok(value) = HeaderValue::try_from(value) {
                response = response.header(name, value);
            }
        }
        if !is_kept {
            response = response.header(CACHE_CONTROL, "no-store");
        }
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            // Nobody else is told; of forms of our own it says where they come from.
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-frame-options", "DENY"),
            ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ] {
            response = response.header(name, value);
        }
        response = response.header(CONTENT_SECURITY_POLICY, self.policy);
        let body = match self.body {
            Content::Bytes(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            Content::Parts(parts) => Parts(parts).boxed_unsync(),
        };
        response.body(body).unwrap_or_else(|_| Response::new(empty()))
    }
}

const COOKIE_RULES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

fn empty() -> Sent {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

struct Parts(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context).map(|next| next.map(|part| part.map(Frame::data)))
    }
}

/// Hands a file on as long as somebody reads. What is not whole ends with an error, so that nobody takes it for the file.
async fn copy(head: Vec<u8>, mut reading: Reading, len: Option<u64>, to: mpsc::Sender<io::Result<Bytes>>) {
    let (mut part, mut sent) = (vec![0; PART_BYTES], head.len() as u64);
    if !head.is_empty() && to.send(Ok(head.into())).await.is_err() {
        return;
    }
    loop {
        // Whoever left is waited for by nobody, however long the next bytes take.
        let read = tokio::select! {
            read = reading.read(&mut part) => read,
            () = to.closed() => return,
        };
        match read {
            Ok(0) => break,
            Ok(count) => {
                sent += count as u64;
                if to.send(Ok(Bytes::copy_from_slice(&part[..count]))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = to.send(Err(error)).await;
                return;
            }
        }
    }
    if !reading.is_whole().await || len.is_some_and(|len| len != sent) {
        let _ = to.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
    }
}

/// Serves the page until it is dropped.
pub async fn serve(world: Arc<World>, listener: TcpListener, acceptor: TlsAcceptor, port: u16) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // Who comes while all are served waits in the kernel.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (world, acceptor) = (world.clone(), acceptor.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    secured(world, acceptor, stream, peer, port).await;
                });
            }
            // Too many files are open, or the like: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn secured(world: Arc<World>, acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr, port: u16) {
    must_take_within(&stream, TAKE_WAIT);
    let Ok(Ok(stream)) = tokio::time::timeout(ARRIVE_WAIT, acceptor.accept(stream)).await else { return };
    let service = service_fn(move |request| {
        let world = world.clone();
        async move { Ok::<_, Infallible>(answer(world, request, peer.ip().to_canonical(), port).await) }
    });
    // A connection that breaks has ended.
    let _ = protocol(ARRIVE_WAIT).serve_connection(TokioIo::new(stream), service).await;
}

/// Lets the kernel end a connection whose other side takes nothing of what was sent for so long. Each byte that is taken begins the
/// wait anew, which writes that wait for room would not show: the room for a slow reader is large.
fn must_take_within(stream: &TcpStream, wait: Duration) {
    let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, ms) {
        tracing::debug!(%error, "a connection that takes nothing will not be ended");
    }
}

/// HTTP/1.1 alone: there each wait for a head has an end, whether it is the first one or not begun yet. Of HTTP/2 a connection that
/// is silent, or takes no answer, would keep its place for ever, and whoever reaches the page opens 64 in a second.
fn protocol(wait: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(wait).max_header_size(HEAD_BYTES_MAX);
    builder.max_buf_size(HEAD_BYTES_MAX * 2);
    builder
}

async fn answer(world: Arc<World>, request: Request<Incoming>, peer: IpAddr, port: u16) -> Response<Sent> {
    let is_head = request.method() == Method::HEAD;
    let (head, body) = request.into_parts();
    let mut asked = visitor(world, &head, peer);
    let response = match judged(&mut asked, &head, body, port).await {
        Ok(route) => match (route.page)(asked).await {
            Ok(answer) | Err(answer) => answer,
        },
        Err(Stop::Answer(answer)) => answer,
        // Who was let in gets a page with a way back; to others nothing is shown of the device.
        Err(Stop::Refused(status, title, text)) if !asked.token.is_empty() => {
            asked.lost(status, title, &[&show::capital(&format!("{text}."))])
        }
        Err(Stop::Refused(status, _, text)) => refused(status, text),
    };
    let mut response = response.sent();
    if is_head {
        *response.body_mut() = empty();
    }
    response
}

/// A refusal in a sentence.
pub fn refused(status: StatusCode, text: &str) -> Answer {
    Answer::of("text/plain; charset=utf-8", format!("{text}\n")).status(status)
}

fn header(headers: &HeaderMap, name: impl hyper::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).next()
}

/// Whether a `Host` is one that nobody can lead here by a name of their own: figures, or what this machine is called.
pub fn is_own_host(host: &str, port: u16, names: &[String]) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.port() == port;
    }
    // Of IPv6 they stand in brackets.
    let figures = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if figures.parse::<IpAddr>().is_ok() {
        return port == 443;
    }
    let (name, told) = host.rsplit_once(':').map_or((host, Ok(443)), |(name, told)| (name, told.parse()));
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    told == Ok(port) && names.contains(&name)
}

/// Why a request comes to no page.
enum Stop {
    /// Something else is answered.
    Answer(Answer),
    /// It is refused: the status, in a few words, and a sentence without a full stop.
    Refused(StatusCode, &'static str, &'static str),
}

/// Who asks, before anything of what is asked was looked at.
fn visitor(world: Arc<World>, head: &Head, peer: IpAddr) -> Asked {
    let path = head.uri.path().to_owned();
    let cookie = cookie(&head.headers, SESSION_COOKIE);
    let now = clock::boottime();
    let token = cookie.as_ref().and_then(|cookie| world.page.keys.lock().session(cookie, peer, now));
    Asked {
        theme: self::cookie(&head.headers, THEME_COOKIE).unwrap_or_default(),
        is_from_elsewhere: header(&head.headers, "sec-fetch-site") == Some("cross-site"),
        token: token.unwrap_or_default(),
        whole: head.uri.path_and_query().map_or(path.clone(), |all| all.as_str().to_owned()),
        query: Fields::default(),
        form: Fields::default(),
        world,
        path,
        cookie,
        peer,
    }
}

/// Finds the route of a request, and whether whoever asks may; reads what is asked.
async fn judged(asked: &mut Asked, head: &Head, body: Incoming, port: u16) -> Result<&'static Route, Stop> {
    let stop = |status, title, text| Stop::Refused(status, title, text);
    let route = routes::find(&asked.path).ok_or(stop(
        StatusCode::NOT_FOUND,
        "There is nothing here",
        "there is no such page",
    ))?;
    let is_post = match head.method {
        Method::GET | Method::HEAD if !route.is_post => false,
        Method::POST if route.is_post || route.is_both => true,
        _ => {
            let text = "this address takes forms only, or none: begin again at a page that leads here";
            return Err(stop(StatusCode::METHOD_NOT_ALLOWED, "This is asked for in another way", text));
        }
    };
    // It may stand in the address, too, as if this were a proxy: neither may be another's.
    let told = header(&head.headers, HOST).map(str::to_owned);
    let hosts = [head.uri.authority().map(|authority| authority.as_str().to_owned()), told];
    let names = tls::names();
    let hosts: Vec<String> = hosts.into_iter().flatten().collect();
    if hosts.is_empty() || !hosts.iter().all(|host| is_own_host(host, port, &names)) {
        let text = "this device's page is not called that: open the address that `comb device page` prints";
        return Err(stop(StatusCode::MISDIRECTED_REQUEST, "This is another address", text));
    }
    let host = &hosts[0];
    let site = header(&head.headers, "sec-fetch-site");
    if is_post {
        let origin = header(&head.headers, ORIGIN);
        let is_own = match origin {
            // What a browser says that keeps the place to itself, but says that it is ours.
            Some("null") => site == Some("same-origin"),
            Some(origin) => origin == format!("https://{host}"),
            None => true,
        };
        if !is_own || site.is_some_and(|site| site != "same-origin") {
            return Err(stop(StatusCode::FORBIDDEN, "This is not for you", "another site asked for this"));
        }
    }
    let lost = "This address leads nowhere";
    asked.query = Fields::parse(head.uri.query().unwrap_or_default().as_bytes()).ok_or(stop(
        StatusCode::BAD_REQUEST,
        lost,
        "it was written or cut wrongly",
    ))?;
    if asked.token.is_empty() && route.guard != Guard::Free {
        return Err(match route.guard {
            Guard::Page => Stop::Answer(Answer::see("/code")),
            _ => {
                let text = "there is no session: `comb device page` begins one";
                stop(StatusCode::UNAUTHORIZED, "You are not let in", text)
            }
        });
    }
    if !is_post {
        return Ok(route);
    }
    asked.form = form(body).await?;
    let sent = asked.form.text("csrf").unwrap_or_default();
    if !asked.token.is_empty() && !route.is_free_of_token && !Keys::same(sent, &asked.token) {
        let text = "it is not of this session, so nothing was done: go back, load the page again, and send it once more";
        return Err(stop(StatusCode::FORBIDDEN, "This form is old", text));
    }
    Ok(route)
}

async fn form(body: Incoming) -> Result<Fields, Stop> {
    let refused = |status, text| Stop::Refused(status, "This form cannot be read", text);
    let large = || refused(StatusCode::PAYLOAD_TOO_LARGE, "a form has at most 32 KiB");
    if body.size_hint().lower() > FORM_BYTES_MAX as u64 {
        return Err(large());
    }
    match tokio::time::timeout(ARRIVE_WAIT, Limited::new(body, FORM_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Fields::parse(&body.to_bytes())
            .ok_or_else(|| refused(StatusCode::BAD_REQUEST, "this form is written wrongly")),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(large()),
        Ok(Err(_)) => Err(refused(StatusCode::BAD_REQUEST, "the form did not arrive whole")),
        Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the form did not arrive in time")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// How long these connections wait for a head.
    const WAIT: Duration = Duration::from_millis(300);

    /// Plays a connection whose other side sends this and nothing more; after how long it ended, and what was answered.
    async fn played(sent: &[u8]) -> (Duration, String) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(empty())) });
        let begun = std::time::Instant::now();
        let served = tokio::spawn(protocol(WAIT).serve_connection(TokioIo::new(ours), service));
        theirs.write_all(sent).await.expect("there is room");
        // A head that is not whole ends it with an error.
        let _ = served.await.expect("it does not panic");
        let took = begun.elapsed();
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).await.expect("it is closed");
        (took, String::from_utf8_lossy(&answer).into_owned())
    }

    #[tokio::test]
    async fn who_says_nothing_has_no_place_for_long() {
        let whole = b"GET / HTTP/1.1\r\nhost: attic\r\n\r\n";
        for (sent, answers) in [(&b""[..], 0), (&whole[..20], 0), (&whole[..], 1)] {
            let (took, answer) = tokio::time::timeout(WAIT * 20, played(sent)).await.expect("it ends");
            assert!(took >= WAIT, "{took:?}");
            assert_eq!(answer.matches("HTTP/1.1 200").count(), answers, "{answer}");
        }
        // Another protocol, which would wait otherwise, is none of ours.
        let other = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let (_, answer) = tokio::time::timeout(WAIT * 20, played(other)).await.expect("it ends");
        assert!(!answer.contains(" 200"), "{answer}");
    }

    #[tokio::test]
    async fn who_takes_no_answer_has_no_place_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut theirs =
            TcpStream::connect(listener.local_addr().expect("has one")).await.expect("it listens");
        let (ours, _) = listener.accept().await.expect("it came");
        let wait = Duration::from_secs(2);
        must_take_within(&ours, wait);
        // More than all the kernel's buffers hold.
        let all = Bytes::from(vec![b'x'; 64 << 20]);
        let service = service_fn(move |_| {
            let all = Full::new(all.clone()).map_err(|never| match never {}).boxed_unsync();
            async move { Ok::<_, Infallible>(Response::<Sent>::new(all)) }
        });
        let begun = std::time::Instant::now();
        let served = tokio::spawn(protocol(WAIT).serve_connection(TokioIo::new(ours), service));
        // Two at once: while there is another one, no wait for a head runs.
        theirs.write_all(&b"GET / HTTP/1.1\r\nhost: attic\r\n\r\n".repeat(2)).await.expect("there is room");
        // Who reads slowly is served on, though it takes longer than the wait.
        let mut part = vec![0; 256 << 10];
        for _ in 0..6 {
            tokio::time::sleep(wait / 2).await;
            theirs.read_exact(&mut part).await.expect("it is served");
        }
        assert!(!served.is_finished());
        let ended = tokio::time::timeout(Duration::from_secs(30), served).await.expect("it ends");
        assert!(ended.expect("it does not panic").is_err() && begun.elapsed() > wait * 3);
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let of = |bytes: usize| format!("GET /{} HTTP/1.1\r\nhost: attic\r\n\r\n", "x".repeat(bytes));
        let (_, answer) = played(of(HEAD_BYTES_MAX - 200).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, answer) = played(of(HEAD_BYTES_MAX).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[test]
    fn a_name_that_somebody_leads_here_is_not_ours() {
        let names = ["localhost", "attic", "attic.local"].map(str::to_owned);
        let ours = |host: &str| is_own_host(host, 8421, &names);
        for host in [
            "192.168.1.20:8421",
            "127.0.0.1:8421",
            "[::1]:8421",
            "localhost:8421",
            "Attic:8421",
            "attic.local.:8421",
        ] {
            assert!(ours(host), "{host}");
        }
        for host in [
            "",
            "attic",
            "192.168.1.20",
            "192.168.1.20:8420",
            "evil.example:8421",
            "attic.evil.example:8421",
            "127.0.0.1.evil.example:8421",
            "attic:",
            "attic:8421:8421",
            "@attic:8421",
            "localhost:08421x",
        ] {
            assert!(!ours(host), "{host}");
        }
        for host in ["attic", "192.0.2.1", "[fd00::1]"] {
            assert!(is_own_host(host, 443, &names) && !ours(host), "{host}");
        }
        assert!(!is_own_host("[attic]", 443, &names) && !is_own_host("[fd00::1", 443, &names));
    }
}
