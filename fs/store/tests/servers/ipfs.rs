//! IPFS: two real nodes (Helia), which exchange blocks over bitswap, behind a front of ours for kubo's RPC.

use ed25519_dalek::{Signer, SigningKey};
use fs_store::HeadKey;

use super::*;

/// A volume's key, as a test makes it; some only read.
#[derive(Debug, Clone)]
struct Key {
    signing: SigningKey,
    may_sign: bool,
}

impl HeadKey for Key {
    fn public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    fn may_sign(&self) -> bool {
        self.may_sign
    }

    fn sign(&self, data: &[u8]) -> Option<[u8; 64]> {
        self.may_sign.then(|| self.signing.sign(&[b"ipns-signature:", data].concat()).to_bytes())
    }

    fn is_signed(&self, data: &[u8], signature: &[u8; 64]) -> bool {
        let key = self.signing.verifying_key();
        key.verify_strict(&[b"ipns-signature:", data].concat(), &signature.into()).is_ok()
    }
}

impl Server {
    fn ipfs() -> Server {
        Server::start("ipfs", "helia", &[])
    }

    /// A node that knows this one.
    fn beside(&self) -> Server {
        Server::start("ipfs", "helia", &[("COMB_TEST_PEER", &self.port.to_string())])
    }

    /// The volume of a number there, to be written or only read.
    async fn volume(&self, number: u8, may_sign: bool) -> Arc<dyn Store> {
        volume(self.url(), number, may_sign).await
    }

    /// A call that no store makes.
    async fn ask(&self, call: &str) -> String {
        let address = format!("http://127.0.0.1:{}/{call}", self.port);
        let answer = reqwest::Client::new().post(address).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{call}: {}", answer.status());
        answer.text().await.expect("text").trim().to_owned()
    }

    /// How many of these blocks the node has.
    async fn has(&self, cids: &[String]) -> usize {
        let mut found = 0;
        for cid in cids {
            found += usize::from(self.ask(&format!("test/has?arg={cid}")).await == "true");
        }
        found
    }
}

async fn volume(url: &str, number: u8, may_sign: bool) -> Arc<dyn Store> {
    let key = Key { signing: SigningKey::from_bytes(&[number; 32]), may_sign };
    let around = Surroundings::new([], None).of_volume(Arc::new(key));
    store(url, &around).await
}

const LEAF: usize = 256 << 10;

/// Bytes of an object, no leaf of which is like another.
fn object(number: usize, size: usize) -> Bytes {
    (0..size).map(|at| ((at + number * 1_000_003).wrapping_mul(2_654_435_761) >> 17) as u8).collect()
}

/// The names of an object's leaves, as others compute them: version 1, raw, SHA-256, in base32.
fn leaves(object: &[u8]) -> Vec<String> {
    let name = |leaf: &[u8]| {
        use sha2::Digest;
        let bytes = [&[1, 0x55, 0x12, 0x20][..], &sha2::Sha256::digest(leaf)[..]].concat();
        let bits: Vec<u8> =
            bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
        let letter = |five: &[u8]| {
            let value = (0..5).fold(0, |value, at| value << 1 | five.get(at).copied().unwrap_or(0));
            char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(value)])
        };
        std::iter::once('b').chain(bits.chunks(5).map(letter)).collect()
    };
    object.chunks(LEAF).map(name).collect()
}

/// A read is not asked of the node again for 2 seconds.
async fn until_looked_again() {
    tokio::time::sleep(Duration::from_millis(2_100)).await;
}

