//! What a file's first bytes are: a picture, text, or neither. Its name is not asked.

/// How much is looked at, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// The largest picture that is shown, in bytes.
pub const PICTURE_BYTES_MAX: u64 = 32 << 20;

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A picture of this type.
    Picture(&'static str),
    /// Text.
    Text,
    /// Anything else.
    Binary,
}

/// Of the first bytes of a file.
pub fn content(bytes: &[u8]) -> Content {
    if let Some(kind) = picture(bytes) {
        return Content::Picture(kind);
    }
    if bytes.contains(&0) { Content::Binary } else { Content::Text }
}

/// The kinds of pictures that run nothing.
pub fn picture(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// The text of bytes: UTF-8, also where the end cuts a letter in two; else each byte is a letter of Latin-1.
pub fn text(bytes: &[u8]) -> (String, bool) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), true),
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            (String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned(), true)
        }
        Err(_) => (bytes.iter().map(|byte| char::from(*byte)).collect(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_what_its_bytes_say() {
        assert_eq!(content(b"\x89PNG\r\n\x1a\n...."), Content::Picture("image/png"));
        assert_eq!(content(b"\xff\xd8\xff\xe0"), Content::Picture("image/jpeg"));
        assert_eq!(content(b"GIF89a;"), Content::Picture("image/gif"));
        assert_eq!(content(b"RIFF\x10\0\0\0WEBPVP8 "), Content::Picture("image/webp"));
        for text in ["<svg onload=alert(1)>", "<!doctype html>", "%PDF-1.7", "GIF", ""] {
            assert_eq!(content(text.as_bytes()), Content::Text, "{text}");
        }
        assert_eq!(content(b"\x7fELF\0"), Content::Binary);
    }

    #[test]
    fn text_is_shown_whatever_its_bytes() {
        assert_eq!(text("größe".as_bytes()), ("größe".to_owned(), true));
        assert_eq!(text(&"größ".as_bytes()[..5]), ("grö".to_owned(), true), "the end cuts a letter");
        assert_eq!(text(b"gr\xf6\xdfe"), ("größe".to_owned(), false));
        assert_eq!(text(b"\xef\xbb\xbfa"), ("a".to_owned(), true));
    }
}
