//! What everything rests on, in bytes per second. Copying is the reference for all others.

use criterion::{BenchmarkId, Criterion, Throughput};
use fs_crypto::Suite;

use crate::stage::{KINDS, each, key, noise};

/// A page, and what chunks tend to.
const SIZES: [usize; 2] = [4 << 10, 128 << 10];
/// What the engine compresses with.
const LEVEL: i32 = 1;

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ciphers");
    let read = key().read_key();
    for size in [4 << 10, 128 << 10, 16 << 20] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("memcpy", size), |bencher| {
            let (from, mut to) = (noise(1, size), vec![0; size]);
            each(bencher, || to.copy_from_slice(std::hint::black_box(&from)));
        });
    }
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        for (suite, name) in
            [(Suite::Aes256Gcm, "AES-256-GCM"), (Suite::ChaCha20Poly1305, "ChaCha20-Poly1305")]
        {
            let cipher = read.pack_cipher(suite, 1, &[3; 32]);
            group.bench_function(BenchmarkId::new(format!("encrypt, {name}"), size), |bencher| {
                let mut bytes = noise(2, size);
                // The same nonce again and again: nothing of this is stored.
                each(bencher, || cipher.seal(1, b"associated", &mut bytes));
            });
            group.bench_function(BenchmarkId::new(format!("decrypt, {name}"), size), |bencher| {
                let mut sealed = noise(2, size);
                let tag = cipher.seal(1, b"associated", &mut sealed);
                let mut bytes = sealed.clone();
                // Decrypting is in place, so what was encrypted is copied there first: 128 KiB take a fiftieth of the time.
                each(bencher, || {
                    bytes.copy_from_slice(&sealed);
                    cipher.open(1, b"associated", &mut bytes, &tag).expect("what was sealed opens");
                });
            });
        }
        group.bench_function(BenchmarkId::new("hash, BLAKE3", size), |bencher| {
            let bytes = noise(3, size);
            each(bencher, || blake3::hash(&bytes));
        });
        group.bench_function(BenchmarkId::new("name a chunk, keyed BLAKE3", size), |bencher| {
            let (bytes, names) = (noise(3, size), read.chunk_names());
            each(bencher, || names.name(&bytes));
        });
        for (kind, make) in KINDS {
            let plain = make(4, size);
            group.bench_function(
                BenchmarkId::new(format!("compress, zstd {LEVEL}, {kind}"), size),
                |bencher| {
                    let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("zstd starts");
                    let mut out = Vec::with_capacity(2 * size);
                    each(bencher, || {
                        out.clear();
                        compressor.compress_to_buffer(&plain, &mut out).expect("there is room")
                    });
                },
            );
        }
        group.bench_function(BenchmarkId::new("decompress, zstd, half noise", size), |bencher| {
            let plain = KINDS[1].1(4, size);
            let packed = zstd::bulk::compress(&plain, LEVEL).expect("zstd compresses");
            let mut decompressor = zstd::bulk::Decompressor::new().expect("zstd starts");
            let mut out = Vec::with_capacity(2 * size);
            each(bencher, || {
                out.clear();
                decompressor.decompress_to_buffer(&packed, &mut out).expect("there is room")
            });
        });
    }
    group.finish();
}
