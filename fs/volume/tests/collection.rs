//! Dropping moments, and collecting what nobody needs any more.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fs_format::{Ino, PackId, Seq, SnapshotId, StoreId};
use fs_volume::retention::Policy;
use fs_volume::*;
use parking_lot::Mutex;
use support::{Act, ME, Stage, noise, put};

const DAY: Duration = Duration::from_hours(24);
const NOW: Collection<'_> =
    Collection { grace: Duration::ZERO, replicated: None, cleared: &[], compaction: Compaction::NONE };

/// What a file holds at a moment.
fn content(tree: &dyn ReadTree, name: &str) -> Vec<u8> {
    let attr = resolve(tree, name.as_bytes()).expect("the file is there");
    tree.read(attr.ino, 0, 1 << 20).expect("reads")
}

/// Seals with a file `name` of incompressible bytes in place of what it held.
fn seal_with(volume: &Volume, name: &str, seed: u64) -> Seq {
    if let Ok(old) = volume.lookup(Ino::ROOT, name.as_bytes()) {
        volume.unlink(Ino::ROOT, name.as_bytes()).expect("removes");
        volume.forget(old.ino);
    }
    put(volume, name, &noise(seed, 100_000));
    volume.seal(None).expect("seals").seq
}

fn seqs(history: &History) -> Vec<u64> {
    history.seals().expect("lists").iter().map(|info| info.seq.0).collect()
}

/// The packs in the folder: of chunks, and of nodes.
fn packs(stage: &Stage) -> (BTreeSet<String>, BTreeSet<String>) {
    let kind = |name: &String| std::fs::read(stage.path().join("packs").join(name)).expect("reads")[11];
    stage.names("packs").into_iter().partition(|name| kind(name) == 1)
}

fn is_whole(history: &History) {
    assert_eq!(history.check(&|_, _| {}).expect("checks").damage, []);
}

#[test]
fn a_dropped_moment_is_gone_and_the_others_are_as_they_were() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..5).map(|i| seal_with(&volume, "a", i)).collect();
    let pruned = volume.prune(&made[1..3], &Collection::default()).expect("prunes");
    assert_eq!(pruned.dropped, made[1..3]);
    assert_eq!(pruned.head.seq, Seq(7));
    for history in [volume.history(), stage.history()] {
        assert_eq!(seqs(&history), [1, 2, 5, 6, 7]);
        assert!(matches!(history.at(Seq(3)), Err(OpenError::NoSuchSnapshot(_))));
        for (seq, seed) in [(2, 0), (5, 3), (6, 4), (7, 4)] {
            assert_eq!(content(&history.at(Seq(seq)).expect("opens"), "a"), noise(seed, 100_000));
        }
        is_whole(&history);
    }
    assert_eq!(
        stage.names("manifests"),
        ["01", "02", "05", "06", "07"].map(|n| format!("00000000000000{n}"))
    );
}

#[test]
fn packs_of_dropped_moments_go_after_the_grace_and_no_others() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..4).map(|i| seal_with(&volume, "a", i)).collect();
    let before = packs(&stage);
    let pruned = volume.prune(&made[..3], &Collection::default()).expect("prunes");
    // A pack of chunks each, and one of nodes, that the moments before the newest share with nobody.
    assert_eq!((pruned.condemned.count, pruned.doomed.count, pruned.removed.count), (6, 0, 0));
    assert!(pruned.condemned.bytes > 300_000);
    assert!(before.0.is_subset(&packs(&stage).0), "nothing is removed at once");

    stage.pass(DAY / 2);
    assert_eq!(volume.prune(&[], &Collection::default()).expect("prunes").doomed.count, 0);
    stage.pass(DAY / 2);
    let later = volume.prune(&[], &Collection::default()).expect("prunes");
    assert_eq!((later.doomed, later.removed), (pruned.condemned, pruned.condemned));
    assert_eq!(packs(&stage).0.len(), 1, "the newest file's bytes");
    is_whole(&volume.history());
    is_whole(&stage.history());
    assert_eq!(content(&volume, "a"), noise(3, 100_000));
    assert_eq!(content(&stage.history().at(made[3]).expect("kept"), "a"), noise(3, 100_000));

    // Without anything to do there is no seal, and what is gone stays gone.
    let head = volume.head().seq;
    stage.pass(DAY * 2);
    let settled = volume.prune(&[], &Collection::default()).expect("prunes");
    assert_eq!((settled.head.seq, settled.condemned.count, settled.removed.count), (head, 0, 0));
    drop(volume);
    let volume = stage.open();
    assert_eq!(content(&volume, "a"), noise(3, 100_000));
    put(&volume, "b", b"goes on");
    volume.seal(None).expect("seals");
    is_whole(&stage.history());
}

