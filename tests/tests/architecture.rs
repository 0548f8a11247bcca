//! Holds the table of who may use whom, over `cargo metadata`.
//!
//! Secrets are a dependency: only crates that reach `fs-crypto` can read a user's data. A new arrow is
//! the most interesting line of a change; it is made here too, with its reason.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Each crate with the crates of this workspace that it uses, and those that only its tests use.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    // Names, sizes and bytes: under everything, so it uses nothing.
    ("fs-format", &[], &[]),
    // Encrypts and signs what `format` describes.
    ("fs-crypto", &["fs-format"], &[]),
    // The engine. Knows no kernel and no network.
    ("fs-volume", &["fs-crypto", "fs-format"], &[]),
    // Moves objects it cannot read; its tests use themselves, with the suite that is a feature.
    ("fs-store", &[], &["fs-store"]),
    // Moves packs and manifests between a folder and its stores; checks signatures, makes none.
    ("fs-replication", &["fs-format", "fs-store"], &[]),
    // The kernel adapter calls the engine. It sees no key; its tests make volumes.
    ("fs-fuse", &["fs-format", "fs-volume"], &["fs-crypto"]),
    // The simulator makes volumes and opens them.
    ("fs-sim", &["fs-crypto", "fs-format", "fs-volume"], &[]),
    // What hive, devices and people say to each other: ids, hashes and signatures are the format's. No secret, no I/O.
    ("orchestrator-api", &["fs-format"], &[]),
    // The file in which hive and device write down what happened, line by line: `api` says what a line is, and does no I/O.
    ("orchestrator-history", &["orchestrator-api"], &[]),
    // What pages look like; it finds nothing out by itself, so neither a database nor HTTP, and no secret.
    ("orchestrator-console", &["orchestrator-api"], &[]),
    // Decides where apps run. It cannot read, and asks no store. Of the format it uses ids, signed digests, and what
    // stands in the clear of a ring. Its tests hold what it wrote down against the invariants.
    (
        "orchestrator-hive",
        &["fs-format", "orchestrator-api", "orchestrator-console", "orchestrator-history"],
        &["comb-tests"],
    ),
    // Decides what a device does, and does it: opens the ring, signs as the device and seals for the owner. The filesystem's
    // commands are a door, so no `fs-volume`. Its own page is rendered with what the hive's are.
    (
        "orchestrator-device",
        &["fs-crypto", "fs-format", "orchestrator-api", "orchestrator-console", "orchestrator-history"],
        &[],
    ),
    // Both of them, on fakes of every door.
    ("orchestrator-sim", &["fs-format", "orchestrator-api", "orchestrator-device", "orchestrator-hive"], &[]),
    // The one binary: speaks with hives in the types of `api`; the device asks the filesystem through its commands.
    (
        "comb",
        &[
            "fs-crypto",
            "fs-format",
            "fs-fuse",
            "fs-replication",
            "fs-store",
            "fs-volume",
            "orchestrator-api",
            "orchestrator-device",
            "orchestrator-hive",
        ],
        &[],
    ),
];

/// These prove and measure the others and are part of no product: they may use all of them. `comb-benches` measures
/// their parts one by one.
const PROOF: &[&str] = &["comb-benches", "comb-tests", "fs-fuzz"];

/// Who may reach `fs-crypto` in what is shipped, directly or through others.
const READ_SECRETS: &[&str] =
    &["comb", "fs-crypto", "fs-fuse", "fs-sim", "fs-volume", "orchestrator-device", "orchestrator-sim"];

/// Crates of others that one room keeps to itself.
const KEPT: &[(&str, &[&str])] = &[
    // A kernel is a detail of one room.
    ("fuser", &["fs-fuse"]),
    // Secret bytes are handled in one room; a caller zeroizes what it is handed.
    // The hive makes hashes of login passwords, which open no data.
    ("argon2", &["fs-crypto", "orchestrator-hive"]),
    ("aws-lc-rs", &["fs-crypto"]),
    ("chacha20poly1305", &["fs-crypto"]),
    // The format checks signatures, crypto makes them; the hive signs its answers with a key of its own.
    ("ed25519-dalek", &["fs-crypto", "fs-format", "orchestrator-hive"]),
    // A database is a detail of one room.
    ("rusqlite", &["orchestrator-hive"]),
    ("tokio-postgres", &["orchestrator-hive"]),
    // What speaks to a network for a volume; nobody else does.
    ("object_store", &["fs-store"]),
    // The hive's routes are asked with the same client, by devices and people; the hive asks webhooks.
    ("reqwest", &["comb", "fs-store", "orchestrator-device", "orchestrator-hive"]),
    ("lettre", &["orchestrator-hive"]),
    // The page of a device has a certificate of its own, and says what changed in a text.
    ("rcgen", &["orchestrator-device"]),
    ("similar", &["orchestrator-device"]),
    // Docker is a detail of one room.
    ("bollard", &["orchestrator-device"]),
    // What other people wrote into an app's folder is read in one room.
    ("saphyr-parser", &["orchestrator-api"]),
    // So are pages.
    ("askama", &["orchestrator-console"]),
    ("qrcode", &["orchestrator-console"]),
    // Words for a person are made in one room.
    ("clap", &["comb"]),
    ("indicatif", &["comb"]),
    ("jiff", &["comb"]),
];

