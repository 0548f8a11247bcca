//! Codes that people carry from one terminal to another (`security.md`, section 4).
//!
//! They are written in Crockford's base32: no letter looks like a digit, and reading takes either case, `O` for `0`, `I`
//! and `L` for `1`, and hyphens and blanks wherever they are. A value has one form of writing.
//!
//! A join code holds the hive's public key and a secret. What travels and what the hive keeps is derived from the
//! secret; neither opens any data.

use std::fmt;

use crate::text::Hex;

/// What the key of a join is derived for.
pub const JOIN_CONTEXT: &str = "comb 2026-11 v1 join";
/// What the id of a join code is derived for.
pub const JOIN_ID_CONTEXT: &str = "comb 2026-11 v1 join id";
/// Bytes of a code's secret.
pub const SECRET_BYTES: usize = 20;
/// Letters of a code's secret.
pub const SECRET_LETTERS: usize = 32;
/// Letters of a hive's key.
pub const HIVE_LETTERS: usize = 52;
/// The longest text that is taken for a code, in bytes: some hyphens and blanks are no mistake.
const TEXT_BYTES_MAX: usize = 256;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Why a text is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// A letter of no code.
    #[error("\"{0}\" is in no code")]
    Letter(char),
    /// Too few or too many letters.
    #[error("the code has {found} letters, and should have {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The last letter is one that no writer makes.
    #[error("the code has a mistake near its middle or end")]
    Padding,
}

/// Writes bytes in base32, the last letter filled up with zero bits.
pub fn to_base32(bytes: &[u8]) -> String {
    let (mut bits, mut held) = (0u32, 0);
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - held) & 31) as usize]));
    }
    text
}

/// The values of a text's letters, without what only separates them.
fn letters(text: &str) -> Result<Vec<u8>, CodeError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(CodeError::Length { found: text.len(), expected: HIVE_LETTERS + SECRET_LETTERS });
    }
    let value = |letter: char| match letter.to_ascii_uppercase() {
        'O' => Ok(0),
        'I' | 'L' => Ok(1),
        upper => match ALPHABET.iter().position(|one| char::from(*one) == upper) {
            Some(value) => Ok(value as u8),
            None => Err(CodeError::Letter(letter)),
        },
    };
    text.chars().filter(|letter| !matches!(letter, '-' | ' ' | '\t' | '\n' | '\r')).map(value).collect()
}

/// The bytes of letters, if the last one is filled up with zeros.
fn bytes<const N: usize>(letters: &[u8]) -> Result<[u8; N], CodeError> {
    let expected = (N * 8).div_ceil(5);
    if letters.len() != expected {
        return Err(CodeError::Length { found: letters.len(), expected });
    }
    let (mut bits, mut held, mut at) = (0u32, 0, 0);
    let mut out = [0; N];
    for letter in letters {
        bits = bits << 5 | u32::from(*letter);
        held += 5;
        if held >= 8 {
            held -= 8;
            out[at] = (bits >> held) as u8;
            at += 1;
        }
        bits &= (1 << held) - 1;
    }
    if bits == 0 { Ok(out) } else { Err(CodeError::Padding) }
}

/// Twenty bytes that nobody can guess: a hive's setup code, an invitation, the secret in a join code. Prints its name
/// only; [`Secret::show`] is for the terminal of whoever asked for it.
#[derive(Clone, Copy)]
pub struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Of random bytes.
    pub fn new(random: [u8; SECRET_BYTES]) -> Self {
        Self(random)
    }

    /// Reads 32 letters.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        bytes(&letters(text)?).map(Self)
    }

    /// 32 letters in groups of 8.
    pub fn show(&self) -> String {
        grouped(&to_base32(&self.0))
    }

    /// What a database keeps of it: it cannot be turned back, and 160 random bits cannot be guessed.
    pub fn hash(&self) -> Hex<32> {
        Hex(*blake3::hash(&self.0).as_bytes())
    }

    /// Whether this is the one whose hash was kept, in a time that does not depend on where they differ.
    pub fn matches(&self, hash: &Hex<32>) -> bool {
        blake3::hash(&self.0) == blake3::Hash::from_bytes(hash.0)
    }
}

