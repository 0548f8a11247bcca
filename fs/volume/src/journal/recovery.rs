//! Recovery: what the journal holds behind the newest manifest.
//!
//! Invariants
//! - Nothing is written before everything was read, and what is read is on the disk.
//! - A tear above what was known to be durable is the end; one below it is damage, and said.

use std::collections::VecDeque;
use std::sync::Arc;

use fs_crypto::{Cipher, Suite};
use fs_format::journal::{
    Change, FRAME_HEADER_BYTES, FRAME_TAG_BYTES, FrameHeader, RECORD_BYTES_MAX, SECTOR_BYTES,
    SEGMENT_HEADER_BYTES, SEGMENT_TAG_AT, SegmentHeader, Totals, decode_record,
};

use super::{Frame, Journal, NEW, SPARE_SEGMENTS_MAX, Segment, Setting, Spare, key_tag, open_frame};
use crate::env::{DiskFile, Env, OpenMode};
use crate::store::read_error;
use crate::{FsError, OpenError};

/// What a search for frames reads at once, in bytes.
const SCAN_BYTES: usize = 1 << 20;

/// What recovery found.
pub struct Recovered {
    /// The journal, which goes on behind them.
    pub journal: Journal,
    /// The records behind the position asked for, in order: totals, changes, and where their data lies.
    pub records: Vec<(Totals, Vec<Change>, u64)>,
    /// Set when bytes below the durable watermark are damaged: what is behind them is lost.
    pub damage: Option<String>,
}

/// A segment as recovery finds it.
struct Found {
    path: String,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    header: SegmentHeader,
}

/// A segment has its whole length before it has its name.
fn cut(path: &str, bytes: u64) -> String {
    format!("{path} was cut to {bytes} bytes: what lay behind them cannot be replayed")
}

