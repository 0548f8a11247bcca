//! The console over HTTP, as a browser sees it.

use std::collections::BTreeMap;

use crate::world::{Line, Reply, World};
use orchestrator_hive::pages;
use serde_json::json;

/// A browser: it keeps cookies, and sends forms with what the page gave it.
pub struct Browser {
    line: Line,
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    pub fn new(world: &World) -> Self {
        Self { line: world.line(), cookies: BTreeMap::new() }
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = vec![("accept", "text/html".to_owned())];
        if !cookies.is_empty() {
            headers.push(("cookie", cookies.join("; ")));
        }
        headers
    }

    fn keep(&mut self, reply: &Reply) {
        for value in reply.headers.get_all("set-cookie") {
            let text = value.to_str().expect("is text");
            let (pair, _) = text.split_once(';').expect("has attributes");
            let (name, value) = pair.split_once('=').expect("is a pair");
            if text.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        let headers = self.headers();
        let reply = self.line.send("GET", path, &headers, b"").await;
        self.keep(&reply);
        reply
    }

    /// Sends a form as it is.
    pub async fn send(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        more: &[(&'static str, String)],
    ) -> Reply {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let mut headers = self.headers();
        headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        headers.extend_from_slice(more);
        let reply = self.line.send("POST", path, &headers, body.join("&").as_bytes()).await;
        self.keep(&reply);
        reply
    }

    /// Loads a page, and sends its form with the token that it gave.
    pub async fn fill(&mut self, page: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        let csrf = csrf(&self.get(page).await);
        let mut all = vec![("csrf", csrf.as_str())];
        all.extend_from_slice(fields);
        self.send(path, &all, &[]).await
    }

    pub async fn log_in(world: &World, name: &str, password: &str) -> Self {
        let mut browser = Self::new(world);
        let reply = browser.fill("/login", "/login", &[("name", name), ("password", password)]).await;
        assert_eq!(reply.status, 303, "{}", text(&reply));
        browser
    }
}

pub fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

pub fn location(reply: &Reply) -> &str {
    reply.headers.get("location").map_or("", |value| value.to_str().expect("is text"))
}

fn csrf(page: &Reply) -> String {
    let text = text(page);
    let (_, rest) =
        text.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("the page has a form: {text}"));
    rest.split('"').next().expect("it ends").to_owned()
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_hive_is_set_up_in_a_browser() {
    let world = World::new().await;
    let mut browser = Browser::new(&world);
    assert_eq!(location(&browser.get("/").await), "/setup");
    assert_eq!(location(&browser.get("/login").await), "/setup");
    let code = world.setup_code.clone().expect("it is new");
    let with = |code: &str, password: &str| {
        [("setup_code", code), ("account", "Home & <garden>"), ("name", "ada"), ("password", password)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let wrong = with("AAAA", "a long password");
    let wrong: Vec<(&str, &str)> =
        wrong.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reply = browser.fill("/setup", "/setup", &wrong).await;
    assert_eq!(reply.status, 403);
    let page = text(&reply);
    assert!(
        page.contains("this is not the code") && page.contains("value=\"Home &#38; &#60;garden&#62;\""),
        "{page}"
    );
    assert!(!page.contains("a long password"));
    let right = with(&code, "a long password");
    let right: Vec<(&str, &str)> =
        right.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reply = browser.fill("/setup", "/setup", &right).await;
    assert_eq!((reply.status, location(&reply)), (303, "/devices/add"), "{}", text(&reply));
    let cookie =
        reply.headers.get("set-cookie").expect("a session begins").to_str().expect("is text").to_owned();
    assert!(cookie.starts_with("comb_session=comb_"), "{cookie}");
    assert!(cookie.contains("; Path=/; HttpOnly; SameSite=Strict; Max-Age=") && !cookie.contains("Secure"));
    let home = browser.get("/").await;
    assert_eq!(home.status, 200);
    assert!(text(&home).contains("No devices yet"), "{}", text(&home));
    assert_eq!(location(&browser.get("/setup").await), "/login");
    let reply = browser.fill("/", "/logout", &[]).await;
    assert_eq!(location(&reply), "/login?done=out");
    assert!(!browser.cookies.contains_key("comb_session"));
    assert_eq!(location(&browser.get("/").await), "/login");
}

/// What the browser has is in no database; and what ended opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_as_a_hash_and_ends() {
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let secret = browser.cookies["comb_session"].clone();
    let file = world.options.database.strip_prefix("sqlite:").expect("is a file").to_owned();
    for name in [file.clone(), format!("{file}-wal")] {
        let bytes = std::fs::read(&name).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{name}");
    }
    // It is no token, and a token is no session.
    let reply = world.person(&secret).ask("GET", "/v1/me", &json!({}), &[]).await;
    assert_eq!(reply.status, 401);
    let mut thief = Browser::new(&world);
    thief.cookies.insert("comb_session".to_owned(), secret);
    assert_eq!(thief.get("/").await.status, 200);
    let reply = browser.fill("/", "/logout", &[]).await;
    assert_eq!(reply.status, 303);
    assert_eq!(location(&thief.get("/").await), "/login");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_its_token_does_nothing() {
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    for (method, path) in pages().into_iter().filter(|(method, _)| *method == "POST") {
        let path = path.replace("{id}", &crate::world::uuid());
        for fields in [&[][..], &[("csrf", "0123456789abcdef0123456789abcdef")]] {
            let reply = browser.send(&path, fields, &[]).await;
            assert_eq!(reply.status, 403, "{method} {path}");
            assert!(text(&reply).contains("this form is not of a page"), "{path}");
        }
        let csrf = csrf(&browser.get("/").await);
        let foreign = [("sec-fetch-site", "cross-site".to_owned())];
        let reply = browser.send(&path, &[("csrf", &csrf)], &foreign).await;
        assert_eq!(reply.status, 403, "{method} {path} from elsewhere");
    }
    assert_eq!(browser.get("/").await.status, 200, "nothing was done: the session is still there");
    let mut other = Browser::new(&world);
    let reply = other.send("/login", &[("name", "ada"), ("password", "a long password")], &[]).await;
    assert_eq!(reply.status, 403, "a login is a form, too");
    assert!(!other.cookies.contains_key("comb_session"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_is_small_and_loads_nothing_from_elsewhere() {
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let page = browser.get("/").await;
    let markup = text(&page);
    let mut bytes = page.body.len();
    let mut loaded = 0;
    for part in markup
        .split(['"'])
        .filter(|part| part.starts_with("/assets/"))
        .collect::<std::collections::BTreeSet<_>>()
    {
        let asset = browser.get(part).await;
        assert_eq!(asset.status, 200, "{part}");
        assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(asset.headers["x-content-type-options"], "nosniff");
        bytes += asset.body.len();
        loaded += 1;
    }
    assert_eq!(loaded, 3, "style sheet, script, logo");
    assert!(bytes < 100 << 10, "{bytes}");
    println!("the first page: {bytes} bytes");
    assert!(
        !markup.contains("http://")
            && !markup.contains("https://")
            && !markup.contains(" style=")
            && !markup.contains("<style")
    );
    assert!(!markup.contains("onclick") && markup.matches("<script").count() == 1, "no inline script");
}
