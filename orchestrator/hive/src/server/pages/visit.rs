//! A browser's request: its cookies, its form, and what every form carries.
//!
//! Invariants
//! - A session's letters are in its cookie and nowhere else: the database has their hash.
//! - A form does something only with a token that is made of the very cookie that came with it.

use std::collections::BTreeMap;

use hyper::header::{COOKIE, HeaderMap, HeaderValue};
use orchestrator_api::error::{ApiError, Code};
use orchestrator_api::wire::value::Hidden;
use orchestrator_console::layout::Theme;
use orchestrator_console::link;

use super::super::chance;
use super::super::fail::Fail;

/// The cookie of a session.
const SESSION: &str = "comb_session";
/// The cookie of somebody who is not logged in: what their forms are tied to.
const DOOR: &str = "comb_door";
/// Light or dark.
const THEME: &str = "comb_theme";
const FIELDS_MAX: usize = 512;
const YEAR_S: u64 = 31_536_000;

/// What came with a request for a page.
#[derive(Debug, Clone, Default)]
pub struct Visit {
    session: Option<Hidden>,
    half: Option<Hidden>,
    door: Option<Hidden>,
    /// Who is logged in, by name.
    pub name: Option<String>,
    /// Light or dark.
    pub theme: Theme,
    /// What was filled in.
    pub form: Form,
    /// What went wrong with it.
    pub problem: Option<Box<ApiError>>,
    /// The address of the page that has that form.
    pub at: Option<String>,
    /// What the browser says it is.
    pub agent: String,
    /// Whether another site led here.
    pub is_foreign: bool,
    /// How the browser reached the hive: name or address, and port.
    host: String,
    is_secure: bool,
    new_door: bool,
}

impl Visit {
    /// Of a request's headers.
    pub fn of(headers: &HeaderMap<HeaderValue>, authority: Option<&str>, is_secure: bool) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut cookies = BTreeMap::new();
        for value in headers.get_all(COOKIE) {
            for pair in value.to_str().unwrap_or_default().split(';').take(64) {
                if let Some((name, value)) = pair.trim().split_once('=') {
                    cookies.entry(name.to_owned()).or_insert_with(|| value.to_owned());
                }
            }
        }
        let mut secret = |name: &str| {
            let value = cookies.remove(name).filter(|value| (16..=128).contains(&value.len()));
            value.and_then(|value| Hidden::new(value).ok())
        };
        let (session, door) = (secret(SESSION), secret(DOOR));
        let new_door = door.is_none();
        Self {
            session,
            door: door.or_else(|| Hidden::new(chance::token()).ok()),
            theme: cookies.get(THEME).map_or(Theme::Auto, |text| Theme::of(text)),
            agent: text("user-agent").to_owned(),
            is_foreign: !matches!(text("sec-fetch-site"), "" | "same-origin" | "none"),
            // It is put into a line for a shell: nothing but a name or an address, and a port.
            host: Some(authority.unwrap_or_else(|| text("host")))
                .filter(|host| (1..=255).contains(&host.len()))
                .filter(|host| host.bytes().all(|one| one.is_ascii_alphanumeric() || b".-:[]".contains(&one)))
                .unwrap_or("HIVE")
                .to_owned(),
            is_secure,
            new_door,
            ..Self::default()
        }
    }

    /// The letters of the session, if there are any.
    pub fn session(&self) -> Option<&str> {
        self.session.as_ref().map(Hidden::reveal)
    }

    /// Nobody is logged in: what came as a session is none, or waits for its second factor.
    pub fn is_nobody(&mut self) {
        self.half = self.session.take();
    }

    /// The letters of a session that may wait for its second factor.
    pub fn half(&self) -> Option<&str> {
        self.half.as_ref().map(Hidden::reveal)
    }

    /// The address under which the browser reached the hive.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.is_secure { "https" } else { "http" }, self.host)
    }

    /// Whether that address leads to the hive from its own machine only.
    pub fn is_loopback(&self) -> bool {
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        let name = name.trim_matches(['[', ']']);
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// What every form carries: made of the cookie, so that another site cannot know it.
    pub fn csrf(&self) -> String {
        let secret = self.session.as_ref().or(self.door.as_ref()).map_or("", Hidden::reveal);
        let key = blake3::derive_key("comb 2026-11 v1 console form", secret.as_bytes());
        blake3::Hash::from_bytes(key).to_hex()[..32].to_owned()
    }

    /// Refuses a form that is not of a page that this session saw.
    pub fn check(&self) -> Result<(), Fail> {
        let given = self.form.text("csrf");
        // Hashes are compared in a time that says nothing.
        let same = blake3::hash(given.as_bytes()) == blake3::hash(self.csrf().as_bytes());
        if same && !self.is_foreign {
            return Ok(());
        }
        Err(Fail::new(Code::FormOld, "this form is not of a page that you have open here")
            .hint("Go back, load the page again, and send the form once more."))
    }

    fn cookie(&self, name: &str, value: &str, age_s: u64) -> (&'static str, String) {
        let secure = if self.is_secure { "; Secure" } else { "" };
        ("set-cookie", format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age_s}{secure}"))
    }

    /// The cookie that begins a session.
    pub fn begin(&self, secret: &Hidden, age_s: u64) -> (&'static str, String) {
        self.cookie(SESSION, secret.reveal(), age_s)
    }

    /// The cookie that ends it.
    pub fn end(&self) -> (&'static str, String) {
        self.cookie(SESSION, "", 0)
    }

    /// The cookie of a choice of light and dark.
    pub fn choose(&self, theme: Theme) -> (&'static str, String) {
        self.cookie(THEME, theme.text(), YEAR_S)
    }

    /// The cookie that forms are tied to before a login, where there is none yet.
    pub fn door(&self) -> Option<(&'static str, String)> {
        let door = self.door.as_ref().filter(|_| self.new_door && self.session.is_none())?;
        Some(self.cookie(DOOR, door.reveal(), YEAR_S))
    }
}