/// Reads the journal `id` behind `from` and begins a new segment for what comes.
///
/// Nothing is written before everything was read.
pub fn recover(setting: Setting, id: [u8; 16], from: u64, read_only: bool) -> Result<Recovered, OpenError> {
    let disk = setting.env.disk.clone();
    let fail = |what: &str| {
        let what = what.to_string();
        move |source: std::io::Error| OpenError::Disk { what, source }
    };
    let mut names = disk.list("journal").map_err(fail("journal"))?;
    names.sort();
    let mut found: Vec<Found> = Vec::new();
    let mut spare = Vec::new();
    // Files that a crash kept from getting their name.
    let mut leftovers = Vec::new();
    let mut next_file = 0;
    let mut damage: Option<String> = None;
    for name in names {
        let path = format!("journal/{name}");
        if name.starts_with(NEW) {
            leftovers.push(path);
            continue;
        }
        next_file = next_file.max(name.parse::<u64>().map_or(0, |number| number + 1));
        let file = disk
            .open(&path, if read_only { OpenMode::Read } else { OpenMode::Write })
            .map_err(fail(&path))?;
        // What is replayed must be on the disk, since what is acknowledged later rests on it. After a kill it may be in
        // the kernel's cache alone, and after a failed sync it may stay there and never reach the disk.
        file.sync_and_forget().map_err(fail(&path))?;
        let bytes = file.len().map_err(fail(&path))?;
        if bytes < SEGMENT_HEADER_BYTES {
            damage.get_or_insert(cut(&path, bytes));
            continue;
        }
        let mut sector = [0; SEGMENT_HEADER_BYTES as usize];
        file.read_at(&mut sector, 0).map_err(fail(&path))?;
        match SegmentHeader::decode(&sector) {
            Ok(Some(header)) if header.journal == id => {
                let Some(suite) = Suite::from_u8(header.suite) else {
                    let detail = format!("uses cipher suite {}: use a newer comb", header.suite);
                    return Err(OpenError::Newer { what: path, detail });
                };
                let cipher = setting.key.journal_cipher(&setting.device, &header.salt, suite);
                if sector[SEGMENT_TAG_AT..SEGMENT_TAG_AT + FRAME_TAG_BYTES] != key_tag(&cipher, &sector) {
                    // Taken for a torn tail, this would drop what was acknowledged.
                    let detail = "was written with another device secret (put back the file `device` of this state folder), or its header is damaged";
                    return Err(OpenError::Damaged { what: path, detail: detail.into() });
                }
                if bytes < u64::from(header.sectors) * SECTOR_BYTES {
                    damage.get_or_insert(cut(&path, bytes));
                }
                found.push(Found { path, file, bytes, header });
            }
            Ok(_) => spare.push(Spare { path, file, bytes, warm: 0 }),
            Err(error @ fs_format::DecodeError::Newer { .. }) => {
                return Err(OpenError::Newer { what: path, detail: error.to_string() });
            }
            // Sectors are written whole: this is no torn header but a damaged one.
            Err(error) => {
                damage = Some(format!("{path} {error}: what it held cannot be replayed"));
            }
        }
    }
    found.sort_by_key(|segment| segment.header.number);
    let next_number = found.last().map_or(0, |segment| segment.header.number + 1);
    let mut records = Vec::new();
    let mut chain: VecDeque<Segment> = VecDeque::new();
    let mut stream: Vec<u8> = Vec::new();
    let mut stream_start = from;
    // The position behind the last whole record.
    let mut end = from;
    let mut watermark = 0;

    let first = found.iter().rposition(|segment| segment.header.start <= from);
    let mut current = first;
    while let Some(index) = current {
        let Found { path, file, bytes, header } = &found[index];
        let suite = Suite::from_u8(header.suite).expect("checked above");
        let cipher = Arc::new(setting.key.journal_cipher(&setting.device, &header.salt, suite));
        let successor = found[index + 1..].iter().position(|next| next.header.predecessor == header.salt);
        let successor = successor.map(|offset| index + 1 + offset);
        let limit = successor.map_or(u64::MAX, |next| found[next].header.start);
        let mut frames = Vec::new();
        let mut at = SEGMENT_HEADER_BYTES;
        let mut position = header.start;
        while at + FRAME_HEADER_BYTES as u64 <= *bytes && position < limit {
            let Some((frame, plain)) = try_frame(&**file, &cipher, at, *bytes).map_err(fail(path))? else {
                break;
            };
            if frame.position != position || frame.number as usize != frames.len() {
                break;
            }
            watermark = watermark.max(frame.durable);
            frames.push(Frame { position, offset: at as u32, len: frame.len });
            let plain_end = position + plain.len() as u64;
            // What lies before the position asked for is in the tree; what lies behind a
            // successor's start was the torn tail of an earlier crash.
            let stream_end = stream_start + stream.len() as u64;
            let (skip, take) =
                (stream_end.saturating_sub(position), plain_end.min(limit).saturating_sub(position));
            if take > skip {
                stream.extend_from_slice(&plain[skip as usize..take as usize]);
            }
            position = plain_end;
            at += FrameHeader::stored_bytes(plain.len());
            parse(&mut stream, &mut stream_start, &mut records, path)?;
            end = stream_start;
        }
        let complete = position >= limit;
        if !complete {
            // A frame behind the tear that knew more to be durable proves that this is no torn tail.
            for segment in found[index..].iter().filter(|segment| segment.header.number >= header.number) {
                let torn = segment.header.number == header.number;
                let beyond = durable_beyond(&setting, segment, at, torn).map_err(fail(&segment.path))?;
                watermark = watermark.max(beyond);
            }
            if watermark > end {
                damage = Some(format!(
                    "{path} is damaged at byte {at}: what was written behind journal position {end} cannot be replayed"
                ));
            }
        }
        chain.push_back(Segment {
            header: *header,
            file: file.clone(),
            path: path.clone(),
            cipher,
            bytes: *bytes,
            // Never appended to.
            next: *bytes,
            warm: 0,
            frames,
            dirty: false,
        });
        current = if complete { successor } else { None };
    }
    if first.is_none() {
        // Segments that nobody synced may survive a crash without the one before them.
        for segment in &found {
            let beyond = durable_beyond(&setting, segment, SEGMENT_HEADER_BYTES, false);
            watermark = watermark.max(beyond.map_err(fail(&segment.path))?);
        }
    }
    if first.is_none() && watermark > end {
        damage = Some(format!("the journal segment that holds position {from} is missing"));
    }
    if !read_only && damage.is_none() {
        // A record that spans segments may be torn in a later one. Then those hold nothing but its pieces, and
        // what comes next follows the segment in which the last whole record ends.
        while chain.back().is_some_and(|segment| segment.header.start > end) {
            chain.pop_back();
        }
        for segment in found
            .iter()
            .filter(|segment| !chain.iter().any(|kept| kept.header.number == segment.header.number))
        {
            // Stale or torn: it must never look like a successor again.
            segment.file.write_at(&[0; SEGMENT_HEADER_BYTES as usize], 0).map_err(fail(&segment.path))?;
            segment.file.sync().map_err(fail(&segment.path))?;
            let Found { path, file, bytes, .. } = segment;
            spare.push(Spare { path: path.clone(), file: file.clone(), bytes: *bytes, warm: 0 });
        }
        for path in leftovers {
            disk.remove(&path).map_err(fail(&path))?;
        }
        disk.sync_dir("journal").map_err(fail("journal"))?;
        let mut kept = Vec::new();
        for found in spare {
            if found.bytes == setting.segment_bytes && kept.len() < SPARE_SEGMENTS_MAX {
                kept.push(found);
            } else {
                let _ = disk.remove(&found.path);
            }
        }
        spare = kept;
    } else {
        spare = Vec::new();
    }
    let journal = Journal::with(setting, id, chain, spare, end, next_number, next_file);
    Ok(Recovered { journal, records, damage })
}

