//! Where to cut: content-defined chunks of a long run, as a seal cuts what was appended or rewritten.

use criterion::{BenchmarkId, Criterion, Throughput};
use fs_volume::parts::first_content_chunk;

use crate::stage::{KINDS, each};

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunking");
    const BYTES: usize = 16 << 20;
    group.throughput(Throughput::Bytes(BYTES as u64));
    for (kind, make) in KINDS {
        group.bench_function(BenchmarkId::new(kind, BYTES), |bencher| {
            let bytes = make(1, BYTES);
            each(bencher, || {
                let (mut at, mut chunks) = (0, 0);
                while at < bytes.len() {
                    at += first_content_chunk(&bytes[at..], 42);
                    chunks += 1;
                }
                chunks
            });
        });
    }
    group.finish();
}
