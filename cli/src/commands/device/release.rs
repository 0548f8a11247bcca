//! `comb device release`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use fs_crypto::OwnerKey;
use orchestrator_api::release::{
    Arch, BINARIES_MAX, BINARY_BYTES_MAX, Binary, Mark, RELEASE_CONTEXT, Release,
};
use orchestrator_api::text::Hex;
use orchestrator_api::wire::account::{MakeRelease, ReleaseInfo};
use orchestrator_api::wire::device::DeviceState;
use orchestrator_api::wire::value::Base64;
use orchestrator_device::daemon::talk::ARCH;

use crate::failure::{Context, Failure, Kind, Result};
use crate::hive::client::failure as refusal;
use crate::hive::{Client, HiveArgs, find, ring};
use crate::output::{self, Align, Table};
use crate::passphrase::PassphraseArgs;
use crate::state::State;

/// Sign a new program for the account's devices, and give it to the hive; without FILE, list those that it has
///
/// A release has a comb for each kind of processor. It is signed with the key ring's own key, so a hive can neither make
/// one nor change one. Devices that were joined with a code for automatic updates (`comb device code --auto-update`) are
/// told by the hive to take it, one after the other, also those that come later; for the others there is `comb device
/// update`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// The program, once for each kind of processor
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// What people call it [default: what the program for this machine's processor says of itself]
    #[arg(long, value_name = "TEXT")]
    called: Option<String>,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print what was released, or the list, as JSON
    #[arg(long)]
    json: bool,
}

/// Releases.
pub fn run(state: &State, args: &ReleaseArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let known: Vec<ReleaseInfo> = client.list("/v1/releases")?;
    if args.files.is_empty() {
        return list(&known, args.json);
    }
    let programs = args.files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
    let version = match &args.called {
        Some(version) => version.clone(),
        None => version_of(&args.files, &programs)?,
    };
    let opened = ring::open(state, &client, &args.passphrase)?;
    let release = Release {
        comb: Mark::Release,
        format: 1,
        account: Hex(opened.ring.account().0),
        number: known.iter().map(|one| one.number.0).max().unwrap_or(0) + 1,
        version,
        binaries: programs.iter().map(|program| program.binary).collect(),
    };
    let signed = sign(&release, opened.ring.owner())?;
    drop(opened);
    let _: ReleaseInfo = client.post("/v1/releases", &signed)?;
    for program in &programs {
        let path = format!("/v1/releases/{}/{}", release.number, word(program.binary.arch));
        client.put_object(&path, &program.bytes)?.map_err(|error| refusal(client.hive(), *error))?;
    }
    if args.json {
        return output::json(&release);
    }
    output::line(&format!("release {} ({}) is with the hive", release.number, release.version))?;
    tell_willing(&client, &release)
}

/// Says to whom the hive brings it by itself.
fn tell_willing(client: &Client, release: &Release) -> Result<()> {
    let has = |arch: Arch| release.binaries.iter().any(|one| one.arch == arch);
    let willing = find::devices(client)?
        .into_iter()
        .filter(|device| device.auto_update && device.state != DeviceState::Revoked && has(device.arch));
    let names: Vec<String> = willing.map(|device| format!("\"{}\"", device.name)).collect();
    match names.as_slice() {
        [] => output::note("no device takes it by itself; `comb device update NAME` orders it of one"),
        names => output::note(&format!(
            "the hive brings it to {}, one after the other; `comb operation list` says how that goes",
            names.join(", ")
        )),
    }
    Ok(())
}

fn list(known: &[ReleaseInfo], json: bool) -> Result<()> {
    if json {
        return output::json(&known);
    }
    let mut table =
        Table::new(&[("NUMBER", Align::Right), ("VERSION", Align::Left), ("PROCESSORS", Align::Left)]);
    for one in known {
        let present = one.present.iter().map(|arch| word(*arch));
        let missing = one.missing.iter().map(|arch| format!("{} missing", word(*arch)));
        let all: Vec<String> = present.chain(missing).collect();
        table.row(vec![one.number.0.to_string(), output::escape(one.version.as_bytes()), all.join(", ")]);
    }
    table.print()
}

fn word(arch: Arch) -> String {
    match arch {
        Arch::X86_64 => "x86_64".to_owned(),
        Arch::Aarch64 => "aarch64".to_owned(),
    }
}

struct Program {
    bytes: Vec<u8>,
    binary: Binary,
}

