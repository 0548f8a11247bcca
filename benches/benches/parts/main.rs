//! How fast the parts of the engine are, one by one.
//!
//! `cargo bench -p comb-benches` measures all of them, `cargo bench -p comb-benches -- tree/apply` some; with `--test` at the end
//! each runs a few times to see that it works. `benches/README.md`, "The parts", has the numbers.
//!
//! The world is in memory, but where a name says `disk`: what is measured is the engine, which is the same for all disks. All
//! data come from seeds.
//!
//! | part | what |
//! |---|---|
//! | `ciphers` | what everything rests on: copying, hashing, encrypting, compressing |
//! | `journal` | appending, and making durable, alone and in company |
//! | `overlay` | looking through what is not sealed yet |
//! | `tree` | applying a batch of changes, looking up, telling two trees apart |
//! | `chunking` | where to cut |
//! | `packs` | making packs, and reading frames of them |
//! | `reading` | a chunk from the cache, the disk and a store |
//! | `seal` | a whole seal, by what changed |
//! | `planning` | what is looked through before anything is read or dropped: retention, collection, restoring |

mod chunking;
mod ciphers;
mod journal;
mod overlay;
mod packs;
mod planning;
mod reading;
mod seal;
mod stage;
mod tree;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .configure_from_args();
    let parts: [fn(&mut Criterion); 9] = [
        ciphers::measure,
        journal::measure,
        overlay::measure,
        tree::measure,
        chunking::measure,
        packs::measure,
        reading::measure,
        seal::measure,
        planning::measure,
    ];
    for measure in parts {
        measure(&mut criterion);
    }
    criterion.final_summary();
}