/// All that `fs-format` needs: it is pure, so nothing that reads a clock, a disk or chance.
const FORMAT_NEEDS: &[&str] = &["blake3", "ed25519-dalek", "thiserror"];

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("`cargo metadata` describes this workspace")
}

fn uses(package: &Package, kinds: &[DependencyKind]) -> BTreeSet<String> {
    package.dependencies.iter().filter(|one| kinds.contains(&one.kind)).map(|one| one.name.clone()).collect()
}

const SHIPPED: &[DependencyKind] = &[DependencyKind::Normal, DependencyKind::Build];

/// The arrows inside the workspace, of the given kinds.
fn arrows(metadata: &Metadata, kinds: &[DependencyKind]) -> BTreeMap<String, BTreeSet<String>> {
    let members: BTreeSet<String> =
        metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let inside = |package: &Package| uses(package, kinds).intersection(&members).cloned().collect();
    metadata.packages.iter().map(|package| (package.name.to_string(), inside(package))).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn who_uses_whom_is_what_the_table_says() {
    let metadata = metadata();
    let shipped = arrows(&metadata, SHIPPED);
    let tested = arrows(&metadata, &[DependencyKind::Development]);
    let listed: BTreeSet<&str> = ARROWS.iter().map(|row| row.0).collect();

    for (name, may, tests_may) in ARROWS {
        let Some(does) = shipped.get(*name) else {
            panic!("{name} stands in the table, but not in the workspace")
        };
        assert_eq!(*does, set(may), "what {name} uses");
        assert_eq!(tested[*name], set(tests_may), "what the tests of {name} use");
    }
    for name in shipped.keys() {
        assert!(
            listed.contains(name.as_str()) || PROOF.contains(&name.as_str()),
            "{name} is new: give it a row in the table, with the reason for each arrow"
        );
    }
    for (name, does) in &shipped {
        for proof in PROOF {
            assert!(!does.contains(*proof), "{name} must not use {proof}, which only proves");
        }
    }
}

#[test]
fn only_these_crates_can_read_a_users_data() {
    let shipped = arrows(&metadata(), SHIPPED);
    let reach = |name: &str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![name.to_owned()];
        while let Some(one) = next.pop() {
            if seen.insert(one.clone()) {
                next.extend(shipped[&one].iter().cloned());
            }
        }
        seen.contains("fs-crypto")
    };
    let can: BTreeSet<String> =
        shipped.keys().filter(|name| !PROOF.contains(&name.as_str()) && reach(name)).cloned().collect();
    assert_eq!(can, set(READ_SECRETS));
}

#[test]
fn only_who_measures_sees_the_parts_of_the_engine() {
    let metadata = metadata();
    for package in metadata.packages.iter().filter(|package| package.name.as_str() != "comb-benches") {
        for dependency in &package.dependencies {
            let sees = dependency.name == "fs-volume" && dependency.features.iter().any(|one| one == "parts");
            assert!(
                !sees,
                "{} turns on the feature `parts`: what is inside of the engine may change",
                package.name
            );
        }
    }
}

#[test]
fn what_one_room_keeps_to_itself_is_used_nowhere_else() {
    let metadata = metadata();
    for package in metadata.packages.iter().filter(|package| !PROOF.contains(&package.name.as_str())) {
        let does = uses(package, SHIPPED);
        for (dependency, rooms) in KEPT {
            assert!(
                !does.contains(*dependency) || rooms.contains(&package.name.as_str()),
                "{} uses {dependency}, which belongs to {rooms:?}",
                package.name
            );
        }
    }
    let format = metadata.packages.iter().find(|package| package.name.as_str() == "fs-format");
    let format = format.expect("fs-format is a member of the workspace");
    assert_eq!(uses(format, SHIPPED), set(FORMAT_NEEDS), "fs-format is pure");
}
