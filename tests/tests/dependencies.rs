//! What may come into the build: licences, sources and crates, for the two kinds of machines that Comb runs on.

use std::collections::BTreeSet;
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand, Package};
use spdx::{Expression, LicenseReq};

/// Permissive licences that go with Apache-2.0 OR MIT.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];
/// Crates that must not come in, through whatever they come.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "one cryptographic library is enough: aws-lc-rs"),
    ("openssl-sys", "one cryptographic library is enough: aws-lc-rs"),
    ("ring", "one cryptographic library is enough: aws-lc-rs"),
];
const MACHINES: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];
/// All crates come from there.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");

/// What is known of each crate in the lock file, also of those that are built nowhere.
fn metadata() -> Metadata {
    let metadata =
        MetadataCommand::new().manifest_path(MANIFEST).other_options(["--locked".to_owned()]).exec();
    metadata.expect("`cargo metadata` describes the lock file")
}

/// Name and version of what is built; only `cargo tree` knows which features are really on.
fn built() -> BTreeSet<(String, String)> {
    let tree = |machine: &str| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let words = ["tree", "--workspace", "--locked", "--prefix=none", "--no-dedupe", "--format={p}"];
        let out =
            Command::new(cargo).args(words).args(["--manifest-path", MANIFEST, "--target", machine]).output();
        let out = out.expect("cargo runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("is text")
    };
    let named = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    };
    MACHINES
        .into_iter()
        .flat_map(|machine| tree(machine).lines().filter_map(named).collect::<Vec<_>>())
        .collect()
}

fn is_permissive(text: &str) -> bool {
    let is_allowed = |asked: &LicenseReq| LICENCES.contains(&asked.to_string().as_str());
    // Old manifests write a slash for OR.
    Expression::parse_mode(text, spdx::ParseMode::LAX).is_ok_and(|licence| licence.evaluate(is_allowed))
}

#[test]
fn all_that_is_built_in_is_permissive_and_of_one_registry() {
    let (metadata, built) = (metadata(), built());
    let is_other = |package: &&Package| {
        let is_built = built.contains(&(package.name.to_string(), package.version.to_string()));
        is_built && !metadata.workspace_members.contains(&package.id)
    };
    let others: Vec<&Package> = metadata.packages.iter().filter(is_other).collect();
    assert!(others.len() > 200, "more crates than {} are built", others.len());
    let mut wrong = Vec::new();
    for package in others {
        let licence = package.license.as_deref().unwrap_or("none");
        if !is_permissive(licence) {
            wrong.push(format!("{} {}: its licence is {licence}", package.name, package.version));
        }
        if package.source.as_ref().is_none_or(|source| source.repr != REGISTRY) {
            wrong.push(format!("{} {}: it is not of crates.io", package.name, package.version));
        }
        for (_, why) in BANNED.iter().filter(|(name, _)| *name == package.name.as_str()) {
            wrong.push(format!("{} {}: {why}", package.name, package.version));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_licence_is_judged_by_what_it_allows() {
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR ISC", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert!(is_permissive(good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND AGPL-3.0", "none", "", "Apache-2.0 WITH Classpath-exception-2.0"] {
        assert!(!is_permissive(bad), "{bad}");
    }
}

#[test]
fn versions_are_said() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        for dependency in package.dependencies.iter().filter(|one| one.path.is_none()) {
            assert!(!dependency.req.comparators.is_empty(), "{} takes any {}", package.name, dependency.name);
        }
    }
}