#[test]
fn the_newest_moment_is_never_dropped() {
    let stage = Stage::new();
    let volume = stage.open();
    let newest = seal_with(&volume, "a", 1);
    assert_eq!(volume.prune(&[Seq(1), newest], &NOW), Err(FsError::Invalid));
    assert_eq!(seqs(&volume.history()), [1, newest.0]);
    let nothing = volume.prune(&[Seq(77)], &NOW).expect("there is none");
    assert_eq!((nothing.dropped, nothing.head.seq), (vec![], newest));
}

#[test]
fn what_the_overlay_refers_to_is_not_condemned() {
    let stage = Stage::new();
    let volume = stage.open();
    let first = seal_with(&volume, "a", 1);
    let from = volume.lookup(Ino::ROOT, b"a").expect("there").ino;
    let to = put(&volume, "b", b"x");
    assert_eq!(volume.clone_range(from, 0, to, 0, 100_000).expect("clones"), 100_000);
    volume.unlink(Ino::ROOT, b"a").expect("removes");
    volume.forget(from);
    put(&volume, "c", b"so that the first is not the newest");
    volume.seal(None).expect("seals");
    volume.prune(&[first], &NOW).expect("prunes");
    assert_eq!(content(&volume, "b"), noise(1, 100_000));
    drop(volume);
    assert_eq!(content(&stage.open(), "b"), noise(1, 100_000));
    is_whole(&stage.history());
}

#[test]
fn a_pack_that_was_condemned_and_is_needed_again_is_kept() {
    let stage = Stage::new();
    let volume = stage.open();
    let old = seal_with(&volume, "a", 1);
    let kept = seal_with(&volume, "a", 2);
    seal_with(&volume, "a", 3);
    // Condemned by one prune; then a seal that refers to it would be a bug, but a file that shares bytes may come back by
    // a rollback to a moment that was kept all the time.
    volume.prune(&[old], &Collection::default()).expect("prunes");
    volume.rollback(kept).expect("rolls back");
    stage.pass(DAY * 2);
    volume.prune(&[kept], &Collection::default()).expect("prunes");
    stage.pass(DAY * 2);
    volume.prune(&[], &Collection::default()).expect("prunes");
    assert_eq!(content(&volume, "a"), noise(2, 100_000));
    drop(volume);
    assert_eq!(content(&stage.open(), "a"), noise(2, 100_000));
    is_whole(&stage.history());
}

#[test]
fn a_clock_that_is_set_while_the_volume_is_open_ends_no_grace() {
    let stage = Stage::new();
    let volume = stage.open();
    let old = seal_with(&volume, "a", 1);
    seal_with(&volume, "a", 2);
    let condemned = volume.prune(&[old], &Collection::default()).expect("prunes").condemned;
    assert!(condemned.count > 0 && !volume.clock_was_set());
    stage.set_clock(DAY.as_nanos() as i64 * 365);
    assert!(volume.clock_was_set());
    assert_eq!(volume.prune(&[], &Collection::default()).expect("prunes").doomed.count, 0);
    // Half a day of this run, then the clock is right again.
    stage.pass(DAY / 2);
    stage.set_clock(DAY.as_nanos() as i64 * -365);
    assert_eq!(volume.prune(&[], &Collection::default()).expect("prunes").doomed.count, 0);
    stage.pass(DAY / 2);
    assert_eq!(volume.prune(&[], &Collection::default()).expect("prunes").doomed, condemned);
}

#[test]
fn a_grace_that_began_in_the_future_begins_anew() {
    let stage = Stage::new();
    stage.set_clock(DAY.as_nanos() as i64 * 3650);
    let volume = stage.open();
    let old = seal_with(&volume, "a", 1);
    seal_with(&volume, "a", 2);
    let condemned = volume.prune(&[old], &Collection::default()).expect("prunes").condemned;
    drop(volume);
    stage.set_clock(DAY.as_nanos() as i64 * -3650);
    let volume = stage.open();
    let again = volume.prune(&[], &Collection::default()).expect("prunes");
    assert_eq!((again.condemned, again.doomed.count), (condemned, 0));
    stage.pass(DAY);
    assert_eq!(volume.prune(&[], &Collection::default()).expect("prunes").doomed, condemned);
}

