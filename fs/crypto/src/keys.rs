//! The volume key, the read key under it, and what they derive.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use fs_format::manifest::signed_digest;
use fs_format::{ChunkId, NodeId, VolumeId};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use zeroize::Zeroizing;

use crate::cipher::{Cipher, OpenFailed, Suite};

/// Derivation contexts; each is used for one purpose only.
pub(crate) mod context {
    pub const READ: &str = "comb 2026-11 v1 read key";
    pub const DOMAIN: &str = "comb 2026-11 v1 domain";
    pub const CHUNK: &str = "comb 2026-11 v1 chunk names";
    pub const NODE: &str = "comb 2026-11 v1 node names";
    pub const NAME: &str = "comb 2026-11 v1 file name hash";
    pub const CHUNKER: &str = "comb 2026-11 v1 chunker seed";
    pub const PACK: &str = "comb 2026-11 v1 pack";
    pub const DIRECTORY: &str = "comb 2026-11 v1 pack directory";
    pub const MANIFEST: &str = "comb 2026-11 v1 manifest body";
    pub const WRAP: &str = "comb 2026-11 v1 parent read key";
    pub const JOURNAL: &str = "comb 2026-11 v1 journal";
    pub const SALT: &str = "comb 2026-11 v1 hedged salt";
}

/// Why text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 of 32 bytes.
    #[error("is not a volume key: 32 bytes in base64, 44 characters ending in `=`, are expected")]
    NotAKey,
    /// A key file of a newer version.
    #[error("is a key file of version {0}, this program reads version 1: use a newer comb")]
    Newer(String),
    /// A key file whose checksum does not match.
    #[error("is damaged: its checksum does not match")]
    Damaged,
}

/// Derives 32 bytes for a purpose from a secret and public parts.
fn derive(context: &str, secret: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(secret);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Zeroizing::new(*hasher.finalize().as_bytes())
}

/// The private key of a volume: writes, reads, signs.
#[derive(Clone)]
pub struct VolumeKey(Zeroizing<[u8; 32]>);

impl VolumeKey {
    /// The key with this ed25519 seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// Reads the form of the seed documents: base64 of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| KeyError::NotAKey)?);
        let seed: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyError::NotAKey)?;
        Ok(Self::from_seed(seed))
    }

    /// Base64, for a file that only its owner can read.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&self.0[..]))
    }

    /// The public key.
    pub fn id(&self) -> VolumeId {
        VolumeId(self.signing().verifying_key().to_bytes())
    }

    fn signing(&self) -> SigningKey {
        SigningKey::from_bytes(&self.0)
    }

    /// The key that opens but cannot sign.
    pub fn read_key(&self) -> ReadKey {
        ReadKey(derive(context::READ, &self.0, &[]))
    }

    /// Signs a message for one context; `fs_format::manifest::signature_is_valid` checks it.
    pub fn sign(&self, context: &str, message: &[u8]) -> [u8; 64] {
        self.signing().sign(&signed_digest(context, message)).to_bytes()
    }

    /// The cipher of a journal segment: needs the device's secret too.
    pub fn journal_cipher(&self, device: &DeviceSecret, salt: &[u8; 32], suite: Suite) -> Cipher {
        let key = derive(context::JOURNAL, &self.0, &[&device.0[..], salt, &[suite as u8]]);
        Cipher::new(suite, &key)
    }
}

/// The key that opens everything a volume sealed.
#[derive(Clone)]
pub struct ReadKey(Zeroizing<[u8; 32]>);

