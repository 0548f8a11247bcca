//! Fields of forms: a label, a hint, what is wrong, and how the browser may help.

use askama::Template;
use askama::filters::HtmlSafe;

/// What a field takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A line.
    Text,
    /// What nobody should see.
    Password,
    /// An address of mail.
    Email,
    /// An address of the net.
    Url,
    /// A whole number.
    Number,
    /// Yes or no.
    Flag,
    /// Several lines.
    Lines,
    /// One of these.
    Choices(Vec<Choice>),
}

/// Something to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What is sent.
    pub value: String,
    /// What is shown.
    pub label: String,
}

impl Choice {
    /// With what is sent and shown.
    pub fn new(value: impl Into<String>, label: impl Into<String>) -> Self {
        Self { value: value.into(), label: label.into() }
    }
}

/// A field.
#[derive(Debug, Clone, Template)]
#[template(path = "show/field.html")]
pub struct Field {
    id: String,
    name: String,
    label: String,
    kind: Kind,
    hint: Option<String>,
    error: Option<String>,
    value: String,
    autocomplete: &'static str,
    required: bool,
    length: Option<usize>,
    pattern: Option<&'static str>,
    focus: bool,
}

impl HtmlSafe for Field {}

impl Field {
    /// A field that must be filled in.
    pub fn new(name: &str, label: &str, kind: Kind) -> Self {
        Self {
            id: name.to_owned(),
            name: name.to_owned(),
            label: label.to_owned(),
            kind,
            hint: None,
            error: None,
            value: String::new(),
            autocomplete: "off",
            required: true,
            length: None,
            pattern: None,
            focus: false,
        }
    }

    /// In one of several forms of a page: what is its own among them.
    #[must_use]
    pub fn of(self, form: &str) -> Self {
        Self { id: format!("{form}-{}", self.name), ..self }
    }

    /// What helps to fill it in.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What stands in it; of a flag `on`. A password is never sent back.
    #[must_use]
    pub fn value(self, value: impl Into<String>) -> Self {
        match self.kind {
            Kind::Password => self,
            _ => Self { value: value.into(), ..self },
        }
    }

    /// What is wrong with what was filled in.
    #[must_use]
    pub fn error(self, error: Option<String>) -> Self {
        Self { error, ..self }
    }

    /// What a browser may fill in, by the standard's words.
    #[must_use]
    pub fn autocomplete(self, autocomplete: &'static str) -> Self {
        Self { autocomplete, ..self }
    }

    /// It may be left empty.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    /// At most so many characters.
    #[must_use]
    pub fn length(self, length: usize) -> Self {
        Self { length: Some(length), ..self }
    }

    /// What it must look like.
    #[must_use]
    pub fn pattern(self, pattern: &'static str) -> Self {
        Self { pattern: Some(pattern), ..self }
    }

    /// The first one that is filled in.
    #[must_use]
    pub fn focus(self) -> Self {
        Self { focus: true, ..self }
    }

    fn input(&self) -> &'static str {
        match self.kind {
            Kind::Password => "password",
            Kind::Email => "email",
            Kind::Url => "url",
            Kind::Number => "number",
            _ => "text",
        }
    }

    fn described(&self) -> String {
        let hint = self.hint.is_some().then(|| format!("{}-hint", self.id));
        let error = self.error.is_some().then(|| format!("{}-error", self.id));
        hint.into_iter().chain(error).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_tells_what_it_wants_and_what_is_wrong() {
        let field = Field::new("name", "Name", Kind::Text)
            .hint("As <you> like")
            .error(Some("it is \"taken\"".to_owned()))
            .value("\"><script>");
        let shown = field.to_string();
        assert!(shown.contains("<label for=\"name\">Name"), "{shown}");
        assert!(
            shown.contains("aria-describedby=\"name-hint name-error\"")
                && shown.contains("aria-invalid=\"true\"")
        );
        assert!(!shown.contains("<script>") && !shown.contains("<you>"), "{shown}");
    }

    #[test]
    fn a_password_is_not_sent_back() {
        let shown = Field::new("password", "Password", Kind::Password).value("hunter2").to_string();
        assert!(!shown.contains("hunter2") && shown.contains("type=\"password\""), "{shown}");
    }

    #[test]
    fn the_choice_that_was_made_stays() {
        let kind = Kind::Choices(vec![Choice::new("a", "A"), Choice::new("b", "B")]);
        let shown = Field::new("which", "Which", kind).value("b").to_string();
        assert!(shown.contains("<option value=\"b\" selected>B</option>"), "{shown}");
    }
}
