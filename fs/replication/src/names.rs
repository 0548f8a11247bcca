//! What a volume's objects are called in a store.
//!
//! Numbers are written as `u64::MAX − n`, so that the newest comes first in a listing, which ascends.

use fs_format::{Epoch, PackId, Seq, VolumeId};
use fs_store::{Name, Prefix};

/// Names of one volume's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    volume: String,
}

/// What a name below `c/` says that may have ended a writer's right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fencing {
    /// Somebody claimed this epoch.
    Claim(Epoch),
    /// Slots up to this seq may be gone.
    Boundary(Seq),
}

impl Names {
    /// The names of this volume's objects.
    pub fn of(volume: &VolumeId) -> Names {
        Names { volume: format!("v/{volume}/") }
    }

    /// Which store this is for this volume.
    pub fn id(&self) -> Name {
        self.name("id")
    }

    /// A pack.
    pub fn pack(&self, pack: &PackId) -> Name {
        self.name(&format!("p/{pack}"))
    }

    /// The manifest with this seq.
    pub fn slot(&self, seq: Seq) -> Name {
        self.name(&format!("m/{}", descending(seq.0)))
    }

    /// The claim of an epoch.
    pub fn claim(&self, epoch: Epoch) -> Name {
        self.name(&format!("c/e{}", descending(epoch.0)))
    }

    /// The boundary at a seq.
    pub fn boundary(&self, seq: Seq) -> Name {
        self.name(&format!("c/b{}", descending(seq.0)))
    }

    /// All packs.
    pub fn packs(&self) -> Prefix {
        self.prefix("p/")
    }

    /// The name right before a pack's in their listing; none before the first that there may be.
    pub(crate) fn before_pack(&self, pack: &PackId) -> Option<Name> {
        before(pack).map(|id| self.pack(&id))
    }

    /// All slots, the newest first.
    pub fn slots(&self) -> Prefix {
        self.prefix("m/")
    }

    /// All boundaries, then all claims; of each the highest first.
    pub fn fencing(&self) -> Prefix {
        self.prefix("c/")
    }

    /// Which slot a name is.
    pub fn read_slot(&self, name: &Name) -> Option<Seq> {
        self.rest(name, "m/").and_then(number).map(Seq)
    }

    /// Which pack a name is.
    pub fn read_pack(&self, name: &Name) -> Option<PackId> {
        self.rest(name, "p/").and_then(PackId::from_hex)
    }

    /// Which claim or boundary a name is.
    pub fn read_fencing(&self, name: &Name) -> Option<Fencing> {
        let rest = self.rest(name, "c/")?;
        let epoch = rest.strip_prefix('e').and_then(number).map(Epoch).map(Fencing::Claim);
        epoch.or_else(|| rest.strip_prefix('b').and_then(number).map(Seq).map(Fencing::Boundary))
    }

    fn name(&self, rest: &str) -> Name {
        Name::new(format!("{}{rest}", self.volume)).expect("hexadecimal digits and letters are good names")
    }

    fn prefix(&self, rest: &str) -> Prefix {
        Prefix::new(format!("{}{rest}", self.volume)).expect("hexadecimal digits and letters are good names")
    }

    fn rest<'a>(&self, name: &'a Name, folder: &str) -> Option<&'a str> {
        name.as_str().strip_prefix(&self.volume)?.strip_prefix(folder)
    }
}

fn descending(number: u64) -> String {
    format!("{:016x}", u64::MAX - number)
}

/// Reads exactly what `descending` writes.
fn number(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(|number| u64::MAX - number)
}

/// The id right before this one in a listing; `None` for the first.
fn before(pack: &PackId) -> Option<PackId> {
    let mut bytes = pack.0;
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            return Some(PackId(bytes));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::of(&VolumeId([0xab; 32]))
    }

    #[test]
    fn the_id_before_is_the_one_before() {
        let mut id = [0; 32];
        assert_eq!(before(&PackId(id)), None);
        id[30] = 1;
        let mut less = [0; 32];
        less[31] = 255;
        assert_eq!(before(&PackId(id)), Some(PackId(less)));
    }

    #[test]
    fn names_are_as_written_in_the_document() {
        let volume = format!("v/{}/", "ab".repeat(32));
        let expect = |name: Name, rest: &str| assert_eq!(name.as_str(), format!("{volume}{rest}"));
        expect(names().id(), "id");
        expect(names().pack(&PackId([1; 32])), &format!("p/{}", "01".repeat(32)));
        expect(names().slot(Seq(1)), "m/fffffffffffffffe");
        expect(names().claim(Epoch(0x10)), "c/effffffffffffffef");
        expect(names().boundary(Seq(u64::MAX)), "c/b0000000000000000");
    }

    #[test]
    fn names_come_back_and_no_others() {
        for number in [0, 1, 0xffff, u64::MAX] {
            assert_eq!(names().read_slot(&names().slot(Seq(number))), Some(Seq(number)));
            let claim = names().claim(Epoch(number));
            assert_eq!(names().read_fencing(&claim), Some(Fencing::Claim(Epoch(number))));
            let boundary = names().boundary(Seq(number));
            assert_eq!(names().read_fencing(&boundary), Some(Fencing::Boundary(Seq(number))));
            assert_eq!(names().read_slot(&claim), None);
        }
        let pack = PackId([7; 32]);
        assert_eq!(names().read_pack(&names().pack(&pack)), Some(pack));

        let stranger = Names::of(&VolumeId([1; 32]));
        assert_eq!(names().read_slot(&stranger.slot(Seq(1))), None, "another volume's");
        for rest in ["m/fffffffffffffff", "m/fffffffffffffffe0", "m/x", "m/fffffffffffffffe/a"] {
            assert_eq!(names().read_slot(&names().name(rest)), None, "{rest}");
        }
        for rest in ["c/fffffffffffffffe", "c/e", "c/xfffffffffffffffe"] {
            assert_eq!(names().read_fencing(&names().name(rest)), None, "{rest}");
        }
    }

    #[test]
    fn the_newest_comes_first() {
        assert!(names().slot(Seq(256)) < names().slot(Seq(255)));
        assert!(names().claim(Epoch(2)) < names().claim(Epoch(1)));
        assert!(names().boundary(Seq(1)) < names().claim(Epoch(u64::MAX)), "boundaries come before claims");
    }
}
