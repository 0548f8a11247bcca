//! An extended attribute.

use fs_format::tree::Xattr;

use super::{magnitude, samples};
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || Xattr::decode(input),
        |attribute| {
            same(&samples::bytes(|out| attribute.encode(out)), input)?;
            if attribute.name.is_empty() || attribute.name.contains(&0) {
                return Err(format!("the name {:?}", attribute.name));
            }
            Ok(magnitude(attribute.value.len()))
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let empty = Xattr { name: b"user.a".as_slice().into(), value: Box::default() };
    let large = Xattr { name: vec![b'n'; 255].into(), value: vec![1; 65_536].into() };
    [empty, large].iter().map(|attribute| samples::bytes(|out| attribute.encode(out))).collect()
}
