//! Names and numbers, each its own type.

use std::fmt;

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Lower-case hexadecimal.
            pub fn to_hex(&self) -> String {
                self.0.iter().map(|byte| format!("{byte:02x}")).collect()
            }

            /// Reads exactly the form that `to_hex` writes.
            pub fn from_hex(text: &str) -> Option<Self> {
                let bytes = text.as_bytes();
                if bytes.len() != $len * 2 || !bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return None;
                }
                let mut id = [0u8; $len];
                for (i, byte) in id.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).ok()?;
                }
                Some(Self(id))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }
    };
}

bytes_id!(
    /// A volume's ed25519 public key.
    VolumeId, 32
);
bytes_id!(
    /// The keyed hash of a tree node's bytes.
    NodeId, 32
);
bytes_id!(
    /// The keyed hash of a chunk's plain bytes, cut to 16 bytes.
    ChunkId, 16
);
bytes_id!(
    /// BLAKE3 of a whole pack object: anyone can check it without keys.
    PackId, 32
);
bytes_id!(
    /// BLAKE3 of a whole manifest object.
    ManifestId, 32
);
bytes_id!(
    /// The pseudonym of an account: says which key rings belong together.
    AccountId, 16
);
bytes_id!(
    /// A machine's pseudonym in one volume; zeros where none wrote.
    DeviceId, 16
);
bytes_id!(
    /// Which store this is for a volume; zeros for none.
    StoreId, 16
);
bytes_id!(
    /// A snapshot's uuid.
    SnapshotId, 16
);

impl SnapshotId {
    /// The usual form with hyphens.
    pub fn to_uuid(&self) -> String {
        let hex = self.to_hex();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $repr);

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
    /// Numbers the seals of a volume, from 1.
    Seq, u64
);
number!(
    /// The fencing number of the right to advance a head.
    Epoch, u64
);
number!(
    /// An inode number; never reused. At most [`Ino::MAX`].
    Ino, u64
);
number!(
    /// Numbers the versions of an account's key ring, from 1.
    RingNumber, u64
);
number!(
    /// A pack's place in the volume's pack table.
    PackNumber, u32
);
number!(
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    Timestamp, i64
);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
    /// The first number that a file made by a user gets; those between are reserved.
    pub const FIRST: Ino = Ino(16);
    /// The largest number: 38 bits, so that a kernel node id can carry a seq above it.
    pub const MAX: Ino = Ino((1 << 38) - 1);
}
