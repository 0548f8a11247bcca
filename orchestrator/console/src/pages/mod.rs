//! The pages: one module and one template each.

mod activity;
mod confirm;
mod devices;
mod enter;
mod error;
mod home;
mod me;
mod once;
mod onward;
mod settings;

pub use activity::{Activity, Happened, Running};
pub use confirm::Confirm;
pub use devices::{AddDevice, AppRow, Device, DeviceRow, Devices, NewDevice, VolumeRow};
pub use enter::{Accept, Login, Setup};
pub use error::Error;
pub use home::{Alert, Home, Tile};
pub use me::{Me, Second, SessionRow};
pub use once::Once;
pub use onward::Onward;
pub use settings::{ChannelRow, InviteRow, PersonRow, RetentionRow, Settings, StoreRow, TokenRow};
