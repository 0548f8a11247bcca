use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::command::{Command, CommandResult, Expect, MomentName, Order, ResultState};
use super::people::{Login, Setup};
use super::report::{Report, ReportAnswer};
use super::value::{Base64, Hidden, List, Number, Word};
use super::*;
use crate::command as pure;
use crate::placement::{self, Policy, Problem, Why};

const APP: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
const VOLUME: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

/// A report that has every field.
fn report() -> Value {
    serde_json::from_str(
        r#"{
        "number": 7, "boottime_ms": 9, "version": "0.1.0",
        "update": {"number": 1, "state": "gone_back", "problem": "unhealthy"},
        "commands_have": 3,
        "load": {"cpu_percent": 5, "memory_bytes": 8, "memory_free_bytes": 4, "load_1m": 12, "received_bytes": 1, "sent_bytes": 2, "read_bytes": 3, "written_bytes": 4},
        "disks": [{"for": "state", "bytes": 2, "free_bytes": 1}],
        "docker": "slow",
        "stores": [{"store": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "state": "ok"}],
        "renew": [{"app": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "term": 4}],
        "apps": [{
            "app": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "term": 4, "generation": 5, "revision": 6, "phase": "stopped", "why": "failed",
            "phase_age_ms": 1, "health": "none",
            "operation": {"command": 1, "step": "pulling", "done": 1, "total": 2},
            "problem": {"code": "port_taken", "service": "web", "file": "compose.yaml", "line": 3, "number": 80, "again_in_ms": 5},
            "services": [{"name": "web", "state": "exited", "health": "none", "exit": -1, "restarts": 2, "cpu_percent": 120, "memory_bytes": 1}],
            "ports": [{"service": "web", "port": 80, "protocol": "tcp", "given": 20001}],
            "address": "http://192.0.2.1:20001/", "missing_bytes": 7,
            "volumes": [{
                "volume": "00000000000000000000000000000000000000000000000000000000000000aa", "name": "data", "state": "mounted", "epoch": 2, "seq": 30, "manifest": "00000000000000000000000000000000000000000000000000000000000000aa",
                "writer": "000000000000000000000000000000bb", "replicated_seq": 29, "replicated_age_ms": 100,
                "backlog_bytes": 10, "backlog_age_ms": 50, "bytes": 4096, "files": 3, "stores_behind": 1
            }],
            "branches": [{"volume": "00000000000000000000000000000000000000000000000000000000000000aa", "name": "cut-3-e1", "seals": 1, "bytes": 2, "span_ms": 3}]
        }]
    }"#,
    )
    .expect("is JSON")
}

fn bytes(json: &Value) -> Vec<u8> {
    serde_json::to_vec(json).expect("is JSON")
}

/// Every key of a value that is made of the report's type, as a path.
fn paths(value: &Value, at: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                out.insert(path.clone());
                paths(inner, &path, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, at, out)),
        _ => {}
    }
}

/// The fields of the document's table, with those in its braces.
fn documented() -> BTreeSet<String> {
    let document = include_str!("../../../docs/api.md");
    let (_, behind) =
        document.split_once("| `number` | number | of this report").expect("the table is there");
    let (rows, _) = behind.split_once("\n\n").expect("the table ends");
    let rows = format!("| `number` | number |{rows}");
    let words =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut out = BTreeSet::new();
    for row in rows.lines() {
        let cells: Vec<&str> = row.trim_matches('|').splitn(3, '|').collect();
        let first = words(cells[0]);
        let prefix = |word: &str| -> String {
            let at = if cells[0].contains("volume.`") {
                "apps.volumes."
            } else if cells[0].contains("app.`") {
                "apps."
            } else {
                ""
            };
            format!("{at}{word}")
        };
        for word in &first {
            out.insert(prefix(word));
        }
        let Some((_, inner)) = cells.get(1).and_then(|cell| cell.split_once('{')) else { continue };
        let (inner, _) = inner.rsplit_once('}').expect("a brace is closed");
        // A name stands at the beginning or behind a comma; what stands behind a colon are values.
        for part in inner.split(", ") {
            let name = part.split(':').next().expect("has a first part");
            for word in words(name).into_iter().take(1) {
                if part.trim_start().starts_with('`') {
                    out.insert(format!("{}.{word}", prefix(&first[0])));
                }
            }
        }
    }
    out
}

#[test]
fn the_report_has_the_fields_of_the_document_and_no_others() {
    let read: Report = request(&bytes(&report())).expect("is a report");
    let written = serde_json::to_value(&read).expect("is JSON");
    assert_eq!(written, report());
    let mut built = BTreeSet::new();
    paths(&written, "", &mut built);
    assert_eq!(built, documented());
}

