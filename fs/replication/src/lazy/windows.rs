//! One pack that is not here, or not all of it.
//!
//! Invariants
//! - A window is asked for by one at a time; others who want it wait for the same answer.
//! - A reader gets bytes from the answer to a request, from a window that has its sum, or from a pack that has its
//!   name; so a disk without room, or one that cannot be written, keeps nobody from reading.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_format::PackId;
use fs_format::pack::{PACK_BYTES_MAX, padme};
use fs_store::{Kind, StoreError};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::WINDOW_BYTES;
use super::line::{Line, RECENT, Tries};
use super::map::{self, Files};

/// Windows of a block: what is asked for at once where its neighbours were asked for lately.
///
/// What lies together in a pack lies together in the tree, so who reads a tree file by file comes for the rest.
const BLOCK_WINDOWS: usize = (1 << 20) / WINDOW_BYTES as usize;
/// Blocks of a pack that are asked for lately when the pack is taken to be read as a whole.
const DENSE_BLOCKS: usize = 3;
/// How often one who fetches everything looks for what others have asked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Why somebody who fetches everything gives a pack up for a while.
const NOT_KEPT: &str = "what came cannot be kept";
/// How often one who waits looks whether it is still for somebody.
const GIVEN_UP_LOOK_EVERY: Duration = Duration::from_millis(500);

/// A pack that is read from afar.
pub struct Windows {
    line: Arc<Line>,
    id: PackId,
    state: Mutex<State>,
    /// An answer came, or what is kept has changed.
    changed: Condvar,
    /// Where windows are kept; none before the first.
    files: Mutex<Option<Arc<Files>>>,
}

#[derive(Default)]
struct State {
    /// How long the pack is, where that is known.
    bytes: Option<u64>,
    /// Whether the files know, too.
    is_length_kept: bool,
    slots: Vec<Slot>,
    /// When each block was asked for last by a reader.
    asked: Vec<Option<Instant>>,
    /// All is here, and is what its name says.
    is_whole: bool,
    /// Somebody is comparing it with its name.
    is_finishing: bool,
    /// How often all was here and was something else.
    mismatches: u32,
}

/// One window.
#[derive(Clone, Default)]
enum Slot {
    #[default]
    Absent,
    /// Asked for; or here, in memory for a while, where it cannot be kept.
    Asked(Arc<Ticket>),
    /// In the file, compared with its sum or not yet.
    Here { line: map::Line, is_proved: bool },
}

/// A request and what became of it.
pub(super) struct Ticket {
    range: Range<u64>,
    answer: OnceLock<Result<Bytes, StoreError>>,
}

impl Ticket {
    /// How many bytes have come.
    pub(super) fn bytes_here(&self) -> u64 {
        self.answer.get().and_then(|answer| answer.as_ref().ok()).map_or(0, |bytes| bytes.len() as u64)
    }

    /// The bytes of a range, if they have come.
    fn bytes(&self, range: &Range<u64>) -> Option<&[u8]> {
        let Some(Ok(bytes)) = self.answer.get() else { return None };
        let part = range.start.checked_sub(self.range.start)?..range.end.checked_sub(self.range.start)?;
        bytes.get(part.start as usize..part.end as usize)
    }
}

/// What a reader lacks.
enum Lack {
    Nothing,
    /// This window is here, but was not compared with its sum.
    Proof(usize, map::Line),
    /// These windows; nobody has asked for them.
    Windows(Range<usize>),
    /// This answer.
    Answer(Arc<Ticket>),
}

fn windows_of(range: &Range<u64>) -> Range<usize> {
    (range.start / WINDOW_BYTES) as usize..range.end.div_ceil(WINDOW_BYTES) as usize
}

/// The part of a range that lies in a window.
fn part_of(range: &Range<u64>, window: usize) -> Range<u64> {
    let start = window as u64 * WINDOW_BYTES;
    start.max(range.start)..(start + WINDOW_BYTES).min(range.end)
}

/// What a reader is told.
pub(super) fn io_error(error: &StoreError) -> io::Error {
    let kind = match error.kind() {
        Kind::Absent => ErrorKind::NotFound,
        Kind::Damaged => ErrorKind::InvalidData,
        Kind::Exists | Kind::Denied | Kind::Busy | Kind::Unreachable | Kind::Refused => {
            ErrorKind::HostUnreachable
        }
    };
    io::Error::new(kind, error.to_string())
}

