//! A hive as a process: its setup code, a kill in the middle of orders, its backup.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A hive that runs, and is killed when it is dropped.
struct Hive {
    child: Child,
    address: String,
    setup_code: Option<String>,
}

impl Drop for Hive {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn comb(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comb"));
    command.arg("--state").arg(state).arg("hive");
    command
}

impl Hive {
    fn begin(state: &Path) -> Hive {
        let mut child = comb(state)
            .args(["run", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("comb is there");
        let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        let (mut address, mut setup_code) = (None, None);
        while let Some(Ok(line)) = lines.next() {
            if let Some(told) = line.strip_prefix("listening on http://") {
                address = Some(told.to_owned());
            }
            if let Some(code) = line.strip_prefix("setup code ") {
                setup_code = Some(code.to_owned());
            }
            // What is told last, the first time and the others.
            if line.starts_with("it is shown once")
                || (line.starts_with("key ") && state.join("set-up").exists())
            {
                break;
            }
        }
        Hive { child, address: address.expect("it says where it listens"), setup_code }
    }

    /// One request; none if the hive is gone.
    fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Option<(u16, Value)> {
        ask(&self.address, method, path, token, body)
    }
}

fn ask(address: &str, method: &str, path: &str, token: &str, body: &Value) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let key = uuid::Uuid::new_v4();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: hive\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

#[test]
fn what_a_killed_hive_answered_is_there_and_its_backup_is_restored() {
    let folder = TempDir::new().expect("there is a disk");
    let state = folder.path().join("state");
    let mut hive = Hive::begin(&state);
    let setup = json!({
        "setup_code": hive.setup_code, "account": "home", "name": "ada", "password": "a long password"
    });
    let (status, made) = hive.ask("POST", "/v1/setup", "", &setup).expect("it answers");
    assert_eq!(status, 200, "{made}");
    std::fs::write(state.join("set-up"), b"").expect("can be written");
    let token = made["token"].as_str().expect("has a token").to_owned();
    let mut kept = Vec::new();
    for round in 0..4 {
        let (address, asker) = (hive.address.clone(), token.clone());
        // Orders go on while the process is killed.
        let orders = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for number in 0..1000 {
                let url = format!("s3://bucket/{round}-{number}");
                let store = json!({"url": url, "shared": false});
                match ask(&address, "POST", "/v1/stores", &asker, &store) {
                    Some((200, made)) => kept.push((made["id"].clone(), url)),
                    Some((_, _)) => break,
                    None => break,
                }
            }
            kept
        });
        std::thread::sleep(std::time::Duration::from_millis(40 + 70 * round));
        hive.child.kill().expect("it ran");
        hive.child.wait().expect("it is gone");
        kept.extend(orders.join().expect("orders end"));
        hive = Hive::begin(&state);
        assert_eq!(hive.setup_code, None, "the code is told once");
        let (status, stores) = hive.ask("GET", "/v1/stores", &token, &Value::Null).expect("it answers");
        assert_eq!(status, 200, "{stores}");
        let there = stores["items"].as_array().expect("a list");
        for (id, url) in &kept {
            assert!(
                there.iter().any(|one| one["id"] == *id && one["url"] == *url),
                "{url} was answered, and is gone"
            );
        }
    }
    assert!(!kept.is_empty(), "orders were answered before a kill");

    // A backup beside the running hive; a second hive on the same database is refused.
    let file = folder.path().join("backup");
    let backup = comb(&state).arg("backup").arg(&file).output().expect("comb is there");
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    let second = comb(&state).args(["run", "--listen", "127.0.0.1:0"]).output().expect("comb is there");
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another hive"));
    let other = folder.path().join("other");
    let restored = comb(&other).arg("restore").arg(&file).output().expect("comb is there");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    // Who may do something in it is named: what was taken from somebody since is to be taken again.
    let told = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert!(told.contains("person ada of home, owner") && told.contains("repeat it now"), "{told}");
    std::fs::write(other.join("set-up"), b"").expect("can be written");
    let hive = Hive::begin(&other);
    let (status, _) = hive.ask("GET", "/v1/me", &token, &Value::Null).expect("it answers");
    assert_eq!(status, 401, "no token of before is good");
    let login = json!({"name": "ada", "password": "a long password"});
    let (status, made) = hive.ask("POST", "/v1/login", "", &login).expect("it answers");
    assert_eq!(status, 200, "{made}");
    let token = made["token"].as_str().expect("has a token");
    let (status, told) = hive.ask("GET", "/v1/hive", token, &Value::Null).expect("it answers");
    // An account without devices has nobody to wait for.
    assert_eq!((status, told["recovering"].clone()), (200, json!(false)));
    let recover = comb(&other).arg("recover").output().expect("comb is there");
    assert!(String::from_utf8_lossy(&recover.stdout).contains("waits for no devices"));
}
