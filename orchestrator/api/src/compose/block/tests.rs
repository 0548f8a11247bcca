//! What blocks are read, and what values they take.

use proptest::prelude::*;

use super::read::{bytes, seconds};
use super::*;
use crate::yaml;

fn read(text: &str) -> Result<Block, Vec<String>> {
    let node = yaml::parse(text.as_bytes()).expect("is YAML");
    Block::read(&node, "compose.yaml").map_err(|all| all.iter().map(|one| one.to_string()).collect())
}

fn option(text: &str) -> Setting {
    read(&format!("options: [{{name: it, {text}}}]")).expect("is a block").options.remove(0)
}

#[test]
fn a_value_is_checked_by_its_type() {
    type Values<'a> = &'a [&'a str];
    let table: &[(&str, Values<'_>, Values<'_>)] = &[
        ("type: string", &["", "a b", "ü", "$(id)", "-x"], &["a\nb", "a\0b", "\u{1b}[0m"]),
        ("type: text", &["a\nb\tc", ""], &["a\0b", "a\rb"]),
        (
            "type: number",
            &["0", "-5", "9007199254740992"],
            &["", "1.5", "+1", "01", "1e3", "9007199254740993", "٣"],
        ),
        ("type: flag", &["true", "false"], &["yes", "True", "1", ""]),
        ("type: port", &["1", "65535"], &["0", "65536", "-1", "080", ""]),
        ("type: email", &["a@b.org"], &["a", "a@b@c", "-a@b", "a b@c"]),
        ("type: path", &["/", "/a/b"], &["a", "/a/../b", "/..", "", "/a\n"]),
        ("type: secret", &["x"], &["a\nb"]),
        ("type: enum, values: [a, b c]", &["a", "b c"], &["c", "", "A"]),
        ("pattern: '[a-z]+'", &["abc"], &["", "abc1", "ABC", "abc\n"]),
        ("pattern: 'a|b'", &["a", "b"], &["ab", "xa", "bx"]),
    ];
    for (text, good, bad) in table {
        let option = option(text);
        for value in *good {
            assert_eq!(option.check(value), Ok(()), "{text}: {value:?}");
        }
        for value in *bad {
            let problem = option.check(value).expect_err("is refused").to_string();
            assert!(problem.starts_with("\"it\" "), "{text}: {value:?}: {problem}");
        }
        assert!(option.check(&"a".repeat(4097)).is_err());
    }
}

#[test]
fn a_pattern_cannot_take_long() {
    assert!(read("options: [{name: a, pattern: '(((a{1,1000}){1,1000}){1,1000})'}]").is_err());
    // What makes others go back and forth for ever is linear here.
    let option = option("pattern: '(a+)+$'");
    let begun = std::time::Instant::now();
    assert!(option.check(&format!("{}b", "a".repeat(4000))).is_err());
    assert!(begun.elapsed().as_secs() < 5);
}

#[test]
fn a_secret_is_generated_and_never_has_a_default() {
    assert!(option("type: secret").default.is_none() && !option("type: secret").is_required());
    assert!(option("type: string").is_required() && !option("type: string, default: ''").is_required());
    let secret = generate_secret(&std::array::from_fn(|at| (at * 11) as u8));
    assert!(secret.len() == 24 && secret.bytes().all(|byte| byte.is_ascii_alphabetic()));
    assert_eq!(
        read("options: [{name: a, type: secret, default: x}]"),
        Err(vec!["compose.yaml:1: \"a\" is a secret, and everybody would know its default".to_owned()])
    );
    assert_eq!(
        read("web: http://##a##/\noptions: [{name: a, type: secret}]"),
        Err(vec!["compose.yaml:1: \"a\" is a secret, and this address is shown".to_owned()])
    );
}

#[test]
fn options_are_chosen_by_default_or_by_people() {
    let block = read(
        "options: [{name: a, default: x}, {name: b, type: port}, {name: c, type: secret}, {name: d, type: flag, default: false}]",
    )
    .expect("is a block");
    let given = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let chosen = block.choose(&given(&[("b", "80"), ("d", "true"), ("DB_PASSWORD", "p")])).expect("fits");
    assert_eq!(chosen.values, given(&[("DB_PASSWORD", "p"), ("a", "x"), ("b", "80"), ("d", "true")]));
    assert_eq!(
        (chosen.to_generate.as_slice(), format!("{chosen:?}").as_str()),
        (&["c".to_owned()][..], "Chosen")
    );
    let wrong =
        block.choose(&given(&[("d", "yes"), ("PATH", "/x"), ("COMB_APP", "x")])).expect_err("does not fit");
    let told: Vec<_> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "\"COMB_APP\" is no variable that can be chosen",
            "\"PATH\" is no variable that can be chosen",
            "\"b\" needs a value",
            "\"d\" must be true or false",
        ]
    );
}

