//! What commands and the daemon of a mounted volume say to each other.
//!
//! One request and one answer per connection, each a line of JSON, over a Unix socket in the volume's
//! folder. The folder is open to its owner alone; the daemon also asks the kernel who is calling.
//!
//! Invariants
//! - That there is no daemon is believed only of an address where nobody listens. One that listens and does
//!   not answer is asked again, and then told as a failure.
//! - No connection is turned away: who comes while all are served waits in the socket's backlog. One that says
//!   nothing is closed soon, so that it does not make the others wait.
//! - Nobody waits for ever for a daemon that was stopped or hangs. How it is, it says within [`LOOK_WAIT`]; while it does what takes
//!   long, it is asked on another connection how it is.
//! - A line has a limit in each direction, and an answer that is longer is told as one.
//!
//! A socket's address holds 108 bytes and a state folder may lie deeper than that, so both sides
//! reach the socket through `/proc/self/fd/N` of its opened folder.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Kind, Result};
use crate::report::{MountReport, SealReport};

/// The longest request, in bytes: a message of 4096 bytes and all tags fit, however they are escaped.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// The longest answer, in bytes: far above the longest list of damage.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// The most connections that are served at a time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// How long the daemon waits for a request, which a command sends as soon as it is connected.
const REQUEST_WAIT: Duration = Duration::from_secs(1);
/// How long the daemon waits for its answer to be taken.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long a daemon that listens and does not answer is asked again, and how often.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a daemon may take to say how it is, or to take a request. Far above what it takes on a busy machine.
const LOOK_WAIT: Duration = Duration::from_secs(3);
/// How often such a daemon is asked before it is said to give no answer: the machine may have slept in between.
const LOOKS: u32 = 2;

/// What a command asks of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// How it is. Answered with a [`MountReport`].
    Status,
    /// Take over what the config says of stores now. Answered with `null`.
    Reload,
    /// Seal what is not sealed and bring it to the stores without a pause. Answered with the head's [`SealReport`].
    Sync,
    /// Seal what is not sealed. Answered with the head's [`SealReport`].
    Seal,
    /// Seal with a label. Answered with the new [`SealReport`].
    Snapshot {
        /// What a person says of it.
        message: String,
        /// Its tags, checked by the command.
        tags: Vec<String>,
    },
    /// Give the volume a policy, or none. Answered with the head's [`SealReport`].
    Retain {
        /// The policy, checked by the command.
        policy: Option<String>,
    },
    /// Drop what the policy does not keep. Answered with a [`PruneReport`](crate::report::PruneReport).
    Prune {
        /// How long what nobody needs is kept.
        grace_seconds: u64,
        /// Moments that a mount shows.
        pinned: Vec<u64>,
    },
    /// Move the end of the lease on, also of a mount that has none. Answered with a [`LeaseReport`](crate::lease::LeaseReport),
    /// which may have a later end: none moves back.
    Lease {
        /// In milliseconds of `CLOCK_BOOTTIME`.
        end_boottime_ms: u64,
    },
    /// Take the lease away. Answered with `null`.
    NoLease,
    /// Look at once what the stores have, which was found to be otherwise. Answered with `null`.
    Look,
    /// Read the journal as a replay would. Answered with a list of what is damaged in it.
    CheckJournal,
    /// Unmount, seal and end. Answered with `null` when the volume's lock is free.
    Unmount,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Done(serde_json::Value),
    Failed(Failure),
}

/// A daemon's address.
#[derive(Debug, Clone)]
pub struct Address {
    folder: PathBuf,
    file: String,
}

impl Address {
    /// The daemon that holds a volume.
    pub fn live(volume: &Path) -> Address {
        Address { folder: volume.to_owned(), file: "control".into() }
    }

    /// A daemon that shows a moment of a volume.
    pub fn view(volume: &Path, pid: u32) -> Address {
        Address { folder: volume.join("views"), file: pid.to_string() }
    }

    /// All daemons of a volume that may be there, the live one first.
    pub fn all(volume: &Path) -> Vec<Address> {
        let mut all = vec![Address::live(volume)];
        if let Ok(entries) = std::fs::read_dir(volume.join("views")) {
            let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            all.extend(pids.map(|pid| Address::view(volume, pid)));
        }
        all
    }

