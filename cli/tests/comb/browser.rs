//! A browser of a few lines, as far as a device's page can tell. Only this file knows how it is asked.

use std::collections::BTreeMap;

use reqwest::redirect::Policy;
use reqwest::{Client, Method};

/// What was answered.
pub struct Answer {
    pub status: u16,
    headers: BTreeMap<String, String>,
    pub cookies: Vec<String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The value of the first form field of a name.
    pub fn field(&self, name: &str) -> String {
        let text = self.text();
        let at = text.split(&format!("name=\"{name}\" value=\"")).nth(1);
        at.and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }
}

/// A browser, as far as the page can tell.
pub struct Browser {
    pub runtime: tokio::runtime::Runtime,
    pub client: Client,
    pub address: String,
    pub cookie: Option<String>,
}

/// Bytes by their numbers.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

impl Browser {
    pub fn new(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = Client::builder()
            .danger_accept_invalid_certs(true)
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .expect("a client");
        Self { runtime, client, address: address.to_owned(), cookie: None }
    }

    pub fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], form: Option<String>) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.address));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(form) = form {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.expect("it answers");
            let cookies = answer.headers().get_all("set-cookie").iter();
            let cookies = cookies.map(|value| value.to_str().expect("text").to_owned()).collect();
            let headers = answer.headers().iter();
            let headers = headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
                .collect();
            let status = answer.status().as_u16();
            Answer { status, headers, cookies, body: answer.bytes().await.expect("all of it").to_vec() }
        })
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], None)
    }

    #[track_caller]
    pub fn shows(&self, path: &str) -> Answer {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8", "{path}");
        is_strict(&answer, path);
        answer
    }

    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let form: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encode(value.as_bytes()))).collect();
        self.ask(Method::POST, path, &[("origin", &self.address)], Some(form.join("&")))
    }

    /// Types a code.
    pub fn enter(&mut self, code: &str) -> Answer {
        let answer = self.post("/code", &[("code", code)]);
        if let Some(cookie) = answer.cookies.iter().find(|cookie| cookie.starts_with("__Host-comb-page=")) {
            self.cookie = Some(cookie.split(';').next().expect("a value").to_owned());
        }
        answer
    }
}

/// What every page says of itself.
#[track_caller]
fn is_strict(answer: &Answer, path: &str) {
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
    let text = answer.text();
    let lower = text.to_lowercase();
    for word in ["<script>", "javascript:", " style=\"", " onclick=\"", " onload=\"", " onerror=\""] {
        assert!(!lower.contains(word), "{word} in {path}: {text}");
    }
    for other in ["src=\"http", "href=\"//", "src=\"//"] {
        assert!(!lower.contains(other), "{other} in {path}");
    }
}
