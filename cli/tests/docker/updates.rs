//! Another program for the device itself, while an app runs on it.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_crypto::OwnerKey;
use orchestrator_api::release::RELEASE_CONTEXT;
use serde_json::{Value, json};

use super::apps::{APP, records, ring};
use super::orders::{SOON, Scene, running};

const LONG: Duration = Duration::from_secs(300);

/// The command that brings a release, signed by a key.
fn update(owner: &OwnerKey, account: &str, number: u64, program: &[u8]) -> Value {
    let arch = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
    let release = json!({
        "comb": "release", "format": 1, "account": account, "number": number, "version": "0.2.0",
        "binaries": [{ "arch": arch, "blake3": blake3::hash(program).to_hex().to_string(), "bytes": program.len() }],
    });
    let bytes = serde_json::to_vec(&release).unwrap();
    let signature = owner.sign(RELEASE_CONTEXT, &bytes);
    json!({
        "app": null, "term": null, "generation": null, "do": "update_device",
        "release": STANDARD.encode(&bytes), "signature": STANDARD.encode(signature),
    })
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_release_takes_over_when_it_is_well_and_one_that_is_not_is_taken_back() {
    let Scene { hive, attic, .. } = running("manual", "always", "");
    let ring = ring(&attic);
    let (owner, account) = (ring.owner(), ring.account().to_hex());
    let log = attic.mount(APP, "data").join("data/log");
    let containers = attic.containers();
    let order = |command: Value, wait: Duration| {
        let number = hive.order(&attic.id, command);
        hive.result(&attic.id, number, wait)
    };
    let code = |result: &Value| result["code"].as_str().unwrap_or_default().to_owned();

    // Another's signature, bytes that were not signed for, and a program that does not run here.
    let good = format!("#!/bin/sh\n# canary of the release\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_comb"));
    hive.put_program(1, good.as_bytes());
    let stranger = OwnerKey::from_seed([9; 32]);
    assert_eq!(code(&order(update(&stranger, &account, 1, good.as_bytes()), SOON)), "package_wrong");
    assert_eq!(code(&order(update(owner, &account, 1, b"#!/bin/sh\nexit 0\n"), SOON)), "package_wrong");
    assert_eq!(code(&order(update(owner, &"00".repeat(16), 1, good.as_bytes()), SOON)), "package_wrong");
    let mute = b"#!/bin/sh\nexit 1\n";
    hive.put_program(2, mute);
    assert_eq!(code(&order(update(owner, &account, 2, mute), SOON)), "package_wrong");
    let bin = attic.state().join("orchestrator/bin");
    assert!(!bin.join("comb").exists() && !bin.join("comb.new").exists());

    // One that is well.
    let done = order(update(owner, &account, 1, good.as_bytes()), LONG);
    assert_eq!((done["state"].as_str(), &done["data"]["number"]), (Some("done"), &json!(1)), "{done:#}");
    assert_eq!(attic.containers(), containers, "the app was not touched");
    assert_eq!(std::fs::read(bin.join("comb")).unwrap(), good.as_bytes());
    assert_eq!(std::fs::metadata(bin.join("comb")).unwrap().permissions().mode() & 0o777, 0o755);
    let told = || hive.report(&attic.id).unwrap()["update"].clone();
    attic.until(SOON, "told", |_| told() == json!({ "number": 1, "state": "done", "problem": null }));
    // Not above what runs.
    assert_eq!(
        order(update(owner, &account, 1, good.as_bytes()), SOON)["state"],
        "done",
        "it is here already"
    );

    // One that says its version, and then ends at once.
    let bad = b"#!/bin/sh\n[ \"$1\" = --version ] && exit 0\nexit 3\n";
    hive.put_program(3, bad);
    let back = order(update(owner, &account, 3, bad), LONG);
    assert_eq!(code(&back), "update_rolled_back", "{back:#}");
    assert_eq!(
        std::fs::read(bin.join("comb")).unwrap().len(),
        std::fs::metadata(env!("CARGO_BIN_EXE_comb")).unwrap().len() as usize
    );
    attic.until(SOON, "told", |_| told()["state"] == "gone_back" && told()["number"] == 3);
    assert_eq!(
        code(&order(update(owner, &account, 3, bad), SOON)),
        "update_rolled_back",
        "never tried again"
    );
    assert_eq!(attic.containers(), containers, "the app was not touched");
    let written = records(&log);
    std::thread::sleep(Duration::from_secs(2));
    assert!(records(&log) > written);
}
