//! The device's own page: what is in volumes, and what apps write, for a browser that this device let in itself
//! (`docs/page.md`).
//!
//! - `keys`    the code and the sessions
//! - `tls`     the page's certificate
//! - `http`    connections, the checks before every route, answers
//! - `routes`  the table of routes
//! - `link`    queries and links that carry any bytes
//! - `sniff`   whether bytes are a picture or text
//! - `frame`   what all pages have
//! - `start`, `app`, `doctor`, `logs`, `moments`, `files`, `file`, `versions`, `compare`, `restore`   the pages
//!
//! Invariants
//! - No word of the hive opens it, and the hive is not told of it.
//! - What it shows is nowhere else: no log, no argument, no environment.

mod app;
mod compare;
mod doctor;
mod file;
mod files;
mod frame;
mod http;
mod keys;
mod link;
mod logs;
mod moments;
mod restore;
mod routes;
mod sniff;
mod start;
mod tls;
mod versions;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use orchestrator_api::placement::Problem;
use orchestrator_api::text::Time;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::keys::{CODE_MS, Keys};
use self::restore::Works;
use self::tls::Identity;
use super::World;
use super::loaded::wall_clock;
use crate::doors::clock;
use crate::trouble::{Result, Trouble};

/// Where it listens if nobody says where: the first of these that is free.
const PORTS: std::ops::RangeInclusive<u16> = 8421..=8440;
/// The most questions to volumes at a time: each is a process.
const QUESTIONS_MAX: usize = 8;
/// The most logs that are looked at live.
const LIVES_MAX: usize = 16;

/// The page of a device.
pub struct Page {
    keys: Mutex<Keys>,
    serving: Mutex<Option<Serving>>,
    opening: tokio::sync::Mutex<()>,
    works: Mutex<Works>,
    questions: Arc<Semaphore>,
    lives: Arc<Semaphore>,
}

/// A page that is served.
struct Serving {
    address: SocketAddr,
    fingerprint: String,
    task: JoinHandle<()>,
}

impl Serving {
    /// Ends it, and waits until its place is free; where that was.
    async fn end(mut self) -> SocketAddr {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Default for Page {
    fn default() -> Self {
        Self {
            keys: Mutex::default(),
            serving: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            works: Mutex::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            lives: Arc::new(Semaphore::new(LIVES_MAX)),
        }
    }
}

impl Page {
    /// Listens at a place; where that cannot be, at the one before if that was given up for it, with why.
    async fn listen(&self, listen: Option<SocketAddr>) -> Result<(TcpListener, Result<()>)> {
        // Of one port only one address can be listened at while one of them is all of the machine's.
        let is_in_the_way =
            |serving: &mut Serving| listen.is_some_and(|listen| listen.port() == serving.address.port());
        let before = self.serving.lock().take_if(is_in_the_way);
        let Some(before) = before else { return Ok((bind(listen).await?, Ok(()))) };
        let address = before.end().await;
        match bind(listen).await {
            Ok(listener) => Ok((listener, Ok(()))),
            Err(trouble) => Ok((bind(Some(address)).await.map_err(|_| trouble.clone())?, Err(trouble))),
        }
    }

    /// Ends it, and all sessions.
    pub fn close(&self) {
        *self.serving.lock() = None;
        *self.keys.lock() = Keys::default();
    }
}

impl World {
    /// Serves the page, and says how it is opened.
    pub(super) async fn open_page(self: &Arc<Self>, listen: Option<SocketAddr>) -> Result<Value> {
        let failed = |error: io::Error| Trouble::new(Problem::State, format!("the page: {error}"));
        // Any port is as good as the one that it has.
        let is_same = |one: SocketAddr, other: SocketAddr| {
            one.ip() == other.ip() && (one.port() == 0 || one.port() == other.port())
        };
        let is_there = |serving: &Serving| {
            !serving.task.is_finished() && listen.is_none_or(|listen| is_same(listen, serving.address))
        };
        // One after the other: two that move it would be in each other's way.
        let _turn = self.page.opening.lock().await;
        if !self.page.serving.lock().as_ref().is_some_and(is_there) {
            let identity = Identity::of(&self.folder.0).map_err(failed)?;
            let acceptor = identity.acceptor().map_err(failed)?;
            let (listener, moved) = self.page.listen(listen).await?;
            let address = listener.local_addr().map_err(failed)?;
            let task = tokio::spawn(http::serve(self.clone(), listener, acceptor, address.port()));
            let serving = Serving { address, fingerprint: identity.fingerprint(), task };
            *self.page.serving.lock() = Some(serving);
            moved?;
        }
        let code = self.page.keys.lock().make_code(&(self.setup.chance)(), clock::boottime());
        let serving = self.page.serving.lock();
        let Some(serving) = serving.as_ref() else {
            return Err(Trouble::new(Problem::State, "the page was closed meanwhile"));
        };
        let addresses: Vec<String> = addresses(serving.address)
            .iter()
            .map(|address| format!("https://{}", SocketAddr::new(*address, serving.address.port())))
            .collect();
        let ends = Time(wall_clock().0 + i64::try_from(CODE_MS).unwrap_or(i64::MAX));
        Ok(json!({
            "address": addresses.first(), "addresses": addresses, "fingerprint": serving.fingerprint,
            "code": code, "ends": ends,
        }))
    }
}

async fn bind(listen: Option<SocketAddr>) -> Result<TcpListener> {
    let failed = |at: &str, error: &io::Error| {
        Trouble::new(
            Problem::State,
            format!("the page cannot listen at {at}: {error}; --listen ADDR:PORT names another place"),
        )
    };
    if let Some(listen) = listen {
        return TcpListener::bind(listen).await.map_err(|error| failed(&listen.to_string(), &error));
    }
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in PORTS {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(&format!("ports {} to {}", PORTS.start(), PORTS.end()), &last))
}

/// Where a page that listens at an address is found: the machine's own one first, if it is all of them.
fn addresses(listening: SocketAddr) -> Vec<IpAddr> {
    if !listening.ip().is_unspecified() {
        return vec![listening.ip()];
    }
    let mut found: Vec<IpAddr> = own_address().into_iter().collect();
    found.push(Ipv4Addr::LOCALHOST.into());
    found.dedup();
    found
}

/// The address by which this machine would leave its net. Nothing is sent for it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Of those that are kept for documents.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}
