//! Names and numbers, each its own type.

use std::fmt;

pub use fs_format::{Epoch, ManifestId, Seq, VolumeId};

/// The pseudonym that a device has in one volume's manifests and claims.
pub type Writer = fs_format::DeviceId;

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
id!(
    /// What one accepted hello began; the next one ends it.
    SessionId
);
id!(
    /// One run of a device's process, random: tells a repeated hello from one by a copy of the machine.
    RunId
);

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
