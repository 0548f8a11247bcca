//! IPFS: what goes to one node is opened through another. Needs Helia, so it is run when asked for.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::world::World;

/// A node that runs until this is dropped.
struct Node(u16);

impl Node {
    fn start(beside: Option<&Node>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let node = Self(listener.local_addr().expect("bound").port());
        drop(listener);
        node.run("start", beside);
        node
    }

    fn run(&self, action: &str, beside: Option<&Self>) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers/ipfs");
        let mut command = Command::new(script);
        command.args([action, "helia", &self.0.to_string()]);
        command.envs(beside.map(|other| ("COMB_TEST_PEER", other.0.to_string())));
        let output = command.output().expect("the script starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn url(&self) -> String {
        format!("ipfs://127.0.0.1:{}", self.0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.run("stop", None);
    }
}

fn fill(mount: &Path) {
    fs::create_dir(mount.join("d")).expect("a folder");
    for number in 0..50_u32 {
        fs::write(mount.join(format!("d/{number}")), number.to_string()).expect("a file");
    }
    // Larger than one leaf, and like nothing else.
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(mount.join("large"), large).expect("a file");
}

#[test]
#[ignore = "needs Helia"]
fn a_volume_goes_to_one_node_and_is_opened_through_another() {
    let one = Node::start(None);
    let other = Node::start(Some(&one));
    let world = World::new();
    world.comb("volume create photos").done();
    let mount = world.dir("mount");
    world.comb("mount photos mount").done();
    fill(&mount);
    let wanted = fs::read(mount.join("large")).expect("read");
    world.comb("snapshot photos --tag first").done();
    world.comb("unmount mount").done();
    world.comb("volume key photos --out key").done();

    let folder = world.dir("nas");
    world.comb(&format!("store add photos {}", one.url())).refused(6, "cannot be the first store");
    world.comb(&format!("store add photos file://{}", folder.display())).done();
    let said = world.comb(&format!("store add photos {}", one.url())).done();
    assert!(said.contains("as a copy"), "{said}");
    world.comb("sync photos").done();
    let tested = world.comb("store test photos ipfs").done();
    assert!(tested.contains(" of epoch 1"), "everything was sent: {tested}");

    // Another machine, with the key and another node.
    let elsewhere = World::new();
    fs::copy(world.path("key"), elsewhere.path("key")).expect("copied");
    let open = format!("volume open photos --key-file key --store {}", other.url());
    elsewhere.comb(&open).refused(6, "holds copies only");
    elsewhere.comb(&format!("{open} --read-only")).done();
    let found = elsewhere.words(["cat", "photos@first:d/7"]).done();
    assert_eq!(found, "7");
    elsewhere.comb("restore photos@first:large --to out").done();
    assert!(fs::read(elsewhere.path("out/large")).expect("restored") == wanted);

    // A key that nobody published anything under.
    elsewhere.comb("volume create stranger").done();
    elsewhere.comb("volume key stranger --out strange").done();
    let open = format!("volume open nothing --key-file strange --store {} --read-only", other.url());
    elsewhere.comb(&open).refused(3, "does not know volume");
}
