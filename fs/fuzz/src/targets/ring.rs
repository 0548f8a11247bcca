//! A key ring as an object: clear header, encrypted body, hash.

use fs_format::ring::{
    Argon, RING_BODY_STEP, RING_HEADER_BYTES, RING_NUMBER_MAX, RingHeader, open_ring, ring_hash, ring_of_name,
};
use fs_format::{AccountId, RingNumber};

use crate::outcome::{Outcome, judge, same};

const TAG_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || open_ring(input),
        |ring| {
            same(&ring.header.encode(ring.body.len()), ring.associated)?;
            let mut again = ring.associated.to_vec();
            again.extend_from_slice(ring.body);
            again.extend_from_slice(ring.tag);
            again.extend_from_slice(&ring_hash(&again));
            same(&again, input)?;
            // Whatever was read, Argon2id is asked for no more than this.
            let argon = ring.header.argon;
            if argon.memory_kib > Argon::MAX.memory_kib
                || argon.passes > Argon::MAX.passes
                || argon.lanes > Argon::MAX.lanes
            {
                return Err(format!("{argon:?}"));
            }
            match ring_of_name(&ring.header.object_name()) {
                Some((account, number)) if (account, number) == (ring.header.account, ring.header.number) => {
                    Ok(u64::from(argon.passes) << 8 | super::magnitude(ring.body.len()))
                }
                _ => Err("a name that leads elsewhere".into()),
            }
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    [(1, Argon::MIN, 1), (7, Argon::MIN, 2), (RING_NUMBER_MAX, Argon::MAX, 1)]
        .map(|(number, argon, steps)| {
            let header = RingHeader {
                account: AccountId([1; 16]),
                number: RingNumber(number),
                argon,
                passphrase_salt: [2; 32],
                by_passphrase: [3; 48],
                by_kit: [4; 48],
                salt: [5; 32],
            };
            let mut object = header.encode(steps * RING_BODY_STEP).to_vec();
            object.resize(object.len() + steps * RING_BODY_STEP + TAG_BYTES, 6);
            object.extend_from_slice(&ring_hash(&object));
            object
        })
        .into()
}

/// Brings the length and the hash in line with the rest.
pub fn repair(input: &mut Vec<u8>) {
    let Some(body) = input.len().checked_sub(RING_HEADER_BYTES + HASH_BYTES) else { return };
    input[12..16].copy_from_slice(&(body as u32).to_le_bytes());
    input.truncate(input.len() - HASH_BYTES);
    input.extend_from_slice(&ring_hash(input));
}