#[test]
fn nothing_is_removed_before_the_seal_that_dooms_it_is_replicated() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..3).map(|i| seal_with(&volume, "a", i)).collect();
    let (before, _) = packs(&stage);
    let behind = |replicated, cleared| Collection { replicated: Some(replicated), cleared, ..NOW };
    let pruned = volume.prune(&made[..2], &behind(Seq(1), &[])).expect("prunes");
    assert_eq!((pruned.condemned.count, pruned.removed.count), (pruned.doomed.count, 0));
    assert!(before.is_subset(&packs(&stage).0));
    assert_eq!(stage.names("manifests").len(), pruned.head.seq.0 as usize, "each must be uploaded first");
    assert_eq!(volume.doomed(Seq(pruned.head.seq.0 - 1)).expect("lists"), []);

    let head = pruned.head.seq;
    let doomed = volume.doomed(head).expect("lists");
    assert_eq!(doomed.len() as u64, pruned.doomed.count);
    let removed = volume.prune(&[], &behind(head, &[])).expect("prunes");
    assert_eq!(removed.removed, pruned.doomed);
    assert_eq!(stage.names("manifests").len(), seqs(&volume.history()).len());
    // The stores have them still, whatever this folder says.
    assert_eq!(volume.doomed(head).expect("lists"), doomed);
    // Told with the next seal that has something to tell.
    seal_with(&volume, "a", 9);
    volume.prune(&[made[2]], &behind(head, &doomed)).expect("prunes");
    let left: BTreeSet<PackId> = volume.doomed(volume.head().seq).expect("lists").into_iter().collect();
    assert!(doomed.iter().all(|pack| !left.contains(pack)));
    is_whole(&stage.history());
}

#[test]
fn a_removal_that_was_cut_short_is_taken_up_again() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..3).map(|i| seal_with(&volume, "a", i)).collect();
    stage.hooks.set(|act, path| match act == Act::Remove && path.len() == "packs/".len() + 64 {
        true => Err(std::io::Error::from_raw_os_error(5)),
        false => Ok(()),
    });
    assert!(matches!(volume.prune(&made[..2], &NOW), Err(FsError::Disk(_))));
    stage.hooks.clear();
    drop(volume);
    let volume = stage.open();
    assert_eq!(seqs(&volume.history()).len(), 4, "the seals counted");
    is_whole(&stage.history());
    assert!(volume.sweep(volume.head().seq).expect("sweeps").count > 0);
    assert_eq!(packs(&stage).0.len(), 1);
    is_whole(&stage.history());
    assert_eq!(content(&volume, "a"), noise(2, 100_000));
}

#[test]
fn dropping_one_of_many_moments_reads_no_pack_of_chunks() {
    let stage = Stage::new();
    let volume = stage.open();
    for i in 0..1000u64 {
        put(&volume, &format!("f{}", i % 7), &noise(i, 3000));
        volume.seal(None).expect("seals");
    }
    drop(volume);
    let volume = stage.open();
    let opened: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let seen = opened.clone();
    stage.hooks.set(move |act, path| {
        if act == Act::Open
            && let Some(name) = path.strip_prefix("packs/")
        {
            seen.lock().insert(name.to_owned());
        }
        Ok(())
    });
    volume.prune(&[Seq(500)], &Collection::default()).expect("prunes");
    stage.hooks.clear();
    let opened = opened.lock().clone();
    assert!(opened.len() > 900, "the nodes of all others are looked at: {}", opened.len());
    let (chunks, _) = packs(&stage);
    assert_eq!(opened.intersection(&chunks).count(), 0);
    assert_eq!(seqs(&volume.history()).len(), 1001);
}