#[test]
fn a_request_names_the_field_that_nobody_knows_and_an_answer_ignores_it() {
    let mut more = report();
    more["apps"][0]["volumes"][0]["secret"] = json!(1);
    let refused = request::<Report>(&bytes(&more)).expect_err("has a field too many");
    assert_eq!(refused.code, Code::UnknownField);
    assert_eq!(refused.field.as_deref(), Some("apps[0].volumes[0].secret"));
    assert!(answer::<Report>(&bytes(&more)).is_ok());

    let mut wrong = report();
    wrong["apps"][0]["term"] = json!(1u64 << 53);
    let refused = request::<Report>(&bytes(&wrong)).expect_err("has a number too large");
    assert_eq!((refused.code, refused.field.as_deref()), (Code::BadRequest, Some("apps[0].term")));
    assert!(refused.message.contains("2^53"), "{}", refused.message);

    let refused = request::<Report>(b"{\"number\": 1,").expect_err("ends early");
    assert_eq!(refused.code, Code::BadJson);
    assert!(request::<Login>(b"{\"name\":\"a\",\"password\":\"b\"} x").is_err());
    let refused = request::<Login>(b"{\"password\":\"b\"}").expect_err("lacks a field");
    assert!(refused.message.contains("name"), "{}", refused.message);
}

#[test]
fn lists_end_before_they_grow() {
    let mut many = report();
    many["renew"] = json!(vec![json!({"app": APP, "term": 1}); 201]);
    let refused = request::<Report>(&bytes(&many)).expect_err("has too many");
    assert_eq!(refused.code, Code::BadRequest);
    many["renew"] = Value::Null;
    assert_eq!(request::<Report>(&bytes(&many)).expect("null is none").renew.len(), 0);
    assert!(serde_json::from_value::<Base64<3>>(json!("AAAAAA==")).is_err());
    assert_eq!(serde_json::from_value::<Base64<4>>(json!("AAAAAA==")).expect("fits").0, [0; 4]);
    assert!(serde_json::from_value::<Word>(json!("a-b")).is_err());
    assert!(List::<u8, 2>::try_from(vec![1, 2, 3]).is_err());
}

#[test]
fn what_opens_something_is_not_printed() {
    let setup: Setup = request(&bytes(&json!({
        "setup_code": "CANARY-1", "account": "home", "name": "ada", "password": "CANARY-2"
    })))
    .expect("is a setup");
    assert!(!format!("{setup:?}").contains("CANARY"));
    assert!(Hidden::new("a".repeat(1025)).is_err());
}

#[test]
fn a_report_becomes_what_is_decided_by() {
    let read: Report = request(&bytes(&report())).expect("is a report");
    let decided = crate::report::Report::from(&read);
    assert!(decided.docker);
    let app = decided.apps.values().next().expect("has an app");
    assert_eq!(app.phase, placement::Phase::Stopped(Why::Failed(Problem::PortTaken)));
    let volume = app.volumes.values().next().expect("has a volume");
    assert_eq!(volume.replicated.expect("is mounted").seq.0, 29);
    let mut following = report();
    following["apps"][0]["volumes"][0]["state"] = json!("following");
    let read: Report = request(&bytes(&following)).expect("is a report");
    let decided = crate::report::Report::from(&read);
    let volume = *decided.apps.values().next().expect("has an app").volumes.values().next().expect("one");
    assert_eq!(volume.replicated, None);
    let answer = ReportAnswer { granted: read.renew.clone(), ..ReportAnswer::default() };
    assert_eq!(answer.decided(read.number).granted.len(), 1);
}

#[test]
fn every_phase_comes_back() {
    use crate::placement::Phase::*;
    let whys = [Why::Again, Why::Ordered, Why::HandOver { resume: false }, Why::LeaseOver, Why::Fenced];
    let mut all = vec![StandingBy, Claiming, Mounting, Starting, Running, Settling];
    for why in whys.into_iter().chain([Why::Failed(Problem::NoSpace)]) {
        all.extend([Stopping(why), Flushing(why), Stopped(why)]);
    }
    for phase in all {
        let (word, why) = super::report::Phase::of(phase);
        assert_eq!(word.with(why, Some(Problem::NoSpace)), phase);
    }
}

