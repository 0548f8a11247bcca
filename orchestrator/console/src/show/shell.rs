//! Words of a command, as somebody copies it into a terminal.

/// Bytes as a shell takes them for one word: in quotes where it needs some, and what is not plain ASCII by its number.
pub fn quoted(word: impl AsRef<[u8]>) -> String {
    let word = word.as_ref();
    let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(byte);
    let is_shown = |byte: &u8| (b' '..=b'~').contains(byte);
    let text = String::from_utf8_lossy(word);
    if !word.is_empty() && word.iter().all(is_bare) {
        return text.into_owned();
    }
    if word.iter().all(is_shown) {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    let mut text = String::from("$'");
    for byte in word {
        match byte {
            b'\\' | b'\'' => text.extend(['\\', char::from(*byte)]),
            byte if is_shown(byte) => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_anything_for_one_word() {
        let table: [(&[u8], &str); 8] = [
            (b"photos", "photos"),
            (b"", "''"),
            (b"a b", "'a b'"),
            (b"it's; rm", "'it'\\''s; rm'"),
            (b"$(x)", "'$(x)'"),
            (b"s3://b/p", "s3://b/p"),
            (b"a\n\xff'", "$'a\\x0a\\xff\\''"),
            ("gnp\u{202e}gpj".as_bytes(), "$'gnp\\xe2\\x80\\xaegpj'"),
        ];
        for (word, shell) in table {
            assert_eq!(quoted(word), shell);
        }
    }
}
