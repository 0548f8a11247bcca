//! Compaction: packs that are mostly dead go, and nobody who reads notices.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use fs_format::{Ino, Seq, SnapshotId};
use fs_volume::*;
use support::{Act, Stage, noise, put};

const DAY: Duration = Duration::from_hours(24);
const PAGE: usize = 8192;
/// Pages of the database that is overwritten.
const PAGES: u64 = 512;
/// Pages that each seal takes in.
const PAGES_A_SEAL: u64 = 64;

/// As for a volume that is larger than one of a test.
const SMALL: Compaction = Compaction { copied_bytes_max: 64 << 20, freed_bytes_min: 64 << 10 };

fn with(compaction: Compaction) -> Collection<'static> {
    Collection { compaction, ..Collection::default() }
}

/// Compacts whatever comes to half, and waits for nobody.
const NOW: Collection<'_> =
    Collection { grace: Duration::ZERO, replicated: None, cleared: &[], compaction: SMALL };

/// A database: a file whose pages are overwritten at random, and what it must hold.
struct Database {
    ino: Ino,
    dice: u64,
    pages: BTreeMap<u64, u64>,
}

impl Database {
    fn new(volume: &Volume) -> Self {
        let ino = put(volume, "db", &[]);
        let mut database = Self { ino, dice: 1, pages: BTreeMap::new() };
        (0..PAGES).for_each(|page| database.write(volume, page));
        volume.seal(None).expect("seals");
        database
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below
    }

    fn write(&mut self, volume: &Volume, page: u64) {
        self.dice += 1;
        let seed = self.dice;
        volume.write(self.ino, page * PAGE as u64, &noise(seed, PAGE), false).expect("writes");
        self.pages.insert(page, seed);
    }

    /// Overwrites pages, and seals.
    fn seal(&mut self, volume: &Volume) -> Seq {
        for _ in 0..PAGES_A_SEAL {
            let page = self.roll(PAGES);
            self.write(volume, page);
        }
        volume.seal(None).expect("seals").seq
    }

    /// The same, so often; then only the newest moment is kept.
    fn round(&mut self, volume: &Volume, seals: u64, how: &Collection<'_>) -> Pruned {
        for _ in 0..seals {
            self.seal(volume);
        }
        let head = volume.head().seq;
        let before: Vec<Seq> = volume.history().seals().expect("lists").iter().map(|info| info.seq).collect();
        let others: Vec<Seq> = before.into_iter().filter(|seq| *seq < head).collect();
        volume.prune(&others, how).expect("prunes")
    }

    fn is_whole(&self, tree: &dyn ReadTree) {
        let ino = resolve(tree, b"db").expect("there").ino;
        for (page, seed) in &self.pages {
            let bytes = tree.read(ino, page * PAGE as u64, PAGE).expect("reads");
            assert!(bytes == noise(*seed, PAGE), "page {page}");
        }
    }
}

/// Bytes in the packs' folder.
fn stored(stage: &Stage) -> u64 {
    let len = |name: &String| std::fs::metadata(stage.path().join("packs").join(name)).expect("there").len();
    stage.names("packs").iter().map(len).sum()
}

fn is_sound(history: &History) {
    assert_eq!(history.check(&|_, _| {}).expect("checks").damage, []);
}

/// How many times its size a database takes that is overwritten at random, a day a round; and a while after.
fn growth(compaction: Compaction) -> Vec<f64> {
    let stage = Stage::new();
    let volume = stage.open();
    let mut database = Database::new(&volume);
    let mut growth = Vec::new();
    for _ in 0..16 {
        database.round(&volume, 8, &with(compaction));
        stage.pass(DAY);
        growth.push(stored(&stage) as f64 / (PAGES * PAGE as u64) as f64);
    }
    for _ in 0..3 {
        volume.prune(&[], &with(compaction)).expect("prunes");
        stage.pass(DAY);
    }
    growth.push(stored(&stage) as f64 / (PAGES * PAGE as u64) as f64);
    database.is_whole(&volume);
    is_sound(&stage.history());
    growth
}

