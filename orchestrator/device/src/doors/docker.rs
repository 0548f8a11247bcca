//! Docker's API, as far as a device uses it (`security.md`, section 7).
//!
//! Invariants
//! - Only containers and volumes with this device's label are listed, read, started or stopped. Whoever asks names an
//!   app or an id that came from here.
//! - Each call has a deadline. None of Docker's words goes into a log.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::ClientVersion;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, EventMessage, HealthStatusEnum,
    VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StatsOptionsBuilder, StopContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use orchestrator_api::ids::{AppId, DeviceId, Term};
use orchestrator_api::placement::Problem;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::trouble::{Result, Trouble};

/// The label with the app's id.
pub const LABEL_APP: &str = "io.comb.app";
/// The label with the term.
pub const LABEL_TERM: &str = "io.comb.term";
/// The label with the device's id.
pub const LABEL_DEVICE: &str = "io.comb.device";
/// The label that compose gives.
const LABEL_SERVICE: &str = "com.docker.compose.service";

/// How long a question may take.
const ASK_WAIT: Duration = Duration::from_secs(15);
/// An answer that takes longer than this is slow.
pub const SLOW_AFTER: Duration = Duration::from_secs(5);
/// How long an image may take between two signs of life.
const PULL_WAIT: Duration = Duration::from_secs(120);
/// Docker's own wait is longer than the grace that it is told.
const STOP_MORE: Duration = Duration::from_secs(20);
/// The longest line of a log, in bytes: longer ones are several. The engine's own are not as long.
const LINE_BYTES_MAX: usize = 32 << 10;
/// What stands before each line of a log where there is no terminal: its kind, three zeros, and its length.
const FRAME_HEAD_BYTES: usize = 8;
/// The most containers that are looked at.
const CONTAINERS_MAX: usize = 2_000;

/// Docker's engine, with what this device has there.
pub struct Docker {
    socket: PathBuf,
    device: DeviceId,
    api: Mutex<Option<bollard::Docker>>,
}

/// A container of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Docker's id.
    pub id: String,
    /// The app.
    pub app: AppId,
    /// The term in which it was made.
    pub term: Term,
    /// The service.
    pub service: String,
    /// How it is.
    pub state: State,
    /// What its check says; none if it has none.
    pub health: Option<Health>,
    /// With what it ended.
    pub exit: Option<i64>,
    /// When it was started last, by Docker's words; another one is another start.
    pub started: Option<String>,
    /// Its address in its network.
    pub address: Option<String>,
}

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as Docker names them")]
pub enum State {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Dead,
}

/// What a container's check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as Docker names them")]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id, `sha256:…`.
    pub id: String,
    /// The digests under which registries know it, `sha256:…`.
    pub digests: Vec<String>,
    /// The same with their repositories before them: `name@sha256:…`.
    pub names: Vec<String>,
    /// The user that it runs as.
    pub user: Option<String>,
    /// For which processor, as Docker names it: `amd64`; none if it does not say.
    pub processor: Option<String>,
}

impl Image {
    /// The digest that an image's own registry gave it; none of one that was never in a registry.
    pub fn digest_of(&self, image: &str) -> Option<&str> {
        let wanted = repository(image);
        let of_it = self.names.iter().filter_map(|one| one.split_once('@'));
        of_it.filter(|(name, _)| repository(name) == wanted).map(|(_, digest)| digest).next()
    }
}

/// Why an image did not come, by the engine's words: that nobody has it is told as any other failure.
fn not_pulled(message: String) -> Trouble {
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let problem = match () {
        // Newer engines end this one with "not found", too.
        () if says(&["no matching manifest for", "does not match the specified platform"]) => {
            Problem::ArchMismatch
        }
        () if says(&["manifest unknown", "name unknown", "not found"]) => Problem::ImageUnknown,
        () => Problem::PullFailed,
    };
    Trouble::new(problem, message)
}

/// The name of an image without its tag, as registries call it.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or_default();
    // A colon behind the last slash begins a tag; one before it a port.
    let cut = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name[cut..].find(':').map_or(name.len(), |colon| cut + colon);
    name[..end].trim_start_matches("docker.io/").trim_start_matches("library/")
}