    /// A path of a few bytes that leads to the socket as long as the folder stays open.
    fn open(&self) -> io::Result<(OwnedFd, PathBuf)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.folder, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), self.file));
        Ok((folder, path))
    }

    /// Asks for the daemon's status; `None` if there is none, or it has just ended.
    pub fn status(&self) -> Result<Option<MountReport>> {
        self.look(&Request::Status)
    }

    /// Asks what is damaged in the journal; `None` if there is no daemon, or it has just ended.
    pub fn check_journal(&self) -> Result<Option<Vec<String>>> {
        // A long journal takes longer to read than a daemon may take to say how it is.
        self.look_while(&Request::CheckJournal, &|| self.is_awake())
    }

    /// Asks what changes nothing and is answered at once.
    fn look<T: DeserializeOwned>(&self, request: &Request) -> Result<Option<T>> {
        self.look_while(request, &|| false)
    }

    /// Asks what changes nothing, and so can be asked again; waits for the answer while `go_on` says so.
    fn look_while<T: DeserializeOwned>(
        &self,
        request: &Request,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<T>> {
        let deadline = Instant::now() + LOOK_PATIENCE;
        let mut looks = 0;
        loop {
            match self.ask_or_lose(request, go_on)? {
                Reply::Answer(value) => return Ok(Some(value)),
                Reply::NoDaemon => return Ok(None),
                Reply::Silent(pid) => {
                    looks += 1;
                    if looks >= LOOKS {
                        return Err(self.silence(pid));
                    }
                }
                // A daemon that ended leaves an address where nobody listens; whatever else this is, it is no absence.
                Reply::Lost(_) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
                Reply::Lost(error) => {
                    return Err(Failure::new(
                        Kind::Silent,
                        format!("the daemon at {} gives no answer: {error}", self.shown().display()),
                    )
                    .hint("its last words are in the file `log` of the volume's folder; try again when the machine is less busy"));
                }
            }
        }
    }

    /// Whether a daemon that does what takes long says how it is, if it is asked. One that is just ending need not.
    fn is_awake(&self) -> bool {
        !self.status().is_err_and(|failure| failure.kind == Kind::Silent)
    }

    /// What is told of a daemon that takes connections, or no more, and says nothing.
    fn silence(&self, pid: Option<Pid>) -> Failure {
        let shown = self.shown();
        let Some(pid) = pid else {
            let what = format!("the daemon at {} gives no answer", shown.display());
            return Failure::new(Kind::Silent, what)
                .hint("if it is stopped or hangs, the file `lock` beside names its process");
        };
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        // The name, in brackets, may hold anything; the state comes behind the last bracket.
        let is_stopped = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']));
        let how = if is_stopped { ": it is stopped" } else { "" };
        let what = format!(
            "the daemon at {}, process {}, gives no answer{how}",
            shown.display(),
            pid.as_raw_nonzero()
        );
        Failure::new(Kind::Silent, what).hint(match is_stopped {
            true => format!("`kill -CONT {}` lets it go on", pid.as_raw_nonzero()),
            false => format!(
                "its last words are in the file `log` of the volume's folder; if it stays so, `kill -9 {}` loses nothing that was \
                 synced, and the next mount goes on from there",
                pid.as_raw_nonzero()
            ),
        })
    }

    /// Tells that the config has changed; `None` if there is no daemon.
    pub fn reload(&self) -> Result<Option<()>> {
        self.ask(&Request::Reload)
    }

    /// Asks that the stores be looked at now; `None` if there is no daemon.
    pub fn look_at_stores(&self) -> Result<Option<()>> {
        self.ask(&Request::Look)
    }

    /// Asks for a seal that goes to the stores at once; `None` if there is no daemon.
    pub fn sync(&self) -> Result<Option<SealReport>> {
        self.ask(&Request::Sync)
    }

    /// Asks for a seal; `None` if there is no daemon.
    pub fn seal(&self) -> Result<Option<SealReport>> {
        self.ask(&Request::Seal)
    }

    /// Sends a request and waits for its answer, as long as it takes; `None` if there is no daemon.
    ///
    /// There is no time limit: sealing takes as long as there is to seal, and a daemon that dies
    /// closes the connection. Only one that does not even say how it is, is given up.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<Option<T>> {
        match self.ask_or_lose(request, &|| self.is_awake())? {
            Reply::Answer(value) => Ok(Some(value)),
            Reply::NoDaemon => Ok(None),
            Reply::Silent(pid) => {
                let mut silence = self.silence(pid);
                silence.message += "; what it was asked for it may do when it goes on";
                Err(silence)
            }
            Reply::Lost(error) => Err(Failure::new(
                Kind::Silent,
                format!("the daemon ended before it answered, as when the volume is unmounted meanwhile: {error}"),
            )
            .hint(
                "`comb status` shows how the volume is: what was asked for may be done, and can be asked for again; the daemon's \
                 last words are in the file `log` of the volume's folder",
            )),
        }
    }

    /// Asks once; `go_on` says each [`LOOK_WAIT`] whether to wait on.
    fn ask_or_lose<T: DeserializeOwned>(
        &self,
        request: &Request,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Reply<T>> {
        let mut stream = match self.connect() {
            Ok(stream) => stream,
            Err(error) if is_absence(&error) => return Ok(Reply::NoDaemon),
            Err(error) if is_timeout(&error) => return Ok(Reply::Silent(None)),
            Err(error) => return Err(Failure::io(self.shown().display(), &error)),
        };
        // Who was stopped between connecting and sending was given up by the daemon, which has not heard a word.
        if send(&mut stream, request).is_err() {
            match self.connect().and_then(|again| {
                stream = again;
                send(&mut stream, request)
            }) {
                Ok(()) => {}
                Err(error) if is_absence(&error) => return Ok(Reply::NoDaemon),
                Err(error) => return Ok(Reply::Lost(error)),
            }
        }
        match receive(&stream, ANSWER_BYTES_MAX, go_on) {
            Ok(Answer::Failed(failure)) => Err(failure),
            Ok(Answer::Done(value)) => serde_json::from_value(value).map(Reply::Answer).map_err(|error| {
                Failure::other(format!("the daemon's answer is not understood: {error}"))
                    .hint("it may be of another version: unmount and mount the volume again")
            }),
            Err(error) if is_timeout(&error) => {
                Ok(Reply::Silent(socket_peercred(&stream).ok().map(|daemon| daemon.pid)))
            }
            Err(error) => Ok(Reply::Lost(error)),
        }
    }

    /// Connects; each wait on the connection, that for a place in the daemon's backlog too, ends after [`LOOK_WAIT`].
    fn connect(&self) -> io::Result<UnixStream> {
        let (_folder, path) = self.open()?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        for direction in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&socket, direction, Some(LOOK_WAIT))?;
        }
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket.into())
    }

    fn shown(&self) -> PathBuf {
        self.folder.join(&self.file)
    }
}