impl ReadKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// A pseudonym that tells whether two packs are of one key; secret from nobody.
    pub fn domain(&self) -> [u8; 16] {
        derive(context::DOMAIN, &self.0, &[])[..16].try_into().expect("half of 32 bytes")
    }

    /// Names chunks.
    pub fn chunk_names(&self) -> ChunkNames {
        ChunkNames(derive(context::CHUNK, &self.0, &[]))
    }

    /// Names nodes of the tree and pages of the pack table.
    pub fn node_names(&self) -> NodeNames {
        NodeNames(derive(context::NODE, &self.0, &[]))
    }

    /// Places file names in directories.
    pub fn name_hash(&self) -> NameHash {
        NameHash(derive(context::NAME, &self.0, &[])[..16].try_into().expect("half of 32 bytes"))
    }

    /// What makes content-defined cuts this volume's own.
    pub fn chunker_seed(&self) -> u64 {
        u64::from_le_bytes(derive(context::CHUNKER, &self.0, &[])[..8].try_into().expect("8 of 32 bytes"))
    }

    /// The cipher of a pack's frames.
    pub fn pack_cipher(&self, suite: Suite, kind: u8, salt: &[u8; 32]) -> Cipher {
        Cipher::new(suite, &derive(context::PACK, &self.0, &[&[suite as u8, kind], salt]))
    }

    /// The cipher of a pack's directory and trailer.
    pub fn directory_cipher(&self, suite: Suite, salt: &[u8; 32]) -> Cipher {
        Cipher::new(suite, &derive(context::DIRECTORY, &self.0, &[&[suite as u8], salt]))
    }

    /// The cipher of a manifest's body; always suite 1.
    pub fn manifest_cipher(&self, salt: &[u8; 32]) -> Cipher {
        Cipher::new(Suite::ChaCha20Poly1305, &derive(context::MANIFEST, &self.0, &[salt]))
    }

    /// Wraps a fork's parent's read key under the fork's own.
    ///
    /// The nonce is fixed: the key is derived from this read key for this one purpose, and a
    /// fork has one parent, so only one plaintext is ever sealed.
    pub fn wrap(&self, parent: &ReadKey) -> [u8; 48] {
        let cipher = Cipher::new(Suite::ChaCha20Poly1305, &derive(context::WRAP, &self.0, &[]));
        let mut key = parent.to_bytes();
        let tag = cipher.seal(0, b"", &mut key[..]);
        let mut out = [0; 48];
        out[..32].copy_from_slice(&key[..]);
        out[32..].copy_from_slice(&tag);
        out
    }

    /// Opens what `wrap` made.
    pub fn unwrap(&self, wrapped: &[u8; 48]) -> Result<ReadKey, OpenFailed> {
        let cipher = Cipher::new(Suite::ChaCha20Poly1305, &derive(context::WRAP, &self.0, &[]));
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&wrapped[..32]);
        let tag = wrapped[32..].try_into().expect("48 bytes less 32");
        cipher.open(0, b"", &mut key[..], &tag)?;
        Ok(ReadKey(key))
    }
}

/// Names chunks: BLAKE3 under a key of the volume, cut to 16 bytes.
#[derive(Clone)]
pub struct ChunkNames(Zeroizing<[u8; 32]>);

impl ChunkNames {
    /// The name of these plain bytes.
    pub fn name(&self, plain: &[u8]) -> ChunkId {
        ChunkId(blake3::keyed_hash(&self.0, plain).as_bytes()[..16].try_into().expect("half of 32 bytes"))
    }
}

/// Names nodes: BLAKE3 under a key of the volume.
#[derive(Clone)]
pub struct NodeNames(Zeroizing<[u8; 32]>);

impl NodeNames {
    /// The name of these plain bytes.
    pub fn name(&self, plain: &[u8]) -> NodeId {
        NodeId(*blake3::keyed_hash(&self.0, plain).as_bytes())
    }
}

/// Hashes file names: SipHash-2-4, so that nobody outside can make names collide.
#[derive(Clone)]
pub struct NameHash([u8; 16]);

impl NameHash {
    /// The hash of a name.
    pub fn hash(&self, name: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(name);
        hasher.finish()
    }
}

/// A secret of this device: with it and the volume key its journals open, with one alone they do not.
#[derive(Clone)]
pub struct DeviceSecret(Zeroizing<[u8; 32]>);

impl DeviceSecret {
    /// The secret with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }
}

macro_rules! hide {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        })*
    };
}

hide!(VolumeKey, ReadKey, ChunkNames, NodeNames, NameHash, DeviceSecret, Cipher);

/// A salt that is new even where chance repeats (a cloned machine, a weak generator), as long
/// as what it is used for differs.
pub fn hedged_salt(random: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    *derive(context::SALT, random, parts)
}