/// What a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Nanoseconds of processors since it was made.
    pub cpu_nanos: u64,
    /// Bytes, without what the kernel only caches.
    pub memory_bytes: u64,
    /// When that was, on `CLOCK_BOOTTIME`; whoever keeps it fills it in.
    pub at: crate::Boottime,
}

/// A line of a log or of an action's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whether it is of the standard error.
    pub is_error: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Something happened to a container of this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The app.
    pub app: AppId,
    /// What happened, by Docker's word without what follows a colon.
    pub action: String,
}

impl Docker {
    /// The engine behind a socket; it need not be there yet.
    pub fn new(socket: impl Into<PathBuf>, device: DeviceId) -> Self {
        Self { socket: socket.into(), device, api: Mutex::new(None) }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn api(&self) -> Result<bollard::Docker> {
        let known = self.api.lock().clone();
        if let Some(api) = known {
            return Ok(api);
        }
        let socket = self.socket.to_string_lossy();
        let version = ClientVersion { major_version: 1, minor_version: 45 };
        let api = bollard::Docker::connect_with_unix(&socket, 3_600, &version).map_err(trouble)?;
        let api = within(ASK_WAIT, api.negotiate_version()).await?;
        *self.api.lock() = Some(api.clone());
        Ok(api)
    }

    /// Whether it answers, and how long that takes.
    pub async fn ping(&self) -> Result<Duration> {
        let begun = std::time::Instant::now();
        // One that is a newer program now is spoken to anew.
        let api = match self.api().await {
            Ok(api) => api,
            Err(trouble) => {
                *self.api.lock() = None;
                return Err(trouble);
            }
        };
        if let Err(trouble) = within(ASK_WAIT, api.ping()).await {
            *self.api.lock() = None;
            return Err(trouble);
        }
        Ok(begun.elapsed())
    }

    /// Its version, and its root folder.
    pub async fn version(&self) -> Result<(String, Option<PathBuf>)> {
        let api = self.api().await?;
        let version = within(ASK_WAIT, api.version()).await?.version.unwrap_or_default();
        let root = within(ASK_WAIT, api.info()).await?.docker_root_dir.map(PathBuf::from);
        Ok((version, root))
    }

    /// The machine's processor, as Docker names it; none if the engine does not say.
    pub async fn processor(&self) -> Result<Option<String>> {
        let api = self.api().await?;
        Ok(within(ASK_WAIT, api.version()).await?.arch.filter(|processor| !processor.is_empty()))
    }

    fn filters(&self, app: Option<AppId>) -> HashMap<String, Vec<String>> {
        let mut labels = vec![format!("{LABEL_DEVICE}={}", self.device)];
        labels.extend(app.map(|app| format!("{LABEL_APP}={app}")));
        HashMap::from([("label".to_owned(), labels)])
    }

    /// The containers of an app, or of all, however they are; by service.
    pub async fn containers(&self, app: Option<AppId>) -> Result<Vec<Container>> {
        let api = self.api().await?;
        let options = ListContainersOptionsBuilder::new().all(true).filters(&self.filters(app)).build();
        let list = within(ASK_WAIT, api.list_containers(Some(options))).await?;
        let mut containers = Vec::new();
        for summary in list.into_iter().take(CONTAINERS_MAX) {
            let Some((id, app, term, service)) = ours(summary) else { continue };
            // It may be gone between the two questions.
            if let Some(inspected) = found(api.inspect_container(&id, None)).await? {
                containers.push(read(id, app, term, service, inspected));
            }
        }
        containers.sort_by(|a, b| (&a.service, &a.id).cmp(&(&b.service, &b.id)));
        Ok(containers)
    }

    /// Starts a container that exited.
    pub async fn start(&self, container: &Container) -> Result<()> {
        let api = self.api().await?;
        within(Duration::from_secs(60), api.start_container(&container.id, None)).await
    }

    /// Asks a container to end, and kills it after the grace.
    pub async fn stop(&self, container: &Container, grace: Duration) -> Result<()> {
        let api = self.api().await?;
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        within(grace + STOP_MORE, api.stop_container(&container.id, Some(options))).await
    }

    /// Removes a container, with the anonymous volumes that are its own.
    pub async fn remove(&self, container: &Container) -> Result<()> {
        let api = self.api().await?;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        found(api.remove_container(&container.id, Some(options))).await.map(|_| ())
    }

    /// Lets a container stand still.
    pub async fn pause(&self, container: &Container) -> Result<()> {
        let api = self.api().await?;
        within(ASK_WAIT, api.pause_container(&container.id)).await
    }

    /// Lets it go on.
    pub async fn unpause(&self, container: &Container) -> Result<()> {
        let api = self.api().await?;
        within(ASK_WAIT, api.unpause_container(&container.id)).await
    }

    /// Makes a local volume whose device is a folder inside a mount; one of that name that leads elsewhere is made anew.
    pub async fn bind_volume(&self, name: &str, folder: &Path, app: AppId) -> Result<()> {
        let api = self.api().await?;
        let device = folder.to_string_lossy().into_owned();
        match found(api.inspect_volume(name)).await? {
            None => {}
            Some(volume) if volume.options.get("device") == Some(&device) => return Ok(()),
            Some(volume) if volume.labels.get(LABEL_DEVICE) == Some(&self.device.to_string()) => {
                self.remove_volume(name).await?;
            }
            Some(_) => {
                let text = format!("there is a Docker volume \"{name}\" that Comb did not make");
                return Err(Trouble::new(Problem::ComposeFailed, text));
            }
        }
        let options = [("type", "none"), ("o", "bind"), ("device", &device)];
        let labels = [(LABEL_APP, app.to_string()), (LABEL_DEVICE, self.device.to_string())]
            .map(|(k, v)| (k.to_owned(), v));
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            driver: Some("local".to_owned()),
            driver_opts: Some(options.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            labels: Some(labels.into()),
            ..Default::default()
        };
        within(ASK_WAIT, api.create_volume(request)).await.map(|_| ())
    }

    /// Removes a local volume that was made here; what it leads to stays.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        let api = self.api().await?;
        found(api.remove_volume(name, None::<RemoveVolumeOptions>)).await.map(|_| ())
    }

