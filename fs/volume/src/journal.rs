//! The journal: what no pack holds yet, in the order in which it happened.
//!
//! Records are appended to a buffer in memory, pushed to segments as encrypted frames, and
//! made durable by one `fdatasync` for all who wait.
//!
//! Invariants
//! - What recovery returns is a prefix of what was appended, with everything that `sync`
//!   returned for.
//! - An incarnation of a segment has a fresh salt, so no (key, nonce) seals two frames.
//! - A segment that recovery read is never appended to; it is durable before a new one begins.
//! - After a failed write or sync nothing is ever reported as durable again.

pub mod recovery;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fs_crypto::{Cipher, DeviceSecret, Suite, VolumeKey};
use fs_format::journal::{
    Change, FRAME_HEADER_BYTES, FRAME_TAG_BYTES, FrameHeader, JOURNAL_FRAME_BYTES_MAX, RECORD_BYTES_MAX,
    SECTOR_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_TAG_AT, SEGMENT_TAGGED_BYTES, SegmentHeader, Totals,
    encode_record,
};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::buffer::{ALIGN, Buffer};
use crate::env::{DiskFile, Env};
use crate::store::{disk_error, is_full, read_error};
use crate::{FsError, replace};

/// Recycled segments that are kept for reuse: their blocks are written, so a sync of them is cheap.
const SPARE_SEGMENTS_MAX: usize = 4;

struct Segment {
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    path: String,
    cipher: Arc<Cipher>,
    bytes: u64,
    /// Where the next frame goes.
    next: u64,
    /// Up to here the blocks were written before.
    warm: u64,
    frames: Vec<Frame>,
    /// Written since the last sync.
    dirty: bool,
}

#[derive(Clone, Copy)]
struct Frame {
    position: u64,
    offset: u32,
    len: u32,
}

impl Frame {
    /// The position behind its last byte.
    fn end(&self) -> u64 {
        self.position + u64::from(self.len)
    }

    /// Bytes from its header to its tag.
    fn stored_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.len as usize + FRAME_TAG_BYTES
    }
}

/// A file for a segment to come.
struct Spare {
    path: String,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    /// Up to here the blocks were written before: to sync what is written over them takes no
    /// change of the disk's own metadata, which makes it about a third faster.
    warm: u64,
}

impl Spare {
    fn is_warm(&self) -> bool {
        self.warm >= self.bytes / 2
    }
}

struct Log {
    /// The position behind the last record.
    end: u64,
    /// Plain bytes not yet handed to a flush, and their position.
    pending: Vec<u8>,
    pending_start: u64,
    /// Plain bytes that a flush is writing.
    flushing: Arc<Vec<u8>>,
    flushing_start: u64,
    /// A buffer for the next turn; kept, so that its memory is.
    empty: Vec<u8>,
    /// Everything before this position is in segments.
    written: u64,
    /// Everything before this position is durable.
    durable: u64,
    /// Segments in use, oldest first. The last one is written to.
    segments: VecDeque<Segment>,
    /// Files to reuse.
    spare: Vec<Spare>,
    /// Room in frames that is promised to records in the buffer.
    promised: u64,
    /// Syncs of blocks that were never written before, in the segment written to.
    cold_syncs: u64,
    /// Somebody syncs for all who wait.
    syncing: bool,
    failed: Option<String>,
}

/// Pending bytes that are worth a write of their own.
const PUSH_BYTES: usize = 1 << 20;
/// Pending bytes above which a writer flushes before it goes on.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// Bytes of a segment that are worth one cold sync: with more syncs than that it pays to write zeros ahead.
const COLD_SYNC_BYTES: u64 = 256 << 10;
/// Bytes of zeros that are written at once.
const ZEROS_BYTES: usize = 1 << 20;
/// Bytes of frames that are written at once.
const RUN_BYTES: usize = 1 << 20;
/// What the name of a segment begins with until it has its length.
const NEW: &str = ".new-";
/// Runs of frames this long go past the system's cache: a seal reads them once, in order.
const LARGE_RUN_BYTES: usize = 256 << 10;
/// Frames that are read at once.
const READ_FRAMES_MAX: usize = 32;

