//! Whoever is nobody costs little: what a device is counted for it signed, and no large body is read before a login.

use std::time::{Duration, Instant};

use orchestrator_api::request::DeviceHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Machine, World};

/// Who needs no key to name a device must not be able to speak in its place until it is told to slow down.
#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_id_of_a_device_does_not_silence_it() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let mut attic = ada.device(&world, "attic").await;
    let mut thief = Machine::new(&world);
    thief.id = attic.id;
    for _ in 0..120 {
        thief.report().await.fails(401, "session_over");
    }
    attic.report().await.is(200);
    attic.hello().await.is(200);
    // What it signs itself is counted.
    let mut told = 0;
    for _ in 0..120 {
        told += u32::from(attic.report().await.status == 429);
    }
    assert!(told > 20, "{told}");
}

/// Who connects and says nothing, or not all of it, has no place for long; another protocol has none.
#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_closed() {
    let world = World::new().await;
    let whole = b"GET /v1/hive HTTP/1.1\r\nhost: hive\r\n\r\n";
    let begun = Instant::now();
    let silent =
        [(&b""[..], 0), (&whole[..24], 0), (&whole[..], 1), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0)];
    let mut all = tokio::task::JoinSet::new();
    for (sent, answers) in silent {
        let (mut stream, sent) =
            (TcpStream::connect(world.address).await.expect("it listens"), sent.to_vec());
        all.spawn(async move {
            stream.write_all(&sent).await.expect("it is sent");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert_eq!(answer.matches("HTTP/1.1 200").count(), answers, "{answer}");
        });
    }
    let closed = async {
        while let Some(one) = all.join_next().await {
            one.expect("it is closed");
        }
    };
    tokio::time::timeout(Duration::from_secs(45), closed).await.expect("all are closed");
    assert!(begun.elapsed() > Duration::from_secs(20), "who is slow has time: {:?}", begun.elapsed());
}

/// Sends what stands before a body, and no body; what is answered.
async fn without_body(
    world: &World,
    method: &str,
    path: &str,
    bytes: u64,
    more: &str,
) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(world.address).await.expect("the hive listens");
    let head = format!("{method} {path} HTTP/1.1\r\nhost: hive\r\ncontent-length: {bytes}\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    let read = async {
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut some = [0; 1024];
            match stream.read(&mut some).await {
                Ok(0) | Err(_) => break,
                Ok(count) => answer.extend_from_slice(&some[..count]),
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), read).await;
    (stream, String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_a_large_body_before_a_login() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let release = 200 << 20;
    let (_, answer) = without_body(&world, "PUT", "/v1/releases/1/x86_64", release, "").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let token = "authorization: Bearer comb_wrong\r\n";
    let (_, answer) = without_body(&world, "POST", "/v1/apps/author", 1 << 20, token).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let signed = DeviceHeader { device: [0x40; 16], number: 1, signature: [0; 64] }.show();
    let signed = format!("authorization: {signed}\r\n");
    let (_, answer) = without_body(&world, "POST", "/v1/packages", 4 << 20, &signed).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let (_, answer) = without_body(&world, "POST", "/catalog/photos", 1 << 20, "").await;
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");

    // One who may is read; as much as is read at a time has an end, which is told at once.
    let token = format!("authorization: Bearer {}\r\n", ada.token);
    let (held, answer) = without_body(&world, "PUT", "/v1/releases/1/x86_64", release, &token).await;
    assert_eq!(answer, "", "it waits for the body");
    let (_, full) = without_body(&world, "PUT", "/v1/releases/1/x86_64", release, &token).await;
    assert!(full.starts_with("HTTP/1.1 503") && full.contains("retry-after: 5"), "{full}");
    // Others, with less, go on; and who is gone leaves room.
    ada.get("/v1/me").await;
    drop(held);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let (_, answer) = without_body(&world, "PUT", "/v1/releases/1/x86_64", release, &token).await;
        if answer.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "{answer}");
    }
}