    /// Where a local Docker volume lies that an old project left, and whether a container that runs uses it.
    pub async fn foreign_volume(&self, name: &str) -> Result<Option<(PathBuf, bool)>> {
        let api = self.api().await?;
        let Some(volume) = found(api.inspect_volume(name)).await? else { return Ok(None) };
        let filters = HashMap::from([("volume".to_owned(), vec![name.to_owned()])]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let used = !within(ASK_WAIT, api.list_containers(Some(options))).await?.is_empty();
        Ok(Some((PathBuf::from(volume.mountpoint), used)))
    }

    /// An image by its name or id.
    pub async fn image(&self, name: &str) -> Result<Option<Image>> {
        let api = self.api().await?;
        let Some(image) = found(api.inspect_image(name)).await? else { return Ok(None) };
        let names = image.repo_digests.unwrap_or_default();
        let digests = names.iter().filter_map(|one| one.split_once('@')).map(|(_, digest)| digest.to_owned());
        Ok(Some(Image {
            id: image.id.unwrap_or_default(),
            digests: digests.collect(),
            names,
            user: image.config.and_then(|config| config.user).filter(|user| !user.is_empty()),
            processor: image.architecture.filter(|processor| !processor.is_empty()),
        }))
    }

    /// Fetches an image from its registry.
    pub async fn pull(&self, name: &str) -> Result<()> {
        let api = self.api().await?;
        let options = CreateImageOptionsBuilder::new().from_image(name).build();
        let mut steps = api.create_image(Some(options), None, None).boxed();
        let failed = |error: Error| match error {
            Error::DockerResponseServerError { status_code: 404, message } => {
                Trouble::new(Problem::ImageUnknown, message)
            }
            Error::DockerResponseServerError { message, .. }
            | Error::DockerStreamError { error: message } => not_pulled(message),
            error => not_pulled(error.to_string()),
        };
        loop {
            match timeout(PULL_WAIT, steps.next()).await {
                Err(_) => return Err(Trouble::new(Problem::PullFailed, "the registry gives no answer")),
                Ok(None) => return Ok(()),
                Ok(Some(step)) => {
                    let step = step.map_err(failed)?;
                    if let Some(message) = step.error_detail.and_then(|detail| detail.message) {
                        return Err(not_pulled(message));
                    }
                }
            }
        }
    }

    /// What a container uses now.
    pub async fn usage(&self, container: &Container) -> Result<Usage> {
        let api = self.api().await?;
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let stats = within(ASK_WAIT, api.stats(&container.id, Some(options)).try_next()).await?;
        let Some(stats) = stats else { return Ok(Usage::default()) };
        let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage);
        let memory = stats.memory_stats.map(|memory| {
            let cached = memory.stats.unwrap_or_default();
            let cached = cached.get("inactive_file").or(cached.get("total_inactive_file")).copied();
            memory.usage.unwrap_or_default().saturating_sub(cached.unwrap_or_default())
        });
        let at = super::clock::boottime();
        Ok(Usage { cpu_nanos: cpu.unwrap_or_default(), memory_bytes: memory.unwrap_or_default(), at })
    }