#[test]
fn an_address_is_filled_with_what_is_known() {
    let block =
        read("web: http://##ip##:##web_port##/##room##?d=##domain##\noptions: [{name: room, default: hall}]")
            .expect("is a block");
    let none = BTreeMap::new();
    assert_eq!(
        block.address("192.0.2.1", Some(8080), Some("a.example.org"), &none).as_deref(),
        Some("http://192.0.2.1:8080/hall?d=a.example.org")
    );
    assert_eq!(block.address("192.0.2.1", None, Some("a"), &none), None);
    assert_eq!(read("web: 'http://##ip##/##'").expect_err("is odd").len(), 1);
    assert_eq!(Block::default().address("192.0.2.1", None, None, &none), None);
}

#[test]
fn an_action_takes_values_as_whole_arguments() {
    let block = read(
        "actions:\n  add: {service: web, argv: [add, '{user}', --mail, '{mail}', '{other}'], input: {user: name, mail: email, password: text}}\n",
    )
    .expect("is a block");
    let action = &block.actions["add"];
    let values = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let (argv, input) = action
        .fill(&values(&[("user", "anna"), ("mail", "a@b.org"), ("password", "{user} $(id)")]))
        .expect("the values fit");
    assert_eq!(argv, ["add", "anna", "--mail", "a@b.org", "{other}"]);
    assert_eq!(input.as_deref(), Some("{user} $(id)"));
    for (name, value) in
        [("user", "-rf"), ("user", "a b"), ("mail", "x"), ("password", "a\nb"), ("more", "x")]
    {
        let mut all: BTreeMap<String, String> =
            values(&[("user", "anna"), ("mail", "a@b.org"), ("password", "x")]);
        all.insert(name.to_owned(), value.to_owned());
        assert_eq!(action.fill(&all).expect_err("is refused").name, name);
    }
    assert_eq!(action.fill(&values(&[("user", "anna")])).expect_err("two are missing").problem, "is missing");
}

#[test]
fn lengths_and_sizes_are_read() {
    for (text, expected) in [("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800), ("0s", 0)] {
        assert_eq!(seconds(text), Some(expected), "{text}");
    }
    for text in ["", "5", "s", "-1s", "1.5h", "1y", "99999999999999999999s", "9999999999999999999w", "5ü"] {
        assert_eq!(seconds(text), None, "{text}");
    }
    for (text, expected) in
        [("1", 1), ("10k", 10_240), ("5 MiB", 5 << 20), ("10G", 10 << 30), ("2TB", 2 << 40)]
    {
        assert_eq!(bytes(text), Some(expected), "{text}");
    }
    for text in ["", "0", "G", "-1G", "1.5G", "1E", "99999999999999999999", "9999999T"] {
        assert_eq!(bytes(text), None, "{text}");
    }
}

#[test]
fn the_older_manifest_is_read() {
    let manifest = "\
exposed_methods:
- Install
- Restart
method_options:
  Install:
  - default_value: \"\"
    hint: \"\"
    name: password
    type: string
  - default_value: bytesized
    hint: \"\"
    name: username
    type: string
  - default_value: /home/bytesized/data
    hint: \"\"
    name: data_folder
    type: string
  Restart:
  - default_value: \"\"
    hint: \"\"
    name: container_id
    type: string
name: Deluge
rpc_name: DelugeRPC
show_options:
- username
- password
- web_port
- daemon_port
- data_folder
version: 1
web_url_format: http://##ip##:##web_port##/
";
    let (block, notes) = Block::from_manifest(manifest.as_bytes(), "deluge.yaml").expect("is a manifest");
    let names: Vec<_> = block.options.iter().map(|option| option.name.as_str()).collect();
    assert_eq!(names, ["password", "username", "data_folder"]);
    assert_eq!(block.options[1].default.as_deref(), Some("bytesized"));
    assert_eq!(block.show, ["username", "password", "web_port", "data_folder"]);
    assert_eq!(block.version.as_deref(), Some("1"));
    assert_eq!(
        block.address("192.0.2.1", Some(8112), None, &BTreeMap::new()).as_deref(),
        Some("http://192.0.2.1:8112/")
    );
    assert_eq!(notes.len(), 1);
    assert_eq!(
        notes[0].to_string(),
        "deluge.yaml:29: \"daemon_port\" is shown, but is no option of \"Install\""
    );
    let wrong = Block::from_manifest(b"show_option: [a]\n", "m.yaml").expect_err("has an unknown key");
    assert_eq!(
        wrong[0].to_string(),
        "m.yaml:1: \"show_option\" is not a key of a manifest; did you mean \"show_options\"?"
    );
}

proptest! {
    #[test]
    fn any_block_is_read_or_refused(text in "(options|show|web|actions|health|update|volumes|hooks|entry): [\\[\\]{}a-z:,0-9#' ]{0,60}") {
        if let Ok(node) = yaml::parse(text.as_bytes()) {
            let _ = Block::read(&node, "compose.yaml");
        }
        let _ = Block::from_manifest(text.as_bytes(), "manifest.yaml");
    }

    #[test]
    fn any_length_or_size_is_read_or_refused(text in "[0-9]{0,22}[a-zA-Zü ]{0,3}[0-9]{0,3}[smhd]?") {
        let _ = (seconds(&text), bytes(&text));
    }
}