/// Which part of the room an operation may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Adds to the volume: leaves a reserve.
    Grow,
    /// Adds what somebody was told is there already: may use most of the reserve.
    Taken,
    /// Frees something or goes on with what was begun: may use the reserve.
    Free,
}

/// What the journal needs to know of the volume.
pub struct Setting {
    /// The world.
    pub env: Env,
    /// What the keys of segments are made of,
    pub key: VolumeKey,
    /// together with this.
    pub device: DeviceSecret,
    /// The length of new segments.
    pub segment_bytes: u64,
    /// What encrypts new segments.
    pub suite: Suite,
}

/// The journal of an open volume.
pub struct Journal {
    setting: Setting,
    id: [u8; 16],
    buffer: Mutex<Log>,
    /// Held while segments are written or synced.
    io: Mutex<IoState>,
    /// Told when enough waits in memory to be worth a write.
    crowded: Condvar,
    /// Told when a sync has ended.
    synced: Condvar,
}

struct IoState {
    /// Frames on their way to a segment; kept, so that its memory is.
    out: Buffer,
    next_number: u64,
    next_file: u64,
}

impl IoState {
    fn take_file_number(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file - 1
    }
}

impl Journal {
    fn with(
        setting: Setting,
        id: [u8; 16],
        segments: VecDeque<Segment>,
        spare: Vec<Spare>,
        end: u64,
        next_number: u64,
        next_file: u64,
    ) -> Self {
        Self {
            setting,
            id,
            buffer: Mutex::new(Log {
                end,
                pending: Vec::new(),
                pending_start: end,
                flushing: Arc::default(),
                flushing_start: end,
                empty: Vec::new(),
                written: end,
                durable: end,
                segments,
                spare,
                promised: 0,
                cold_syncs: 0,
                syncing: false,
                failed: None,
            }),
            io: Mutex::new(IoState { out: Buffer::default(), next_number, next_file }),
            crowded: Condvar::new(),
            synced: Condvar::new(),
        }
    }

    /// Which journal this is.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The position behind the last record.
    pub fn end(&self) -> u64 {
        self.buffer.lock().end
    }

    /// Bytes of segments in use.
    pub fn used_bytes(&self) -> u64 {
        self.buffer.lock().segments.iter().map(|segment| segment.next).sum()
    }

    /// Why nothing is durable any more.
    pub fn failure(&self) -> Option<String> {
        self.buffer.lock().failed.clone()
    }

    /// Makes sure that a record of about `bytes` will find room when it is flushed.
    ///
    /// Segments are allocated here, ahead of their use, so that a full disk refuses an
    /// operation instead of losing one that was accepted.
    pub fn admit(&self, bytes: usize, room: Room) -> Result<(), FsError> {
        if room != Room::Free && self.buffer.lock().pending.len() > PENDING_BYTES_MAX {
            // Whoever writes faster than the disk takes it helps to carry it there.
            self.flush()?;
        }
        let need = promised_bytes(bytes) + self.held_back(room);
        let has_room = || {
            let buffer = self.buffer.lock();
            match &buffer.failed {
                Some(failure) => Err(FsError::Disk(failure.clone())),
                None => Ok(buffer.room_left() >= need),
            }
        };
        if has_room()? {
            return Ok(());
        }
        let mut io = self.io.lock();
        // Whoever held the lock before may have allocated for this caller too.
        while !has_room()? {
            let spare = self.make_spare(&mut io)?;
            self.buffer.lock().spare.push(spare);
        }
        Ok(())
    }

    /// Whether [`Journal::admit`] would allocate a segment.
    pub fn wants_segment(&self, bytes: usize, room: Room) -> bool {
        let need = promised_bytes(bytes) + self.held_back(room);
        let wants = || self.buffer.lock().room_left() < need;
        // Records that are on their way to a segment count twice until they are there.
        wants() && {
            let _there = self.io.lock();
            wants()
        }
    }

    /// Room in segments that are there which an operation leaves to others.
    fn held_back(&self, room: Room) -> u64 {
        match room {
            Room::Grow => self.setting.segment_bytes / 4,
            Room::Taken | Room::Free => self.setting.segment_bytes / 16,
        }
    }

