//! Markup, and the only place where text becomes it.

use std::fmt;

use askama::filters::HtmlSafe;

/// Markup that is right: made of escaped text by this crate alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Html(String);

impl Html {
    /// Of markup that was put together from escaped parts.
    pub(crate) fn of(markup: String) -> Self {
        Self(markup)
    }

    /// Text, escaped.
    pub fn text(text: &str) -> Self {
        Self(escape(text))
    }

    /// Two parts, one after the other; text is escaped.
    pub fn pair(first: impl Into<Self>, second: impl Into<Self>) -> Self {
        let (first, second) = (first.into(), second.into());
        Self(first.0 + &second.0)
    }

    /// The same without elements: what a window's title takes. Text in it is escaped as before, so each `<` begins an
    /// element.
    pub fn plain(&self) -> Self {
        let mut inside = false;
        let is_text = |one: &char| {
            let was = inside;
            inside = *one == '<' || (was && *one != '>');
            !inside && !was
        };
        Self(self.0.chars().filter(is_text).collect())
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::FastWritable for Html {
    fn write_into(&self, into: &mut dyn fmt::Write, _: &dyn askama::Values) -> askama::Result<()> {
        Ok(into.write_str(&self.0)?)
    }
}

impl HtmlSafe for Html {}

impl From<&str> for Html {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Html {
    fn from(text: String) -> Self {
        Self::text(&text)
    }
}

/// Text as it stands in markup or in an attribute between double quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            one => out.push(one),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_has_the_text_and_no_element() {
        let name = crate::show::name("a<b>\u{202e}&\"x");
        let title = Html::pair("Moving ", name).plain();
        assert_eq!(title.as_str(), "Moving a&lt;b&gt;⟨U+202E⟩&amp;&quot;x");
    }
}
