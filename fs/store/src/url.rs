//! How a person names a store: `s3://bucket/prefix?endpoint=…` and the like.
//!
//! Invariants
//! - A URL holds no secret: what would be one is refused, and not repeated in the error.
//! - Its text is canonical: two URLs of the same text are the same store, and it can be kept and read again.

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// Where kubo listens for its RPC, if nobody says otherwise.
const KUBO_PORT: u16 = 5001;
/// The most bytes of what stands before an object's name in a bucket: S3 ends at 1,024 for both.
const PREFIX_BYTES_MAX: usize = 500;

/// The name of a store. Its text is canonical and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url(pub(crate) Place);

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    S3 {
        bucket: String,
        prefix: String,
        endpoint: Option<String>,
        region: Option<String>,
    },
    Gcs {
        bucket: String,
        prefix: String,
        endpoint: Option<String>,
    },
    Azure {
        container: String,
        prefix: String,
        account: Option<String>,
        endpoint: Option<String>,
    },
    Folder(PathBuf),
    /// Ends with a slash.
    WebDav(url::Url),
    Memory(String),
    Ipfs {
        /// With its port.
        host: String,
        /// A remote pinning service, as the node calls it.
        pin: Option<String>,
    },
}

/// Why a text is no URL of a store, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

/// What can be given, for errors.
const KNOWN: &str = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///FOLDER, https://HOST/FOLDER (WebDAV), ipfs://HOST:PORT (the RPC of kubo)";

fn bad<T>(what: impl Into<String>) -> Result<T, BadUrl> {
    Err(BadUrl(what.into()))
}

impl Url {
    /// Whether the store is found by the key of a volume, and so holds nothing but that volume.
    pub fn is_of_one_volume(&self) -> bool {
        matches!(self.0, Place::Ipfs { .. })
    }

    /// The folder that the store is, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.0 {
            Place::Folder(path) => Some(path),
            _ => None,
        }
    }

    /// Where, in a folder for that, the file with the credentials of this store alone lies; none if stores of its kind read
    /// none from a file. `fs/docs/replication.md` says in section 2 how it is named.
    pub fn credentials_in(&self, folder: &Path) -> Option<PathBuf> {
        match &self.0 {
            Place::S3 { .. } | Place::Gcs { .. } | Place::WebDav(_) => {
                Some(folder.join(&blake3::hash(self.to_string().as_bytes()).to_hex()[..16]))
            }
            Place::Azure { .. } | Place::Folder(_) | Place::Memory(_) | Place::Ipfs { .. } => None,
        }
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Url, BadUrl> {
        let text = text.trim();
        let Some((scheme, _)) = text.split_once("://") else {
            return bad(format!("a store is named by a URL: {KNOWN}"));
        };
        let scheme = scheme.to_ascii_lowercase();
        // The text itself is not told: it may hold a password in a place where nobody would look for one.
        let url =
            url::Url::parse(text).map_err(|error| BadUrl(format!("this is no URL of a store: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return bad(format!(
                "a URL of a store holds no user and no password; {}",
                login_belongs(&scheme)
            ));
        }
        if url.fragment().is_some() {
            return bad("a URL of a store has no '#'; write it as %23 if it is part of a name");
        }
        // The parser has resolved them by now, and so does whoever is given the name of an object: nobody could tell what was meant.
        if parts_of_path(text).any(|part| matches!(&*part, "." | "..")) {
            return bad("the path of such a URL has no '.' and no '..': write where it leads");
        }
        match scheme.as_str() {
            "s3" => {
                let [endpoint, region] = parameters(&url, ["endpoint", "region"])?;
                let (bucket, prefix) = bucket(&url)?;
                let region = region.map(|region| word("region", region)).transpose()?;
                let endpoint = endpoint.map(endpoint_of).transpose()?;
                Ok(Url(Place::S3 { bucket, prefix, endpoint, region }))
            }
            "gs" => {
                let [endpoint] = parameters(&url, ["endpoint"])?;
                let (bucket, prefix) = bucket(&url)?;
                Ok(Url(Place::Gcs { bucket, prefix, endpoint: endpoint.map(endpoint_of).transpose()? }))
            }
            "az" => {
                let [account, endpoint] = parameters(&url, ["account", "endpoint"])?;
                let (container, prefix) = bucket(&url)?;
                let account = account.map(|account| word("account", account)).transpose()?;
                let endpoint = endpoint.map(endpoint_of).transpose()?;
                Ok(Url(Place::Azure { container, prefix, account, endpoint }))
            }
            "file" => {
                let [] = parameters(&url, [])?;
                folder(&url)
            }
            "http" | "https" => {
                let [] = parameters(&url, [])?;
                web(url)
            }
            "memory" => {
                let [] = parameters(&url, [])?;
                let name = host(&url, "memory://NAME")?;
                match url.path() {
                    "" | "/" => Ok(Url(Place::Memory(name))),
                    _ => bad("a store in memory has a name only: memory://NAME"),
                }
            }
            "ipfs" => {
                let [pin] = parameters(&url, ["pin"])?;
                let pin = pin.map(|pin| word("pin", pin)).transpose()?;
                Ok(Url(Place::Ipfs { host: node(&url)?, pin }))
            }
            other => bad(format!("{other}:// names no kind of store; there are {KNOWN}")),
        }
    }
}

