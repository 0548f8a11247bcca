//! YAML with its lines, for reading what a person wrote.
//!
//! Compose reads the same text with another parser; what is decided here must hold for what that one sees.
//!
//! Invariants
//! - Work and memory are bounded: bytes, depth, keys, and nodes after all aliases are followed.
//! - What the two parsers could read differently is refused: more than one document, a key that stands twice,
//!   tags that turn a text into another one, line breaks that only one of them takes for such.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

/// The largest file, in bytes.
pub const YAML_BYTES_MAX: usize = 1 << 20;
/// The deepest nesting.
pub const YAML_DEPTH_MAX: usize = 64;
/// The most nodes of a file, each counted as often as aliases repeat it.
pub const YAML_NODES_MAX: usize = 100_000;

/// The longest key, in bytes.
pub const YAML_KEY_BYTES_MAX: usize = 512;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The line of its first character, from 1.
    pub line: u32,
    /// What it is.
    pub value: Value,
    nodes: usize,
    depth: usize,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text, number, flag or nothing: which of them, only a plain one leaves open.
    Scalar {
        /// Without quotes, escapes resolved.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
    },
    /// Values in their order.
    List(Vec<Arc<Node>>),
    /// Keys with values in their order; those of merged maps (`<<`) come last.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The line of the key.
    pub line: u32,
    /// The value.
    pub node: Arc<Node>,
    plain: bool,
}

/// Why a file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct YamlError {
    /// From 1.
    pub line: u32,
    /// A sentence for a person.
    pub message: String,
}

impl Node {
    fn scalar(line: u32, text: String, plain: bool) -> Self {
        Self { line, value: Value::Scalar { text, plain }, nodes: 1, depth: 1 }
    }

    /// The value behind a key of a map.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The entries of a map, none of anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list, none of anything else.
    pub fn items(&self) -> &[Arc<Node>] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether nothing stands here.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// A flag; only a plain `true` or `false` is one.
    pub fn flag(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Reads one file.
pub fn parse(bytes: &[u8]) -> Result<Node, YamlError> {
    let text = readable(bytes)?;
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| YamlError {
            line: line(error.marker().line()),
            message: format!("is no YAML: {}", error.info()),
        })?;
        builder.take(event, line(span.start.line()))?;
    }
    Ok(builder.root.unwrap_or_else(|| Node::scalar(1, String::new(), true)))
}

