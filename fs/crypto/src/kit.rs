//! The recovery kit: 256 bits as letters that a person can print, and type again.
//!
//! Thirteen groups of five letters; the fifth checks the four before it and the group's place, so that a
//! typing error is found, and named by its group.

use zeroize::Zeroizing;

use crate::keys::hide;

/// What opens a key ring when the passphrase is lost.
pub struct RecoveryKit(pub(crate) Zeroizing<[u8; 32]>);

hide!(RecoveryKit);

/// Why text is not a recovery kit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KitError {
    /// A group's check does not match. Groups are counted from 1.
    #[error("has a mistake in group {group} of {GROUPS}")]
    Mistyped {
        /// Which group.
        group: usize,
    },
    /// Groups are missing, or there are too many.
    #[error("has {letters} letters, a recovery kit has {LETTERS}")]
    Length {
        /// How many there are; counting ends behind the last that may be.
        letters: usize,
    },
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUPS: usize = 13;
const GROUP_LETTERS: usize = 5;
const LETTERS: usize = GROUPS * GROUP_LETTERS;
/// How many groups stand on a line.
const LINE_GROUPS: usize = 5;

impl RecoveryKit {
    /// Its letters, in groups, on three lines.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(LETTERS + GROUPS));
        let mut letters = letters_of(&self.0);
        for group in 0..GROUPS {
            let mut values = [0; GROUP_LETTERS];
            values[..4].fill_with(|| letters.next().expect("13 groups of 4 letters"));
            values[4] = check(group, &values);
            text.extend(values.iter().map(|&value| char::from(ALPHABET[usize::from(value)])));
            text.push(if (group + 1) % LINE_GROUPS == 0 || group + 1 == GROUPS { '\n' } else { ' ' });
        }
        text
    }

    /// Reads letters as a person types them, or a whole printed kit.
    pub fn from_text(text: &str) -> Result<Self, KitError> {
        // None where a letter is none of the alphabet: that is a mistake in its group.
        let mut values = Zeroizing::new([None; LETTERS]);
        let mut count = 0;
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        for letter in lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace() && *letter != '-') {
            *values.get_mut(count).ok_or(KitError::Length { letters: count + 1 })? = value_of(letter);
            count += 1;
        }

        let mut bytes = Zeroizing::new([0; 32]);
        let mut out = bytes.iter_mut();
        let (mut buffer, mut bits) = (0u32, 0);
        for (group, values) in values[..count].chunks_exact(GROUP_LETTERS).enumerate() {
            let mistyped = KitError::Mistyped { group: group + 1 };
            let mut known = [0; GROUP_LETTERS];
            for (known, value) in known.iter_mut().zip(values) {
                *known = value.ok_or(mistyped)?;
            }
            if known[4] != check(group, &known) {
                return Err(mistyped);
            }
            for value in &known[..4] {
                buffer = buffer << 5 | u32::from(*value);
                bits += 5;
                if bits >= 8 {
                    bits -= 8;
                    // Behind the last byte are four bits, which are zero.
                    *out.next().expect("52 letters are 32 bytes and 4 bits") = (buffer >> bits) as u8;
                    buffer &= (1 << bits) - 1;
                }
            }
        }
        if count != LETTERS {
            return Err(KitError::Length { letters: count });
        }
        if buffer != 0 {
            return Err(KitError::Mistyped { group: GROUPS });
        }
        Ok(Self(bytes))
    }
}

/// Five bits each, the highest first, zeros behind the last.
fn letters_of(bytes: &[u8; 32]) -> impl Iterator<Item = u8> {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    (0..GROUPS * 4).map(move |letter| (0..5).fold(0, |value, at| value << 1 | bit(letter * 5 + at)))
}

fn value_of(letter: char) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET.iter().position(|&known| char::from(known) == letter).map(|value| value as u8)
}

/// The check of a group's first four letters in GF(2⁵): each place has a factor of its own, and each group a
/// summand of its own.
fn check(group: usize, values: &[u8; GROUP_LETTERS]) -> u8 {
    // By Horner: ((((d3·α + d2)·α + d1)·α + d0)·α.
    let letters = values[..4].iter().rev().fold(0, |sum, value| times_alpha(sum ^ value));
    let place = (0..18 + group).fold(1, |power, _| times_alpha(power));
    letters ^ place
}

