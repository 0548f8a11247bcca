//! What leaves this machine: the objects that a seal adds, and what a key has to say so that others believe it.
//!
//! Replication moves objects without a key. What it cannot find out without one it asks here: which packs a seal
//! adds, since the table of packs is encrypted, and what must be signed.

use fs_format::ledger::PackFate;
use fs_format::{Epoch, ManifestId, PackId, PackNumber, Seq, Timestamp};

use crate::history::History;
use crate::ledger;
use crate::manifests::{self, Manifest};
use crate::{FsError, OpenError};

/// A seal, as others get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The epoch that it was made in.
    pub epoch: Epoch,
    /// Its manifest's name.
    pub id: ManifestId,
    /// When it was sealed.
    pub time: Timestamp,
    /// Packs that it names and the seal before does not, with their bytes; all, if that was asked for or if that one cannot be
    /// had. Not those that collection has removed since.
    pub packs: Vec<(PackId, u64)>,
}

impl History {
    /// The first and the last of the newest seals whose manifests are here without a hole, and which say where all is that
    /// they refer to: what came to lie in another pack later is not found by way of them, once its own is gone.
    pub fn unbroken(&self) -> Result<(Seq, Seq), OpenError> {
        let seqs = manifests::list(&self.store.env)?;
        let Some(&last) = seqs.last() else { return Err(OpenError::NotAVolume("the folder".into())) };
        let steps = seqs.iter().rev().zip(seqs.iter().rev().skip(1));
        let whole = steps.take_while(|(later, earlier)| later.0 == earlier.0 + 1).count();
        let first = seqs[seqs.len() - 1 - whole];
        let moved = self.moved_until().map_err(|error| OpenError::unreadable("what was moved", error))?;
        Ok((first.max(moved.min(last)), last))
    }

    /// The newest seal that moved anything out of a pack which is gone.
    fn moved_until(&self) -> Result<Seq, FsError> {
        let root = self.newest_moment()?.root;
        if !self.store.has_moved() {
            return Ok(Seq(0));
        }
        let fates = ledger::fates(&self.store, &root)?;
        let is_gone = |number| match fates.get(&number) {
            Some(PackFate::Gone) => Ok(true),
            // Where there is no store, it went at once. Where there is one, it may only have left this disk.
            Some(PackFate::Doomed { .. }) if self.store.env.disk.ahead().is_none() => {
                Ok(!self.store.has_file(&self.store.pack_entry(number)?.object))
            }
            _ => Ok::<bool, FsError>(false),
        };
        let mut until = Seq(0);
        for (number, moved) in ledger::all_moved(&self.store, &root)? {
            if is_gone(number)? {
                for part in &moved.parts {
                    until = until.max(self.store.pack_entry(part.pack)?.birth);
                }
            }
        }
        Ok(until)
    }

    /// A manifest, byte for byte, after a look at whether it is whole.
    pub fn manifest_object(&self, seq: Seq) -> Result<Vec<u8>, FsError> {
        let whole = self.whole_manifest(seq)?;
        manifests::object(&self.store.env, &whole)
    }

    /// What a seal adds to the one before, or all that it names.
    ///
    /// Whether the one before is here says nothing of a volume that was opened from a store: it comes when it is asked for.
    pub fn outgoing(&self, seq: Seq, is_whole: bool) -> Result<Outgoing, FsError> {
        let manifest = self.whole_manifest(seq)?;
        let before = match Seq(seq.0 - 1) {
            _ if is_whole => 0,
            Seq(0) => 0,
            earlier => match self.whole_manifest(earlier) {
                Ok(earlier) => earlier.body.packs.count(),
                Err(_) if !self.is_here(earlier) => 0,
                Err(error) => return Err(error),
            },
        };
        self.store.extend(&manifest.body.packs);
        // What collection removed is in the table for ever, and nowhere else.
        let fates = ledger::fates(&self.store, &self.newest_moment()?.root)?;
        // One that is doomed may be removed where it was not waited for, because there was no store then.
        let is_removed = |number| match fates.get(&number) {
            Some(PackFate::Gone) => true,
            Some(PackFate::Doomed { .. }) => before == 0,
            Some(PackFate::Condemned { .. }) | None => false,
        };
        let mut packs = Vec::new();
        for number in before..manifest.body.packs.count() {
            let number = u32::try_from(number).map_err(|_| FsError::Damaged("too many packs".into()))?;
            let number = PackNumber(number);
            if !is_removed(number) {
                let entry = self.store.pack_entry(number)?;
                packs.push((entry.object, u64::from(entry.bytes)));
            }
        }
        Ok(Outgoing { epoch: manifest.header.epoch, id: manifest.info.id, time: manifest.info.time, packs })
    }

    /// A pack, byte for byte, after a look at whether its hash is its name.
    pub fn pack_object(&self, pack: &PackId) -> Result<Vec<u8>, FsError> {
        self.store.whole_pack(pack)
    }

    /// Packs of the seal that is being made, as far as they are durable, with their bytes, and the seq that it will have if it
    /// comes to be. After a seal that failed, none are told before one is made: nobody would need what was sent.
    pub fn early_packs(&self) -> Option<(Seq, Vec<(PackId, u64)>)> {
        self.store.early.packs()
    }

    /// One of these, byte for byte; nothing where the seal has given it up.
    pub fn early_pack(&self, pack: &PackId) -> Option<Vec<u8>> {
        self.store.early_pack(pack)
    }

    fn whole_manifest(&self, seq: Seq) -> Result<Manifest, FsError> {
        self.manifest(seq).map_err(|error| FsError::Damaged(error.to_string()))
    }

    fn is_here(&self, seq: Seq) -> bool {
        manifests::list(&self.store.env).map_or(true, |seqs| seqs.contains(&seq))
    }
}
