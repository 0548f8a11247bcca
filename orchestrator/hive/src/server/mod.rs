//! The server around what decides: database, HTTP, clock.
//!
//! - `database`  one schema and one set of statements, in SQLite and in PostgreSQL
//! - `chain`    the events of an account, by which hashes they hang together
//! - `tenant`, `rows`   one account in one transaction; rows as values that [`crate::decide`] takes, and back
//! - `http`, `routes`, `call`, `auth`   a request on its way to its handler
//! - `door`, `second`   what an address may try before it is known; the second factor of a login
//! - `gate`   how much may be under way at a time
//! - `catalog`           a folder of apps that people choose from
//! - `people`, `account`, `stores`, `devices`, `apps`, `operations`, `streams`, `watching`   the handlers
//! - `pages`   the console: the same handlers, asked by forms and shown as pages
//! - `tasks`, `outcome`   operations that give no term; what comes of all of them
//! - `removal`   an app that leaves its devices, and then the hive
//! - `figures`   what devices and apps used, for graphs
//! - `history`   what was given and ended, a line each, for those who look afterwards
//! - `notify`   what somebody should know, told by webhook and e-mail
//! - `drain`, `standby`, `rollout`   what the hive goes on with by itself: devices that are emptied, that stand by, that
//!   take releases
//! - `scheduler`, `recovery`, `backup`   who counts time; a database that is older than what devices know
//!
//! Invariants
//! - Nobody is answered before what he was told is committed.
//! - What is in memory may be lost: requests that are held, streams, and what counts time.

mod account;
mod apps;
mod auth;
mod backup;
mod call;
mod catalog;
mod chain;
mod chance;
mod database;
mod devices;
mod door;
mod drain;
mod fail;
mod figures;
mod gate;
mod history;
mod http;
mod notify;
mod operations;
mod outcome;
mod pages;
mod people;
mod recovery;
mod removal;
mod rollout;
mod routes;
mod rows;
mod scheduler;
mod second;
mod standby;
mod stores;
mod streams;
mod tasks;
mod tenant;
mod watching;

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use orchestrator_api::code::Secret;
use orchestrator_api::ids::DeviceId;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

pub use backup::Restored;
use database::{Database, How, Row};
pub use fail::Fail;
use history::History;
use tenant::{Tenant, Told, Wake};

/// Passwords that are hashed at a time: each takes 64 MiB.
const PASSWORDS_MAX: usize = 2;
/// How often a process looks for what another one changed.
const CHANGE_LOOK_EVERY: Duration = Duration::from_millis(250);

/// All routes: method and path.
pub fn routes() -> Vec<(&'static str, &'static str)> {
    routes::ROUTES.iter().map(|route| (route.method, route.path)).collect()
}

/// All routes of the console's pages: method and path.
pub fn pages() -> Vec<(&'static str, &'static str)> {
    routes::PAGES.iter().chain(routes::APP_PAGES).map(|route| (route.method, route.path)).collect()
}

/// How a hive is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// `sqlite:PATH` or `postgres://…`.
    pub database: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The base of apps' names.
    pub domain: String,
    /// The first store of the account that is set up.
    pub store: Option<String>,
    /// Certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whose word of other addresses is taken.
    pub proxies: Vec<IpAddr>,
    /// Make another setup code, while there is no account.
    pub new_setup_code: bool,
    /// Where a backup is made each night.
    pub backups: Option<PathBuf>,
    /// Where the history of terms and operations is written.
    pub history: Option<PathBuf>,
    /// A folder of apps that people may choose from.
    pub catalog: Option<PathBuf>,
}

impl Options {
    /// With a database and an address, and nothing else. The history is written beside a database that is a file.
    pub fn new(database: impl Into<String>, listen: SocketAddr) -> Self {
        let database = database.into();
        let file = database.strip_prefix("sqlite:").map(Path::new);
        Self {
            history: file.map(|file| file.with_file_name("history.jsonl")),
            database,
            listen,
            domain: "home.arpa".to_owned(),
            store: None,
            tls: None,
            proxies: Vec::new(),
            new_setup_code: false,
            backups: None,
            catalog: None,
        }
    }
}

