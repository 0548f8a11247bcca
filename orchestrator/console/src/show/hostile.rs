//! Names and text that somebody else chose: shown so that nothing is hidden and nothing is done.
//!
//! A name may hold anything but `/` and zero: markup, control bytes, marks that turn the direction of writing, bytes
//! that are no UTF-8, blanks at its ends. What cannot be seen is written as its number between brackets; the rest stands
//! in `<bdi>`, so that it turns nothing beside it.

use orchestrator_api::text::is_unseen;

use super::html::{Html, escape};

/// What cannot be seen, and blanks that look like the plain one.
fn is_odd(one: char) -> bool {
    is_unseen(one) || (one.is_whitespace() && one != ' ')
}

fn odd(out: &mut String, what: &str) {
    out.push_str("<span class=\"odd\">⟨");
    out.push_str(what);
    out.push_str("⟩</span>");
}

fn put(out: &mut String, text: &str) {
    let mut plain = String::new();
    for one in text.chars() {
        if is_odd(one) {
            out.push_str(&escape(&plain));
            plain.clear();
            odd(out, &format!("U+{:04X}", u32::from(one)));
        } else {
            plain.push(one);
        }
    }
    out.push_str(&escape(&plain));
}

/// A name.
pub fn name(text: &str) -> Html {
    name_bytes(text.as_bytes())
}

/// A name as a filesystem has it: any bytes.
pub fn name_bytes(bytes: &[u8]) -> Html {
    let mut out = String::from("<bdi class=\"name\">");
    // A blank at an end is seen by nobody.
    let first = bytes.iter().take_while(|byte| **byte == b' ').count();
    let last = bytes[first..].iter().rev().take_while(|byte| **byte == b' ').count();
    for _ in 0..first {
        odd(&mut out, "blank");
    }
    for chunk in bytes[first..bytes.len() - last].utf8_chunks() {
        put(&mut out, chunk.valid());
        for byte in chunk.invalid() {
            odd(&mut out, &format!("{byte:02X}"));
        }
    }
    for _ in 0..last {
        odd(&mut out, "blank");
    }
    if bytes.is_empty() {
        odd(&mut out, "no name");
    }
    out.push_str("</bdi>");
    Html::of(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_and_does_nothing() {
        let table: &[(&[u8], &str)] = &[
            (b"photo.jpg", "photo.jpg"),
            (b"<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            (b"\" onmouseover='x'", "&quot; onmouseover=&#39;x&#39;"),
            (b"a\nb", "a<span class=\"odd\">⟨U+000A⟩</span>b"),
            (b"a\x1b[31mb", "a<span class=\"odd\">⟨U+001B⟩</span>[31mb"),
            ("gnp\u{202e}gpj.exe".as_bytes(), "gnp<span class=\"odd\">⟨U+202E⟩</span>gpj.exe"),
            ("z\u{200b}w".as_bytes(), "z<span class=\"odd\">⟨U+200B⟩</span>w"),
            ("a\u{a0}b".as_bytes(), "a<span class=\"odd\">⟨U+00A0⟩</span>b"),
            (b"\xff\xfe", "<span class=\"odd\">⟨FF⟩</span><span class=\"odd\">⟨FE⟩</span>"),
            (b" x ", "<span class=\"odd\">⟨blank⟩</span>x<span class=\"odd\">⟨blank⟩</span>"),
            (b"  ", "<span class=\"odd\">⟨blank⟩</span><span class=\"odd\">⟨blank⟩</span>"),
            (b"", "<span class=\"odd\">⟨no name⟩</span>"),
            ("Ünïcödé 日本".as_bytes(), "Ünïcödé 日本"),
        ];
        for (bytes, inside) in table {
            assert_eq!(
                name_bytes(bytes).as_str(),
                format!("<bdi class=\"name\">{inside}</bdi>"),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn no_byte_makes_markup_and_none_is_left_out() {
        let all: Vec<u8> = (1..=255u8).filter(|byte| *byte != b'/').collect();
        let shown = name_bytes(&all);
        let inside =
            shown.as_str().strip_prefix("<bdi class=\"name\">").and_then(|text| text.strip_suffix("</bdi>"));
        let inside =
            inside.expect("stands in bdi").replace("<span class=\"odd\">", "").replace("</span>", "");
        assert!(!inside.contains(['<', '>', '"', '\'']) && !inside.chars().any(char::is_control));
        for byte in 0x80..=0xffu8 {
            assert!(inside.contains(&format!("⟨{byte:02X}⟩")), "{byte:02x}");
        }
        assert!(name_bytes(&[b'x'; 255]).as_str().contains(&"x".repeat(255)));
    }
}
