//! Texts, numbers and lists with their limits (`api.md`, section 1).

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::{FormError, is_app_name, is_plain, is_title};

/// 0 to 2^53 − 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Number(pub u64);

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::ids::read_number(deserializer).map(Self)
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(number.min(crate::ids::NUMBER_MAX))
    }
}

/// A number from `MIN` to `MAX`, both in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Within<const MIN: u64, const MAX: u64>(pub u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        match (MIN..=MAX).contains(&number) {
            true => Ok(Self(number)),
            false => Err(de::Error::custom(format_args!("{number} is not from {MIN} to {MAX}"))),
        }
    }
}

/// A list that is refused as soon as it is too long; `null` is an empty one.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// The items, of which those beyond the limit are left out.
    pub fn cut(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().take(MAX).collect())
    }

    /// The items.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = FormError;

    fn try_from(items: Vec<T>) -> Result<Self, FormError> {
        if items.len() <= MAX { Ok(Self(items)) } else { Err(FormError("a list of so few items")) }
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for List<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MAX: usize> IntoIterator for List<T, MAX> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }

            fn visit_none<E>(self) -> Result<Vec<T>, E> {
                Ok(Vec::new())
            }

            fn visit_unit<E>(self) -> Result<Vec<T>, E> {
                Ok(Vec::new())
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
                deserializer.deserialize_seq(self)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MAX {
                        return Err(de::Error::custom(format_args!("a list has more than {MAX} items")));
                    }
                    list.push(item);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_option(Items::<T, MAX>(PhantomData)).map(Self)
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident $(<const $max:ident: usize>)?, $what:expr, $fits:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name$(<const $max: usize>)?(String);

        impl$(<const $max: usize>)? $name$(<$max>)? {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl$(<const $max: usize>)? fmt::Display for $name$(<$max>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl$(<const $max: usize>)? TryFrom<String> for $name$(<$max>)? {
            type Error = FormError;

            fn try_from(text: String) -> Result<Self, FormError> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&text) { Ok(Self(text)) } else { Err(FormError($what)) }
            }
        }

        impl$(<const $max: usize>)? std::str::FromStr for $name$(<$max>)? {
            type Err = FormError;

            fn from_str(text: &str) -> Result<Self, FormError> {
                text.to_owned().try_into()
            }
        }

        impl$(<const $max: usize>)? From<$name$(<$max>)?> for String {
            fn from(text: $name$(<$max>)?) -> String {
                text.0
            }
        }
    };
}

text!(
    /// `[a-z][a-z0-9-]{0,62}`.
    Name,
    "a name of a-z, 0-9 and hyphens that begins with a letter, at most 63 long",
    is_app_name
);
text!(
    /// 1 to 64 characters that can be shown.
    Title,
    "a text of 1 to 64 characters without control characters",
    is_title
);
text!(
    /// `[a-z][a-z0-9_]{0,39}`: for programs.
    Word,
    "a word of a-z, 0-9 and _ that begins with a letter, at most 40 long",
    |text| {
        (1..=40).contains(&text.len())
            && text.starts_with(|one: char| one.is_ascii_lowercase())
            && text.bytes().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == b'_')
    }
);
text!(
    /// At most `MAX` bytes that can be shown on one line.
    Text<const MAX: usize>,
    "a short text without control characters",
    |text| text.len() <= MAX && is_plain(text)
);
text!(
    /// A key of a compose file: a service or volume.
    Key,
    "a key of a compose file",
    |text| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    }
);
text!(
    /// A tag that a person gives to a moment: `[a-z0-9-]{1,32}`.
    Tag,
    "a tag of a-z, 0-9 and hyphens, at most 32 long",
    |text| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == b'-')
    }
);

impl<const MAX: usize> Text<MAX> {
    /// As much of a text as fits, without what cannot be shown.
    pub fn cut(text: &str) -> Self {
        let mut cut = String::new();
        for one in text.chars() {
            if cut.len() + one.len_utf8() > MAX {
                break;
            }
            if is_plain(one.encode_utf8(&mut [0; 4])) {
                cut.push(one);
            }
        }
        Self(cut)
    }
}

impl<const MAX: usize> Default for Text<MAX> {
    fn default() -> Self {
        Self(String::new())
    }
}

/// At most `MAX` bytes, as base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64<const MAX: usize>(pub Vec<u8>);

impl<const MAX: usize> fmt::Debug for Base64<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<const MAX: usize> Serialize for Base64<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Base64<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Letters<const MAX: usize>;

        impl<const MAX: usize> Visitor<'_> for Letters<MAX> {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                let wrong = || E::custom(format_args!("is not at most {MAX} bytes in base64"));
                if text.len() > MAX.div_ceil(3) * 4 {
                    return Err(wrong());
                }
                STANDARD.decode(text).ok().filter(|bytes| bytes.len() <= MAX).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_str(Letters::<MAX>).map(Self)
    }
}

/// What opens something for whoever has it: passwords, tokens, codes. At most 1,024 bytes. Prints its name only, and is
/// shown where somebody asked for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hidden(String);

impl Hidden {
    /// Of a text that is at most 1,024 bytes long.
    pub fn new(text: String) -> Result<Self, FormError> {
        if text.len() <= 1024 { Ok(Self(text)) } else { Err(FormError("at most 1,024 bytes long")) }
    }

    /// What it hides.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl TryFrom<String> for Hidden {
    type Error = FormError;

    fn try_from(text: String) -> Result<Self, FormError> {
        Self::new(text)
    }
}

impl From<Hidden> for String {
    fn from(hidden: Hidden) -> String {
        hidden.0
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What `after` is for the next one; none at the end.
    pub next: Option<String>,
}
