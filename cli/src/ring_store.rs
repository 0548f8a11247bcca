//! The key ring of this machine and in a store; `fs/docs/crypto.md`, "In a store".
//!
//! Invariant: after [`sync`], store and machine have one newest version, and every key that either had.

use std::collections::BTreeSet;
use std::sync::Arc;

use fs_crypto::{Passphrase, RecoveryKit, Ring, RingError};
use fs_format::RingNumber;
use fs_replication::{Published, RingVersion, Rings};

use crate::failure::{Failure, Kind, Result};
use crate::ring::{Opened, failure};
use crate::state::{State, VolumeFolder};
use crate::{keys, output, stores};

/// How often it begins again because other devices publish at the same time.
const ROUNDS_MAX: usize = 8;

/// Brings the ring to every store of this machine's volumes. It is good on this machine whether that succeeds or not, so a
/// failure is a warning.
pub fn publish(state: &State, opened: &mut Opened<'_>) {
    for url in urls(state) {
        if let Err(failure) = publish_to(opened, &url) {
            output::note(&format!(
                "warning: the key ring in {url} is not the newest: {}\nhint: `comb key ring publish` tries again",
                failure.message
            ));
        }
    }
}

/// Brings the ring to a store.
pub fn publish_to(opened: &mut Opened<'_>, url: &str) -> Result<()> {
    stores::block_on(async {
        let rings = Rings::new(Arc::new(stores::open(url).await?));
        sync(opened, &rings).await
    })
}

/// Where the volumes of this machine go, as far as key rings can lie there.
///
/// The stores of a volume that somebody lets us read are his, and get nothing of ours.
pub fn urls(state: &State) -> BTreeSet<String> {
    let ours = |volume: &VolumeFolder| keys::load_any(volume).is_ok_and(|key| key.signing().is_some());
    let volumes = state.volumes().unwrap_or_default().into_iter().filter(ours);
    volumes
        .filter_map(|volume| volume.config().ok())
        .flat_map(|config| config.stores)
        .map(|store| store.url)
        .filter(|url| stores::holds_rings(url))
        .collect()
}

/// Brings the ring of this machine and of a store together.
pub async fn sync(opened: &mut Opened<'_>, rings: &Rings) -> Result<()> {
    let account = opened.ring.account();
    for _ in 0..ROUNDS_MAX {
        let newest = rings.newest_of(&account).await?;
        if let Some(theirs) = &newest {
            join(opened, theirs)?;
        }
        let mine = mine(opened)?;
        if newest.as_ref() == Some(&mine) {
            return Ok(());
        }
        let seen = newest.map_or(RingNumber(0), |theirs| theirs.header.number);
        match rings.publish(&mine, seen).await? {
            Published::Newest => return Ok(()),
            Published::Beside(others) => others.iter().try_for_each(|theirs| join(opened, theirs))?,
        }
    }
    Err(Failure::new(Kind::InTheWay, "other devices change the key ring all the time")
        .hint("nothing is lost: this machine has its own version; try again later"))
}

/// Makes the ring of this machine hold what another version holds.
pub fn join(opened: &mut Opened<'_>, theirs: &RingVersion) -> Result<()> {
    if *theirs == mine(opened)? {
        return Ok(());
    }
    let what = "the key ring in the store";
    let other = opened.ring.open_sibling(&theirs.object).map_err(|error| failure(what, &error))?;
    let newer = other.number() > opened.ring.number();
    // Not under the ring key before: nobody goes back to that, whatever a lost device publishes.
    if newer && other.shares_key_with(&opened.ring) && other.covers(&opened.ring) {
        return opened.take(other, &theirs.object);
    }
    let older = other.number() < opened.ring.number();
    if older && opened.ring.covers(&other) {
        return Ok(());
    }
    opened.ring.unite(&other).map_err(|error| failure(what, &error))?;
    opened.save()
}

