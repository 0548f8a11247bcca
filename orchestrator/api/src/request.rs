//! Who is asking: signatures of devices' requests and of the hive's answers (`api.md`, section 3).
//!
//! Invariants
//! - A signature covers all that decides what a request does, each part behind its length: no two requests have the
//!   same bytes.
//! - An answer's signature covers the request's, so an answer belongs to one request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_format::signature::is_valid;

use crate::code::JoinKey;
use crate::text::{FormError, Hex, Uuid};

/// What a device's signature is bound to.
pub const DEVICE_CONTEXT: &str = "comb 2026-11 v1 device request signature";
/// What a hive's signature is bound to.
pub const HIVE_CONTEXT: &str = "comb 2026-11 v1 hive answer signature";
/// The longest header that is read, in bytes.
const HEADER_BYTES_MAX: usize = 256;
/// The largest number that travels.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The id and session of a device that has none yet.
pub const NOBODY: [u8; 16] = [0; 16];

/// What a device signs of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The hive's public key.
    pub hive: [u8; 32],
    /// The session; [`NOBODY`] for join and hello.
    pub session: [u8; 16],
    /// The device; [`NOBODY`] for join.
    pub device: [u8; 16],
    /// Grows within a session, from 1; for hello its own.
    pub number: u64,
    /// `GET`, `POST`, `PUT`, `DELETE`.
    pub method: &'a str,
    /// As sent.
    pub path_and_query: &'a str,
    /// As sent; empty if there is none.
    pub body: &'a [u8],
}

/// What a hive signs of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The hive's public key.
    pub hive: [u8; 32],
    /// The signature of the request that is answered.
    pub request: [u8; 64],
    /// Of HTTP.
    pub status: u16,
    /// As sent.
    pub body: &'a [u8],
}

/// Each part behind its length.
pub(crate) fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

impl Request<'_> {
    /// The bytes that are signed in [`DEVICE_CONTEXT`], and that a join's MAC is over.
    pub fn bytes(&self) -> Vec<u8> {
        joined(&[
            &self.hive,
            &self.session,
            &self.device,
            &self.number.to_le_bytes(),
            self.method.as_bytes(),
            self.path_and_query.as_bytes(),
            blake3::hash(self.body).as_bytes(),
        ])
    }

    /// Whether the device of this identity signed it.
    pub fn is_signed_by(&self, identity: &[u8; 32], signature: &[u8; 64]) -> bool {
        is_valid(identity, DEVICE_CONTEXT, &self.bytes(), signature)
    }

    /// The MAC of a join.
    pub fn mac(&self, key: &JoinKey) -> Hex<32> {
        key.mac(&self.bytes())
    }

    /// Whether whoever sent the join knows the code.
    pub fn knows(&self, key: &JoinKey, mac: &Hex<32>) -> bool {
        key.is_mac(&self.bytes(), mac)
    }
}

impl Answer<'_> {
    /// The bytes that are signed in [`HIVE_CONTEXT`].
    pub fn bytes(&self) -> Vec<u8> {
        joined(&[&self.hive, &self.request, &self.status.to_le_bytes(), blake3::hash(self.body).as_bytes()])
    }

    /// Whether the hive that it names signed it. An answer that is not is as none, whatever its status.
    pub fn is_signed(&self, signature: &[u8; 64]) -> bool {
        is_valid(&self.hive, HIVE_CONTEXT, &self.bytes(), signature)
    }
}

/// The header `Authorization` of a device: `Comb-Device <device id>, <number>, <signature, base64>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceHeader {
    /// The device; [`NOBODY`] for join.
    pub device: [u8; 16],
    /// Of the request.
    pub number: u64,
    /// Over [`Request::bytes`].
    pub signature: [u8; 64],
}

const NOBODY_TEXT: &str = "00000000-0000-0000-0000-000000000000";

