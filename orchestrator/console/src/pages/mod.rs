//! The pages: one module and one template each.

mod confirm;
mod enter;
mod error;
mod home;
mod onward;

pub use confirm::Confirm;
pub use enter::{Login, Setup};
pub use error::Error;
pub use home::{Alert, Home, Tile};
pub use onward::Onward;
