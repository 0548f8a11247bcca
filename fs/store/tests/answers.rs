//! What odd servers answer, and what is made of it. Each is a few bytes that a thread says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use fs_store::{Kind, Name, Patience, Patient, Prefix, Store, Surroundings, open};

/// A bucket at a server that says this to everybody, once it has heard the whole request.
async fn bucket(says: impl Fn(&mut TcpStream) + Send + 'static) -> Arc<dyn Store> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("s3://b/x?endpoint=http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            hear(&stream);
            says(&mut stream);
        }
    });
    let keys = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "hidden")];
    let keys = keys.map(|(name, value)| (name.to_owned(), value.to_owned()));
    open(&url.parse().expect("a URL"), &Surroundings::new(keys, None)).await.expect("opened")
}

fn hear(stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|size| size > 2) {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        line.clear();
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).expect("heard");
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