fn mine(opened: &Opened<'_>) -> Result<RingVersion> {
    RingVersion::open(opened.object()?.into())
        .map_err(|error| failure("the key ring of this machine", &RingError::Format(error)))
}

/// The ring in a store that opens; a store may hold those of several accounts.
///
/// `opener` is the passphrase's or the kit's opening of a [`Ring`].
pub async fn find(
    rings: &Rings,
    opener: impl Fn(&[u8]) -> std::result::Result<Ring, RingError>,
) -> Result<(Ring, RingVersion)> {
    let mut refused = None;
    for found in rings.newest().await? {
        match found {
            Ok(version) => match opener(&version.object) {
                Ok(ring) => return Ok((ring, version)),
                Err(error) => {
                    refused.get_or_insert(failure(version.name(), &error));
                }
            },
            Err(error) => output::warn_once(&Failure::from(error).message),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Failure::new(Kind::NotFound, "the store holds no key ring")
            .hint("is the URL right? Key rings lie below `k/`")
    }))
}

/// [`find`] with a passphrase.
pub async fn find_by_passphrase(rings: &Rings, passphrase: &Passphrase) -> Result<(Ring, RingVersion)> {
    find(rings, |object| Ring::open_with_passphrase(object, passphrase)).await
}

/// [`find`] with a recovery kit.
pub async fn find_by_kit(rings: &Rings, kit: &RecoveryKit) -> Result<(Ring, RingVersion)> {
    find(rings, |object| Ring::open_with_kit(object, kit)).await
}

#[cfg(test)]
mod tests {
    use fs_crypto::{EntryKey, VolumeKey};
    use fs_store::Memory;
    use tempfile::TempDir;

    use super::*;
    use crate::ring;
    use crate::state::State;

    fn passphrase() -> Passphrase {
        Passphrase::new("correct horse battery staple").expect("a passphrase")
    }

    struct Machine {
        state: State,
        _folder: TempDir,
    }

    impl Machine {
        fn new() -> Machine {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let state = State::locate(Some(&folder.path().join("state"))).expect("a path");
            Machine { state, _folder: folder }
        }

        /// With a new ring.
        fn first() -> Machine {
            let machine = Machine::new();
            ring::make(&machine.state, || Ok(passphrase())).expect("a ring").save().expect("saved");
            machine
        }

        /// With the ring that a store has.
        async fn joining(rings: &Rings) -> Machine {
            let machine = Machine::new();
            let (ring, version) = find_by_passphrase(rings, &passphrase()).await.expect("the ring");
            ring::adopt(&machine.state, ring, &version.object).expect("adopted");
            machine
        }

        fn open(&self) -> Opened<'_> {
            ring::open_here(&self.state).expect("it opens without a question")
        }

        fn add(&self, n: u8, name: &str) {
            let key = VolumeKey::from_seed([n; 32]);
            let mut opened = self.open();
            let added = opened.add(key.id(), EntryKey::Volume(key), &name.parse().expect("a name"));
            assert_eq!(added, Ok(true));
            opened.save().expect("saved");
        }

        fn names(&self) -> BTreeSet<String> {
            self.open().ring.entries().map(|entry| entry.name.clone()).collect()
        }

