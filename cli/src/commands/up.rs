//! `comb up`: a hive, a store, this device and an app in one process.
//!
//! - `running`  at most one for a state folder
//! - `detach`   how it is left running
//! - `unit`     what systemd runs

mod detach;
pub mod running;
mod unit;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use orchestrator_api::code::JoinCode;
use orchestrator_api::ids::DeviceId;
use orchestrator_api::placement::Policy;
use orchestrator_api::wire::PORT;
use orchestrator_api::wire::account::{Made, MakeDeviceCode, NewDeviceCode, Store};
use orchestrator_api::wire::app::{App, Plain, Wanted};
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::people::{Login as LoginRequest, Me, NewToken, Setup as SetupRequest};
use orchestrator_api::wire::value::Number;
use orchestrator_device::daemon::enrol::{self, JoinOf};
use orchestrator_device::daemon::files::Folder;
use orchestrator_device::daemon::{self, Ended, Setup};
use orchestrator_hive::{Options, Server};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::account::store::{is_folder, keep_credentials, made};
use super::app::add::{self, Adding};
use super::app::authoring::AuthorArgs;
use super::app::{store as app_store, update};
use super::login;
use crate::device::{Commands, RingFolder, apps_folder, docker_socket};
use crate::failure::{Context, Failure, Kind, Result};
use crate::hive::address::Address;
use crate::hive::compose::Images;
use crate::hive::folder::AppFolder;
use crate::hive::logins::{self, Login};
use crate::hive::orders::{self, OrderArgs};
use crate::hive::{Client, author, find, hidden, ring as hive_ring};
use crate::passphrase::{self, PassphraseArgs};
use crate::state::{State, write_new};
use crate::{keys, output, ring, stores};

use self::running::Running;

/// Ports that are tried for a new hive.
const PORTS_TRIED: u16 = 50;
/// How long this device may take until the hive has heard of it.
const DEVICE_WAIT: Duration = Duration::from_secs(90);
/// How long the hive may take to answer after it began.
const HIVE_WAIT: Duration = Duration::from_secs(60);
/// How often it looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long apps may take to stop at the end.
const STOP_WAIT: Duration = Duration::from_secs(300);
/// A login that ends sooner is made anew.
const LOGIN_LEFT_MS: i64 = 7 * 86_400_000;

/// Run an app here with everything that it needs, in one process: a hive, a store, this device
///
/// The first time it makes a hive on a database in the state folder, a key ring (and asks for its passphrase), and a store in a
/// folder beside the state folder; later the same command goes on with them. The app's data is replicated there within
/// seconds, and every moment of it stays. It runs until it is interrupted, which stops the apps.
///
/// With --detach it returns when the app runs, and goes on by itself until `comb down`. Without DIR it starts the apps that
/// were stopped so. `comb up --store s3://…` brings the data elsewhere, also that of apps which are there already; `comb device
/// code` in another terminal adds a device, if --listen lets it reach the hive.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The app's folder, or its compose file
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Return when the app runs, and leave all of it running; `comb down` stops it
    #[arg(long, short)]
    detach: bool,

    /// Write a unit by which systemd runs this at every boot, with --listen, --apps and --docker as they are said here
    #[arg(long, conflicts_with_all = ["detach", "dir"])]
    install_unit: bool,

    /// Be what `comb up --detach` leaves running
    #[arg(long, hide = true)]
    left: bool,

    /// What the app is called [default: the folder's name]
    #[arg(long, value_name = "NAME", requires = "dir")]
    name: Option<String>,

    /// Where the data goes, also that of an app which went to a folder of this machine before [default: where it went, else a
    /// folder beside the state folder, on this disk only]
    #[arg(long, value_name = "URL")]
    store: Option<String>,

    /// A file with what this kind of store reads: for s3:// an AWS credentials file with one profile. It goes into the key ring
    #[arg(long, value_name = "F", requires = "store")]
    credentials_file: Option<PathBuf>,

    /// Of a folder: each device sees the same one under this path, as on a network share
    #[arg(long, requires = "store")]
    shared: bool,

    /// Where the hive listens, for further devices [default: 127.0.0.1:8420, or the next free port]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Where the files of apps lie, for people to read [default: /apps, or below another --state]
    #[arg(long, value_name = "DIR")]
    apps: Option<PathBuf>,

    /// Docker's socket [default: what DOCKER_HOST names, else /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET")]
    docker: Option<PathBuf>,

    #[command(flatten)]
    author: AuthorArgs,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// What runs in this process.