#[test]
fn a_command_is_read_as_it_is_written() {
    let start = json!({
        "number": 41, "operation": APP, "app": APP, "term": 7, "generation": 12, "do": "start",
        "revision": 3, "policy": "auto", "stores": [{"store": APP, "url": "s3://b/p"}], "seal_every_s": 15,
        "volumes": [
            {"name": "data", "volume": VOLUME, "expect": {"exactly": {"epoch": 1, "seq": 2, "manifest": VOLUME}}},
            {"name": "new", "volume": null, "expect": {"since": {"epoch": 0, "seq": 0, "writers": []}}}
        ],
        "rollback_to": {VOLUME: 2}, "more": {"of": "a newer hive"}
    });
    let read: Command = answer(&bytes(&start)).expect("is a command");
    let decided = read.decided().expect("is one that is decided about");
    let pure::Order::Start(order) = decided.order else { panic!("is no start") };
    assert_eq!((order.policy, order.volumes.len(), order.rollback_to.len()), (Policy::Auto, 1, 1));
    let again: Command = answer(&serde_json::to_vec(&read).expect("is JSON")).expect("comes back");
    assert_eq!(again, read);

    let unknown = json!({"number": 1, "operation": APP, "app": null, "do": "dance", "with": 1});
    let read: Command = answer(&bytes(&unknown)).expect("is a command");
    assert_eq!(read.order, Order::Unknown);
    let ring = json!({"number": 1, "operation": APP, "do": "ring", "number_": 1});
    assert!(answer::<Command>(&bytes(&ring)).is_err());
    // No order has a field of the name that a command has: a text with both could not be read.
    for order in [Order::Ring { version: Number(4) }, Order::Stop, Order::Update { revision: Number(2) }] {
        let command = Command { order, ..read.clone() };
        assert_eq!(
            answer::<Command>(&serde_json::to_vec(&command).expect("is JSON")).expect("comes back"),
            command
        );
    }
    let tag = json!({"number": 1, "operation": APP, "app": APP, "term": 1, "generation": 1, "do": "rollback", "to": "comb-1"});
    let read: Command = answer(&bytes(&tag)).expect("is a command");
    assert!(matches!(read.order, Order::Rollback { to: MomentName::Tag(_), start: None }));
    assert!(read.decided().is_none());
}

#[test]
fn a_result_becomes_what_is_decided_by_and_back() {
    let sent = json!({
        "number": 41, "state": "failed", "code": "head_unexpected", "ended_age_ms": 3,
        "data": {
            "cuts": [{"name": "data", "volume": VOLUME, "epoch": 2, "seq": 3, "manifest": VOLUME, "parent": null}],
            "seen": [{"volume": VOLUME, "epoch": 3, "seq": 9, "writer": "000000000000000000000000000000bb"}]
        }
    });
    let read: CommandResult = request(&bytes(&sent)).expect("is a result");
    let app: crate::ids::AppId = APP.parse().expect("is an id");
    let decided = read.decided(app);
    assert_eq!(decided.outcome, pure::Outcome::Failed(Problem::HeadUnexpected));
    assert_eq!(decided.data.heads.len(), 1);
    let back = CommandResult::of(&decided, 3);
    assert_eq!((back.state, back.code), (ResultState::Failed, Some(Problem::HeadUnexpected)));
    assert_eq!(back.decided(app), decided);
    let mut more = sent;
    more["data"]["name"] = json!("of a file");
    assert_eq!(request::<CommandResult>(&bytes(&more)).expect_err("has more").code, Code::UnknownField);
}

#[test]
fn what_is_expected_comes_back() {
    let since = placement::Expect::Since {
        epoch: fs_format::Epoch(3),
        seq: fs_format::Seq(4),
        writers: BTreeSet::from([fs_format::DeviceId([5; 16])]),
    };
    assert_eq!(placement::Expect::from(&Expect::from(&since)), since);
    let head = placement::Head {
        epoch: fs_format::Epoch(3),
        seq: fs_format::Seq(4),
        manifest: fs_format::ManifestId([6; 32]),
    };
    let exactly = placement::Expect::Exactly(head);
    assert_eq!(placement::Expect::from(&Expect::from(&exactly)), exactly);
    assert_eq!(Number::from(u64::MAX).0, NUMBER_MAX);
}

/// The words that the document lists as codes of problems.
#[test]
fn the_problems_are_those_of_the_document() {
    let document = include_str!("../../../docs/api.md");
    let (_, behind) = document.split_once("Codes of `problem`:").expect("the list is there");
    let (list, _) = behind.split_once("\n\n").expect("the list ends");
    let documented: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    let built: BTreeSet<&str> = Problem::ALL.iter().map(|problem| problem.text()).collect();
    assert_eq!(built, documented);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(text in "\\PC{0,200}") {
        let _ = request::<Report>(text.as_bytes());
        let _ = request::<CommandResult>(text.as_bytes());
        let _ = answer::<Command>(text.as_bytes());
    }
}
