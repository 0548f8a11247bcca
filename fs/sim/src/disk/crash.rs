//! What a power cut leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ByteChange, File, FileId, Named, SECTOR_BYTES, State, parent_of};
use crate::Dice;

/// How much of what was not synced survives. Pure independence would almost never let a long run of
/// writes survive whole, and recovery of a long run is what has to be seen as well.
#[derive(Clone, Copy, Debug)]
enum Mood {
    /// Nothing: the cache had not written back yet.
    Nothing,
    /// Everything: the cache had written back all.
    Everything,
    /// What came before a moment, in the order of the calls.
    Before(u64),
    /// Each change by its own chance.
    Torn,
}

impl Mood {
    fn roll(dice: &mut Dice, io_last: u64, io_first: u64) -> Self {
        match dice.below(8) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 | 3 => Self::Before(io_first + dice.below((io_last + 2).saturating_sub(io_first))),
            _ => Self::Torn,
        }
    }
}

impl State {
    /// The disk after a power cut now: all that is current is durable.
    pub(super) fn crashed(&self, seed: u64) -> State {
        let mut dice = Dice::seeded(seed).fork(self.io_last);
        let changes_of_files =
            self.files.values().filter_map(|file| file.unsynced.first().map(ByteChange::at));
        let changes_of_names = self.names_unsynced.iter().map(|change| change.at);
        let io_first = changes_of_files.chain(changes_of_names).min().unwrap_or(self.io_last);
        let mood = Mood::roll(&mut dice, self.io_last, io_first);

        let names = self.names_left(mood, &mut dice);
        let mut files = BTreeMap::new();
        for named in names.values() {
            if let Named::File(id) = named {
                files.insert(*id, self.file_left(*id, mood, &mut dice));
            }
        }
        State {
            files,
            names_durable: names.clone(),
            names,
            names_unsynced: Vec::new(),
            off: false,
            io_last: 0,
            dice: dice.fork(1),
            ..self.plain()
        }
    }

    fn names_left(&self, mood: Mood, dice: &mut Dice) -> BTreeMap<String, Named> {
        let mut names = self.names_durable.clone();
        for change in &self.names_unsynced {
            let happened = match mood {
                Mood::Nothing => false,
                Mood::Everything => true,
                Mood::Before(cut) => change.at < cut,
                Mood::Torn => dice.percent(50),
            };
            if happened {
                change.apply(&mut names);
            }
        }
        // What lies in a folder that did not survive cannot be reached.
        let paths: Vec<String> = names.keys().cloned().collect();
        for path in paths {
            let parent = parent_of(&path);
            if !parent.is_empty() && names.get(parent) != Some(&Named::Folder) {
                names.remove(&path);
            }
        }
        names
    }

    fn file_left(&self, id: FileId, mood: Mood, dice: &mut Dice) -> File {
        let Some(file) = self.files.get(&id) else { return File::default() };
        let bytes = match mood {
            Mood::Nothing => file.durable.clone(),
            Mood::Everything => written(file, u64::MAX),
            Mood::Before(cut) => written(file, cut),
            Mood::Torn => match dice.below(4) {
                0 => file.durable.clone(),
                1 => written(file, u64::MAX),
                _ => Arc::new(torn(file, dice)),
            },
        };
        File { current: bytes.clone(), durable: bytes, unsynced: Vec::new(), diverged: false }
    }
}

/// The bytes with the changes before the I/O `cut`. Not simply what is current: what a failed sync lost
/// is still in the cache.
pub(super) fn written(file: &File, cut: u64) -> Arc<Vec<u8>> {
    if cut == u64::MAX && !file.diverged {
        return file.current.clone();
    }
    let mut bytes = file.durable.as_ref().clone();
    for change in file.unsynced.iter().take_while(|change| change.at() < cut) {
        change.apply(&mut bytes);
    }
    Arc::new(bytes)
}

/// The bytes with any state of each sector that was written since the last sync, and any length.
pub(super) fn torn(file: &File, dice: &mut Dice) -> Vec<u8> {
    let mut working = file.durable.as_ref().clone();
    let mut lengths = vec![working.len()];
    let mut sectors: BTreeMap<usize, Vec<[u8; SECTOR_BYTES]>> = BTreeMap::new();
    for change in &file.unsynced {
        let len_before = working.len();
        change.apply(&mut working);
        let touched = match change {
            ByteChange::Write { offset, bytes, .. } => *offset..*offset + bytes.len(),
            ByteChange::Len { len, .. } if *len < len_before => *len..len_before,
            ByteChange::Len { .. } => 0..0,
        };
        if lengths.last() != Some(&working.len()) {
            lengths.push(working.len());
        }
        if !touched.is_empty() {
            for sector in touched.start / SECTOR_BYTES..=(touched.end - 1) / SECTOR_BYTES {
                sectors.entry(sector).or_default().push(sector_of(&working, sector));
            }
        }
    }

    let mut left = file.durable.as_ref().clone();
    let len_max = lengths.iter().copied().max().unwrap_or(0);
    left.resize(len_max, 0);
    for (sector, states) in sectors {
        let survivor = dice.below(states.len() as u64 + 1) as usize;
        if let Some(state) = survivor.checked_sub(1).map(|i| &states[i]) {
            let start = (sector * SECTOR_BYTES).min(len_max);
            let end = (start + SECTOR_BYTES).min(len_max);
            left[start..end].copy_from_slice(&state[..end - start]);
        }
    }
    left.truncate(*dice.pick(&lengths));
    left
}

fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR_BYTES] {
    let mut out = [0; SECTOR_BYTES];
    let start = (sector * SECTOR_BYTES).min(bytes.len());
    let end = (start + SECTOR_BYTES).min(bytes.len());
    out[..end - start].copy_from_slice(&bytes[start..end]);
    out
}
