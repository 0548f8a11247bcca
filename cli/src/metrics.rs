//! What a daemon tells a collector of figures: Prometheus' text format, version 0.0.4, at `/metrics`.
//!
//! Invariants
//! - Nothing that is sent here costs the daemon more than a few kilobytes and one of a few threads for some seconds.
//! - Only figures, and the names of the volume and its stores are told, to whoever can reach the address: so it is this machine's
//!   own, unless somebody says otherwise.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure, Kind, Result};
use crate::report::{MountReport, StoreReport};

/// The longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Connections at a time; who comes when there are more is told to come again.
const CONNECTIONS_MAX: usize = 8;
/// How long a connection may take in all.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a scraper is told that the text is.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Reads an address: `127.0.0.1:9100`, `[::1]:9100`, or a port of this machine alone.
pub fn parse_address(text: &str) -> std::result::Result<SocketAddr, String> {
    let port = |text: &str| text.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    text.parse()
        .or_else(|_| port(text))
        .map_err(|_| format!("{text:?} is no address: write 127.0.0.1:9100, or only the port"))
}

/// A place that listens, and answers nobody yet.
pub struct Metrics {
    listener: TcpListener,
}

impl Metrics {
    /// Takes the address.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Failure::new(Kind::InTheWay, format!("{address} is in use"))
                .hint("each mounted volume needs a port of its own for its metrics"),
            _ => Failure::io(format!("listening at {address}"), &error),
        })?;
        Ok(Self { listener })
    }

    /// Answers from now on, until the process ends.
    pub fn serve(self, volume: String, look: Arc<dyn Fn() -> MountReport + Send + Sync>) -> Result<()> {
        let tell: Arc<Tell> = Arc::new(move || render(&volume, &look()));
        let work = move || accept(&self.listener, &tell);
        std::thread::Builder::new().name("metrics".into()).spawn(work).map(drop).context("starting a thread")
    }
}

type Tell = dyn Fn() -> String + Send + Sync;