    fn make_spare(&self, io: &mut MutexGuard<'_, IoState>) -> Result<Spare, FsError> {
        self.make_file(io.take_file_number(), 0)
    }

    /// Makes a segment's file whose first `warm` bytes are written.
    fn make_file(&self, number: u64, warm: u64) -> Result<Spare, FsError> {
        let path = format!("journal/{number:08}");
        let temporary = format!("journal/{NEW}{number:08}");
        let (disk, bytes) = (&self.setting.env.disk, self.setting.segment_bytes);
        // The length and the zeros must be there before the name is, and the name before a record is: so a segment that
        // is too short was cut by somebody.
        let made = replace::put(&**disk, &temporary, &path, |file| {
            file.allocate(bytes)?;
            let zeros = vec![0; ZEROS_BYTES.min(warm as usize)];
            let mut at = 0;
            while at < warm {
                let len = zeros.len().min((warm - at) as usize);
                file.write_at(&zeros[..len], at)?;
                at += len as u64;
            }
            Ok(())
        });
        match made {
            Ok(file) => Ok(Spare { path, file, bytes, warm }),
            Err(missed) => {
                if missed.may_be_there {
                    let _ = disk.remove(&path);
                }
                Err(disk_error(&path, &missed.error))
            }
        }
    }

    /// Writes a segment ahead with zeros, if there were many syncs of blocks never written before.
    ///
    /// Who only writes much never pays for that; who syncs often pays once, since segments are recycled.
    pub fn warm_up(&self) -> Result<(), FsError> {
        let wanted = {
            let buffer = self.buffer.lock();
            let many = (self.setting.segment_bytes / COLD_SYNC_BYTES).max(1);
            buffer.failed.is_none() && buffer.cold_syncs >= many && !buffer.spare.iter().any(Spare::is_warm)
        };
        if !wanted {
            return Ok(());
        }
        let number = self.io.lock().take_file_number();
        // Without the lock: others write and sync meanwhile.
        let spare = self.make_file(number, self.setting.segment_bytes)?;
        self.buffer.lock().spare.push(spare);
        Ok(())
    }

    /// Waits until enough is pending to be worth a write, at most for `patience`.
    pub fn wait_for_work(&self, patience: Duration) {
        let mut buffer = self.buffer.lock();
        if buffer.pending.len() < PUSH_BYTES {
            self.crowded.wait_for(&mut buffer, patience);
        }
    }

    /// Appends a record; returns the position of its data.
    ///
    /// The caller holds the lock that orders operations and asked [`Journal::admit`] before.
    pub fn append(&self, totals: &Totals, changes: &[Change], data: &[u8]) -> u64 {
        let mut buffer = self.buffer.lock();
        let before = buffer.pending.len();
        encode_record(totals, changes, data.len(), &mut buffer.pending);
        let position = buffer.pending_start + buffer.pending.len() as u64;
        buffer.pending.extend_from_slice(data);
        let added = buffer.pending.len() - before;
        assert!(added <= RECORD_BYTES_MAX, "a record is bounded by what one operation changes");
        buffer.end += added as u64;
        if buffer.pending.len() >= PUSH_BYTES {
            self.crowded.notify_one();
        }
        buffer.promised += promised_bytes(added);
        position
    }

    /// Writes what is pending to the segments.
    pub fn flush(&self) -> Result<(), FsError> {
        let mut io = self.io.lock();
        self.flush_locked(&mut io)
    }

    /// Returns when everything that was appended before is durable.
    pub fn sync(&self) -> Result<(), FsError> {
        {
            let mut buffer = self.buffer.lock();
            let target = buffer.end;
            loop {
                if let Some(failure) = &buffer.failed {
                    return Err(FsError::Disk(failure.clone()));
                }
                if buffer.durable >= target {
                    return Ok(());
                }
                if !buffer.syncing {
                    break;
                }
                // Whoever syncs may do so for this caller too; all who wait are told at once.
                self.synced.wait(&mut buffer);
            }
            buffer.syncing = true;
        }
        let outcome = self.sync_now();
        self.buffer.lock().syncing = false;
        self.synced.notify_all();
        outcome
    }

