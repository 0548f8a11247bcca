//! How things are shown: everybody uses these, so that a second is a second on all pages.

mod form;
mod graph;
mod health;
mod hostile;
mod html;
mod problem;
mod progress;
mod qr;
mod shell;
mod size;
mod time;

pub use form::{Choice, Field, Kind};
pub use graph::{Graph, Line, Unit};
pub use health::{Health, health};
pub use hostile::{name, name_bytes};
pub use html::{Html, escape};
pub use problem::problem;
pub use progress::{Counted, Progress, capital, words};
pub use qr::qr;
pub use shell::quoted;
pub use size::{bytes, percent, rate};
pub use time::{ago, as_of, clock, exact, lasting, span, until, when};
