//! What odd servers answer, and what is made of it. Each is a few bytes that a thread says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fs_store::{Kind, Name, Patience, Patient, Prefix, STORE_CREDENTIALS, Store, Surroundings, Url, open};

/// A bucket at a server that says this to everybody, once it has heard the whole request.
async fn bucket(says: impl Fn(&mut TcpStream) + Send + 'static) -> Arc<dyn Store> {
    let url = format!("s3://b/x?endpoint=http://{}", server(move |stream, _| says(stream)));
    let keys = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "hidden")];
    let keys = keys.map(|(name, value)| (name.to_owned(), value.to_owned()));
    open(&url.parse().expect("a URL"), &Surroundings::new(keys, None)).await.expect("opened")
}

/// A server that answers each request by its head, once it has heard the whole.
fn server(says: impl Fn(&mut TcpStream, &str) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let head = hear(&stream);
            says(&mut stream, &head);
        }
    });
    address
}

fn hear(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut line, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|size| size > 2) {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        head.push_str(&line);
        line.clear();
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).expect("heard");
    head
}

async fn answering(answer: &str) -> Arc<dyn Store> {
    let answer = answer.to_owned();
    bucket(move |stream| {
        let _ = stream.write_all(answer.as_bytes());
    })
    .await
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn code(code: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>in many\n words</Message></Error>")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_is_done_or_says_why_not() {
    for (status, body, kind, says) in [
        ("412 Precondition Failed", code("PreconditionFailed"), Kind::Exists, "already"),
        ("409 Conflict", code("ConditionalRequestConflict"), Kind::Busy, "in many words"),
        ("503 Slow Down", code("SlowDown"), Kind::Busy, "503"),
        ("500 Internal Server Error", code("InternalError"), Kind::Unreachable, "InternalError"),
        ("404 Not Found", "<html>nothing</html>".to_owned(), Kind::Refused, "endpoint"),
        ("404 Not Found", code("NoSuchBucket"), Kind::Refused, "make it"),
        ("301 Moved Permanently", code("PermanentRedirect"), Kind::Refused, "region"),
        ("403 Forbidden", String::new(), Kind::Denied, "403"),
        ("501 Not Implemented", code("NotImplemented"), Kind::Refused, "If-None-Match"),
        ("507 Insufficient Storage", String::new(), Kind::Unreachable, "full"),
    ] {
        let store = answering(&answer(status, "", &body)).await;
        let error = store.create(&name("v/id"), "bytes".into()).await.expect_err(status);
        assert_eq!(error.kind(), kind, "{error}");
        for words in [says, "create v/id in s3://b/x/?endpoint=http://127.0.0.1"] {
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
    let store = answering(&answer("200 OK", "ETag: \"1\"\r\n", "")).await;
    assert_eq!(store.create(&name("v/id"), "bytes".into()).await, Ok(()));
    // Done or not, nobody knows.
    for odd in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "nonsense\r\n\r\n"]
    {
        let error = answering(odd).await.create(&name("v/id"), "bytes".into()).await.expect_err(odd);
        assert_eq!(error.kind(), Kind::Unreachable, "{odd:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_whole_or_an_error() {
    let get = async |answer: String| answering(&answer).await.get(&name("v/id"), 100).await;
    assert_eq!(get(answer("200 OK", "", "whole")).await, Ok("whole".into()));
    let kind = async |answer| get(answer).await.expect_err("it is wrong").kind();
    assert_eq!(kind("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nhalf".to_owned()).await, Kind::Unreachable);
    // The length says so before a byte of it is read.
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n".to_owned();
    assert_eq!(kind(long).await, Kind::Damaged);
    assert_eq!(kind(answer("404 Not Found", "", &code("NoSuchKey"))).await, Kind::Absent);
    assert_eq!(kind(answer("404 Not Found", "", "Not here!")).await, Kind::Refused);

    let range = async |answer: String| answering(&answer).await.get_range(&name("v/id"), 2..6).await;
    let right = answer("206 Partial Content", "Content-Range: bytes 2-5/10\r\n", "2345");
    assert_eq!(range(right).await, Ok("2345".into()));
    for wrong in [
        answer("200 OK", "", "0123456789"),
        answer("206 Partial Content", "Content-Range: bytes 2-4/5\r\n", "234"),
        answer("206 Partial Content", "Content-Range: bytes 0-3/10\r\n", "0123"),
        answer("206 Partial Content", "", "2345"),
        answer("206 Partial Content", "Content-Range: bytes 2-5/10\r\n", "23"),
        answer("416 Range Not Satisfiable", "", &code("InvalidRange")),
    ] {
        assert_eq!(range(wrong.clone()).await.expect_err("it is wrong").kind(), Kind::Damaged, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_in_order_or_an_error() {
    let page = |names: &[&str]| {
        let one = |name: &&str| {
            format!(
                "<Contents><Key>x/{name}</Key><Size>1</Size><LastModified>2026-11-21T00:00:00Z</LastModified>\
                 <ETag>\"1\"</ETag></Contents>"
            )
        };
        let names: String = names.iter().map(one).collect();
        answer("200 OK", "", &format!("<ListBucketResult>{names}</ListBucketResult>"))
    };
    let list = async |answer: String| {
        let listed = answering(&answer).await.list(&Prefix::all(), Some(&name("a")), 10).await;
        listed.map(|listed| listed.into_iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(list(page(&["b", "c/d"])).await, Ok(vec!["b".to_owned(), "c/d".to_owned()]));
    // From before what was asked for, and what is no name.
    assert_eq!(list(page(&["0", "a", "b", "c d", "d"])).await, Ok(vec!["b".to_owned(), "d".to_owned()]));
    assert_eq!(list(page(&["c", "b"])).await.expect_err("out of order").kind(), Kind::Damaged);
    assert_eq!(list(page(&["b", "b"])).await.expect_err("twice").kind(), Kind::Damaged);
    for odd in ["Welcome!", "<html><body>Welcome!</body></html>", "{}", "<Contents><Key>", ""] {
        let error = list(answer("200 OK", "", odd)).await.expect_err(odd);
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.to_string().contains("endpoint"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_bounded() {
    let endless = |status: &'static str| {
        move |stream: &mut TcpStream| {
            let head = format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"100000\r\n".as_slice(), &[b'x'; 1 << 20], b"\r\n"].concat();
            let mut said = stream.write_all(head.as_bytes());
            while said.is_ok() {
                said = stream.write_all(&chunk);
            }
        }
    };
    let store = bucket(endless("200 OK")).await;
    assert_eq!(store.list(&Prefix::all(), None, 10).await.expect_err("endless").kind(), Kind::Damaged);
    let store = bucket(endless("503 Slow Down")).await;
    assert_eq!(store.list(&Prefix::all(), None, 10).await.expect_err("endless").kind(), Kind::Busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_keeps_to_its_rate_within_an_object() {
    let store = answering(&answer("200 OK", "ETag: \"1\"\r\n", "")).await;
    let store = Patient::new(store, 1).with(Patience::Once);
    store.limit_rate(Some(400_000));
    let began = Instant::now();
    store.create(&name("p/1"), vec![0; 500_000].into()).await.expect("created");
    // All but the last piece of 64 KiB is waited for.
    assert!((1.0..3.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert_eq!(store.status().bytes_sent, 500_000);
}

/// A server that lets one user in, who may be another one later.
struct Gate {
    address: SocketAddr,
    /// Whom it lets in, and how often it was asked.
    state: Arc<Mutex<(&'static str, usize)>>,
}

impl Gate {
    fn new(user: &'static str) -> Gate {
        let state = Arc::new(Mutex::new((user, 0)));
        let address = server({
            let state = state.clone();
            move |stream, head| {
                let mut state = state.lock().expect("not poisoned");
                state.1 += 1;
                let known = [
                    format!("Credential={}/", state.0),
                    BASE64_STANDARD.encode(format!("{}:hidden", state.0)),
                ];
                let says = match known.iter().any(|known| head.contains(known)) {
                    true => answer("200 OK", "", "whole"),
                    false if head.contains("AWS4") => {
                        answer("403 Forbidden", "", &code("InvalidAccessKeyId"))
                    }
                    false => answer("401 Unauthorized", "", ""),
                };
                let _ = stream.write_all(says.as_bytes());
            }
        });
        Gate { address, state }
    }

    fn lets_in(&self, user: &'static str) {
        self.state.lock().expect("not poisoned").0 = user;
    }

    /// How often it was asked since this was last looked at.
    fn asked(&self) -> usize {
        std::mem::take(&mut self.state.lock().expect("not poisoned").1)
    }

    fn urls(&self) -> [Url; 2] {
        [format!("s3://b/x?endpoint=http://{}", self.address), format!("http://{}/dav/", self.address)]
            .map(|text| text.parse().expect("a URL"))
    }
}

/// Writes the file of one store.
fn credentials(folder: &Path, url: &Url, user: &str) {
    let text = match url.to_string().starts_with("s3:") {
        true => format!("[{user}]\naws_access_key_id = {user}\naws_secret_access_key = hidden\n"),
        false => format!("machine 127.0.0.1 login {user} password hidden\n"),
    };
    std::fs::write(url.credentials_in(folder).expect("its kind has one"), text).expect("written");
}

fn with_files(folder: &Path) -> Surroundings {
    let folder = folder.to_str().expect("text").to_owned();
    Surroundings::new([(STORE_CREDENTIALS.to_owned(), folder)], None)
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_of_one_kind_have_credentials_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let around = with_files(folder.path());
    for user in ["home", "provider"] {
        for url in Gate::new(user).urls() {
            credentials(folder.path(), &url, user);
            let store = open(&url, &around).await.expect("opened");
            assert_eq!(store.get(&name("v/id"), 100).await, Ok("whole".into()), "{url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_changed_are_taken_up_once_the_old_ones_are_denied() {
    for at in [0, 1] {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = Gate::new("old");
        let url = &gate.urls()[at];
        credentials(folder.path(), url, "old");
        let store = open(url, &with_files(folder.path())).await.expect("opened");
        let get =
            async || store.get(&name("v/id"), 100).await.map_err(|error| (error.kind(), error.to_string()));
        let denied = async || {
            let (kind, text) = get().await.expect_err("denied");
            assert_eq!(kind, Kind::Denied, "{text}");
            assert!(!text.contains("hidden"), "{text}");
            text
        };
        assert_eq!(get().await, Ok("whole".into()));

        // Withdrawn, and nobody has new ones yet: asked once.
        gate.lets_in("new");
        gate.asked();
        denied().await;
        assert_eq!(gate.asked(), 1, "{url}");

        credentials(folder.path(), url, "new");
        assert_eq!(get().await, Ok("whole".into()), "{url}");
        assert_eq!((gate.asked(), get().await, gate.asked()), (2, Ok("whole".into()), 1));

        // Others, and wrong as well: tried once, and no more.
        gate.lets_in("third");
        credentials(folder.path(), url, "fourth");
        denied().await;
        assert_eq!(gate.asked(), 2);
        denied().await;
        assert_eq!(gate.asked(), 1);

        // What is no such file is told with its path, and does no harm.
        let file = url.credentials_in(folder.path()).expect("its kind has one");
        std::fs::write(&file, "hidden").expect("written");
        let text = denied().await;
        assert!(text.contains(file.to_str().expect("text")), "{text}");
        credentials(folder.path(), url, "third");
        assert_eq!(get().await, Ok("whole".into()), "{url}");
        assert!(!format!("{store:?}").contains("hidden"), "{store:?}");
    }
}