    /// Makes durable what was appended so far, for all who wait.
    fn sync_now(&self) -> Result<(), FsError> {
        let mut io = self.io.lock();
        self.flush_locked(&mut io)?;
        let (written, dirty) = {
            let mut buffer = self.buffer.lock();
            if buffer.segments.back().is_some_and(|segment| segment.dirty && segment.next > segment.warm) {
                buffer.cold_syncs += 1;
            }
            let dirty: Vec<(String, Arc<dyn DiskFile>)> = buffer
                .segments
                .iter_mut()
                .filter_map(|segment| {
                    std::mem::take(&mut segment.dirty).then(|| (segment.path.clone(), segment.file.clone()))
                })
                .collect();
            (buffer.written, dirty)
        };
        for (path, file) in dirty {
            if let Err(error) = file.sync() {
                return Err(self.fail(&path, &error));
            }
        }
        let mut buffer = self.buffer.lock();
        buffer.durable = buffer.durable.max(written);
        Ok(())
    }

    fn fail(&self, path: &str, error: &std::io::Error) -> FsError {
        let text = format!("the journal ({path}) cannot be written: {error}");
        self.buffer.lock().failed.get_or_insert(text.clone());
        FsError::Disk(text)
    }

    fn flush_locked(&self, io: &mut MutexGuard<'_, IoState>) -> Result<(), FsError> {
        let (bytes, start, durable) = {
            let mut buffer = self.buffer.lock();
            if let Some(failure) = &buffer.failed {
                return Err(FsError::Disk(failure.clone()));
            }
            if buffer.pending.is_empty() {
                return Ok(());
            }
            let empty = std::mem::take(&mut buffer.empty);
            let bytes = Arc::new(std::mem::replace(&mut buffer.pending, empty));
            buffer.flushing = bytes.clone();
            buffer.flushing_start = buffer.pending_start;
            buffer.pending_start += bytes.len() as u64;
            (bytes, buffer.flushing_start, buffer.durable)
        };
        let mut done = 0;
        while done < bytes.len() {
            match self.write_run(io, &bytes[done..], start + done as u64, durable) {
                Ok(taken) => done += taken,
                Err(FsError::NoSpace) => {
                    // Nothing is lost: what was not written waits in memory for room.
                    let mut buffer = self.buffer.lock();
                    let mut pending = bytes[done..].to_vec();
                    pending.extend_from_slice(&buffer.pending);
                    buffer.pending = pending;
                    buffer.pending_start = start + done as u64;
                    buffer.written = buffer.pending_start;
                    buffer.flushing = Arc::default();
                    return Err(FsError::NoSpace);
                }
                Err(error) => return Err(error),
            }
        }
        let mut buffer = self.buffer.lock();
        buffer.written = start + bytes.len() as u64;
        buffer.flushing = Arc::default();
        if let Ok(mut bytes) = Arc::try_unwrap(bytes)
            && bytes.capacity() <= 2 * PENDING_BYTES_MAX
        {
            bytes.clear();
            buffer.empty = bytes;
        }
        buffer.promised = promised_bytes(buffer.pending.len()) + buffer.pending.len() as u64 / 64;
        Ok(())
    }