/// What was filled in. Prints its fields' names only.
#[derive(Clone, Default)]
pub struct Form(Vec<(String, String)>);

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn read(bytes: &[u8]) -> Result<Self, Fail> {
        let wrong = || Fail::new(Code::BadRequest, "the form cannot be read");
        let fields = link::fields(bytes, FIELDS_MAX).ok_or_else(wrong)?;
        let text = |(name, value)| Some((name, String::from_utf8(value).ok()?));
        Ok(Self(fields.into_iter().map(text).collect::<Option<_>>().ok_or_else(wrong)?))
    }

    /// What stands in a field, or nothing.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(one, _)| one == name).map_or("", |(_, value)| value)
    }

    /// The same without blanks around it; none where nothing stands.
    pub fn maybe(&self, name: &str) -> Option<&str> {
        Some(self.text(name).trim()).filter(|text| !text.is_empty())
    }

    /// Whether a box is ticked.
    pub fn flag(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// All values of a name.
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(one, _)| one == name).map(|(_, value)| value.as_str())
    }

    /// All names that begin so, without that beginning, with their values.
    pub fn below<'f>(&'f self, start: &'f str) -> impl Iterator<Item = (&'f str, &'f str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(start)?, value.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_or_refused() {
        let form = Form::read(b"a=1+2&b=%C3%BC%26&a=3&empty=&flag&option.x=y").expect("is a form");
        assert_eq!((form.text("a"), form.text("b"), form.text("none")), ("1 2", "ü&", ""));
        assert_eq!(form.below("option.").collect::<Vec<_>>(), [("x", "y")]);
        assert_eq!((form.maybe("empty"), form.flag("flag")), (None, false));
        for wrong in [&b"a=%"[..], b"a=%4", b"a=%zz", b"a=%ff", &b"x=1&".repeat(600)] {
            assert!(Form::read(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(format!("{:?}", Form::read(b"password=secret").expect("is a form")), "[\"password\"]");
    }

    #[test]
    fn a_form_is_tied_to_its_cookie() {
        let with = |cookie: &str, form: &str, site: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", cookie.parse().expect("is a header"));
            headers.insert("sec-fetch-site", site.parse().expect("is a header"));
            Visit { form: Form::read(form.as_bytes()).expect("is a form"), ..Visit::of(&headers, None, true) }
        };
        let (one, two) = ("comb_session=aaaaaaaaaaaaaaaaaaaaaaaa", "comb_session=bbbbbbbbbbbbbbbbbbbbbbbb");
        let csrf = with(one, "", "same-origin").csrf();
        let form = format!("csrf={csrf}");
        assert!(with(one, &form, "same-origin").check().is_ok());
        assert!(with(one, &form, "cross-site").check().is_err());
        assert!(with(one, &form, "same-site").check().is_err());
        assert!(with(two, &form, "same-origin").check().is_err());
        assert!(with(one, "", "same-origin").check().is_err());
        let (_, cookie) = with(one, "", "none").end();
        assert_eq!(cookie, "comb_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0; Secure");
        assert!(!format!("{:?}", with(one, "", "none")).contains("aaaa"));
    }
}