/// The parts of a URL's path as somebody wrote them, decoded.
fn parts_of_path(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    path.split(['/', '\\']).skip(1).map(|part| percent_decode_str(part).decode_utf8_lossy())
}

fn login_belongs(scheme: &str) -> &'static str {
    match scheme {
        "s3" => "the key belongs into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
        "http" | "https" => "they belong into ~/.netrc: machine HOST login NAME password WORD",
        "gs" => "GOOGLE_APPLICATION_CREDENTIALS names the file with the key",
        "az" => "the key belongs into AZURE_STORAGE_KEY",
        _ => "this kind needs none",
    }
}

/// The values of the parameters that this kind knows, none of them twice, and no others.
fn parameters<const N: usize>(url: &url::Url, known: [&str; N]) -> Result<[Option<String>; N], BadUrl> {
    let mut values = [const { None }; N];
    for (name, value) in url.query_pairs() {
        let Some(at) = known.iter().position(|known| *known == name) else {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            // A value may be a secret that somebody tried to give.
            return bad(format!("there is no parameter {name:?} in such a URL; there are: {known}"));
        };
        if value.is_empty() {
            return bad(format!("the parameter {name} is empty"));
        }
        if values[at].replace(value.into_owned()).is_some() {
            return bad(format!("the parameter {name} is given twice"));
        }
    }
    Ok(values)
}

fn host(url: &url::Url, form: &str) -> Result<String, BadUrl> {
    if url.port().is_some() {
        return bad(format!(
            "there is no port in {form}; an endpoint is a parameter: ?endpoint=https://HOST:PORT"
        ));
    }
    match url.host_str() {
        Some(host) if !host.is_empty() => word("name", host.to_owned()),
        _ => bad(format!("the name after {}:// is missing: {form}", url.scheme())),
    }
}

/// The host and port of a node's RPC.
fn node(url: &url::Url) -> Result<String, BadUrl> {
    let form = "the RPC of a node is named as in ipfs://127.0.0.1:5001";
    if !matches!(url.path(), "" | "/") {
        return bad(format!("{form}, without a path"));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else { return bad(form) };
    let http = url::Url::parse(&format!("http://{host}:{}/", url.port().unwrap_or(KUBO_PORT)));
    let Ok(http) = http else { return bad(form) };
    let host = http.host_str().unwrap_or_default();
    Ok(format!("{host}:{}", http.port().unwrap_or(80)))
}

/// A bucket and what stands before the names of objects in it: nothing, or parts with a slash after each.
fn bucket(url: &url::Url) -> Result<(String, String), BadUrl> {
    let name = host(url, &format!("{}://BUCKET/PREFIX", url.scheme()))?;
    let path = percent_decode_str(url.path()).decode_utf8();
    let path = path.map_err(|_| BadUrl("the prefix is no text in UTF-8".to_owned()))?;
    let prefix = path.trim_matches('/');
    if prefix.is_empty() {
        return Ok((name, String::new()));
    }
    if prefix.len() > PREFIX_BYTES_MAX {
        return bad(format!("the prefix has {} bytes, of which {PREFIX_BYTES_MAX} may be", prefix.len()));
    }
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "-_.=+@,:!$&'()".contains(letter);
    for part in prefix.split('/') {
        if part.is_empty() || part == "." || part == ".." || !part.chars().all(letter) {
            return bad(format!(
                "the prefix {prefix:?} has a part that not every tool for buckets keeps as it is: \
                 letters, digits and - _ . = + @ , : are safe"
            ));
        }
    }
    Ok((name, format!("{prefix}/")))
}

/// A name of somebody's making that goes into a request.
fn word(what: &str, text: String) -> Result<String, BadUrl> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match text.len() <= 255 && text.bytes().all(letter) {
        true => Ok(text),
        false => bad(format!("{text:?} is no {what}: letters, digits, '-', '_' and '.' only")),
    }
}

