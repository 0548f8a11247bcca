//! Makes a store on loopback a distant one: an HTTP proxy that holds each request back, and writes down what was asked for.
//!
//! `farstore PORT UPSTREAM MILLISECONDS LOG` listens on 127.0.0.1:PORT and hands requests on to UPSTREAM (`host:port`) byte for
//! byte, so that their signatures hold. LOG gets a line for each request when its answer is through: when it came and ended, in
//! microseconds since the start, method, target, range (`-` without one), status, bytes of the body up and down.
//!
//! Connections are kept and not held back, so what it adds is the time of a request's way there and back, and not that of a
//! handshake; a body streams at the speed of loopback.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A head that is longer is none.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// What is read of a connection at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What all connections share.
struct Proxy {
    upstream: String,
    delay: Duration,
    begun: Instant,
    log: File,
}

/// The first lines of a request or an answer.
struct Head {
    bytes: Vec<u8>,
    /// The words of the first line.
    words: Vec<String>,
    length: u64,
    range: Option<String>,
}

impl Head {
    /// Reads one; none where the connection ended before it.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let (mut bytes, mut from) = (Vec::new(), from.take(HEAD_BYTES_MAX));
        loop {
            let line = bytes.len();
            match from.read_until(b'\n', &mut bytes)? {
                0 if line == 0 => return Ok(None),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                _ if &bytes[line..] == b"\r\n" => break,
                _ => {}
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.lines();
        let words = lines.next().unwrap_or_default().split(' ').map(str::to_owned).collect();
        let mut head = Head { words, length: 0, range: None, bytes };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.trim().parse().map_err(io::Error::other)?,
                "range" => head.range = Some(value.trim().to_owned()),
                "transfer-encoding" | "expect" => {
                    return Err(io::Error::other(format!("a message with {name} is not known here")));
                }
                _ => {}
            }
        }
        Ok(Some(head))
    }

    fn word(&self, number: usize) -> &str {
        self.words.get(number).map_or("", String::as_str)
    }
}

impl Proxy {
    /// Serves one connection until one of its ends closes it.
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(&self.upstream)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let mut requests = BufReader::with_capacity(BUFFER_BYTES, client.try_clone()?);
        let mut answers = BufReader::with_capacity(BUFFER_BYTES, server.try_clone()?);
        let (mut client, mut server) = (client, server);
        while let Some(request) = Head::read(&mut requests)? {
            let came = self.begun.elapsed();
            thread::sleep(self.delay);
            server.write_all(&request.bytes)?;
            hand_on(&mut requests, &mut server, request.length)?;
            let answer = Head::read(&mut answers)?.ok_or(ErrorKind::UnexpectedEof)?;
            client.write_all(&answer.bytes)?;
            let has_body = request.word(0) != "HEAD" && !matches!(answer.word(1), "204" | "304");
            let down = if has_body { answer.length } else { 0 };
            hand_on(&mut answers, &mut client, down)?;
            let line = format!(
                "{} {} {} {} {} {} {} {down}\n",
                came.as_micros(),
                self.begun.elapsed().as_micros(),
                request.word(0),
                request.word(1),
                request.range.as_deref().unwrap_or("-"),
                answer.word(1),
                request.length,
            );
            // One write, so that lines of several threads stay whole.
            (&self.log).write_all(line.as_bytes())?;
        }
        Ok(())
    }
}

/// Hands so many bytes of a body on.
fn hand_on(from: &mut impl BufRead, to: &mut impl Write, mut length: u64) -> io::Result<()> {
    while length > 0 {
        let bytes = from.fill_buf()?;
        let part = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        if part == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&bytes[..part])?;
        from.consume(part);
        length -= part as u64;
    }
    Ok(())
}

fn run() -> io::Result<()> {
    let usage = || io::Error::other("usage: farstore PORT UPSTREAM MILLISECONDS LOG");
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [port, upstream, delay, log] = &words[..] else { return Err(usage()) };
    let listener = TcpListener::bind(("127.0.0.1", port.parse().map_err(|_| usage())?))?;
    let proxy = Arc::new(Proxy {
        upstream: upstream.clone(),
        delay: Duration::from_millis(delay.parse().map_err(|_| usage())?),
        begun: Instant::now(),
        log: File::options().create(true).append(true).open(log)?,
    });
    for client in listener.incoming() {
        let (client, proxy) = (client?, proxy.clone());
        thread::spawn(move || {
            if let Err(error) = proxy.serve(client) {
                // Who closes a connection in its middle has lost interest.
                eprintln!("a connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farstore: {error}");
            ExitCode::FAILURE
        }
    }
}
