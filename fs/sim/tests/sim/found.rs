//! What the simulator found, as the shortest lists of operations, so that a change of the generator does not
//! forget it.

use fs_format::Ino;
use fs_sim::trial::{self, Effort};
use fs_sim::workload::{Bytes, Look, Op, Target, What};
use fs_sim::{Fault, FaultKind, Opener, Problem, SimDisk, VolumeOpener, env};
use fs_volume::{Caller, FsError, NewNode, ReadTree, RenameMode, SetAttr, Volume, WriteTree};

fn file(name: u8) -> Op {
    Op::Make { parent: Vec::new(), name, what: What::File, mode: 0o644, uid: 0, attributes: 0 }
}

fn write(name: u8, offset: u64, len: u32) -> Op {
    let bytes = Bytes { look: Look::Noise, len, seed: 5 };
    Op::Write { target: Target::At(vec![name]), offset, bytes, kill_suid: false }
}

fn passes(result: Result<(), Problem>) {
    if let Err(problem) = result {
        panic!("{problem}");
    }
}

#[test]
fn a_record_torn_across_segments_does_not_hide_what_comes_next() {
    let ops =
        [file(1), Op::Sync, file(4), Op::FlushJournal, write(4, 0, 5438), write(4, 8191, 123_826), Op::Sync];
    for seed in 0..20 {
        passes(trial::survives_cuts(&VolumeOpener::small(), 4, seed, &ops));
    }
}

#[test]
fn an_unsynced_segment_without_the_one_before_it_is_no_damage() {
    let ops = [file(2), Op::Seal { labelled: true }, write(2, 3380, 229_556), Op::Sync];
    for seed in 0..20 {
        passes(trial::survives_cuts(&VolumeOpener::small(), 8, seed, &ops));
    }
}

#[test]
fn a_cut_segment_is_not_taken_for_a_torn_one() {
    let ops = [file(1), Op::Sync, file(2), Op::Sync, write(2, 0, 349)];
    for seed in 0..20 {
        passes(trial::names_damage(&VolumeOpener::small(), 16, seed, &ops));
    }
}

#[test]
fn a_disk_error_during_replay_is_not_taken_for_the_end() {
    let ops = [file(1), Op::Sync];
    let effort = Effort { seeds: vec![0], ops: ops.len(), faults: u64::MAX };
    passes(trial::recovers_despite_errors(&VolumeOpener::small(), &effort, 0, &ops));
}

#[test]
fn a_damaged_header_of_a_segment_is_not_taken_for_a_torn_one() {
    let syncs_between = [file(1), Op::Sync, file(2)];
    let reopens_between = [file(1), Op::Reopen, file(2)];
    for seed in 0..6 {
        passes(trial::names_damage(&VolumeOpener::small(), 40, seed, &syncs_between));
        passes(trial::names_damage(&VolumeOpener::small(), 40, seed, &reopens_between));
    }
}

#[test]
fn looking_for_data_in_the_largest_file_ends() {
    let size = Some(i64::MAX as u64);
    let grow = Op::SetAttr { target: Target::At(vec![1]), set: SetAttr { size, ..SetAttr::default() } };
    passes(trial::agrees(&VolumeOpener::small(), 0, &[file(1), grow.clone(), Op::Seal { labelled: false }]));
    passes(trial::agrees(&VolumeOpener::small(), 0, &[file(1), write(1, 1 << 40, 9), grow]));
}

#[test]
fn not_replacing_refuses_a_name_of_the_same_file() {
    let mode = RenameMode::NoReplace;
    let onto_itself = Op::Rename { from: Vec::new(), from_name: 1, to: Vec::new(), to_name: 1, mode };
    passes(trial::agrees(&VolumeOpener::small(), 0, &[file(1), onto_itself]));
}