struct Up {
    runtime: Runtime,
    hive: JoinHandle<std::result::Result<(), String>>,
    end_hive: Option<oneshot::Sender<()>>,
    device: Option<JoinHandle<std::result::Result<(), Ended>>>,
}

/// Runs it all.
pub fn run(state: &State, args: &UpArgs) -> Result<()> {
    if args.install_unit {
        return unit::install(state, args);
    }
    if args.detach && !args.left {
        return detach::start(state);
    }
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, ended.clone()).context("taking signals")?;
    }
    tell_only_warnings();
    // What is wrong with it is told before anything is made.
    let folder = args.dir.as_deref().map(AppFolder::read).transpose()?;
    state.prepare()?;
    let _running = Running::begin(state)?;
    make_ring(state, args)?;

    let (mut up, setup_code, hive, key) = begin(state, args)?;
    let client = log_in(state, hive, setup_code, key)?;
    drop(hive_ring::open(state, &client, &args.passphrase)?);
    let device = up.join(state, args, &client)?;
    let store = store(state, args, &client, device)?;
    let order = OrderArgs::default();
    match folder {
        Some(folder) => app(state, args, &client, folder, device, &store, &order)?,
        None => start_stopped(state, args, &client, device, &store, &order)?,
    }
    tell(state, args, &client, device);
    if args.left {
        detach::go_on(state)?;
    }
    while !ended.load(Ordering::Relaxed) {
        up.refuse_dead()?;
        sleep(LOOK_EVERY);
    }
    output::note("stopping the apps; the same command starts them again");
    let stopped = stop_all(&client, device);
    up.end();
    stopped
}

/// Hive and device say what a person should know; the rest with COMB_LOG.
fn tell_only_warnings() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMB_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

fn make_ring(state: &State, args: &UpArgs) -> Result<()> {
    if ring::exists(state) {
        return Ok(());
    }
    output::note("a new key ring: all data is encrypted under it, and nobody can replace its passphrase");
    let file = args.passphrase.file().map(Path::to_owned);
    ring::make(state, || passphrase::make(file.as_deref()))?.save()?;
    output::note(
        "`comb account kit --out FILE` makes a recovery kit to print, for the day when the passphrase is forgotten",
    );
    Ok(())
}

/// The address at which this state folder's hive was before.
fn known(state: &State) -> Result<Option<Login>> {
    let database = state.root().join("hive.db");
    match database.exists() {
        true => Ok(logins::all(state)?.into_iter().find(|login| login.is_of_up)),
        false => Ok(None),
    }
}