    /// Writes as many frames as fit into the current segment; returns how many plain bytes that took.
    fn write_run(
        &self,
        io: &mut MutexGuard<'_, IoState>,
        bytes: &[u8],
        position: u64,
        durable: u64,
    ) -> Result<usize, FsError> {
        let begin = {
            let buffer = self.buffer.lock();
            let fits = |segment: &Segment| segment.bytes - segment.next >= FrameHeader::stored_bytes(1);
            !buffer.segments.back().is_some_and(fits) || buffer.should_leave(self.setting.segment_bytes)
        };
        if begin {
            self.begin_segment(io, position)?;
        }
        let (file, path, cipher, offset, segment_bytes, first) = {
            let buffer = self.buffer.lock();
            let segment = buffer.segments.back().expect("a segment was just begun");
            let (file, path) = (segment.file.clone(), segment.path.clone());
            (file, path, segment.cipher.clone(), segment.next, segment.bytes, segment.frames.len())
        };
        let mut out = std::mem::take(&mut io.out);
        // The same distance from a multiple of the disk's blocks as in the file.
        out.reset(2 * ALIGN + RUN_BYTES + FrameHeader::stored_bytes(JOURNAL_FRAME_BYTES_MAX) as usize);
        out.narrow(offset as usize % ALIGN, out.len() - ALIGN);
        let (mut frames, mut taken, mut stored) = (Vec::new(), 0, 0);
        // A run at a time that the processor's cache holds.
        while taken < bytes.len() && stored < RUN_BYTES {
            let at = offset + stored as u64;
            let Some(len) = frame_len(bytes.len() - taken, at, segment_bytes) else { break };
            let number = (first + frames.len()) as u32;
            let header =
                FrameHeader { len: len as u32, number, position: position + taken as u64, durable }.encode();
            let place = &mut out[stored..stored + FrameHeader::stored_bytes(len) as usize];
            let (head, body) = place.split_at_mut(FRAME_HEADER_BYTES);
            let (body, tail) = body.split_at_mut(len);
            head.copy_from_slice(&header);
            let tag = cipher.seal_to(u64::from(number), &header, &bytes[taken..taken + len], body);
            tail[..FRAME_TAG_BYTES].copy_from_slice(&tag);
            tail[FRAME_TAG_BYTES..].fill(0);
            frames.push(Frame { position: position + taken as u64, offset: at as u32, len: len as u32 });
            stored += place.len();
            taken += len;
        }
        // To the end of the block, where nothing of this segment lies yet: else the system reads the block first,
        // if not by this write then by the next, and a small synced write costs a read.
        let end = offset + stored as u64;
        let padded = stored + (end.next_multiple_of(ALIGN as u64).min(segment_bytes) - end) as usize;
        out[stored..padded].fill(0);
        let written = if stored >= LARGE_RUN_BYTES {
            file.write_large(&out[..padded], offset)
        } else {
            file.write_at(&out[..padded], offset)
        };
        io.out = out;
        if let Err(error) = written {
            if is_full(&error) {
                // Some of it may lie there: another try needs other keys, so another segment.
                let mut buffer = self.buffer.lock();
                let segment = buffer.segments.back_mut().expect("only this thread adds segments");
                segment.next = segment.bytes;
                return Err(FsError::NoSpace);
            }
            return Err(self.fail(&path, &error));
        }
        let mut buffer = self.buffer.lock();
        let segment = buffer.segments.back_mut().expect("only this thread adds segments");
        segment.next += stored as u64;
        segment.frames.extend(frames);
        segment.dirty = true;
        Ok(taken)
    }

    fn begin_segment(&self, io: &mut MutexGuard<'_, IoState>, position: u64) -> Result<(), FsError> {
        let spare = self.buffer.lock().take_spare();
        let spare = match spare {
            Some(spare) => spare,
            None => self.make_spare(io)?,
        };
        let mut random = [0; 32];
        self.setting.env.chance.fill(&mut random);
        let number = io.next_number;
        io.next_number += 1;
        let salt = fs_crypto::hedged_salt(
            &random,
            &[
                &self.id,
                &number.to_le_bytes(),
                &position.to_le_bytes(),
                &self.setting.env.clock.now().0.to_le_bytes(),
            ],
        );
        let predecessor = self.buffer.lock().segments.back().map_or([0; 32], |segment| segment.header.salt);
        let header = SegmentHeader {
            suite: self.setting.suite as u8,
            sectors: (spare.bytes / SECTOR_BYTES) as u32,
            journal: self.id,
            number,
            start: position,
            salt,
            predecessor,
        };
        let cipher =
            Arc::new(self.setting.key.journal_cipher(&self.setting.device, &salt, self.setting.suite));
        let mut sector = header.encode();
        let tag = key_tag(&cipher, &sector);
        sector[SEGMENT_TAG_AT..SEGMENT_TAG_AT + tag.len()].copy_from_slice(&tag);
        if let Err(error) = spare.file.write_at(&sector, 0) {
            if is_full(&error) {
                self.buffer.lock().spare.push(spare);
                return Err(FsError::NoSpace);
            }
            return Err(self.fail(&spare.path, &error));
        }
        let Spare { path, file, bytes, warm } = spare;
        let mut buffer = self.buffer.lock();
        buffer.cold_syncs = 0;
        buffer.segments.push_back(Segment {
            header,
            file,
            path,
            cipher,
            bytes,
            next: SEGMENT_HEADER_BYTES,
            warm,
            frames: Vec::new(),
            dirty: true,
        });
        Ok(())
    }