impl State {
    fn slot(&self, window: usize) -> &Slot {
        self.slots.get(window).unwrap_or(&Slot::Absent)
    }

    fn set(&mut self, window: usize, slot: Slot) {
        if self.slots.len() <= window {
            self.slots.resize(window + 1, Slot::Absent);
        }
        self.slots[window] = slot;
    }

    fn is_asked(&self, window: usize, ticket: &Arc<Ticket>) -> bool {
        matches!(self.slot(window), Slot::Asked(asked) if Arc::ptr_eq(asked, ticket))
    }

    /// Sets what an answer was asked for to what is kept of it.
    fn settle(&mut self, ticket: &Arc<Ticket>, kept: &[map::Line]) {
        let windows = windows_of(&ticket.range);
        for window in windows.clone() {
            if self.is_asked(window, ticket) {
                let line = kept.get(window - windows.start);
                let slot = line.map_or(Slot::Absent, |&line| Slot::Here { line, is_proved: true });
                self.set(window, slot);
            }
        }
    }

    fn is_absent(&self, window: usize) -> bool {
        matches!(self.slot(window), Slot::Absent)
    }

    /// How many windows there are, where that is known.
    fn count(&self) -> Option<usize> {
        self.bytes.map(|bytes| bytes.div_ceil(WINDOW_BYTES) as usize)
    }

    /// The first run of windows in a range that nobody has asked for, as long as one request may be.
    fn absent_run(&self, within: Range<usize>, longest: usize) -> Option<Range<usize>> {
        let start = within.clone().find(|&window| self.is_absent(window))?;
        let most = within.end.min(start + longest);
        let end = (start..most).find(|&window| !self.is_absent(window)).unwrap_or(most);
        Some(start..end)
    }

    /// What a reader of `range` lacks, who holds these answers.
    fn lack(&self, range: &Range<u64>, answers: &[Arc<Ticket>]) -> Lack {
        let mut missing: Option<Range<usize>> = None;
        let mut asked = None;
        for window in windows_of(range) {
            // Windows are kept from their first byte on.
            let need = window as u64 * WINDOW_BYTES..part_of(range, window).end;
            if answers.iter().any(|ticket| ticket.bytes(&need).is_some()) {
                continue;
            }
            match self.slot(window) {
                Slot::Here { line, is_proved } if u64::from(line.len) >= need.end - need.start => {
                    if !is_proved {
                        return Lack::Proof(window, *line);
                    }
                }
                Slot::Asked(ticket) if ticket.answer.get().is_none() || ticket.bytes(&need).is_some() => {
                    asked.get_or_insert(ticket);
                }
                // A window of which too little is here is like one that is not.
                Slot::Absent | Slot::Asked(_) | Slot::Here { .. } => match &mut missing {
                    None => missing = Some(window..window + 1),
                    Some(run) if run.end == window => run.end += 1,
                    Some(_) => {}
                },
            }
        }
        match (missing, asked) {
            (Some(run), _) => Lack::Windows(run),
            (None, Some(ticket)) => Lack::Answer(ticket.clone()),
            (None, None) => Lack::Nothing,
        }
    }

    /// Whether a block was asked for lately.
    fn is_recent(&self, block: usize) -> bool {
        self.asked.get(block).is_some_and(|at| at.is_some_and(|at| at.elapsed() < RECENT))
    }

    /// Notes that a reader asks for these windows; returns with how many around them, and whether the pack is read as a
    /// whole.
    fn widen(&mut self, run: Range<usize>, is_dense: bool) -> (Range<usize>, bool) {
        let blocks = run.start / BLOCK_WINDOWS..(run.end - 1) / BLOCK_WINDOWS + 1;
        let around = blocks.start.saturating_sub(1)..blocks.end + 1;
        let has_neighbours = is_dense || around.into_iter().any(|block| self.is_recent(block));
        if self.asked.len() < blocks.end {
            self.asked.resize(blocks.end, None);
        }
        self.asked[blocks.clone()].fill(Some(Instant::now()));
        let is_dense =
            is_dense || (0..self.asked.len()).filter(|&block| self.is_recent(block)).count() >= DENSE_BLOCKS;
        let (Some(count), true) = (self.count(), has_neighbours) else { return (run, is_dense) };
        let (mut first, mut last) = (run.start, run.end);
        while first > blocks.start * BLOCK_WINDOWS && self.is_absent(first - 1) {
            first -= 1;
        }
        while last < (blocks.end * BLOCK_WINDOWS).min(count) && self.is_absent(last) {
            last += 1;
        }
        (first..last, is_dense)
    }
}

