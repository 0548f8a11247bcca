//! People at this machine: a Unix socket, one line of JSON in, one out (`api.md`, section 12).

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orchestrator_api::ids::{AppId, SessionId};
use orchestrator_api::report::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::{World, room};
use crate::Event;
use crate::doors::clock;
use crate::trouble::{Result, Trouble};

/// The longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How long a caller may take to say what it wants.
const LINE_WAIT: Duration = Duration::from_secs(10);
/// How long the answer to a hello is waited for.
const HELLO_WAIT_MS: u64 = 10_000;

/// What can be asked of a device on its own machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Ask {
    /// How it is.
    Status,
    /// The newest key ring that the hive has, for whoever has its passphrase.
    Ring,
    /// The key ring was opened here: hand on what is newer, and say hello again.
    Unlocked,
    /// An order about an app that runs here, where the hive does not answer.
    App {
        /// Its name, or its id.
        name: String,
        /// What.
        order: AppOrder,
    },
    /// What is wrong, and what to do.
    Doctor,
    /// Serve the page, and say how it is opened.
    Page {
        /// Where, if not where it is.
        #[serde(default)]
        listen: Option<SocketAddr>,
    },
    /// Serve the page no more; every session ends.
    ClosePage,
}

/// An order about an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the commands are")]
pub enum AppOrder {
    Stop,
    Restart,
    Snapshot,
}

/// The socket of a state folder.
pub fn path(state: &Path) -> PathBuf {
    state.join("device.sock")
}

/// Asks the device of this machine; none if none runs.
pub async fn ask(state: &Path, question: &Ask, wait: Duration) -> std::io::Result<Option<Value>> {
    let stream = match UnixStream::connect(path(state)).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    let mut answer = String::new();
    let mut read = BufReader::new(read.take(16 << 20));
    match tokio::time::timeout(wait, read.read_line(&mut answer)).await {
        Ok(done) => done?,
        Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
    };
    Ok(Some(serde_json::from_str(&answer)?))
}

/// Serves the socket.
pub(super) async fn serve(world: Arc<World>) {
    let path = path(&world.setup.state);
    loop {
        let _ = std::fs::remove_file(&path);
        match UnixListener::bind(&path) {
            Ok(listener) => {
                let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
                accept(&world, listener).await;
            }
            Err(error) => tracing::warn!(%error, "the device's socket cannot be made"),
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn accept(world: &Arc<World>, listener: UnixListener) {
    let me = rustix::process::getuid().as_raw();
    while let Ok((stream, _)) = listener.accept().await {
        // The folder and the mode keep others out; this keeps them out of a socket that was handed on.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == me || peer.uid() == 0) {
            continue;
        }
        let world = world.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(Duration::from_secs(1_800), world.answer(stream)).await;
        });
    }
}

impl World {
    async fn answer(self: Arc<Self>, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut read = BufReader::new(read.take(LINE_BYTES_MAX));
        let Ok(Ok(_)) = tokio::time::timeout(LINE_WAIT, read.read_line(&mut line)).await else { return };
        let answer = match serde_json::from_str::<Ask>(&line) {
            Ok(question) => match self.asked(question).await {
                Ok(done) => json!({ "done": done }),
                Err(trouble) => {
                    json!({ "failed": { "code": trouble.problem.text(), "message": trouble.text() } })
                }
            },
            Err(_) => {
                json!({ "failed": { "code": "bad_request", "message": "the device does not understand this line" } })
            }
        };
        let _ = write.write_all(format!("{answer}\n").as_bytes()).await;
    }

