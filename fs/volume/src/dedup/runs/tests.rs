//! The index against a map, on a disk that fails anywhere and forgets what was not synced.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::*;

/// Numbers by chance, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Files in memory, whose every I/O fails once there were so many.
#[derive(Clone, Default)]
struct Memory {
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
    left: Arc<Mutex<Option<u64>>>,
    done: Arc<Mutex<u64>>,
}

#[derive(Clone, Default)]
struct Bytes {
    bytes: Arc<Mutex<Vec<u8>>>,
    disk: Option<Memory>,
}

impl Memory {
    fn io(&self) -> io::Result<()> {
        *self.done.lock() += 1;
        let mut left = self.left.lock();
        match &mut *left {
            Some(0) => Err(io::Error::from_raw_os_error(5)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What a power cut leaves: nothing was synced, so each file may be anything between what it was and nothing.
    fn after_crash(&self, dice: &mut Dice) -> Self {
        let mut files = BTreeMap::new();
        for (name, file) in &*self.files.lock() {
            let mut bytes = file.bytes.lock().clone();
            let len = bytes.len();
            match dice.below(6) {
                0 => continue,
                1 => bytes.truncate(dice.below(len as u64 + 1) as usize),
                2 => bytes[len / 2..].fill(0),
                3 if len > 0 => bytes[dice.below(len as u64) as usize] ^= 1 << dice.below(8),
                _ => {}
            }
            files.insert(name.clone(), Bytes { bytes: Arc::new(Mutex::new(bytes)), disk: None });
        }
        Self { files: Arc::new(Mutex::new(files)), ..Self::default() }
    }
}

impl Disk for Memory {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.io()?;
        let mut files = self.files.lock();
        let file = match mode {
            OpenMode::CreateNew => files.entry(path.into()).or_default(),
            _ => files.get_mut(path).ok_or(io::ErrorKind::NotFound)?,
        };
        Ok(Arc::new(Bytes { disk: Some(self.clone()), ..file.clone() }))
    }

    fn create_dir(&self, _: &str) -> io::Result<()> {
        self.io()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.io()?;
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.io()?;
        self.files.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.io()?;
        let files = self.files.lock();
        Ok(files
            .keys()
            .filter_map(|name| name.strip_prefix(path)?.strip_prefix('/'))
            .map(Into::into)
            .collect())
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        panic!("the index waits for nothing");
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.io().map(|()| u64::MAX)
    }
}

impl Bytes {
    fn io(&self) -> io::Result<()> {
        self.disk.as_ref().map_or(Ok(()), Memory::io)
    }
}

impl DiskFile for Bytes {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.io()?;
        let bytes = self.bytes.lock();
        let found = bytes.get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.io()?;
        let (mut all, end) = (self.bytes.lock(), offset as usize + bytes.len());
        if all.len() < end {
            all.resize(end, 0);
        }
        all[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.io()?;
        Ok(self.bytes.lock().len() as u64)
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        panic!("the index reserves nothing");
    }

    fn sync(&self) -> io::Result<()> {
        panic!("the index waits for nothing");
    }

    fn sync_and_forget(&self) -> io::Result<()> {
        panic!("the index waits for nothing");
    }
}

const DOMAIN: [u8; 16] = [4; 16];
const FRESH_PACKS_MAX: usize = 128;

fn witness(number: u32) -> Option<[u8; 8]> {
    Some(u64::from(number).wrapping_mul(77).to_le_bytes())
}

/// What chunks each pack has; now and then one of an earlier pack, as where it was stored again.
fn packs(dice: &mut Dice, count: u32) -> Vec<Vec<u64>> {
    let mut packs: Vec<Vec<u64>> = Vec::new();
    for _ in 0..count {
        let mut chunks: Vec<u64> = (0..dice.below(12)).map(|_| dice.next()).collect();
        if let Some(again) = packs.get(dice.below(count.into()) as usize).and_then(|pack| pack.first()) {
            chunks.push(*again);
        }
        packs.push(chunks);
    }
    packs
}

/// Tells it of some packs, as seals do.
fn tell(index: &mut Index, disk: &Memory, packs: &[Vec<u64>], numbers: Range<u32>) {
    for number in numbers {
        for &start in &packs[number as usize] {
            index.add(Entry { start, pack: number });
        }
        index.cover(number..number + 1);
        index.keep(disk, &witness);
    }
}

/// All that it finds is so, and of the packs that it claims to know it finds everything.
fn check(index: &Index, packs: &[Vec<u64>], told: u32) {
    let mut holders: HashMap<u64, Vec<u32>> = HashMap::new();
    for (number, pack) in packs.iter().enumerate() {
        pack.iter().for_each(|start| holders.entry(*start).or_default().push(number as u32));
    }
    let lacking = index.lacking(told);
    let is_known = |pack: &u32| *pack < told && !lacking.iter().any(|range| range.contains(pack));
    for (start, holders) in &holders {
        let found = index.packs_of(*start);
        assert!(found.iter().all(|pack| holders.contains(pack)), "{found:?} is not where {start} is");
        if holders.iter().any(is_known) {
            assert!(!found.is_empty(), "{start} is in one of {holders:?}, and is not found");
        }
    }
    for number in 0..1000 {
        assert_eq!(index.packs_of(holders.len() as u64 * 1_000_003 + number), [], "a chunk that nobody has");
    }
}

#[test]
fn it_finds_what_a_map_finds_over_many_runs_and_loads() {
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let packs = packs(&mut dice, 4000);
        let disk = Memory::default();
        let mut index = Index::load(&disk, DOMAIN, FRESH_PACKS_MAX, &witness);
        let mut told = 0;
        while told < 4000 {
            let next = (told + 1 + dice.below(300) as u32).min(4000);
            tell(&mut index, &disk, &packs, told..next);
            told = next;
            if dice.below(4) == 0 {
                index = Index::load(&disk, DOMAIN, FRESH_PACKS_MAX, &witness);
                // What was in memory is gone and known to be: less than makes a run.
                let lacking = index.lacking(told);
                let behind: u32 = lacking.iter().map(|range| range.end - range.start).sum();
                assert!(behind < FRESH_PACKS_MAX as u32, "{behind} packs were forgotten");
                for range in lacking {
                    tell(&mut index, &disk, &packs, range);
                }
            }
            check(&index, &packs, told);
        }
        assert_eq!(index.lacking(told), []);
        assert!(index.runs.len() <= 6, "{} runs", index.runs.len());
        assert_eq!(disk.files.lock().len(), index.runs.len(), "parts that were merged are gone");
    }
}

#[test]
fn a_crash_at_any_place_loses_only_what_it_admits() {
    let packs = packs(&mut Dice(9), 700);
    let whole = Memory::default();
    tell(&mut Index::load(&whole, DOMAIN, FRESH_PACKS_MAX, &witness), &whole, &packs, 0..700);
    let all = *whole.done.lock();
    assert!(all > 30, "{all} I/Os");
    for cut in 0..=all {
        for luck in 0..2 {
            let disk = Memory::default();
            *disk.left.lock() = Some(cut);
            let mut index = Index::load(&disk, DOMAIN, FRESH_PACKS_MAX, &witness);
            tell(&mut index, &disk, &packs, 0..700);
            // Also while nothing can be read or written any more it does not lie.
            let found = packs[3].iter().flat_map(|start| index.packs_of(*start));
            assert!(
                found
                    .into_iter()
                    .all(|pack| packs[pack as usize].iter().any(|start| packs[3].contains(start)))
            );
            let disk = disk.after_crash(&mut Dice(cut * 10 + luck));
            let mut index = Index::load(&disk, DOMAIN, FRESH_PACKS_MAX, &witness);
            check(&index, &packs, 700);
            for range in index.lacking(700) {
                tell(&mut index, &disk, &packs, range);
            }
            check(&index, &packs, 700);
            assert_eq!(index.lacking(700), []);
        }
    }
}

#[test]
fn a_run_of_another_volume_or_another_past_is_dropped() {
    let packs = packs(&mut Dice(3), 300);
    let disk = Memory::default();
    tell(&mut Index::load(&disk, DOMAIN, FRESH_PACKS_MAX, &witness), &disk, &packs, 0..300);
    assert_eq!(disk.files.lock().len(), 1);
    // A table that ends before the run does, and one that went on with other packs.
    let shorter = |number| (number < 200).then(|| witness(number)).flatten();
    let other = |number| if number < 250 { witness(number) } else { Some([1; 8]) };
    for witness in [&shorter as Witness<'_>, &other] {
        let disk = disk.after_crash(&mut Dice(0));
        disk.files.lock().extend(whole(&packs));
        assert_eq!(
            Index::load(&disk, DOMAIN, FRESH_PACKS_MAX, witness).lacking(100).first(),
            Some(&(0..100))
        );
        assert!(disk.files.lock().is_empty());
    }
    let foreign = Memory::default();
    foreign.files.lock().extend(whole(&packs));
    assert_eq!(
        Index::load(&foreign, [5; 16], FRESH_PACKS_MAX, &witness).lacking(100).first(),
        Some(&(0..100))
    );
    assert!(foreign.files.lock().is_empty());
}

/// The files of 300 packs.
fn whole(packs: &[Vec<u64>]) -> BTreeMap<String, Bytes> {
    let disk = Memory::default();
    tell(&mut Index::load(&disk, DOMAIN, FRESH_PACKS_MAX, &witness), &disk, packs, 0..300);
    let files = disk.files.lock().clone();
    files.into_iter().map(|(name, file)| (name, Bytes { disk: None, ..file })).collect()
}

#[test]
fn stretches_become_one_where_they_meet() {
    let stretch = |first, end| Stretch { first, end, witness: [end as u8; 8] };
    let united = unite(&[stretch(0, 4), stretch(9, 12)], &[stretch(3, 6), stretch(6, 7), stretch(13, 14)]);
    assert_eq!(united, [stretch(0, 7), stretch(9, 12), stretch(13, 14)]);
}
