//! What a program knew of a volume when it ordered to take it over: `comb volume open --expect`, `--since`.
//!
//! Invariant: an order that was made from old knowledge ends nobody's right. Nothing is sealed, branched, claimed or committed
//! where the store has another head than was expected.

use fs_format::claim::Claim;
use fs_format::{DeviceId, Epoch, ManifestId, Seq};
use fs_replication::{Head, Link, Slot};

use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;

/// What is expected of the store's newest manifest and greatest claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    Anything,
    /// This manifest. A claim that no slot follows says nothing against it.
    Exactly(Link),
    /// Nothing below this, and nothing by anybody but this machine and these.
    Since {
        /// The least epoch.
        epoch: Epoch,
        /// The least seq.
        seq: Seq,
        /// Pseudonyms of those who may have written since.
        writers: Vec<DeviceId>,
    },
}

/// A head that was found as expected.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    expect: &'a Expect,
    own: DeviceId,
    /// The epoch that comes after it; another one says that somebody was there meanwhile.
    pub epoch: Epoch,
}

impl Expect {
    /// Whether anything is expected.
    pub fn is_anything(&self) -> bool {
        *self == Expect::Anything
    }

    /// Compares what a store shows; `own` is this machine's pseudonym in the volume.
    pub fn check<'a>(&'a self, volume: &VolumeName, head: &Head, own: DeviceId) -> Result<Expected<'a>> {
        let newest_fits = match &head.newest {
            Some(newest) => self.fits(newest, own),
            None => matches!(self, Expect::Anything | Expect::Since { epoch: Epoch(0), .. }),
        };
        let claim_fits = match (self, &head.claim) {
            (Expect::Since { writers, .. }, Some(claim)) => is_of(writers, DeviceId(claim.device), own),
            _ => true,
        };
        if !newest_fits || !claim_fits {
            return Err(unexpected(volume, head.newest.as_ref(), head.claim.as_ref()));
        }
        Ok(Expected { expect: self, own, epoch: Epoch(head.epoch().0.saturating_add(1)) })
    }

    fn fits(&self, newest: &Slot, own: DeviceId) -> bool {
        match self {
            Expect::Anything => true,
            Expect::Exactly(link) => newest.link() == *link,
            Expect::Since { epoch, seq, writers } => {
                newest.epoch >= *epoch && newest.seq >= *seq && is_of(writers, newest.device, own)
            }
        }
    }
}

impl Expected<'_> {
    /// Whether anything is expected.
    pub fn is_anything(&self) -> bool {
        self.expect.is_anything()
    }

    /// Whether the volume may go on from here.
    pub fn fits(&self, head: &Slot) -> bool {
        self.expect.fits(head, self.own)
    }
}

fn is_of(writers: &[DeviceId], device: DeviceId, own: DeviceId) -> bool {
    device == own || writers.contains(&device)
}

/// Says what is there in place of what was expected.
pub fn unexpected(volume: &VolumeName, newest: Option<&Slot>, claim: Option<&Claim>) -> Failure {
    let mut text = match newest {
        Some(newest) => format!(
            "its newest seal is {} of epoch {} ({}), by {}",
            newest.seq,
            newest.epoch,
            newest.id.to_hex(),
            newest.device.to_hex()
        ),
        None => "it has no seal".to_owned(),
    };
    if let Some(claim) = claim.filter(|claim| newest.is_none_or(|newest| claim.epoch > newest.epoch)) {
        text += &format!(", and epoch {} is claimed by {}", claim.epoch, DeviceId(claim.device).to_hex());
    }
    let what = format!("the store of volume \"{volume}\" has another head than was expected: {text}");
    Failure::new(Kind::Unexpected, what)
        .hint(format!("nothing was changed; `comb volume head {volume}` shows it"))
}

/// Reads `EPOCH:SEQ:MANIFEST`.
pub fn parse_link(text: &str) -> std::result::Result<Link, String> {
    let bad =
        || format!("{text:?} is no head: write EPOCH:SEQ:MANIFEST, the last with 64 hexadecimal digits");
    let mut parts = text.splitn(3, ':');
    let (epoch, seq) = (number(parts.next()), number(parts.next()));
    let id = parts.next().and_then(ManifestId::from_hex);
    let (Some(epoch), Some(seq), Some(id)) = (epoch, seq, id) else { return Err(bad()) };
    Ok(Link { epoch: Epoch(epoch), seq: Seq(seq), id })
}

