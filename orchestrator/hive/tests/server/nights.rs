//! The backup of the night.

use std::time::{Duration, Instant};

use orchestrator_hive::Options;
use serde_json::Value;

use crate::world::{World, databases};

fn backups(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<_> = entries.map(|entry| entry.expect("can be read").path()).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_once_a_day_and_the_last_seven_are_kept() {
    for (database, folder) in databases().await {
        let nights = folder.path().join(format!("nights-{}", crate::world::fresh()));
        std::fs::create_dir_all(&nights).expect("there is a disk");
        // Older ones, and something that is none of the hive's.
        let old = std::time::SystemTime::now() - Duration::from_secs(100_000);
        for day in 1..=8 {
            let file = nights.join(format!("hive-2026-10-0{day}T03-00-00.000Z.comb"));
            std::fs::write(&file, b"old").expect("is written");
            let file = std::fs::File::options().write(true).open(&file).expect("is there");
            file.set_modified(old).expect("has a time");
        }
        let others = ["hive-2026-10-01.comb", "hive-before-tables-5.comb", "hive-photos.comb", "notes.txt"];
        for other in others {
            std::fs::write(nights.join(other), b"a person's").expect("is written");
        }
        // What a crash left of one is no backup, and is removed.
        let part = nights.join("hive-2026-10-08T04-00-00.000Z.comb.0123456789abcdef.part");
        std::fs::write(&part, b"half of it").expect("is written");
        let mut options = Options::new(database.as_str(), "127.0.0.1:0".parse().expect("is an address"));
        options.backups = Some(nights.clone());
        let world = World::with(options, folder.clone()).await;
        let ada = world.set_up().await;
        let until = Instant::now() + Duration::from_secs(20);
        let made = loop {
            let all = backups(&nights);
            let new = all.iter().find(|path| std::fs::metadata(path).is_ok_and(|file| file.len() > 100));
            if let (Some(new), 11) = (new, all.len()) {
                break new.clone();
            }
            assert!(Instant::now() < until, "{all:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(others.iter().all(|other| nights.join(other).exists()), "{:?}", backups(&nights));
        assert!(!part.exists(), "{:?}", backups(&nights));
        // A hive that begins again makes no other one the same day, so the nights before are not pushed out.
        let mut world = world.again().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(backups(&nights).len(), 11);
        world.end().await;
        // It is a backup: whoever restores it has the hive as it was that night.
        let restored = folder.path().join(format!("restored-{}.db", crate::world::fresh()));
        let restored = format!("sqlite:{}", restored.display());
        orchestrator_hive::restore_from(&restored, &made).await.expect("it is restored");
        let mut again = World::on(&restored, folder).await;
        assert_eq!(again.key, world.key);
        // Who had a token logs in anew.
        let me = again.person(&ada.token).ask("GET", "/v1/me", &Value::Null, &[]).await;
        me.fails(401, "not_logged_in");
        again.end().await;
    }
}

/// Tables that an older comb made are changed in place, after a backup; what is in them stays.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_is_taken_over_after_a_backup() {
    let (database, folder) = crate::world::databases().await.remove(0);
    let mut world = World::on(&database, folder.clone()).await;
    world.set_up().await;
    world.end().await;
    let file = database.strip_prefix("sqlite:").expect("is a file");
    let old = rusqlite::Connection::open(file).expect("opens");
    for table in ["session", "second", "samples", "channel", "trouble", "former", "former_app", "life"] {
        old.execute(&format!("DROP TABLE {table}"), []).expect("is there");
    }
    old.execute("UPDATE hive SET schema = 1", []).expect("is a hive");
    drop(old);
    let world = World::on(&database, folder.clone()).await;
    let login = serde_json::json!({"name": "ada", "password": "a long password"});
    world.nobody("POST", "/v1/login", &login).await.is(200);
    let kept = folder.path().join("hive-before-tables-5.comb");
    assert!(std::fs::metadata(&kept).is_ok_and(|file| file.len() > 100), "a backup was made first");
    let other = format!("sqlite:{}", folder.path().join("other.db").display());
    orchestrator_hive::restore_from(&other, &kept).await.expect("it is a backup that this comb reads");
}