fn line(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn refused<T>(line: u32, message: impl Into<String>) -> Result<T, YamlError> {
    Err(YamlError { line, message: message.into() })
}

/// The text, if every reader of YAML sees the same lines in it.
fn readable(bytes: &[u8]) -> Result<&str, YamlError> {
    if bytes.len() > YAML_BYTES_MAX {
        return refused(1, format!("is larger than {YAML_BYTES_MAX} bytes"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            return refused(line(1 + before.iter().filter(|byte| **byte == b'\n').count()), "is not UTF-8");
        }
    };
    let mut number = 1;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let fits = match character {
            '\n' => {
                number += 1;
                true
            }
            '\t' => true,
            '\r' => characters.peek() == Some(&'\n'),
            // YAML 1.1 ends a line, and so a comment, at these; YAML 1.2 does not.
            '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => false,
            other => !other.is_control(),
        };
        if !fits {
            return refused(
                number,
                format!(
                    "has the character U+{:04X}, which readers of YAML take differently",
                    character as u32
                ),
            );
        }
    }
    Ok(text)
}

/// A list or map that is not complete yet.
struct Open {
    line: u32,
    anchor: usize,
    nodes: usize,
    depth: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Arc<Node>>),
    Map { entries: Vec<Entry>, keys: HashSet<String>, key: Option<(String, u32, bool)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: u32) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return refused(line, "has more than one document");
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), line)?;
                let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.handle == "!");
                self.complete(Node::scalar(line, text.into_owned(), plain), anchor, false)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), line)?;
                self.begin(line, anchor, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), line)?;
                let kind = OpenKind::Map { entries: Vec::new(), keys: HashSet::new(), key: None };
                self.begin(line, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return refused(line, "has an alias that contains itself");
                };
                self.put(node, line, true)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    /// Only tags that leave a text as it is, and those by which compose undoes what it merged.
    fn check_tag(&self, tag: Option<&Tag>, line: u32) -> Result<(), YamlError> {
        let Some(tag) = tag else { return Ok(()) };
        let known = if tag.is_yaml_core_schema() {
            matches!(tag.suffix.as_str(), "str" | "int" | "float" | "bool" | "null" | "map" | "seq")
        } else {
            tag.handle == "!" && matches!(tag.suffix.as_str(), "reset" | "override")
        };
        if known && !self.wants_key() {
            return Ok(());
        }
        refused(line, format!("has the tag \"{tag}\", which may not stand here"))
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: OpenKind::Map { key: None, .. }, .. }))
    }

    fn begin(&mut self, line: u32, anchor: usize, kind: OpenKind) -> Result<(), YamlError> {
        if self.wants_key() {
            return refused(line, "has a list or map as a key");
        }
        if self.open.len() == YAML_DEPTH_MAX {
            return refused(line, format!("is nested deeper than {YAML_DEPTH_MAX}"));
        }
        self.open.push(Open { line, anchor, nodes: 1, depth: 1, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let open = self.open.pop().expect("the parser ends only what it began");
        let value = match open.kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Map { entries, keys, .. } => Value::Map(merge(entries, keys)?),
        };
        self.complete(
            Node { line: open.line, value, nodes: open.nodes, depth: open.depth },
            open.anchor,
            false,
        )
    }

    fn complete(&mut self, node: Node, anchor: usize, alias: bool) -> Result<(), YamlError> {
        if self.open.is_empty() {
            self.root = Some(node);
            return Ok(());
        }
        let line = node.line;
        let node = Arc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        self.put(node, line, alias)
    }

    fn put(&mut self, node: Arc<Node>, line: u32, alias: bool) -> Result<(), YamlError> {
        let depth_above = self.open.len();
        let Some(open) = self.open.last_mut() else {
            return refused(line, "is an alias of nothing");
        };
        open.nodes += node.nodes;
        open.depth = open.depth.max(node.depth + 1);
        if open.nodes > YAML_NODES_MAX {
            return refused(
                line,
                format!("has more than {YAML_NODES_MAX} values once its aliases are followed"),
            );
        }
        if depth_above + node.depth > YAML_DEPTH_MAX + 1 {
            return refused(
                line,
                format!("is nested deeper than {YAML_DEPTH_MAX} once its aliases are followed"),
            );
        }
        match &mut open.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Map { entries, keys, key } => match key.take() {
                Some((key, line, plain)) => entries.push(Entry { key, line, node, plain }),
                None => {
                    let Value::Scalar { text, plain } = &node.value else {
                        return refused(line, "has a list or map as a key");
                    };
                    if alias {
                        return refused(line, "has an alias as a key");
                    }
                    if text.len() > YAML_KEY_BYTES_MAX {
                        return refused(
                            line,
                            format!("has a key that is longer than {YAML_KEY_BYTES_MAX} bytes"),
                        );
                    }
                    if !keys.insert(text.clone()) {
                        return refused(line, format!("has the key \"{text}\" twice"));
                    }
                    *key = Some((text.clone(), line, *plain));
                }
            },
        }
        Ok(())
    }
}

