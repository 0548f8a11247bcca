//! Branches: what this machine wrote and no store took, because another device had taken the volume over.
//!
//! Invariants
//! - A branch is whole before the volume goes on without it.
//! - Nothing that a branch holds is written in place by the volume: they share files, not folders.

use std::fs;
use std::path::Path;

use fs_format::Seq;
use fs_volume::{Options, SealInfo, Volume};

use crate::failure::{Context, Failure, Result};
use crate::notes::{self, Ended};
use crate::state::{Config, Lock, State, VolumeFolder};
use crate::{elsewhere, engine, keys, takeover};

/// Makes a branch of what this machine has that is not in the volume, of which the store's newest seal is `newest`, and takes
/// it out of the volume's folder. Returns the branch's name, if there was anything. The volume is in nobody's hands until it
/// is opened from a store again.
pub fn split_off(state: &State, volume: &VolumeFolder, newest: Seq, _lock: &Lock) -> Result<Option<String>> {
    let Some(ended) = notes::ended(volume)? else { return Ok(None) };
    // A store that was put back in time may have less than it had when the right to write ended.
    let ended = Ended { at: ended.at.min(newest.0 + 1), ..ended };
    notes::note_end(volume, &ended)?;
    let (branch, is_made) = name(volume, &ended)?;
    let tail = if is_made || ended.parted { Vec::new() } else { tail(state, volume, &ended)? };
    if !tail.is_empty() {
        let config = Config { name: format!("{}/{branch}", volume.name), ..volume.config()? };
        volume.add_branch(&branch, &config, |folder| link_all(&volume.path, folder))?;
    }
    // What is behind the cut belongs to somebody else from here on.
    let manifests = volume.path.join("manifests");
    for seq in seqs(&manifests)?.into_iter().filter(|seq| *seq >= ended.at) {
        let path = volume.path.join(fs_volume::manifest_path(Seq(seq)));
        fs::remove_file(&path).context(path.display())?;
    }
    takeover::empty_journal(&volume.path)?;
    // From here on the folder gets what the store has: nobody may take that for a tail of this machine.
    notes::note_end(volume, &Ended { parted: true, ..ended })?;
    Ok((is_made || !tail.is_empty()).then_some(branch))
}

/// What the branch of this end is called, and whether it was made already, before a crash. Where a store was put back in time,
/// epochs and numbers come again, so a name may be taken by the branch of another end.
fn name(volume: &VolumeFolder, ended: &Ended) -> Result<(String, bool)> {
    let plain = format!("cut-{}-e{}", ended.at, ended.by);
    for number in 1_u32.. {
        let name = if number == 1 { plain.clone() } else { format!("{plain}-{number}") };
        let path = volume.path.join("branches").join(&name);
        if !path.exists() {
            return Ok((name, false));
        }
        let there = volume.branches()?.into_iter().find(|branch| branch.path == path);
        let whole = Ended { parted: false, ..ended.clone() };
        if there.is_some_and(|branch| end_of(&branch).is_ok_and(|end| end == whole)) {
            return Ok((name, true));
        }
    }
    Err(Failure::other("there are too many branches"))
}

/// The seals that are not in the volume, the last of them with all that the journal holds.
fn tail(state: &State, volume: &VolumeFolder, ended: &Ended) -> Result<Vec<u64>> {
    let env = elsewhere::door(volume)?.env;
    let options = Options { cache_bytes: 64 << 20, ..Options::default() };
    let opened = Volume::open(env, keys::load(volume)?, &keys::device(state)?, options)
        .map_err(|error| engine::open_failure(volume, &error))?;
    if !opened.status().is_sealed {
        opened.seal(None).map_err(|error| engine::fs_failure(&volume.name, &error))?;
    }
    let head = opened.head().seq;
    opened.give_back_journal();
    drop(opened);
    Ok(seqs(&volume.path.join("manifests"))?
        .into_iter()
        .filter(|seq| (ended.at..=head.0).contains(seq))
        .collect())
}

fn seqs(manifests: &Path) -> Result<Vec<u64>> {
    let mut seqs = Vec::new();
    for entry in fs::read_dir(manifests).context(manifests.display())? {
        let name = entry.context(manifests.display())?.file_name();
        seqs.extend(name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()));
    }
    Ok(seqs)
}

/// Gives the branch's folder what the volume's has, without a copy of any byte.
fn link_all(from: &Path, to: &Path) -> Result<()> {
    for part in ["journal", "manifests", "packs"] {
        fs::create_dir(to.join(part)).context(to.join(part).display())?;
    }
    let mut files = vec!["head".into(), "key".into(), "fenced".into()];
    for part in ["manifests", "packs"] {
        for entry in fs::read_dir(from.join(part)).context(from.join(part).display())? {
            let name = entry.context(from.join(part).display())?.file_name();
            // What begins with a dot was never finished.
            if !name.to_string_lossy().starts_with('.') {
                files.push(Path::new(part).join(name));
            }
        }
    }
    for file in files {
        fs::hard_link(from.join(&file), to.join(&file)).context(to.join(&file).display())?;
    }
    for part in ["manifests", "packs"] {
        fs::File::open(to.join(part))
            .and_then(|folder| folder.sync_all())
            .context(to.join(part).display())?;
    }
    Ok(())
}

/// Whether a volume that another device has taken over has seals that are not in it. Where that cannot be told, it may.
pub fn has_tail(volume: &VolumeFolder, ended: &Ended) -> bool {
    !ended.parted
        && seqs(&volume.path.join("manifests"))
            .map_or(true, |seqs| seqs.into_iter().any(|seq| seq >= ended.at))
}

/// The seals of a volume that no store has, of a branch or of a volume that another device has taken over, and the one before
/// them: the last of this machine that is in the volume.
pub fn seals(volume: &VolumeFolder, ended: &Ended) -> Result<(Option<SealInfo>, Vec<SealInfo>)> {
    let history = engine::history(volume)?;
    let mut seals = engine::seals(volume, &history)?;
    let mut tail = seals.split_off(seals.partition_point(|seal| seal.seq < Seq(ended.at)));
    if ended.parted {
        tail.clear();
    }
    // Retention may have let it go.
    Ok((seals.pop().filter(|seal| seal.seq.0 + 1 == ended.at), tail))
}

/// What ended this machine's right to write what a branch holds.
pub fn end_of(branch: &VolumeFolder) -> Result<Ended> {
    notes::ended(branch)?.ok_or_else(|| {
        Failure::other(format!("{} does not say since when it is a branch", branch.path.display()))
    })
}