#[test]
fn an_unreadable_node_condemns_nothing() {
    // Which packs a prune reads is not known here, and one that succeeds changes the volume: each is tried on another.
    for at in 0.. {
        let stage = Stage::new();
        let volume = stage.open();
        let made: Vec<Seq> = (0..3).map(|i| seal_with(&volume, "a", i)).collect();
        drop(volume);
        let (before, nodes) = packs(&stage);
        let path = stage.path().join("packs").join(nodes.iter().nth(at).expect("no damage was met"));
        let whole = std::fs::read(&path).expect("reads");
        let mut bytes = whole.clone();
        bytes[80] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
        let volume = stage.open();
        let outcome = volume.prune(&made[..1], &NOW);
        drop(volume);
        std::fs::write(&path, whole).expect("writes");
        if outcome.is_err() {
            assert_eq!(seqs(&stage.history()), [1, 2, 3, 4]);
            assert_eq!(packs(&stage).0, before);
            is_whole(&stage.history());
            return;
        }
    }
}

#[test]
fn whoever_reads_a_moment_that_is_dropped_is_told_so() {
    let stage = Stage::new();
    let volume = stage.open();
    let old = seal_with(&volume, "a", 1);
    seal_with(&volume, "a", 2);
    let here = volume.history().at(old).expect("opens");
    let elsewhere = stage.history();
    let elsewhere_view = elsewhere.at(old).expect("opens");
    let ino = here.resolve(b"a").expect("there").ino;
    volume.prune(&[old], &Collection::default()).expect("prunes");
    assert_eq!(here.attr(ino), Err(FsError::Dropped));
    assert_eq!(here.read(ino, 0, 10), Err(FsError::Dropped));
    assert_eq!(elsewhere_view.read(ino, 0, 10).expect("within the grace"), noise(1, 10));
    stage.pass(DAY);
    volume.prune(&[], &Collection::default()).expect("prunes");
    let late = stage.history();
    assert!(matches!(late.at(old), Err(OpenError::NoSuchSnapshot(_))));
    // What is open may still be read; what is missing is told for what it is.
    let late_view = elsewhere.at(old);
    assert!(matches!(late_view, Ok(_) | Err(OpenError::NoSuchSnapshot(_))));
    let far = elsewhere_view.read(ino, 90_000, 10_000);
    assert!(matches!(far, Ok(_) | Err(FsError::Dropped)), "{far:?}");
    assert_eq!(volume.status().damage, Vec::<String>::new());
}

#[test]
fn a_rollback_keeps_the_moments_the_policy_and_what_is_decided_about_packs() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..4).map(|i| seal_with(&volume, "a", i)).collect();
    let policy = Policy::parse("keep last 3").expect("a policy");
    volume.set_policy(Some(&policy)).expect("sets");
    volume.prune(&made[..1], &Collection::default()).expect("prunes");
    let condemned = volume.history().freed_by(&[], &Compaction::NONE).expect("counts").packs;
    assert!(condemned.count > 0);
    let before = seqs(&volume.history());
    let rolled = volume.rollback(made[1]).expect("rolls back");
    assert_eq!(content(&volume, "a"), noise(1, 100_000));
    let expected: Vec<u64> = before.into_iter().chain([rolled.seq.0]).collect();
    assert_eq!(seqs(&volume.history()), expected);
    assert_eq!(volume.policy().expect("reads"), Some(policy.clone()));
    assert_eq!(stage.history().policy().expect("reads"), Some(policy));
    stage.pass(DAY);
    assert_eq!(volume.prune(&[], &Collection::default()).expect("prunes").removed, condemned);
    is_whole(&stage.history());
}

#[test]
fn a_policy_travels_with_the_volume_and_survives_a_crash() {
    let stage = Stage::new();
    let volume = stage.open();
    assert_eq!(volume.policy().expect("none"), None);
    let policy = Policy::parse("keep 1h for 2d; keep tag release forever").expect("a policy");
    volume.set_policy(Some(&policy)).expect("sets");
    volume.sync().expect("syncs");
    drop(volume);
    let volume = stage.open();
    assert_eq!(volume.policy().expect("reads"), Some(policy.clone()));
    assert_eq!(stage.history().policy().expect("reads"), None, "it is not sealed yet");
    let head = volume.seal(None).expect("seals");
    assert_eq!(stage.history().policy().expect("reads"), Some(policy.clone()));
    assert_eq!(stage.fork(head.seq).history().policy().expect("reads"), Some(policy));
    volume.set_policy(None).expect("sets");
    volume.seal(None).expect("seals");
    assert_eq!(stage.history().policy().expect("reads"), None);
}