    /// Reads plain bytes at a position that a record's data lies at.
    ///
    /// Fails when the segment was recycled meanwhile: the caller looks again.
    pub fn read(&self, mut position: u64, mut out: &mut [u8]) -> Result<(), FsError> {
        while !out.is_empty() {
            let (file, path, cipher, first, frames) = {
                let buffer = self.buffer.lock();
                let from = if position >= buffer.pending_start {
                    Some((&buffer.pending[..], buffer.pending_start))
                } else if position >= buffer.flushing_start && !buffer.flushing.is_empty() {
                    Some((&buffer.flushing[..], buffer.flushing_start))
                } else {
                    None
                };
                if let Some((bytes, start)) = from {
                    let at = (position - start) as usize;
                    let len = out.len().min(bytes.len().saturating_sub(at));
                    if len == 0 {
                        return Err(FsError::Damaged(format!("the journal has no position {position}")));
                    }
                    let (head, tail) = std::mem::take(&mut out).split_at_mut(len);
                    head.copy_from_slice(&bytes[at..at + len]);
                    out = tail;
                    position += len as u64;
                    continue;
                }
                let index = buffer.segments.partition_point(|segment| segment.header.start <= position);
                let segment = index.checked_sub(1).map(|index| &buffer.segments[index]);
                let found = segment.and_then(|segment| {
                    let first =
                        segment.frames.partition_point(|frame| frame.position <= position).checked_sub(1)?;
                    let end = position + out.len() as u64;
                    let frames: Vec<Frame> = segment.frames[first..]
                        .iter()
                        .take_while(|frame| frame.position < end)
                        .take(READ_FRAMES_MAX)
                        .copied()
                        .collect();
                    (position < frames[0].end()).then(|| {
                        (
                            segment.file.clone(),
                            segment.path.clone(),
                            segment.cipher.clone(),
                            first as u64,
                            frames,
                        )
                    })
                });
                found.ok_or_else(|| FsError::Damaged(format!("the journal has no position {position}")))?
            };
            // Frames of a segment lie one behind the other: one read for all.
            let begin = u64::from(frames[0].offset);
            let last = frames[frames.len() - 1];
            let len = (u64::from(last.offset) - begin) as usize + last.stored_bytes();
            let mut run = Buffer::default();
            let read = if len >= LARGE_RUN_BYTES {
                file.read_large(&mut run, begin, len)
            } else {
                run.reset(len);
                file.read_at(&mut run, begin)
            };
            read.map_err(|error| read_error(&path, &error))?;
            for (number, frame) in (first..).zip(frames) {
                let at = (u64::from(frame.offset) - begin) as usize;
                let plain =
                    open_frame(&mut run[at..at + frame.stored_bytes()], &path, &cipher, &frame, number)?;
                let skip = (position - frame.position) as usize;
                let len = out.len().min(plain.len() - skip);
                let (head, tail) = std::mem::take(&mut out).split_at_mut(len);
                head.copy_from_slice(&plain[skip..skip + len]);
                out = tail;
                position += len as u64;
            }
        }
        Ok(())
    }

