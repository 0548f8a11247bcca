//! WebDAV: a folder behind HTTP, as a NAS, Nextcloud or Apache offers it.
//!
//! No server keeps a condition on a PUT that could be relied on, so this is a place for copies: what is there
//! already is looked for before a create, and what a PUT left is looked at after it.
//!
//! Invariants
//! - An object that has the size it must have is never written again.
//! - A create was answered only when the server then lists the object with its size.
//! - *Absent* is said only when the folder of the URL is there.
//! - What is no object (odd names, what a server keeps for itself) is neither listed nor touched.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use quick_xml::events::Event;

use crate::http::{Answer, Client, Download, Failure, LISTING_BYTES_MAX};
use crate::memory::{not_empty, reaches, within};
use crate::netrc::{self, Login};
use crate::surroundings::{first, in_words};
use crate::url::{Place, Url};
use crate::{Abilities, Entry, Kind, Name, Prefix, Store, StoreError, Surroundings};

/// How deep a listing goes; deeper folders are somebody else's.
const DEPTH_MAX: usize = 16;

/// What is asked of a server about each object.
const ASKED: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
    <propfind xmlns=\"DAV:\"><prop><resourcetype/><getcontentlength/></prop></propfind>";

/// A store behind WebDAV.
pub(crate) struct WebDav {
    client: Client,
    /// The folder, with a slash at its end.
    root: url::Url,
    url: Url,
    login: Option<HeaderValue>,
    /// Where a login was looked for.
    looked_at: String,
}

/// The login is left out.
impl fmt::Debug for WebDav {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebDav").field("root", &self.root.as_str()).finish_non_exhaustive()
    }
}

/// What a server says is there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Object { size: u64 },
    Folder,
}

impl WebDav {
    /// The folder of such a URL. Asks nobody yet.
    pub(crate) fn open(url: &Url, around: &Surroundings) -> Result<WebDav, StoreError> {
        let Place::WebDav(root) = &url.0 else {
            return Err(StoreError::new(Kind::Refused, "open", url, "this is no WebDAV"));
        };
        let host = root.host_str().unwrap_or_default();
        let files = netrc::files(around, url);
        let counts = first(&files);
        let found = counts.map(|path| netrc::find(path, host)).transpose();
        let found = found.map_err(|why| StoreError::new(Kind::Denied, "open", url, why))?.flatten();
        let login = found.map(|login| basic(&login));
        let looked_at = match counts {
            Some(path) => format!("machine {host} in {}", path.display()),
            None if files.is_empty() => in_words(&files),
            None => format!("machine {host} in {}", in_words(&files)),
        };
        let client = Client::new().map_err(|why| StoreError::new(Kind::Refused, "open", url, why))?;
        Ok(WebDav { client, root: root.clone(), url: url.clone(), login, looked_at })
    }

