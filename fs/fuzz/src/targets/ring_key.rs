//! A device's wrapped ring key.

use fs_format::AccountId;
use fs_format::ring::DeviceRingKey;

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(input, || DeviceRingKey::decode(input), |key| same(&key.encode(), input).map(|()| 0))
}

pub fn seeds() -> Vec<Vec<u8>> {
    [[0; 48], [3; 48]]
        .map(|wrapped| {
            DeviceRingKey { account: AccountId([1; 16]), salt: [2; 32], wrapped }.encode().to_vec()
        })
        .into()
}
