//! People at a real hive: accounts, logins, tokens, invitations, stores, the key ring, codes for devices.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::hive_stage::{Hive, PASSWORD};
use crate::world::World;

const PASSPHRASE: &str = "correct horse battery staple";

#[test]
fn the_first_account_takes_the_setup_code_once() {
    let hive = Hive::start();
    let world = World::new();
    world.private("wrong", "AAAAAAAA-AAAAAAAA-AAAAAAAA-AAAAAAAA");
    world.private("setup", &hive.setup_code);
    world.private("password", PASSWORD);
    world.private("short", "too short");
    let create = |code: &str, password: &str| {
        world
            .comb(&format!("account create {} --setup-code-file {code} --password-file {password}", hive.url))
    };
    world.private("any", PASSWORD);
    world.comb(&format!("login {} --name owner --password-file any", hive.url)).refused(4, "no account yet");
    create("wrong", "password").refused(8, "the code that the hive printed");
    create("setup", "short").refused(2, "at least 12");
    create("setup", "password").done();
    create("setup", "password").refused(4, "has an account already");

    let kept = world.path("state/hive.json");
    let mode = fs::metadata(&kept).expect("the login is kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let shown = world.comb("account show --json").json();
    assert_eq!((shown["name"].as_str(), shown["role"].as_str()), (Some("owner"), Some("owner")));
    assert_eq!(shown["account"]["title"], "Home");
    assert!(shown["account"]["ring_account"].is_null(), "there is no ring yet");
}

#[test]
fn a_login_ends_where_it_is_ended() {
    let hive = Hive::start();
    let owner = hive.owner();
    owner.private("other", "not the password at all");
    owner.comb("account logout").done();
    owner.comb("account show").refused(3, "knows no hive");
    let login = |file: &str| owner.comb(&format!("login {} --name owner --password-file {file}", hive.url));
    login("other").refused(8, "name or password is wrong");
    login("password").done();

    // A token that was ended elsewhere is told, with what to do.
    let other = World::new();
    other.private("password", PASSWORD);
    other.comb(&format!("login {} --name owner --password-file password", hive.url)).done();
    let tokens = other.comb("account tokens --json").json();
    let tokens = tokens.as_array().expect("a list");
    assert_eq!(tokens.len(), 2);
    let theirs = tokens.iter().find(|token| token["this"] == false).expect("the other one");
    other.comb(&format!("account tokens remove {}", theirs["id"].as_str().expect("an id"))).done();
    let refused = owner.comb("account show");
    assert!(refused.said.contains("comb login"), "{}", refused.said);
    assert_eq!(refused.code, 8);

    other.private("new", "a new password of mine");
    other.comb("account password --old-password-file password --password-file new").done();
    login("password").refused(8, "name or password is wrong");
    owner.private("new", "a new password of mine");
    login("new").done();
}

#[test]
fn a_token_for_a_script_may_what_it_was_made_for() {
    let hive = Hive::start();
    let owner = hive.owner();
    let token = owner.comb("account tokens make backups --role viewer").done();
    assert!(token.starts_with("comb_"), "it is printed once");
    assert!(!owner.comb("account tokens").done().contains(token.trim()));

    let script = World::new();
    fs::create_dir_all(script.path("state")).expect("a folder");
    let mut kept: serde_json::Value =
        serde_json::from_slice(&fs::read(owner.path("state/hive.json")).expect("kept")).expect("JSON");
    kept["logins"][0]["token"] = token.trim().into();
    script.private("state/hive.json", &kept.to_string());
    script.comb("device list").done();
    script.comb("device code").refused(8, "");
}

#[test]
fn guests_may_what_their_role_says() {
    let hive = Hive::start();
    let owner = hive.owner();
    let guest = hive.guest(&owner, "anna", "viewer");
    assert_eq!(guest.comb("account show --json").json()["role"], "viewer");
    hive.accept(&guest, "bert").refused(8, "");
    guest.comb("app list").done();
    guest.comb("device code").refused(8, "");
    guest.comb("account people").refused(8, "");

    owner.comb("account people set anna operator").done();
    let people = owner.comb("account people --json").json();
    let anna = people["people"].as_array().expect("people").iter().find(|one| one["name"] == "anna");
    assert_eq!(anna.expect("she is there")["role"], "operator");
    owner.comb("account people set owner viewer").refused(4, "");
    owner.comb("account people remove anna").done();
    guest.comb("app list").refused(8, "");

    owner.comb("account invite --role operator").done();
    let open = owner.comb("account people --json").json();
    let id = open["invitations"][0]["id"].as_str().expect("an open invitation").to_owned();
    owner.comb(&format!("account people remove {id}")).done();
    assert_eq!(owner.comb("account people --json").json()["invitations"], serde_json::json!([]));
}

#[test]
fn two_accounts_do_not_see_each_other() {
    let hive = Hive::start();
    let owner = hive.owner();
    let letters = owner.comb("account invite --new-account").done();
    let other = World::new();
    other.private("invite", &letters);
    other.private("password", "another long password");
    other
        .comb(&format!(
            "account accept {} --name owner --title Cellar --invite-file invite --password-file password",
            hive.url
        ))
        .done();
    owner.comb("account store add s3://bucket/attic").done();
    assert_eq!(other.comb("account store --json").json(), serde_json::json!([]));
    let people = other.comb("account people --json").json();
    assert_eq!(people["people"].as_array().expect("people").len(), 1);
}

#[test]
fn plain_http_goes_to_this_machine_only() {
    let world = World::new();
    world.private("password", PASSWORD);
    let login = |words: &str| world.comb(&format!("login {words} --name owner --password-file password"));
    login("http://192.0.2.1:8420").refused(2, "another machine");
    login("ftp://192.0.2.1").refused(2, "no address");
    // Where nobody listens, it is said that nobody answers.
    login("http://127.0.0.1:9").refused(10, "does not answer");
    assert!(!world.path("state/hive.json").exists());
}

#[test]
fn a_store_is_known_to_the_hive_and_its_credentials_are_not() {
    let hive = Hive::start();
    let owner = hive.owner();
    owner.private("passphrase", PASSPHRASE);
    owner.private("aws", "[default]\naws_access_key_id = CANARYID\naws_secret_access_key = CANARYSECRET\n");
    owner.comb("account store add file:///mnt/nas/comb").refused(2, "folder of one machine");
    owner.comb("account store add s3://bucket/comb --credentials-file aws").refused(3, "no key ring yet");
    owner.comb("key ring init --passphrase-file passphrase").done();
    owner.comb("account store add s3://bucket/comb --credentials-file aws").done();
    owner.comb("account store add file:///mnt/nas/comb --shared").done();
    let stores = owner.comb("account store --json").json();
    assert_eq!(stores.as_array().expect("a list").len(), 2);
    assert!(owner.comb("key ring show").done().contains("s3://bucket/comb/, with its credentials"));
    owner.comb("account store remove file:///mnt/nas/comb").done();
    assert_eq!(owner.comb("account store --json").json().as_array().expect("a list").len(), 1);

    // Neither in the database nor beside it.
    for file in ["hive.db", "hive.db-wal"] {
        let bytes = fs::read(hive.path(file)).unwrap_or_default();
        for canary in ["CANARYID", "CANARYSECRET", PASSPHRASE] {
            assert!(
                !bytes.windows(canary.len()).any(|window| window == canary.as_bytes()),
                "{canary} in {file}"
            );
        }
    }
}

#[test]
fn another_machine_takes_the_key_ring_from_the_hive() {
    let hive = Hive::start();
    let owner = hive.owner();
    owner.private("passphrase", PASSPHRASE);
    owner.comb("key ring init --passphrase-file passphrase").done();
    owner.comb("volume create photos").done();
    owner.comb("account kit --out kit").done();
    let ring = owner.comb("account show --json").json()["account"]["ring_account"].clone();
    assert!(ring.is_string());

    let laptop = World::new();
    laptop.private("password", PASSWORD);
    laptop.private("passphrase", PASSPHRASE);
    laptop.private("wrong", "another passphrase entirely");
    laptop.comb(&format!("login {} --name owner --password-file password", hive.url)).done();
    laptop.comb("account kit --out kit --passphrase-file wrong").refused(6, "does not open");
    laptop.comb("account kit --out kit --passphrase-file passphrase").done();
    let shown = laptop.comb("key ring show --json").json();
    assert_eq!(shown["account"], ring);
    assert_eq!(shown["keys"][0]["name"], "photos");

    // What each of them adds, both have afterwards; the passphrase that the owner sets is the account's.
    laptop.comb("volume create music").done();
    laptop.comb("account kit --out second").done();
    owner.private("new", "six other random words, not these");
    owner.comb("account passphrase --new-passphrase-file new").done();
    let keys = owner.comb("key ring show --json").json()["keys"].as_array().expect("keys").len();
    assert_eq!(keys, 2);
    let third = World::new();
    third.private("password", PASSWORD);
    third.private("passphrase", "six other random words, not these");
    third.comb(&format!("login {} --name owner --password-file password", hive.url)).done();
    third.comb("account kit --out kit --passphrase-file passphrase").done();

    // Another account's ring is no ring of this one.
    let stranger = World::new();
    stranger.private("password", PASSWORD);
    stranger.private("passphrase", "somebody else's long words");
    stranger.comb("key ring init --passphrase-file passphrase").done();
    stranger.comb(&format!("login {} --name owner --password-file password", hive.url)).done();
    stranger.comb("account kit --out kit").refused(6, "not that of the account");
}

#[test]
fn a_code_for_a_device_is_of_the_hive_that_one_logged_in_at() {
    let hive = Hive::start();
    let owner = hive.owner();
    let line = owner.comb("device code --name attic").done();
    assert!(line.starts_with("comb device join "), "{line}");
    assert!(owner.comb("device code --docker").done().starts_with("docker run "));
    let made = owner.comb("device code --json").json();
    assert!(line.contains(&hive.url) && made["code"].as_str().expect("a code").len() > 84);
    owner.comb("device list").done();
    owner.comb("device show attic").refused(3, "no device");

    // Somebody answers in its place.
    let kept = owner.path("state/hive.json");
    let text = fs::read_to_string(&kept).expect("kept");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["logins"][0]["key"] = "11".repeat(32).into();
    fs::write(&kept, json.to_string()).expect("written");
    owner.comb("device code").refused(6, "not of the hive");
    owner.comb(&format!("login {} --name owner --password-file password", hive.url)).refused(6, "has key");
}

#[test]
fn what_is_not_there_is_told() {
    let hive = Hive::start();
    let owner = hive.owner();
    for words in
        ["app show x", "app start x", "app logs x", "app log x", "app move x --to y", "app remove x --yes"]
    {
        owner.comb(words).refused(3, "there is no app \"x\"");
    }
    owner.comb("operation show 12345678").refused(3, "no operation");
    assert_eq!(owner.comb("operation list --json").json(), serde_json::json!([]));
    assert_eq!(owner.comb("app list --json").json(), serde_json::json!([]));
    owner.comb("app policy x").refused(2, "what is to change");
}
