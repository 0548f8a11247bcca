//! Names and passwords of WebDAV, from a `.netrc` as curl, wget and git read it.

use std::path::{Path, PathBuf};

use crate::Url;
use crate::surroundings::{Surroundings, read};

/// Who says so to a server.
#[derive(PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) password: String,
}

/// Files that may have the login of a store, of which the first that is there counts.
pub(crate) fn files(around: &Surroundings, url: &Url) -> Vec<PathBuf> {
    around.files(url, around.file("NETRC", ".netrc"))
}

/// The login for a host in a file, if there is one. An error is for a person.
pub(crate) fn find(path: &Path, host: &str) -> Result<Option<Login>, String> {
    Ok(read(path)?.and_then(|text| login(&text, host)))
}

/// The first entry for a host, else that for all others.
fn login(text: &str, host: &str) -> Option<Login> {
    let mut words = words(text).into_iter();
    let (mut inside, mut name, mut password) = (false, String::new(), String::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "machine" | "default" if inside => break,
            "machine" => inside = words.next().is_some_and(|machine| machine.eq_ignore_ascii_case(host)),
            "default" => inside = true,
            "login" | "password" | "account" => {
                let value = words.next().unwrap_or_default();
                match word.as_str() {
                    "login" if inside => name = value,
                    "password" if inside => password = value,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    (inside && !name.is_empty()).then_some(Login { name, password })
}

/// The words of a file: quotes hold one together, and a macro is no word.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        if in_macro || line.trim_start().starts_with("macdef") {
            // Until the next empty line.
            in_macro = !line.trim().is_empty();
            continue;
        }
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let mut word = String::new();
            let mut letters = rest.chars();
            if rest.starts_with('"') {
                letters.next();
                while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
                    let escaped = if letter == '\\' { letters.next() } else { None };
                    word.push(escaped.unwrap_or(letter));
                }
                rest = letters.as_str().trim_start();
            } else {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                word.push_str(&rest[..end]);
                rest = rest[end..].trim_start();
            }
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_found_by_its_host() {
        let text = "# comment\nmachine a.example login one password p#1\nmachine b.example\n\tlogin two\n\
            \taccount x\n\tpassword \"a b\\\"c\"\nmacdef init\nmachine c.example login no password no\n\n\
            machine B.example login late password late\ndefault login other password p3\n";
        let found = |text: &str, host: &str| login(text, host).map(|login| (login.name, login.password));
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(found(text, "a.example"), pair("one", "p#1"));
        assert_eq!(found(text, "B.EXAMPLE"), pair("two", "a b\"c"));
        assert_eq!(found(text, "c.example"), pair("other", "p3"), "a macro is no entry");
        assert_eq!(found("machine a login x", "a"), pair("x", ""));
        for nothing in
            ["", "machine", "machine a", "machine a login", "default", "login x password y", "\"", "\\"]
        {
            assert_eq!(found(nothing, "a"), None, "{nothing:?}");
        }
        assert_eq!(found("machine b login x password y", "a"), None);
    }
}
