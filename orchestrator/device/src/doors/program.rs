//! Running another program.
//!
//! Invariants
//! - Arguments are a list, and no shell reads them. The environment is exactly what the caller gives.
//! - It ends with its deadline, and with whoever waits for it.
//! - What it says is read up to a limit; the rest is read and dropped, so that it never hangs on a full pipe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Where programs are looked for.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// What is kept of the standard error, in bytes.
const ERRORS_BYTES_MAX: usize = 64 << 10;
/// The longest line that somebody hears, in bytes.
const LINE_BYTES_MAX: u64 = 8 << 10;

/// A call of a program.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The program's path.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [&'a str],
    /// All of its environment. Never printed.
    pub environment: &'a BTreeMap<String, String>,
    /// The folder in which it runs.
    pub folder: &'a Path,
    /// How long it may take.
    pub limit: Duration,
    /// What is kept of its standard output, in bytes.
    pub output_bytes_max: usize,
}

/// What a program said.
#[derive(Clone)]
pub struct Said {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub output: Vec<u8>,
    /// Its standard error, as text.
    pub errors: String,
}

impl Said {
    /// Whether it ended well.
    pub fn is_ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Why there is no answer of a program.
#[derive(Debug, thiserror::Error)]
pub enum Silent {
    /// It could not be started.
    #[error("{program} cannot be started: {error}")]
    Start {
        /// Its path.
        program: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It took too long, and was killed.
    #[error("{0} did not end in time")]
    Late(PathBuf),
}

/// Where a program is; none if it is not installed.
pub fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Runs a program to its end.
pub async fn run(call: &Call<'_>) -> Result<Said, Silent> {
    run_with(call, &[]).await
}

/// The same with something on its standard input: what nobody is to read among its arguments.
pub async fn run_with(call: &Call<'_>, input: &[u8]) -> Result<Said, Silent> {
    run_heard(call, input, |_| false).await
}

/// The same with somebody who hears each line of its standard error as it comes, and takes it or leaves it to be kept.
pub async fn run_heard(
    call: &Call<'_>,
    input: &[u8],
    hear: impl FnMut(&str) -> bool + Send,
) -> Result<Said, Silent> {
    let start = |error| Silent::Start { program: call.program.to_owned(), error };
    let mut child = start_with(call, input)?;
    let pipe = child.stdin.take();
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let said = async {
        let (output, errors, (), status) = tokio::join!(
            read(output, call.output_bytes_max),
            read_lines(errors, ERRORS_BYTES_MAX, hear),
            write(pipe, input),
            child.wait()
        );
        let errors = String::from_utf8_lossy(&errors).into_owned();
        status.map(|status| Said { code: status.code(), output, errors })
    };
    match timeout(call.limit, said).await {
        Ok(said) => said.map_err(start),
        Err(_) => Err(Silent::Late(call.program.to_owned())),
    }
}

fn start_with(call: &Call<'_>, input: &[u8]) -> Result<Child, Silent> {
    Command::new(call.program)
        .args(call.args)
        .env_clear()
        .envs(call.environment)
        .current_dir(call.folder)
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Silent::Start { program: call.program.to_owned(), error })
}

async fn write(pipe: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut pipe) = pipe {
        // A program that reads no more has said why, or says it with its end.
        let _ = pipe.write_all(input).await;
        let _ = pipe.shutdown().await;
    }
}

/// A program whose output is read as it comes. It is killed when this is dropped.
pub struct Running {
    child: Child,
    output: ChildStdout,
    errors: JoinHandle<Vec<u8>>,
}

/// Starts a program whose output is read as it comes: it may take as long as somebody reads. Limits of time and output do
/// not count.
pub async fn open_with(call: &Call<'_>, input: &[u8]) -> Result<Running, Silent> {
    let mut child = start_with(call, input)?;
    let (pipe, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    write(pipe, input).await;
    let errors = tokio::spawn(read(errors, ERRORS_BYTES_MAX));
    Ok(Running { child, output: output.expect("it was asked for a pipe"), errors })
}

impl Running {
    /// Whether it ended well, once its output was read.
    pub async fn ended(mut self) -> bool {
        let status = self.child.wait().await;
        self.errors.abort();
        status.is_ok_and(|status| status.success())
    }
}

impl AsyncRead for Running {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.output).poll_read(context, buf)
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, max: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut part = vec![0; 16 << 10];
    // A pipe that breaks has ended.
    while let Ok(len @ 1..) = pipe.read(&mut part).await {
        let room = max.saturating_sub(kept.len()).min(len);
        kept.extend_from_slice(&part[..room]);
    }
    kept
}