    /// Reads every segment in use, as replay would; returns what is damaged.
    pub fn verify(&self) -> Vec<FsError> {
        // What a segment is verified by; the rest of it may change meanwhile.
        type Kept = (SegmentHeader, Arc<dyn DiskFile>, String, Arc<Cipher>, Vec<Frame>);
        let segments: Vec<Kept> = {
            let buffer = self.buffer.lock();
            let kept = |segment: &Segment| {
                let Segment { header, file, path, cipher, frames, .. } = segment;
                (*header, file.clone(), path.clone(), cipher.clone(), frames.clone())
            };
            buffer.segments.iter().map(kept).collect()
        };
        let mut damage = Vec::new();
        for (header, file, path, cipher, frames) in segments {
            let mut wrong = Vec::new();
            let mut expected = header.encode();
            let tag = key_tag(&cipher, &expected);
            expected[SEGMENT_TAG_AT..SEGMENT_TAG_AT + tag.len()].copy_from_slice(&tag);
            let mut sector = [0; SEGMENT_HEADER_BYTES as usize];
            match file.read_at(&mut sector, 0) {
                Err(error) => wrong.push(read_error(&path, &error)),
                Ok(()) if sector != expected => {
                    wrong.push(FsError::Damaged(format!("{path}: its header is not what was written")));
                }
                Ok(()) => {}
            }
            for (number, frame) in frames.iter().enumerate() {
                wrong.extend(recovery::read_frame(&*file, &path, &cipher, frame, number as u64).err());
            }
            // A segment that was recycled meanwhile holds other bytes by right.
            let in_use = |segment: &Segment| segment.header.salt == header.salt;
            if self.buffer.lock().segments.iter().any(in_use) {
                damage.append(&mut wrong);
            }
        }
        damage
    }

    /// Removes spare segments that nothing was promised of; returns whether that made room on the disk.
    ///
    /// Kept, they would make syncs cheaper and a full disk stay full.
    pub fn give_back_spares(&self) -> bool {
        let _io = self.io.lock();
        let mut given = false;
        loop {
            let path = {
                let mut buffer = self.buffer.lock();
                let needed = buffer.promised + self.setting.segment_bytes / 4;
                let spare = buffer.spare.last().map_or(0, |spare| spare.bytes - SEGMENT_HEADER_BYTES);
                if spare == 0 || buffer.room() < needed + spare {
                    return given;
                }
                buffer.spare.pop().map(|spare| spare.path)
            };
            // One that stays is found when the volume is opened.
            given |= path.is_some_and(|path| self.setting.env.disk.remove(&path).is_ok());
        }
    }

    /// Gives back all segments, if every record lies before `position`: nothing is left to replay. Returns whether there
    /// were any.
    pub fn discard(&self, position: u64) -> bool {
        let _io = self.io.lock();
        let paths: Vec<String> = {
            let mut buffer = self.buffer.lock();
            if buffer.end > position {
                return false;
            }
            buffer.promised = 0;
            let segments = std::mem::take(&mut buffer.segments);
            let spare = std::mem::take(&mut buffer.spare);
            segments
                .into_iter()
                .map(|segment| segment.path)
                .chain(spare.into_iter().map(|spare| spare.path))
                .collect()
        };
        if paths.is_empty() {
            return false;
        }
        for path in paths {
            // One that stays is recognised as old when the volume is opened.
            let _ = self.setting.env.disk.remove(&path);
        }
        // Numbers begin again in an empty folder: what is gone must not come back beside them.
        let _ = self.setting.env.disk.sync_dir("journal");
        true
    }

    /// Recycles segments whose records all lie before `position`.
    pub fn trim(&self, position: u64) {
        let _io = self.io.lock();
        let mut remove = Vec::new();
        {
            let mut buffer = self.buffer.lock();
            while buffer.segments.len() > 1 && buffer.segments[1].header.start <= position {
                let segment = buffer.segments.pop_front().expect("there are at least two");
                if buffer.spare.len() < SPARE_SEGMENTS_MAX && segment.bytes == self.setting.segment_bytes {
                    let written =
                        segment.frames.last().map_or(0, |last| u64::from(last.offset) + u64::from(last.len));
                    let Segment { path, file, bytes, warm, .. } = segment;
                    buffer.spare.push(Spare { path, file, bytes, warm: warm.max(written) });
                } else {
                    remove.push(segment.path);
                }
            }
        }
        for path in remove {
            // A segment that stays is recognised as old when the volume is opened.
            let _ = self.setting.env.disk.remove(&path);
        }
    }
}

impl Log {
    /// Bytes that frames can still take.
    fn room(&self) -> u64 {
        let current = self.segments.back().map_or(0, |segment| segment.bytes - segment.next);
        current + self.spare_room()
    }

    /// Bytes that frames can take in spare segments.
    fn spare_room(&self) -> u64 {
        self.spare.iter().map(|spare| spare.bytes - SEGMENT_HEADER_BYTES).sum()
    }

