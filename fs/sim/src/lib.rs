//! Deterministic simulation: a disk that fails on purpose, and a model that knows what must survive.
//!
//! - [`SimDisk`] is a disk in memory with power cuts, torn and reordered writes, `EIO` and `ENOSPC`.
//! - [`Model`] is a filesystem so simple that it is obviously right.
//! - [`workload`] makes sequences of operations that collide often.
//! - [`Dump`] is all that can be seen of a tree, to compare a volume with the model.
//! - [`Stage`] runs one against the other; [`trial`] holds the trials and shrinks what fails.
//! - [`VolumeOpener`] brings the real engine.
//! - [`Engine`] is what the stage needs of a volume; [`Notebook`] is a toy that has it, with and without
//!   flaws, because a trial that finds nothing in a broken engine proves nothing about a good one.
//!
//! The same seed gives the same run: clock, chance and disk all come from here.

mod content;
mod dice;
mod disk;
mod dump;
mod engine;
mod model;
mod notebook;
mod stage;
pub mod trial;
mod volume;
pub mod workload;
mod world;

pub use content::Content;
pub use dice::Dice;
pub use disk::{Fault, FaultKind, Image, Io, IoKind, SECTOR_BYTES, SimDisk};
pub use dump::{Dump, Entry, damage, dump};
pub use engine::{Engine, Opener};
pub use model::{Model, Refused};
pub use notebook::{Flaw, Notebook, NotebookOpener};
pub use stage::{Problem, Stage, Step};
pub use volume::VolumeOpener;
pub use world::{SimChance, SimClock, env};
