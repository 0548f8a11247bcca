//! Paths of requests, and keys of those that may be repeated.
//!
//! A path is decoded once and judged before anything is routed (`security.md`, section 13), so no two parts of the
//! program see different paths.

use std::fmt;

/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 2048;

/// Why a path was refused; it is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path of the request {0}")]
pub struct PathError(&'static str);

/// The parts of a request's path, without its query, each decoded.
pub fn segments(path: &str) -> Result<Vec<String>, PathError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(PathError("is too long"));
    }
    let rest = path.strip_prefix('/').ok_or(PathError("does not begin with \"/\""))?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    rest.split('/').map(segment).collect()
}

fn segment(raw: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => (high << 4 | low) as u8,
                    _ => return Err(PathError("has a \"%\" without two digits")),
                }
            }
            // What belongs to the query, or to no path at all, written bare.
            b'?' | b'#' | b'\\' | 0x80.. => {
                return Err(PathError("has a character that must be written with \"%\""));
            }
            byte => byte,
        };
        if decoded.is_ascii_control() || matches!(decoded, b'/' | b'\\' | b'%') {
            return Err(PathError("has a character that no path has"));
        }
        bytes.push(decoded);
    }
    match String::from_utf8(bytes) {
        Ok(part) if part.is_empty() => Err(PathError("has an empty part")),
        Ok(part) if matches!(part.as_str(), "." | "..") => Err(PathError("has \".\" or \"..\" as a part")),
        Ok(part) => Ok(part),
        Err(_) => Err(PathError("is not UTF-8")),
    }
}

/// The key under which the answer to an order is kept, so that it can be asked for again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads 1 to 64 of `[A-Za-z0-9-]`.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_odd_ones_are_refused() {
        assert_eq!(segments("/v1/apps/caf%C3%A9"), Ok(vec!["v1".into(), "apps".into(), "café".into()]));
        assert_eq!(segments("/"), Ok(Vec::new()));
        for path in [
            "",
            "v1",
            "//v1",
            "/v1//apps",
            "/v1/",
            "/v1/.",
            "/v1/../apps",
            "/v1/%2e%2e/apps",
            "/v1/%2E",
            "/v1/a%2fb",
            "/v1/a%2Fb",
            "/v1/a%00",
            "/v1/a%5cb",
            "/v1/a\\b",
            "/v1/%252e%252e",
            "/v1/a%25",
            "/v1/a%",
            "/v1/a%2",
            "/v1/a%zz",
            "/v1/a%0d%0a",
            "/v1/a\nb",
            "/v1/a?b",
            "/v1/a#b",
            "/v1/%ff",
            "/v1/é",
            "/v1/%+1",
        ] {
            assert!(segments(path).is_err(), "{path}");
        }
        assert!(segments(&format!("/{}", "a".repeat(PATH_BYTES_MAX))).is_err());
    }

    #[test]
    fn a_key_has_few_letters() {
        assert_eq!(IdempotencyKey::parse("aZ-09").expect("is a key").as_str(), "aZ-09");
        for text in ["", "a b", "a_b", "é", &"a".repeat(65)] {
            assert_eq!(IdempotencyKey::parse(text), None);
        }
    }

    proptest! {
        #[test]
        fn any_path_is_plain_or_refused(path in "/?[a-z%./0-9]{0,40}|\\PC{0,40}") {
            if let Ok(parts) = segments(&path) {
                for part in parts {
                    prop_assert!(!part.is_empty() && part != "." && part != "..");
                    prop_assert!(!part.contains(['/', '\\', '%', '\0']));
                }
            }
            let _ = IdempotencyKey::parse(&path);
        }
    }
}