fn read(path: &Path) -> Result<Program> {
    let bytes = fs::metadata(path).context(path.display())?.len();
    if !(1..=BINARY_BYTES_MAX).contains(&bytes) {
        let limit = output::size(BINARY_BYTES_MAX);
        return Err(Failure::new(
            Kind::Usage,
            format!("{} has {bytes} bytes; up to {limit} is a program", path.display()),
        )
        .hint("`strip` takes out what only a debugger reads"));
    }
    let bytes = fs::read(path).context(path.display())?;
    let arch = arch(&bytes).ok_or_else(|| {
        Failure::new(Kind::Usage, format!("{} is no Linux program for x86_64 or aarch64", path.display()))
    })?;
    let binary = Binary { arch, blake3: Hex(*blake3::hash(&bytes).as_bytes()), bytes: bytes.len() as u64 };
    Ok(Program { bytes, binary })
}

/// The processor that an ELF file of 64 bits in little-endian order is for.
fn arch(bytes: &[u8]) -> Option<Arch> {
    const MACHINE: std::ops::Range<usize> = 18..20;
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    match bytes.get(MACHINE)? {
        [62, 0] => Some(Arch::X86_64),
        [183, 0] => Some(Arch::Aarch64),
        _ => None,
    }
}

/// What the program that runs here says of itself, without its name.
fn version_of(files: &[PathBuf], programs: &[Program]) -> Result<String> {
    let here = files.iter().zip(programs).find(|(_, program)| program.binary.arch == ARCH);
    let unknown = || {
        Failure::new(Kind::Usage, "none of the programs says its version on this machine")
            .hint("--called TEXT says what people call it")
    };
    let (file, _) = here.ok_or_else(unknown)?;
    let file = file.canonicalize().context(file.display())?;
    let said = Command::new(&file).arg("--version").stdin(Stdio::null()).output().context(file.display())?;
    let text = String::from_utf8_lossy(&said.stdout);
    let version = text.trim().trim_start_matches("comb ").to_owned();
    match said.status.success() && !version.is_empty() {
        true => Ok(version),
        false => Err(unknown()),
    }
}

fn sign(release: &Release, owner: &OwnerKey) -> Result<MakeRelease> {
    let wrong = |error: String| Failure::new(Kind::Usage, format!("this cannot be made a release: {error}"));
    if release.binaries.len() > BINARIES_MAX {
        return Err(wrong(format!("it has more than {BINARIES_MAX} programs")));
    }
    let bytes = serde_json::to_vec(release).map_err(|error| wrong(error.to_string()))?;
    // What no device would take is not signed.
    Release::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
    let signature = owner.sign(RELEASE_CONTEXT, &bytes);
    Ok(MakeRelease { release: Base64(bytes), signature: Base64(signature.to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u8) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        bytes[18] = machine;
        bytes
    }

    #[test]
    fn a_program_says_which_processor_it_is_for() {
        assert_eq!(
            (arch(&elf(62)), arch(&elf(183)), arch(&elf(3))),
            (Some(Arch::X86_64), Some(Arch::Aarch64), None)
        );
        assert_eq!((arch(b"#!/bin/sh\n"), arch(b"\x7fELF\x02\x01")), (None, None));
        let own = std::env::current_exe().expect("a test is a program");
        assert_eq!(read(&own).expect("read").binary.arch, ARCH);
    }

    #[test]
    fn what_is_signed_is_what_a_device_opens() {
        let owner = OwnerKey::from_seed([4; 32]);
        let binary = Binary { arch: Arch::X86_64, blake3: Hex([1; 32]), bytes: 5 };
        let release = Release {
            comb: Mark::Release,
            format: 1,
            account: Hex([3; 16]),
            number: 2,
            version: "0.2.0".to_owned(),
            binaries: vec![binary],
        };
        let signed = sign(&release, &owner).expect("signed");
        let signature: [u8; 64] = signed.signature.0.as_slice().try_into().expect("a signature");
        let opened = Release::open(&signed.release.0, &signature, &owner.public()).expect("it opens");
        assert_eq!(opened, release);
        assert!(Release::open(&signed.release.0, &signature, &[9; 32]).is_err());
        let twice = Release { binaries: vec![binary, binary], ..release };
        assert_eq!(sign(&twice, &owner).map(drop).expect_err("one processor twice").kind, Kind::Usage);
    }
}