#[test]
fn a_database_that_is_overwritten_at_random_takes_a_few_times_its_size() {
    let (never, compacted) = (growth(Compaction::NONE), growth(SMALL));
    println!("stored / alive, never compacted: {never:.2?}");
    println!("stored / alive, compacted:       {compacted:.2?}");
    assert!(never[8..].iter().all(|times| *times > 3.5), "{never:.2?}");
    // What was overwritten today waits for tomorrow, and so does what was compacted.
    assert!(compacted[8..].iter().all(|times| *times < 3.5), "{compacted:.2?}");
    assert!(compacted[16] < 2.1, "{compacted:.2?}");
}

/// Packs in the folder of this kind.
fn packs(stage: &Stage, kind: u8) -> BTreeSet<PathBuf> {
    let paths = stage.names("packs").into_iter().map(|name| stage.path().join("packs").join(name));
    paths.filter(|path| std::fs::read(path).expect("reads")[11] == kind).collect()
}

/// A database of which most packs are mostly dead, and all moments but the newest dropped.
fn worn(stage: &Stage) -> (Volume, Database) {
    let volume = stage.open();
    let mut database = Database::new(&volume);
    database.round(&volume, 16, &Collection { compaction: Compaction::NONE, ..NOW });
    (volume, database)
}

#[test]
fn what_is_moved_reads_as_before_when_the_old_pack_is_gone() {
    let stage = Stage::new();
    let (volume, database) = worn(&stage);
    let (before, old) = (stored(&stage), packs(&stage, 1));
    let would = stage.history().freed_by(&[], &SMALL).expect("counts");
    let pruned = volume.prune(&[], &with(SMALL)).expect("prunes");
    assert_eq!(pruned.compacted, would.compacted, "as it was said");
    assert_eq!(pruned.condemned, pruned.compacted.packs, "nothing else was to go");
    assert!(pruned.compacted.packs.count > 5 && pruned.compacted.copied * 2 < pruned.compacted.packs.bytes);
    assert!(old.is_subset(&packs(&stage, 1)), "nothing is removed at once");
    assert_eq!(packs(&stage, 3).len(), 1);
    is_sound(&stage.history());

    let elsewhere = stage.history();
    stage.pass(DAY);
    let later = volume.prune(&[], &with(SMALL)).expect("prunes");
    assert_eq!((later.removed, later.compacted), (pruned.condemned, Compacted::default()));
    assert!(
        stored(&stage) + pruned.compacted.packs.bytes - pruned.compacted.copied < before + (64 << 10),
        "{} of {before}",
        stored(&stage)
    );
    for tree in [&volume as &dyn ReadTree, &stage.history().at(later.head.seq).expect("opens")] {
        database.is_whole(tree);
    }
    // Who opened the past before all that has never heard of it.
    database.is_whole(&elsewhere.at(pruned.head.seq).expect("kept"));
    is_sound(&stage.history());
    drop(volume);
    database.is_whole(&stage.open());
    // Without anything to do there is no seal.
    let volume = stage.open();
    assert_eq!(volume.prune(&[], &with(SMALL)).expect("prunes").head.seq, later.head.seq);
}

#[test]
fn what_was_moved_is_moved_again_and_no_chain_comes_of_it() {
    let stage = Stage::new();
    let (volume, mut database) = worn(&stage);
    volume.prune(&[], &NOW).expect("prunes");
    let first = packs(&stage, 3);
    let lone = first.iter().next().expect("one").clone();
    assert_eq!(first.len(), 1);
    database.round(&volume, 16, &NOW);
    assert!(!lone.exists(), "what is left of it was moved again");
    drop(volume);
    let volume = stage.open();
    database.is_whole(&volume);
    is_sound(&stage.history());
    // Of a database that is gone, nothing stays.
    volume.unlink(Ino::ROOT, b"db").expect("removes");
    volume.forget(database.ino);
    put(&volume, "small", b"something else");
    volume.seal(None).expect("seals");
    let all: Vec<Seq> = volume.history().seals().expect("lists").iter().map(|info| info.seq).collect();
    volume.prune(&all[..all.len() - 1], &NOW).expect("prunes");
    volume.prune(&[volume.head().seq].map(|seq| Seq(seq.0 - 1)), &NOW).expect("prunes");
    assert_eq!((packs(&stage, 1), packs(&stage, 3)), Default::default());
    is_sound(&stage.history());
}