/// Whether nobody listens: there is no socket, or the one of a daemon that was killed.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Whether somebody listens and did nothing for [`LOOK_WAIT`].
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What became of a request.
enum Reply<T> {
    /// It was answered.
    Answer(T),
    /// Nobody listens.
    NoDaemon,
    /// Somebody listened, and went away.
    Lost(io::Error),
    /// Somebody listens, says nothing, and stays: this process, where the kernel tells.
    Silent(Option<Pid>),
}

fn line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
}

fn send<T: Serialize>(stream: &mut UnixStream, value: &T) -> io::Result<()> {
    stream.write_all(&line(value)?)
}

/// Reads a line; `go_on` says after each wait that was in vain whether to wait once more.
fn receive<T: DeserializeOwned>(
    stream: &UnixStream,
    bytes_max: u64,
    go_on: &dyn Fn() -> bool,
) -> io::Result<T> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(bytes_max));
    loop {
        // What came before a wait in vain stays in `line`.
        match reader.read_until(b'\n', &mut line) {
            Err(error) if is_timeout(&error) && go_on() => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// What answers requests; called from several threads.
pub type Handler = dyn Fn(Request) -> Result<serde_json::Value> + Send + Sync;

/// The daemon's end. Its file is removed when dropped.
pub struct Server {
    address: Address,
    open: Arc<Connections>,
    closed: AtomicBool,
}

impl Server {
    /// Listens at `address`. The caller holds the volume's lock (or owns the view), so whatever socket is
    /// there belongs to nobody any more.
    pub fn start(address: Address, handler: Arc<Handler>) -> Result<Server> {
        let shown = address.shown();
        let _ = std::fs::remove_file(&shown);
        let listener =
            address.open().and_then(|(_folder, path)| UnixListener::bind(path)).context(shown.display())?;
        let open = Arc::new(Connections::default());
        let connections = Arc::clone(&open);
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &connections, &handler))
            .context("starting a thread")?;
        Ok(Server { address, open, closed: AtomicBool::new(false) })
    }

    /// Takes the address away, so that nobody asks a daemon that is about to end.
    pub fn close(&self) {
        // Only once: when the lock is free, the file is the next daemon's.
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        // A file that stays is cleared by the next daemon.
        let _ = std::fs::remove_file(self.address.shown());
    }

    /// Waits until the answers that are under way were sent, but not for long.
    pub fn drain(&self) {
        self.open.wait_for_none(ANSWER_WAIT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The thread ends with the process.
        self.close();
    }
}

fn accept(listener: &UnixListener, connections: &Arc<Connections>, handler: &Arc<Handler>) {
    loop {
        connections.wait_for_room();
        let Ok((stream, _)) = listener.accept() else {
            // Out of descriptors, most likely: breathe instead of spinning.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let guard = connections.enter();
        let handler = Arc::clone(handler);
        let spawned = std::thread::Builder::new().name("control-request".into()).spawn(move || {
            let _guard = guard;
            if let Err(error) = serve(stream, &*handler) {
                tracing::debug!(%error, "a connection to the control socket ended early");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a request");
        }
    }
}

fn serve(mut stream: UnixStream, handler: &Handler) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    let peer = socket_peercred(&stream)?.uid;
    let outcome = if peer.is_root() || peer == rustix::process::geteuid() {
        match receive(&stream, REQUEST_BYTES_MAX, &|| false) {
            Ok(request) => handler(request),
            // Closed without a word: whoever sends its request after all notices, and asks anew.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => Err(Failure::new(Kind::Usage, error.to_string())),
        }
    } else {
        Err(Failure::new(Kind::NotPermitted, "this volume is another user's"))
    };
    let mut answer = line(&outcome.map_or_else(Answer::Failed, Answer::Done))?;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        answer = line(&Answer::Failed(Failure::other(format!(
            "the daemon's answer of {} bytes is too long to be told",
            answer.len()
        ))))?;
    }
    stream.write_all(&answer)
}

/// Counts open connections.
#[derive(Default)]
struct Connections {
    count: Mutex<usize>,
    left: Condvar,
}

struct Guard(Arc<Connections>);

impl Connections {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may be served.
    fn wait_for_room(&self) {
        drop(self.left.wait_while(self.count(), |count| *count >= CONNECTIONS_MAX));
    }

    fn enter(self: &Arc<Self>) -> Guard {
        *self.count() += 1;
        Guard(Arc::clone(self))
    }

    fn wait_for_none(&self, wait_max: Duration) {
        drop(self.left.wait_timeout_while(self.count(), wait_max, |count| *count > 0));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Arc<Handler> {
        Arc::new(|request| match request {
            Request::Unmount => {
                Err(Failure::new(Kind::InTheWay, "somebody works in it").hint("leave the folder"))
            }
            other => Ok(serde_json::to_value(other).expect("JSON")),
        })
    }

    #[test]
    fn a_request_comes_back_with_its_answer() {
        // Deeper than the address of a socket can hold.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).expect("folders");
        let address = Address::live(&deep);
        let server = Server::start(address.clone(), echo()).expect("listening");

        let request = Request::Snapshot { message: "before\nthe move".into(), tags: vec!["a".into()] };
        assert_eq!(address.ask::<Request>(&request).expect("an answer"), Some(request));
        let failure = address.ask::<()>(&Request::Unmount).expect_err("refused");
        assert_eq!((failure.kind, failure.hint.as_deref()), (Kind::InTheWay, Some("leave the folder")));
        server.drain();
        drop(server);
        assert_eq!(address.ask::<Request>(&Request::Seal).expect("no error"), None);
    }

    #[test]
    fn a_socket_that_a_killed_daemon_left_is_nobody() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::live(folder.path());
        drop(UnixListener::bind(folder.path().join("control")).expect("a socket"));
        assert_eq!(address.ask::<Request>(&Request::Seal).expect("no error"), None);
        let _server = Server::start(address.clone(), echo()).expect("the next daemon takes its place");
        assert_eq!(address.ask::<Request>(&Request::Seal).expect("an answer"), Some(Request::Seal));
    }

    #[test]
    fn nonsense_and_endless_lines_are_answered_with_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let _server = Server::start(Address::live(folder.path()), echo()).expect("listening");
        for line in [&b"{}\n"[..], b"{\"do\":\"dance\"}\n", &[b'x'; REQUEST_BYTES_MAX as usize + 1]] {
            let mut stream = UnixStream::connect(folder.path().join("control")).expect("connected");
            // The daemon may hang up before an endless line is through.
            let _ = stream.write_all(line);
            match receive::<Answer>(&stream, ANSWER_BYTES_MAX, &|| false) {
                Ok(Answer::Failed(failure)) => assert_eq!(failure.kind, Kind::Usage),
                Ok(Answer::Done(value)) => panic!("nonsense was done: {value}"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
            }
        }
        assert_eq!(
            Address::live(folder.path()).ask::<Request>(&Request::Seal).expect("alive"),
            Some(Request::Seal)
        );
    }

    #[test]
    fn more_than_can_be_served_at_once_are_all_answered() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::live(folder.path());
        let slow: Arc<Handler> = Arc::new(|request| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(serde_json::to_value(request).expect("JSON"))
        });
        let _server = Server::start(address.clone(), slow).expect("listening");
        std::thread::scope(|scope| {
            for _ in 0..3 * CONNECTIONS_MAX {
                scope.spawn(|| {
                    assert_eq!(
                        address.ask::<Request>(&Request::Seal).expect("an answer"),
                        Some(Request::Seal)
                    );
                });
            }
        });
    }

    #[test]
    fn connections_that_say_nothing_hold_nobody_up_for_long() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::live(folder.path());
        let _server = Server::start(address.clone(), echo()).expect("listening");
        let idle: Vec<_> = (0..2 * CONNECTIONS_MAX)
            .map(|_| UnixStream::connect(folder.path().join("control")).expect("connected"))
            .collect();
        let begin = Instant::now();
        assert_eq!(address.look::<Request>(&Request::Status).expect("an answer"), Some(Request::Status));
        assert!(begin.elapsed() >= REQUEST_WAIT, "it did wait for its turn");
        drop(idle);
    }

    #[test]
    fn a_daemon_that_hangs_up_is_not_taken_for_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("control")).expect("a socket");
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let failure = Address::live(folder.path()).look::<Request>(&Request::Status).expect_err("no answer");
        assert!(failure.message.contains("gives no answer"), "{failure}");
        let failure = Address::live(folder.path()).ask::<Request>(&Request::Seal).expect_err("no answer");
        assert_eq!(failure.kind, Kind::Silent, "{failure}");
    }

    #[test]
    fn who_says_nothing_is_told_by_its_process_and_who_is_slow_is_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::live(folder.path());
        let slow: Arc<Handler> = Arc::new(|request| {
            // Longer than a daemon may say nothing; how it is, it says at once.
            if request == Request::Seal {
                std::thread::sleep(LOOK_WAIT + Duration::from_millis(500));
            }
            Ok(serde_json::Value::Null)
        });
        let server = Server::start(address.clone(), slow).expect("listening");
        // Its status is no report, which is an answer all the same.
        assert_eq!(address.ask::<()>(&Request::Seal).expect("an answer"), Some(()));
        drop(server);

        // Nobody accepts.
        let _listener = UnixListener::bind(folder.path().join("control")).expect("a socket");
        let begin = Instant::now();
        let failure = address.look::<()>(&Request::Status).expect_err("no answer");
        assert_eq!(failure.kind, Kind::Silent);
        assert!(failure.message.contains(&format!("process {}", std::process::id())), "{failure}");
        assert!(begin.elapsed() < 3 * LOOK_WAIT, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_daemon_that_ends_before_it_answers_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("control")).expect("a socket");
        let ending = std::thread::spawn(move || drop(listener.accept()));
        assert_eq!(Address::live(folder.path()).look::<Request>(&Request::Status).expect("no error"), None);
        ending.join().expect("ended");
    }

    #[test]
    fn a_long_answer_arrives_and_an_endless_one_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::live(folder.path());
        let long: Arc<Handler> = Arc::new(|request| {
            let len = if request == Request::Status { 1 << 20 } else { ANSWER_BYTES_MAX as usize };
            Ok("x".repeat(len).into())
        });
        let _server = Server::start(address.clone(), long).expect("listening");
        let answer = address.look::<String>(&Request::Status).expect("an answer");
        assert_eq!(answer.map(|text| text.len()), Some(1 << 20));
        let failure = address.look::<String>(&Request::CheckJournal).expect_err("too long");
        assert!(failure.message.contains("too long"), "{failure}");
    }
}
