//! Figures for a collector, and what may be sent to whoever tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::watching::add_store;
use crate::world::{World, wait_until};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Sends bytes and returns all that comes back.
fn ask(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    // It may have answered and gone before it has heard all.
    let _ = stream.write_all(request);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply
}

fn figures(port: u16) -> BTreeMap<String, f64> {
    let reply = String::from_utf8(ask(port, b"GET /metrics HTTP/1.1\r\nHost: comb\r\n\r\n")).expect("text");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    parsed(body)
}

/// Reads the text format strictly: what its document says, and nothing that it leaves open.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line ends");
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = (String::new(), String::new());
    let mut helped = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(families.insert(name.to_owned()), "{name} stands together");
            helped = name.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert_eq!(name, helped, "a type follows its help");
            assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        assert!(!line.starts_with('#'), "{line}");
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = series.split_once('{').expect("labels");
        let base = match family.1.as_str() {
            "summary" => name.strip_suffix("_sum").or(name.strip_suffix("_count")).unwrap_or(name),
            _ => name,
        };
        assert!(is_name(name) && base == family.0, "{line} stands below its family");
        let labels = labels.strip_suffix('}').expect("labels end");
        for label in labels.split(',') {
            let (label, value) = label.split_once('=').expect("a label");
            assert!(
                is_name(label) && value.len() >= 2 && value.starts_with('"') && value.ends_with('"'),
                "{line}"
            );
        }
        assert!(!value.contains(|c: char| c.is_whitespace()), "{line}");
        let value: f64 = value.parse().expect("a number");
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
    }
    samples
}

#[test]
fn a_daemon_tells_its_figures_and_survives_what_is_sent_to_it() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    let port = free_port();
    world.words(["mount", "photos", "mount", "--seal-every", "0", "--metrics", &port.to_string()]).done();
    fs::write(mount.join("a"), vec![7; 100_000]).expect("a file");
    world.comb("sync photos --wait").done();

    let told = figures(port);
    let of_store = |name: &str| told[&format!("{name}{{volume=\"photos\",store=\"home\"}}")];
    let of_volume = |name: &str| told[&format!("{name}{{volume=\"photos\"}}")];
    let seq = of_volume("comb_head_seq");
    assert!(seq >= 2.0);
    assert_eq!(of_store("comb_replicated_seq"), seq);
    assert_eq!((of_store("comb_behind_seconds"), of_store("comb_unsafe_bytes")), (0.0, 0.0));
    assert!(of_store("comb_upload_bytes_total") > 0.0);
    assert!(of_volume("comb_local_bytes") > 0.0 && of_volume("comb_waiting_bytes_max") > 0.0);
    assert_eq!(of_volume("comb_writes_held_up"), 0.0);
    assert!(of_volume("comb_seal_seconds_count") >= 1.0 && of_volume("comb_seal_seconds_sum") > 0.0);
    assert!(of_volume("comb_head_timestamp_seconds") > 1.7e9);

    // Nothing that comes hurts it: nonsense, half a request, too much, many at once that say nothing.
    for (request, status) in [
        (&b"\x16\x03\x01\x00\xff nonsense\r\n\r\n"[..], "400"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (&[b'a'; 100_000], "431"),
    ] {
        let reply = String::from_utf8_lossy(&ask(port, request)).into_owned();
        // One that sends more than is heard may see the connection end first.
        assert!(reply.is_empty() || reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
    }
    let silent: Vec<TcpStream> =
        (0..50).filter_map(|_| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()).collect();
    drop(silent);
    wait_until("answering again", || {
        ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n").starts_with(b"HTTP/1.1 200 OK")
    });
    assert_eq!(fs::read(mount.join("a")).expect("the mount works").len(), 100_000);
    figures(port);

    // Another volume needs another port, and is not mounted without.
    world.comb("volume create other").done();
    world.dir("second");
    world.words(["mount", "other", "second", "--metrics", &port.to_string()]).refused(4, "in use");
    world.words(["mount", "other", "second", "--metrics", "nonsense"]).refused(2, "is no address");
    world.comb("unmount mount").done();
}
