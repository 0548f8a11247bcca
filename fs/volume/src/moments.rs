//! The list of moments: in memory, and in a file that spares the next reader the manifests.
//!
//! Invariants
//! - The manifests alone say which moments there are. The file is a cache that may be missing, old,
//!   damaged or foreign at any time; a seal that cannot keep it is no less a seal.
//! - What comes from the file is believed only where it leads to the newest manifest, see `format.md`.

use std::collections::BTreeMap;

use fs_crypto::{Cipher, ReadKey};
use fs_format::manifest::SnapshotRecord;
use fs_format::moments::{
    MOMENTS_BYTES_MAX, MOMENTS_HEADER_BYTES, MomentRecord, MomentsHeader, decode_moments, encode_moments,
    open_moments,
};
use fs_format::{Seq, VolumeId};

use crate::env::{Env, OpenMode};
use crate::findings::Findings;
use crate::manifests::{self, Manifest};
use crate::types::{SealInfo, SnapshotLabel};
use crate::{OpenError, replace};

const PATH: &str = "moments";
/// What the file is called while it is written.
const NEW: &str = "moments.new";

/// The file is read when one moment in so many is not known, and written when one in so many was not in it:
/// the manifests that are read in between stay few, and not all moments are written for each new one.
const NEWS_PARTS: usize = 64;

fn are_many(news: usize, all: usize) -> bool {
    news > 0 && news * NEWS_PARTS >= all
}

/// The moments that are known.
#[derive(Default)]
pub struct Moments {
    known: BTreeMap<Seq, SealInfo>,
    /// Whether the file said something wrong, and was not written anew since.
    is_file_wrong: bool,
    /// How many of the known are not in the file.
    unsaved: usize,
}

impl Moments {
    /// All moments, oldest first. A manifest that cannot be read is left out, and noted as `found`.
    pub fn list(
        &mut self,
        env: &Env,
        volume: &VolumeId,
        own: &ReadKey,
        found: &Findings,
    ) -> Result<Vec<SealInfo>, OpenError> {
        let seqs = manifests::list(env)?;
        self.known.retain(|seq, _| seqs.binary_search(seq).is_ok());
        if self.known.len() < seqs.len() {
            self.learn(env, volume, own, &seqs, found)?;
        }
        Ok(self.known.values().cloned().collect())
    }