    /// The last lines of a container, and those that come; with a time before each, if that is asked for.
    pub async fn logs(
        &self,
        container: &Container,
        lines: u32,
        follow: bool,
        timed: bool,
    ) -> Result<BoxStream<'static, Line>> {
        let api = self.api().await?;
        let Some(inspected) = found(api.inspect_container(&container.id, None)).await? else {
            return Ok(stream::empty().boxed());
        };
        let is_terminal = inspected.config.and_then(|config| config.tty).unwrap_or_default();
        let path = format!(
            "/v{}/containers/{}/logs?stdout=true&stderr=true&follow={follow}&timestamps={timed}&tail={lines}",
            api.client_version(),
            container.id
        );
        let socket = self.socket.clone();
        // A stream that breaks has ended: who reads asks again.
        let log =
            stream::once(async move { opened(&socket, &path).await.ok() }).filter_map(std::future::ready);
        Ok(log.flat_map(move |bytes| lines_of(bytes, is_terminal)).boxed())
    }

    /// Runs a program in a container, with its standard input; hands its output on and returns its exit code.
    pub async fn exec(
        &self,
        container: &Container,
        argv: &[String],
        input: Option<&str>,
        limit: Duration,
        mut output: impl FnMut(Line),
    ) -> Result<i64> {
        let api = self.api().await?;
        let options = CreateExecOptions {
            attach_stdin: Some(input.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            ..Default::default()
        };
        let exec = within(ASK_WAIT, api.create_exec(&container.id, options)).await?.id;
        let run = async {
            if let StartExecResults::Attached { output: mut parts, input: mut pipe } =
                within(ASK_WAIT, api.start_exec(&exec, None)).await?
            {
                if let Some(text) = input {
                    let sent = async {
                        pipe.write_all(text.as_bytes()).await?;
                        pipe.shutdown().await
                    };
                    sent.await.map_err(|error| Trouble::new(Problem::HookFailed, error.to_string()))?;
                }
                while let Some(part) = parts.next().await {
                    output(line(part.map_err(trouble)?));
                }
            }
            let ended = within(ASK_WAIT, api.inspect_exec(&exec)).await?;
            Ok(ended.exit_code.unwrap_or(-1))
        };
        match timeout(limit, run).await {
            Ok(ended) => ended,
            Err(_) => Err(Trouble::new(Problem::HookFailed, "it did not end in time")),
        }
    }

    /// What happens to this device's containers from now on; ends when Docker does.
    pub async fn events(&self) -> Result<BoxStream<'static, ContainerEvent>> {
        let api = self.api().await?;
        let mut filters = self.filters(None);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let events = api.events(Some(options));
        Ok(events
            .take_while(|event| std::future::ready(event.is_ok()))
            .filter_map(|event| async { event.ok().and_then(happened) })
            .boxed())
    }
}

