//! The trials of the engine.

use fs_format::Ino;
use fs_sim::trial::{self, Effort, Trial, hunt};
use fs_sim::workload::Weights;
use fs_sim::{Opener, SimDisk, VolumeOpener};
use fs_volume::{Caller, FsError, NewNode, Options, ReadTree, WriteTree};

fn passes(effort: &Effort, weights: &Weights, trial: &Trial<'_>) {
    if let Err(found) = hunt(effort, weights, trial) {
        panic!("{found}");
    }
}

/// Weights under which data seldom fills a segment, so that many operations fit between two seals.
fn light() -> Weights {
    Weights { write_bytes_max: 30_000, ..Weights::default() }
}

#[test]
fn it_does_what_the_model_does() {
    let effort = Effort::new(12, 120, 0);
    passes(&effort, &Weights::default(), &|seed, ops| trial::agrees(&VolumeOpener::small(), seed, ops));
    passes(&effort, &light(), &|seed, ops| trial::agrees(&VolumeOpener::roomy(), seed, ops));
}

#[test]
fn a_power_cut_at_every_io_leaves_a_prefix_with_all_that_was_acknowledged() {
    let effort = Effort::new(12, 40, 0);
    passes(&effort, &Weights::default(), &|seed, ops| {
        trial::survives_cuts(&VolumeOpener::small(), 2, seed, ops)
    });
    passes(&effort, &light(), &|seed, ops| trial::survives_cuts(&VolumeOpener::roomy(), 3, seed, ops));
}

#[test]
fn a_disk_error_at_every_io_is_told_and_loses_nothing_acknowledged() {
    let effort = Effort::new(4, 25, 40);
    passes(&effort, &light(), &|seed, ops| {
        trial::survives_disk_errors(&VolumeOpener::small(), &effort, seed, ops)
    });
}

#[test]
fn a_disk_error_during_recovery_is_no_torn_tail() {
    let effort = Effort::new(6, 40, 40);
    passes(&effort, &light(), &|seed, ops| {
        trial::recovers_despite_errors(&VolumeOpener::small(), &effort, seed, ops)?;
        trial::recovers_despite_errors(&VolumeOpener::roomy(), &effort, seed, ops)
    });
}

#[test]
fn a_full_disk_at_every_io_is_told_and_loses_nothing() {
    let effort = Effort::new(4, 25, 40);
    passes(&effort, &light(), &|seed, ops| {
        trial::survives_no_space(&VolumeOpener::small(), &effort, seed, ops)
    });
}

#[test]
fn a_disk_that_is_full_for_a_while_lets_delete_and_goes_on() {
    let effort = Effort::new(6, 80, 0);
    for room in [700 << 10, 2 << 20] {
        passes(&effort, &Weights::default(), &|seed, ops| {
            trial::survives_a_full_disk(&VolumeOpener::small(), room, seed, ops)
        });
    }
}

#[test]
fn a_seal_without_room_leaves_no_packs_behind() {
    let opener = VolumeOpener { options: Options { reserve_bytes: 0, ..VolumeOpener::roomy().options } };
    let disk = SimDisk::seeded(1);
    let env = fs_sim::env(&disk, 1, 0);
    opener.create(&env).expect("creates");
    let volume = opener.open(env).expect("opens");
    let file = volume
        .make(Caller { uid: 0, gid: 0 }, Ino::ROOT, b"file", 0o644, NewNode::File, &[])
        .expect("makes a file");
    let mut noise = vec![0; 40 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    volume.write(file.ino, 0, &noise, false).expect("writes");
    volume.sync().expect("syncs");
    let used = disk.used_bytes();
    // Room for one pack, not for all three.
    disk.set_capacity(used + (20 << 20));
    for _ in 0..3 {
        assert_eq!(volume.seal(None).expect_err("there is no room"), FsError::NoSpace);
        assert_eq!(disk.used_bytes(), used);
    }
    disk.set_capacity(1 << 40);
    volume.seal(None).expect("seals when there is room");
    assert_eq!(volume.read(file.ino, 30 << 20, 4096).expect("reads"), &noise[30 << 20..][..4096]);
}

#[test]
fn a_flipped_bit_never_gives_wrong_bytes() {
    let effort = Effort::new(4, 40, 0);
    passes(&effort, &light(), &|seed, ops| trial::names_damage(&VolumeOpener::roomy(), 16, seed, ops));
}

/// Weights under which moments come and go all the time.
fn fleeting() -> Weights {
    Weights { seal: 15, prune: 10, rollback: 4, clone: 10, reopen: 4, ..light() }
}

#[test]
fn what_is_dropped_is_gone_and_everything_else_stays() {
    let effort = Effort::new(10, 80, 30);
    passes(&effort, &fleeting(), &|seed, ops| trial::agrees(&VolumeOpener::roomy(), seed, ops));
    let effort = Effort::new(4, 30, 30);
    passes(&effort, &fleeting(), &|seed, ops| trial::survives_cuts(&VolumeOpener::roomy(), 2, seed, ops));
    let effort = Effort::new(3, 25, 30);
    passes(&effort, &fleeting(), &|seed, ops| {
        trial::survives_disk_errors(&VolumeOpener::roomy(), &effort, seed, ops)
    });
}

/// Weights under which a few files are written to in place all the time, so that packs are soon mostly dead.
fn churning() -> Weights {
    Weights {
        make: 6,
        link: 1,
        remove: 1,
        rename: 1,
        attr: 1,
        write: 60,
        xattr: 0,
        clone: 12,
        seal: 24,
        prune: 14,
        rollback: 2,
        reopen: 3,
        write_bytes_max: 40_000,
        far: 0,
        ..Weights::default()
    }
}

#[test]
fn what_is_compacted_reads_as_before() {
    let effort = Effort::new(10, 150, 30);
    passes(&effort, &churning(), &|seed, ops| trial::agrees(&VolumeOpener::roomy(), seed, ops));
    let effort = Effort::new(3, 60, 30);
    passes(&effort, &churning(), &|seed, ops| trial::survives_cuts(&VolumeOpener::roomy(), 1, seed, ops));
    let effort = Effort::new(2, 50, 30);
    passes(&effort, &churning(), &|seed, ops| {
        trial::survives_disk_errors(&VolumeOpener::roomy(), &effort, seed, ops)
    });
    let effort = Effort::new(3, 80, 0);
    passes(&effort, &churning(), &|seed, ops| trial::names_damage(&VolumeOpener::roomy(), 16, seed, ops));
}

#[test]
fn creation_leaves_nothing_half_made() {
    for seed in 0..3 {
        trial::creates_wholly(&VolumeOpener::small(), seed).expect("creation is atomic");
    }
}

#[test]
fn the_same_seed_gives_the_same_ios() {
    let effort = Effort::new(4, 100, 0);
    passes(&effort, &Weights::default(), &|seed, ops| trial::repeats(&VolumeOpener::small(), seed, ops));
}