    /// Gets to know the moments of these numbers.
    fn learn(
        &mut self,
        env: &Env,
        volume: &VolumeId,
        own: &ReadKey,
        seqs: &[Seq],
        found: &Findings,
    ) -> Result<(), OpenError> {
        let newest = manifests::newest_of(env, volume, own, seqs)?;
        if !self.is_file_wrong && are_many(seqs.len() - self.known.len(), seqs.len()) {
            match believed(env, volume, own, &newest) {
                Ok(list) => {
                    for info in list.into_iter().filter(|info| seqs.binary_search(&info.seq).is_ok()) {
                        // What was read from a manifest is better.
                        self.known.entry(info.seq).or_insert(info);
                    }
                    self.unsaved = 0;
                }
                Err(error) => tracing::debug!(error, "the list of moments is made anew"),
            }
        }
        for &seq in seqs {
            if self.known.contains_key(&seq) {
                continue;
            }
            let read = match seq == newest.header.seq {
                true => Ok(newest.info.clone()),
                false => manifests::read(env, volume, own, seq).map(|manifest| manifest.info),
            };
            match read {
                Ok(info) => {
                    self.known.insert(seq, info);
                    self.unsaved += 1;
                }
                Err(error @ (OpenError::Damaged { .. } | OpenError::Disk { .. })) => {
                    found.note(format!("seq {seq}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        self.keep(env, own);
        Ok(())
    }

    /// Takes in a moment that was just sealed.
    ///
    /// Whoever has never listed the moments does not begin now: a program that seals and ends need not
    /// read what was before.
    pub fn note(&mut self, env: &Env, own: &ReadKey, info: &SealInfo) {
        if !self.known.is_empty() {
            self.known.insert(info.seq, info.clone());
            self.unsaved += 1;
            self.keep(env, own);
        }
    }

    /// Writes the file if it lacks many moments.
    fn keep(&mut self, env: &Env, own: &ReadKey) {
        if are_many(self.unsaved, self.known.len()) {
            // Tried once for each news: a folder that cannot be written is no reason to complain.
            self.unsaved = 0;
            match self.save(env, own) {
                Ok(()) => self.is_file_wrong = false,
                Err(error) => tracing::debug!(%error, "the list of moments is not kept"),
            }
        }
    }

    /// Forgets all that is known, and leaves the file alone until it is written anew.
    pub fn distrust(&mut self) {
        *self = Self { is_file_wrong: true, ..Self::default() };
    }

    /// Writes the file. Without a sync: whoever reads it notices what a crash has left.
    fn save(&self, env: &Env, own: &ReadKey) -> std::io::Result<()> {
        let records: Vec<MomentRecord> = self.known.values().map(record).collect();
        let mut plain = encode_moments(&records);
        if plain.len() > MOMENTS_BYTES_MAX - MOMENTS_HEADER_BYTES - Cipher::TAG_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let mut random = [0; 32];
        env.chance.fill(&mut random);
        let salt = fs_crypto::hedged_salt(&random, &[&plain]);
        let header = MomentsHeader { body_bytes: (plain.len() + Cipher::TAG_BYTES) as u32, salt };
        let mut object = header.encode().to_vec();
        let tag = own.moments_cipher(&salt).seal(0, &object, &mut plain);
        object.extend_from_slice(&plain);
        object.extend_from_slice(&tag);
        replace::stage(&*env.disk, NEW, |file| file.write_at(&object, 0))?;
        env.disk.rename(NEW, PATH)
    }
}

/// What the file says up to the newest manifest, if it can be believed; the error says why not.
fn believed(env: &Env, volume: &VolumeId, own: &ReadKey, newest: &Manifest) -> Result<Vec<SealInfo>, String> {
    let mut list = read(env, own)?;
    let head = newest.header.seq;
    list.retain(|info| info.seq <= head);
    let Some(last) = list.last() else { return Ok(list) };
    let leads_to_newest = if last.seq == head {
        last.id == newest.info.id
    } else {
        let next = Seq(last.seq.0 + 1);
        let parent = match next == head {
            true => newest.header.parent,
            false => {
                manifests::read(env, volume, own, next).map_err(|error| error.to_string())?.header.parent
            }
        };
        parent == last.id
    };
    if leads_to_newest { Ok(list) } else { Err("is of another past".into()) }
}

/// Reads the file; the error says why there is none worth reading.
fn read(env: &Env, own: &ReadKey) -> Result<Vec<SealInfo>, String> {
    let disk = |error: std::io::Error| error.to_string();
    let file = env.disk.open(PATH, OpenMode::Read).map_err(disk)?;
    let len = file.len().map_err(disk)?;
    if len > MOMENTS_BYTES_MAX as u64 {
        return Err("is too large".into());
    }
    let mut object = vec![0; len as usize];
    file.read_at(&mut object, 0).map_err(disk)?;
    let (header, associated, body) = open_moments(&object).map_err(|error| error.to_string())?;
    let (plain, tag) = body.split_last_chunk().ok_or("ends early")?;
    let mut plain = plain.to_vec();
    own.moments_cipher(&header.salt)
        .open(0, associated, &mut plain, tag)
        .map_err(|error| error.to_string())?;
    let records = decode_moments(&plain).map_err(|error| error.to_string())?;
    Ok(records.into_iter().map(info).collect())
}

fn record(info: &SealInfo) -> MomentRecord {
    let snapshot = info.snapshot.clone();
    MomentRecord {
        seq: info.seq,
        id: info.id,
        time: info.time,
        files: info.files,
        bytes: info.bytes,
        added: info.added,
        snapshot: snapshot.map(|SnapshotLabel { id, message, tags }| SnapshotRecord { id, message, tags }),
    }
}

fn info(record: MomentRecord) -> SealInfo {
    let MomentRecord { seq, id, time, files, bytes, added, snapshot } = record;
    let label = |SnapshotRecord { id, message, tags }| SnapshotLabel { id, message, tags };
    SealInfo { seq, id, time, files, bytes, added, snapshot: snapshot.map(label) }
}