/// The bytes of an answer as they come. Read without the library: it would keep all that a terminal says until a line ends, and
/// take what an app writes for lengths.
async fn opened(socket: &Path, path: &str) -> io::Result<Incoming> {
    let stream = UnixStream::connect(socket).await?;
    let (mut asks, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends when the body was read or is dropped.
    tokio::spawn(connection);
    let request = Request::get(path).header(HOST, "docker").body(Empty::<Bytes>::new());
    let answer = asks.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    match answer.status().is_success() {
        true => Ok(answer.into_body()),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

fn lines_of(bytes: Incoming, is_terminal: bool) -> impl Stream<Item = Line> + Send {
    stream::unfold((bytes, Cutter { is_terminal, ..Cutter::default() }), |(mut bytes, mut cutter)| async {
        while cutter.ready.is_empty() {
            match bytes.frame().await {
                Some(Ok(frame)) => cutter.take(frame.data_ref().map_or(&[], |data| data)),
                _ => {
                    cutter.end();
                    break;
                }
            }
        }
        cutter.ready.pop_front().map(|line| (line, (bytes, cutter)))
    })
}

/// Cuts the bytes of a log into lines. Each comes in a frame, with its length and whether it is of the standard error; of a terminal
/// there are no frames, and all is one stream. What an app writes never decides how much is kept.
#[derive(Default)]
struct Cutter {
    is_terminal: bool,
    /// As much of a frame's head as came.
    head: Vec<u8>,
    is_error: bool,
    /// What the frame still has.
    left: usize,
    line: Vec<u8>,
    ready: VecDeque<Line>,
}

impl Cutter {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if !self.is_terminal && self.left == 0 {
                let (head, rest) = bytes.split_at(bytes.len().min(FRAME_HEAD_BYTES - self.head.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                if let [kind, _, _, _, length @ ..] = &self.head[..]
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    (self.is_error, self.left) = (*kind == 2, u32::from_be_bytes(length) as usize);
                    self.head.clear();
                }
                continue;
            }
            let room = LINE_BYTES_MAX - self.line.len();
            let most = bytes.len().min(room);
            let (count, is_end) = match self.is_terminal {
                true => match bytes[..most].iter().position(|byte| *byte == b'\n') {
                    Some(at) => (at + 1, true),
                    None => (most, false),
                },
                false => (most.min(self.left), most >= self.left),
            };
            self.line.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.left = self.left.saturating_sub(count);
            if is_end || self.line.len() == LINE_BYTES_MAX {
                self.end();
            }
        }
    }

    /// What is there is a line.
    fn end(&mut self) {
        if !self.line.is_empty() {
            let bytes = std::mem::take(&mut self.line);
            self.ready.push_back(Line { is_error: self.is_error, bytes });
        }
    }
}

fn happened(event: EventMessage) -> Option<ContainerEvent> {
    let attributes = event.actor?.attributes?;
    let app = attributes.get(LABEL_APP)?.parse().ok()?;
    let action = event.action?;
    Some(ContainerEvent { app, action: action.split(':').next().unwrap_or_default().to_owned() })
}

fn line(part: LogOutput) -> Line {
    let is_error = matches!(part, LogOutput::StdErr { .. });
    Line { is_error, bytes: part.into_bytes().to_vec() }
}

/// What a summary says, if it carries all labels.
fn ours(summary: ContainerSummary) -> Option<(String, AppId, Term, String)> {
    let labels = summary.labels?;
    let app = labels.get(LABEL_APP)?.parse().ok()?;
    let term = labels.get(LABEL_TERM)?.parse().ok().map(Term)?;
    Some((summary.id?, app, term, labels.get(LABEL_SERVICE)?.clone()))
}

fn read(
    id: String,
    app: AppId,
    term: Term,
    service: String,
    inspected: ContainerInspectResponse,
) -> Container {
    let state = inspected.state.unwrap_or_default();
    let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY);
    let health = state.health.and_then(|health| health.status).and_then(|status| match status {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    });
    let networks: BTreeMap<_, _> = inspected
        .network_settings
        .and_then(|settings| settings.networks)
        .unwrap_or_default()
        .into_iter()
        .collect();
    let address = networks.into_values().filter_map(|network| network.ip_address).find(|ip| !ip.is_empty());
    let ended = matches!(status, ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD);
    Container {
        id,
        app,
        term,
        service,
        state: match status {
            ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING => State::Running,
            ContainerStateStatusEnum::PAUSED => State::Paused,
            ContainerStateStatusEnum::RESTARTING => State::Restarting,
            ContainerStateStatusEnum::EXITED => State::Exited,
            ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD => State::Dead,
            ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY => State::Created,
        },
        health,
        exit: state.exit_code.filter(|_| ended),
        started: state.started_at.filter(|at| !at.starts_with("0001")),
        address,
    }
}

/// What Docker answers, in time.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = std::result::Result<T, Error>>,
) -> Result<T> {
    match timeout(limit, answer).await {
        Ok(answer) => answer.map_err(trouble),
        Err(_) => Err(Trouble::new(Problem::DockerSlow, "Docker did not answer in time")),
    }
}