/// Reads `EPOCH:SEQ`.
pub fn parse_place(text: &str) -> std::result::Result<(Epoch, Seq), String> {
    let place =
        text.split_once(':').and_then(|(epoch, seq)| Some((number(Some(epoch))?, number(Some(seq))?)));
    let (epoch, seq) = place.ok_or_else(|| format!("{text:?} is no place: write EPOCH:SEQ"))?;
    Ok((Epoch(epoch), Seq(seq)))
}

/// Reads the pseudonym of a machine in a volume.
pub fn parse_writer(text: &str) -> std::result::Result<DeviceId, String> {
    DeviceId::from_hex(&text.to_ascii_lowercase())
        .ok_or_else(|| format!("{text:?} is no writer: its pseudonym has 32 hexadecimal digits"))
}

fn number(text: Option<&str>) -> Option<u64> {
    let text = text?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const OWN: DeviceId = DeviceId([1; 16]);
    const FRIEND: DeviceId = DeviceId([2; 16]);
    const STRANGER: DeviceId = DeviceId([3; 16]);

    fn slot(epoch: u64, seq: u64, device: DeviceId) -> Slot {
        Slot {
            epoch: Epoch(epoch),
            seq: Seq(seq),
            id: ManifestId([seq as u8; 32]),
            parent: ManifestId([0; 32]),
            device,
            bytes: Bytes::new(),
        }
    }

    fn claim(epoch: u64, DeviceId(device): DeviceId) -> Claim {
        let volume = fs_format::VolumeId([0; 32]);
        Claim { volume, epoch: Epoch(epoch), device, nonce: [0; 32] }
    }

    /// Whether a head is as expected.
    fn is_found(expect: &Expect, newest: Option<Slot>, claim: Option<Claim>) -> bool {
        let volume: VolumeName = "photos".parse().expect("a name");
        match expect.check(&volume, &Head { newest, claim }, OWN) {
            Ok(_) => true,
            Err(failure) => {
                assert_eq!(failure.kind, Kind::Unexpected);
                false
            }
        }
    }

    #[test]
    fn exactly_is_one_manifest_whatever_is_claimed() {
        let expect = Expect::Exactly(slot(2, 7, FRIEND).link());
        assert!(is_found(&expect, Some(slot(2, 7, FRIEND)), None));
        assert!(is_found(&expect, Some(slot(2, 7, FRIEND)), Some(claim(3, STRANGER))));
        for other in [slot(2, 8, FRIEND), slot(3, 7, FRIEND), slot(2, 6, FRIEND)] {
            assert!(!is_found(&expect, Some(other), None));
        }
        assert!(!is_found(&expect, None, None));
    }

    #[test]
    fn since_is_what_those_wrote_who_may_have() {
        let expect = Expect::Since { epoch: Epoch(2), seq: Seq(7), writers: vec![FRIEND] };
        for fits in [slot(2, 7, FRIEND), slot(2, 9, OWN), slot(5, 30, FRIEND)] {
            assert!(is_found(&expect, Some(fits.clone()), None));
            assert!(is_found(&expect, Some(fits.clone()), Some(claim(6, OWN))));
            assert!(!is_found(&expect, Some(fits), Some(claim(6, STRANGER))));
        }
        for other in [slot(2, 7, STRANGER), slot(2, 6, FRIEND), slot(1, 9, FRIEND)] {
            assert!(!is_found(&expect, Some(other), None));
        }
        assert!(!is_found(&expect, None, None));
        let first = Expect::Since { epoch: Epoch(0), seq: Seq(0), writers: Vec::new() };
        assert!(is_found(&first, None, None) && is_found(&first, Some(slot(1, 1, OWN)), None));
        assert!(!is_found(&first, Some(slot(1, 1, FRIEND)), None));
    }

    #[test]
    fn heads_places_and_writers_have_one_form() {
        let hex = "ab".repeat(32);
        let link = Link { epoch: Epoch(3), seq: Seq(12), id: ManifestId([0xab; 32]) };
        assert_eq!(parse_link(&format!("3:12:{hex}")), Ok(link));
        assert_eq!(parse_place("3:12"), Ok((Epoch(3), Seq(12))));
        assert_eq!(parse_writer(&"01".repeat(16)), Ok(OWN));
        for wrong in ["", "3", "3:12", "3:12:", "3:12:ab", "+3:12:x", ":12:x"] {
            assert!(parse_link(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "3", "3:", ":3", "3:12:1", "+3:12", "-1:2"] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "01", &"0g".repeat(16), &format!("+{}", "0".repeat(31))] {
            assert!(parse_writer(wrong).is_err(), "{wrong}");
        }
    }
}