#[test]
fn a_fork_and_a_rollback_find_what_was_moved() {
    let stage = Stage::new();
    let (volume, mut database) = worn(&stage);
    let then = volume.head().seq;
    let was = database.pages.clone();
    database.seal(&volume);
    // All in `then` is alive in both; what was overwritten since, in the older alone.
    let moved = volume.prune(&[], &NOW).expect("prunes").compacted;
    assert!(moved.packs.count > 0);
    let old = Database { pages: was.clone(), ..Database { ino: database.ino, dice: 0, pages: was } };
    let other = stage.fork(then);
    let forked = other.open();
    old.is_whole(&forked);
    is_sound(&other.history());
    // It goes its own way.
    let mut theirs = Database { ino: database.ino, dice: 1 << 40, pages: old.pages.clone() };
    assert!(theirs.round(&forked, 16, &NOW).compacted.packs.count > 0);
    theirs.is_whole(&other.history().at(forked.head().seq).expect("opens"));
    is_sound(&other.history());

    volume.rollback(then).expect("rolls back");
    old.is_whole(&volume);
    drop(volume);
    let volume = stage.open();
    old.is_whole(&volume);
    is_sound(&stage.history());
    let next = database.seal(&volume);
    database.pages.retain(|page, seed| old.pages.get(page) == Some(seed));
    database.is_whole(&stage.history().at(next).expect("opens"));
}

#[test]
fn a_store_that_is_added_later_begins_with_a_seal_that_finds_everything() {
    let stage = Stage::new();
    let (volume, mut database) = worn(&stage);
    let label = |id| SnapshotLabel { id: SnapshotId([id; 16]), message: String::new(), tags: vec![] };
    let kept = volume.seal(Some(label(1))).expect("seals").seq;
    let pruned = volume.prune(&[], &with(SMALL)).expect("prunes");
    let moved = pruned.head.seq;
    let (first, _) = stage.history().unbroken().expect("lists");
    assert!(first <= kept && pruned.compacted.packs.count > 0, "what was moved is still there");
    stage.pass(DAY);
    volume.prune(&[], &with(SMALL)).expect("prunes");
    database.seal(&volume);
    for history in [volume.history(), stage.history()] {
        assert_eq!(history.unbroken().expect("lists").0, moved);
        database.is_whole(&history.at(volume.head().seq).expect("opens"));
    }
}

#[test]
fn damage_is_not_moved() {
    let stage = Stage::new();
    let (volume, database) = worn(&stage);
    let sources = packs(&stage, 1);
    let chosen = volume.history().freed_by(&[], &SMALL).expect("counts").compacted.packs.count;
    // One bit each in the padding of all packs of chunks but one, which no frame shows.
    let whole: Vec<(PathBuf, Vec<u8>)> =
        sources.iter().skip(1).map(|path| (path.clone(), std::fs::read(path).expect("reads"))).collect();
    for (path, bytes) in &whole {
        let mut bytes = bytes.clone();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).expect("writes");
    }
    let without = Compaction { freed_bytes_min: 1, ..SMALL };
    let moved = volume.prune(&[], &with(without)).expect("prunes").compacted.packs.count;
    assert!(moved <= 1 && moved < chosen, "{moved} of {chosen}");
    assert!(volume.status().damage.iter().any(|what| what.contains("is not what its name says")));
    database.is_whole(&stage.open_at(stage.path()));
    // It is not tried again and again, with a seal each time.
    let head = volume.head().seq;
    assert_eq!(volume.prune(&[], &with(without)).expect("prunes").head.seq, head);
    drop(volume);
    // Once they are mended, they go.
    let volume = stage.open();
    for (path, bytes) in whole {
        std::fs::write(path, bytes).expect("writes");
    }
    assert_eq!(volume.prune(&[], &with(without)).expect("prunes").compacted.packs.count, chosen - moved);
    database.is_whole(&stage.history().at(volume.head().seq).expect("opens"));
}