/// What all requests share.
pub struct Shared {
    pub(crate) database: Database,
    pub(crate) key: SigningKey,
    pub(crate) domain: String,
    pub(crate) store: Option<String>,
    pub(crate) proxies: Vec<IpAddr>,
    /// Whether it speaks TLS itself.
    pub(crate) tls: bool,
    pub(crate) backups: Option<PathBuf>,
    pub(crate) history: Option<History>,
    pub(crate) catalog: Option<Arc<catalog::Catalog>>,
    pub(crate) limits: auth::Limits,
    pub(crate) doors: door::Doors,
    pub(crate) bodies: Arc<gate::Gate>,
    pub(crate) connections: Arc<gate::Gate>,
    pub(crate) passwords: Arc<Semaphore>,
    pub(crate) watchers: Arc<watching::Watchers>,
    pub(crate) streams: streams::Streams,
    pub(crate) nudge: Notify,
    held: Mutex<HashMap<DeviceId, (u64, watch::Sender<u64>)>>,
    changes: watch::Sender<u64>,
    closing: watch::Sender<bool>,
}

impl Shared {
    /// The hive's public key.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Whether a browser reaches the hive by TLS: its own, or that of a proxy whose word is taken.
    pub(crate) fn is_secure(&self, headers: &hyper::HeaderMap, peer: IpAddr) -> bool {
        let told = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        self.tls || (told && self.proxies.contains(&peer))
    }

    /// Holds a device's request; the one before it ends.
    pub(crate) fn hold(&self, device: DeviceId) -> (u64, watch::Receiver<u64>) {
        let mut held = self.held.lock();
        let (turn, told) = held.entry(device).or_insert_with(|| (0, watch::channel(0).0));
        *turn += 1;
        told.send_modify(|count| *count += 1);
        (*turn, told.subscribe())
    }

    /// Whether another request of the device came after this one.
    pub(crate) fn is_over(&self, device: DeviceId, turn: u64) -> bool {
        self.held.lock().get(&device).is_none_or(|(present, _)| *present != turn)
    }

    /// Tells that something changed, whatever it is.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells what a committed transaction gathered.
    pub(crate) fn deliver(&self, told: Told) {
        if let Some(history) = &self.history {
            history.write(told.happened);
        }
        let mut changed = false;
        for wake in told.wakes {
            match wake {
                Wake::Device(device) => {
                    if let Some((_, told)) = self.held.lock().get(&device) {
                        told.send_modify(|count| *count += 1);
                    }
                }
                Wake::Changed(..) => changed = true,
                Wake::Scheduler => self.nudge.notify_one(),
                Wake::Stream(account, stream, code) => self.streams.end(account, stream, &code),
            }
        }
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Room for a connection. All connections of a proxy are its own, whoever asks through it.
    fn part_of_connections(&self, peer: IpAddr) -> Option<Option<gate::Part>> {
        if self.proxies.contains(&peer) {
            return Some(None);
        }
        self.connections.take(peer, 1).map(Some)
    }

    /// Whether the hive ends.
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// When the hive ends.
    pub(crate) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        let _ = closing.wait_for(|closing| *closing).await;
    }