/// An endpoint, without the slash at its end.
fn endpoint_of(text: String) -> Result<String, BadUrl> {
    let form = "the parameter endpoint is a URL as in https://s3.example.com or http://127.0.0.1:9000";
    let Ok(url) = url::Url::parse(&text) else { return bad(form) };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return bad(form);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("an endpoint holds no user and no password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return bad("an endpoint has no '?' and no '#'");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn folder(url: &url::Url) -> Result<Url, BadUrl> {
    let form = "a folder is named from the root, with three slashes: file:///mnt/backup";
    let Ok(path) = url.to_file_path() else { return bad(form) };
    if path.components().count() < 2 {
        return bad("the root of this machine is no place for a store; name a folder: file:///mnt/backup");
    }
    if path.components().any(|part| matches!(part, Component::ParentDir)) || path.to_str().is_none() {
        return bad(form);
    }
    // Without slashes at the end or twice.
    Ok(Url(Place::Folder(path.components().collect())))
}

fn web(mut url: url::Url) -> Result<Url, BadUrl> {
    if url.host_str().is_none_or(str::is_empty) {
        return bad("the host is missing: https://HOST/FOLDER");
    }
    let parts: Vec<String> = url
        .path_segments()
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    url.set_path(&parts.iter().map(|part| format!("/{part}")).chain(["/".to_owned()]).collect::<String>());
    Ok(Url(Place::WebDav(url)))
}

/// The canonical text.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parameters: Vec<(&str, &str)> = Vec::new();
        match &self.0 {
            Place::S3 { bucket, prefix, endpoint, region } => {
                write!(f, "s3://{bucket}/{prefix}")?;
                parameters.extend(endpoint.as_deref().map(|value| ("endpoint", value)));
                parameters.extend(region.as_deref().map(|value| ("region", value)));
            }
            Place::Gcs { bucket, prefix, endpoint } => {
                write!(f, "gs://{bucket}/{prefix}")?;
                parameters.extend(endpoint.as_deref().map(|value| ("endpoint", value)));
            }
            Place::Azure { container, prefix, account, endpoint } => {
                write!(f, "az://{container}/{prefix}")?;
                parameters.extend(account.as_deref().map(|value| ("account", value)));
                parameters.extend(endpoint.as_deref().map(|value| ("endpoint", value)));
            }
            Place::Folder(path) => {
                let url = url::Url::from_file_path(path).expect("it was made from the path of such a URL");
                return write!(f, "{url}");
            }
            Place::WebDav(url) => return write!(f, "{url}"),
            Place::Ipfs { host, pin } => {
                write!(f, "ipfs://{host}")?;
                parameters.extend(pin.as_deref().map(|value| ("pin", value)));
            }
            Place::Memory(name) => return write!(f, "memory://{name}"),
        }
        for (at, (name, value)) in parameters.into_iter().enumerate() {
            // What would end the value early; a person should still be able to read an endpoint.
            let value = value.replace('%', "%25").replace('&', "%26").replace('+', "%2B");
            write!(f, "{}{name}={value}", if at == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// Whether a path is one that a URL of a folder can hold, for those who make one.
impl TryFrom<&Path> for Url {
    type Error = BadUrl;

    fn try_from(path: &Path) -> Result<Url, BadUrl> {
        let Ok(url) = url::Url::from_file_path(path) else {
            return bad("a folder is named from the root, as in /mnt/backup");
        };
        folder(&url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        let url: Url = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let canonical = url.to_string();
        assert_eq!(canonical.parse(), Ok(url), "{canonical} means the same");
        canonical
    }

    #[test]
    fn the_text_is_canonical() {
        for (text, same) in [
            ("s3://photos", "s3://photos/"),
            ("S3://photos/", "s3://photos/"),
            ("s3://photos//a/b//", "s3://photos/a/b/"),
            ("s3://Photos_1.old/a/b", "s3://Photos_1.old/a/b/"),
            ("s3://p/a%3Db/?region=eu-west-1", "s3://p/a=b/?region=eu-west-1"),
            (
                "s3://p?region=x&endpoint=http://127.0.0.1:9000/",
                "s3://p/?endpoint=http://127.0.0.1:9000&region=x",
            ),
            (
                "s3://p?endpoint=https%3A%2F%2FS3.example.com%2Fpath%2F",
                "s3://p/?endpoint=https://s3.example.com/path",
            ),
            ("gs://b/x", "gs://b/x/"),
            ("az://c/x?account=me", "az://c/x/?account=me"),
            ("file:///mnt//nas/", "file:///mnt/nas"),
            ("file:///mnt/a%20b/%C3%A9", "file:///mnt/a%20b/%C3%A9"),
            ("https://nas.example/dav//comb", "https://nas.example/dav/comb/"),
            ("HTTPS://NAS.example:443", "https://nas.example/"),
            ("http://[::1]:8080/a%20b/", "http://[::1]:8080/a%20b/"),
            ("ipfs://127.0.0.1:5001/", "ipfs://127.0.0.1:5001"),
            ("IPFS://Node.example", "ipfs://node.example:5001"),
            ("ipfs://[::1]:80?pin=mine", "ipfs://[::1]:80?pin=mine"),
            ("memory://one", "memory://one"),
            ("  memory://one\n", "memory://one"),
        ] {
            assert_eq!(canonical(text), same);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("", "s3://BUCKET"),
            ("/mnt/nas", "file:///FOLDER"),
            ("photos", "s3://BUCKET"),
            ("ftp://x/y", "ftp://"),
            ("s3:///prefix", "s3://BUCKET/PREFIX"),
            ("s3://", "s3://BUCKET/PREFIX"),
            ("s3://photos:9000/x", "?endpoint="),
            ("s3://photos?bucket=x", "endpoint, region"),
            ("s3://photos?region=", "region is empty"),
            ("s3://photos?region=a&region=b", "twice"),
            ("s3://photos?region=a/b", "region"),
            ("s3://photos?endpoint=127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("s3://photos?endpoint=ftp://x", "endpoint"),
            ("s3://photos?endpoint=https://x?y=z", "'?'"),
            ("s3://photos/#a", "%23"),
            ("s3://photos/a%20b", "letters"),
            ("s3://photos/a//b", "letters"),
            ("s3://photos/a/../b", "no '..'"),
            ("s3://photos/..", "no '..'"),
            ("s3://photos/./b", "no '..'"),
            ("s3://photos/a/%2e%2E/b", "no '..'"),
            ("gs://b/../x", "no '..'"),
            ("az://c/x/..?account=me", "no '..'"),
            ("file:///mnt/../nas", "no '..'"),
            ("https://nas.example/dav/../x", "no '..'"),
            ("s3://photos/%ff", "UTF-8"),
            ("gs://b?region=x", "endpoint"),
            ("file://nas/share", "three slashes"),
            ("file:///", "root"),
            ("file:///x?y=z", "none"),
            ("https://nas/?x=y", "none"),
            ("memory://", "NAME"),
            ("memory://a/b", "memory://NAME"),
            ("ipfs://", "ipfs://127.0.0.1:5001"),
            ("ipfs:///x", "ipfs://127.0.0.1:5001"),
            ("ipfs://127.0.0.1:5001/x", "without a path"),
            ("ipfs://node:5001?token=x", "pin"),
            ("ipfs://node:5001?pin=a/b", "pin"),
        ] {
            match text.parse::<Url>() {
                Ok(url) => panic!("{text} is {url}"),
                Err(error) => assert!(error.to_string().contains(says), "{text}: {error}"),
            }
        }
        let long = format!("s3://photos/{}", "x".repeat(PREFIX_BYTES_MAX + 1));
        assert!(long.parse::<Url>().is_err());
    }

    #[test]
    fn a_secret_is_refused_and_not_repeated() {
        for text in [
            "s3://AKIA:hunter2@photos/x",
            "s3://hunter2@photos/x",
            "https://me:hunter2@nas.example/dav",
            "s3://photos?secret_key=hunter2",
            "s3://photos?endpoint=https://me:hunter2@x",
            "az://c?sas=hunter2",
            "https://me:hunter2@/",
            "https://me:hunter2@nas:port/",
        ] {
            let Err(error) = text.parse::<Url>() else { panic!("{text}") };
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let Err(error) = "https://me:hunter2@nas.example/dav".parse::<Url>() else { panic!("a password") };
        assert!(error.to_string().contains("~/.netrc"), "{error}");
    }

    #[test]
    fn each_store_has_a_file_for_its_credentials() {
        let file = |text: &str| text.parse::<Url>().expect("a URL").credentials_in(Path::new("/f"));
        // As `printf %s s3://bucket/comb/ | b3sum` begins.
        assert_eq!(file("s3://bucket/comb"), Some("/f/7c1e519dcd167104".into()));
        let others = ["s3://bucket/comb?endpoint=https://nas:9000", "gs://bucket/comb", "https://nas/dav"];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(file(other), file("s3://bucket/comb"));
            assert!(
                file(other).is_some() && others[..at].iter().all(|one| file(one) != file(other)),
                "{other}"
            );
        }
        for none in ["file:///mnt/nas", "az://c?account=me", "ipfs://127.0.0.1:5001", "memory://m"] {
            assert_eq!(file(none), None, "{none}");
        }
    }

    #[test]
    fn a_path_has_a_url() {
        let url = Url::try_from(Path::new("/mnt/a b")).map(|url| url.to_string());
        assert_eq!(url, Ok("file:///mnt/a%20b".to_owned()));
        assert!(Url::try_from(Path::new("mnt")).is_err());
        assert!(Url::try_from(Path::new("/")).is_err());
    }
}
