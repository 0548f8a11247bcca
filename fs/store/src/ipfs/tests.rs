//! What is asked of a node, in which order, and what is made of odd answers: a node of a few lines in this process.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use super::cid::Codec;
use super::*;

/// A volume's key, made of one byte; it may only read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key(pub(super) u8, pub(super) bool);

impl Key {
    fn signing(self) -> SigningKey {
        SigningKey::from_bytes(&[self.0; 32])
    }
}

impl HeadKey for Key {
    fn public(&self) -> [u8; 32] {
        self.signing().verifying_key().to_bytes()
    }

    fn may_sign(&self) -> bool {
        self.1
    }

    fn sign(&self, data: &[u8]) -> Option<[u8; 64]> {
        self.1.then(|| self.signing().sign(&[b"ipns-signature:", data].concat()).to_bytes())
    }

    fn is_signed(&self, data: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(&self.public()).expect("a key");
        key.verify_strict(&[b"ipns-signature:", data].concat(), &signature.into()).is_ok()
    }
}

/// A node that keeps what it is given and does nothing else.
#[derive(Clone)]
struct FakeNode {
    port: u16,
    state: Arc<Mutex<FakeState>>,
}

#[derive(Default)]
struct FakeState {
    blocks: HashMap<String, Vec<u8>>,
    pins: BTreeSet<String>,
    record: Option<Vec<u8>>,
    /// What was called, without what is looked up.
    calls: Vec<String>,
    /// A call that fails from now on.
    fails: Option<&'static str>,
    /// What stood in the last request's header.
    authorization: Option<String>,
}

