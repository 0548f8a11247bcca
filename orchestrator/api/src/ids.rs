//! Names and numbers, each its own type.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::{Hex, Uuid};

pub use fs_format::{Epoch, ManifestId, Seq, VolumeId};

/// The pseudonym that a device has in one volume's manifests and claims.
pub type Writer = fs_format::DeviceId;

/// The largest number that travels.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (at, byte) in self.0.iter().enumerate() {
                    let hyphen = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{hyphen}{byte:02x}")?;
                }
                Ok(())
            }
        }
    };
}

macro_rules! uuid {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&Uuid(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Uuid::deserialize(deserializer).map(|id| Self(id.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::text::FormError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse::<Uuid>().map(|id| Self(id.0))
            }
        }
    )*};
}

macro_rules! hex {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&Hex(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Hex::deserialize(deserializer).map(|hex| Self(hex.0))
            }
        }
    )*};
}

id!(
    /// An app; never changes.
    AppId
);
id!(
    /// A machine that runs apps.
    DeviceId
);
id!(
    /// Something that the hive does in steps.
    OperationId
);
uuid!(AppId DeviceId OperationId);

impl OperationId {
    /// The tag of an instant of all volumes that the operation keeps: `comb-` and the id's first 16 digits. Who goes on after a
    /// device that was lost in an update finds the moment before it by this.
    pub fn instant_tag(self) -> String {
        let digits: String = self.to_string().chars().filter(|one| *one != '-').take(16).collect();
        format!("comb-{digits}")
    }
}

/// What the hash behind [`AppId::made`] is for.
const MADE_CONTEXT: &str = "comb 2026-11 v1 app made by a device";

impl AppId {
    /// The id of an app that a device makes when the hive asks for it (`security.md`, section 5): the first 16 bytes of
    /// BLAKE3 over device and seed, with the bits of a UUID of version 4. Nobody finds a seed that leads to the id of an app
    /// that there is, and so to its volumes.
    pub fn made(device: DeviceId, seed: &[u8; 16]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(MADE_CONTEXT);
        hasher.update(&device.0).update(seed);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id[6] = 0x40 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        Self(id)
    }
}

id!(
    /// What one accepted hello began; the next one ends it.
    SessionId
);
id!(
    /// One run of a device's process, random: tells a repeated hello from one by a copy of the machine.
    RunId
);

hex!(SessionId RunId);

/// Reads 0 to [`NUMBER_MAX`].
pub(crate) fn read_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    match number <= NUMBER_MAX {
        true => Ok(number),
        false => Err(serde::de::Error::custom(format_args!("{number} is above 2^53 - 1"))),
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one that is above a floor too.
            #[must_use]
            pub fn next_above(self, floor: u64) -> $name {
                $name(self.0.max(floor) + 1)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read_number(deserializer).map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// Numbers the placements of an app: one term, one device, one start.
    Term
);
number!(
    /// Numbers what is wanted of an app.
    Generation
);
number!(
    /// Numbers a hive's lives between restores.
    Incarnation
);
number!(
    /// Numbers the commands of a device.
    CommandNumber
);
number!(
    /// Numbers the hellos of a device, durable before it is said.
    HelloNumber
);
number!(
    /// Numbers the reports of a session.
    ReportNumber
);
number!(
    /// Counts the reports of a device that a hive took.
    Renewals
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_what_a_device_makes_is_an_id_like_others() {
        let (attic, cellar) = (DeviceId([1; 16]), DeviceId([2; 16]));
        let made = AppId::made(attic, &[3; 16]);
        assert_eq!(made.to_string().parse(), Ok(made));
        assert_eq!(made, AppId::made(attic, &[3; 16]));
        assert_ne!(made, AppId::made(cellar, &[3; 16]));
        assert_ne!(made, AppId::made(attic, &[4; 16]));
    }
}
