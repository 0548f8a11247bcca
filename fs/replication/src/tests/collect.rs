//! What is removed from a store, and what stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use fs_format::{Epoch, ManifestId, Seq};
use fs_store::{Memory, Prefix, Store};

use super::world::{Machine, boundary, manifest, pack, volume};
use crate::{GivenUp, Remote};

async fn world(slots: u64) -> (Memory, Remote) {
    let memory = Memory::default();
    let remote = Remote::new(Arc::new(memory.clone()), volume());
    for seq in 1..=slots {
        let name = remote.names().slot(Seq(seq));
        memory.create(&name, manifest(1, seq, ManifestId([0; 32]), 1)).await.expect("a slot");
    }
    (memory, remote)
}

async fn names(memory: &Memory, remote: &Remote) -> (BTreeSet<u64>, Vec<String>) {
    let all = memory.list(&Prefix::all(), None, 10_000).await.expect("listed");
    let slots =
        all.iter().filter_map(|entry| remote.names().read_slot(&entry.name)).map(|seq| seq.0).collect();
    let others = all.iter().filter(|entry| remote.names().read_slot(&entry.name).is_none());
    (slots, others.map(|entry| entry.name.as_str().rsplit('/').next().unwrap_or("").to_owned()).collect())
}

fn given_up(boundary: u64, kept: impl IntoIterator<Item = u64>) -> GivenUp {
    let kept = kept.into_iter().map(Seq).collect();
    GivenUp { packs: Vec::new(), boundary: Some(Seq(boundary)), kept }
}

#[tokio::test]
async fn slots_of_kept_moments_stay_and_so_does_the_newest() {
    let (memory, remote) = world(2500).await;
    let machine = Machine::new(1);
    let collected = remote.collect(Epoch(1), &*machine, &given_up(2400, [7, 2300])).await.expect("collected");
    assert_eq!(collected.slots, 2398);
    let (slots, others) = names(&memory, &remote).await;
    assert_eq!(slots, [7, 2300].into_iter().chain(2401..=2500).collect());
    assert_eq!(others.len(), 1, "a boundary: {others:?}");

    // Further on: one boundary is enough. Beyond the newest there is none.
    let collected = remote.collect(Epoch(1), &*machine, &given_up(9999, [7])).await.expect("collected");
    assert_eq!(collected.slots, 100);
    let (slots, others) = names(&memory, &remote).await;
    assert_eq!(slots, [7, 2500].into());
    assert_eq!(others, [remote.names().boundary(Seq(2499)).as_str().rsplit('/').next().expect("a name")]);

    // Nothing to remove: nothing is written.
    let before = memory.list(&Prefix::all(), None, 100).await.expect("listed");
    assert_eq!(remote.collect(Epoch(1), &*machine, &given_up(2499, [7])).await.expect("collected").slots, 0);
    assert_eq!(memory.list(&Prefix::all(), None, 100).await.expect("listed"), before);
}

#[tokio::test]
async fn a_higher_boundary_stays_and_lower_ones_go() {
    let (memory, remote) = world(9).await;
    for seq in [2, 3, 8] {
        let name = remote.names().boundary(Seq(seq));
        memory.create(&name, boundary(Epoch(1), Seq(seq))).await.expect("a boundary");
    }
    let collected = remote.collect(Epoch(2), &*Machine::new(1), &given_up(5, [1])).await.expect("collected");
    assert_eq!(collected.slots, 4);
    let (slots, others) = names(&memory, &remote).await;
    assert_eq!(slots, [1, 6, 7, 8, 9].into());
    assert_eq!(others, [remote.names().boundary(Seq(8)).as_str().rsplit('/').next().expect("a name")]);
}

#[tokio::test]
async fn packs_go_and_what_is_gone_already_is_no_error() {
    let (memory, remote) = world(1).await;
    let packs: Vec<_> = (0..40).map(|number| pack(number, 100)).collect();
    for (id, bytes) in &packs {
        memory.create(&remote.names().pack(id), bytes.clone()).await.expect("a pack");
    }
    let packs: Vec<_> = packs.into_iter().map(|(id, _)| id).skip(1).collect();
    let given_up = GivenUp { packs, ..GivenUp::default() };
    for there in [39, 0] {
        let collected = remote.collect(Epoch(1), &*Machine::new(1), &given_up).await.expect("collected");
        assert_eq!(collected.packs, there, "what was there is counted");
    }
    assert_eq!(names(&memory, &remote).await.1.len(), 1, "the pack that was not given up");
}