impl Windows {
    /// The pack as an earlier run left it.
    pub(super) fn open(line: Arc<Line>, id: PackId) -> Self {
        let mut state = State::default();
        let found = Files::find(&line.folder, &id).unwrap_or_else(|error| {
            if error.kind() != ErrorKind::WouldBlock {
                tracing::warn!(pack = %id, %error, "what was kept of a pack cannot be read: asking for it again");
            }
            None
        });
        let files = found.map(|(files, bytes, lines)| {
            state.bytes = bytes;
            state.is_length_kept = bytes.is_some();
            let slot = |line: Option<map::Line>| match line {
                Some(line) => Slot::Here { line, is_proved: false },
                None => Slot::Absent,
            };
            state.slots = lines.into_iter().map(slot).collect();
            Arc::new(files)
        });
        Self { line, id, state: Mutex::new(state), changed: Condvar::new(), files: Mutex::new(files) }
    }

    /// Fills `buf` from `offset`, from what is here or from the store. Waits for it.
    pub fn read_at(self: &Arc<Self>, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let begun = Instant::now();
        let deadline = begun + self.line.limits.read;
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= PACK_BYTES_MAX);
        let Some(end) = end else { return Err(ErrorKind::UnexpectedEof.into()) };
        let range = offset..end;
        let mut answers: Vec<Arc<Ticket>> = Vec::new();
        let mut tries = Tries::default();
        let mut not_before = begun;
        let mut last_error = None;
        let mut waiting = None;

