use orchestrator_api::history::{Line, Manifest, What, Who};
use orchestrator_api::ids::{AppId, DeviceId, Generation, OperationId, Term};
use orchestrator_api::text::Hex;

use super::{Broken, Histories, Records, Seen, check, held};

const APP: AppId = AppId(uuid(1));
const ATTIC: DeviceId = DeviceId(uuid(0xa));
const CELLAR: DeviceId = DeviceId(uuid(0xc));
const VOLUME: Hex<32> = Hex([7; 32]);

const fn uuid(byte: u8) -> [u8; 16] {
    let mut bytes = [byte; 16];
    bytes[6] = 0x40 | byte & 0x0f;
    bytes[8] = 0x80 | byte & 0x3f;
    bytes
}

fn manifest(epoch: u64, seq: u64) -> Manifest {
    Manifest { volume: VOLUME, epoch, seq, manifest: Hex([seq as u8; 32]) }
}

fn granted(term: u64, device: DeviceId) -> What {
    What::Granted { app: APP, term: Term(term), device, generation: Generation(term), leased: true }
}

fn claimed(term: u64, seq: u64, parent: Option<u64>) -> What {
    let parent = parent.map(|seq| Hex([seq as u8; 32]));
    What::Claimed { app: APP, term: Term(term), cut: manifest(term, seq), parent }
}

fn began(term: u64) -> What {
    What::WriteBegan { app: APP, term: Term(term), volume: VOLUME, epoch: term }
}

fn ended(term: u64) -> What {
    What::WriteEnded { app: APP, term: Term(term), volume: VOLUME }
}

fn lease(term: u64, end_ms: u64) -> What {
    What::Lease { app: APP, term: Term(term), end_ms: Some(end_ms) }
}

fn stopped(term: u64) -> What {
    What::Stopped { app: APP, term: Term(term), reason: "hand_over".into() }
}

fn operation(state: &'static str) -> What {
    let operation = OperationId(uuid(2));
    What::Operation {
        operation,
        app: Some(APP),
        kind: "move".into(),
        step: "start".into(),
        state: state.into(),
    }
}

const HIVE: Who = Who::Hive;
const A: Who = Who::Device(ATTIC);
const C: Who = Who::Device(CELLAR);

/// A planned move, as it should be.
fn planned() -> Vec<(u64, Who, What)> {
    vec![
        (10, HIVE, granted(1, ATTIC)),
        (20, A, lease(1, 44_520)),
        (30, A, claimed(1, 1, None)),
        (40, A, began(1)),
        (50, A, What::Sealed(manifest(1, 2))),
        (60, A, What::Replicated(manifest(1, 2))),
        (70, HIVE, operation("running")),
        (80, A, What::Sealed(manifest(1, 3))),
        (90, A, What::Replicated(manifest(1, 3))),
        (100, A, ended(1)),
        (110, A, stopped(1)),
        (120, HIVE, granted(2, CELLAR)),
        (130, C, lease(2, 44_630)),
        (140, C, claimed(2, 4, Some(3))),
        (150, C, began(2)),
        (160, C, What::Replicated(manifest(2, 5))),
        (170, HIVE, operation("done")),
    ]
}

fn histories(lines: Vec<(u64, Who, What)>) -> Histories {
    let mut all = Histories::default();
    let text: String = lines
        .into_iter()
        .map(|(boottime_ms, who, what)| Line { boottime_ms, boot: Hex([0; 16]), who, what }.to_json())
        .collect();
    all.add("history", &text).expect("lines that were just written can be read");
    all
}

fn broken(lines: Vec<(u64, Who, What)>) -> u8 {
    check(&histories(lines)).expect_err("something is wrong with it").invariant
}

/// The planned move without the lines that are not kept, and with others.
fn planned_but(keep: impl Fn(&What) -> bool, more: Vec<(u64, Who, What)>) -> Vec<(u64, Who, What)> {
    planned().into_iter().filter(|(_, _, what)| keep(what)).chain(more).collect()
}

#[test]
fn a_planned_move_breaks_nothing() {
    let seen = check(&histories(planned()));
    assert_eq!(seen, Ok(Seen { lines: 17, terms: 2, writings: 2, replicated: 3, claims: 2, operations: 1 }));
}

#[test]
fn two_that_are_told_the_same_number_are_found() {
    let other = Manifest { manifest: Hex([99; 32]), ..manifest(1, 3) };
    assert_eq!(broken(planned_but(|_| true, vec![(95, A, What::Replicated(other))])), 1);
}

#[test]
fn what_a_fenced_device_is_told_behind_the_cut_is_found() {
    assert_eq!(broken(planned_but(|_| true, vec![(200, A, What::Replicated(manifest(1, 6)))])), 1);
}

#[test]
fn a_claim_that_extends_something_else_is_found() {
    let other = |what: &What| !matches!(what, What::Claimed { term: Term(2), .. });
    assert_eq!(broken(planned_but(other, vec![(140, C, claimed(2, 4, Some(2)))])), 1);
    // Number 3 was safe, and the claim takes its place.
    let cut = Manifest { manifest: Hex([98; 32]), ..manifest(2, 3) };
    let claim = What::Claimed { app: APP, term: Term(2), cut, parent: Some(Hex([2; 32])) };
    assert_eq!(broken(planned_but(other, vec![(140, C, claim)])), 1);
}

