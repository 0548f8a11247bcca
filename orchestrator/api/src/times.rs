//! The numbers of `failover.md`, section 3, in milliseconds.

/// A device's reports.
pub const REPORT_EVERY: u64 = 10_000;
/// A report when a phase changed, at most this often.
pub const REPORT_SOON: u64 = 1_000;
/// A report after one that was not answered.
pub const REPORT_AGAIN: u64 = 5_000;
/// The app is stopped, from sending, on the device's clock.
pub const LEASE_STOP: u64 = 32_000;
/// Volumes refuse writes, from sending, on the device's clock.
pub const LEASE_END: u64 = 44_500;
/// The term may be ended, on the hive's clock.
pub const LEASE_OVER: u64 = 46_500;
/// Volumes are claimed and mounted only with a renewal that was sent at most so long ago.
pub const LEASE_FRESH: u64 = 12_000;
/// Containers are started only with so much of the lease left.
pub const LEASE_LEFT: u64 = 20_000;
/// How often the scheduler looks.
pub const WATCH_EVERY: u64 = 1_000;
/// A longer pause of its own looks begins every watch anew.
pub const WATCH_GAP_MAX: u64 = 5_000;
/// A device without a report for so long gets nothing new.
pub const FRESH: u64 = 15_000;
/// A device without a report for so long is silent, and that is told.
pub const SILENT_AFTER: u64 = 30_000;
/// What waits for a device that is silent for so long ends, or takes the way back.
pub const SILENT_OVER: u64 = 40_000;
/// A `manual` app is started without the hive then, after a boot.
pub const WAIT_FOR_HIVE: u64 = 60_000;
/// How long a start tries to reach the store.
pub const WAIT_FOR_STORE: u64 = 60_000;
/// Claims of one start.
pub const CLAIMS_MAX: u32 = 3;
/// How long a hand over or a stop publishes.
pub const PUBLISH_WAIT: u64 = 120_000;
/// Before something that failed is tried again.
pub const RETRY_AFTER: u64 = 5_000;
/// Before a tail is looked at again.
pub const SETTLE_AGAIN: u64 = 30_000;
/// The wait of a `prepare`.
pub const PREPARE_WAIT: u64 = 900_000;
/// How long a failover waits for a candidate to stand by, before it asks the next one.
pub const PREPARE_WAIT_FAILOVER: u64 = 120_000;
/// The wait of a `hand_over`: grace, and the publishing.
pub const HAND_OVER_WAIT: u64 = 180_000;
/// The wait of a `start`: claims, mounts, checks; the app's own wait for its health comes on top.
pub const START_WAIT: u64 = 150_000;
/// For how long an app may get healthy, if it does not say.
pub const GATE_WAIT: u64 = 60_000;
/// The wait of a take back.
pub const TAKE_BACK_WAIT: u64 = 60_000;
/// Before a failover without a candidate is begun again.
pub const FAILOVER_AGAIN: u64 = 60_000;