/// Puts the entries of merged maps behind the own ones, which win.
fn merge(entries: Vec<Entry>, mut keys: HashSet<String>) -> Result<Vec<Entry>, YamlError> {
    let (merged, mut own): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.key == "<<" && entry.plain);
    for entry in merged {
        let maps = match &entry.node.value {
            Value::Map(_) => std::slice::from_ref(&entry.node),
            Value::List(maps) => maps.as_slice(),
            Value::Scalar { .. } => return refused(entry.line, "merges (\"<<\") something that is no map"),
        };
        for map in maps {
            let Value::Map(entries) = &map.value else {
                return refused(entry.line, "merges (\"<<\") something that is no map");
            };
            own.extend(entries.iter().filter(|one| keys.insert(one.key.clone())).cloned());
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> String {
        parse(text.as_bytes()).expect_err("is refused").to_string()
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let root = parse(b"a: 1\nb:\n  - x\n  - y: z\n").expect("is YAML");
        assert_eq!(root.get("b").expect("b").line, 2);
        let items = root.get("b").expect("b").node.items();
        assert_eq!((items[0].line, items[1].line), (3, 4));
    }

    #[test]
    fn merged_keys_come_last_and_lose() {
        let root =
            parse(b"x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 0\n").expect("is YAML");
        let z = &root.get("z").expect("z").node;
        let told: Vec<_> =
            z.entries().iter().map(|e| format!("{}={}", e.key, e.node.text().unwrap_or("-"))).collect();
        assert_eq!(told, ["a=0", "b=2", "c=4"]);
        // In quotes it is a key like any other.
        let root = parse(b"x: &x {a: 1}\nz:\n  \"<<\": *x\n").expect("is YAML");
        assert_eq!(root.get("z").expect("z").node.entries()[0].key, "<<");
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        assert_eq!(told("a: 1\na: 2\n"), "line 2: has the key \"a\" twice");
        assert_eq!(told("a: 1\n---\nb: 1\n"), "line 2: has more than one document");
        assert_eq!(
            told("a: 1\n# note\u{85}include: [/etc/shadow]\n"),
            "line 2: has the character U+0085, which readers of YAML take differently"
        );
        assert!(told("# note\u{2028}a: 1").contains("U+2028"));
        assert!(told("# note\ra: 1").contains("U+000D"));
        assert!(told("a: \"\u{0}\"").contains("U+0000"));
        assert_eq!(
            told("a:\n  !!binary cHJpdmlsZWdlZA==: true\n"),
            "line 2: has the tag \"tag:yaml.org,2002:!binary\", which may not stand here"
        );
        assert!(told("a: !!binary eA==\n").contains("tag"));
        assert!(told("!!str a: 1\n").contains("tag"));
        assert!(told("a: &k b\n*k : 1\n").contains("an alias as a key"));
        assert!(told(&format!("{}: 1", "k".repeat(513))).contains("longer than 512 bytes"));
        assert!(told("? [a]\n: 1\n").contains("a list or map as a key"));
        assert!(parse(b"\xff\xfea\0").expect_err("UTF-16").to_string().contains("not UTF-8"));
        assert!(parse("\u{feff}a: 1\r\nb: !reset null\nc: !!str 5".as_bytes()).is_ok());
    }

    #[test]
    fn aliases_cannot_grow_without_bound() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let below = format!("*a{},", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(told(&text).contains("more than 100000 values"));

        let mut text = String::from("a0: &a0 [x]\n");
        for level in 1..100 {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(told(&text).contains("nested deeper"));
        assert!(told("a: &a [*a]\n").contains("alias"));
        assert!(told(&"[".repeat(100)).contains("nested deeper"));
        assert!(told(&"- ".repeat(100)).contains("nested deeper"));
    }

    fn depth(node: &Node) -> usize {
        let below = match &node.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(|item| depth(item)).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|entry| depth(&entry.node)).max().unwrap_or(0),
        };
        below + 1
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_text_of_yaml_is_read_or_refused(text in "[-a-c:{}\\[\\]&*<>!|?%,#'\" \n]{0,120}") {
            if let Ok(node) = parse(text.as_bytes()) {
                prop_assert!(depth(&node) <= YAML_DEPTH_MAX + 1);
            }
        }
    }
}
