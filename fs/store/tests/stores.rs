//! Every kind of store against one suite.

use std::sync::Arc;

use fs_store::{
    Faulty, Folder, Kind, Memory, Patient, Prefix, Probe, Store, Surroundings, conformance, open, probe,
};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_store_without_faults_conforms() {
    conformance::run(Arc::new(Faulty::new(Memory::default(), 1)), Prefix::all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_may_be_the_arbiter() {
    let place = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Folder::open(place.path()).await.expect("opened"));
    assert_eq!(probe(store, 1).await, Ok(Probe { unfit: None }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_store_conforms() {
    let store = Arc::new(Patient::new(Arc::new(Memory::default()), 1));
    conformance::run(store.clone(), under("v/00/")).await;
    let status = store.status();
    // The suite asks for what is too large, too.
    assert_eq!(status.last_error.expect("it was seen").0.kind(), Kind::Refused);
    assert!(status.bytes_sent > 5 << 20 && status.bytes_received > 5 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_opens_its_kind() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = format!("file://{}", place.path().display());
    for (text, create_if_absent) in
        [(folder.as_str(), true), ("memory://opened", true), ("https://127.0.0.1:1/dav", false)]
    {
        let url = text.parse().expect("a URL");
        let store = open(&url, &Surroundings::default()).await.expect("opened");
        assert_eq!(store.abilities().create_if_absent, create_if_absent, "{text}");
    }
    let there = open(&"memory://opened".parse().expect("a URL"), &Surroundings::default()).await;
    there
        .expect("opened")
        .create(&under("v/").name("a").expect("a name"), "x".into())
        .await
        .expect("created");
    let here = Memory::named("opened");
    assert_eq!(here.list(&Prefix::all(), None, 9).await.expect("listed").len(), 1);
}