    fn close(&self) {
        self.closing.send_replace(true);
        for (_, told) in self.held.lock().values() {
            told.send_modify(|count| *count += 1);
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

/// A hive that is about to serve.
pub struct Server {
    shared: Arc<Shared>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    setup_code: Option<String>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Server {
    /// Opens the database, makes what is missing of it, and listens.
    pub async fn begin(options: Options) -> Result<Self, Fail> {
        let tls = options.tls.as_ref().map(|(cert, key)| acceptor(cert, key)).transpose()?;
        backup::before_migration(&options.database, options.backups.as_deref()).await?;
        let database = Database::open(&options.database).await?;
        let again = options.new_setup_code;
        let (seed, setup_code) = database.transact(How::Write, move |tx| prepare(tx, again)).await?;
        let history = match &options.history {
            Some(path) => Some(History::begin(path, &database).await?),
            None => None,
        };
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|error| Fail::start(format!("{} cannot be listened on: {error}", options.listen)))?;
        let shared = Arc::new(Shared {
            database,
            key: SigningKey::from_bytes(&seed),
            domain: options.domain,
            store: options.store,
            proxies: options.proxies,
            tls: tls.is_some(),
            backups: options.backups,
            history,
            catalog: options.catalog.map(|folder| Arc::new(catalog::Catalog::new(folder))),
            limits: auth::Limits::default(),
            doors: door::Doors::default(),
            bodies: gate::Gate::of_bodies(),
            connections: gate::Gate::of_connections(),
            passwords: Arc::new(Semaphore::new(PASSWORDS_MAX)),
            watchers: Arc::default(),
            streams: streams::Streams::default(),
            nudge: Notify::new(),
            held: Mutex::new(HashMap::new()),
            changes: watch::channel(0).0,
            closing: watch::channel(false).0,
        });
        Ok(Self { shared, listener, tls, setup_code })
    }

    /// The code that sets the hive up; told by the first process that made it, and by no other.
    pub fn setup_code(&self) -> Option<&str> {
        self.setup_code.as_deref()
    }

    /// The hive's public key, as its codes name it.
    pub fn key(&self) -> [u8; 32] {
        self.shared.public()
    }

    /// What whoever runs it must know, if others can read what people send it: it listens for other machines, and speaks
    /// neither TLS itself nor with a proxy that does.
    pub fn caution(&self) -> Option<&'static str> {
        let is_near = self.address().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let is_safe = is_near || self.tls.is_some() || !self.shared.proxies.is_empty();
        (!is_safe).then_some(
            "caution: other machines reach this over http, and whoever is on the way reads passwords and tokens: give \
             `comb hive run` --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that speaks TLS (and name it with --proxy). In a \
             network of your own, `comb login --insecure-http` goes on as it is",
        )
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr, Fail> {
        self.listener.local_addr().map_err(|error| Fail::start(error.to_string()))
    }

    /// Serves until told to stop; what is under way is finished.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), Fail> {
        let scheduler = tokio::spawn(scheduler::run(self.shared.clone()));
        let forgets = tokio::spawn(streams::forget_unread(self.shared.clone()));
        let others = self.shared.database.has_several().then(|| tokio::spawn(listen(self.shared.clone())));
        let mut connections = tokio::task::JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let _ = stream.set_nodelay(true);
                        let shared = self.shared.clone();
                        let Some(part) = shared.part_of_connections(peer.ip()) else {
                            http::turn_away(stream, self.tls.is_some());
                            continue;
                        };
                        let acceptor = self.tls.clone();
                        connections.spawn(async move {
                            match acceptor {
                                Some(acceptor) => http::secured(shared, acceptor, stream, peer).await,
                                None => http::connection(shared, stream, peer).await,
                            }
                            drop(part);
                        });
                    }
                    // Too many open files: some will be closed.
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        self.shared.close();
        let rest = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(6), rest).await;
        let _ = scheduler.await;
        forgets.abort();
        if let Some(others) = others {
            others.abort();
        }
        Ok(())
    }
}