        let mut state = self.state.lock();
        while !state.is_whole {
            if state.bytes.is_some_and(|bytes| end > bytes) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some(at) = answers.iter().position(|ticket| matches!(ticket.answer.get(), Some(Err(_)))) {
                let ticket = answers.swap_remove(at);
                if let Some(Err(error)) = ticket.answer.get() {
                    let Some(pause) = self.line.pause(&mut tries, error) else { return Err(io_error(error)) };
                    not_before = Instant::now() + pause;
                    last_error = Some(error.clone());
                }
                continue;
            }
            let until = match state.lack(&range, &answers) {
                Lack::Nothing => break,
                Lack::Proof(window, line) => {
                    self.prove(&mut state, window, line);
                    continue;
                }
                Lack::Windows(_) if Instant::now() < not_before => not_before,
                Lack::Windows(run) => {
                    self.ask(&mut state, run, end, last_error.is_none());
                    continue;
                }
                Lack::Answer(ticket) => {
                    let is_here = ticket.answer.get().is_some();
                    if !answers.iter().any(|held| Arc::ptr_eq(held, &ticket)) {
                        answers.push(ticket);
                    }
                    if is_here {
                        continue;
                    }
                    deadline
                }
            };
            waiting.get_or_insert_with(|| self.line.wait());
            let look = Instant::now() + GIVEN_UP_LOOK_EVERY;
            let waited = self.changed.wait_until(&mut state, until.min(deadline).min(look));
            let is_given_up = waited.timed_out() && (self.line.limits.is_given_up)();
            if is_given_up || Instant::now() >= deadline {
                let why = last_error.map_or_else(|| "no answer".into(), |error| error.to_string());
                let what = format!("pack {} is not here: {why}", self.id);
                return Err(io::Error::new(ErrorKind::TimedOut, what));
            }
        }
        drop(state);
        self.copy(buf, &range, &answers)
    }

    /// Takes what a reader lacks no more from where it is.
    fn copy(&self, buf: &mut [u8], range: &Range<u64>, answers: &[Arc<Ticket>]) -> io::Result<()> {
        let files = self.files.lock().clone();
        let read = |buf: &mut [u8], offset: u64| match &files {
            Some(files) => files.pack.read_exact_at(buf, offset),
            None => Err(io::Error::other("a window that is here has no file")),
        };
        if answers.is_empty() {
            return read(buf, range.start);
        }
        for window in windows_of(range) {
            let part = part_of(range, window);
            let out = &mut buf[(part.start - range.start) as usize..(part.end - range.start) as usize];
            match answers.iter().find_map(|ticket| ticket.bytes(&part)) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => read(out, part.start)?,
            }
        }
        Ok(())
    }

    /// Compares a window that an earlier run left with its sum.
    fn prove(&self, state: &mut MutexGuard<'_, State>, window: usize, line: map::Line) {
        let files = self.files.lock().clone();
        let is_proved = MutexGuard::unlocked(state, || files.is_some_and(|files| files.proves(window, line)));
        if matches!(state.slot(window), Slot::Here { line: now, .. } if *now == line) {
            let slot = if is_proved { Slot::Here { line, is_proved } } else { Slot::Absent };
            state.set(window, slot);
        }
    }

    /// Asks for what a reader lacks, who wants the bytes up to `end`; the first time, also for what is around it, and ahead
    /// of him where he reads all.
    fn ask(self: &Arc<Self>, state: &mut State, run: Range<usize>, end: u64, is_first: bool) {
        let (run, is_dense) = if is_first { state.widen(run, self.line.is_dense()) } else { (run, false) };
        let longest = self.line.request_windows();
        for start in run.clone().step_by(longest) {
            self.send(state, start..run.end.min(start + longest), end, None);
        }
        if let (true, Some(count)) = (is_dense, state.count()) {
            self.line.note_dense();
            for within in [run.end..count, 0..run.start] {
                while let Some(run) = state.absent_run(within.clone(), longest) {
                    let Ok(permit) = self.line.ahead.clone().try_acquire_owned() else { return };
                    self.send(state, run, end, Some(permit));
                }
            }
        }
    }

    /// Learns how long the pack is, if that is known, and asks for a range that will be read soon. Waits for nothing, and does
    /// nothing where too much goes on already.
    pub fn will_read(self: &Arc<Self>, range: Range<u64>, bytes: Option<u64>) {
        let mut state = self.state.lock();
        state.learn(bytes);
        let end = range.end.min(state.bytes.unwrap_or(PACK_BYTES_MAX));
        if state.is_whole || range.start >= end {
            return;
        }
        let longest = self.line.request_windows();
        while let Some(run) = state.absent_run(windows_of(&(range.start..end)), longest) {
            let Ok(permit) = self.line.near.clone().try_acquire_owned() else { return };
            self.send(&mut state, run, end, Some(permit));
        }
    }

    /// Makes a request for windows that nobody has asked for, up to `end` at least. Without a permit it waits for one. The task
    /// says whether what came is kept.
    fn send(
        self: &Arc<Self>,
        state: &mut State,
        windows: Range<usize>,
        end: u64,
        permit: Option<OwnedSemaphorePermit>,
    ) -> (Arc<Ticket>, JoinHandle<bool>) {
        // A pack whose plain bytes reach to `end` has at least the length that Padmé gives to so many.
        let most = state.bytes.unwrap_or_else(|| padme(end));
        let range = windows.start as u64 * WINDOW_BYTES..(windows.end as u64 * WINDOW_BYTES).min(most);
        let ticket = Arc::new(Ticket { range, answer: OnceLock::new() });
        for window in windows {
            state.set(window, Slot::Asked(ticket.clone()));
        }
        let sent = Sent { windows: self.clone(), ticket: ticket.clone() };
        let task = self.line.runtime.spawn(async move {
            let line = sent.windows.line.clone();
            let _permit = match permit {
                Some(permit) => Ok(permit),
                None => line.near.clone().acquire_owned().await,
            };
            let answer = line.window(&sent.windows.id, sent.ticket.range.clone()).await;
            // The thread on which all requests are waited for neither hashes nor writes.
            let kept = tokio::task::spawn_blocking(move || sent.windows.take(&sent.ticket, answer));
            kept.await.unwrap_or(false)
        });
        (ticket, task)
    }

    /// Takes an answer in: keeps what it holds, or holds it for a while, and tells who waits for it. Returns whether it is kept.
    fn take(self: &Arc<Self>, ticket: &Arc<Ticket>, answer: Result<Bytes, StoreError>) -> bool {
        let first = (ticket.range.start / WINDOW_BYTES) as usize;
        let kept = match &answer {
            Ok(bytes) if self.line.limits.is_kept => self.keep(first, bytes).unwrap_or_else(|error| {
                self.line.note_not_kept(&self.id, &error);
                Vec::new()
            }),
            Ok(_) | Err(_) => Vec::new(),
        };
        let is_held = kept.is_empty() && answer.is_ok();
        let mut state = self.state.lock();
        if !is_held {
            state.settle(ticket, &kept);
        }
        let _ = ticket.answer.set(answer);
        drop(state);
        self.changed.notify_all();
        if is_held {
            for (windows, oldest) in self.line.hold(self, ticket) {
                if let Some(windows) = windows.upgrade() {
                    windows.state.lock().settle(&oldest, &[]);
                }
            }
        }
        if let Err(error) = self.finish() {
            tracing::warn!(pack = %self.id, %error, "a pack cannot take its place");
        }
        !kept.is_empty()
    }

    /// Keeps what is held; returns whether nothing is left that cannot be.
    fn keep_held(&self) -> bool {
        loop {
            let held = {
                let state = self.state.lock();
                state.slots.iter().find_map(|slot| match slot {
                    Slot::Asked(ticket) if ticket.bytes_here() > 0 => Some(ticket.clone()),
                    _ => None,
                })
            };
            let Some(held) = held else { return true };
            let Some(Ok(bytes)) = held.answer.get() else { return true };
            let first = (held.range.start / WINDOW_BYTES) as usize;
            let Ok(lines) = self.keep(first, bytes) else { return false };
            self.state.lock().settle(&held, &lines);
        }
    }

    /// Writes windows to the file; `StorageFull` without a try where that would leave too little to others.
    fn keep(&self, first: usize, bytes: &[u8]) -> io::Result<Vec<map::Line>> {
        if !(self.line.limits.has_room)(&self.line.folder) {
            return Err(ErrorKind::StorageFull.into());
        }
        let files = {
            let mut files = self.files.lock();
            match &*files {
                Some(files) => files.clone(),
                None => files.insert(Arc::new(Files::make(&self.line.folder, &self.id)?)).clone(),
            }
        };
        let length = {
            let state = self.state.lock();
            state.bytes.filter(|_| !state.is_length_kept)
        };
        if let Some(bytes) = length {
            files.set_bytes(bytes)?;
            self.state.lock().is_length_kept = true;
        }
        files.put(first, bytes)
    }

    /// Compares the pack with its name if all is here, and gives it its place.
    fn finish(&self) -> io::Result<()> {
        let mut lines = Vec::new();
        let (bytes, count) = {
            let mut state = self.state.lock();
            let Some((bytes, count)) = state.bytes.zip(state.count()) else { return Ok(()) };
            // The last may have come when the length was not known.
            let is_here = |window: usize| {
                let len = (bytes - window as u64 * WINDOW_BYTES).min(WINDOW_BYTES);
                matches!(state.slot(window), Slot::Here { line, .. } if u64::from(line.len) == len)
            };
            let is_all_here = (0..count).all(is_here);
            if !is_all_here || state.is_whole || state.is_finishing || state.mismatches > 1 {
                return Ok(());
            }
            state.is_finishing = true;
            (bytes, count)
        };
        let mut state = self.state.lock();
        for window in 0..count {
            if let &Slot::Here { line, is_proved: false } = state.slot(window) {
                self.prove(&mut state, window, line);
            }
            // One that was torn, or was struck out meanwhile, is asked for again.
            let &Slot::Here { line, .. } = state.slot(window) else {
                state.is_finishing = false;
                return Ok(());
            };
            lines.push(line);
        }
        drop(state);
        let files = self.files.lock().clone();
        let outcome = match &files {
            Some(files) => self.compare(files, bytes, &lines),
            None => Ok(false),
        };
        let mut state = self.state.lock();
        state.is_finishing = false;
        if outcome? {
            state.is_whole = true;
            return Ok(());
        }
        tracing::warn!(pack = %self.id, "what came of a pack is not what its name says");
        state.mismatches += 1;
        // Once more from the beginning. After that, what is here is left for what can be read of it.
        if state.mismatches == 1 {
            let count = state.slots.len();
            state.slots.clear();
            drop(state);
            self.changed.notify_all();
            files.map_or(Ok(()), |files| files.forget(0, count))?;
        }
        Ok(())
    }

    /// Gives the pack its place if it is what its name says.
    fn compare(&self, files: &Files, bytes: u64, lines: &[map::Line]) -> io::Result<bool> {
        let name = match map::name(lines) {
            Some(name) => name,
            None => {
                let mut window = vec![0; bytes as usize];
                files.pack.read_exact_at(&mut window, 0)?;
                PackId(*blake3::hash(&window).as_bytes())
            }
        };
        if name != self.id {
            return Ok(false);
        }
        files.promote(&self.line.folder, &self.id)?;
        Ok(true)
    }

    /// Forgets windows whose frames do not verify, so that the next read asks the store for them.
    pub fn renew(&self, range: Range<u64>) -> io::Result<()> {
        let mut state = self.state.lock();
        // What is being compared with its name stays as it is.
        if state.is_whole || state.is_finishing {
            return Ok(());
        }
        let files = self.files.lock().clone();
        for window in windows_of(&range) {
            match state.slot(window) {
                Slot::Here { .. } => {
                    state.set(window, Slot::Absent);
                    if let Some(files) = &files {
                        files.forget(window, 1)?;
                    }
                }
                Slot::Asked(ticket) if ticket.answer.get().is_some() => state.set(window, Slot::Absent),
                Slot::Asked(_) | Slot::Absent => {}
            }
        }
        Ok(())
    }

    /// The pack's length. Waits for it, where nobody has said it yet.
    pub fn bytes(self: &Arc<Self>) -> io::Result<u64> {
        let known = self.state.lock().bytes;
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let deadline = Instant::now() + self.line.limits.read;
        let windows = self.clone();
        let listed = self.line.settle(deadline, async move {
            windows.line.persist(deadline, || windows.line.pack_bytes(&windows.id)).await
        });
        let bytes = listed?.map_err(|error| io_error(&error))?;
        let mut state = self.state.lock();
        state.learn(Some(bytes));
        state.bytes.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no pack is as long as this one"))
    }

    /// Fetches what is not here, out of the way of readers, until the pack has its place.
    pub(super) async fn fetch_all(self: &Arc<Self>, bytes: u64) -> io::Result<()> {
        {
            let mut state = self.state.lock();
            state.learn(Some(bytes));
            // Whoever asks for all of it again wants to know whether the store still says the same.
            state.mismatches = 0;
        }
        loop {
            self.line.quiet().await;
            let windows = self.clone();
            if !tokio::task::spawn_blocking(move || windows.keep_held()).await.map_err(io::Error::other)? {
                return Err(io::Error::other(NOT_KEPT));
            }
            let permit = self.line.ahead.clone().acquire_owned().await.map_err(io::Error::other)?;
            let sent = {
                let mut state = self.state.lock();
                if state.is_whole {
                    return Ok(());
                }
                let Some(count) = state.count() else {
                    return Err(io::Error::new(ErrorKind::InvalidData, "no pack is as long as this one"));
                };
                let run = state.absent_run(0..count, self.line.request_windows());
                run.map(|run| self.send(&mut state, run, bytes, Some(permit)))
            };
            if let Some((ticket, task)) = sent {
                let is_kept = task.await.unwrap_or(false);
                match ticket.answer.get() {
                    Some(Ok(_)) if is_kept => continue,
                    // Who would go on here would ask for the same again and again.
                    Some(Ok(_)) => return Err(io::Error::other(NOT_KEPT)),
                    Some(Err(error)) => return Err(io_error(error)),
                    None => return Err(io::Error::other("a request was given up")),
                }
            }
            // All was asked for, by us or by others: what a reader knew to be too short is asked for again.
            let windows = self.clone();
            let finished = tokio::task::spawn_blocking(move || windows.finish()).await;
            finished.map_err(io::Error::other)??;
            {
                let mut state = self.state.lock();
                if state.mismatches > 1 {
                    let what = format!("pack {} in the store is not what its name says", self.id);
                    return Err(io::Error::new(ErrorKind::InvalidData, what));
                }
                state.drop_short();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl State {
    fn learn(&mut self, bytes: Option<u64>) {
        if let Some(bytes) = bytes.filter(|bytes| (1..=PACK_BYTES_MAX).contains(bytes))
            && self.bytes != Some(bytes)
        {
            self.bytes = Some(bytes);
            self.is_length_kept = false;
        }
    }

    /// Takes windows of which only a part is here, since the length was not known, for absent ones.
    fn drop_short(&mut self) {
        let (Some(bytes), Some(count)) = (self.bytes, self.count()) else { return };
        for window in 0..count {
            let len = (bytes - window as u64 * WINDOW_BYTES).min(WINDOW_BYTES);
            if matches!(self.slot(window), Slot::Here { line, .. } if u64::from(line.len) < len) {
                self.set(window, Slot::Absent);
            }
        }
    }
}

/// A request that is under way. However it ends, who waits for it is told.
struct Sent {
    windows: Arc<Windows>,
    ticket: Arc<Ticket>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        if self.ticket.answer.get().is_none() {
            let given_up = StoreError::new(Kind::Unreachable, "get", self.windows.id, "it was given up");
            self.windows.take(&self.ticket, Err(given_up));
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {:?}, {} here", self.range, self.bytes_here())
    }
}

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pack {} from afar", self.id)
    }
}