impl FakeNode {
    fn start() -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let node = FakeNode { port, state: Arc::default() };
        let serving = node.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let node = serving.clone();
                std::thread::spawn(move || node.serve(stream));
            }
        });
        node
    }

    fn open(&self, key: Key) -> Ipfs {
        let url: Url = format!("ipfs://127.0.0.1:{}", self.port).parse().expect("a URL");
        let secret = [("IPFS_API_AUTH".to_owned(), "basic:me:word".to_owned())];
        Ipfs::open(&url, &Surroundings::new(secret, None).of_volume(Arc::new(key))).expect("opened")
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().expect("whole")
    }

    fn pins(&self) -> BTreeSet<String> {
        self.state().pins.clone()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    fn record(&self, key: Key) -> Record {
        let record = self.state().record.clone().expect("there is one");
        Record::open(&record, &key).expect("signed")
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("the same"));
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        reader.read_line(&mut first).expect("a request");
        while reader.read_line(&mut line).is_ok_and(|size| size > 2) {
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if lower.starts_with("authorization:") {
                self.state().authorization = Some(line["authorization:".len()..].trim().to_owned());
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("all of it");
        let (status, answer) = self.answer(&first, &body);
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
        let _ = stream.write_all(&[head.as_bytes(), &answer].concat());
    }

    fn answer(&self, request: &str, body: &[u8]) -> (&'static str, Vec<u8>) {
        let target = request.split(' ').nth(1).expect("a target");
        let url = url::Url::parse(&format!("http://node{target}")).expect("a URL");
        let call = url.path().strip_prefix("/api/v0/").expect("a call").to_owned();
        let of = |name: &str| -> Vec<String> {
            url.query_pairs().filter(|(one, _)| one == name).map(|(_, value)| value.into_owned()).collect()
        };
        let file = || {
            let from = body.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
            let to = body.windows(4).rposition(|four| four == b"\r\n--").expect("an end");
            body[from..to].to_vec()
        };
        let failed = |why: &str| {
            let answer = format!("{{\"Message\":\"{why}\",\"Code\":0,\"Type\":\"error\"}}\n");
            ("500 Internal Server Error", answer.into_bytes())
        };
        let mut state = self.state();
        if !matches!(call.as_str(), "block/get" | "routing/get") {
            state.calls.push(call.clone());
        }
        if state.fails == Some(call.as_str()) {
            return failed("it \\\"fails\\\"");
        }
        let answer = match call.as_str() {
            "block/put" => {
                let codec = if of("cid-codec") == ["raw"] { Codec::Raw } else { Codec::DagPb };
                let block = file();
                let cid = Cid::of(codec, &block).to_string();
                let answer = format!("{{\"Key\":\"{cid}\",\"Size\":{}}}\n", block.len());
                state.blocks.insert(cid, block);
                answer.into_bytes()
            }
            "block/get" => state.blocks[&of("arg")[0]].clone(),
            "pin/add" => {
                state.pins.insert(of("arg")[0].clone());
                b"{}".to_vec()
            }
            "pin/update" if state.pins.contains(&of("arg")[0]) => {
                state.pins.insert(of("arg")[1].clone());
                b"{}".to_vec()
            }
            "pin/update" => return failed("'from' cid was not recursively pinned already"),
            "pin/rm" if state.pins.remove(&of("arg")[0]) => b"{}".to_vec(),
            "pin/rm" => return failed("not pinned or pinned indirectly"),
            "pin/ls" => {
                let keys: Vec<String> =
                    state.pins.iter().map(|pin| format!("\"{pin}\":{{\"Type\":\"recursive\"}}")).collect();
                format!("{{\"Keys\":{{{}}}}}", keys.join(",")).into_bytes()
            }
            "routing/put" => {
                state.record = Some(file());
                b"{\"Extra\":\"\",\"Type\":5}".to_vec()
            }
            "routing/get" => match &state.record {
                None => return failed("routing: not found"),
                Some(record) => {
                    use base64::Engine;
                    let record = base64::prelude::BASE64_STANDARD.encode(record);
                    format!("{{\"Extra\":\"{record}\",\"Type\":5}}\n").into_bytes()
                }
            },
            other => panic!("{other} is not called"),
        };
        ("200 OK", answer)
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

const WRITER: Key = Key(1, true);
const READER: Key = Key(1, false);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_head_names_is_pinned_before_and_until_another_is_published() {
    let node = FakeNode::start();
    let store = node.open(WRITER);
    store.create(&name("a"), "1".into()).await.expect("created");
    assert_eq!(node.calls(), ["block/put", "block/put", "pin/ls", "pin/add", "routing/put"]);
    let first = node.record(WRITER);
    assert_eq!(node.pins(), BTreeSet::from([first.root.to_string()]));

    store.create(&name("b"), "2".into()).await.expect("created");
    assert_eq!(node.calls(), ["block/put", "block/put", "pin/update", "routing/put", "pin/rm"]);
    let second = node.record(WRITER);
    assert_eq!((first.sequence, second.sequence), (0, 1));
    assert_eq!(node.pins(), BTreeSet::from([second.root.to_string()]));
    assert_eq!(node.state().authorization.as_deref(), Some("Basic bWU6d29yZA=="));

    // Whatever fails, the head that is published stays whole, and the next try succeeds.
    for (number, call) in ["block/put", "pin/update", "routing/put", "pin/rm"].into_iter().enumerate() {
        let before = node.record(WRITER);
        node.state().fails = Some(call);
        let object = name(&format!("c{number}"));
        let created = store.create(&object, "3".into()).await;
        if call == "pin/rm" {
            // Only what is old is kept for longer.
            assert_eq!(created, Ok(()));
        } else {
            let error = created.expect_err(call);
            assert_eq!(error.kind(), Kind::Unreachable, "{error}");
            assert!(error.to_string().contains(&format!("{call}: 500 it \"fails\"")), "{error}");
            assert_eq!(node.record(WRITER), before, "{call}");
        }
        assert!(node.pins().contains(&node.record(WRITER).root.to_string()), "{call}");
        node.state().fails = None;
        if call != "pin/rm" {
            store.create(&object, "3".into()).await.expect("created");
        }
    }
    store.create(&name("d"), "4".into()).await.expect("created");
    assert_eq!(node.pins(), BTreeSet::from([node.record(WRITER).root.to_string()]), "nothing is left");
    let listed = node.open(READER).list(&Prefix::all(), None, 10).await.expect("listed");
    assert_eq!(listed.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_pinned_is_unpinned() {
    let node = FakeNode::start();
    node.open(WRITER).create(&name("a"), "1".into()).await.expect("created");
    let left = Cid::of(Codec::DagPb, b"left").to_string();
    node.state().pins.insert(left);
    node.open(WRITER).create(&name("b"), "2".into()).await.expect("created");
    assert_eq!(node.pins(), BTreeSet::from([node.record(WRITER).root.to_string()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_given_again_and_signed_anew_in_time() {
    let node = FakeNode::start();
    let store = node.open(WRITER);
    store.0.republish().await.expect("there is nothing to give");
    store.create(&name("a"), "1".into()).await.expect("created");
    let given = node.state().record.take().expect("it was given");
    store.0.republish().await.expect("given again");
    assert_eq!(node.state().record.as_ref(), Some(&given), "the same, to a node that had lost it");

    let before = node.record(WRITER);
    let old = Record { until: record::now() + VALID_FOR.as_secs() / 2 - 60, sequence: 1, ..before };
    node.state().record = old.sign(&WRITER);
    store.0.republish().await.expect("signed anew");
    let after = node.record(WRITER);
    assert_eq!((after.root, after.sequence), (before.root, 2));
    assert!(after.until >= record::now() + VALID_FOR.as_secs() - 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_record_of_the_volume_and_of_now_counts() {
    let node = FakeNode::start();
    let store = node.open(WRITER);
    store.create(&name("a"), "1".into()).await.expect("created");
    let first = node.state().record.clone();
    store.create(&name("b"), "2".into()).await.expect("created");
    let reader = node.open(READER);
    let count = async |store: &Ipfs| store.list(&Prefix::all(), None, 10).await.map(|listed| listed.len());
    assert_eq!(count(&reader).await, Ok(2));

    // An older one, for who has seen a newer.
    let second = std::mem::replace(&mut node.state().record, first.clone());
    reader.0.state().looked = None;
    assert_eq!(count(&reader).await, Ok(2));
    // One of another volume.
    node.state().record = node.record(WRITER).sign(&Key(2, true));
    let error = count(&node.open(READER)).await.expect_err("forged");
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(error.to_string().contains("not signed by the volume's key"), "{error}");
    // One that has ended, which only who signs takes up.
    node.state().record = second;
    let ended = Record { until: record::now() - 1, ..node.record(WRITER) };
    node.state().record = ended.sign(&WRITER);
    let error = count(&node.open(READER)).await.expect_err("it has ended");
    assert!(error.to_string().contains("older than a year"), "{error}");
    let again = node.open(WRITER);
    again.create(&name("c"), "3".into()).await.expect("created");
    assert_eq!(count(&node.open(READER)).await, Ok(3));
    assert_eq!(node.record(WRITER).sequence, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_names_a_block_otherwise_is_not_believed() {
    let node = FakeNode::start();
    let store = node.open(WRITER);
    store.create(&name("a"), "1".into()).await.expect("created");
    // As a node does that hashes otherwise, or keeps something else.
    let wrong = Block { cid: Cid::of(Codec::Raw, b"one"), bytes: "other".into() };
    let error = store.0.node.put(&wrong).await.expect_err("it answers another name");
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
}