fn grouped(text: &str) -> String {
    text.as_bytes().chunks(8).map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join("-")
}

/// The code by which a device joins: which hive it is, and a secret that it knows.
#[derive(Debug, Clone, Copy)]
pub struct JoinCode {
    /// The hive's public key.
    pub hive: [u8; 32],
    secret: Secret,
}

impl JoinCode {
    /// A new code of a hive.
    pub fn new(hive: [u8; 32], secret: Secret) -> Self {
        Self { hive, secret }
    }

    /// Reads 84 letters.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let letters = letters(text)?;
        let expected = HIVE_LETTERS + SECRET_LETTERS;
        if letters.len() != expected {
            return Err(CodeError::Length { found: letters.len(), expected });
        }
        let (hive, secret) = letters.split_at(HIVE_LETTERS);
        Ok(Self { hive: bytes(hive)?, secret: Secret(bytes(secret)?) })
    }

    /// The whole code in one word, for a command: key, hyphen, secret.
    pub fn show(&self) -> String {
        format!("{}-{}", to_base32(&self.hive), to_base32(&self.secret.0))
    }

    /// The line for a shell by which a machine joins, where `hive` is reached so.
    pub fn join_command(&self, hive: &str) -> String {
        format!("comb device join {hive} --code {}", self.show())
    }

    /// The same for a device in a container (`security.md`, section 11). It has the machine's name, which a device that is
    /// given none is called by: a container's own would be its id.
    pub fn docker_command(&self, hive: &str) -> String {
        format!(
            "docker run -d --name comb --restart unless-stopped --uts host --device /dev/fuse --cap-add SYS_ADMIN \
             --cap-add DAC_READ_SEARCH --security-opt apparmor=unconfined \
             -v /var/run/docker.sock:/var/run/docker.sock -v /var/lib/comb:/var/lib/comb:rshared -v /apps:/apps \
             comb device run --join {hive} --code {}",
            self.show()
        )
    }

    /// What names the code on the wire and in the database.
    pub fn id(&self) -> Hex<8> {
        let hash = derive(JOIN_ID_CONTEXT, &self.secret.0, &[]);
        Hex(hash[..8].try_into().expect("a hash has more than 8 bytes"))
    }

    /// The key under which the join is authenticated; bound to the hive.
    pub fn key(&self) -> JoinKey {
        JoinKey(derive(JOIN_CONTEXT, &self.secret.0, &[&self.hive]))
    }
}

/// The key of one join: the device makes the MAC of its request with it, the hive checks it.
#[derive(Clone, Copy)]
pub struct JoinKey(pub [u8; 32]);

impl fmt::Debug for JoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinKey")
    }
}

impl JoinKey {
    /// The MAC of a request's bytes.
    pub fn mac(&self, message: &[u8]) -> Hex<32> {
        Hex(*blake3::keyed_hash(&self.0, message).as_bytes())
    }

    /// Whether this is the MAC, in a time that does not depend on where they differ.
    pub fn is_mac(&self, message: &[u8], mac: &Hex<32>) -> bool {
        blake3::keyed_hash(&self.0, message) == blake3::Hash::from_bytes(mac.0)
    }
}

