//! Links and forms: any bytes in an address, and reading them back.

/// Bytes as they stand in a query: letters, digits, `-`, `.`, `_`, `~` and `/`, and everything else by its number.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The bytes of a text with numbers in it; none if a number is wrong.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
        bytes.push(match byte {
            b'%' => (digit(rest.next())? << 4 | digit(rest.next())?) as u8,
            b'+' => b' ',
            byte => *byte,
        });
    }
    Some(bytes)
}

/// What stands behind the question mark, or in a form (`application/x-www-form-urlencoded`), in its order: names, which are
/// text, and values. None if something is written wrongly, or there are more than `max`.
pub fn fields(text: &[u8], max: usize) -> Option<Vec<(String, Vec<u8>)>> {
    let mut fields = Vec::new();
    for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        if fields.len() == max {
            return None;
        }
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let name = String::from_utf8(decode(&pair[..equals])?).ok()?;
        fields.push((name, decode(pair.get(equals + 1..).unwrap_or_default())?));
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_go_through_an_address() {
        let all: Vec<u8> = (0..=255u8).collect();
        let text = encode(&all);
        assert_eq!(decode(text.as_bytes()), Some(all));
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>&+".contains(&byte)));
        assert_eq!(encode(b"/a?b=c&d"), "/a%3Fb%3Dc%26d");
    }

    #[test]
    fn fields_are_read_or_refused() {
        let read = fields(b"a=1+2&b=%C3%BC%26&a=3&empty=&flag", 5).expect("is written well");
        let read: Vec<(&str, &[u8])> =
            read.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        assert_eq!(
            read,
            [("a", &b"1 2"[..]), ("b", "ü&".as_bytes()), ("a", b"3"), ("empty", b""), ("flag", b"")]
        );
        for wrong in ["a=%", "a=%4", "a=%zz", "%ff=1", "a&b&c&d&e&f"] {
            assert_eq!(fields(wrong.as_bytes(), 5), None, "{wrong}");
        }
    }
}
