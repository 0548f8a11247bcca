//! The device's own page, as a browser asks it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_api::ids::Term;
use orchestrator_api::text::Time;
use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::scene::{APP, Scene, listed};
use crate::doors::past::{
    Back, Compared, Done, Entry, Kind, Looked, Moment, Past, Place, Reading, Restored, Seen, Unseen, Version,
    Why,
};
use crate::doors::program::{self, Call};

/// A browser in a session.
struct Browser {
    client: Client,
    address: String,
    cookie: String,
}

fn client() -> Client {
    let client = Client::builder().redirect(reqwest::redirect::Policy::none());
    client.tls_danger_accept_invalid_certs(true).no_proxy().build().expect("a client")
}

fn address(told: &Value) -> String {
    told["address"].as_str().expect("it listens").to_owned()
}

impl Browser {
    async fn of(scene: &Scene) -> Self {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let told = scene.world.open_page(Some(listen)).await.expect("it is served");
        let (client, address) = (client(), address(&told));
        let form = format!("code={}", told["code"].as_str().expect("a code"));
        let entered = client.post(format!("{address}/code")).body(form).send().await.expect("an answer");
        let cookie = entered.headers()[SET_COOKIE].to_str().expect("text");
        let cookie = cookie.split(';').next().expect("a cookie").to_owned();
        Self { client, address, cookie }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let asked = self.client.get(format!("{}{path}", self.address)).header(COOKIE, &self.cookie);
        let answer = asked.send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("all of it"))
    }
}

/// A volume with one file, of which a program says what it can.
struct OneFile {
    bytes: u64,
    script: &'static str,
}

fn nothing<T>() -> Seen<T> {
    Err(Unseen { why: Why::Missing, text: "nobody asks for that here".to_owned() })
}

fn moment() -> Moment {
    Moment { seq: 1, time: Time(0), files: 1, bytes: 1, added_bytes: 1, snapshot: None }
}

#[async_trait]
impl Past for OneFile {
    async fn moments(&self, _: &str, _: usize) -> Seen<Vec<Moment>> {
        Ok(vec![moment()])
    }

    async fn look(&self, _: &Place, _: u64, _: u64) -> Seen<Looked> {
        let found = Entry {
            name: b"a.txt".to_vec(),
            kind: Kind::File,
            bytes: self.bytes,
            modified: Time(0),
            mode: "0644".to_owned(),
            owner: (0, 0),
            target: None,
        };
        Ok(Looked { moment: moment(), found, total: 0, entries: Vec::new() })
    }

    async fn versions(&self, _: &str, _: &[u8], _: usize) -> Seen<Vec<Version>> {
        nothing()
    }

    async fn compare(&self, _: &str, _: u64, _: Option<u64>, _: u64, _: u64) -> Seen<Compared> {
        nothing()
    }

    async fn read(&self, _: &Place) -> Seen<Reading> {
        let call = Call {
            program: &program::find("sh").expect("every machine has it"),
            args: &["-c", self.script],
            environment: &BTreeMap::new(),
            folder: Path::new("/"),
            limit: Duration::ZERO,
            output_bytes_max: 0,
        };
        Ok(Reading::of(program::open_with(&call, &[]).await.expect("it starts")))
    }

    async fn archive(&self, _: &Place) -> Seen<Reading> {
        nothing()
    }

    async fn restore(&self, _: &Place, _: Back, _: &(dyn Fn(Done) + Send + Sync)) -> Seen<Restored> {
        nothing()
    }
}

#[tokio::test]
async fn of_a_damaged_file_no_part_is_shown_as_if_it_were_all() {
    let page = async |bytes, script| {
        let scene = Scene::with_past(OneFile { bytes, script });
        Browser::of(&scene).await.get("/file?volume=one&path=a.txt").await.1
    };
    let missing = "Not all of its bytes could be read";
    let damaged = page(1_000, "printf 'as far as it goes'; exit 4").await;
    assert!(damaged.contains(missing) && !damaged.contains("as far as it goes"), "{damaged}");
    let whole = page(8, "printf 'all of i'").await;
    assert!(!whole.contains(missing) && whole.contains("all of i"), "{whole}");
    // A long one is cut, which is said.
    let long = page(1 << 20, "head -c 1048576 /dev/zero | tr '\\0' 'x'").await;
    assert!(!long.contains(missing) && long.contains("The first 256 KiB of it."), "{long}");
}

#[tokio::test]
async fn an_app_that_leaves_while_its_log_is_read_leaves_nothing_behind() {
    let scene = Scene::new();
    scene.runs();
    let browser = Browser::of(&scene).await;
    let (world, path) = (scene.world.clone(), format!("/logs?app={APP}"));
    scene.docker(move |_, _| {
        world.apps.lock().remove(&APP);
        Some(json!([]))
    });
    let (status, page) = browser.get(&path).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{page}");
    assert!(page.contains("There is no such app here") && !scene.world.apps.lock().contains_key(&APP));
}

#[tokio::test]
async fn a_log_is_shown_whether_an_app_has_a_terminal_or_not() {
    let page = async |is_terminal: bool| {
        let scene = Scene::new();
        scene.runs();
        let browser = Browser::of(&scene).await;
        scene.docker(move |path, _| match () {
            () if path.contains("/containers/json") => Some(listed(Term(0))),
            () if path.contains("/logs?") && is_terminal => Some(json!("\u{1}first\r\nsecond")),
            () if path.contains("/logs?") => {
                Some(json!("\u{1}\0\0\0\0\0\0\u{6}first\n\u{2}\0\0\0\0\0\0\u{6}second"))
            }
            () => Some(json!({"Id": "c1", "State": {"Status": "running"}, "Config": {"Tty": is_terminal}})),
        });
        browser.get(&format!("/logs?app={APP}")).await.1
    };
    let framed = page(false).await;
    assert!(framed.contains(">first<") && framed.contains(">second<"), "{framed}");
    let plain = page(true).await;
    assert!(plain.contains("⟨01⟩</span>first<") && plain.contains(">second<"), "{plain}");
}

#[tokio::test]
async fn a_page_moves_to_another_address_of_its_port_and_back_where_it_cannot() {
    let scene = Scene::new();
    let open = async |listen: SocketAddr| scene.world.open_page(Some(listen)).await;
    let all = open("0.0.0.0:0".parse().expect("an address")).await.expect("it is served");
    let port = address(&all).rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let own = SocketAddr::from(([127, 0, 0, 1], port));
    let moved = open(own).await.expect("nobody else has the port");
    assert_eq!(address(&moved), format!("https://{own}"));
    // An address that is no machine's.
    let wrong = open(SocketAddr::from(([192, 0, 2, 1], port))).await.expect_err("it is not here");
    assert!(wrong.text().contains("192.0.2.1"), "{}", wrong.text());
    let stays = scene.world.open_page(None).await.expect("it is served");
    assert_eq!(address(&stays), format!("https://{own}"));
    let answer = client().get(format!("https://{own}/code")).send().await.expect("it is served there");
    assert_eq!(answer.status(), StatusCode::OK);
}