#[test]
fn an_operation_that_failed_on_an_ill_disk_need_not_have_happened() {
    let allocate = Op::Allocate {
        target: Target::At(vec![3]),
        offset: 45_056,
        len: 587,
        how: fs_volume::Allocate { keep_size: false, punch: false, zero: false },
    };
    let bytes = Bytes { look: Look::Text, len: 4096, seed: 2 };
    let ops = [
        file(3),
        Op::Write { target: Target::At(vec![3]), offset: 0, bytes, kill_suid: false },
        Op::Sync,
        allocate,
    ];
    let effort = Effort { seeds: vec![1], ops: ops.len(), faults: u64::MAX };
    passes(trial::survives_disk_errors(&VolumeOpener::small(), &effort, 1, &ops));
}

/// The kernel shows what a failed sync did not bring to the disk. To replay that and to acknowledge what comes
/// behind it would lose the latter at the next cut of the power.
#[test]
fn what_only_a_failed_sync_left_in_the_cache_is_not_built_on() {
    let opener = VolumeOpener::roomy();
    for seed in 0..40 {
        let disk = SimDisk::seeded(seed);
        opener.create(&env(&disk, seed, 0)).expect("a new volume");
        let make = |volume: &Volume, name: &[u8]| {
            volume
                .make(Caller { uid: 0, gid: 0 }, Ino::ROOT, name, 0o600, NewNode::File, &[])
                .expect("makes")
                .ino
        };
        let volume = opener.open(env(&disk, seed, 1)).expect("opens");
        make(&volume, b"first");
        volume.sync().expect("durable");
        let lost = make(&volume, b"lost");
        volume.write(lost, 0, &[7; 20_000], false).expect("writes");
        volume.flush_journal().expect("the cache takes it");
        disk.set_fault(Some(Fault { at: disk.io_last() + 1, kind: FaultKind::DiskError, lasting: false }));
        volume.sync().expect_err("the sync fails");
        drop(volume);

        let volume = opener.open(env(&disk, seed, 2)).expect("opens on the well disk");
        make(&volume, b"second");
        volume.sync().expect("acknowledged");
        drop(volume);

        let volume = opener.open(env(&disk.after_crash(seed), seed, 3)).expect("opens after the cut");
        assert_eq!(volume.read_only_reason(), None, "seed {seed}");
        for name in [&b"first"[..], b"second"] {
            volume.lookup(Ino::ROOT, name).unwrap_or_else(|error| panic!("seed {seed}: {name:?}: {error}"));
        }
    }
}

/// Segments that are kept for reuse take room: on a disk with little more than the reserve, all of it.
#[test]
fn a_disk_stays_full_no_longer_than_what_fills_it() {
    let opener = VolumeOpener::small();
    for room in (120 << 10..400 << 10).step_by(20 << 10) {
        let disk = SimDisk::seeded(1);
        opener.create(&env(&disk, 1, 0)).expect("a new volume");
        disk.set_capacity(disk.used_bytes() + opener.options.reserve_bytes + room);
        let volume = opener.open(env(&disk, 1, 1)).expect("opens");
        let write = |name: &[u8]| {
            let ino = volume.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, name, 0o600, NewNode::File, &[])?.ino;
            volume.write(ino, 0, &[name[0]; 4000], false)?;
            volume.sync()
        };
        let mut names: Vec<Vec<u8>> = Vec::new();
        let refused = loop {
            names.push(format!("{}", names.len()).into_bytes());
            if let Err(error) = write(&names[names.len() - 1]) {
                break error;
            }
        };
        assert_eq!(refused, FsError::NoSpace, "room for {room}");
        let segments = disk.files().iter().filter(|(path, _)| path.starts_with("journal/")).count();
        assert!(segments <= 1, "room for {room}: {segments} segments are kept on a full disk");
        for name in &names {
            // The last one may not be there.
            match volume.unlink(Ino::ROOT, name) {
                Ok(()) | Err(FsError::NotFound) => {}
                Err(error) => panic!("room for {room}: deleting is refused: {error}"),
            }
        }
        // What is sealed stays; with room for a segment it goes on.
        let room_needed = opener.options.reserve_bytes + 2 * opener.options.segment_bytes;
        disk.set_capacity(disk.used_bytes() + room_needed);
        volume.seal(None).expect("a seal of little");
        write(b"again").unwrap_or_else(|error| panic!("room for {room}: still refused: {error}"));
    }
}