fn port_of(address: &Address) -> Option<u16> {
    address.to_string().rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

/// Begins the hive, and says its setup code if nobody used it yet, where it is, and its key.
fn begin(state: &State, args: &UpArgs) -> Result<(Up, Option<String>, Address, [u8; 32])> {
    let before = known(state)?.and_then(|login| port_of(&login.hive));
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let listen = match (args.listen, before) {
        (Some(listen), _) => listen,
        (None, Some(port)) => loopback(port),
        (None, None) => (PORT..PORT + PORTS_TRIED)
            .map(loopback)
            .find(|address| TcpListener::bind(address).is_ok())
            .ok_or_else(|| {
                Failure::new(Kind::InTheWay, format!("all ports from {PORT} on are taken"))
                    .hint("name one with --listen 127.0.0.1:PORT")
            })?,
    };
    let runtime = stores::runtime(4)?;
    let database = format!("sqlite:{}", state.root().join("hive.db").display());
    let server = runtime.block_on(Server::begin(Options::new(database, listen))).map_err(|error| {
        Failure::new(Kind::InTheWay, format!("the hive cannot begin: {error}"))
            .hint("another program may listen there; the device of this machine knows the hive by its port")
    })?;
    if let Some(caution) = server.caution() {
        output::note(caution);
    }
    let port = server.address().map_err(|error| Failure::other(error.to_string()))?.port();
    let (setup_code, key) = (server.setup_code().map(str::to_owned), server.key());
    let (end, ended) = oneshot::channel();
    let hive = runtime.spawn(async move {
        let stop = async {
            let _ = ended.await;
        };
        server.serve(stop).await.map_err(|error| error.to_string())
    });
    let ip = match listen.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    let address = Address::parse(&format!("http://{}", SocketAddr::new(ip, port)))?;
    Ok((Up { runtime, hive, end_hive: Some(end), device: None }, setup_code, address, key))
}

fn password_path(state: &State) -> PathBuf {
    state.root().join("hive.password")
}

/// Logs in at the hive of this process: with the token that is here, or by its setup code, or the password that is kept.
fn log_in(state: &State, hive: Address, setup_code: Option<String>, key: [u8; 32]) -> Result<Client> {
    let client = Client::new(hive)?;
    let begun = Instant::now();
    let info = loop {
        match client.info() {
            Ok(info) => break info,
            Err(failure) if begun.elapsed() > HIVE_WAIT => return Err(failure),
            Err(_) => sleep(LOOK_EVERY),
        }
    };
    if info.key.0 != key {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("what answers at {} is not the hive of this process", client.hive()),
        ));
    }
    if let Some(login) = known(state)?.filter(|login| login.hive == *client.hive() && login.key == info.key)
        && login.ends.0 - jiff::Timestamp::now().as_millisecond() > LOGIN_LEFT_MS
    {
        let client = Client::logged_in(&login)?;
        if client.get::<Me>("/v1/me").is_ok() {
            return Ok(client);
        }
    }
    let path = password_path(state);
    let token: NewToken = match info.set_up {
        false => {
            let code = setup_code.ok_or_else(|| {
                Failure::new(Kind::InTheWay, "the hive was begun before and never set up")
                    .hint(format!("remove {} if nothing is in it", state.root().join("hive.db").display()))
            })?;
            // Kept first: an account with a password that nobody knows would be of no use.
            crate::state::remove_file_if_there(&path)?;
            let password = hex(&*keys::random()?);
            write_new(&path, password.as_bytes())?;
            let setup = SetupRequest {
                setup_code: hidden(&code)?,
                account: "Home".parse().map_err(|_| Failure::other("no title"))?,
                name: "owner".parse().map_err(|_| Failure::other("no name"))?,
                password: hidden(&password)?,
            };
            client.post_once("/v1/setup", &setup)?
        }
        true => {
            let request = LoginRequest {
                name: "owner".parse().map_err(|_| Failure::other("no name"))?,
                password: hidden(&passphrase::secret(
                    "Password of \"owner\": ",
                    path.exists().then_some(path.as_path()),
                )?)?,
                title: login::title(),
                ends_in_s: None,
                second: None,
            };
            client.post_once("/v1/login", &request)?
        }
    };
    let client = client.with_token(token.token.clone());
    let login = Login {
        hive: client.hive().clone(),
        key: info.key,
        name: "owner".to_owned(),
        account: "Home".to_owned(),
        role: token.role,
        ends: token.ends,
        // What goes to an address of this machine does not leave it.
        insecure_http: true,
        is_of_up: true,
        token: token.token,
    };
    logins::keep(state, login)?;
    Ok(client)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Up {
    /// Makes this machine a device of the hive, if it is none, runs it, and waits until the hive has heard of it.
    fn join(&mut self, state: &State, args: &UpArgs, client: &Client) -> Result<DeviceId> {
        let folder = Folder::of(state.root());
        if folder.hive().context("the device's folder")?.is_none() {
            let code: NewDeviceCode =
                client.post_once("/v1/device-codes", &MakeDeviceCode { name: None, auto_update: false })?;
            let code = JoinCode::parse(code.code.reveal())
                .map_err(|error| Failure::other(format!("the hive's code is none: {error}")))?;
            let name =
                rustix::system::uname().nodename().to_string_lossy().chars().take(64).collect::<String>();
            let url = client.hive().to_string();
            let of = JoinOf {
                state: state.root(),
                url: &url,
                code: &code,
                name: &name,
                version: env!("CARGO_PKG_VERSION"),
                accepts_authoring: true,
                seed: *keys::random()?,
                run: keys::chance()?,
            };
            self.runtime
                .block_on(enrol::join(of))
                .map_err(|error| Failure::other(format!("this machine cannot become a device: {error}")))?;
        }
        let file = folder.hive().context("the device's folder")?;
        let file = file.ok_or_else(|| Failure::other("the device's folder does not say which it is"))?;
        if client.info()?.key != file.key {
            return Err(Failure::new(
                Kind::InTheWay,
                format!("this machine is a device of another hive, {}", file.url),
            )
            .hint("`comb --state DIR up` makes everything in another folder"));
        }
        // It may leave the folder in which these were named.
        let whole = |path: PathBuf| std::path::absolute(&path).context(path.display());
        let apps = whole(apps_folder(state, args.apps.as_deref()))?;
        fs::create_dir_all(&apps).context(apps.display())?;
        let commands = Arc::new(Commands::new(state.clone(), folder.0.clone()));
        let setup = Setup {
            state: state.root().to_owned(),
            apps,
            docker: whole(docker_socket(args.docker.as_deref()))?,
            volumes: commands.clone(),
            past: commands,
            rings: Arc::new(RingFolder(state.clone())),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            chance,
            takes_updates: false,
        };
        self.device = Some(self.runtime.spawn(daemon::run(setup)));
        let begun = Instant::now();
        loop {
            self.refuse_dead()?;
            let device: Device = client.get(&format!("/v1/devices/{}", file.device))?;
            // What the hive heard before this process began says nothing of it; of a ring that is new here it hears after the
            // first hello.
            let is_heard = |age: Number| Duration::from_millis(age.0) <= begun.elapsed();
            let heard = device.seen_age_ms.is_some_and(is_heard);
            if device.state == DeviceState::Online && heard && !device.locked {
                return Ok(device.id);
            }
            if begun.elapsed() > DEVICE_WAIT {
                return Err(Failure::new(
                    Kind::Silent,
                    "the device of this process says nothing to its hive",
                )
                .hint("COMB_LOG=info shows what it does; `comb doctor` says what is wrong"));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Fails if hive or device ended by themselves.
    fn refuse_dead(&mut self) -> Result<()> {
        if self.hive.is_finished() {
            let why = self.runtime.block_on(&mut self.hive);
            return Err(Failure::other(format!("the hive ended: {why:?}")));
        }
        match self.device.as_mut().filter(|device| device.is_finished()) {
            Some(device) => {
                let why = self.runtime.block_on(device);
                Err(Failure::other(format!("the device ended: {why:?}")))
            }
            None => Ok(()),
        }
    }

    fn end(mut self) {
        if let Some(device) = self.device.take() {
            device.abort();
        }
        if let Some(end) = self.end_hive.take() {
            let _ = end.send(());
        }
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(10), &mut self.hive).await });
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

fn chance() -> [u8; 32] {
    *keys::random().expect("a machine that runs has random bytes")
}

/// The store that the data goes to, made known to the hive.
fn store(state: &State, args: &UpArgs, client: &Client, device: DeviceId) -> Result<Store> {
    let url = match &args.store {
        Some(url) => stores::parse_url(url)?,
        None => {
            if let Some(first) = add::reached(client, Some(device))?.into_iter().next() {
                return Ok(first);
            }
            // In the state folder it would be no other copy, and is refused.
            let mut name = state.root().file_name().unwrap_or_default().to_owned();
            name.push("-store");
            let folder = state.root().with_file_name(name);
            fs::create_dir_all(&folder).context(folder.display())?;
            stores::parse_url(&format!("file://{}", folder.display()))?
        }
    };
    stores::refuse_own(state, &url)?;
    let device = (is_folder(&url) && !args.shared).then_some(device);
    let make = made(&url, args.shared, device)?;
    if let Some(file) = &args.credentials_file {
        keep_credentials(state, client, &args.passphrase, &url, file)?;
    }
    let known = find::stores(client)?.into_iter().find(|store| store.url == url);
    if args.store.is_some() {
        refuse_silent(state, client, &url, known.as_ref())?;
    }
    if let Some(known) = known {
        if args.shared && !known.shared {
            return Err(Failure::new(
                Kind::InTheWay,
                format!("the account has {url} as a folder of one device, and a store stays what it was made as"),
            )
            .hint("`comb account store remove` takes it out while no app uses it; or name the share by another path"));
        }
        return Ok(known);
    }
    let Made { id } = client.post("/v1/stores", &make)?;
    find::stores(client)?
        .into_iter()
        .find(|store| store.id == id)
        .ok_or_else(|| Failure::other("the store is not there"))
}

/// Refuses a store that does not answer before anything goes there. What an app has already may be away for a while: the app
/// runs, and its data follows.
fn refuse_silent(state: &State, client: &Client, url: &str, known: Option<&Store>) -> Result<()> {
    let commands = Commands::new(state.clone(), Folder::of(state.root()).0);
    let Err(failure) = stores::block_on(commands.reach(url)) else { return Ok(()) };
    let is_used = match known {
        Some(known) => find::apps(client)?.iter().any(|app| app.stores.contains(&known.id)),
        None => false,
    };
    let hint = match failure.kind {
        Kind::NotPermitted => "--credentials-file F gives it what it asks for; it goes into the key ring",
        _ => "see that its address is right, and that this machine reaches it",
    };
    let failure = failure.hint(hint);
    match is_used {
        true => output::note(&format!("warning: {}", failure.in_one_line())),
        false => return Err(failure),
    }
    Ok(())
}

/// Has an app that is there go to the store that was asked for: it is brought there if no other device can have it yet, else it is
/// copied.
fn bring(
    state: &State,
    args: &UpArgs,
    client: &Client,
    app: &App,
    store: &Store,
    order: &OrderArgs,
) -> Result<()> {
    if args.store.is_none() || app.stores.contains(&store.id) {
        return Ok(());
    }
    let known = find::stores(client)?;
    let may_leave = app_store::deciding(app, &known).is_none_or(Store::is_of_one_device);
    match may_leave && add::decides(&store.url) {
        true => app_store::decide(state, client, app, store, order),
        false => app_store::copy(client, app, store, order),
    }
}

/// Adds the app, or updates it if its folder changed, and sees that it runs.
fn app(
    state: &State,
    args: &UpArgs,
    client: &Client,
    folder: AppFolder,
    device: DeviceId,
    store: &Store,
    order: &OrderArgs,
) -> Result<()> {
    let wishes =
        author::Wishes { name: args.name.clone(), ..args.author.wishes(state, client, Images::Here)? };
    let name = args.name.clone().or_else(|| folder.name());
    let here = find::apps(client)?.into_iter().find(|app| Some(&app.name) == name.as_ref());
    let Some(app) = here else {
        let stores = vec![store.clone()];
        let adding =
            Adding { folder, wishes, device: Some(device), policy: Policy::Manual, stores, start: true };
        return adding.run(state, client, &args.passphrase, order);
    };
    bring(state, args, client, &app, store, order)?;
    start(client, &app, order)?;
    let app: App = client.get(&format!("/v1/apps/{}", app.id))?;
    update::update(state, client, &app, Some(folder), &wishes, false, &args.passphrase, order)?;
    add::tell_started(client, app.id)
}

fn start(client: &Client, app: &App, order: &OrderArgs) -> Result<()> {
    if app.wanted == Wanted::Running {
        return Ok(());
    }
    let ordered: Ordered = client.post(&format!("/v1/apps/{}/start", app.id), &Plain {})?;
    order.finish(client, ordered, &format!("starting \"{}\"", app.name)).map(drop)
}

fn start_stopped(
    state: &State,
    args: &UpArgs,
    client: &Client,
    device: DeviceId,
    store: &Store,
    order: &OrderArgs,
) -> Result<()> {
    for app in find::apps(client)?.iter().filter(|app| app.device == Some(device)) {
        bring(state, args, client, app, store, order)?;
        start(client, app, order)?;
        add::tell_started(client, app.id)?;
    }
    Ok(())
}

fn stop_all(client: &Client, device: DeviceId) -> Result<()> {
    let begun = Instant::now();
    for app in
        find::apps(client)?.iter().filter(|app| app.device == Some(device) && app.wanted == Wanted::Running)
    {
        if begun.elapsed() > STOP_WAIT {
            break;
        }
        let what = format!("stopping \"{}\"", app.name);
        let ordered: Ordered = client.post(&format!("/v1/apps/{}/stop", app.id), &Plain {})?;
        let watched = orders::watch(client, ordered.operation, &what)?;
        orders::ended(&watched.operation, &what)?;
    }
    Ok(())
}

/// Where an app's data goes, as the hive has it.
fn goes_to(app: &App, known: &[Store]) -> String {
    let url = |id| {
        known.iter().find(|store| store.id == id).map_or("a store that is gone", |store| store.url.as_str())
    };
    let (first, copies) = match app.stores.split_first() {
        Some((first, rest)) => (url(*first), rest.iter().map(|id| url(*id)).collect::<Vec<_>>().join(", ")),
        None => ("no store", String::new()),
    };
    let is_here = app_store::deciding(app, known).is_some_and(Store::is_of_one_device);
    let more = match (is_here, copies.is_empty()) {
        (true, true) => ", only on this disk: `comb up --store s3://…` brings it elsewhere".to_owned(),
        (true, false) => format!(
            ", and copied to {copies}; no other device can take it over while a folder of this machine decides who writes"
        ),
        (false, true) => String::new(),
        (false, false) => format!(", and copied to {copies}"),
    };
    format!("the data of \"{}\" is replicated to {first}{more}", app.name)
}

fn tell(state: &State, args: &UpArgs, client: &Client, device: DeviceId) {
    output::note(&format!(
        "the hive is at {}, its data and that of the apps in {}",
        client.hive(),
        state.root().display()
    ));
    if let (Ok(apps), Ok(known)) = (find::apps(client), find::stores(client)) {
        for app in apps.iter().filter(|app| app.device == Some(device)) {
            output::note(&goes_to(app, &known));
        }
    }
    output::note(&match args.listen {
        Some(_) => "`comb device code` in another terminal prints the command that adds a device".to_owned(),
        None => {
            "with --listen ADDR:PORT further devices can reach the hive; `comb device code` then adds one"
                .to_owned()
        }
    });
    output::note(
        "`comb device page` in another terminal opens the apps' files, of any moment, and their logs in a browser",
    );
    if !args.left {
        output::note("an interrupt stops the apps and ends");
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::text::Uuid;
    use serde_json::json;

    use super::*;
    use crate::hive::client;

    fn id(number: u8) -> Uuid {
        let mut bytes = [number; 16];
        (bytes[6], bytes[8]) = (0x40, 0x80);
        Uuid(bytes)
    }

    fn store(number: u8, url: &str, device: Option<DeviceId>) -> Store {
        Store { id: id(number), url: url.to_owned(), shared: false, device }
    }

    #[test]
    fn what_is_told_of_an_apps_stores_is_what_the_hive_has() {
        let known = [
            store(1, "file:///var/lib/comb-store", Some(DeviceId([7; 16]))),
            store(2, "s3://bucket/comb", None),
            store(3, "https://dav.example.org/comb", None),
        ];
        let told = |stores: &[u8]| {
            let stores: Vec<_> = stores.iter().map(|one| id(*one)).collect();
            goes_to(&client::tests::app(&json!({"name": "ledger", "stores": stores})), &known)
        };
        let here = told(&[1]);
        assert!(
            here.contains("file:///var/lib/comb-store, only on this disk")
                && here.contains("comb up --store"),
            "{here}"
        );
        assert_eq!(told(&[2]), "the data of \"ledger\" is replicated to s3://bucket/comb");
        assert!(told(&[2, 3]).ends_with("s3://bucket/comb, and copied to https://dav.example.org/comb"));
        assert!(told(&[1, 2]).contains("no other device can take it over"));
        assert!(told(&[4]).contains("gone"));
    }
}