/// Makes the hive's row if there is none; its seed, and a new setup code.
fn prepare(tx: &mut dyn database::Tx, again: bool) -> Result<([u8; 32], Option<String>), Fail> {
    tx.lock(0, false)?;
    let code = Secret::new(chance::bytes());
    let rows = tx.query("SELECT key_seed, setup_hash FROM hive WHERE id = 1", &[])?;
    let Some(row) = rows.first() else {
        let seed = chance::bytes::<32>();
        tx.execute(
            "INSERT INTO hive (id, key_seed, incarnation, recovering, heard, floor, schema, setup_hash) \
             VALUES (1, $1, 1, 0, 0, 0, $2, $3)",
            &[seed.into(), database::SCHEMA.into(), code.hash().0.into()],
        )?;
        return Ok((seed, Some(code.show())));
    };
    let seed = row.id(0)?;
    let set_up = row.maybe(1, Row::id::<32>)?.is_none();
    let accounts = !tx.query("SELECT 1 FROM account", &[])?.is_empty();
    if again && accounts {
        return Err(Fail::start("the hive is set up already, so it needs no setup code"));
    }
    if !again || (set_up && accounts) {
        return Ok((seed, None));
    }
    tx.execute("UPDATE hive SET setup_hash = $1 WHERE id = 1", &[code.hash().0.into()])?;
    Ok((seed, Some(code.show())))
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, Fail> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        Fail::start(format!("{} cannot be used for TLS: {error}", path.display()))
    };
    let certs: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let certs = certs.map_err(|error| wrong(cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, secret))
        .map_err(|error| wrong(cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Looks for what other processes changed.
async fn listen(shared: Arc<Shared>) {
    let mut seen: Option<u64> = None;
    while !shared.is_closing() {
        let since = seen;
        let found = shared
            .database
            .transact(How::Read, move |tx| {
                let Some(since) = since else {
                    let rows = tx.query("SELECT max(revision) FROM change", &[])?;
                    let newest = rows.first().map(|row| row.maybe(0, Row::count)).transpose()?.flatten();
                    return Ok((newest.unwrap_or(0), Vec::new()));
                };
                let sql = "SELECT revision, kind, id FROM change WHERE revision > $1 ORDER BY revision";
                let rows = tx.query(sql, &[since.saturating_sub(watching::LATE_MAX).into()])?;
                let mut devices = Vec::new();
                let mut newest = since;
                for row in rows {
                    newest = newest.max(row.count(0)?);
                    if row.text(1)? == "command" {
                        devices.push(row.text(2)?.to_owned());
                    }
                }
                Ok((newest, devices))
            })
            .await;
        if let Ok((newest, devices)) = found {
            if seen.is_some_and(|seen| newest > seen) {
                let wakes = devices.iter().filter_map(|id| id.parse().ok()).map(Wake::Device).collect();
                shared.deliver(Told { wakes, ..Told::default() });
                shared.changes.send_modify(|count| *count += 1);
                shared.nudge.notify_one();
            }
            seen = Some(newest);
        }
        tokio::time::sleep(CHANGE_LOOK_EVERY).await;
    }
}

/// Runs a hive until it is told to end by a signal. `told` hears once what a person must know.
pub async fn run(options: Options, told: impl FnOnce(&Server)) -> Result<(), Fail> {
    gate::Gate::raise_files();
    let server = Server::begin(options).await?;
    told(&server);
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Fail::start(error.to_string()))?;
    let stop = async move {
        tokio::select! {
            _ = end.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    server.serve(stop).await
}

/// Writes a backup of a database into a new file; its bytes.
pub async fn back_up_to(url: &str, path: &Path) -> Result<u64, Fail> {
    let database = Database::look(url).await?;
    backup::write(&database, path).await
}

/// Loads a backup into an empty database; who may do something in it.
pub async fn restore_from(url: &str, path: &Path) -> Result<Restored, Fail> {
    let database = Database::open(url).await?;
    backup::restore(&database, path).await
}

/// What a hive that was restored waits for.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Whether it waits at all.
    pub recovering: bool,
    /// Devices that were not heard, by their names.
    pub missing: Vec<String>,
}

/// Tells which devices a recovering hive waits for; ends the waiting if that is wished.
pub async fn recover(url: &str, finish: bool) -> Result<Recovery, Fail> {
    let database = Database::look(url).await?;
    database
        .transact(How::Write, move |tx| {
            let mut told = Recovery::default();
            for row in tx.query("SELECT account FROM account", &[])? {
                let mut tenant = Tenant::new(tx, row.id(0)?);
                tenant.alone()?;
                let life = rows::life(&mut tenant)?;
                if !life.recovering {
                    continue;
                }
                told.recovering = true;
                for row in tenant.query(recovery::MISSING, &[life.incarnation.0.into()])? {
                    told.missing.push(row.text(1)?.to_owned());
                }
                if finish {
                    recovery::finish(&mut tenant)?;
                }
            }
            Ok(told)
        })
        .await
}
