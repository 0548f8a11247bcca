//! Names of blocks (CIDs) and of heads (IPNS names), as text and as bytes.
//!
//! Only the one form that is used here is read: CIDs of version 1, SHA-256, raw or dag-pb, in base32.

use std::fmt;

use sha2::{Digest, Sha256};

/// Bytes of a CID.
pub(super) const CID_BYTES: usize = 36;
/// SHA-256, and how many bytes it has.
const MULTIHASH: [u8; 2] = [0x12, 32];
/// Version 1, a libp2p key, itself instead of its hash, 36 bytes: an ed25519 public key of 32 bytes.
const KEY_HEAD: [u8; 8] = [1, 0x72, 0, 36, 0x08, 1, 0x12, 32];

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What is in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Codec {
    /// Bytes.
    Raw = 0x55,
    /// A node with links.
    DagPb = 0x70,
}

impl Codec {
    /// What kubo calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Codec::Raw => "raw",
            Codec::DagPb => "dag-pb",
        }
    }
}

/// The name of a block: its hash, and what is in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Cid {
    /// What is in it.
    pub(super) codec: Codec,
    digest: [u8; 32],
}

impl Cid {
    /// The name of this block.
    pub(super) fn of(codec: Codec, block: &[u8]) -> Cid {
        Cid { codec, digest: Sha256::digest(block).into() }
    }

    /// Whether this is the block of that name.
    pub(super) fn names(&self, block: &[u8]) -> bool {
        *self == Cid::of(self.codec, block)
    }

    /// The bytes as they stand in a link.
    pub(super) fn to_bytes(self) -> [u8; CID_BYTES] {
        let mut bytes = [0; CID_BYTES];
        bytes[..2].copy_from_slice(&[1, self.codec as u8]);
        bytes[2..4].copy_from_slice(&MULTIHASH);
        bytes[4..].copy_from_slice(&self.digest);
        bytes
    }

    /// Reads what `to_bytes` wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Cid> {
        let ([version, codec, kind, length], digest) = bytes.split_first_chunk()?;
        let codec = [Codec::Raw, Codec::DagPb].into_iter().find(|one| *one as u8 == *codec)?;
        let known = *version == 1 && [*kind, *length] == MULTIHASH;
        Some(Cid { codec, digest: digest.try_into().ok().filter(|_| known)? })
    }

    /// Reads the text of a CID.
    pub(super) fn parse(text: &str) -> Option<Cid> {
        let mut bytes = Vec::with_capacity(CID_BYTES);
        let (mut bits, mut held) = (0_u32, 0_u32);
        for letter in text.strip_prefix('b').filter(|text| text.len() <= 2 * CID_BYTES)?.bytes() {
            let value = BASE32.iter().position(|one| *one == letter)?;
            held = held << 5 | value as u32;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push((held >> bits) as u8);
                held &= (1 << bits) - 1;
            }
        }
        // Bits that fill the last letter are zeros, or two texts would mean the same.
        Cid::from_bytes(&bytes).filter(|cid| cid.to_string() == text)
    }
}

/// The canonical text.
impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::from("b");
        let (mut bits, mut held) = (0_u32, 0_u32);
        for byte in self.to_bytes() {
            held = held << 8 | u32::from(byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                text.push(char::from(BASE32[(held >> bits) as usize & 31]));
            }
            held &= (1 << bits) - 1;
        }
        if bits > 0 {
            text.push(char::from(BASE32[(held << (5 - bits)) as usize & 31]));
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The IPNS name of an ed25519 public key, in base36.
pub(super) fn ipns_name(public: &[u8; 32]) -> String {
    // A number in base 36, the last digit first, to which one byte after the other is added.
    let mut digits: Vec<u8> = Vec::with_capacity(64);
    for byte in KEY_HEAD.iter().chain(public) {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 36) as u8;
            carry /= 36;
        }
        while carry > 0 {
            digits.push((carry % 36) as u8);
            carry /= 36;
        }
    }
    let text = digits.iter().rev().map(|digit| char::from(BASE36[usize::from(*digit)]));
    std::iter::once('k').chain(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_everybody_has() {
        // What `ipfs block put` and `ipfs add --cid-version 1` say of nothing, of text, and of an empty folder.
        for (codec, block, name) in [
            (Codec::Raw, &b""[..], "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
            (Codec::Raw, b"hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
            (
                Codec::DagPb,
                b"\x0a\x02\x08\x01",
                "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
            ),
        ] {
            let cid = Cid::of(codec, block);
            assert_eq!(cid.to_string(), name);
            assert_eq!(Cid::parse(name), Some(cid));
            assert_eq!(Cid::from_bytes(&cid.to_bytes()), Some(cid));
            assert!(cid.names(block) && !cid.names(b"other"));
        }
    }

    #[test]
    fn what_is_no_name_of_ours_is_refused() {
        let good = Cid::of(Codec::Raw, b"").to_string();
        let flipped = format!("{}v", &good[..good.len() - 1]);
        let upper = good.to_uppercase();
        for bad in [
            "",
            "b",
            "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
            &upper,
            &good[..58],
            &flipped,
            "zb2rh",
        ] {
            assert_eq!(Cid::parse(bad), None, "{bad}");
        }
        // dag-cbor, which is never a block of ours.
        assert_eq!(Cid::parse("bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"), None);
    }
}