#[test]
fn a_frame_that_is_damaged_where_it_was_is_read_where_it_was_moved_to() {
    let stage = Stage::new();
    let (volume, database) = worn(&stage);
    let head = volume.prune(&[], &with(SMALL)).expect("prunes").head.seq;
    let condemned: Vec<(PathBuf, Vec<u8>)> = {
        let copy = tempfile::tempdir().expect("a temporary folder");
        let all =
            packs(&stage, 1).into_iter().map(|path| (path.clone(), std::fs::read(path).expect("reads")));
        let all: Vec<(PathBuf, Vec<u8>)> = all.collect();
        for folder in ["packs", "manifests", "journal", "."] {
            std::fs::create_dir_all(copy.path().join(folder)).expect("a folder");
            for name in stage.names(folder) {
                let path = stage.path().join(folder).join(&name);
                if path.is_file() {
                    std::fs::copy(&path, copy.path().join(folder).join(&name)).expect("copies");
                }
            }
        }
        drop(volume);
        stage.pass(DAY);
        stage.open_at(copy.path()).prune(&[], &with(Compaction::NONE)).expect("prunes");
        all.into_iter()
            .filter(|(path, _)| !copy.path().join("packs").join(path.file_name().expect("a name")).exists())
            .collect()
    };
    assert!(condemned.len() > 5);
    for (path, mut bytes) in condemned {
        bytes[100..].iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
        std::fs::write(&path, bytes).expect("writes");
    }
    let history = stage.history();
    database.is_whole(&history.at(head).expect("opens"));
    assert!(
        !history.check(&|_, _| {}).expect("checks").damage.is_empty(),
        "a pack is not what its name says"
    );
}

#[test]
fn a_disk_without_room_for_what_would_be_moved_lets_go_of_the_rest() {
    let stage = Stage::new();
    let (volume, mut database) = worn(&stage);
    let kept = volume.head().seq;
    let next = database.seal(&volume);
    let mut packs = 0;
    // Nodes fit, and nothing else does.
    stage.hooks.set(move |act, path| {
        packs += usize::from(act == Act::Create && path.starts_with("packs/.new"));
        match act == Act::Create && path.starts_with("packs/.new") && packs == 1 {
            true => Err(std::io::Error::from_raw_os_error(28)),
            false => Ok(()),
        }
    });
    let pruned = volume.prune(&[kept], &with(SMALL)).expect("prunes all the same");
    stage.hooks.clear();
    assert_eq!((pruned.dropped, pruned.compacted), (vec![kept], Compacted::default()));
    assert_eq!(volume.read_only_reason(), None);
    assert!(volume.prune(&[], &with(SMALL)).expect("prunes").compacted.packs.count > 0);
    database.is_whole(&volume);
    is_sound(&stage.history());
    assert!(volume.history().recorded(next).expect("reads").is_some());
}

/// A GiB of which 2,000 pages of 8 KiB are overwritten at random in each seal; what is alive, stored, copied, and how long that takes.
/// `cargo test --release -p fs-volume --test compaction measure -- --ignored --nocapture`
#[test]
#[ignore = "measures, for minutes"]
fn measure_a_database_of_a_gibibyte() {
    const PAGES: u64 = 131_072;
    let alive = (PAGES * PAGE as u64) as f64;
    for compaction in [Compaction::NONE, Compaction::default()] {
        let stage = Stage::new();
        let volume = stage.open();
        let mut database = Database { ino: put(&volume, "db", &[]), dice: 1, pages: BTreeMap::new() };
        (0..PAGES).for_each(|page| database.write(&volume, page));
        volume.seal(None).expect("seals");
        for round in 1..=8 {
            for _ in 0..65 {
                for _ in 0..2000 {
                    let page = database.roll(PAGES);
                    database.write(&volume, page);
                }
                volume.seal(None).expect("seals");
            }
            let head = volume.head().seq;
            let moments = volume.history().seals().expect("lists");
            let others: Vec<Seq> = moments.iter().map(|info| info.seq).filter(|seq| *seq < head).collect();
            let before = stored(&stage);
            let began = std::time::Instant::now();
            let pruned =
                volume.prune(&others, &Collection { compaction, ..Collection::default() }).expect("prunes");
            let took = began.elapsed();
            stage.pass(DAY);
            volume
                .prune(&[], &Collection { compaction: Compaction::NONE, ..Collection::default() })
                .expect("prunes");
            let Compacted { packs, copied } = pruned.compacted;
            println!(
                "round {round}: stored / alive {:.2}, then {:.2} after the grace; pruned in {took:.2?}: {} packs of {} MiB compacted, {} MiB copied, {} KiB added",
                before as f64 / alive,
                stored(&stage) as f64 / alive,
                packs.count,
                packs.bytes >> 20,
                copied >> 20,
                pruned.head.added.saturating_sub(copied) >> 10,
            );
        }
        let began = std::time::Instant::now();
        database.is_whole(&stage.open_at(stage.path()));
        println!("all read in {:.2?}", began.elapsed());
    }
}

