//! Streams, as the hive takes them.

use std::sync::Arc;

use orchestrator_api::ids::SessionId;
use orchestrator_api::text::Uuid;
use parking_lot::Mutex;
use serde_json::json;

use super::scene::Scene;
use crate::daemon::streams::Stream;

const SESSION: SessionId = SessionId([1; 16]);
const STREAM: Uuid = Uuid([3; 16]);

#[tokio::test]
async fn a_part_that_the_hive_puts_off_is_sent_again_as_it_was() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let scene = Scene::with_hive_that(move |asked, body| {
        let mut heard = hears.lock();
        let part = asked.split(['=', ' ']).rev().nth(1).map(str::to_owned).expect("a part has its number");
        heard.push((part, body.to_vec()));
        match heard.len() {
            2 | 3 => {
                let later = json!({"code": "slow_down", "message": "later", "retry_after_ms": 1});
                (429, json!({ "error": later }))
            }
            _ => (200, json!({})),
        }
    })
    .await;
    scene.ring(&[]);
    let mut stream = Stream::begin(&scene.world, SESSION, STREAM).expect("the ring is open");
    for text in ["first", "second"] {
        stream.line("web", false, text).await;
        stream.flush().await;
        assert!(stream.is_open(), "{text}");
    }
    stream.end().await;
    let heard = heard.lock();
    let parts: Vec<&str> = heard.iter().map(|(part, _)| part.as_str()).collect();
    assert_eq!(parts, ["0", "1", "1", "1", "2"]);
    assert!(heard[1].1 == heard[2].1 && heard[2].1 == heard[3].1, "its number is never used for other bytes");
}

#[tokio::test]
async fn a_stream_ends_where_nobody_listens() {
    let gone = json!({"error": {"code": "state", "message": "nobody listens any more"}});
    let scene = Scene::with_hive_that(move |_, _| (409, gone.clone())).await;
    scene.ring(&[]);
    let mut stream = Stream::begin(&scene.world, SESSION, STREAM).expect("the ring is open");
    stream.line("web", false, "first").await;
    stream.flush().await;
    assert!(!stream.is_open());
}