/// As in `crypto.md`: the secret, then each part behind its length.
fn derive(context: &str, secret: &[u8; SECRET_BYTES], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(secret);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code() -> JoinCode {
        JoinCode::new([0xab; 32], Secret::new([0x5c; 20]))
    }

    #[test]
    fn base32_is_crockfords() {
        assert_eq!(to_base32(b""), "");
        assert_eq!(to_base32(&[0]), "00");
        assert_eq!(to_base32(&[0xff]), "ZW");
        assert_eq!(to_base32(b"hello"), "D1JPRV3F");
        assert_eq!((to_base32(&[1; 32]).len(), to_base32(&[1; 20]).len()), (HIVE_LETTERS, SECRET_LETTERS));
    }

    #[test]
    fn a_shell_is_given_an_address_and_a_code_and_nothing_else() {
        let (code, hive) = (code(), "https://hive.example.org");
        assert_eq!(code.join_command(hive), format!("comb device join {hive} --code {}", code.show()));
        let docker = code.docker_command(hive);
        assert!(docker.starts_with("docker run -d "), "{docker}");
        assert!(
            docker.ends_with(&format!(" comb device run --join {hive} --code {}", code.show())),
            "{docker}"
        );
        assert!(docker.contains(" --uts host "), "it is called as its machine: {docker}");
        let plain = |one: char| one.is_ascii_alphanumeric() || " -_./:=".contains(one);
        assert!(docker.chars().all(plain), "nothing of it is a shell's: {docker}");
    }

    #[test]
    fn a_code_is_read_as_people_write_it() {
        let text = code().show();
        assert_eq!(text.len(), HIVE_LETTERS + 1 + SECRET_LETTERS);
        for written in [
            text.clone(),
            text.to_lowercase(),
            text.replace('-', ""),
            text.chars()
                .collect::<Vec<_>>()
                .chunks(4)
                .map(|four| four.iter().collect::<String>())
                .collect::<Vec<_>>()
                .join(" - "),
            format!("  {text}\n"),
        ] {
            let read = JoinCode::parse(&written).expect("is the code");
            assert_eq!((read.hive, read.secret.0), ([0xab; 32], [0x5c; 20]));
        }
        let zeros = Secret::new([0; 20]).show();
        assert_eq!(zeros, "00000000-00000000-00000000-00000000");
        let ones = to_base32(&[0x08, 0x42, 0x10, 0x84, 0x21]);
        assert_eq!(ones, "11111111");
        assert_eq!(letters("oO0iIlL1"), Ok(vec![0, 0, 0, 1, 1, 1, 1, 1]));
    }

    #[test]
    fn a_text_that_is_no_code_is_told_why() {
        let text = code().show();
        assert_eq!(JoinCode::parse(&text[1..]).err(), Some(CodeError::Length { found: 83, expected: 84 }));
        assert_eq!(JoinCode::parse("").err(), Some(CodeError::Length { found: 0, expected: 84 }));
        assert_eq!(JoinCode::parse(&text.replacen('A', "U", 1)).err(), Some(CodeError::Letter('U')));
        assert_eq!(Secret::parse("hello!").err(), Some(CodeError::Letter('!')));
        assert!(JoinCode::parse(&"0".repeat(10_000)).is_err());
        // The 52nd letter has one bit of the key and four that are zero.
        let mut bent = text.into_bytes();
        bent[HIVE_LETTERS - 1] = b'1';
        assert_eq!(
            JoinCode::parse(&String::from_utf8(bent).expect("is ASCII")).err(),
            Some(CodeError::Padding)
        );
    }

    #[test]
    fn what_is_kept_and_sent_does_not_show_the_secret() {
        let code = code();
        assert_eq!(format!("{:?} {:?}", code.secret, code.key()), "Secret JoinKey");
        assert!(!format!("{code:?}").contains("92"));
        let (id, key) = (code.id(), code.key());
        assert_ne!(&id.0[..], &key.0[..8]);
        // Another hive with the same secret gets another key.
        assert_ne!(JoinCode::new([1; 32], code.secret).key().0, key.0);

        let mac = key.mac(b"a request");
        assert!(key.is_mac(b"a request", &mac));
        assert!(!key.is_mac(b"another", &mac));
        assert!(code.secret.matches(&code.secret.hash()));
        assert!(!Secret::new([0; 20]).matches(&code.secret.hash()));
    }

    proptest! {
        #[test]
        fn every_code_comes_back(hive in any::<[u8; 32]>(), secret in any::<[u8; 20]>()) {
            let read = JoinCode::parse(&JoinCode::new(hive, Secret::new(secret)).show()).expect("is a code");
            prop_assert_eq!((read.hive, read.secret.0), (hive, secret));
            prop_assert_eq!(Secret::parse(&Secret::new(secret).show()).expect("is one").0, secret);
        }

        #[test]
        fn any_text_is_a_code_or_not(text in "\\PC{0,120}|[0-9A-Za-z -]{80,90}") {
            if let Ok(code) = JoinCode::parse(&text) {
                // One value, one form.
                let plain: String = code.show().chars().filter(|one| *one != '-').collect();
                let same = letters(&text) == letters(&plain);
                prop_assert!(same);
            }
            let _ = Secret::parse(&text);
        }
    }
}
