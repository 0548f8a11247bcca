//! `comb-history`: reads what hive and devices wrote down, and prints the first line that breaks an invariant.
//!
//! ```text
//! comb-history HISTORY… [--killed DEVICE@BOOTTIME_MS]… [--told FILE --volume FILE [--branch FILE]]
//! ```
//!
//! Exit code 0 if nothing is wrong, 1 if something is, 2 if it could not be read.

use std::process::ExitCode;

use comb_tests::history::{Histories, Records, check, held};

/// What was asked for.
#[derive(Default)]
struct Args {
    histories: Vec<String>,
    killed: Vec<String>,
    told: Option<String>,
    volume: Option<String>,
    branch: Option<String>,
}

fn args() -> Result<Args, String> {
    let mut read = Args::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--killed" => read.killed.push(value()?),
            "--told" => read.told = Some(value()?),
            "--volume" => read.volume = Some(value()?),
            "--branch" => read.branch = Some(value()?),
            option if option.starts_with('-') => return Err(format!("there is no {option}")),
            file => read.histories.push(file.to_owned()),
        }
    }
    Ok(read)
}

fn text(file: &str) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))
}

/// What was found: a sentence if all is well, else what is wrong.
fn run() -> Result<Result<String, String>, String> {
    let args = args()?;
    let mut all = Histories::default();
    for file in &args.histories {
        all.add(file, &text(file)?)?;
    }
    for one in &args.killed {
        let (device, at) = one.split_once('@').ok_or(format!("--killed {one} is not DEVICE@BOOTTIME_MS"))?;
        let device = device.parse().map_err(|error| format!("--killed {one}: {error}"))?;
        all.deaths.entry(device).or_default().push(at.parse().map_err(|_| format!("{at} is no number"))?);
    }
    let seen = match check(&all) {
        Ok(seen) => seen,
        Err(broken) => return Ok(Err(broken.to_string())),
    };
    let mut said = format!(
        "{} lines: {} terms, {} times of writing, {} claims, {} manifests told to be safe, {} operations",
        seen.lines, seen.terms, seen.writings, seen.claims, seen.replicated, seen.operations
    );
    if let (Some(told), Some(volume)) = (&args.told, &args.volume) {
        let read = |file: &String| Records::read(file, &text(file)?);
        let branch = args.branch.as_ref().map(read).transpose()?;
        let told = read(told)?;
        match held(&told, &read(volume)?, branch.as_ref()) {
            Ok(lost) => said += &format!("; {} records told, {lost} of them on the branch only", told.len()),
            Err(broken) => return Ok(Err(broken.to_string())),
        }
    }
    Ok(Ok(said))
}

fn main() -> ExitCode {
    match run() {
        Ok(Ok(said)) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Ok(Err(broken)) => {
            println!("{broken}");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
