//! Deterministic simulation: a disk that fails on purpose, and a model that knows what must survive.
