//! One target a decoder, in the order of `fs/docs/format.md` and `replication.md`.

use fs_crypto::VolumeKey;

use crate::outcome::Outcome;

mod boundary;
mod claim;
mod dirent;
mod extent;
mod frame_header;
mod inode;
mod key;
mod key_file;
mod ledger;
mod manifest;
mod manifest_body;
mod node;
mod pack_directory;
mod pack_header;
mod pack_page;
mod pack_payload;
mod pack_trailer;
mod record;
mod recovery_kit;
mod ring;
mod ring_body;
mod ring_key;
mod run_header;
mod samples;
mod segment_header;
mod xattr;

/// A decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What the command line calls it.
    pub name: &'static str,
    /// Decodes, and checks what must hold.
    pub run: fn(&[u8]) -> Outcome,
    /// Encodings that decode: where mutations begin.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes checksums and signatures match again, which no mutation would ever guess.
    pub repair: Option<fn(&mut Vec<u8>)>,
}

/// All of them.
pub const ALL: &[Target] = &[
    Target {
        name: "segment-header",
        run: segment_header::run,
        seeds: segment_header::seeds,
        repair: Some(segment_header::repair),
    },
    Target { name: "frame-header", run: frame_header::run, seeds: frame_header::seeds, repair: None },
    Target { name: "record", run: record::run, seeds: record::seeds, repair: None },
    Target { name: "node", run: node::run, seeds: node::seeds, repair: None },
    Target { name: "key", run: key::run, seeds: key::seeds, repair: None },
    Target { name: "inode", run: inode::run, seeds: inode::seeds, repair: None },
    Target { name: "dirent", run: dirent::run, seeds: dirent::seeds, repair: None },
    Target { name: "xattr", run: xattr::run, seeds: xattr::seeds, repair: None },
    Target { name: "extent", run: extent::run, seeds: extent::seeds, repair: None },
    Target { name: "pack-header", run: pack_header::run, seeds: pack_header::seeds, repair: None },
    Target { name: "pack-directory", run: pack_directory::run, seeds: pack_directory::seeds, repair: None },
    Target { name: "pack-trailer", run: pack_trailer::run, seeds: pack_trailer::seeds, repair: None },
    Target { name: "pack-payload", run: pack_payload::run, seeds: pack_payload::seeds, repair: None },
    Target { name: "manifest", run: manifest::run, seeds: manifest::seeds, repair: Some(manifest::repair) },
    Target { name: "manifest-body", run: manifest_body::run, seeds: manifest_body::seeds, repair: None },
    Target { name: "pack-page", run: pack_page::run, seeds: pack_page::seeds, repair: None },
    Target { name: "moment", run: ledger::moment, seeds: ledger::moments, repair: None },
    Target { name: "pack-fate", run: ledger::fate, seeds: ledger::fates, repair: None },
    Target { name: "pack-moved", run: ledger::moved, seeds: ledger::all_moved, repair: None },
    Target { name: "policy", run: ledger::policy, seeds: ledger::policies, repair: None },
    Target {
        name: "run-header",
        run: run_header::run,
        seeds: run_header::seeds,
        repair: Some(run_header::repair),
    },
    Target { name: "claim", run: claim::run, seeds: claim::seeds, repair: Some(claim::repair) },
    Target { name: "boundary", run: boundary::run, seeds: boundary::seeds, repair: Some(boundary::repair) },
    Target { name: "ring", run: ring::run, seeds: ring::seeds, repair: Some(ring::repair) },
    Target { name: "ring-body", run: ring_body::run, seeds: ring_body::seeds, repair: None },
    Target { name: "ring-key", run: ring_key::run, seeds: ring_key::seeds, repair: None },
    Target { name: "recovery-kit", run: recovery_kit::run, seeds: recovery_kit::seeds, repair: None },
    Target { name: "key-file", run: key_file::run, seeds: key_file::seeds, repair: Some(key_file::repair) },
];

/// Brings the volume, which claims and boundaries have from byte 16 on, and the signature at the end in line with
/// the rest.
fn sign(key: &VolumeKey, context: &str, input: &mut [u8]) {
    let Some(signed) = input.len().checked_sub(64).filter(|signed| *signed >= 48) else { return };
    input[16..48].copy_from_slice(&key.id().0);
    let signature = key.sign(context, &input[..signed]);
    input[signed..].copy_from_slice(&signature);
}

/// A number's size, coarse enough for a shape.
fn magnitude(count: usize) -> u64 {
    u64::from(usize::BITS - count.leading_zeros())
}