impl DeviceHeader {
    /// The header's value.
    pub fn show(&self) -> String {
        let device =
            if self.device == NOBODY { NOBODY_TEXT.to_owned() } else { Uuid(self.device).to_string() };
        format!("Comb-Device {device}, {}, {}", self.number, STANDARD.encode(self.signature))
    }

    /// Reads exactly what [`DeviceHeader::show`] writes.
    pub fn parse(text: &str) -> Result<Self, FormError> {
        let wrong = FormError("Comb-Device, an id, a number and a signature");
        if text.len() > HEADER_BYTES_MAX {
            return Err(wrong);
        }
        let mut parts = text.strip_prefix("Comb-Device ").ok_or(wrong)?.split(", ");
        let (Some(device), Some(number), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong);
        };
        let device = if device == NOBODY_TEXT { NOBODY } else { device.parse::<Uuid>()?.0 };
        let number =
            number.parse::<u64>().ok().filter(|read| *read <= NUMBER_MAX && read.to_string() == number);
        Ok(Self { device, number: number.ok_or(wrong)?, signature: parse_signature(signature)? })
    }
}

/// The header `Comb-Hive`: the answer's signature in base64.
pub fn show_signature(signature: &[u8; 64]) -> String {
    STANDARD.encode(signature)
}

/// Reads what [`show_signature`] writes.
pub fn parse_signature(text: &str) -> Result<[u8; 64], FormError> {
    let wrong = FormError("a signature in base64");
    if text.len() != 88 {
        return Err(wrong);
    }
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(wrong)
}

/// The header `Comb-Join`: the code's id and the MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinHeader {
    /// [`crate::code::JoinCode::id`].
    pub code: Hex<8>,
    /// [`Request::mac`].
    pub mac: Hex<32>,
}

impl JoinHeader {
    /// The header's value.
    pub fn show(&self) -> String {
        format!("{} {}", self.code, self.mac)
    }

