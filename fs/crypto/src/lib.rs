//! Keys, derivation, encryption, signing. The only crate that holds secret bytes.
//!
//! `fs/docs/crypto.md` is the normative description.
//!
//! Invariants
//! - Secret bytes are zeroized when dropped and never printed.
//! - Every derivation has a context string of its own.
//! - No (key, nonce) seals two plaintexts: packs, segments and streams have fresh hedged salts, and
//!   the nonce is a position that is used once.

mod cipher;
mod file;
mod identity;
mod keys;
mod kit;
mod owner;
mod passphrase;
mod ring;

pub use cipher::{Cipher, OpenFailed, Suite};
pub use file::{KeyFile, ReadKeyFile};
pub use identity::Identity;
pub use keys::{ChunkNames, DeviceSecret, KeyError, NameHash, NodeNames, ReadKey, VolumeKey, hedged_salt};
pub use kit::{KitError, RecoveryKit};
pub use owner::OwnerKey;
pub use passphrase::{Passphrase, PassphraseError};
pub use ring::{EntryKey, Ring, RingEntry, RingError};
pub use zeroize::Zeroizing;
