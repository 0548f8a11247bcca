//! Tests that need the whole: architecture, real mounts, real applications.

pub mod history;