    /// Reads exactly what [`JoinHeader::show`] writes.
    pub fn parse(text: &str) -> Result<Self, FormError> {
        let (code, mac) = text.split_once(' ').ok_or(FormError("a code's id and a MAC"))?;
        Ok(Self { code: code.parse()?, mac: mac.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ed25519_dalek::{Signer, SigningKey};
    use fs_format::signature::signed_digest;
    use proptest::prelude::*;

    use super::*;
    use crate::code::{JOIN_CONTEXT, JOIN_ID_CONTEXT, JoinCode, Secret};
    use crate::package::PACKAGE_CONTEXT;
    use crate::proof::{PROOF_CONTEXT, RING_CONTEXT};
    use crate::release::RELEASE_CONTEXT;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn request() -> Request<'static> {
        Request {
            hive: [1; 32],
            session: [2; 16],
            device: [3; 16],
            number: 7,
            method: "POST",
            path_and_query: "/v1/device/report?x=1",
            body: b"{}",
        }
    }

    #[test]
    fn every_context_is_another_one() {
        let contexts = BTreeSet::from([
            DEVICE_CONTEXT,
            HIVE_CONTEXT,
            PACKAGE_CONTEXT,
            RELEASE_CONTEXT,
            JOIN_CONTEXT,
            JOIN_ID_CONTEXT,
            PROOF_CONTEXT,
            RING_CONTEXT,
        ]);
        assert_eq!(contexts.len(), 8);
    }

    #[test]
    fn the_bytes_of_a_request_are_those_of_the_document() {
        let bytes = request().bytes();
        assert_eq!(bytes.len(), 7 * 8 + 32 + 16 + 16 + 8 + 4 + 21 + 32);
        assert_eq!(bytes[..8], 32u64.to_le_bytes());
        assert_eq!(bytes[8..40], [1; 32]);
        assert_eq!(bytes[bytes.len() - 32..], *blake3::hash(b"{}").as_bytes());
        let none = Request { body: b"", ..request() }.bytes();
        assert_eq!(none[none.len() - 32..], *blake3::hash(b"").as_bytes());
    }

    #[test]
    fn a_signature_is_good_for_one_request() {
        let signed = request();
        let identity = key().verifying_key().to_bytes();
        let signature = key().sign(&signed_digest(DEVICE_CONTEXT, &signed.bytes())).to_bytes();
        assert!(signed.is_signed_by(&identity, &signature));
        let others = [
            Request { hive: [9; 32], ..signed },
            Request { session: [9; 16], ..signed },
            Request { device: [9; 16], ..signed },
            Request { number: 8, ..signed },
            Request { method: "PUT", ..signed },
            Request { path_and_query: "/v1/device/report?x=2", ..signed },
            Request { body: b"{} ", ..signed },
            // What one part loses, another cannot win.
            Request { method: "POST/", path_and_query: "v1/device/report?x=1", ..signed },
        ];
        for other in others {
            assert!(!other.is_signed_by(&identity, &signature), "{other:?}");
        }
        assert!(!signed.is_signed_by(&[0; 32], &signature));
    }

    #[test]
    fn an_answer_belongs_to_one_request() {
        let answer =
            Answer { hive: key().verifying_key().to_bytes(), request: [4; 64], status: 200, body: b"{}" };
        let signature = key().sign(&signed_digest(HIVE_CONTEXT, &answer.bytes())).to_bytes();
        assert!(answer.is_signed(&signature));
        for other in [
            Answer { request: [5; 64], ..answer },
            Answer { status: 403, ..answer },
            Answer { body: b"", ..answer },
            Answer { hive: [0; 32], ..answer },
        ] {
            assert!(!other.is_signed(&signature), "{other:?}");
        }
        // A device cannot answer for the hive, though it has the form.
        let forged = key().sign(&signed_digest(DEVICE_CONTEXT, &answer.bytes())).to_bytes();
        assert!(!answer.is_signed(&forged));
    }

    #[test]
    fn a_join_shows_that_the_code_is_known() {
        let code = JoinCode::new([1; 32], Secret::new([6; 20]));
        let join =
            Request { session: NOBODY, device: NOBODY, path_and_query: "/v1/device/join", ..request() };
        let mac = join.mac(&code.key());
        assert!(join.knows(&code.key(), &mac));
        assert!(!Request { body: b"{ }", ..join }.knows(&code.key(), &mac));
        assert!(!join.knows(&JoinCode::new([1; 32], Secret::new([7; 20])).key(), &mac));
        let header = JoinHeader { code: code.id(), mac };
        assert_eq!(JoinHeader::parse(&header.show()), Ok(header));
    }

    #[test]
    fn headers_have_one_form() {
        let header = DeviceHeader {
            device: "3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse::<Uuid>().expect("is a uuid").0,
            number: 41,
            signature: [0xfb; 64],
        };
        let text = header.show();
        assert_eq!(DeviceHeader::parse(&text), Ok(header));
        let joining = DeviceHeader { device: NOBODY, ..header };
        assert_eq!(DeviceHeader::parse(&joining.show()), Ok(joining));
        for wrong in [
            text.replace("Comb-Device", "comb-device"),
            text.replace(", 41,", ", 041,"),
            text.replace(", 41,", ", +41,"),
            text.replace(", 41,", ", 9007199254740992,"),
            text.replace(", ", ","),
            text.replace("3f25", "3F25"),
            text.trim_end_matches('=').to_owned(),
            format!("{text}, more"),
            format!("{text} "),
            String::new(),
        ] {
            assert!(DeviceHeader::parse(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_signature(&show_signature(&[7; 64])), Ok([7; 64]));
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in "(Comb-Device )?\\PC{0,140}") {
            if let Ok(header) = DeviceHeader::parse(&text) {
                prop_assert_eq!(header.show(), text.clone());
            }
            let _ = (JoinHeader::parse(&text), parse_signature(&text));
        }
    }
}