    /// Whether to go on in a warm segment, although the current one has room.
    fn should_leave(&self, segment_bytes: u64) -> bool {
        self.cold_syncs >= (segment_bytes / COLD_SYNC_BYTES).max(1)
            && self.spare.iter().any(Spare::is_warm)
            // What the current one still has is given up: nothing may have been promised there.
            && self.spare_room() >= self.promised + segment_bytes / 4
    }

    /// The spare segment that was written before the farthest.
    fn take_spare(&mut self) -> Option<Spare> {
        let (index, _) = self.spare.iter().enumerate().max_by_key(|(_, spare)| spare.warm)?;
        Some(self.spare.swap_remove(index))
    }

    /// Those of them that are not promised to records in memory.
    fn room_left(&self) -> u64 {
        self.room().saturating_sub(self.promised)
    }
}

/// An upper bound of what `bytes` of a record take in frames when each record is synced alone.
fn promised_bytes(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    let frames = bytes / JOURNAL_FRAME_BYTES_MAX as u64 + 2;
    bytes + frames * (SECTOR_BYTES + (FRAME_HEADER_BYTES + FRAME_TAG_BYTES) as u64) + SECTOR_BYTES
}

/// Plain bytes of the next frame at `at` in a segment, of so many that wait; none if no frame fits any more.
///
/// Whoever is followed by others ends with a block of the disk, so that what is written at once begins with one.
fn frame_len(waiting: usize, at: u64, segment_bytes: u64) -> Option<usize> {
    const OVERHEAD: u64 = (FRAME_HEADER_BYTES + FRAME_TAG_BYTES) as u64;
    if segment_bytes - at < FrameHeader::stored_bytes(1) {
        return None;
    }
    let most = (segment_bytes - at - OVERHEAD).min(JOURNAL_FRAME_BYTES_MAX as u64);
    if waiting as u64 <= most {
        return Some(waiting);
    }
    let body = at + OVERHEAD;
    let end = (body + most) / ALIGN as u64 * ALIGN as u64;
    Some(if end > body { end - body } else { most } as usize)
}

/// Proves which key a segment was begun with. No frame has this nonce.
fn key_tag(cipher: &Cipher, sector: &[u8]) -> [u8; FRAME_TAG_BYTES] {
    cipher.seal(u64::MAX, &sector[..SEGMENT_TAGGED_BYTES], &mut [])
}

/// Decrypts a frame where it lies.
fn open_frame<'a>(
    bytes: &'a mut [u8],
    path: &str,
    cipher: &Cipher,
    frame: &Frame,
    number: u64,
) -> Result<&'a mut [u8], FsError> {
    let (header, rest) = bytes.split_at_mut(FRAME_HEADER_BYTES);
    let (plain, tag) = rest.split_last_chunk_mut::<FRAME_TAG_BYTES>().expect("a frame holds a tag");
    cipher.open(number, header, plain, tag).map_err(|_| {
        FsError::Damaged(format!("{path} at byte {}: a frame failed its integrity check", frame.offset))
    })?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_others_follow_ends_with_a_block_of_the_disk() {
        let segment_bytes = 1 << 20;
        for begin in [SEGMENT_HEADER_BYTES, ALIGN as u64, 61 << 10, segment_bytes - 5 * SECTOR_BYTES] {
            let (mut at, mut frames) = (begin, 0);
            while let Some(len) = frame_len(usize::MAX, at, segment_bytes) {
                assert!((1..=JOURNAL_FRAME_BYTES_MAX).contains(&len), "{len} bytes at {at}");
                at += FrameHeader::stored_bytes(len);
                assert_eq!(at % ALIGN as u64, 0, "{len} bytes from {begin} on");
                frames += 1;
            }
            assert_eq!(at, segment_bytes, "nothing is left over");
            assert!(frames <= (segment_bytes - begin).div_ceil(60 << 10), "{frames} frames from {begin} on");
        }
        assert_eq!(
            frame_len(100, SEGMENT_HEADER_BYTES, segment_bytes),
            Some(100),
            "the last one ends where it ends"
        );
        assert_eq!(frame_len(100, segment_bytes, segment_bytes), None);
    }
}