/// Objects in a listing: Helia pins a tree anew for each change of the index.
const MANY: usize = 60;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Helia"]
async fn ipfs_conforms() {
    let node = Server::ipfs();
    let all = node.volume(1, true).await;
    conformance::run_with(all.clone(), Prefix::all(), MANY).await;
    assert_eq!(probe(all, 1).await, Ok(Probe { unfit: Some(Unfit::Kind) }));
    let patient = Patient::new(node.volume(2, true).await, 1);
    conformance::run_with(Arc::new(patient), under("v/00/"), MANY).await;
    // Two indexes with nothing in them, which are one tree.
    assert_eq!(node.ask("api/v0/pin/ls").await.matches("recursive").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Helia"]
async fn what_was_written_through_one_node_is_read_through_the_other() {
    let one = Server::ipfs();
    let other = one.beside();
    let (writer, reader) = (one.volume(1, true).await, other.volume(1, false).await);
    assert_eq!(reader.list(&Prefix::all(), None, 10).await, Ok(vec![]), "nothing was published yet");

    let large = object(1, 20 * LEAF + 77);
    writer.create(&name("v/p/large"), large.clone()).await.expect("created");
    writer.create(&name("v/m/1"), "manifest".into()).await.expect("created");
    until_looked_again().await;
    assert_eq!(reader.get(&name("v/m/1"), 100).await, Ok("manifest".into()));
    let listed = reader.list(&under("v/p/"), None, 10).await.expect("listed");
    assert_eq!((listed[0].name.as_str(), listed[0].size), ("v/p/large", large.len() as u64));

    let leaves = leaves(&large);
    assert_eq!((one.has(&leaves).await, other.has(&leaves).await), (21, 0));
    let range = 7 * LEAF - 3..8 * LEAF + 5;
    let found = reader.get_range(&name("v/p/large"), range.start as u64..range.end as u64).await;
    assert!(found.expect("read") == large[range]);
    assert_eq!(other.has(&leaves).await, 3, "only the leaves that hold the range were fetched");
    assert!(reader.get(&name("v/p/large"), 1 << 30).await.expect("read") == large);
    assert_eq!(other.has(&leaves).await, 21);

    let refused = reader.create(&name("v/x"), "x".into()).await.expect_err("it only reads");
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    let stranger = other.volume(2, false).await;
    assert_eq!(stranger.list(&Prefix::all(), None, 10).await, Ok(vec![]), "another key finds nothing");

    one.run("kill", &[]);
    let error = writer.create(&name("v/p/late"), "late".into()).await.expect_err("the node is dead");
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    // The other goes on with what it has: the record, the index, and the blocks that were read.
    until_looked_again().await;
    assert_eq!(reader.get(&name("v/m/1"), 100).await, Ok("manifest".into()));

    one.run("resume", &[]);
    writer.create(&name("v/p/late"), "late".into()).await.expect("created");
    until_looked_again().await;
    assert_eq!(reader.get(&name("v/p/late"), 100).await, Ok("late".into()));
    let again = one.volume(1, true).await;
    let error = again.create(&name("v/p/late"), "later".into()).await.expect_err("it is there");
    assert_eq!(error.kind(), Kind::Exists);
    assert!(again.get(&name("v/p/large"), 1 << 30).await.expect("read") == large);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Helia"]
async fn collection_takes_what_was_removed_and_nothing_else() {
    let node = Server::ipfs();
    let store = node.volume(1, true).await;
    let objects: Vec<Bytes> = (0..4).map(|number| object(number, 2 * LEAF + 9 + number)).collect();
    for (number, object) in objects.iter().enumerate() {
        store.create(&name(&format!("v/p/{number}")), object.clone()).await.expect("created");
    }
    // The same bytes under two names, of which one goes.
    store.create(&name("v/p/twin"), objects[2].clone()).await.expect("created");
    // More names than a directory holds.
    let mut tasks = JoinSet::new();
    for number in 0..300 {
        let store = store.clone();
        tasks.spawn(async move { store.create(&name(&format!("v/m/{number:04}")), "slot".into()).await });
    }
    tasks.join_all().await.into_iter().for_each(|created| created.expect("created"));
    let kept = leaves(&objects[0]);
    let (gone, twin) = (leaves(&objects[1]), leaves(&objects[2]));
    store.remove(&name("v/p/1")).await.expect("removed");
    store.remove(&name("v/p/2")).await.expect("removed");
    assert_eq!(node.has(&gone).await, 3, "what is removed waits for collection");

    let collected = node.ask("api/v0/repo/gc").await;
    assert!(collected.lines().count() > 3, "{collected}");
    assert_eq!((node.has(&gone).await, node.has(&kept).await, node.has(&twin).await), (0, 3, 3));
    let again = node.volume(1, false).await;
    let listed = again.list(&Prefix::all(), None, 1_000).await.expect("listed");
    assert_eq!(listed.len(), 303);
    for entry in &listed {
        let found = again.get(&entry.name, 1 << 30).await.unwrap_or_else(|error| panic!("{error}"));
        let number = entry.name.as_str().strip_prefix("v/p/").map(|number| number.parse().unwrap_or(2));
        assert!(number.map_or(found == "slot", |number: usize| found == objects[number]), "{}", entry.name);
    }
    store.create(&name("v/p/1"), objects[1].clone()).await.expect("created again");
    assert_eq!(node.has(&gone).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Helia"]
async fn a_wrong_block_is_noticed() {
    let node = Server::ipfs();
    let object = object(1, LEAF + 1);
    node.volume(1, true).await.create(&name("v/p/1"), object.clone()).await.expect("created");
    let reader = node.volume(1, false).await;
    reader.list(&Prefix::all(), None, 10).await.expect("the index is read");
    assert_eq!(node.ask("test/wrong?arg=true").await, "true");
    let error = reader.get(&name("v/p/1"), 1 << 30).await.expect_err("it is wrong");
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    // One that must read the index first.
    let error = node.volume(1, false).await.list(&Prefix::all(), None, 10).await.expect_err("it is wrong");
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    node.ask("test/wrong?arg=false").await;
    assert!(reader.get(&name("v/p/1"), 1 << 30).await.expect("right again") == object);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Helia"]
async fn a_remote_service_holds_it_too() {
    let one = Server::ipfs();
    let service = one.beside();
    let store = volume(&format!("{}?pin=peer", one.url()), 1, true).await;
    let objects: Vec<Bytes> = (0..3).map(|number| object(number, LEAF + 9 + number)).collect();
    for (number, object) in objects.iter().enumerate() {
        store.create(&name(&format!("v/p/{number}")), object.clone()).await.expect("created");
    }
    store.remove(&name("v/p/0")).await.expect("removed");
    // It fetches in its own time; older roots go when a later change finds a newer one pinned.
    let mut roots = 0;
    for number in 0..50 {
        tokio::time::sleep(Duration::from_millis(100 * number)).await;
        store.create(&name(&format!("v/m/{number}")), "slot".into()).await.expect("created");
        roots = service.ask("api/v0/pin/ls").await.matches("recursive").count();
        if service.has(&leaves(&objects[2])).await == 2 && roots <= 2 {
            break;
        }
    }
    assert!(roots <= 2, "{roots} roots are pinned there");
    one.run("kill", &[]);
    let reader = service.volume(1, false).await;
    assert!(reader.get(&name("v/p/2"), 1 << 30).await.expect("read") == objects[2]);
    let error = volume(&format!("{}?pin=nobody", service.url()), 1, true).await;
    let error = error.create(&name("v/x"), "x".into()).await.expect_err("no such service");
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().contains("service not known"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Helia"]
async fn what_a_second_writer_hid_comes_back() {
    let node = Server::ipfs();
    let (first, second) = (node.volume(1, true).await, node.volume(1, true).await);
    first.create(&name("v/m/1"), "1".into()).await.expect("created");
    assert_eq!(second.get(&name("v/m/1"), 9).await, Ok("1".into()));
    // Both know the same head, and each makes its own of it; the one that ends later is taken for newer.
    first.create(&name("v/m/2"), "2".into()).await.expect("created");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for number in 3..6 {
        second.create(&name(&format!("v/m/{number}")), "of the second".into()).await.expect("created");
    }
    assert_eq!(node.volume(1, false).await.list(&Prefix::all(), None, 9).await.expect("listed").len(), 4);

    // The node has a newer one than the first makes, which it so hears of.
    let error = first.create(&name("v/m/6"), "6".into()).await.expect_err("it is behind");
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    first.create(&name("v/m/6"), "6".into()).await.expect("created");
    let listed = node.volume(1, false).await.list(&Prefix::all(), None, 9).await.expect("listed");
    let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["v/m/1", "v/m/2", "v/m/3", "v/m/4", "v/m/5", "v/m/6"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Helia"]
async fn what_is_wrong_with_ipfs_is_said() {
    let node = Server::ipfs();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    for error in says(&volume(&format!("ipfs://{nobody}"), 1, true).await).await {
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(error.to_string().contains("onnection refused"), "{error}");
    }
    // Something that speaks HTTP, but not this.
    let s3 = Server::s3("versitygw");
    for error in says(&volume(&format!("ipfs://127.0.0.1:{}", s3.port), 1, true).await).await {
        assert!(matches!(error.kind(), Kind::Refused | Kind::Denied), "{error}");
    }
    let url: Url = node.url().parse().expect("a URL");
    let error = open(&url, &Surroundings::default()).await.expect_err("no volume");
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("no key rings"), "{error}");
    let around = Surroundings::new([("IPFS_API_AUTH".to_owned(), "hidden".to_owned())], None);
    let key = Key { signing: SigningKey::from_bytes(&[1; 32]), may_sign: true };
    let error = open(&url, &around.of_volume(Arc::new(key))).await.expect_err("no such form");
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("bearer:TOKEN") && !error.to_string().contains("hidden"), "{error}");
}
