//! A device of which its hive wants nothing more hears of it, or knows it already.

use std::time::Duration;

use fs_crypto::VolumeKey;
use orchestrator_api::ids::{HelloNumber, Term};
use orchestrator_api::placement::Phase;
use orchestrator_api::report::Refusal;
use serde_json::json;

use super::scene::{APP, Scene, entry};
use crate::app::volume_name;
use crate::daemon::Ended;
use crate::doors::disk::Files;
use crate::record::{Identity, Record, VolumeRecord};

/// It was off when it was revoked, so nothing of its apps is mounted when it hears of it; or a process that had heard of it
/// ended before it had stopped anything.
#[tokio::test]
async fn a_device_that_was_off_when_it_was_revoked_starts_nothing_and_keeps_no_key() {
    for (phase, is_known) in [(Phase::Running, false), (Phase::Claiming, false), (Phase::Running, true)] {
        let mut scene = Scene::with_hive_that(|_, _| {
            (403, json!({"error": {"code": "device_revoked", "message": "this device was revoked: join again"}}))
        })
        .await;
        scene.docker(|_, _| Some(json!([])));
        let key = VolumeKey::from_seed([1; 32]);
        let name = volume_name(APP, "data");
        scene.volume_folder(&key, &name);
        scene.ring(&[entry(&key)]);
        scene.has_volumes(&[("data", key.id())]);
        let file = scene.world.app(APP, |state| state.file.clone());
        scene.world.folder.write_app(APP, &file).expect("written");
        let mut files = Files::new(&scene.world.folder.0).expect("made");
        let refused = is_known.then_some(Refusal::Revoked);
        files
            .write_identity(&Identity { hello: HelloNumber(3), refused, ..Identity::default() })
            .expect("written");
        let expect = orchestrator_api::placement::Expect::Since {
            epoch: fs_format::Epoch(1),
            seq: orchestrator_api::ids::Seq(1),
            writers: Default::default(),
        };
        let volumes = [(key.id(), VolumeRecord { expect, cut: None })].into();
        let record = Record { phase, term: Term(1), mine: true, started: true, volumes, ..Record::new(APP) };
        files.write_record(&record, false).expect("written");

        let ended = tokio::time::timeout(Duration::from_secs(20), scene.world.live(&mut scene.inbox)).await;
        let Ended::Revoked(wiped) = ended.expect("it ends").expect_err("it is no device any more") else {
            panic!("it ended for something else");
        };
        assert_eq!(wiped.kept, Vec::<String>::new());
        assert!(!scene.key_of(&key).exists(), "{phase:?}, known before: {is_known}");
        assert!(!scene.state.join("ring.key").exists() && scene.state.join("ring").exists());
        assert!(scene.world.folder.identity().expect("read").is_none());
        // What was not replicated is sealed, so that it is in packs, which stay.
        assert_eq!(scene.volumes.seen.lock().synced, [name]);
        let (disk, _) = files.load().expect("read");
        assert_eq!(disk.apps[&APP].phase, Phase::Settling);
    }
}
