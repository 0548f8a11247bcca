//! Many devices at once: how long a report takes, and what the hive uses for it, in a process of its own.
//!
//! What all say first is an event for each app; `COMB_LOAD_WARM` seconds of that are not measured. On PostgreSQL `COMB_LOAD_HIVES` processes share
//! the devices. The long form is `COMB_LOAD_DEVICES=1000 COMB_LOAD_APPS=20 COMB_LOAD_SECONDS=300 cargo test --workspace --test server
//! --config 'profile.dev.opt-level=2' --config 'profile.dev.package."*".opt-level=2' -- --ignored many_devices --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_hive::Options;
use serde_json::json;
use tokio::task::JoinSet;

use crate::pages::{Browser, text};
use crate::world::{Machine, Owner, Person, Process, VOLUME, World, databases, uuid};

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Processor time of processes, in seconds; their memory in MiB.
fn used(hives: &[Process]) -> (f64, u64) {
    let each = hives.iter().map(|hive| used_by(hive.id()));
    each.fold((0.0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn used_by(process: u32) -> (f64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<f64> =
        rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse().ok()).collect();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    (fields.iter().sum::<f64>() / 100.0, memory.unwrap_or(0) / 1024)
}

/// An app for each of some devices, as if each had been added and started: rows like those of the one that was.
async fn settle(database: &str, like: &str, apps: &[(String, String, String)]) {
    let postgres = database.starts_with("postgres");
    let bytes = |id: &str| match (id.replace('-', ""), postgres) {
        (hex, true) => format!("'\\x{hex}'::bytea"),
        (hex, false) => format!("x'{hex}'"),
    };
    let mut sql = String::from("BEGIN;");
    for (app, name, device) in apps {
        let (id, device, like, volume) = (bytes(app), bytes(device), bytes(like), volume(app));
        sql.push_str(&format!(
            "INSERT INTO package SELECT account, {id}, revision, authorization_json, signature, body FROM package \
             WHERE account = (SELECT account FROM account) AND app = {like}; INSERT INTO app SELECT account, {id}, '{name}', revision, policy, 1, 1, standby, \
             stores, seal_every_s, '{{\"data\":\"{volume}\"}}', \
             '{{\"{volume}\":{{\"epoch\":1,\"seq\":5,\"writers\":[]}}}}', NULL, {device}, 1, leased, NULL, 0, 0, NULL \
             FROM app WHERE account = (SELECT account FROM account) AND app = {like};"
        ));
    }
    sql.push_str("COMMIT;");
    match database.strip_prefix("sqlite:") {
        Some(path) => {
            let connection = rusqlite::Connection::open(path).expect("it is there");
            connection.execute_batch(&sql).expect("rows are made");
        }
        None => {
            let (client, connection) =
                tokio_postgres::connect(database, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
            tokio::spawn(connection);
            client.batch_execute(&sql).await.expect("rows are made");
        }
    }
}

/// A volume of its own for each app.
fn volume(app: &str) -> String {
    app.replace('-', "").repeat(2)
}

/// Devices that joined, each with so many apps that run there.
async fn fill(
    database: &str,
    options: &Options,
    folder: &Arc<tempfile::TempDir>,
    devices: u64,
    apps: u64,
) -> Vec<Machine> {
    let hive = Process::begin(database);
    let world = hive.world(options.clone(), folder.clone());
    let ada = world.set_up().await;
    let owner = Owner::new(1);
    ada.ring(&owner).await;
    let store = ada.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
    // A token is good for 20 requests a second.
    let mut tokens = Vec::new();
    for _ in 0..(devices / 50).clamp(1, 20) {
        let made = ada.post("/v1/tokens", &json!({"title": "load", "role": "owner"})).await.is(200);
        tokens.push(world.person(made["token"].as_str().expect("has a token")));
    }
    let mut machines = Vec::new();
    for at in 0..devices {
        machines.push(join(&world, &tokens[at as usize % tokens.len()], at).await);
    }
    machines.first_mut().expect("there is one").report().await.is(200);
    let (like, device) = (uuid(), machines.first().expect("there is one").uuid());
    ada.package(&owner, &like, "like", 1).await.is(201);
    let add = json!({
        "app": like, "revision": 1, "device": device, "policy": "manual", "stores": [store["id"]], "start": false
    });
    ada.post("/v1/apps", &add).await.is(202);
    // The rows of the others are put in while no hive runs.
    drop(hive);
    let mut rows = Vec::new();
    for (at, machine) in machines.iter_mut().enumerate() {
        for number in 0..apps {
            let app = uuid();
            machine.has(&app, &json!(1), "running", None, Some((1, 5)));
            machine.apps.last_mut().expect("it has it")["volumes"][0]["volume"] = json!(volume(&app));
            rows.push((app, format!("a{at}-{number}"), machine.uuid()));
        }
    }
    settle(database, &like, &rows).await;
    machines
}

async fn load(devices: u64, apps: u64, seconds: u64, every: Duration) -> Vec<Duration> {
    let (database, folder) = databases().await.pop().expect("there is one");
    println!("on {}", database.split(':').next().unwrap_or_default());
    let options = Options::new(database.as_str(), "127.0.0.1:0".parse().expect("is an address"));
    let mut machines = fill(&database, &options, &folder, devices, apps).await;
    let processes = if database.starts_with("postgres") { setting("COMB_LOAD_HIVES", 1) } else { 1 };
    let hives: Vec<Process> = (0..processes).map(|_| Process::begin(&database)).collect();
    let worlds: Vec<World> = hives.iter().map(|hive| hive.world(options.clone(), folder.clone())).collect();
    let mut twins = Vec::new();
    for (machine, world) in machines.iter_mut().zip(worlds.iter().cycle()) {
        machine.line = world.line();
        twins.push(machine.twin(world));
    }
    let times = run(machines, twins, &hives, seconds, every).await;
    if let Some(path) = database.strip_prefix("sqlite:") {
        // Of each app what its own device said last was kept.
        let connection = rusqlite::Connection::open(path).expect("it is there");
        let sql = "SELECT count(*), count(DISTINCT known), sum(known LIKE '%\"seq\":5,%') FROM app WHERE name <> 'like'";
        let found = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (all, different, old): (u64, u64, u64) = found.expect("it is counted");
        assert_eq!((all, different, old), (devices * apps, devices * apps, 0));
    }
    times
}

/// Lets all report, and their twins ask for commands all the while.
async fn run(
    machines: Vec<Machine>,
    twins: Vec<Machine>,
    hives: &[Process],
    seconds: u64,
    every: Duration,
) -> Vec<Duration> {
    let devices = machines.len();
    let mut asking = JoinSet::new();
    for mut twin in twins {
        asking.spawn(async move {
            loop {
                twin.commands().await;
            }
        });
    }
    // All say once what they have: afterwards only what changes is written.
    let mut running = JoinSet::new();
    let begun = Instant::now();
    let warm = Duration::from_secs(setting("COMB_LOAD_WARM", 0)).max(every);
    for (at, mut machine) in machines.into_iter().enumerate() {
        running.spawn(async move {
            let mut next = tokio::time::Instant::now() + every.mul_f64(at as f64 / devices as f64);
            let (mut times, mut seq) = (Vec::new(), 5u64);
            while begun.elapsed() < warm + Duration::from_secs(seconds) {
                tokio::time::sleep_until(next).await;
                next += every;
                seq += 1;
                for app in &mut machine.apps {
                    app["volumes"][0]["seq"] = json!(seq);
                    app["volumes"][0]["replicated_seq"] = json!(seq);
                }
                let sent = Instant::now();
                let answer = machine.report().await.is(200);
                if seq > 6 && begun.elapsed() >= warm {
                    times.push((begun.elapsed().saturating_sub(warm), sent.elapsed()));
                }
                let (granted, apps) = (answer["granted"].as_array().map(Vec::len), machine.apps.len());
                assert_eq!(granted, Some(apps), "each of its terms goes on");
            }
            times
        });
    }
    tokio::time::sleep(warm).await;
    let ((before, memory), measured) = (used(hives), Instant::now());
    let mut told: Vec<(Duration, Duration)> = Vec::new();
    let stretch = Duration::from_secs((seconds / 10).max(1));
    let mut looks = Vec::new();
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            done = running.join_next() => match done {
                Some(done) => told.extend(done.expect("a device reported")),
                None => break,
            },
            _ = look.tick() => looks.push((measured.elapsed(), used(hives))),
        }
    }
    let wall = measured.elapsed().as_secs_f64();
    let times = sorted(told.iter().map(|(_, took)| *took));
    // What a stretch of a machine that was busy with something else, or stood still, did to the whole.
    for number in 0.. {
        let (from, to) = (stretch * number, stretch * (number + 1));
        let within = |at: &Duration| (from..to).contains(at);
        let part = sorted(told.iter().filter(|(at, _)| within(at)).map(|(_, took)| *took));
        let Some((_, (_, now))) = looks.iter().rfind(|(at, _)| within(at)) else { break };
        if !part.is_empty() {
            println!("from {from:?} on: {}; memory {now} MiB", percentiles(&part));
        }
    }
    let (after, grown) = looks.last().expect("it was looked at").1;
    let most = looks.iter().map(|(_, (_, now))| *now).max().unwrap_or(memory);
    println!(
        "{} hives, {} reports in {wall:.0} s: {}; they used {:.2} cores ({:.2} ms of processor a report); memory {memory} MiB, \
         {grown} at the end, {most} at most; load {}",
        hives.len(),
        times.len(),
        percentiles(&times),
        (after - before) / wall,
        (after - before) * 1000.0 / times.len() as f64,
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    );
    asking.abort_all();
    times
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times
}

/// Of sorted times, of which there is at least one.
fn percentiles(times: &[Duration]) -> String {
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    format!("p50 {:.1?}, p99 {:.1?}, most {:.1?}", at(0.5), at(0.99), at(1.0))
}

async fn join(world: &World, ada: &Person, at: u64) -> Machine {
    let made = ada.post("/v1/device-codes", &json!({"name": format!("d{at}")})).await;
    let made = made.is(200);
    let code =
        orchestrator_api::code::JoinCode::parse(made["code"].as_str().expect("a code")).expect("is a code");
    let mut machine = Machine::new(world);
    // A proxy tells another address of each device: joins of one are limited.
    machine.forwarded = Some(format!("10.0.{}.{}", at / 200, at % 200 + 1));
    machine.join(&code, "d").await.is(201);
    machine.hello().await.is(200);
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn some_devices_report_in_time() {
    assert_eq!(VOLUME.len(), volume(&uuid()).len());
    let times = load(8, 40, 10, Duration::from_millis(500)).await;
    assert!(times.len() > 80, "{}", times.len());
    // A machine that builds beside may be slow; what must not happen is that reports wait for each other.
    assert!(times[times.len() / 2] < Duration::from_millis(500), "{:?}", times[times.len() / 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_full_of_apps_is_shown_with_all_of_them() {
    let (database, folder) = databases().await.remove(0);
    let options = Options::new(database.as_str(), "127.0.0.1:0".parse().expect("is an address"));
    let mut machine = fill(&database, &options, &folder, 1, 200).await.remove(0);
    let hive = Process::begin(&database);
    let world = hive.world(options, folder);
    machine.line = world.line();
    machine.report().await.is(200);
    let mut ada = Browser::log_in(&world, "ada", "a long password").await;
    for (path, shown) in [("/".to_owned(), 60), (format!("/devices/{}", machine.uuid()), 200)] {
        let asked = Instant::now();
        let page = text(&ada.get(&path).await);
        let took = asked.elapsed();
        let named =
            (0..200).filter(|number| page.contains(&format!("<bdi class=\"name\">a0-{number}</bdi>")));
        assert_eq!(named.count(), shown, "{path}");
        // Where the device's report is read for each app anew, it takes many times as long.
        assert!(took < Duration::from_secs(10), "{path} took {took:?}");
    }
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
