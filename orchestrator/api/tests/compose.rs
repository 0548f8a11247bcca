//! The policy over compose files, on what `docker compose` really answered.
//!
//! `fixtures/compose/rows.txt` has a row for each line of the table in `security.md`, section 6, allowed and refused,
//! and for each trick; `fixtures/compose/apps` has folders as projects show them on their own sites. Both hold compose's
//! answer, made by `fixtures/compose/normalise`, and what the policy must say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use orchestrator_api::compose::{
    Files, Folder, Given, Mount, Owner, Plan, PlannedVolume, Restart, Source, VolumeKind, check, keys,
};
use orchestrator_api::package::Authorization;
use proptest::prelude::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/compose")
}

/// What the device fills in for every row and app.
fn device() -> BTreeMap<String, String> {
    [
        ("APP_VOLUME_NAME", "comb-app"),
        ("LINK_VOLUME_NAME", "comb-link"),
        ("LINK_DOMAIN_DEFAULT", "hasty-hopper.example.org"),
        ("LINK_TOKEN_DEFAULT", "token-of-the-link"),
        ("HOME", "/home/me"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Permissions and adopted volumes, as a row or an app's `given.env` names them.
fn given(words: &str, variables: BTreeMap<String, String>) -> Given {
    let mut given = Given {
        folder: "/app".to_owned(),
        variables,
        comb_folders: vec!["/apps".to_owned(), "/var/lib/comb".to_owned()],
        ..Given::default()
    };
    for word in words.split_whitespace() {
        match word.strip_prefix("adopt=") {
            Some(docker) => given.adopted.insert(docker.to_owned()),
            None => given.permissions.insert(word.parse().expect("the example names a permission")),
        };
    }
    given
}

/// What is told about a folder, line by line.
fn told(files: &Files, main: &str, config: Option<&[u8]>, given: &Given) -> String {
    let mut out = String::new();
    let names: BTreeSet<String> = given.variables.keys().cloned().collect();
    let source = match Source::read(Folder { files, main }, &names) {
        Ok(source) => source,
        Err(refusals) => {
            for one in refusals {
                let hint = one.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                writeln!(out, "refused {} {}: {}{hint}", one.place, one.field, one.message)
                    .expect("a string takes it");
            }
            return out;
        }
    };
    let Some(config) = config else { return "nothing is refused in the text\n".to_owned() };
    let verdict = check(&source, config, given);
    for one in &verdict.refusals {
        let hint = one.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        writeln!(out, "refused {} {}: {}{hint}", one.place, one.field, one.message)
            .expect("a string takes it");
    }
    for ask in &verdict.asks {
        let word = if ask.granted { "granted" } else { "asks" };
        writeln!(out, "{word} {} {} {}: {}", ask.permission, ask.place, ask.field, ask.message)
            .expect("a string takes it");
    }
    for note in &verdict.notes {
        writeln!(out, "note {note}").expect("a string takes it");
    }
    if let Ok(plan) = verdict.accept() {
        tell_plan(&plan, &mut out);
    }
    out
}

fn tell_plan(plan: &Plan, out: &mut String) {
    for service in &plan.services {
        let image = service.image.as_deref().unwrap_or("built here");
        let mut line = format!("service {} {image}", service.name);
        if service.build {
            line += " build";
        }
        line += match service.restart {
            Restart::No => "",
            Restart::OnFailure(_) => " on-failure",
            Restart::Always => " always",
            Restart::UnlessStopped => " unless-stopped",
        };
        if let Some(pids) = service.pids {
            line += &format!(" pids {pids}");
        }
        out.push_str(&format!("{line}{}\n", tell_owner(&service.owner)));
    }
    for volume in &plan.volumes {
        tell_volume(volume, out);
    }
    for port in &plan.ports {
        let wish = port.wish.map(|wish| format!(" wish {wish}")).unwrap_or_default();
        let loopback = if port.loopback { " loopback" } else { "" };
        out.push_str(&format!("port {} {}/{}{wish}{loopback}\n", port.service, port.port, port.protocol));
    }
    for file in &plan.files {
        out.push_str(&format!("file {} {}:{}\n", file.path, file.service, file.target));
    }
    for network in &plan.networks {
        out.push_str(&format!("network {network}\n"));
    }
}

fn tell_owner(owner: &Owner) -> String {
    match owner {
        Owner::Image => String::new(),
        Owner::Numbers { uid, gid } => format!(" owner {uid}:{gid}"),
        Owner::Named { user, group } => format!(" owner {user}:{}", group.as_deref().unwrap_or("-")),
    }
}

fn tell_volume(volume: &PlannedVolume, out: &mut String) {
    let kind = match &volume.kind {
        VolumeKind::Named => "named".to_owned(),
        VolumeKind::App => "app".to_owned(),
        VolumeKind::Link => "link".to_owned(),
        VolumeKind::Adopted { docker } => format!("adopted {docker}"),
        VolumeKind::Folder { path, seed, owner } => {
            format!("folder ./{path}{}{}", if *seed { " seeded" } else { "" }, tell_owner(owner))
        }
    };
    out.push_str(&format!("volume {} {kind}", volume.name));
    for Mount { service, target, subpath, read_only } in &volume.mounts {
        let subpath = subpath.as_ref().map(|path| format!(" of {path}")).unwrap_or_default();
        out.push_str(&format!(" {service}:{target}{subpath}{}", if *read_only { " ro" } else { "" }));
    }
    out.push('\n');
}

struct Row {
    text: String,
    name: String,
    files: Files,
    main: String,
    config: Option<String>,
    given: String,
    told: String,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(fixtures().join("rows.txt")).expect("the rows are there");
    let mut rows = Vec::new();
    for text in text.split("=== ").filter(|text| !text.is_empty()) {
        let mut sections = text.split("\n--- ");
        let name = sections.next().expect("a split has a first part").trim().to_owned();
        let mut row = Row {
            text: text.to_owned(),
            name,
            files: Files::new(),
            main: String::new(),
            config: None,
            given: String::new(),
            told: String::new(),
        };
        for section in sections {
            let (title, body) = section.split_once('\n').unwrap_or((section, ""));
            match title.split(' ').next() {
                Some("config") => row.config = Some(body.to_owned()),
                Some("given") => row.given = title.trim_start_matches("given ").to_owned(),
                Some("told") => row.told = body.trim_end().to_owned(),
                _ => {
                    if row.main.is_empty() {
                        row.main = title.to_owned();
                    }
                    row.files.insert(title.to_owned(), format!("{body}\n").into_bytes());
                }
            }
        }
        rows.push(row);
    }
    rows
}

impl Row {
    fn answer(&self) -> String {
        let config = self.config.as_ref().map(|config| config.as_bytes());
        told(&self.files, &self.main, config, &given(&self.given, device()))
    }
}

#[test]
fn every_row_of_the_table_is_told_as_the_documents_say() {
    let rows = rows();
    assert!(rows.len() > 100, "the rows were read");
    let mut wrong = String::new();
    for row in &rows {
        let answer = row.answer();
        assert!(!row.told.is_empty(), "{}: says what is expected", row.name);
        if answer.trim_end() != row.told {
            write!(wrong, "\n=== {}\nexpected\n{}\ntold\n{answer}", row.name, row.told)
                .expect("a string takes it");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A folder below `fixtures/compose/apps`.
struct App {
    folder: PathBuf,
    files: Files,
    main: String,
    given: Given,
}

fn apps() -> Vec<App> {
    let mut folders: Vec<_> = fs::read_dir(fixtures().join("apps"))
        .expect("the apps are there")
        .map(|entry| entry.expect("the folder can be listed").path())
        .collect();
    folders.sort();
    folders.into_iter().map(app).collect()
}

fn app(folder: PathBuf) -> App {
    let mut files = Files::new();
    let mut open = vec![folder.clone()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path
                .strip_prefix(&folder)
                .expect("it was found there")
                .to_str()
                .expect("is UTF-8")
                .to_owned();
            if !["config.json", "told.txt", "given.env"].contains(&name.as_str()) {
                files.insert(name, fs::read(&path).expect("the file can be read"));
            }
        }
    }
    let mut variables = device();
    let mut words = String::new();
    for line in fs::read_to_string(folder.join("given.env")).unwrap_or_default().lines() {
        match (line.strip_prefix("# allow "), line.split_once('=')) {
            (Some(permissions), _) => words = permissions.to_owned(),
            (None, Some((name, value))) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            (None, None) => {}
        }
    }
    let main = ["compose.yaml", "docker-compose.yml", "docker-compose.yaml"]
        .into_iter()
        .find(|name| files.contains_key(*name))
        .expect("an app has a compose file")
        .to_owned();
    App { folder, files, main, given: given(&words, variables) }
}

impl App {
    fn answer(&self) -> String {
        let config = fs::read(self.folder.join("config.json")).expect("compose's answer is there");
        told(&self.files, &self.main, Some(&config), &self.given)
    }
}

#[test]
fn apps_as_their_projects_show_them_are_taken_as_expected() {
    let apps = apps();
    assert!(apps.len() >= 6, "the apps were found");
    for app in apps {
        let expected = fs::read_to_string(app.folder.join("told.txt")).expect("says what is expected");
        assert_eq!(app.answer(), expected, "{}", app.folder.display());
    }
}

/// Writes down what is told now, for a person to read before it is kept: `cargo test -p orchestrator-api --test
/// compose -- --ignored`.
#[test]
#[ignore = "writes what the others compare with"]
fn write_what_is_told() {
    let mut text = String::new();
    for row in rows() {
        let (before, _) = row.text.split_once("--- told\n").expect("a row says what is told");
        write!(text, "=== {before}--- told\n{}\n", row.answer()).expect("a string takes it");
    }
    fs::write(fixtures().join("rows.txt"), text).expect("the rows can be written");
    for app in apps() {
        fs::write(app.folder.join("told.txt"), app.answer()).expect("the file can be written");
    }
}

/// Words that no permission gives, each for one service.
fn never() -> Vec<(&'static str, serde_json::Value)> {
    use serde_json::json;
    let bind = |source: &str| json!([{"type": "bind", "source": source, "target": "/x", "read_only": true}]);
    vec![
        ("privileged", json!(true)),
        ("privileged", json!("true")),
        ("pid", json!("host")),
        ("ipc", json!("host")),
        ("uts", json!("host")),
        ("userns_mode", json!("host")),
        ("cgroup", json!("host")),
        ("network_mode", json!("container:x")),
        ("use_api_socket", json!(true)),
        ("cap_add", json!(["SYS_ADMIN"])),
        ("cap_add", json!(["CHOWN", "cap_all"])),
        ("devices", json!([{"source": "/dev/sda", "target": "/dev/x"}])),
        ("security_opt", json!(["seccomp=unconfined"])),
        ("device_cgroup_rules", json!(["a *:* rwm"])),
        ("runtime", json!("sysbox")),
        ("volumes", bind("/var/run/docker.sock")),
        ("volumes", bind("/")),
        ("volumes", bind("/etc")),
        ("volumes", bind("/app/../etc")),
        ("volumes", bind("/var/lib/comb")),
        ("volumes", json!([{"type": "volume", "source": "/var/run/docker.sock", "target": "x"}])),
        ("volumes_from", json!(["container:x"])),
        ("logging", json!({"driver": "gelf"})),
        ("labels", json!({"io.comb.app": "x"})),
        ("post_start", json!([{"command": ["id"], "privileged": true}])),
        ("build", json!({"context": "/etc"})),
        ("superpower", json!(1)),
        // Forms that compose does not answer with today.
        ("cap_add", json!("SYS_ADMIN")),
        ("cap_add", json!({"0": "SYS_ADMIN"})),
        ("cap_add", json!([["SYS_ADMIN"]])),
        ("devices", json!({"source": "/dev/sda"})),
        ("devices", json!([["/dev/sda"]])),
        ("security_opt", json!("seccomp=unconfined")),
        ("volumes", json!({"type": "bind", "source": "/etc", "target": "/x"})),
        ("volumes", json!(["/etc:/x"])),
        ("volumes", json!([{"type": "volume", "source": "undeclared", "target": "/x"}])),
        (
            "volumes",
            json!([{"type": "bind", "source": "/app/x", "target": "/x", "bind": {"propagation": ["rshared"]}}]),
        ),
        ("volumes_from", json!("container:x")),
        ("volumes_from", json!([["container:x"]])),
        ("sysctls", json!("kernel.msgmax=1")),
        ("sysctls", json!([["kernel.msgmax=1"]])),
        ("labels", json!("io.comb.app=x")),
        ("labels", json!([["io.comb.app=x"]])),
        ("post_start", json!({"command": ["id"], "privileged": true})),
        ("post_start", json!([["id"]])),
        ("logging", json!("gelf")),
        ("logging", json!({"driver": ["gelf"]})),
        ("ports", json!("25:25")),
        ("ports", json!(["25:25"])),
        ("ports", json!([{"target": 25, "host_ip": ["192.0.2.1"]}])),
        ("networks", json!("host")),
        ("network_mode", json!(["host"])),
        ("pid", json!(["host"])),
        ("blkio_config", json!(["/dev/sda"])),
        ("gpus", json!([{"driver": "cdi", "device_ids": ["x/y=all"]}])),
        ("gpus", json!([{"driver": ["cdi"]}])),
        ("gpus", json!([{"device_ids": "x/y=all"}])),
        ("deploy", json!(["x"])),
        ("deploy", json!({"resources": {"reservations": [{"devices": [{"driver": "cdi"}]}]}})),
        ("build", json!("/etc")),
        ("build", json!({"context": "/app", "network": ["host"]})),
        ("build", json!({"context": "/app", "additional_contexts": ["a=/etc"]})),
        ("build", json!({"context": "/app", "cache_to": "type=local,dest=/etc"})),
        ("build", json!({"context": "/app", "dockerfile": ["/etc/passwd"]})),
        ("runtime", json!(["x"])),
        ("oom_score_adj", json!([-1])),
        ("scale", json!([99])),
        ("image", json!(["--privileged"])),
    ]
}

/// Every permission that these words could be mistaken for.
fn everything_granted(mut given: Given) -> Given {
    let words = "net:host cap:NET_ADMIN cap:SYS_PTRACE cap:IPC_LOCK cap:SYS_NICE gpu:all device:/dev/ttyUSB0 bind:/srv/media:ro port:80/tcp";
    given.permissions.extend(words.split(' ').map(|word| word.parse().expect("is a permission")));
    given
}

#[test]
fn one_forbidden_word_makes_any_accepted_app_a_refused_one() {
    let mut tried = 0;
    for row in rows() {
        let Some(config) = &row.config else { continue };
        let given = everything_granted(given(&row.given, device()));
        let names = given.variables.keys().cloned().collect();
        let Ok(source) = Source::read(Folder { files: &row.files, main: &row.main }, &names) else {
            continue;
        };
        if check(&source, config.as_bytes(), &given).accept().is_err() {
            continue;
        }
        let config: serde_json::Value = serde_json::from_str(config).expect("compose answers with JSON");
        let services: Vec<String> =
            config["services"].as_object().expect("there are services").keys().cloned().collect();
        for service in &services {
            for (key, value) in never() {
                // With the machine's network, which was granted, a published port means nothing.
                if key == "ports" && config["services"][service]["network_mode"] == "host" {
                    continue;
                }
                let mut worse = config.clone();
                worse["services"][service][key] = value.clone();
                let verdict = check(&source, worse.to_string().as_bytes(), &given);
                assert!(verdict.accept().is_err(), "{}: {service}.{key}: {value}", row.name);
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "{tried} were tried");
}

#[test]
fn a_package_agrees_with_the_file_it_was_signed_for_and_no_other() {
    let app = apps().into_iter().find(|app| app.folder.ends_with("site")).expect("the site is there");
    let names = app.given.variables.keys().cloned().collect();
    let source = Source::read(Folder { files: &app.files, main: &app.main }, &names).expect("is read");
    let config = fs::read(app.folder.join("config.json")).expect("compose's answer is there");
    let plan = check(&source, &config, &app.given).accept().expect("is accepted");
    let zeros = "0".repeat(64);
    let signed = serde_json::json!({
        "comb": "package", "format": 1, "account": "0".repeat(32), "app": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "name": "site", "revision": 1, "version": "2.1", "domain": "site.example.org", "body": zeros,
        "services": [{"name": "web", "image": "nginx:1.29", "digest": format!("sha256:{zeros}"), "pull": true}],
        "volumes": [{"name": "public", "link": false}, {"name": "uploads", "link": false}],
        "ports": [{"service": "web", "port": 80, "protocol": "tcp", "wish": 8081}],
        "actions": [{"name": "add-user", "service": "web", "input": [{"name": "user", "type": "name"}, {"name": "password", "type": "text"}]}],
        "health_seconds": 30, "permissions": [], "devices": "all", "expires": null, "author": null, "made": "2026-11-22T08:30:00.000Z",
    });
    let agrees = |signed: &serde_json::Value| {
        Authorization::parse(signed.to_string().as_bytes())
            .expect("is a package")
            .agrees(&plan, source.block())
    };
    assert_eq!(agrees(&signed), Ok(()));
    let table = [
        (
            "/services/0/image",
            serde_json::json!("nginx:1.30"),
            "services of the package are not those of the compose file: web nginx:1.30 was signed, but is not there",
        ),
        (
            "/volumes/1/link",
            serde_json::json!(true),
            "volumes of the package are not those of the compose file: uploads of the link was signed, but is not there",
        ),
        (
            "/volumes",
            serde_json::json!([{"name": "public", "link": false}]),
            "volumes of the package are not those of the compose file: uploads was not signed",
        ),
        (
            "/ports",
            serde_json::json!([]),
            "ports of the package are not those of the compose file: 8081:80/tcp of web was not signed",
        ),
        (
            "/ports/0/wish",
            serde_json::json!(null),
            "ports of the package are not those of the compose file: 80/tcp of web was signed, but is not there",
        ),
        (
            "/actions/0/input/1/type",
            serde_json::json!("name"),
            "actions of the package are not those of the compose file: add-user(user: Name, password: Name) in web was signed, but is not there",
        ),
        (
            "/health_seconds",
            serde_json::json!(31),
            "seconds to be well of the package are not those of the compose file: 31 and 30 seconds",
        ),
    ];
    for (at, value, expected) in table {
        let mut changed = signed.clone();
        *changed.pointer_mut(at).expect("is there") = value;
        assert_eq!(agrees(&changed).expect_err("differs").to_string(), expected);
    }
}

proptest! {
    #[test]
    fn any_change_of_a_real_file_is_judged_and_not_stumbled_over(
        row in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in 0usize..12,
        put in "[-a-z:{}\\[\\]*&<$\"'#|!~./ \n]{0,6}",
    ) {
        let rows = rows();
        let row = row.get(&rows);
        let mut text = row.files[&row.main].clone();
        let at = at.index(text.len());
        text.splice(at..(at + cut).min(text.len()), put.into_bytes());
        let mut files = row.files.clone();
        files.insert(row.main.clone(), text);
        let config = row.config.as_ref().map_or(&b"{}"[..], |config| config.as_bytes());
        told(&files, &row.main, Some(config), &given(&row.given, device()));
    }

    #[test]
    fn any_answer_of_compose_is_judged_and_not_stumbled_over(
        row in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(vec!["null", "true", "[]", "{}", "\"x\"", "-1", "1e9", "[null]", "{\"a\":null}", "[[]]"]),
    ) {
        // Whatever stands in one place is replaced by something of another kind.
        let rows: Vec<Row> = rows().into_iter().filter(|row| row.config.is_some()).collect();
        let row = row.get(&rows);
        let mut config: serde_json::Value =
            serde_json::from_str(row.config.as_deref().expect("only those that have one")).expect("is JSON");
        let mut places = Vec::new();
        pointers(&config, String::new(), &mut places);
        let place = at.get(&places);
        *config.pointer_mut(place).expect("it was found there") = serde_json::from_str(value).expect("is JSON");
        told(&row.files, &row.main, Some(config.to_string().as_bytes()), &given(&row.given, device()));
    }
}

fn pointers(value: &serde_json::Value, at: String, out: &mut Vec<String>) {
    out.push(at.clone());
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                pointers(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        serde_json::Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                pointers(item, format!("{at}/{number}"), out);
            }
        }
        _ => {}
    }
}

#[test]
fn a_file_made_to_be_slow_is_refused_soon() {
    let given = given("", device());
    let slow = |text: String| {
        let files = Files::from([("compose.yaml".to_owned(), text.into_bytes())]);
        told(&files, "compose.yaml", Some(b"{}"), &given).lines().count()
    };
    // Unknown keys, each near many that are known.
    let keys: String = (0..40_000).map(|number| format!("    cpu_{number}: 1\n")).collect();
    assert!(slow(format!("services:\n  web:\n{keys}")) <= 100);
    // Defaults inside of defaults.
    assert!(slow(format!("services: {{web: {{image: \"{}\"}}}}", "${A:-".repeat(150_000))) <= 100);
    // Variables without a value.
    let variables: String = (0..40_000).map(|number| format!("$A{number} ")).collect();
    assert!(slow(format!("services: {{web: {{image: \"{variables}\"}}}}")) <= 100);

    // As many mistakes in compose's answer, each of which is looked for in the text.
    let mounts: Vec<_> = (0..20_000)
        .map(|number| serde_json::json!({"type": "bind", "source": format!("/etc/{number}"), "target": format!("/{number}")}))
        .collect();
    let text: String = (0..20_000).map(|number| format!("      - /etc/{number}:/{number}\n")).collect();
    let files = Files::from([(
        "compose.yaml".to_owned(),
        format!("services:\n  web:\n    image: x\n    volumes:\n{text}").into_bytes(),
    )]);
    let config = serde_json::json!({"services": {"web": {"image": "x", "volumes": mounts}}}).to_string();
    assert_eq!(told(&files, "compose.yaml", Some(config.as_bytes()), &given).lines().count(), 100);
}

#[test]
fn every_key_of_a_service_has_been_judged() {
    let files = Files::from([("compose.yaml".to_owned(), b"services: {web: {image: x}}\n".to_vec())]);
    let source =
        Source::read(Folder { files: &files, main: "compose.yaml" }, &BTreeSet::new()).expect("is read");
    for (key, _) in keys::SERVICE.keys {
        let config = serde_json::json!({"services": {"web": {"image": "x", *key: "x"}}}).to_string();
        let verdict = check(&source, config.as_bytes(), &given("", device()));
        let unjudged = verdict.refusals.iter().find(|one| one.message.contains("nobody has judged"));
        assert_eq!(unjudged, None, "{key}");
    }
}
