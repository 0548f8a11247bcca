//! Answers that look like the hive's, and are not.

use std::collections::BTreeMap;

use fs_crypto::Identity;
use orchestrator_api::code::{JoinCode, Secret};
use orchestrator_api::ids::{CommandNumber, HelloNumber, Incarnation, RunId};
use orchestrator_api::report::Hello;
use serde_json::{Value, json};

use super::SESSION;
use super::scene::{Forged, Scene};
use crate::daemon::enrol::{self, EnrolError, JoinOf};
use crate::daemon::files::Folder;
use crate::doors::hive::{Ask, HiveError};

const FORGERIES: [Forged; 7] = [
    Forged::Signature,
    Forged::Body,
    Forged::Status,
    Forged::Request,
    Forged::Key,
    Forged::Hive,
    Forged::Missing,
];

fn welcome() -> Value {
    json!({
        "session": "11".repeat(16), "incarnation": 4, "recovering": false, "report_every_ms": 10_000,
        "ring": null, "locked": true, "packages": [],
    })
}

fn hello() -> Hello {
    Hello {
        number: HelloNumber(3),
        run: RunId([1; 16]),
        incarnation: Incarnation(1),
        command: CommandNumber(0),
        apps: BTreeMap::new(),
    }
}

#[tokio::test]
async fn nothing_is_taken_of_an_answer_that_is_not_the_hives_word_for_word() {
    for forged in FORGERIES {
        let mut scene = Scene::with_forger(welcome(), Some(forged)).await;
        let wait = std::time::Duration::from_secs(20);
        let said = scene.world.hive.ask::<Value>(&Ask::get(SESSION, "/v1/ring", wait)).await;
        assert_eq!(said.err(), Some(HiveError::Foreign), "{forged:?}");
        let bytes = scene.world.hive.bytes(&Ask::get(SESSION, "/v1/ring/1", wait)).await;
        assert_eq!(bytes.err(), Some(HiveError::Foreign), "{forged:?}");

        scene.world.clone().hello(hello()).await;
        assert!(scene.inbox.try_recv().is_err(), "{forged:?}: nothing follows from it");
        assert_eq!(scene.world.hive.heard(), None, "{forged:?}: nor is its clock compared with ours");
        let seen = scene.world.seen.lock();
        assert_eq!((seen.session, seen.online, seen.is_locked), (None, None, false), "{forged:?}");
        assert!(seen.answer.contains("not signed by this hive"), "{forged:?}: {}", seen.answer);
    }
    // The same answer, as the hive gave it.
    let mut scene = Scene::with_forger(welcome(), None).await;
    scene.world.clone().hello(hello()).await;
    assert!(scene.inbox.try_recv().is_ok());
    assert!(scene.world.hive.heard().is_some() && scene.world.seen.lock().session.is_some());
}

#[tokio::test]
async fn a_machine_joins_no_hive_but_the_one_that_made_its_code() {
    let scene = Scene::with_hive(json!({})).await;
    let state = tempfile::tempdir().expect("a folder");
    let join = async |hive: &Identity| {
        let code = JoinCode::new(hive.public(), Secret::new([7; 20]));
        let of = JoinOf {
            state: state.path(),
            url: scene.world.hive.url(),
            code: &code,
            name: "attic",
            version: "0.0.0",
            accepts_authoring: false,
            seed: [4; 32],
            run: [1; 16],
        };
        enrol::join(of).await.map(drop).expect_err("it says nothing that a hive would")
    };
    let error = join(&Identity::from_seed([77; 32])).await;
    assert!(matches!(error, EnrolError::Hive(HiveError::Foreign)), "{error}");
    let folder = Folder::of(state.path());
    assert!(folder.identity().expect("read").is_none() && folder.hive().expect("read").is_none());
    // By its own code it is heard, and what it says is looked at.
    let error = join(&Identity::from_seed([8; 32])).await;
    assert!(matches!(error, EnrolError::Hive(HiveError::Form)), "{error}");
}
