//! The end of the time in which an engine may be changed.
//!
//! The engine refuses each change after it. What was begun before and is done after is refused here, before it is answered
//! for: nobody shall believe that it counts. And `write`, which the kernel answers by itself where it keeps written pages,
//! tells too, by the means of [`crate::full`].

use std::time::Duration;

use fuser::Errno;

use crate::engine::Engine;
use crate::errno::Refusal;

/// Whether an engine may be changed no more.
pub(crate) fn is_over<E: Engine>(engine: &E) -> bool {
    engine.time_left() == Some(Duration::ZERO)
}

/// Refuses what is only answered after the end.
pub(crate) fn require_time<E: Engine>(engine: &E) -> Result<(), Refusal> {
    if is_over(engine) { Err(Errno::EROFS.into()) } else { Ok(()) }
}
