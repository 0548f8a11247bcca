//! What hive, devices and people say to each other, and what an app may ask for.
//!
//! Values in, values out: no I/O, no clock, no chance, no key that opens anything. `orchestrator/docs/api.md` and
//! `security.md` are normative. Every reader bounds what it takes before it makes anything of it, and never panics on
//! foreign bytes.

pub mod code;
pub mod command;
pub mod compose;
pub mod error;
pub mod history;
pub mod ids;
pub mod names;
pub mod package;
pub mod permission;
pub mod placement;
pub mod proof;
pub mod release;
pub mod report;
pub mod request;
pub mod route;
pub mod text;
pub mod times;
pub mod wire;
pub mod yaml;
