//! `comb`, the one binary.

fn main() {}
