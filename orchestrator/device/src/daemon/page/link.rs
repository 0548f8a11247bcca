//! Links that carry any bytes, and reading them back.

use std::collections::BTreeMap;

use orchestrator_api::text::is_unseen;
use orchestrator_console::link;
pub use orchestrator_console::link::{decode, encode};

use crate::doors::past::Place;

/// The most fields of a query or a form.
const FIELDS_MAX: usize = 16;

/// What stands behind the question mark, or in a form.
#[derive(Debug, Default)]
pub struct Fields(BTreeMap<String, Vec<u8>>);

impl Fields {
    /// Reads them; none if something is written wrongly, twice, or too often.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = BTreeMap::new();
        for (name, value) in link::fields(text, FIELDS_MAX)? {
            if fields.insert(name, value).is_some() {
                return None;
            }
        }
        Some(Self(fields))
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The text of a field.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The number of a field: `Some(None)` if it is not there, none if it is no number.
    pub fn number(&self, name: &str) -> Option<Option<u64>> {
        match self.0.get(name) {
            None => Some(None),
            Some(value) if value.is_empty() => Some(None),
            Some(value) => std::str::from_utf8(value).ok()?.parse().ok().map(Some),
        }
    }

    /// A path in a volume in its plain form: what has empty parts, `.` or `..` is none.
    pub fn path(&self, name: &str) -> Option<Vec<u8>> {
        clean(self.0.get(name).map(Vec::as_slice).unwrap_or_default())
    }

    /// The same of a form, whose fields are text: the bytes are written by their numbers once more.
    pub fn packed_path(&self, name: &str) -> Option<Vec<u8>> {
        clean(&decode(self.0.get(name)?)?)
    }
}

fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = match path.strip_suffix(b"/") {
        // Two slashes are no root.
        Some(b"") => return None,
        Some(rest) => rest,
        None => path,
    };
    let is_plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    (path.is_empty() || path.split(|byte| *byte == b'/').all(is_plain)).then(|| path.to_vec())
}

/// A link to a route about a place.
pub fn to(route: &str, place: &Place) -> String {
    let at = place.seq.map_or_else(String::new, |seq| format!("&at={seq}"));
    let path = if place.path.is_empty() { String::new() } else { format!("&path={}", encode(&place.path)) };
    format!("/{route}?volume={}{at}{path}", encode(place.volume.as_bytes()))
}

/// A file's name for a header: what every browser understands, and all of it for those that can.
pub fn disposition(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    // Marks that turn the direction of writing would make `gpj.exe` of it in a list of downloads.
    let text: String = text.chars().filter(|one| !is_unseen(*one)).collect();
    let text = text.trim().trim_start_matches('.');
    let text = if text.is_empty() { "file" } else { text };
    let ascii: String = text
        .chars()
        .map(|one| if one.is_ascii() && !matches!(one, '"' | '\\' | '%' | '/') { one } else { '_' })
        .collect();
    format!(
        "attachment; filename=\"{ascii}\"; filename*=UTF-8''{}",
        encode(text.as_bytes()).replace('/', "%2F")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_go_through_a_link_and_a_form() {
        let all: Vec<u8> = (1..=255u8).collect();
        let fields = |text: &str| Fields::parse(text.as_bytes()).expect("well written");
        let path = all.clone();
        assert_eq!(fields(&format!("path={}", encode(&path))).path("path"), Some(path.clone()));
        let packed = encode(encode(&path).as_bytes());
        assert_eq!(fields(&format!("path={packed}")).packed_path("path"), Some(path));
    }

    #[test]
    fn a_path_leads_nowhere_else() {
        let path = |text: &str| Fields::parse(text.as_bytes()).and_then(|fields| fields.path("path"));
        assert_eq!(path("path=a/b"), Some(b"a/b".to_vec()));
        assert_eq!(path("path=/a/"), Some(b"a".to_vec()));
        assert_eq!(path(""), Some(Vec::new()));
        for text in [
            "path=..",
            "path=a/../b",
            "path=%2e%2e/etc",
            "path=a//b",
            "path=./a",
            "path=a%00b",
            "path=%2F%2F",
            "path=%2E%2E%2F%2E%2E",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_wrongly_is_no_question() {
        for text in ["a=%", "a=%4", "a=%zz", "a=1&a=2", "%ff=1"] {
            assert!(Fields::parse(text.as_bytes()).is_none(), "{text}");
        }
        let many: String = (0..=FIELDS_MAX).map(|at| format!("f{at}=1&")).collect();
        assert!(Fields::parse(many.as_bytes()).is_none());
        let fields = Fields::parse(b"at=12&first=&x=-1&y=1+2").expect("well written");
        assert_eq!(
            (fields.number("at"), fields.number("first"), fields.number("none"), fields.number("x")),
            (Some(Some(12)), Some(None), Some(None), None)
        );
        assert_eq!(fields.text("y"), Some("1 2"));
    }

    #[test]
    fn a_downloads_name_is_what_it_looks_like_and_ends_no_header() {
        let named = |name: &[u8]| disposition(name);
        assert_eq!(named(b"a b.txt"), "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt");
        assert!(named("gnp\u{202e}gpj.exe".as_bytes()).contains("gnpgpj.exe"));
        assert!(named("a\u{ad}\u{3164}.exe".as_bytes()).contains("\"a.exe\""));
        assert!(named(b".\xff\r\nSet-Cookie: x").bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert!(named(b"\n").contains("\"file\""));
        assert!(named(b"\"; filename=evil").starts_with("attachment; filename=\"_; filename=evil\";"));
    }
}
