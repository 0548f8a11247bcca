//! The volume key, the read key under it, and what they derive.

use std::hash::Hasher;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use fs_format::manifest::{ipns_message, signed_digest};
use fs_format::{ChunkId, DeviceId, NodeId, VolumeId};
use siphasher::sip::SipHasher24;
use zeroize::{Zeroize, Zeroizing};

use crate::cipher::{Cipher, OpenFailed, Suite};

macro_rules! contexts {
    ($($name:ident = $text:literal;)*) => {
        /// Derivation contexts; each is used for one purpose only.
        pub(crate) mod context {
            $(pub const $name: &str = $text;)*

            /// All of them, so that a test can see that no two are alike.
            #[cfg(test)]
            pub const ALL: &[&str] = &[$($name),*];
        }
    };
}

contexts! {
    READ = "comb 2026-11 v1 read key";
    DOMAIN = "comb 2026-11 v1 domain";
    CHUNK = "comb 2026-11 v1 chunk names";
    NODE = "comb 2026-11 v1 node names";
    NAME = "comb 2026-11 v1 file name hash";
    CHUNKER = "comb 2026-11 v1 chunker seed";
    PACK = "comb 2026-11 v1 pack";
    DIRECTORY = "comb 2026-11 v1 pack directory";
    MANIFEST = "comb 2026-11 v1 manifest body";
    WRAP = "comb 2026-11 v1 parent read key";
    JOURNAL = "comb 2026-11 v1 journal";
    SALT = "comb 2026-11 v1 hedged salt";
    RING_BODY = "comb 2026-11 v1 ring body";
    RING_PASSPHRASE = "comb 2026-11 v1 ring key by passphrase";
    RING_KIT = "comb 2026-11 v1 ring key by kit";
    RING_DEVICE = "comb 2026-11 v1 ring key by device";
    RING_SECRET = "comb 2026-11 v1 ring secret";
    PSEUDONYM = "comb 2026-11 v1 device pseudonym";
    PACKAGE = "comb 2026-11 v1 package";
    STREAM = "comb 2026-11 v1 stream";
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
    /// A key file whose lines or checksum are not what was written.
    #[error("is damaged: its checksum does not match")]
    Damaged,
}

/// Derives 32 bytes for a purpose from a secret and further parts.
///
/// Each part goes in behind its length, so that no two lists of parts give the same input.
pub(crate) fn derive(context: &str, secret: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(secret);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut hash = hasher.finalize();
    let key = Zeroizing::new(*hash.as_bytes());
    // Both still hold the secret or what came of it.
    hash.zeroize();
    hasher.zeroize();
    key
}

/// Signs a message for one context with the key of this ed25519 seed.
pub(crate) fn sign(seed: &[u8; 32], context: &str, message: &[u8]) -> [u8; 64] {
    SigningKey::from_bytes(seed).sign(&signed_digest(context, message)).to_bytes()
}

/// Thirty-two bytes in base64, in the one spelling that they have.
fn from_base64(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    // Room for a little more than a key, so that what is too long is refused and not cut.
    let mut bytes = Zeroizing::new([0; 48]);
    let len = STANDARD.decode_slice(text.trim(), &mut bytes[..]).map_err(|_| KeyError::NotAKey)?;
    let mut key = Zeroizing::new([0; 32]);
    if len != key.len() {
        return Err(KeyError::NotAKey);
    }
    key.copy_from_slice(&bytes[..len]);
    Ok(key)
}

/// The private key of a volume: writes, reads, signs.
#[derive(Clone)]
pub struct VolumeKey(pub(crate) Zeroizing<[u8; 32]>);

impl VolumeKey {
    /// The key with this ed25519 seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// Reads the form of the seed documents: base64 of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        from_base64(text).map(Self)
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
        sign(&self.0, context, message)
    }

    /// Signs the data of an IPNS record; `fs_format::manifest::ipns_signature_is_valid` checks it.
    pub fn sign_ipns(&self, data: &[u8]) -> [u8; 64] {
        self.signing().sign(&ipns_message(data)).to_bytes()
    }

    /// The cipher of a journal segment: needs the device's secret too.
    pub fn journal_cipher(&self, device: &DeviceSecret, salt: &[u8; 32], suite: Suite) -> Cipher {
        let key = derive(context::JOURNAL, &self.0, &[&device.0[..], salt, &[suite as u8]]);
        Cipher::new(suite, &key)
    }
}

