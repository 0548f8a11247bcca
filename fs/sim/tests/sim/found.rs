//! What the simulator found, as the shortest lists of operations, so that a change of the generator does not
//! forget it.

use fs_sim::trial::{self, Effort};
use fs_sim::workload::{Bytes, Look, Op, Target, What};
use fs_sim::{Problem, VolumeOpener};
use fs_volume::{RenameMode, SetAttr};

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
