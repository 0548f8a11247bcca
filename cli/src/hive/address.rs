//! Where a hive is.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Kind, Result};

/// The base of a hive's routes: a scheme, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Url);

impl Address {
    /// Reads what a person writes. Without a scheme it is https, but for this very machine.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false if is_loopback(&format!("http://{text}")) => format!("http://{text}"),
            false => format!("https://{text}"),
        };
        let refuse = |why: &str| {
            Err(Failure::new(Kind::Usage, format!("this is no address of a hive: {why}"))
                .hint("it looks like https://hive.example.org, or http://127.0.0.1:8420"))
        };
        // Not repeated in errors: somebody may have written a password into it.
        let Ok(url) = Url::parse(&whole) else { return refuse("it is no URL") };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("it begins with neither https:// nor http://");
        }
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() {
            return refuse("it names no machine");
        }
        // It goes into commands that people give to a shell.
        if !host.chars().all(|one| one.is_ascii_alphanumeric() || "-._:[]".contains(one)) {
            return refuse("a machine has no such name");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it holds a name or password, which `comb login` asks for");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return refuse("there is something behind the machine and its port");
        }
        Ok(Self(url))
    }

    /// Refuses to speak plainly with another machine, unless a person allowed it.
    pub fn allow(&self, insecure_http: bool) -> Result<()> {
        if self.0.scheme() == "https" || insecure_http || self.is_here() {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Usage,
            format!(
                "{self} is another machine, and over http whoever is on the way reads the password and changes the answers"
            ),
        )
        .hint("take https (`comb hive run --tls-cert`, or a proxy); --insecure-http does it all the same, in a network of your own"))
    }

    /// Whether it means this machine, wherever it is said.
    pub fn is_here(&self) -> bool {
        is_loopback(self.0.as_str())
    }

    /// The URL of a route; `path` begins with `/`.
    pub fn route(&self, path: &str) -> String {
        assert!(path.starts_with('/'), "a route begins with a slash");
        format!("{self}{path}")
    }
}

fn is_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::parse(&text).map_err(|failure| failure.message)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        let table = [
            ("hive.example.org", "https://hive.example.org"),
            ("https://hive.example.org/", "https://hive.example.org"),
            ("HTTPS://Hive.Example.org:8420", "https://hive.example.org:8420"),
            ("http://192.0.2.1:8420", "http://192.0.2.1:8420"),
            ("localhost:8420", "http://localhost:8420"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("[::1]:8420", "http://[::1]:8420"),
        ];
        for (text, shown) in table {
            assert_eq!(Address::parse(text).expect(text).to_string(), shown);
        }
        for text in [
            "",
            "ftp://a",
            "https://",
            "https://me:secret@a",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "file:///a",
            "https://a;reboot",
            "https://a$(reboot)",
            "https://a`reboot`",
        ] {
            let failure = Address::parse(text).expect_err(text);
            assert_eq!(failure.kind, Kind::Usage);
            assert!(!failure.message.contains("secret"));
        }
    }

    #[test]
    fn plain_http_goes_to_this_machine_only() {
        for text in ["https://a", "http://localhost:1", "http://127.0.0.9", "http://[::1]"] {
            assert_eq!(Address::parse(text).expect(text).allow(false), Ok(()));
        }
        for text in ["http://a", "http://192.0.2.1", "http://localhost.example.org", "http://0.0.0.0"] {
            let address = Address::parse(text).expect(text);
            assert!(address.allow(false).is_err(), "{text}");
            assert_eq!(address.allow(true), Ok(()));
        }
    }
}
