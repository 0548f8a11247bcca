//! What a decoder did with bytes, and what must hold of it.

use std::fmt::Display;

use fs_crypto::{KeyError, KitError};
use fs_format::DecodeError;

use crate::meter;

/// What came of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It decoded, and all that must hold held.
    Decoded {
        /// A coarse picture of the value: two inputs with one shape are not both worth keeping.
        shape: u64,
        /// How hard the decoder worked, as a power of two.
        effort: u32,
    },
    /// It was refused, as most inputs must be.
    Refused {
        /// Why, without anything taken from the input.
        reason: String,
        /// How hard the decoder worked, as a power of two: refusals that come late are worth keeping.
        effort: u32,
    },
    /// Something that must hold did not: a bug.
    Broken(String),
}

/// An error of a decoder, without what it repeats of the bytes: else every input would be refused for
/// a reason of its own, and the corpus would hold everything.
pub trait Refusal: Display {
    /// The reason alone.
    fn reason(&self) -> String;
}

impl Refusal for DecodeError {
    fn reason(&self) -> String {
        match self {
            DecodeError::Newer { .. } => "newer".into(),
            other => other.to_string(),
        }
    }
}

impl Refusal for KeyError {
    fn reason(&self) -> String {
        match self {
            KeyError::Newer(_) => "newer".into(),
            other => other.to_string(),
        }
    }
}

impl Refusal for KitError {
    fn reason(&self) -> String {
        match self {
            KitError::Length { .. } => "length".into(),
            other => other.to_string(),
        }
    }
}

/// The most bytes that a decoder may hold for an input of this length.
///
/// A vector of values takes a multiple of their encoded bytes: the worst is a record of two-byte changes,
/// each of them as large in memory as one with an inode.
pub fn bytes_max(input_len: usize) -> usize {
    64 * input_len + (64 << 10)
}

/// The longest text of an error, in bytes.
const ERROR_BYTES_MAX: usize = 200;

/// Decodes, and checks what must hold of every decoder; `check` says what must hold of this one's values,
/// and gives their shape.
pub fn judge<T, E: Refusal>(
    input: &[u8],
    decode: impl FnOnce() -> Result<T, E>,
    check: impl FnOnce(&T) -> Result<u64, String>,
) -> Outcome {
    let (decoded, cost) = meter::measure(decode);
    if cost.peak_bytes > bytes_max(input.len()) {
        return Outcome::Broken(format!("{} bytes of input allocated {}", input.len(), cost.peak_bytes));
    }
    let effort = u64::BITS - cost.count.leading_zeros();
    match decoded {
        Ok(value) => match check(&value) {
            Ok(shape) => Outcome::Decoded { shape, effort },
            Err(what) => Outcome::Broken(what),
        },
        Err(error) => {
            let text = error.to_string();
            if text.len() > ERROR_BYTES_MAX {
                return Outcome::Broken(format!("an error of {} bytes: {text}", text.len()));
            }
            Outcome::Refused { reason: error.reason(), effort }
        }
    }
}

/// Demands that a value encodes to the bytes it came from.
pub fn same(encoded: &[u8], original: &[u8]) -> Result<(), String> {
    if encoded == original {
        return Ok(());
    }
    let at = encoded.iter().zip(original).take_while(|(one, other)| one == other).count();
    Err(format!(
        "{} bytes decode to a value of {} bytes that differs from byte {at}",
        original.len(),
        encoded.len()
    ))
}