/// The key that opens everything a volume sealed.
#[derive(Clone)]
pub struct ReadKey(pub(crate) Zeroizing<[u8; 32]>);

impl ReadKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// Reads what `to_base64` wrote.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        from_base64(text).map(Self)
    }

    /// Base64, for somebody who may read.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&self.0[..]))
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
        let mut key = Zeroizing::new([0; 16]);
        key.copy_from_slice(&derive(context::NAME, &self.0, &[])[..16]);
        NameHash(key)
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
pub struct NameHash(Zeroizing<[u8; 16]>);

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
pub struct DeviceSecret(pub(crate) Zeroizing<[u8; 32]>);

impl DeviceSecret {
    /// The secret with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// What a volume calls this machine: the same for all that it writes there, another in each volume.
    pub fn pseudonym(&self, volume: &VolumeId) -> DeviceId {
        let name = derive(context::PSEUDONYM, &self.0, &[&volume.0]);
        DeviceId(name[..16].try_into().expect("half of 32 bytes"))
    }
}

/// Prints a secret's name only.
macro_rules! hide {
    ($($name:ident),*) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        })*
    };
}

pub(crate) use hide;

hide!(VolumeKey, ReadKey, ChunkNames, NodeNames, NameHash, DeviceSecret, Cipher);

/// A salt that is new even where chance repeats (a cloned machine, a weak generator), as long
/// as what it is used for differs.
pub fn hedged_salt(random: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    *derive(context::SALT, random, parts)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use fs_format::claim::{BOUNDARY_CONTEXT, CLAIM_CONTEXT};
    use fs_format::manifest::{MANIFEST_CONTEXT, ipns_signature_is_valid, signature_is_valid};

    use super::*;

    const SEED: &str = "sETuhFwbQf9NJVAEOhu/QFhhhmKxY+f4VNFrO2IowGk=";
    const SALT: [u8; 32] = [7; 32];

    fn key() -> VolumeKey {
        VolumeKey::from_base64(SEED).expect("the seed documents' key")
    }

    fn device() -> DeviceSecret {
        DeviceSecret::from_bytes([9; 32])
    }

    pub(crate) fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What a cipher makes of five bytes, tag included.
    pub(crate) fn sealed(cipher: &Cipher, nonce: u64, associated: &[u8]) -> String {
        let mut bytes = *b"bytes";
        let tag = cipher.seal(nonce, associated, &mut bytes);
        hex(&bytes) + &hex(&tag)
    }

    // The expected values come from a separate program, with other implementations of every
    // primitive. Where one of them changes, the format has changed.

    #[test]
    fn the_seed_documents_key_is_this_volume() {
        assert_eq!(key().id().to_hex(), "b1881878d5a6ce2c5c53e00eefb722723d8cdecb73c92d3999ffeefc4d7ad13d");
        assert_eq!(*key().to_base64(), SEED);
    }

    #[test]
    fn derivations_are_these_bytes() {
        let read = key().read_key();
        assert_eq!(
            hex(&*read.to_bytes()),
            "85b63d1bb14a5c065662d36b71256f90b0465ba2ee4a34751fa4895def3e4d8a"
        );
        assert_eq!(hex(&read.domain()), "906c42ea4c79e8685e0cc49516ac60a0");
        assert_eq!(read.chunk_names().name(b"a chunk").to_hex(), "e252bce51b47feb093a8978848da2f39");
        assert_eq!(
            read.node_names().name(b"a node").to_hex(),
            "16303547e2f1eba0f2a85ec29e8ecc31a54cf03c14acae9fa79f1f79342bfbcb"
        );
        assert_eq!(read.name_hash().hash(b"a name"), 0xec85_ebef_95bf_79c3);
        assert_eq!(read.chunker_seed(), 0x26c8_2e5a_d9fa_f8bd);
        assert_eq!(
            hex(&hedged_salt(&[1; 32], &[b"a", b"bc"])),
            "cf0f1f8f681ae2d69f661f0f067f31139cb79f59623d56c9d8a55eebd47b1e38"
        );
        assert_eq!(device().pseudonym(&key().id()).to_hex(), "511928ba3510aebba6c807e9adba254c");
        assert_ne!(device().pseudonym(&VolumeId([1; 32])), device().pseudonym(&VolumeId([2; 32])));
    }

    #[test]
    fn ciphers_are_these_bytes() {
        let read = key().read_key();
        for (cipher, nonce, associated, expected) in [
            (
                read.pack_cipher(Suite::ChaCha20Poly1305, 2, &SALT),
                64,
                &b"frame"[..],
                "c7e790c1bf4851a0b57188ecdf06c370c523e49ae1",
            ),
            (
                read.pack_cipher(Suite::Aes256Gcm, 2, &SALT),
                64,
                b"frame",
                "d3796d4ffc97691b41846e556ae9520c25ad5cfd77",
            ),
            (
                read.directory_cipher(Suite::ChaCha20Poly1305, &SALT),
                64,
                b"directory",
                "9bd3b1716c2f0803d75436e93a7f3eff3055c1f1ad",
            ),
            (read.manifest_cipher(&SALT), 0, b"header", "f5a2d7c78a30c09a4091540d9bb907271c6aad754e"),
            (
                key().journal_cipher(&device(), &SALT, Suite::Aes256Gcm),
                3,
                b"header",
                "21721921e1bc3e1b7010b0d62ae1a5ed651dd3563b",
            ),
        ] {
            assert_eq!(sealed(&cipher, nonce, associated), expected);
        }
    }

    #[test]
    fn signatures_are_these_bytes() {
        assert_eq!(
            hex(&key().sign(MANIFEST_CONTEXT, b"a message")),
            "f370e6fe45226fa32fdbacc185da2eb92742c7b6ee5f2ef8e971afc1006b632e\
             04a7b71e08579d502759c723a2f7d720d714691ddb2e7ead5864dcc1623b510b"
        );
    }

    #[test]
    fn the_name_hash_is_siphash_2_4() {
        // The vector of the SipHash paper.
        let hash = NameHash(Zeroizing::new(std::array::from_fn(|i| i as u8)));
        let message: [u8; 15] = std::array::from_fn(|i| i as u8);
        assert_eq!(hash.hash(&message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn no_two_contexts_are_alike() {
        let mut all = context::ALL.to_vec();
        all.extend([MANIFEST_CONTEXT, CLAIM_CONTEXT, BOUNDARY_CONTEXT]);
        assert!(all.iter().all(|context| context.starts_with("comb 2026-11 v1 ")));
        let different: BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(different.len(), all.len());
        let keys: BTreeSet<[u8; 32]> = all.iter().map(|context| *derive(context, &[1; 32], &[])).collect();
        assert_eq!(keys.len(), all.len());
    }

    #[test]
    fn every_input_of_a_cipher_changes_its_key() {
        let (one, two) = (Suite::ChaCha20Poly1305, Suite::Aes256Gcm);
        let (read, other) = (key().read_key(), ReadKey::from_bytes([5; 32]));
        let stranger = DeviceSecret::from_bytes([8; 32]);
        let ciphers = [
            read.pack_cipher(one, 1, &SALT),
            read.pack_cipher(two, 1, &SALT),
            read.pack_cipher(one, 2, &SALT),
            read.pack_cipher(one, 1, &[8; 32]),
            other.pack_cipher(one, 1, &SALT),
            read.directory_cipher(one, &SALT),
            read.directory_cipher(two, &SALT),
            read.directory_cipher(one, &[8; 32]),
            read.manifest_cipher(&SALT),
            read.manifest_cipher(&[8; 32]),
            key().journal_cipher(&device(), &SALT, one),
            key().journal_cipher(&device(), &SALT, two),
            key().journal_cipher(&device(), &[8; 32], one),
            key().journal_cipher(&stranger, &SALT, one),
            VolumeKey::from_seed([5; 32]).journal_cipher(&device(), &SALT, one),
        ];
        let different: BTreeSet<String> = ciphers.iter().map(|cipher| sealed(cipher, 0, b"")).collect();
        assert_eq!(different.len(), ciphers.len());
    }

    #[test]
    fn a_signature_holds_for_its_volume_context_and_message_only() {
        let (id, signature) = (key().id(), key().sign("a context", b"a message"));
        assert!(signature_is_valid(&id, "a context", b"a message", &signature));
        assert!(!signature_is_valid(&id, "another context", b"a message", &signature));
        assert!(!signature_is_valid(&id, "a context", b"another message", &signature));
        let stranger = VolumeKey::from_seed([5; 32]).id();
        assert!(!signature_is_valid(&stranger, "a context", b"a message", &signature));
        for bit in 0..signature.len() * 8 {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!signature_is_valid(&id, "a context", b"a message", &flipped), "bit {bit}");
        }
    }

    #[test]
    fn nobody_signs_for_a_weak_public_key() {
        // Under the neutral element, this signature (R = A = identity, s = 0) would hold for every message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!signature_is_valid(&VolumeId(identity), "a context", b"a message", &signature));
    }

    #[test]
    fn a_fork_unwraps_its_parents_key_and_nobody_else_does() {
        let (fork, parent) = (key().read_key(), ReadKey::from_bytes([5; 32]));
        let wrapped = fork.wrap(&parent);
        assert_eq!(
            hex(&wrapped),
            "90e5d0194d8fe9a7958d9591c1e8b4363e150d2d1690e8c6226e82dfba37abb0f8c6417d9a652da34b1e93d91b7ab65c"
        );
        assert_eq!(fork.unwrap(&wrapped).map(|key| key.to_bytes()), Ok(parent.to_bytes()));
        assert!(parent.unwrap(&wrapped).is_err());
        for bit in 0..wrapped.len() * 8 {
            let mut flipped = wrapped;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(fork.unwrap(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_hedged_salt_changes_with_everything_that_goes_in() {
        let salts = [
            hedged_salt(&[1; 32], &[b"ab", b"c"]),
            hedged_salt(&[2; 32], &[b"ab", b"c"]),
            hedged_salt(&[1; 32], &[b"a", b"bc"]),
            hedged_salt(&[1; 32], &[b"abc"]),
            hedged_salt(&[1; 32], &[b"ab", b"c", b""]),
        ];
        assert_eq!(BTreeSet::from(salts).len(), salts.len());
    }

    #[test]
    fn what_is_not_32_bytes_in_base64_is_no_key() {
        let of = |len| STANDARD.encode(vec![7; len]);
        for text in [
            String::new(),
            "volume".into(),
            of(0),
            of(31),
            of(33),
            of(36),
            of(48),
            of(4096),
            SEED.trim_end_matches('=').into(),
            SEED.replace('/', "_"),
            // The same 32 bytes with a stray last bit: one key has one spelling.
            SEED.replace("Gk=", "Gl="),
            format!("{SEED}{SEED}"),
            format!("{} {}", &SEED[..20], &SEED[20..]),
        ] {
            assert_eq!(VolumeKey::from_base64(&text).err(), Some(KeyError::NotAKey), "{text:?}");
        }
        assert!(VolumeKey::from_base64(&format!("\n {SEED}\t\r\n")).is_ok());
    }

    #[test]
    fn a_record_of_ipns_is_signed_for_nothing_else() {
        let (id, data) = (key().id(), b"the map of a record");
        let signature = key().sign_ipns(data);
        assert!(ipns_signature_is_valid(&id, data, &signature));
        assert!(!ipns_signature_is_valid(&id, b"another", &signature));
        assert!(!signature_is_valid(&id, MANIFEST_CONTEXT, data, &signature));
        let manifest = key().sign(MANIFEST_CONTEXT, data);
        assert!(!ipns_signature_is_valid(&id, data, &manifest));
    }

    #[test]
    fn printing_a_key_shows_nothing() {
        let read = key().read_key();
        let shown = [
            format!("{:?}", key()),
            format!("{read:?}"),
            format!("{:?}", read.chunk_names()),
            format!("{:?}", read.node_names()),
            format!("{:?}", read.name_hash()),
            format!("{:?}", device()),
            format!("{:#?}", read.manifest_cipher(&SALT)),
        ];
        let expected =
            ["VolumeKey", "ReadKey", "ChunkNames", "NodeNames", "NameHash", "DeviceSecret", "Cipher"];
        assert_eq!(shown.to_vec(), expected.map(|name| format!("{name}(..)")).to_vec());
    }
}
