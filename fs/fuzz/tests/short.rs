//! A short run of every target, and proof that the runner finds what is broken.

use fs_format::{DecodeError, Reader};
use fs_fuzz::{Meter, Outcome, Stop, Target, judge, replay, run, targets};

#[global_allocator]
static METER: Meter = Meter;

#[test]
fn every_decoder_stands_a_short_run() {
    for target in targets::ALL {
        let report = run(target, 1, Stop::After(10_000)).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(report.iterations, 10_000);
        // A run in which nothing was refused, or nothing but the seeds decoded, tried nothing.
        assert!(!report.reasons.is_empty(), "{}: nothing was refused", target.name);
        assert!(report.decoded > 20, "{}: only {} inputs decoded", target.name, report.decoded);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for target in targets::ALL {
        let report = |seed| run(target, seed, Stop::After(300)).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(report(5), report(5));
    }
}

fn planted(name: &'static str, run: fn(&[u8]) -> Outcome) -> Target {
    Target { name, run, seeds: || vec![vec![3, 1, 2, 3]], repair: None }
}

fn found(target: &Target) -> fs_fuzz::Failure {
    *run(target, 9, Stop::After(200_000)).expect_err("the bug that was planted")
}

#[test]
fn a_decoder_with_two_spellings_is_found() {
    // Bytes behind their length, and nobody minds what follows them.
    let target = planted("loose", |input| {
        judge(
            input,
            || Reader::new(input).bytes(100, "bytes"),
            |bytes| fs_fuzz::same(bytes, &input[1..]).map(|()| 0),
        )
    });
    let failure = found(&target);
    assert!(matches!(replay(&target, &failure.input), Outcome::Broken(_)));
    assert_eq!(found(&target), failure, "the seed finds it again");
    assert!(failure.to_string().contains(&format!("--iterations {} --seed 9", failure.iteration)));
}

#[test]
fn a_decoder_that_trusts_a_length_is_found() {
    let target = planted("greedy", |input| {
        let decode = || -> Result<usize, DecodeError> {
            let mut reader = Reader::new(input);
            let len = reader.u8()?;
            let room: Vec<u64> = Vec::with_capacity(usize::from(len) << 10);
            reader.take(usize::from(len))?;
            Ok(std::hint::black_box(room).capacity())
        };
        judge(input, decode, |_| Ok(0))
    });
    assert!(found(&target).what.contains("allocated"));
}

#[test]
fn a_seed_that_does_not_decode_is_found() {
    let target = planted("deaf", |input| {
        judge(input, || Err::<(), _>(DecodeError::Trailing), |_| Ok(input.len() as u64))
    });
    let failure = found(&target);
    assert_eq!((failure.iteration, failure.input), (1, vec![3, 1, 2, 3]));
}