    fn address(&self, path: &str) -> url::Url {
        let mut address = self.root.clone();
        // Names have no letter that a URL would escape, and the root ends with a slash.
        address.set_path(&format!("{}{path}", self.root.path()));
        address
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Option<Bytes>,
    ) -> Result<http::Response<Download>, Failure> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|error| Failure::Lost(error.to_string()))?;
            all.insert(name, value);
        }
        if let Some(body) = &body {
            all.insert(CONTENT_LENGTH, body.len().into());
        }
        if let Some(login) = &self.login {
            all.insert(AUTHORIZATION, login.clone());
        }
        self.client.send(method, self.address(path), all, VecDeque::from_iter(body)).await
    }

    /// What a failed request means.
    fn failed(&self, action: &'static str, object: &str, failure: Failure) -> StoreError {
        let (kind, hint) = match &failure {
            Failure::Lost(_) => (Kind::Unreachable, String::new()),
            Failure::Untrusted(_) => (Kind::Refused, String::new()),
            Failure::TooLarge => (Kind::Damaged, String::new()),
            Failure::Answer(answer) => self.meaning(answer),
        };
        let detail = if hint.is_empty() { failure.to_string() } else { format!("{hint} ({failure})") };
        self.error(kind, action, object, detail)
    }

    fn meaning(&self, answer: &Answer) -> (Kind, String) {
        match answer.status {
            StatusCode::UNAUTHORIZED if self.login.is_none() => {
                (Kind::Denied, format!("it wants a login, and there is none: looked at {}", self.looked_at))
            }
            StatusCode::UNAUTHORIZED => (Kind::Denied, format!("the login is wrong: {}", self.looked_at)),
            StatusCode::FORBIDDEN => (Kind::Denied, "the login may not do this".to_owned()),
            StatusCode::NOT_FOUND => (Kind::Absent, String::new()),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                (Kind::Refused, "what answers here is no WebDAV that can be written to".to_owned())
            }
            StatusCode::CONFLICT => {
                (Kind::Refused, format!("the folder {} is not there: make it", self.root))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::LOCKED => {
                (Kind::Busy, String::new())
            }
            StatusCode::INSUFFICIENT_STORAGE => (Kind::Unreachable, "the store is full".to_owned()),
            StatusCode::REQUEST_TIMEOUT => (Kind::Unreachable, String::new()),
            status if status.is_redirection() => {
                let to = answer.to.as_deref().unwrap_or("nowhere");
                (Kind::Refused, format!("it lies elsewhere: {to}; name that in the URL"))
            }
            status if status.is_server_error() => (Kind::Unreachable, String::new()),
            _ => (Kind::Refused, String::new()),
        }
    }

    fn error(&self, kind: Kind, action: &'static str, object: &str, detail: impl ToString) -> StoreError {
        let object = if object.is_empty() { "everything" } else { object };
        let detail =
            if matches!(kind, Kind::Absent | Kind::Exists) { String::new() } else { detail.to_string() };
        StoreError::new(kind, action, format_args!("{object} in {}", self.url), detail)
    }

    /// *Absent*, unless the whole folder is.
    async fn absent(&self, action: &'static str, object: &str) -> StoreError {
        match self.look("").await {
            Ok(found) if found.iter().any(|(path, _)| path.is_empty()) => {
                self.error(Kind::Absent, action, object, "")
            }
            Ok(_) | Err(Failure::Answer(Answer { status: StatusCode::NOT_FOUND, .. })) => self.error(
                Kind::Refused,
                action,
                object,
                format_args!("the folder {} is not there: make it, or name another in the URL", self.root),
            ),
            Err(failure) => self.failed(action, object, failure),
        }
    }

    /// What is at a path, a folder's with a slash at its end, and right below it.
    async fn look(&self, path: &str) -> Result<Vec<(String, Found)>, Failure> {
        let depth = if path.is_empty() || path.ends_with('/') { "1" } else { "0" };
        let method = Method::from_bytes(b"PROPFIND").expect("letters are a method");
        let headers = [(HeaderName::from_static("depth"), depth), (CONTENT_TYPE, "application/xml")];
        let answer = self.send(method, path, &headers, Some(Bytes::from_static(ASKED.as_bytes()))).await?;
        let status = answer.status();
        let body = answer.into_body().whole(LISTING_BYTES_MAX).await?;
        if status != StatusCode::MULTI_STATUS {
            let message = "this is no answer of WebDAV".to_owned();
            return Err(Failure::Answer(Answer {
                status: StatusCode::METHOD_NOT_ALLOWED,
                code: String::new(),
                message,
                to: None,
            }));
        }
        let found =
            listed(&body).map_err(|why| Failure::Lost(format!("its listing cannot be read: {why}")))?;
        Ok(found.into_iter().filter_map(|(link, found)| Some((self.below(&link)?, found))).collect())
    }

    /// The path below the root that a link of an answer means, without slashes at its end.
    fn below(&self, link: &str) -> Option<String> {
        let address = self.root.join(link).ok()?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
        // Only the path counts: behind a proxy, a server may not know its own name.
        let (path, root) = (decoded(address.path())?, decoded(self.root.path())?);
        if path.trim_end_matches('/') == root.trim_end_matches('/') {
            return Some(String::new());
        }
        Some(path.strip_prefix(&root)?.trim_end_matches('/').to_owned())
    }

    /// The size of an object, if there is one.
    async fn size(&self, action: &'static str, name: &Name) -> Result<Option<u64>, StoreError> {
        match self.look(name.as_str()).await {
            Ok(found) => match found.into_iter().find(|(path, _)| path == name.as_str()) {
                Some((_, Found::Object { size })) => Ok(Some(size)),
                Some((_, Found::Folder)) => {
                    Err(self.error(Kind::Refused, action, name.as_str(), "it is a folder, no object"))
                }
                None => Ok(None),
            },
            Err(Failure::Answer(answer)) if answer.status == StatusCode::NOT_FOUND => Ok(None),
            Err(failure) => Err(self.failed(action, name.as_str(), failure)),
        }
    }

    /// Makes the folders that a name needs, from the first that is missing on; never the root.
    async fn make_folders(&self, name: &Name) -> Result<(), StoreError> {
        let method = Method::from_bytes(b"MKCOL").expect("letters are a method");
        for (at, _) in name.as_str().match_indices('/') {
            match self.send(method.clone(), &name.as_str()[..=at], &[], None).await {
                Ok(_) => {}
                // It is there, or somebody makes it right now, which Apache forbids; what follows will tell.
                Err(Failure::Answer(answer))
                    if matches!(answer.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::FORBIDDEN) => {}
                Err(failure) => return Err(self.failed("create", name.as_str(), failure)),
            }
        }
        Ok(())
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<(), Failure> {
        let headers = [(CONTENT_TYPE, "application/octet-stream")];
        self.send(Method::PUT, name.as_str(), &headers, Some(bytes)).await.map(|_| ())
    }

    /// What is right below a folder, in the order of names from behind; nothing if it is not there.
    async fn inside(&self, folder: &str) -> Result<Vec<(String, Found)>, StoreError> {
        let inside = match self.look(folder).await {
            Ok(inside) => inside,
            Err(Failure::Answer(answer)) if answer.status == StatusCode::NOT_FOUND => {
                // Nothing was created below it, or it was removed while we walked.
                let error = self.absent("list", folder).await;
                return if error.kind() == Kind::Absent { Ok(Vec::new()) } else { Err(error) };
            }
            Err(failure) => return Err(self.failed("list", folder, failure)),
        };
        let right_below = |path: &str| path.strip_prefix(folder).is_some_and(|rest| !rest.contains('/'));
        let mut inside: Vec<_> = inside
            .into_iter()
            .filter(|(path, _)| right_below(path) && Name::new(path.as_str()).is_ok())
            // With its slash, a folder stands where the names below it stand.
            .map(|(path, found)| (if found == Found::Folder { path + "/" } else { path }, found))
            .collect();
        inside.sort_unstable_by(|one, other| other.0.cmp(&one.0));
        Ok(inside)
    }
}

