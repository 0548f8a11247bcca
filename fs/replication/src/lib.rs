//! Moves packs and manifests between a volume's folder and its stores, and says who may go on writing.
//!
//! `fs/docs/replication.md` is what this crate does. It knows no keys: it sees objects whose names and
//! signatures anyone can check, and asks whoever holds the keys for what must be signed.
