use std::collections::BTreeSet;

use super::*;

fn file(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(path, OpenMode::CreateNew).expect("a new name in an existing folder")
}

fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().expect("no fault is planned") as usize];
    file.read_at(&mut bytes, 0).expect("no fault is planned");
    Some(bytes)
}

/// All the contents that `path` has after crashes with many seeds.
fn outcomes(disk: &SimDisk, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..400).map(|seed| content(&disk.after_crash(seed), path)).collect()
}

#[test]
fn what_was_synced_survives_every_crash() {
    let disk = SimDisk::seeded(1);
    let a = file(&disk, "a");
    a.write_at(&[7; 1500], 0).expect("room");
    a.sync().expect("no fault");
    disk.sync_dir("").expect("no fault");
    assert_eq!(outcomes(&disk, "a"), BTreeSet::from([Some(vec![7; 1500])]));
}

#[test]
fn unsynced_sectors_survive_in_any_combination_and_any_generation() {
    let disk = SimDisk::seeded(1);
    let a = file(&disk, "a");
    a.write_at(&[0; 1024], 0).expect("room");
    a.sync().expect("no fault");
    disk.sync_dir("").expect("no fault");
    a.write_at(&[1; 1024], 0).expect("room");
    a.write_at(&[2; 1024], 0).expect("room");

    let pairs: BTreeSet<(u8, u8)> = outcomes(&disk, "a")
        .into_iter()
        .map(|bytes| {
            let bytes = bytes.expect("the name was synced");
            assert!(bytes[..512].iter().all(|byte| *byte == bytes[0]), "a sector is never torn inside");
            (bytes[0], bytes[512])
        })
        .collect();
    assert_eq!(pairs.len(), 9, "every pair of generations is possible: {pairs:?}");
}

#[test]
fn an_unsynced_length_may_be_lost_or_leave_zeros() {
    let disk = SimDisk::seeded(1);
    let a = file(&disk, "a");
    disk.sync_dir("").expect("no fault");
    a.write_at(&[9; 600], 0).expect("room");
    let seen = outcomes(&disk, "a");
    assert!(seen.contains(&Some(Vec::new())), "the length may be lost");
    assert!(seen.contains(&Some(vec![0; 600])), "the length may survive without its bytes");
    assert!(seen.contains(&Some(vec![9; 600])), "all may survive");
    assert!(!seen.contains(&None), "the name was synced");
}

#[test]
fn an_unsynced_name_may_be_lost_although_its_bytes_are_durable() {
    let disk = SimDisk::seeded(1);
    let a = file(&disk, "a");
    a.write_at(b"bytes", 0).expect("room");
    a.sync().expect("no fault");
    assert_eq!(outcomes(&disk, "a"), BTreeSet::from([None, Some(b"bytes".to_vec())]));
}

#[test]
fn a_rename_over_another_file_shows_the_old_or_the_new_one() {
    let disk = SimDisk::seeded(1);
    for (name, bytes) in [("a", b"old"), ("tmp", b"new")] {
        let file = file(&disk, name);
        file.write_at(bytes, 0).expect("room");
        file.sync().expect("no fault");
    }
    disk.sync_dir("").expect("no fault");
    disk.rename("tmp", "a").expect("both names are there");
    assert_eq!(content(&disk, "a"), Some(b"new".to_vec()));
    for seed in 0..100 {
        let crashed = disk.after_crash(seed);
        let (a, tmp) = (content(&crashed, "a"), content(&crashed, "tmp"));
        let before = (Some(b"old".to_vec()), Some(b"new".to_vec()));
        let after = (Some(b"new".to_vec()), None);
        assert!((a.clone(), tmp.clone()) == before || (a, tmp) == after, "renames are atomic");
    }
}

#[test]
fn changes_of_names_happen_independently_but_a_file_has_one_name() {
    let disk = SimDisk::seeded(1);
    file(&disk, "a").sync().expect("no fault");
    file(&disk, "b").sync().expect("no fault");
    disk.rename("a", "c").expect("it is there");
    disk.rename("c", "d").expect("it is there");
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let mut names = disk.after_crash(seed).list("").expect("no fault");
        names.sort();
        assert!(names.iter().filter(|name| *name != "b").count() <= 1, "one file, one name: {names:?}");
        seen.insert(names);
    }
    assert_eq!(seen.len(), 8, "no name, a, c or d; each with and without b: {seen:?}");
}

