//! Every kind of store against one suite.

use std::sync::Arc;

use fs_store::{Folder, Memory, Prefix, conformance};

fn under(text: &str) -> Prefix {
    Prefix::new(text).expect("a good prefix")
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::run(Arc::new(Memory::default()), Prefix::all()).await;
    conformance::run(Arc::new(Memory::default()), under("v/00/")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_conforms() {
    let place = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Folder::open(place.path()).await.expect("opened"));
    conformance::run(store.clone(), Prefix::all()).await;
    conformance::run(store, under("v/00/")).await;
}