/// Times α = 2, modulo x⁵ + x² + 1.
fn times_alpha(value: u8) -> u8 {
    let shifted = value << 1;
    if shifted & 0x20 == 0 { shifted } else { shifted ^ 0x25 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn kit() -> RecoveryKit {
        RecoveryKit(Zeroizing::new(std::array::from_fn(|i| (i * 37 + 11) as u8)))
    }

    fn refused(text: &str) -> KitError {
        RecoveryKit::from_text(text).map(|_| ()).expect_err("not the kit")
    }

    #[test]
    fn a_kit_is_these_letters() {
        let text = kit().to_text();
        assert_eq!(
            *text,
            "1CR5G AYMZJ RKMG3 WCTR7 FPHCV\nFV0HF 6SDR7 19EAM XWA3R JQM3R\nN36Z6 45SWG C630A\n"
        );
        assert_eq!(text.capacity(), LETTERS + GROUPS, "it never grew");
        for kit in [kit(), RecoveryKit(Zeroizing::new([0; 32])), RecoveryKit(Zeroizing::new([0xff; 32]))] {
            assert_eq!(RecoveryKit::from_text(&kit.to_text()).map(|kit| kit.0), Ok(kit.0));
        }
    }

    #[test]
    fn a_kit_is_read_as_people_type() {
        let text = kit().to_text().replace('0', "o").replace('1', "l").to_lowercase();
        let squeezed: String = text.chars().filter(|letter| letter.is_alphanumeric()).collect();
        let hyphens = text.split_whitespace().collect::<Vec<_>>().join("-");
        let printed = format!("# A recovery kit\n#\n\n{text}\n  # Keep it\n");
        for text in [text, squeezed, hyphens, printed] {
            assert_eq!(RecoveryKit::from_text(&text).map(|kit| kit.0), Ok(kit().0), "{text:?}");
        }
    }

    #[test]
    fn every_wrong_letter_is_found_in_its_group() {
        let text: Vec<char> = kit().to_text().chars().filter(|letter| !letter.is_whitespace()).collect();
        for at in 0..text.len() {
            for wrong in ALPHABET.iter().map(|&letter| char::from(letter)).chain(['U', 'é', '*']) {
                if wrong != text[at] {
                    let mut wrongly = text.clone();
                    wrongly[at] = wrong;
                    let expected = KitError::Mistyped { group: at / 5 + 1 };
                    assert_eq!(refused(&wrongly.iter().collect::<String>()), expected);
                }
            }
        }
    }

    #[test]
    fn letters_and_groups_that_changed_places_are_found() {
        let text: Vec<char> = kit().to_text().chars().filter(|letter| !letter.is_whitespace()).collect();
        for group in 0..GROUPS {
            for (one, two) in
                (0..5).flat_map(|one| (0..one).map(move |two| (group * 5 + one, group * 5 + two)))
            {
                let mut swapped = text.clone();
                swapped.swap(one, two);
                if swapped != text {
                    let expected = KitError::Mistyped { group: group + 1 };
                    assert_eq!(refused(&swapped.iter().collect::<String>()), expected);
                }
            }
            for other in 0..group {
                let mut groups: Vec<&[char]> = text.chunks(5).collect();
                groups.swap(group, other);
                let expected = KitError::Mistyped { group: other + 1 };
                assert_eq!(refused(&groups.concat().iter().collect::<String>()), expected);
            }
        }
    }

    #[test]
    fn a_kit_of_another_length_is_refused() {
        let text = kit().to_text().replace([' ', '\n'], "");
        for len in 0..text.len() {
            assert_eq!(refused(&text[..len]), KitError::Length { letters: len });
        }
        assert_eq!(refused(&format!("{text}0")), KitError::Length { letters: 66 });
        // A letter that was left out shifts what follows: the first group that is wrong says where.
        let without = format!("{}{}", &text[..32], &text[33..]);
        assert_eq!(refused(&without), KitError::Mistyped { group: 7 });
    }

    #[test]
    fn bits_behind_the_last_byte_are_zero() {
        let text = kit().to_text().replace([' ', '\n'], "");
        let mut values: [u8; 5] =
            std::array::from_fn(|i| value_of(text.as_bytes()[60 + i].into()).expect("a letter"));
        values[3] ^= 1;
        values[4] = check(12, &values);
        let last: String = values.iter().map(|&value| char::from(ALPHABET[usize::from(value)])).collect();
        assert_eq!(refused(&format!("{}{last}", &text[..60])), KitError::Mistyped { group: 13 });
    }

    #[test]
    fn the_field_has_31_powers() {
        let powers: BTreeSet<u8> =
            (0..31).scan(1, |power, _| Some(std::mem::replace(power, times_alpha(*power)))).collect();
        assert_eq!(powers, (1..32).collect());
    }

    #[test]
    fn printing_a_kit_shows_nothing() {
        assert_eq!(format!("{:?}", kit()), "RecoveryKit(..)");
    }
}