    async fn asked(self: &Arc<Self>, question: Ask) -> Result<Value> {
        match question {
            Ask::Status => Ok(self.status()),
            Ask::Ring => {
                let object = self.newest_ring().await?;
                Ok(json!({ "ring": object.map(|object| STANDARD.encode(object)) }))
            }
            Ask::Unlocked => {
                let session = self.seen.lock().session;
                if let Some(session) = session {
                    self.publish_ring(session).await?;
                    self.hello_again(session).await;
                }
                Ok(Value::Null)
            }
            Ask::Doctor => {
                let checks = self.checks().await;
                let told = checks.into_iter().map(|(what, found)| match found {
                    Ok(text) => json!({ "what": what, "ok": true, "text": text }),
                    Err(text) => json!({ "what": what, "ok": false, "text": text }),
                });
                Ok(told.collect())
            }
            Ask::Page { listen } => self.open_page(listen).await,
            Ask::ClosePage => {
                self.page.close();
                Ok(Value::Null)
            }
            Ask::App { name, order } => {
                let app = self.named(&name)?;
                match order {
                    AppOrder::Stop => {
                        let _ = self.events.send(Event::StopHere(app));
                        self.stopped(app).await?;
                        Ok(json!({ "late": self.late(app, false).await? }))
                    }
                    AppOrder::Restart => self.restart(app, None).await.map(|()| Value::Null),
                    AppOrder::Snapshot => {
                        let tag = format!("here-{}", clock::boottime());
                        let reason = orchestrator_api::wire::command::MomentReason::Asked;
                        let moment = self.snapshot(app, &tag, "", reason).await?;
                        Ok(serde_json::to_value(moment).unwrap_or_default())
                    }
                }
            }
        }
    }

    /// Says hello anew: what only a hello tells has changed. Waits for the answer, so that whoever asked can go on with it.
    async fn hello_again(&self, session: SessionId) {
        let _ = self.events.send(Event::Answered(session, Err(Refusal::SessionOver)));
        let begun = clock::boottime();
        while self.seen.lock().session == Some(session) && clock::boottime() - begun < HELLO_WAIT_MS {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn named(&self, name: &str) -> Result<AppId> {
        let apps = self.apps.lock();
        let found: Vec<AppId> = apps
            .iter()
            .filter(|(app, state)| state.file.name == name || app.to_string() == name)
            .map(|(app, _)| *app)
            .collect();
        match found.as_slice() {
            [app] => Ok(*app),
            [] => Err(Trouble::new(
                orchestrator_api::placement::Problem::State,
                format!("there is no app \"{name}\" here"),
            )),
            _ => Err(Trouble::new(
                orchestrator_api::placement::Problem::State,
                format!("several apps here are called \"{name}\": name one by its id"),
            )),
        }
    }

    fn status(&self) -> Value {
        let hive = self.hive_file.lock().clone();
        let locked = self.is_locked();
        let apps = self.apps.lock();
        let seen = self.seen.lock();
        let now = clock::boottime();
        let told: Vec<Value> = apps
            .iter()
            .filter_map(|(app, state)| {
                let record = state.record.as_ref()?;
                let (phase, why) = orchestrator_api::wire::report::Phase::of(record.phase);
                let room = || room::trouble(*app, &state.file, &seen, &self.setup.state);
                let trouble = state.trouble.clone().or_else(|| record.phase.is_live().then(room).flatten());
                Some(json!({
                    "app": app, "name": state.file.name, "term": record.term, "policy": record.policy,
                    "revision": state.file.revision, "phase": phase, "why": why,
                    "phase_age_ms": now.saturating_sub(state.phase_at), "address": state.address,
                    "problem": trouble.map(|trouble| json!({
                        "code": trouble.problem.text(), "service": trouble.service, "message": trouble.text(),
                    })),
                    "containers": state.containers.iter().map(|one| json!({
                        "service": one.service, "state": format!("{:?}", one.state).to_lowercase(), "exit": one.exit,
                    })).collect::<Vec<_>>(),
                    "volumes": state.file.volumes.iter().map(|one| json!({
                        "name": one.name, "volume": one.volume, "mount": self.folder.mount(*app, &one.name),
                    })).collect::<Vec<_>>(),
                    "branches": state.branches.iter().map(|(volume, branch)| json!({
                        "volume": volume, "name": branch.name, "seals": branch.seals, "bytes": branch.bytes,
                    })).collect::<Vec<_>>(),
                }))
            })
            .collect();
        json!({
            "device": hive.device, "name": hive.name, "hive": hive.url, "answer": seen.answer, "locked": locked,
            "online_ms_ago": seen.online.map(|online| now.saturating_sub(online)), "docker": seen.docker,
            "up_ms": now.saturating_sub(self.begun), "version": self.setup.version,
            "damaged_records": seen.damaged, "apps": told,
        })
    }
}
