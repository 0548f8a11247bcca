//! How fast a store is: `cargo run --release -p fs-store --example speed -- URL`, with credentials around it.
//!
//! Makes objects below `speed/` in the store, and removes them.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fs_store::{Name, Patience, Patient, Store, StoreError, Surroundings, Url, open};
use tokio::task::JoinSet;

/// Requests at once.
const AT_ONCE: usize = 16;
const SMALL: usize = 2_000;
const SMALL_BYTES: usize = 4 << 10;
const LARGE: usize = 48;
const LARGE_BYTES: usize = 16 << 20;
const RANGES: usize = 4_000;
const RANGE_BYTES: u64 = 64 << 10;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("usage: speed URL");
        return ExitCode::from(2);
    };
    match measure(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let url: Url = url.parse()?;
    let store = Patient::new(open(&url, &Surroundings::of_process()).await?, 1).with(Patience::Once);
    let body = |number: usize, size: usize| -> Bytes {
        let mut state = number as u64 + 1;
        let mut bytes = Vec::with_capacity(size);
        while bytes.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&(state >> 16).to_le_bytes()[..4]);
        }
        bytes.into()
    };
    let large: Arc<Vec<Bytes>> = Arc::new((0..4).map(|number| body(number, LARGE_BYTES)).collect());

    let seconds = each(&store, SMALL, move |store, number| async move {
        store.create(&name("small", number), body(number, SMALL_BYTES)).await
    });
    println!("create of {SMALL_BYTES} bytes: {:.0}/s", SMALL as f64 / seconds.await?);
    let seconds = each(&store, LARGE, move |store, number| {
        let bytes = large[number % 4].clone();
        async move { store.create(&name("large", number), bytes).await }
    });
    let mib = (LARGE * LARGE_BYTES) as f64 / f64::from(1 << 20);
    println!("create of {LARGE_BYTES} bytes: {:.0} MiB/s", mib / seconds.await?);
    let seconds = each(&store, RANGES, |store, number| async move {
        let from = (number as u64 * 7919) % (LARGE_BYTES as u64 / RANGE_BYTES) * RANGE_BYTES;
        let found = store.get_range(&name("large", number % LARGE), from..from + RANGE_BYTES).await?;
        assert_eq!(found.len() as u64, RANGE_BYTES);
        Ok(())
    });
    println!("get of a range of {RANGE_BYTES} bytes: {:.0}/s", RANGES as f64 / seconds.await?);
    each(&store, SMALL, |store, number| async move { store.remove(&name("small", number)).await }).await?;
    each(&store, LARGE, |store, number| async move { store.remove(&name("large", number)).await }).await?;
    Ok(())
}

fn name(of: &str, number: usize) -> Name {
    Name::new(format!("speed/{of}/{number:05}")).expect("a good name")
}

/// Seconds for so many requests.
async fn each<F: Future<Output = Result<(), StoreError>> + Send + 'static>(
    store: &Patient,
    count: usize,
    one: impl Fn(Patient, usize) -> F + Clone + Send + 'static,
) -> Result<f64, StoreError> {
    let began = Instant::now();
    let mut lanes = JoinSet::new();
    for lane in 0..AT_ONCE {
        let (store, one) = (store.clone(), one.clone());
        lanes.spawn(async move {
            for number in (lane..count).step_by(AT_ONCE) {
                one(store.clone(), number).await?;
            }
            Ok(())
        });
    }
    for done in lanes.join_all().await {
        done?;
    }
    Ok(began.elapsed().as_secs_f64())
}