#[test]
fn a_fork_begins_without_moments_and_brings_only_what_it_needs() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..6).map(|i| seal_with(&volume, "a", i)).collect();
    volume.prune(&made[..1], &NOW).expect("prunes");
    let other = stage.fork(made[2]);
    assert_eq!(packs(&other).0.len(), 1, "one file of one moment");
    assert_eq!(seqs(&other.history()), [1]);
    is_whole(&other.history());
    let fork = other.open();
    assert_eq!(content(&fork, "a"), noise(2, 100_000));
    let next = seal_with(&fork, "a", 100);
    assert_eq!(seqs(&fork.history()), [1, next.0]);
    let pruned = fork.prune(&[Seq(1)], &NOW).expect("prunes");
    assert_eq!(packs(&other).0.len(), 1);
    assert!(pruned.removed.bytes > 100_000 && pruned.removed.bytes < 200_000, "{pruned:?}");
    is_whole(&other.history());
    // The parent has its own.
    is_whole(&stage.history());
    assert_eq!(content(&stage.history().at(made[2]).expect("kept"), "a"), noise(2, 100_000));
}

#[test]
fn an_estimate_says_what_pruning_frees() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..4).map(|i| seal_with(&volume, "a", i)).collect();
    for drop in [&made[..0], &made[..1], &made[1..3]] {
        let expected = stage.history().freed_by(drop, &Compaction::NONE).expect("counts").packs;
        assert_eq!(volume.prune(drop, &NOW).expect("prunes").removed, expected);
    }
}

#[test]
fn pages_of_the_pack_table_outlive_the_moments_that_wrote_them() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..200).map(|i| seal_with(&volume, "a", i)).collect();
    volume.prune(&made[..199], &NOW).expect("prunes");
    assert_eq!(packs(&stage).0.len(), 1);
    drop(volume);
    let volume = stage.open();
    assert_eq!(content(&volume, "a"), noise(199, 100_000));
    seal_with(&volume, "a", 1000);
    is_whole(&stage.history());
    assert_eq!(stage.fork(volume.head().seq).history().check(&|_, _| {}).expect("checks").damage, []);
}

#[test]
fn an_arbiter_is_named_by_a_seal_and_stays() {
    let stage = Stage::new();
    let volume = stage.open();
    assert_eq!(volume.arbiter(), None);
    let store = StoreId([5; 16]);
    let named = volume.set_arbiter(Some(store)).expect("seals");
    assert_eq!(named.seq, Seq(2));
    seal_with(&volume, "a", 1);
    drop(volume);
    assert_eq!(stage.open().arbiter(), Some(store));
}

#[test]
fn a_prune_on_a_full_disk_is_tried_again() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..3).map(|i| seal_with(&volume, "a", i)).collect();
    stage.hooks.fail(Act::Create, "packs/.new", 28);
    assert_eq!(volume.prune(&made[..2], &NOW), Err(FsError::NoSpace));
    stage.hooks.clear();
    assert_eq!(seqs(&volume.history()), [1, 2, 3, 4], "nothing is dropped by half");
    let label = SnapshotLabel { id: SnapshotId([1; 16]), message: String::new(), tags: vec![] };
    volume.make(ME, Ino::ROOT, b"more", 0o600, NewNode::File, &[]).expect("makes");
    volume.seal(Some(label)).expect("seals");
    assert_eq!(volume.prune(&made[..2], &NOW).expect("prunes").dropped, made[..2]);
    is_whole(&stage.history());
}

#[test]
fn what_a_seal_adds_for_others_is_what_is_still_here() {
    let stage = Stage::new();
    let volume = stage.open();
    let made: Vec<Seq> = (0..4).map(|i| seal_with(&volume, "a", i)).collect();
    volume.prune(&made[..3], &NOW).expect("prunes");
    let history = volume.history();
    let (first, last) = history.unbroken().expect("lists");
    assert_eq!(first, made[3], "the manifests before are gone with their moments");
    let mut leaving = BTreeSet::new();
    for seq in first.0..=last.0 {
        for (pack, bytes) in history.outgoing(Seq(seq), false).expect("tells").packs {
            assert_eq!(history.pack_object(&pack).expect("is here").len() as u64, bytes);
            leaving.insert(pack.to_hex());
        }
    }
    assert_eq!(leaving, stage.names("packs").into_iter().collect());
}
