//! Apps as a person adds them, at a real hive. What needs compose, Docker or a device is run by `.ci/test`.

use std::fs;

use crate::hive_stage::Hive;
use crate::world::World;

/// An owner with a key ring and a store.
fn ready(hive: &Hive) -> World {
    let owner = hive.owner();
    owner.private("passphrase", "correct horse battery staple");
    owner.comb("key ring init --passphrase-file passphrase").done();
    owner.comb("account store add s3://bucket/comb").done();
    owner
}

fn folder(world: &World, name: &str, compose: &str) {
    fs::write(world.dir(name).join("compose.yaml"), compose).expect("written");
}

#[test]
fn what_a_file_may_not_say_is_told_with_its_line_before_anything_is_sent() {
    let hive = Hive::start();
    let owner = ready(&hive);
    folder(
        &owner,
        "photos",
        "services:\n  web:\n    image: nginx\n    volums: [a]\n    env_file: ../other.env\n",
    );
    let refused = owner.comb("app add photos");
    assert!(refused.said.contains("compose.yaml:5: "), "every mistake is told: {}", refused.said);
    refused.refused(8, "compose.yaml:4: \"volums\" is not a key of a service");

    folder(
        &owner,
        "asks",
        "x-comb:\n  options:\n    - {name: title, hint: What it is called}\nservices:\n  web:\n    image: nginx\n",
    );
    owner.comb("app add asks").refused(2, "title (What it is called)");
    folder(&owner, "unset", "services:\n  web:\n    image: nginx:$VERSION\n");
    owner.comb("app add unset").refused(8, "compose.yaml:3: ");
    owner.comb("app add nowhere").refused(3, "nowhere");
    owner.dir("empty");
    owner.comb("app add empty").refused(3, "has no compose.yaml");
    owner.comb("app add photos --name Photos").refused(8, "compose.yaml:4");
    assert_eq!(owner.comb("app list --json").json(), serde_json::json!([]));
}

#[test]
fn what_is_missing_is_named_with_the_command_that_makes_it() {
    let hive = Hive::start();
    let owner = hive.owner();
    folder(&owner, "photos", "services:\n  web:\n    image: nginx\n");
    let refused = owner.comb("app add photos");
    assert!(refused.said.contains("comb account store add"), "{}", refused.said);
    refused.refused(3, "no store");
    owner.comb("account store add s3://bucket/comb").done();
    let refused = owner.comb("app add photos");
    assert!(refused.said.contains("comb key ring init"), "{}", refused.said);
    refused.refused(3, "no key ring");
    owner.comb("app add photos --device attic").refused(3, "no device \"attic\"");
    owner.comb("app add photos --allow cap:SYS_ADMIN").refused(2, "cannot be granted");
}

#[test]
#[ignore = "needs docker compose"]
fn a_package_goes_to_the_hive_signed_and_sealed() {
    let hive = Hive::start();
    let owner = ready(&hive);
    let digest = "1".repeat(64);
    let compose = format!(
        "x-comb:\n  options:\n    - {{name: title}}\n    - {{name: db_password, type: secret}}\nservices:\n  web:\n    image: nginx@sha256:{digest}\n    environment: {{T: $title, P: $db_password}}\n    cap_add: [NET_ADMIN]\n    volumes: [\"data:/data\"]\nvolumes: {{data: }}\n"
    );
    folder(&owner, "photos", &compose);
    owner.private("values", "title=canary of a title\n");
    owner.comb("app add photos --set-from values").refused(8, "NET_ADMIN lets it change its own network");
    // No device is there to take it, which the hive says once it has the package.
    let added = owner.comb("app add photos --set-from values --allow cap:NET_ADMIN");
    assert_ne!(added.code, 0);
    for file in ["hive.db", "hive.db-wal"] {
        let bytes = fs::read(hive.path(file)).unwrap_or_default();
        for canary in ["canary of a title", "db_password"] {
            assert!(
                !bytes.windows(canary.len()).any(|window| window == canary.as_bytes()),
                "{canary} in {file}"
            );
        }
    }
}