        async fn sync(&self, rings: &Rings) {
            sync(&mut self.open(), rings).await.expect("synced");
        }
    }

    fn rings() -> Rings {
        Rings::new(Arc::new(Memory::default()))
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn store_and_passphrase_or_kit_are_enough() {
        let (rings, attic) = (rings(), Machine::first());
        attic.add(1, "photos");
        let mut opened = attic.open();
        let kit = opened.ring.new_kit(ring::now(), &[7; 32]);
        opened.save().expect("saved");
        drop(opened);
        attic.sync(&rings).await;

        let cellar = Machine::joining(&rings).await;
        assert_eq!(cellar.names(), set(&["photos"]));
        let (ring, _) = find_by_kit(&rings, &kit).await.expect("the ring");
        assert_eq!(ring.entries().count(), 1);

        // Another account in the same store is no obstacle; a wrong passphrase is told.
        for _ in 0..2 {
            let stranger = Machine::new();
            let other = || Ok(Passphrase::new("somebody else's words").expect("a passphrase"));
            let mut opened = ring::make(&stranger.state, other).expect("a ring");
            opened.save().expect("saved");
            sync(&mut opened, &rings).await.expect("synced");
        }
        assert!(find_by_passphrase(&rings, &passphrase()).await.is_ok());
        let wrong = Passphrase::new("neither nor").expect("a passphrase");
        let failure = find_by_passphrase(&rings, &wrong).await.map(|_| ()).expect_err("wrong");
        assert!(failure.message.ends_with("does not open with this passphrase"), "{}", failure.message);
        let nothing = Rings::new(Arc::new(Memory::default()));
        let failure = find_by_kit(&nothing, &kit).await.map(|_| ()).expect_err("nothing");
        assert_eq!(failure.kind, Kind::NotFound);
    }

    #[tokio::test]
    async fn two_machines_lose_nothing_of_each_other() {
        let (rings, attic) = (rings(), Machine::first());
        attic.sync(&rings).await;
        let cellar = Machine::joining(&rings).await;
        // Both make the same numbers; the attic one more.
        attic.add(1, "one");
        attic.add(2, "two");
        cellar.add(3, "three");
        cellar.sync(&rings).await;
        attic.sync(&rings).await;
        cellar.sync(&rings).await;
        let all = set(&["one", "two", "three"]);
        assert_eq!((attic.names(), cellar.names()), (all.clone(), all));
        let number = attic.open().ring.number();
        assert_eq!(cellar.open().ring.number(), number, "who has nothing more makes no version");
        for machine in [&attic, &cellar] {
            machine.sync(&rings).await;
            assert_eq!(machine.open().ring.number(), number, "nothing changed");
        }
    }

    #[tokio::test]
    async fn a_new_ring_key_is_asked_for_not_guessed() {
        let (rings, attic) = (rings(), Machine::first());
        attic.sync(&rings).await;
        let cellar = Machine::joining(&rings).await;
        cellar.add(3, "three");
        let mut opened = attic.open();
        opened.renew_key(&passphrase()).expect("memory");
        opened.save().expect("saved");
        drop(opened);
        attic.sync(&rings).await;
        let failure = sync(&mut cellar.open(), &rings).await.expect_err("another ring key");
        assert!(failure.message.contains("the key that this device keeps"), "{}", failure.message);
        assert_eq!(cellar.names(), set(&["three"]), "nothing is lost");
    }

    #[tokio::test]
    async fn a_device_that_was_lost_does_not_bring_the_old_ring_key_back() {
        let (rings, attic) = (rings(), Machine::first());
        attic.add(1, "photos");
        attic.sync(&rings).await;
        let lost = Machine::joining(&rings).await;
        let new = Passphrase::new("six other random words").expect("a passphrase");
        let mut opened = attic.open();
        opened.renew_key(&new).expect("memory");
        opened.save().expect("saved");
        drop(opened);
        // It publishes without looking, under a higher number, all that the other has.
        let mut opened = lost.open();
        for _ in 0..5 {
            opened.save().expect("saved");
        }
        let version = mine(&opened).expect("a version");
        rings.publish(&version, RingNumber(1)).await.expect("published");
        drop(opened);

        attic.sync(&rings).await;
        let object = attic.open().object().expect("the ring");
        assert!(Ring::open_with_passphrase(&object, &new).is_ok());
        assert!(Ring::open_with_passphrase(&object, &passphrase()).is_err());
        let newest = rings.newest_of(&version.header.account).await.expect("a listing");
        assert_eq!(newest.map(|newest| newest.object), Some(object.into()));
    }
}
