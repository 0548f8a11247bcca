//! Runs fuzz targets from the command line.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fs_fuzz::{Meter, Outcome, Stop, Target, targets};

#[global_allocator]
static METER: Meter = Meter;

/// Feeds mutated bytes to the decoders of Comb.
#[derive(Parser)]
struct Args {
    /// A target, or `all`
    #[arg(value_parser = target_names())]
    target: String,
    /// How long each target runs
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Stop each target after this many inputs instead
    #[arg(long, conflicts_with = "seconds")]
    iterations: Option<u64>,
    /// The same seed tries the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Try only this input, in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with_all = ["seconds", "iterations"])]
    input: Option<String>,
}

fn target_names() -> Vec<&'static str> {
    targets::ALL.iter().map(|target| target.name).chain(["all"]).collect()
}

fn main() -> ExitCode {
    let args = Args::parse();
    let chosen: Vec<&Target> =
        targets::ALL.iter().filter(|target| args.target == "all" || args.target == target.name).collect();
    let all_held = match &args.input {
        Some(text) => match from_hex(text) {
            Some(input) => replay(&chosen, &input),
            None => {
                eprintln!("error: the input is not hexadecimal");
                return ExitCode::from(2);
            }
        },
        None => {
            let stop = args.iterations.map_or(Stop::In(Duration::from_secs(args.seconds)), Stop::After);
            run(&chosen, args.seed, stop)
        }
    };
    if all_held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all of them, also behind one that breaks; says whether none did.
fn run(chosen: &[&Target], seed: u64, stop: Stop) -> bool {
    let mut all_held = true;
    for target in chosen {
        match fs_fuzz::run(target, seed, stop) {
            Ok(report) => println!(
                "{:<17} {:>10} inputs, {:>9} decoded, {:>4} outcomes, refused for {} reasons",
                report.target,
                report.iterations,
                report.decoded,
                report.outcomes,
                report.reasons.len()
            ),
            Err(failure) => {
                println!("{failure}");
                all_held = false;
            }
        }
    }
    all_held
}

fn replay(chosen: &[&Target], input: &[u8]) -> bool {
    let mut all_held = true;
    for target in chosen {
        let outcome = fs_fuzz::replay(target, input);
        println!("{}: {outcome:?}", target.name);
        all_held &= !matches!(outcome, Outcome::Broken(_));
    }
    all_held
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
