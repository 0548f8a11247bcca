//! What `comb doctor` says where something is wrong, as whoever looks for help reads it.

use serde_json::Value;

use super::faults::engine;
use super::home::Home;

/// What was looked at, whether it is well, and the words.
pub fn looked(home: &Home) -> Vec<(String, bool, String)> {
    let output = home.comb(&["doctor", "--json"]);
    let checks: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |one: &Value| one.as_str().unwrap().to_owned();
    let one = |check: &Value| (text(&check["what"]), check["ok"] == true, text(&check["text"]));
    let checks: Vec<_> = checks.as_array().unwrap().iter().map(one).collect();
    assert_eq!(output.status.code(), Some(i32::from(checks.iter().any(|(_, ok, _)| !ok))), "{checks:?}");
    checks
}

/// The words of what is wrong with something, which must hold each of these.
#[track_caller]
fn wrong(home: &Home, what: &str, words: &[&str]) {
    let checks = looked(home);
    let found = checks
        .iter()
        .find(|(name, ok, text)| name == what && !ok && words.iter().all(|word| text.contains(word)));
    let (.., text) = found.unwrap_or_else(|| panic!("{what} is not told with {words:?}: {checks:#?}"));
    eprintln!("WRONG  {what:<10} {text}");
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn whatever_is_wrong_around_a_device_is_told_with_what_to_do() {
    let mut home = Home::new();
    home.done(&["account", "kit", "--out", "kit", "--passphrase-file", "passphrase"]);
    let checks = looked(&home);
    assert!(checks.iter().all(|(_, ok, _)| *ok), "a device where nothing is wrong: {checks:#?}");
    for what in ["fuse", "docker", "compose", "key ring", "disk", "clock", "hive"] {
        assert!(checks.iter().any(|(name, ..)| name == what), "{what} is not looked at: {checks:#?}");
    }

    engine("halt");
    home.until("told", |home| looked(home).iter().any(|(what, ok, _)| what == "docker" && !ok));
    wrong(&home, "docker", &["start"]);
    engine("resume");
    home.until("well", |home| looked(home).iter().all(|(_, ok, _)| *ok));

    home.away();
    home.until("told", |home| looked(home).iter().filter(|(what, ok, _)| what == "hive" && !ok).count() == 2);
    let address = home.address.clone();
    wrong(&home, "hive", &[&address, "`auto`", "last heard"]);
    home.crash_device();
    wrong(&home, "device", &["does not run", "comb device run"]);
}