#[test]
fn a_lease_that_goes_on_while_another_device_writes_is_found() {
    let without_end = |what: &What| !matches!(what, What::WriteEnded { .. });
    assert_eq!(broken(planned_but(without_end, Vec::new())), 2);

    // It was killed before; then nothing of it went on.
    let mut all = histories(planned_but(without_end, Vec::new()));
    all.deaths.insert(ATTIC, vec![105]);
    assert!(check(&all).is_ok());
    // It was killed afterwards.
    all.deaths.insert(ATTIC, vec![400]);
    assert!(check(&all).is_err());
}

#[test]
fn a_lease_counts_from_the_change_of_the_policy_to_the_next() {
    // Given as `manual`, and made `auto` in its term.
    let manual = |what: &What| {
        !matches!(what, What::WriteEnded { .. } | What::Lease { .. } | What::Granted { term: Term(1), .. })
    };
    let with = |more: Vec<(u64, Who, What)>| {
        let given = What::Granted {
            app: APP,
            term: Term(1),
            device: ATTIC,
            generation: Generation(1),
            leased: false,
        };
        let mut lines = vec![(10, HIVE, given)];
        lines.extend(planned_but(manual, more));
        lines
    };
    assert!(check(&histories(with(Vec::new()))).is_ok(), "nothing ends a manual term but the store");
    assert_eq!(broken(with(vec![(60, A, lease(1, 44_560))])), 2);
    assert!(check(&histories(with(vec![(60, A, lease(1, 145))]))).is_ok(), "it was over");
    // And back.
    let none = What::Lease { app: APP, term: Term(1), end_ms: None };
    assert!(check(&histories(with(vec![(60, A, lease(1, 44_560)), (65, A, none)]))).is_ok());
}

#[test]
fn writing_in_a_term_that_is_over_is_found() {
    assert_eq!(broken(planned_but(|_| true, vec![(115, A, began(1))])), 2);
}

#[test]
fn terms_that_are_given_twice_or_fall_are_found() {
    assert_eq!(broken(planned_but(|_| true, vec![(180, HIVE, granted(2, ATTIC))])), 4);
    assert_eq!(broken(planned_but(|_| true, vec![(180, HIVE, granted(1, ATTIC))])), 4);
    assert_eq!(broken(planned_but(|_| true, vec![(180, A, began(2))])), 4);
    assert_eq!(broken(planned_but(|_| true, vec![(180, A, began(3))])), 4);
}

#[test]
fn a_tail_that_is_no_branch_is_found() {
    let tail = vec![
        (95, A, What::Sealed(manifest(1, 9))),
        (200, A, What::Fenced { app: APP, term: Term(1), volume: VOLUME }),
    ];
    assert_eq!(broken(planned_but(|_| true, tail.clone())), 5);
    let branch = What::Branch { app: APP, volume: VOLUME, name: "cut-4-e2".into() };
    let kept = tail.into_iter().chain([(210, A, branch)]).collect();
    assert!(check(&histories(planned_but(|_| true, kept))).is_ok());
}

#[test]
fn an_operation_that_never_ends_is_found() {
    let open = |what: &What| !matches!(what, What::Operation { state, .. } if state == "done");
    assert_eq!(broken(planned_but(open, Vec::new())), 6);
}

#[test]
fn a_torn_last_line_is_no_mistake_and_another_one_is() {
    let mut all = Histories::default();
    assert_eq!(all.add("x", "{\"boottime"), Ok(()));
    assert!(all.add("x", "{\"boottime\n").is_err());
    assert!(all.is_empty());
}

fn records(text: &str) -> Records {
    Records::read("records", text).expect("these are records")
}

#[test]
fn records_that_were_told_are_looked_for() {
    let told = records("1 a 0 x1\n2 a 0 x2\n3 a 0 x3\n");
    assert_eq!(held(&told, &records("1 a 0 x1\n2 a 0 x2\n3 a 0 x3\n4 a 0 x4\n"), None), Ok(0));
    // A suffix is on the branch, and others took its place.
    let cut = records("1 a 0 x1\n2 b 0 y2\n3 b 0 y3\n");
    let branch = records("1 a 0 x1\n2 a 0 x2\n3 a 0 x3\n");
    assert_eq!(held(&told, &cut, Some(&branch)), Ok(2));
    let why = |found: Result<usize, Broken>| found.expect_err("something is missing").why;
    assert_eq!(why(held(&told, &cut, None)), "it is not in the volume");
    assert_eq!(why(held(&told, &cut, Some(&cut))), "it is neither in the volume nor on the branch");
    assert_eq!(why(held(&told, &records("1 a 0 x1\n3 a 0 x3\n"), None)), "record 2 is missing before it");
    let torn = records("1 a 0 x1\n2 b 0 y2\n3 a 0 x3\n");
    assert_eq!(
        why(held(&told, &torn, Some(&branch))),
        "it is there, but 1 before it are not: no suffix was lost"
    );
}

#[test]
fn what_is_no_record_is_refused() {
    for text in ["1 a 0\n", "x a 0 x1\n", "1 a 0 x1 y\n", "1 a 0 x1\n1 a 0 x2\n"] {
        assert!(Records::read("records", text).is_err(), "{text}");
    }
    assert_eq!(records("1 a 0 x1\n2 a").len(), 1);
}
