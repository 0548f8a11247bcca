//! Benchmarks live in `benches/`; this file is empty on purpose.