fn accept(listener: &TcpListener, tell: &Arc<Tell>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((mut stream, _)) = listener.accept() else {
            // Out of descriptors, most likely: breathe instead of spinning.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            // Without waiting: who does not take these few bytes goes without.
            let _ = stream
                .set_nonblocking(true)
                .and_then(|()| stream.write_all(&answer("503 Service Unavailable", "")));
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let guard = Guard(Arc::clone(&open));
        let tell = Arc::clone(tell);
        let spawned = std::thread::Builder::new().name("metrics-request".into()).spawn(move || {
            let _guard = guard;
            if let Err(error) = converse(stream, &*tell) {
                tracing::debug!(%error, "a request for metrics ended early");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a request for metrics");
        }
    }
}

/// Counts a connection as long as it lives.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hears one request and answers it.
fn converse(mut stream: TcpStream, tell: &Tell) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let reply = loop {
        if let Some(reply) = reply(&request, tell) {
            break reply;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break answer("408 Request Timeout", "");
        }
        stream.set_read_timeout(Some(left))?;
        let mut some = [0; 1024];
        match stream.read(&mut some) {
            Ok(0) => break answer("400 Bad Request", ""),
            Ok(count) => request.extend_from_slice(&some[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&reply)
}

/// The answer to a request; `None` if it is not whole yet.
fn reply(request: &[u8], tell: &Tell) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Err(httparse::Error::TooManyHeaders) => {
            return Some(answer("431 Request Header Fields Too Large", ""));
        }
        Err(_) => return Some(answer("400 Bad Request", "")),
        Ok(status) if status.is_partial() => {
            let is_too_long = request.len() > REQUEST_BYTES_MAX;
            return is_too_long.then(|| answer("431 Request Header Fields Too Large", ""));
        }
        Ok(_) => {}
    }
    let path = parsed.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    Some(match (parsed.method.unwrap_or_default(), path) {
        ("GET", "/metrics") => answer("200 OK", &tell()),
        ("HEAD", "/metrics") => {
            let mut whole = answer("200 OK", &tell());
            let end = whole.windows(4).position(|four| four == b"\r\n\r\n").map_or(whole.len(), |at| at + 4);
            whole.truncate(end);
            whole
        }
        ("GET" | "HEAD", _) => answer("404 Not Found", "the figures are at /metrics\n"),
        _ => answer("405 Method Not Allowed", ""),
    })
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let kind = if status.starts_with("200") { CONTENT_TYPE } else { "text/plain; charset=utf-8" };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The figures of a mounted volume, as text.
pub fn render(volume: &str, report: &MountReport) -> String {
    let mut page = Page { text: String::new(), volume };
    let bit = |is: bool| if is { 1.0 } else { 0.0 };
    page.family("comb_build_info", "gauge", "The version of comb.");
    page.sample("comb_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    for (name, help, value) in [
        ("comb_head_seq", "The number of the newest seal.", report.head.seq as f64),
        ("comb_head_timestamp_seconds", "When the newest seal was made.", seconds_of(&report.head.time)),
        ("comb_files", "Files and folders in the newest seal.", report.head.files as f64),
        ("comb_bytes", "Bytes of the files in the newest seal.", report.head.bytes as f64),
        ("comb_dirty_bytes", "Bytes that were written and are in no seal yet.", report.dirty_bytes as f64),
        ("comb_journal_bytes", "Bytes that the journal takes on the disk.", report.journal_bytes as f64),
        ("comb_read_only", "Whether the volume takes no changes.", bit(report.read_only)),
        (
            "comb_damaged_places",
            "Damaged places that were met since the mount began.",
            report.damage.len() as f64,
        ),
        ("comb_seal_failed", "Whether the last seal failed.", bit(report.seal_error.is_some())),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &[], value);
    }
    if let Some(room) = &report.room {
        for (name, help, bytes) in [
            ("comb_local_bytes", "Bytes that packs take on this disk.", room.local_bytes),
            ("comb_waiting_bytes", "Bytes that wait for the store that lacks most.", room.waiting_bytes),
            ("comb_waiting_bytes_max", "The most that may; then writes wait.", room.waiting_bytes_max),
        ] {
            page.family(name, "gauge", help);
            page.sample(name, &[], bytes as f64);
        }
        page.family("comb_writes_held_up", "gauge", "Whether writes wait for room, or are refused.");
        page.sample("comb_writes_held_up", &[], bit(room.held_up.is_some()));
    }
    page.family("comb_seal_seconds", "summary", "How long seals took since the mount began.");
    page.sample("comb_seal_seconds_sum", &[], report.seal_seconds);
    page.sample("comb_seal_seconds_count", &[], report.seals as f64);

    type Figure = fn(&StoreReport) -> f64;
    let figures: [(&str, &str, &str, Figure); 8] = [
        (
            "comb_behind_seconds",
            "gauge",
            "By how much the store is later than promised; 0 if it is not.",
            behind,
        ),
        (
            "comb_unsafe_seconds",
            "gauge",
            "For how long there have been changes that the store lacks.",
            |store| store.unsafe_seconds,
        ),
        ("comb_unsafe_bytes", "gauge", "Bytes that the store lacks.", |store| store.unsafe_bytes as f64),
        ("comb_replicated_seq", "gauge", "The last seal that the store has; 0 for none.", |store| {
            store.replicated_seq.unwrap_or(0) as f64
        }),
        (
            "comb_upload_bytes_total",
            "counter",
            "Bytes of packs sent to the store since the mount began.",
            |store| store.sent_bytes as f64,
        ),
        ("comb_upload_bytes_per_second", "gauge", "Bytes a second that go to the store now.", |store| {
            store.rate as f64
        }),
        (
            "comb_unseen_seconds",
            "gauge",
            "For how long a store that is followed has not been seen; 0 if it was when it was last asked.",
            |store| store.unseen_seconds.unwrap_or(0.0),
        ),
        ("comb_fenced", "gauge", "Whether another device took the volume over.", |store| {
            if store.state == "fenced" { 1.0 } else { 0.0 }
        }),
    ];
    for (name, kind, help, figure) in figures {
        if report.stores.is_empty() {
            break;
        }
        page.family(name, kind, help);
        for store in &report.stores {
            page.sample(name, &[("store", &store.name)], figure(store));
        }
    }
    page.text
}

/// Above zero for every store that is called behind.
fn behind(store: &StoreReport) -> f64 {
    match store.behind {
        true => store.late_seconds.max(1.0),
        false => 0.0,
    }
}

fn seconds_of(time: &str) -> f64 {
    time.parse::<jiff::Timestamp>().map_or(0.0, |time| time.as_millisecond() as f64 / 1e3)
}

struct Page<'a> {
    text: String,
    volume: &'a str,
}

impl Page<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let volume = [("volume", self.volume)];
        let labels: Vec<String> = volume
            .iter()
            .chain(labels)
            .map(|(label, value)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                format!("{label}=\"{value}\"")
            })
            .collect();
        let _ = writeln!(self.text, "{name}{{{}}} {value}", labels.join(","));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &[u8]) -> Option<String> {
        reply(request, &|| "figures\n".into()).map(|reply| String::from_utf8(reply).expect("text"))
    }

    #[test]
    fn an_address_is_of_this_machine_unless_said_otherwise() {
        assert_eq!(parse_address("9100"), Ok("127.0.0.1:9100".parse().expect("an address")));
        assert_eq!(parse_address("[::1]:1"), Ok("[::1]:1".parse().expect("an address")));
        assert_eq!(parse_address("0.0.0.0:80"), Ok("0.0.0.0:80".parse().expect("an address")));
        for bad in ["", "x", "127.0.0.1", "localhost:80", "70000", "1:2:3"] {
            assert!(parse_address(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn every_request_gets_the_answer_that_is_its_due() {
        let table: &[(&[u8], Option<&str>)] = &[
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Some("200 OK")),
            (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", Some("200 OK")),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", Some("200 OK")),
            (b"GET / HTTP/1.1\r\n\r\n", Some("404 Not Found")),
            (b"POST /metrics HTTP/1.1\r\n\r\n", Some("405 Method Not Allowed")),
            (b"\x16\x03\x01\x02\x00", Some("400 Bad Request")),
            (b"GET /metrics HTTP/9.9\r\n\r\n", Some("400 Bad Request")),
            (b"GET /metrics HTTP/1.1\r\nHost", None),
            (b"", None),
        ];
        for (request, status) in table {
            let reply = asked(request);
            let first = reply.as_ref().and_then(|reply| reply.lines().next());
            let expected = status.map(|status| format!("HTTP/1.1 {status}"));
            assert_eq!(first, expected.as_deref(), "{:?}", String::from_utf8_lossy(request));
        }
        assert!(asked(table[0].0).is_some_and(|reply| reply.ends_with("\r\n\r\nfigures\n")));
        assert!(
            asked(table[2].0)
                .is_some_and(|reply| reply.contains("Content-Length: 8\r\n") && reply.ends_with("\r\n\r\n"))
        );
        let endless = [&b"GET /metrics HTTP/1.1\r\nA: "[..], &[b'a'; REQUEST_BYTES_MAX]].concat();
        assert!(asked(&endless).is_some_and(|reply| reply.contains(" 431 ")));
        let many =
            [&b"GET /metrics HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(HEADERS_MAX + 1), b"\r\n"].concat();
        assert!(asked(&many).is_some_and(|reply| reply.contains(" 431 ")));
    }
}
