//! `comb key ring kit`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use fs_crypto::{RecoveryKit, Ring, Zeroizing};

use crate::failure::{Kind, Result};
use crate::passphrase::PassphraseArgs;
use crate::state::{State, write_new};
use crate::{keys, output, ring, ring_store};

/// Make a recovery kit to print, in place of any earlier one
///
/// The kit opens the key ring when passphrase and devices are lost. It is shown once and kept nowhere. Print it,
/// keep it where you keep what must not be lost, and remove the file.
#[derive(Debug, Args)]
pub struct KitArgs {
    /// Write it to a new file that only you can read, instead of to the terminal
    #[arg(long, value_name = "F")]
    out: Option<PathBuf>,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl KitArgs {
    /// How the ring is opened.
    pub fn opening(&self) -> &PassphraseArgs {
        &self.passphrase
    }
}

/// Makes the kit.
pub fn run(state: &State, args: &KitArgs) -> Result<()> {
    let mut opened = ring::open(state, &args.passphrase)?;
    let before = opened.ring.kit_time();
    let text = new_page(&mut opened, state)?;
    match &args.out {
        // A kit that is lost is made again, but one that opens nothing would be trusted: so the file comes first,
        // and goes if the ring does not take the kit.
        Some(path) => {
            write_new(path, text.as_bytes()).map_err(|failure| match failure.kind {
                Kind::InTheWay => failure.hint("a recovery kit never overwrites a file: choose another name"),
                _ => failure,
            })?;
            opened.save().inspect_err(|_| drop(fs::remove_file(path)))?;
            output::note(&format!(
                "the recovery kit is in {}: print it, then remove the file",
                path.display()
            ));
        }
        None => {
            opened.save()?;
            output::line(text.trim_end())?;
        }
    }
    ring_store::publish(state, &mut opened);
    if let Some(before) = before {
        output::note(&format!(
            "it takes the place of the kit of {}; if somebody else may have that one, make a new ring key \
             (`comb key ring passphrase --new-key`), and then a kit again",
            output::time_local(before.0)
        ));
    }
    Ok(())
}

/// The page of a kit that the ring takes with its next version.
pub fn new_page(opened: &mut ring::Opened<'_>, state: &State) -> Result<Zeroizing<String>> {
    let kit = opened.ring.new_kit(ring::now(), &*keys::random()?);
    Ok(page(&opened.ring, &kit, &ring_store::urls(state)))
}

/// What is printed, with the stores in which the ring lies. Lines for the person begin with `#`, so that the whole page can be
/// read again.
fn page(ring: &Ring, kit: &RecoveryKit, stores: &BTreeSet<String>) -> Zeroizing<String> {
    let letters = kit.to_text();
    let made = ring.kit_time().map_or_else(String::new, |time| output::time_local(time.0));
    let account = ring.account();
    let there = match stores.is_empty() {
        true => "#   URL is a store of your volumes\n".to_owned(),
        false => stores.iter().map(|url| format!("#   URL {url}\n")).collect(),
    };
    let explanation = format!(
        "# Recovery kit of Comb\n\
         #\n\
         # account {account}\n\
         # made    {made}\n\
         #\n\
         # Whoever has this page and a copy of the key ring can read and change all volumes in it.\n\
         # Keep it on paper, where you keep what must not be lost. Do not photograph or send it.\n\
         # A later kit takes its place.\n\
         #\n\
         # When the passphrase is forgotten and no device is left:\n\
         #   comb recover --store URL --kit            brings every volume back from a store; asks for the letters below\n\
         {there}\
         #   comb recover --ring FILE --kit            the same with a copy of the key ring\n\
         #   With --kit-file PAGE in place of --kit, this page is read from a file.\n\
         # Large and small letters are the same; O is read as 0, I and L as 1.\n\
         \n"
    );
    // Room for all of it: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(explanation.len() + letters.len()));
    text.push_str(&explanation);
    text.push_str(&letters);
    text
}
