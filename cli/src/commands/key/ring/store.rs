//! `comb key ring store`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use fs_crypto::Zeroizing;
use fs_format::ring::RING_CREDENTIALS_BYTES_MAX;

use crate::failure::{Context, Failure, Kind, Result};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{keys, output, ring, ring_store, stores};

/// Put a store into the key ring, with the credentials that it asks for
///
/// So they travel to the other machines of the account encrypted, and nowhere else. `comb` itself goes on to look for
/// credentials where it always does; what runs apps on several machines hands them on from the key ring. What was there for
/// this store is replaced.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Where the store is, as `comb store add` takes it
    #[arg(value_name = "URL")]
    url: String,

    /// A file with what this kind of store reads: for s3:// an AWS credentials file with one profile, for https:// a line of
    /// ~/.netrc, for gs:// a service account's JSON. Without it the store needs none
    #[arg(long, value_name = "F")]
    credentials_file: Option<PathBuf>,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Puts a store into the ring.
pub fn run(state: &State, args: &StoreArgs) -> Result<()> {
    let url = stores::parse_url(&args.url)?;
    stores::refuse_own(state, &url)?;
    let credentials = match &args.credentials_file {
        Some(path) => read(path, &url)?,
        None => Zeroizing::default(),
    };
    let mut opened = ring::open(state, &args.passphrase)?;
    // With what other machines have published: of two credentials of one store those that are here would stay.
    ring_store::publish(state, &mut opened);
    if opened.ring.stores().any(|(held, text)| held == url && text == *credentials) {
        output::note(&format!("the key ring has {url} already"));
        return Ok(());
    }
    let how = if credentials.is_empty() { "without credentials" } else { "with its credentials" };
    opened.ring.add_store(&url, credentials).map_err(|error| ring::failure("the key ring", &error))?;
    opened.save()?;
    ring_store::publish(state, &mut opened);
    output::note(&format!("{url} is in the key ring, {how}"));
    Ok(())
}

/// The text of a credentials file that is of the kind that this store reads. Nothing of it is repeated in an error.
pub fn read(path: &Path, url: &str) -> Result<Zeroizing<String>> {
    keys::warn_if_open(path);
    // Room for all of it: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(RING_CREDENTIALS_BYTES_MAX + 1));
    let file = File::open(path).context(path.display())?;
    file.take(RING_CREDENTIALS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).context(path.display())?;
    let shown = path.display();
    let wrong = |what: String| Failure::new(Kind::Usage, what);
    if bytes.len() > RING_CREDENTIALS_BYTES_MAX {
        return Err(wrong(format!(
            "{shown} has more than {RING_CREDENTIALS_BYTES_MAX} bytes, which a key ring holds"
        )));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(format!("{shown} is no text")))?;
    let expected = match url.split("://").next() {
        Some("s3") => {
            let profiles = text.lines().filter(|line| line.trim_start().starts_with('[')).count();
            let has_key = text.contains("aws_access_key_id") && text.contains("aws_secret_access_key");
            (profiles == 1 && has_key).then_some(()).ok_or("an AWS credentials file with one profile")
        }
        Some("http" | "https") => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let has = |word| words.contains(&word);
            (has("machine") && has("login") && has("password"))
                .then_some(())
                .ok_or("a line `machine HOST login USER password PASSWORD`")
        }
        Some("gs") => serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
            .map(drop)
            .map_err(|_| "a service account's JSON"),
        _ => {
            let what = format!("a store of this kind reads no credentials from a file: {url}");
            return Err(
                wrong(what).hint("without --credentials-file it is put into the key ring all the same")
            );
        }
    };
    match expected {
        Ok(()) => Ok(Zeroizing::new(text.to_owned())),
        Err(expected) => Err(wrong(format!("{shown} is not what {url} reads: {expected} is expected"))),
    }
}
