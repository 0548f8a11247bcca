//! Many devices at once: how long a report takes, and what it costs.
//!
//! The long form is `COMB_LOAD_DEVICES=1000 COMB_LOAD_APPS=20 COMB_LOAD_SECONDS=3600 cargo test --release
//! -p orchestrator-hive --test server -- --ignored load --nocapture`.

use std::time::{Duration, Instant};

use orchestrator_hive::Options;
use serde_json::json;
use tokio::task::JoinSet;

use crate::world::{Machine, Owner, World, databases, uuid};

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Processor time of this process, devices and hive together, in seconds; memory in MiB.
fn used() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<f64> =
        rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse().ok()).collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    (fields.iter().sum::<f64>() / 100.0, memory.unwrap_or(0) / 1024)
}

async fn load(devices: u64, apps: u64, seconds: u64, every: Duration) -> Vec<Duration> {
    let (database, folder) = databases().await.pop().expect("there is one");
    // A proxy tells another address of each device: joins of one are limited.
    let mut options = Options::new(database.as_str(), "127.0.0.1:0".parse().expect("is an address"));
    options.proxies = vec!["127.0.0.1".parse().expect("is an address")];
    let mut world = World::with(options, folder).await;
    let ada = world.set_up().await;
    let owner = Owner::new(1);
    ada.ring(&owner).await;
    let store = ada.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
    // A token is good for 20 requests a second.
    let mut tokens = Vec::new();
    for _ in 0..(devices * apps / 50).clamp(1, 150) {
        let made = ada.post("/v1/tokens", &json!({"title": "load", "role": "owner"})).await;
        if made.status == 429 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        tokens.push(world.person(made.is(200)["token"].as_str().expect("has a token")));
    }
    let mut machines = Vec::new();
    for at in 0..devices {
        let ada = tokens[at as usize % tokens.len()].clone();
        machines.push(join(&world, &ada, at).await);
        let device = machines.last().expect("is there").uuid();
        machines.last_mut().expect("is there").report().await.is(200);
        for number in 0..apps {
            let app = uuid();
            ada.package(&owner, &app, &format!("a{at}-{number}"), 1).await.is(201);
            let add = json!({
                "app": app, "revision": 1, "device": device, "policy": "manual", "stores": [store["id"]], "start": false
            });
            ada.post("/v1/apps", &add).await.is(202);
            let machine = machines.last_mut().expect("is there");
            machine.has(&app, &json!(0), "running", None, Some((1, 5)));
        }
    }
    let (before, memory) = used();
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (at, mut machine) in machines.into_iter().enumerate() {
        running.spawn(async move {
            tokio::time::sleep(every.mul_f64(at as f64 / devices as f64)).await;
            let (mut times, mut next, mut seq) = (Vec::new(), tokio::time::Instant::now(), 5u64);
            while begun.elapsed() < Duration::from_secs(seconds) {
                seq += 1;
                for app in &mut machine.apps {
                    app["volumes"][0]["seq"] = json!(seq);
                    app["volumes"][0]["replicated_seq"] = json!(seq);
                }
                let sent = Instant::now();
                machine.report().await.is(200);
                times.push(sent.elapsed());
                next += every;
                tokio::time::sleep_until(next).await;
            }
            times
        });
    }
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.extend(done.expect("a device reported"));
    }
    times.sort();
    let (after, grown) = used();
    let wall = begun.elapsed().as_secs_f64();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "{devices} devices with {apps} apps on {}: {} reports in {wall:.0} s, p50 {:?}, p99 {:?}, most {:?}; \
         processor {:.2} cores with the devices, memory {memory} then {grown} MiB",
        database.split(':').next().unwrap_or_default(),
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        (after - before) / wall
    );
    world.end().await;
    times
}

async fn join(world: &World, ada: &crate::world::Person, at: u64) -> Machine {
    let made = ada.post("/v1/device-codes", &json!({"name": format!("d{at}")})).await;
    let made = made.is(200);
    let code =
        orchestrator_api::code::JoinCode::parse(made["code"].as_str().expect("a code")).expect("is a code");
    let mut machine = Machine::new(world);
    machine.forwarded = Some(format!("10.0.{}.{}", at / 200, at % 200 + 1));
    machine.join(&code, "d").await.is(201);
    machine.hello().await.is(200);
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn some_devices_report_in_time() {
    let times = load(8, 10, 10, Duration::from_millis(500)).await;
    assert!(times.len() > 80, "{}", times.len());
    // A machine that builds beside may be slow; what must not happen is that reports wait for each other.
    assert!(times[times.len() / 2] < Duration::from_millis(500), "{:?}", times[times.len() / 2]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told; see the head of this file"]
async fn many_devices_report_in_time() {
    let devices = setting("COMB_LOAD_DEVICES", 1000);
    let times = load(
        devices,
        setting("COMB_LOAD_APPS", 20),
        setting("COMB_LOAD_SECONDS", 300),
        Duration::from_secs(10),
    )
    .await;
    let p99 = times[(times.len() - 1) * 99 / 100];
    assert!(p99 <= Duration::from_millis(50), "{p99:?}");
}
