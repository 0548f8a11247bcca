//! Seals on a disk that fails in the middle of them.

use fs_volume::*;

mod support;
use support::{Act, Stage, noise, put};

const EDQUOT: i32 = 122;
const MIB: usize = 1 << 20;

#[test]
fn a_users_disk_quota_is_a_full_disk() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", &noise(1, MIB));
    for (act, path) in
        [(Act::Create, "packs/.new"), (Act::Write, "packs/.new"), (Act::Create, "manifests/.new")]
    {
        stage.hooks.fail(act, path, EDQUOT);
        assert_eq!(volume.seal(None).map(drop), Err(FsError::NoSpace), "{act:?} {path}");
    }
    stage.hooks.fail(Act::Write, "journal/", EDQUOT);
    put(&volume, "g", b"g");
    assert_eq!(volume.sync(), Err(FsError::NoSpace));
    stage.hooks.clear();
    assert_eq!(volume.read_only_reason(), None);
    volume.sync().expect("there is room");
    volume.seal(None).expect("there is room");
}