/// What Docker has, or that it has no such thing.
async fn found<T>(answer: impl Future<Output = std::result::Result<T, Error>>) -> Result<Option<T>> {
    match timeout(ASK_WAIT * 2, answer).await {
        Ok(Err(Error::DockerResponseServerError { status_code: 404, .. })) => Ok(None),
        Ok(answer) => answer.map(Some).map_err(trouble),
        Err(_) => Err(Trouble::new(Problem::DockerSlow, "Docker did not answer in time")),
    }
}

/// An error of Docker as a problem.
fn trouble(error: Error) -> Trouble {
    let text = error.to_string();
    let problem = match &error {
        Error::DockerResponseServerError { .. } => Problem::ComposeFailed,
        Error::RequestTimeoutError => Problem::DockerSlow,
        _ => Problem::DockerStopped,
    };
    Trouble::new(problem, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_says_of_an_image_that_does_not_come_is_told_apart() {
        let table = [
            ("manifest for nginx@sha256:ab not found: manifest unknown", Problem::ImageUnknown),
            ("no matching manifest for linux/arm64/v8 in the manifest list entries", Problem::ArchMismatch),
            (
                "no matching manifest for linux/amd64 in the manifest list entries: no match for platform in manifest: not found",
                Problem::ArchMismatch,
            ),
            ("Get \"https://registry/v2/\": dial tcp: connection refused", Problem::PullFailed),
        ];
        for (words, problem) in table {
            assert_eq!(not_pulled(words.to_owned()).problem, problem, "{words}");
        }
    }

    /// What is cut of bytes that come in parts of some length.
    fn cut(is_terminal: bool, bytes: &[u8], part: usize) -> Vec<(bool, String)> {
        let mut cutter = Cutter { is_terminal, ..Cutter::default() };
        for part in bytes.chunks(part) {
            cutter.take(part);
            assert!(cutter.line.len() <= LINE_BYTES_MAX && cutter.head.len() < FRAME_HEAD_BYTES);
        }
        cutter.end();
        let text = |line: Line| (line.is_error, String::from_utf8(line.bytes).expect("text"));
        cutter.ready.into_iter().map(text).collect()
    }

    fn frame(kind: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("short").to_be_bytes();
        [&[kind, 0, 0, 0][..], &length, text.as_bytes()].concat()
    }

    #[test]
    fn a_log_is_cut_into_its_lines_however_its_bytes_come() {
        let framed =
            [frame(1, "out\n"), frame(2, ""), frame(2, "err, \u{1}\u{2}\n"), frame(1, "no end")].concat();
        let lines = [(false, "out\n"), (true, "err, \u{1}\u{2}\n"), (false, "no end")];
        let lines: Vec<_> = lines.map(|(is_error, text)| (is_error, text.to_owned())).into();
        // Of a terminal the first bytes of a line are no length.
        let plain = b"one\n\x01\x00\x00\x00\xff"[..8].to_vec();
        let plain = [plain, b"\x7f two\nno end".to_vec()].concat();
        for part in [1, 3, 8, 1_000] {
            assert_eq!(cut(false, &framed, part), lines, "{part}");
            let cut = cut(true, &plain, part);
            let text: Vec<&str> = cut.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(text, ["one\n", "\u{1}\0\0\0\u{7f} two\n", "no end"], "{part}");
        }
    }

    #[test]
    fn what_never_ends_is_cut() {
        let bar = "10 %\r".repeat(LINE_BYTES_MAX);
        let whole =
            |lines: &[(bool, String)]| lines.iter().map(|(_, text)| text.as_str()).collect::<String>();
        for (is_terminal, bytes) in [(true, bar.clone().into_bytes()), (false, frame(1, &bar))] {
            let lines = cut(is_terminal, &bytes, 4_096);
            assert!(lines.len() >= 5 && lines.iter().all(|(_, text)| text.len() <= LINE_BYTES_MAX));
            assert!(whole(&lines) == bar, "nothing is lost");
        }
        // A length that is not true keeps nothing but what came.
        assert_eq!(cut(false, b"\x01\0\0\0\xff\xff\xff\xffab", 3), [(false, "ab".to_owned())]);
    }
}