/// Anything, in any order; everything that is kept must read back.
fn play(seed: u64) -> (u64, u64) {
    const PAGES: u64 = 96;
    let stage = Stage::new();
    let mut volume = stage.open();
    let mut database = Database { ino: put(&volume, "db", &[]), dice: seed << 40, pages: BTreeMap::new() };
    let mut kept: BTreeMap<Seq, BTreeMap<u64, u64>> = BTreeMap::new();
    let (mut compactions, mut moved_again) = (0, 0);
    let is_whole = |tree: &dyn ReadTree, pages: &BTreeMap<u64, u64>| {
        Database { ino: Ino::ROOT, dice: 0, pages: pages.clone() }.is_whole(tree);
    };
    for step in 0..80 {
        match database.roll(20) {
            0..=9 => {
                for _ in 0..8 + database.roll(24) {
                    let page = database.roll(PAGES);
                    database.write(&volume, page);
                }
                kept.insert(volume.seal(None).expect("seals").seq, database.pages.clone());
            }
            10 | 11 => {
                // Not sealed yet, when something is pruned.
                let (from, to) = (database.roll(PAGES), database.roll(PAGES));
                if let Some(seed) = database.pages.get(&from).copied().filter(|_| from != to) {
                    let (page, mut done) = (PAGE as u64, 0);
                    while done < page {
                        let (at, to) = (from * page + done, to * page + done);
                        let cloned = volume.clone_range(database.ino, at, database.ino, to, page - done);
                        done += cloned.expect("clones");
                    }
                    database.pages.insert(to, seed);
                }
            }
            12..=15 => {
                let head = volume.head().seq;
                let luck = database.roll(100);
                let dropped: Vec<Seq> = kept
                    .keys()
                    .copied()
                    .filter(|seq| *seq < head && (seq.0 * 37 + luck) % 100 < 85)
                    .collect();
                kept.retain(|seq, _| !dropped.contains(seq));
                let compaction = Compaction { freed_bytes_min: 1, ..SMALL };
                let grace = if luck < 50 { Duration::ZERO } else { DAY };
                let before = packs(&stage, 3);
                let how = Collection { grace, compaction, ..Collection::default() };
                let pruned = volume.prune(&dropped, &how).expect("prunes");
                compactions += u64::from(pruned.compacted.packs.count > 0);
                moved_again += u64::from(!before.is_subset(&packs(&stage, 3)));
                if pruned.head.seq > head {
                    kept.insert(pruned.head.seq, database.pages.clone());
                }
            }
            16 => stage.pass(DAY),
            17 => {
                volume.flush_journal().expect("syncs");
                drop(volume);
                volume = stage.open();
            }
            18 => {
                let seqs: Vec<Seq> = kept.keys().copied().collect();
                if let Some(to) = seqs.get(database.roll(seqs.len() as u64 + 1) as usize) {
                    // What is in the overlay is sealed first.
                    let head = volume.head().seq;
                    let seq = volume.rollback(*to).expect("rolls back").seq;
                    for sealed in head.0 + 1..seq.0 {
                        kept.insert(Seq(sealed), database.pages.clone());
                    }
                    database.pages = kept[to].clone();
                    kept.insert(seq, database.pages.clone());
                }
            }
            _ => {
                if let Some((seq, pages)) = kept.iter().next() {
                    let other = stage.fork(*seq);
                    is_whole(&other.open(), pages);
                    is_sound(&other.history());
                }
            }
        }
        if step % 10 == 9 {
            is_whole(&volume, &database.pages);
            let history = stage.history();
            for (seq, pages) in &kept {
                is_whole(&history.at(*seq).expect("is kept"), pages);
            }
            is_sound(&history);
        }
    }
    (compactions, moved_again)
}

#[test]
fn everything_that_is_kept_reads_back_whatever_happens() {
    let (mut compactions, mut moved_again) = (0, 0);
    for seed in 1..=6 {
        let (some, again) = play(seed);
        compactions += some;
        moved_again += again;
    }
    assert!(
        compactions >= 20 && moved_again >= 2,
        "{compactions} compactions, {moved_again} of moved frames"
    );
}
