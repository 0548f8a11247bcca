//! Moves packs and manifests between a volume's folder and its stores, and says who may go on writing.
//!
//! `fs/docs/replication.md` is what this crate does. It knows no keys: it sees objects whose names and
//! signatures anyone can check, and asks whoever holds the keys for what must be signed ([`Signer`]). What
//! is to be replicated it asks of the engine ([`Local`]).
//!
//! | part | what |
//! |---|---|
//! | `names` | what a volume's objects are called |
//! | `local` | what is asked of the engine and of the keys |
//! | `remote` | one volume in one store: checked objects, bounded requests |
//! | `head` | what a store says is newest, and whether that follows what was seen before |
//! | `commit` | the one step by which a seal is replicated |
//! | `claim` | taking a volume over |
//! | `collect` | removing what a volume has given up |
//! | `attach` | knowing a store again |
//! | `rings` | key rings in a store, which this crate cannot open |
//! | `audit` | looking at all that a store holds, and putting back what it lost |
//! | `rules` | what the checker breaks on purpose |
//! | `lazy` | reading from afar: packs by windows, and filling |
//! | `upload`, `progress` | the queue that replicates one volume to one store, and what it tells |

mod attach;
mod audit;
mod claim;
mod collect;
mod commit;
mod error;
mod head;
mod lazy;
mod local;
mod names;
mod progress;
mod remote;
mod rings;
mod rules;
mod upload;

#[cfg(test)]
mod tests;

pub use attach::{Attached, StoreId};
pub use audit::Inventory;
pub use claim::{ClaimError, Cut};
pub use collect::{Collected, GivenUp};
pub use commit::{Fence, Fenced};
pub use error::Error;
pub use head::{Head, Link, Slot, Verdict};
pub use lazy::{
    Far, Filled, Limits, Newest, NewestError, REQUEST_BYTES_MAX, Room, WINDOW_BYTES, WINDOWS, Windows,
};
pub use local::{Commit, Early, Held, Local, LocalError, Signer};
pub use names::{Fencing, Names};
pub use progress::{Handle, NotReplicated, Pending, Progress, State, Trouble};
pub use remote::Remote;
pub use rings::{Published, RingVersion, Rings};
pub use upload::{LOOK_EVERY, Pace, Role, STAND_AGAIN, STAND_REQUESTS, Settings, Uploader};
