//! Numbers that look random and repeat with their seed: for faults and for pauses, never for secrets.

/// A number that a seed and what is drawn for decide.
pub(crate) fn draw(seed: u64, what: &[&[u8]], turn: u64) -> u64 {
    // FNV-1a over all parts, with a byte between them that no name has.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ mix(seed);
    for byte in what.iter().flat_map(|part| part.iter().chain(&[0xff])) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash ^ mix(turn))
}

/// The finalizer of splitmix64.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