fn try_frame(
    file: &dyn DiskFile,
    cipher: &Cipher,
    at: u64,
    bytes: u64,
) -> std::io::Result<Option<(FrameHeader, Vec<u8>)>> {
    let mut header = [0; FRAME_HEADER_BYTES];
    file.read_at(&mut header, at)?;
    let Ok(frame) = FrameHeader::decode(&header) else { return Ok(None) };
    if at + (FRAME_HEADER_BYTES + frame.len as usize + FRAME_TAG_BYTES) as u64 > bytes {
        return Ok(None);
    }
    let index = Frame { position: frame.position, offset: at as u32, len: frame.len };
    match read_frame(file, "journal", cipher, &index, u64::from(frame.number)) {
        Ok(plain) => Ok(Some((frame, plain))),
        Err(FsError::Disk(error)) => Err(std::io::Error::other(error)),
        Err(_) => Ok(None),
    }
}

/// The highest durable watermark of valid frames behind `at`.
fn durable_beyond(setting: &Setting, segment: &Found, at: u64, torn: bool) -> std::io::Result<u64> {
    let Some(suite) = Suite::from_u8(segment.header.suite) else { return Ok(0) };
    let cipher = setting.key.journal_cipher(&setting.device, &segment.header.salt, suite);
    let mut at = if torn { at + SECTOR_BYTES } else { SEGMENT_HEADER_BYTES };
    let mut highest = 0;
    let mut block = vec![0; SCAN_BYTES];
    while at < segment.bytes {
        let len = (segment.bytes - at).min(SCAN_BYTES as u64) as usize;
        segment.file.read_at(&mut block[..len], at)?;
        for (sector, bytes) in block[..len].chunks(SECTOR_BYTES as usize).enumerate() {
            if FrameHeader::decode(bytes).is_ok() {
                let place = at + sector as u64 * SECTOR_BYTES;
                if let Some((frame, _)) = try_frame(&*segment.file, &cipher, place, segment.bytes)? {
                    highest = highest.max(frame.durable);
                }
            }
        }
        at += len as u64;
    }
    Ok(highest)
}

/// Takes whole records off the front of the stream.
fn parse(
    stream: &mut Vec<u8>,
    stream_start: &mut u64,
    records: &mut Vec<(Totals, Vec<Change>, u64)>,
    path: &str,
) -> Result<(), OpenError> {
    let mut at = 0;
    while stream.len() - at >= 4 {
        let len = u32::from_le_bytes(stream[at..at + 4].try_into().expect("four bytes")) as usize;
        let damaged = |detail: String| OpenError::Damaged { what: path.to_string(), detail };
        if len > RECORD_BYTES_MAX {
            return Err(damaged("holds a record above the limit".into()));
        }
        if stream.len() - at - 4 < len {
            break;
        }
        let payload = &stream[at + 4..at + 4 + len];
        let (totals, changes, data) =
            decode_record(payload).map_err(|error| damaged(format!("holds a record that {error}")))?;
        at += 4 + len;
        records.push((totals, changes, *stream_start + (at - data) as u64));
    }
    stream.drain(..at);
    *stream_start += at as u64;
    Ok(())
}

/// The journal that a volume began before its first seal named one: that of the lowest segment.
pub fn first_id(env: &Env) -> Result<Option<[u8; 16]>, OpenError> {
    let at = |what: &str| {
        let what = what.to_string();
        move |source| OpenError::Disk { what, source }
    };
    let mut first: Option<SegmentHeader> = None;
    for name in env.disk.list("journal").map_err(at("journal"))? {
        let path = format!("journal/{name}");
        let file = env.disk.open(&path, OpenMode::Read).map_err(at(&path))?;
        let mut sector = [0; SEGMENT_HEADER_BYTES as usize];
        if file.len().map_err(at(&path))? < SEGMENT_HEADER_BYTES {
            continue;
        }
        file.read_at(&mut sector, 0).map_err(at(&path))?;
        if let Ok(Some(header)) = SegmentHeader::decode(&sector)
            && header.start == 0
            && first.is_none_or(|first| header.number < first.number)
        {
            first = Some(header);
        }
    }
    Ok(first.map(|header| header.journal))
}

pub(super) fn read_frame(
    file: &dyn DiskFile,
    path: &str,
    cipher: &Cipher,
    frame: &Frame,
    number: u64,
) -> Result<Vec<u8>, FsError> {
    let mut bytes = vec![0; frame.stored_bytes()];
    file.read_at(&mut bytes, u64::from(frame.offset)).map_err(|error| read_error(path, &error))?;
    open_frame(&mut bytes, path, cipher, frame, number).map(|plain| plain.to_vec())
}