/// Reads lines; what nobody takes is kept.
async fn read_lines(
    pipe: Option<impl AsyncRead + Unpin>,
    max: usize,
    mut hear: impl FnMut(&str) -> bool,
) -> Vec<u8> {
    let (mut kept, mut line) = (Vec::new(), Vec::new());
    let Some(pipe) = pipe else { return kept };
    let mut pipe = BufReader::new(pipe);
    let mut end = |line: &mut Vec<u8>| {
        let is_taken = std::str::from_utf8(line).is_ok_and(|text| hear(text.trim_end_matches('\n')));
        if !is_taken {
            let room = max.saturating_sub(kept.len()).min(line.len());
            kept.extend_from_slice(&line[..room]);
        }
        line.clear();
    };
    // A pipe that breaks has ended; a line that is too long is cut.
    while let Ok(1..) =
        (&mut pipe).take(LINE_BYTES_MAX - line.len() as u64).read_until(b'\n', &mut line).await
    {
        if line.ends_with(b"\n") || line.len() as u64 == LINE_BYTES_MAX {
            end(&mut line);
        }
    }
    end(&mut line);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(limit: Duration, script: &str) -> (PathBuf, Vec<String>, Duration) {
        (find("sh").expect("every machine has it"), vec!["-c".into(), script.into()], limit)
    }

    async fn said((program, args, limit): (PathBuf, Vec<String>, Duration)) -> Result<Said, Silent> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let environment = BTreeMap::from([("ONLY".to_owned(), "this".to_owned())]);
        let folder = Path::new("/");
        run(&Call {
            program: &program,
            args: &args,
            environment: &environment,
            folder,
            limit,
            output_bytes_max: 8,
        })
        .await
    }

    #[tokio::test]
    async fn it_says_what_it_said_and_no_more() {
        let told =
            said(sh(Duration::from_secs(20), "echo $ONLY$HOME; echo bad >&2; exit 3")).await.expect("it ran");
        assert_eq!((told.code, &told.output[..], told.errors.as_str()), (Some(3), &b"this\n"[..], "bad\n"));
        let much =
            said(sh(Duration::from_secs(20), "while [ $((i+=1)) -lt 20000 ]; do echo 0123456789; done"))
                .await;
        assert_eq!(much.expect("it ran").output.len(), 8);
    }

    #[tokio::test]
    async fn lines_are_heard_as_they_come_and_taken_or_kept() {
        let script = "echo 'progress 1' >&2; sleep 1; echo 'progress 2' >&2; printf 'error: x' >&2; head -c 20000 /dev/zero | tr '\\0' x >&2";
        let (program, args, limit) = sh(Duration::from_secs(20), script);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (environment, folder) = (BTreeMap::new(), Path::new("/"));
        let call = Call {
            program: &program,
            args: &args,
            environment: &environment,
            folder,
            limit,
            output_bytes_max: 8,
        };
        let mut heard = Vec::new();
        let hear = |line: &str| {
            let is_mine = line.starts_with("progress ");
            if is_mine {
                heard.push((line.to_owned(), std::time::Instant::now()));
            }
            is_mine
        };
        let said = run_heard(&call, &[], hear).await.expect("it ran");
        let [(one, first), (two, second)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!((one.as_str(), two.as_str()), ("progress 1", "progress 2"));
        assert!(second.duration_since(*first) > Duration::from_millis(500), "heard when it was said");
        assert!(
            said.errors.starts_with("error: xxx") && said.errors.len() == 20_008,
            "{}",
            said.errors.len()
        );
    }

    #[tokio::test]
    async fn it_ends_with_its_deadline() {
        let begun = std::time::Instant::now();
        let late = said(sh(Duration::from_millis(200), "sleep 60")).await;
        assert!(matches!(late, Err(Silent::Late(_))));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
