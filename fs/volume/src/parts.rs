//! The parts, one by one, for those who measure them: `benches` alone turns the feature on.
//!
//! They show what they are inside of the engine, and may change with it at any time.

pub use crate::chunking::first_content_chunk;
pub use crate::diff::records as differing_records;
pub use crate::journal::recovery::{Recovered, recover};
pub use crate::journal::{Journal, Room, Setting};
pub use crate::keys::Keys;
pub use crate::layers::{Layers, Piece};
pub use crate::manifests::Unwritten;
pub use crate::overlay::Overlay;
pub use crate::store::{Packer, Store};
pub use crate::tree::{Edit, Root, apply, get, scan};