/// The header that tells a login.
fn basic(login: &Login) -> HeaderValue {
    let text = BASE64_STANDARD.encode(format!("{}:{}", login.name, login.password));
    let mut value =
        HeaderValue::from_str(&format!("Basic {text}")).expect("base64 has letters of a header only");
    value.set_sensitive(true);
    value
}

/// The links of a listing, with what is there. Takes what it knows, and leaves out what it does not.
fn listed(body: &[u8]) -> Result<Vec<(String, Found)>, quick_xml::Error> {
    let mut reader = quick_xml::Reader::from_reader(body);
    let mut found = Vec::new();
    let (mut link, mut size, mut folder) = (String::new(), None, false);
    // The element whose text is being read.
    let mut inside = Vec::new();
    loop {
        match reader.read_event()? {
            Event::Start(element) => {
                inside = element.local_name().as_ref().to_vec();
                match inside.as_slice() {
                    b"response" => (link, size, folder) = (String::new(), None, false),
                    b"collection" => folder = true,
                    _ => {}
                }
            }
            Event::Empty(element) => folder |= element.local_name().as_ref() == b"collection",
            Event::Text(text) if inside == b"href" => link.push_str(&text.decode().unwrap_or_default()),
            // `&amp;` in a link; no object of ours has one.
            Event::GeneralRef(_) if inside == b"href" => link.push('\u{fffd}'),
            Event::Text(text) if inside == b"getcontentlength" => {
                size = text.decode().ok().and_then(|text| text.trim().parse().ok());
            }
            Event::End(element) => {
                inside.clear();
                if element.local_name().as_ref() == b"response" && !link.is_empty() {
                    let link = std::mem::take(&mut link).trim().to_owned();
                    match (folder, size) {
                        (true, _) => found.push((link, Found::Folder)),
                        (false, Some(size)) => found.push((link, Found::Object { size })),
                        (false, None) => {}
                    }
                }
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

#[async_trait]
impl Store for WebDav {
    fn abilities(&self) -> Abilities {
        Abilities { create_if_absent: false }
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        let size = bytes.len() as u64;
        if self.size("create", name).await? == Some(size) {
            return Err(self.error(Kind::Exists, "create", name.as_str(), ""));
        }
        // None, or what a PUT left that did not come to its end.
        match self.put(name, bytes.clone()).await {
            Err(Failure::Answer(answer))
                if matches!(answer.status, StatusCode::CONFLICT | StatusCode::NOT_FOUND)
                    && name.as_str().contains('/') =>
            {
                self.make_folders(name).await?;
                self.put(name, bytes).await
            }
            other => other,
        }
        .map_err(|failure| match self.failed("create", name.as_str(), failure) {
            // No folder to put it into.
            error if error.kind() == Kind::Absent => self.error(
                Kind::Refused,
                "create",
                name.as_str(),
                format_args!("the folder {} is not there: make it, or name another in the URL", self.root),
            ),
            error => error,
        })?;
        match self.size("create", name).await? {
            Some(found) if found == size => Ok(()),
            Some(found) => {
                let what = format_args!("{found} bytes are there of {size}");
                Err(self.error(Kind::Unreachable, "create", name.as_str(), what))
            }
            None => Err(self.error(Kind::Unreachable, "create", name.as_str(), "it is not there")),
        }
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        let answer = self.download(name, &[]).await?;
        let announced = announced(answer.headers());
        if let Some(size) = announced {
            within(name, size, limit)?;
        }
        // One more byte would be seen as too many.
        let most = limit.min(announced.unwrap_or(limit)).try_into().unwrap_or(usize::MAX);
        match answer.into_body().whole(most).await {
            Ok(bytes) => Ok(bytes),
            Err(Failure::TooLarge) => {
                let what = format_args!("more bytes than the {limit} that may be");
                Err(self.error(Kind::Damaged, "get", name.as_str(), what))
            }
            Err(failure) => Err(self.failed("get", name.as_str(), failure)),
        }
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        not_empty(name, &range)?;
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = self.download(name, &[(RANGE, &asked)]).await?;
        let size = range.end - range.start;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            let what = "the server gives whole objects only, and no ranges";
            return Err(self.error(Kind::Refused, "get", name.as_str(), what));
        }
        let given = answer.headers().get(CONTENT_RANGE).and_then(|given| given.to_str().ok());
        let (first, total) = given.and_then(content_range).ok_or_else(|| {
            self.error(Kind::Damaged, "get", name.as_str(), "a range came back that does not say which")
        })?;
        reaches(name, total, &range)?;
        let most = size.try_into().unwrap_or(usize::MAX);
        match answer.into_body().whole(most).await {
            Ok(bytes) if bytes.len() as u64 == size && first == range.start => Ok(bytes),
            Ok(bytes) => {
                let what = format_args!("{} bytes came from {first} on", bytes.len());
                Err(self.error(Kind::Damaged, "get", name.as_str(), what))
            }
            Err(Failure::TooLarge) => {
                Err(self.error(Kind::Damaged, "get", name.as_str(), "more came back than the range"))
            }
            Err(failure) => Err(self.failed("get", name.as_str(), failure)),
        }
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        let deepest = prefix.as_str().matches('/').count() + DEPTH_MAX;
        // What is still to be seen, the next at the end.
        let mut rest = vec![(prefix.as_str().to_owned(), Found::Folder)];
        while let Some((path, what)) = rest.pop()
            && found.len() < limit
        {
            let passed = |after: &Name| path.as_str() <= after.as_str();
            match what {
                Found::Object { size } if !after.is_some_and(passed) => {
                    let name = Name::new(path).expect("it was looked at when its folder was read");
                    found.push(Entry { name, size });
                }
                Found::Folder
                    if path.matches('/').count() <= deepest
                        && !after
                            .is_some_and(|after| passed(after) && !after.as_str().starts_with(&path)) =>
                {
                    rest.extend(self.inside(&path).await?);
                }
                Found::Object { .. } | Found::Folder => {}
            }
        }
        Ok(found)
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        // A folder would go with all that is in it.
        if self.size("remove", name).await?.is_none() {
            let error = self.absent("remove", name.as_str()).await;
            return if error.kind() == Kind::Absent { Ok(()) } else { Err(error) };
        }
        match self.send(Method::DELETE, name.as_str(), &[], None).await {
            Ok(_) => Ok(()),
            Err(Failure::Answer(answer)) if answer.status == StatusCode::NOT_FOUND => Ok(()),
            Err(failure) => Err(self.failed("remove", name.as_str(), failure)),
        }
    }
}

impl WebDav {
    async fn download(
        &self,
        name: &Name,
        headers: &[(HeaderName, &str)],
    ) -> Result<http::Response<Download>, StoreError> {
        match self.send(Method::GET, name.as_str(), headers, None).await {
            Ok(answer) => Ok(answer),
            // Asked for a folder, servers redirect, list it, or say that this cannot be.
            Err(Failure::Answer(answer))
                if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
                    || answer.to.as_ref().is_some_and(|to| to.ends_with(&format!("{name}/"))) =>
            {
                Err(self.absent("get", name.as_str()).await)
            }
            Err(Failure::Answer(answer)) if answer.status == StatusCode::RANGE_NOT_SATISFIABLE => {
                Err(self.error(Kind::Damaged, "get", name.as_str(), "the object is shorter"))
            }
            Err(failure) => Err(self.failed("get", name.as_str(), failure)),
        }
    }
}

/// How many bytes an answer says that it has.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The first byte and the size of the whole, as in `bytes 3-6/10`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_several_servers_are_read() {
        let apache = br#"<?xml version="1.0" encoding="utf-8"?>
            <D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">
            <D:response xmlns:lp1="DAV:"><D:href>/dav/a/</D:href><D:propstat><D:prop>
            <lp1:resourcetype><D:collection/></lp1:resourcetype></D:prop>
            <D:status>HTTP/1.1 200 OK</D:status></D:propstat><D:propstat><D:prop><D:getcontentlength/></D:prop>
            <D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>
            <D:response><D:href>/dav/a/one</D:href><D:propstat><D:prop><lp1:resourcetype/>
            <lp1:getcontentlength>17</lp1:getcontentlength></D:prop></D:propstat></D:response>
            </D:multistatus>"#;
        let nginx = br#"<?xml version="1.0" encoding="utf-8" ?><D:multistatus xmlns:D="DAV:"><D:response>
            <D:href>http://host/dav/a%2Db</D:href><D:propstat><D:prop><D:getcontentlength> 0 </D:getcontentlength>
            <D:resourcetype></D:resourcetype></D:prop></D:propstat></D:response></D:multistatus>"#;
        let read = |body: &[u8]| listed(body).expect("it is read");
        assert_eq!(
            read(apache),
            [("/dav/a/".to_owned(), Found::Folder), ("/dav/a/one".to_owned(), Found::Object { size: 17 })]
        );
        assert_eq!(read(nginx), [("http://host/dav/a%2Db".to_owned(), Found::Object { size: 0 })]);
        assert_eq!(read(b"<html><body>Not Found</body></html>"), []);
        for broken in [&b"<a><b></a>"[..], b"<a", b"<![CDATA["] {
            assert!(listed(broken).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn a_range_says_which_it_is() {
        assert_eq!(content_range("bytes 3-6/10"), Some((3, 10)));
        for odd in ["", "bytes */10", "bytes 3-6/*", "3-6/10", "bytes 3/10"] {
            assert_eq!(content_range(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_login_is_not_shown() {
        let around = Surroundings::default();
        let url: Url = "https://nas.example/dav".parse().expect("a URL");
        let mut store = WebDav::open(&url, &around).expect("opened");
        store.login = Some(basic(&Login { name: "me".to_owned(), password: "hunter2".to_owned() }));
        assert!(!format!("{store:?}").contains("Basic"));
        let answer = Answer {
            status: StatusCode::UNAUTHORIZED,
            code: String::new(),
            message: String::new(),
            to: None,
        };
        let error = store.failed("get", "v/id", Failure::Answer(answer));
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.to_string().contains("v/id in https://nas.example/dav/"), "{error}");
    }
}
