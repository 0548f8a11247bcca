//! Apps to choose from, and the form that installs one.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Html};

/// The picture of an app: its own, or its first letter.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// Where its own is.
    pub path: Option<String>,
    /// The first letter of its name.
    pub letter: String,
}

/// An app of the catalog.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its page; none if it cannot be read.
    pub path: Option<String>,
    /// Its name.
    pub name: Html,
    /// Its picture.
    pub picture: Picture,
    /// Which one it is.
    pub version: Option<Html>,
    /// A sentence about it.
    pub summary: Html,
    /// What is wrong with it.
    pub problem: Option<Html>,
}

/// The catalog.
#[derive(Debug, Template)]
#[template(path = "pages/catalog.html")]
pub struct Catalog {
    /// What all pages have.
    pub frame: Frame,
    /// What is looked for.
    pub query: String,
    /// How many apps there are in all; none where the hive has no catalog.
    pub count: Option<usize>,
    /// Those that fit.
    pub offers: Vec<Offer>,
    /// Why the folder cannot be read.
    pub problem: Option<String>,
}

/// Something to choose that needs a sentence.
#[derive(Debug, Clone)]
pub struct Choice {
    /// What is sent.
    pub value: String,
    /// What it is called.
    pub label: Html,
    /// What it means.
    pub words: Html,
    /// Whether it is chosen.
    pub is_chosen: bool,
    /// Whether it can be chosen.
    pub is_possible: bool,
}

/// A part of a README.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A heading.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A list.
    Items(Vec<String>),
    /// Something that is typed.
    Code(String),
}

/// Reads a README: headings, paragraphs, lists, code. Everything else stands as it is, as text.
pub fn parts(readme: &str) -> Vec<Part> {
    const PARTS_MAX: usize = 400;
    let mut all: Vec<Part> = Vec::new();
    let mut code: Option<String> = None;
    let mut fresh = true;
    for line in readme.lines() {
        if all.len() == PARTS_MAX {
            break;
        }
        if line.trim_start().starts_with("```") {
            match code.take() {
                Some(text) => all.push(Part::Code(text)),
                None => code = Some(String::new()),
            }
            fresh = true;
            continue;
        }
        if let Some(text) = &mut code {
            text.push_str(line);
            text.push('\n');
            continue;
        }
        let line = line.trim();
        let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("* "));
        match (line.is_empty(), item, all.last_mut()) {
            (true, ..) => {
                fresh = true;
                continue;
            }
            (_, Some(item), Some(Part::Items(items))) => items.push(item.to_owned()),
            (_, Some(item), _) => all.push(Part::Items(vec![item.to_owned()])),
            (_, None, _) if line.starts_with('#') => {
                all.push(Part::Heading(line.trim_start_matches('#').trim().to_owned()));
            }
            (_, None, Some(Part::Text(text))) if !fresh => {
                text.push(' ');
                text.push_str(line);
            }
            (_, None, Some(Part::Items(items))) if !fresh => {
                if let Some(last) = items.last_mut() {
                    last.push(' ');
                    last.push_str(line);
                }
            }
            _ => all.push(Part::Text(line.to_owned())),
        }
        fresh = line.starts_with('#');
    }
    all.extend(code.map(Part::Code));
    all
}

/// One app of the catalog, and the form that installs it.
#[derive(Debug, Template)]
#[template(path = "pages/install.html")]
pub struct Install {
    /// What all pages have.
    pub frame: Frame,
    /// Its name, for the browser's list.
    pub title: String,
    /// Its name.
    pub name: Html,
    /// Its picture.
    pub picture: Picture,
    /// Which one it is.
    pub version: Option<Html>,
    /// A sentence about it.
    pub summary: Html,
    /// What else its README says.
    pub readme: Vec<Part>,
    /// What it needs: a word, and what.
    pub needs: Vec<(&'static str, Vec<Html>)>,
    /// What is wrong with it, which keeps it from being installed.
    pub problem: Option<Html>,
    /// Why no device installs it by itself, a line each.
    pub asks: Vec<Html>,
    /// Why nobody can install from this page now.
    pub refusal: Option<String>,
    /// Where the form goes; none where it cannot be sent.
    pub action: Option<String>,
    /// Name, and name in the net.
    pub fields: Vec<Field>,
    /// What the app asks.
    pub options: Vec<Field>,
    /// Devices.
    pub devices: Vec<Choice>,
    /// What becomes of it when its device dies.
    pub protections: Vec<Choice>,
    /// Where its data goes.
    pub stores: Vec<Choice>,
    /// The same at a terminal.
    pub command: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readme_is_read_as_text_alone() {
        let text = |text: &str| Part::Text(text.to_owned());
        let read = parts(
            "## Use\nIt keeps\nphotos.\n\n- one\n- two\n  more\n\n```\ncomb up\n```\n[x](javascript:y)",
        );
        let expected = [
            Part::Heading("Use".to_owned()),
            text("It keeps photos."),
            Part::Items(vec!["one".to_owned(), "two more".to_owned()]),
            Part::Code("comb up\n".to_owned()),
            text("[x](javascript:y)"),
        ];
        assert_eq!(read, expected);
        assert_eq!(
            parts("a\n# b\nc\n```\nd"),
            [text("a"), Part::Heading("b".to_owned()), text("c"), Part::Code("d\n".to_owned())]
        );
        assert!(parts(&"a\n\n".repeat(1000)).len() == 400);
    }
}
