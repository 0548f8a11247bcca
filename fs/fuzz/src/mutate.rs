//! From bytes that decode to bytes that nearly do.

use fs_format::{Ino, put_varint};

use crate::dice::Dice;

/// The longest input, in bytes: above the limit of a node, so that the limit is tried.
pub const INPUT_BYTES_MAX: usize = 136 << 10;

/// Numbers at which decoders change their mind.
const EDGES: [u64; 30] = [
    0,
    1,
    2,
    15,
    16,
    17,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    4095,
    4096,
    4097,
    0x7fff,
    0xffff,
    0x1_0000,
    80 << 10,
    (80 << 10) + 1,
    1 << 20,
    (1 << 20) + 1,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    Ino::MAX.0,
    Ino::MAX.0 + 1,
    i64::MAX as u64,
    u64::MAX,
];

/// Changes `bytes` in one to eight ways; `donor` lends pieces.
pub fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>, donor: &[u8]) {
    // Few changes reach deep, many reach wide.
    for _ in 0..1usize << dice.below(4) {
        change(dice, bytes, donor);
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, donor: &[u8]) {
    if bytes.is_empty() {
        bytes.push(dice.roll() as u8);
        return;
    }
    let at = place(dice, bytes.len());
    match dice.below(14) {
        0 | 1 => bytes[at] ^= 1 << dice.below(8),
        2 => bytes[at] = *dice.pick(&EDGES) as u8,
        3 => bytes[at] = dice.roll() as u8,
        4 => bytes[at] = bytes[at].wrapping_add_signed(if dice.percent(50) { 1 } else { -1 }),
        5 => fixed(dice, bytes, at),
        6 | 7 => varint(dice, bytes, at),
        8 => bytes.truncate(at),
        9 => {
            let end = at + run(dice, bytes.len() - at);
            bytes.drain(at..end);
        }
        10 => {
            let piece = bytes[at..at + run(dice, bytes.len() - at)].to_vec();
            let to = place(dice, bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        11 => {
            let from = place(dice, donor.len());
            let piece = &donor[from..from + run(dice, donor.len() - from)];
            if dice.percent(50) {
                bytes.splice(at..at, piece.iter().copied());
            } else {
                let end = (at + piece.len()).min(bytes.len());
                bytes.splice(at..end, piece.iter().copied());
            }
        }
        12 => {
            // The head of one and the tail of the other.
            let from = place(dice, donor.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&donor[from..]);
        }
        _ => {
            let fill = *dice.pick(&[0, 0x80, 0xff]);
            let len = 1 + dice.below(40);
            bytes.splice(at..at, std::iter::repeat_n(fill, len));
        }
    }
}

/// A place in `len` bytes; every second one among the first 32, where counts, versions and kinds lie.
fn place(dice: &mut Dice, len: usize) -> usize {
    if dice.percent(50) { dice.below(len.min(32)) } else { dice.below(len) }
}

/// The length of a piece of at most `len` bytes: mostly short, sometimes all.
fn run(dice: &mut Dice, len: usize) -> usize {
    if dice.percent(5) { len } else { dice.below(len.min(64) + 1) }
}

/// Sets a fixed number: a length field, most often.
fn fixed(dice: &mut Dice, bytes: &mut [u8], at: usize) {
    let width = (*dice.pick(&[2, 4, 8])).min(bytes.len() - at);
    let field = &mut bytes[at..at + width];
    let mut number = [0; 8];
    number[..width].copy_from_slice(field);
    let old = u64::from_le_bytes(number);
    field.copy_from_slice(&other_number(dice, old).to_le_bytes()[..width]);
}

/// Replaces the varint that begins here, if one does, also by spellings that must be refused.
fn varint(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize) {
    let len = bytes[at..].iter().take(10).take_while(|&&byte| byte & 0x80 != 0).count() + 1;
    let end = (at + len).min(bytes.len());
    let old = bytes[at..end].iter().rev().fold(0u64, |value, &byte| value << 7 | u64::from(byte & 0x7f));
    let mut new = Vec::with_capacity(12);
    match dice.below(12) {
        0 => {
            // The same number with a group that says nothing.
            put_varint(&mut new, old);
            if let Some(last) = new.last_mut() {
                *last |= 0x80;
            }
            new.push(0);
        }
        1 => new.extend_from_slice(&[0xff; 11]),
        _ => put_varint(&mut new, other_number(dice, old)),
    }
    bytes.splice(at..end, new);
}

fn other_number(dice: &mut Dice, old: u64) -> u64 {
    match dice.below(5) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old << 1,
        _ => *dice.pick(&EDGES),
    }
}