#[test]
fn what_lies_in_a_lost_folder_is_lost() {
    let disk = SimDisk::seeded(1);
    disk.create_dir("packs").expect("no fault");
    file(&disk, "packs/a").sync().expect("no fault");
    disk.sync_dir("packs").expect("no fault");
    let seen: BTreeSet<bool> =
        (0..50).map(|seed| disk.after_crash(seed).open("packs/a", OpenMode::Read).is_ok()).collect();
    assert_eq!(seen.len(), 2, "the name of the folder itself was not synced");
    disk.sync_dir("").expect("no fault");
    assert!((0..50).all(|seed| disk.after_crash(seed).open("packs/a", OpenMode::Read).is_ok()));
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next_one() {
    let mut lost = false;
    for seed in 0..20 {
        let disk = SimDisk::seeded(seed);
        let a = file(&disk, "a");
        disk.sync_dir("").expect("no fault yet");
        a.write_at(&[5; 512], 0).expect("room");
        disk.set_fault(Some(Fault { at: disk.io_last() + 1, kind: FaultKind::DiskError, lasting: false }));
        assert!(a.sync().is_err());
        a.sync().expect("the fault is over");
        assert_eq!(content(&disk, "a"), Some(vec![5; 512]), "the cache still shows the bytes");
        lost |= content(&disk.after_crash(seed), "a") != Some(vec![5; 512]);
    }
    assert!(lost, "the platter does not always have them");
}

#[test]
fn a_full_disk_refuses_growth_and_takes_removals() {
    let disk = SimDisk::seeded(1);
    disk.set_capacity(1000);
    let a = file(&disk, "a");
    a.write_at(&[1; 900], 0).expect("room");
    assert_eq!(disk.free_bytes().expect("no fault"), 100);
    assert_eq!(a.write_at(&[1; 200], 900).expect_err("no room").raw_os_error(), Some(28));
    assert_eq!(a.allocate(1001).expect_err("no room").raw_os_error(), Some(28));
    a.write_at(&[2; 900], 0).expect("overwriting needs no room");
    disk.remove("a").expect("removing needs no room");
    assert_eq!(disk.free_bytes().expect("no fault"), 1000);
}

#[test]
fn a_power_cut_fails_everything_from_its_io_on() {
    let disk = SimDisk::seeded(1);
    let a = file(&disk, "a");
    disk.sync_dir("").expect("no fault yet");
    disk.set_fault(Some(Fault { at: 4, kind: FaultKind::PowerCut, lasting: false }));
    a.write_at(b"x", 0).expect("the third I/O passes");
    assert!(a.sync().is_err());
    assert!(a.len().is_err() && disk.list("").is_err() && a.write_at(b"y", 0).is_err());
    assert!(outcomes(&disk, "a").iter().all(|bytes| bytes != &Some(b"y".to_vec())));
}

#[test]
fn images_show_each_moment_of_a_run() {
    let disk = SimDisk::seeded(1);
    disk.record_images();
    disk.record_trace();
    let a = file(&disk, "a");
    a.write_at(b"x", 0).expect("room");
    a.len().expect("no fault");
    a.sync().expect("no fault");
    disk.sync_dir("").expect("no fault");
    let images = disk.take_images();
    let next: Vec<_> = images.iter().filter_map(|image| image.next).collect();
    assert_eq!(next, [IoKind::Create, IoKind::Write, IoKind::Sync, IoKind::SyncDir]);
    assert!((0..20).all(|seed| content(&images[0].after_crash(seed), "a").is_none()));
    assert_eq!(disk.take_trace().len(), 5);
    assert!(images[3].after_crash(3).list("").is_ok(), "an image is a disk of its own");
}

#[test]
fn the_same_seed_leaves_the_same_bytes() {
    let make = || {
        let disk = SimDisk::seeded(1);
        let a = file(&disk, "a");
        (0..20u8).for_each(|i| a.write_at(&[i; 700], u64::from(i) * 300).expect("room"));
        disk.sync_dir("").expect("no fault");
        (0..50).map(|seed| content(&disk.after_crash(seed), "a")).collect::<Vec<_>>()
    };
    assert_eq!(make(), make());
}
