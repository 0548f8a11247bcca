//! The pages: one module and one template each.

mod activity;
mod app;
mod app_moments;
mod catalog;
mod confirm;
mod devices;
mod enter;
mod error;
mod home;
mod me;
mod moving;
mod once;
mod onward;
pub mod own;
mod settings;

pub use activity::{Activity, Chain, Happened, Running};
pub use app::{
    ActionRow, App, AppAction, AppEvent, AppHead, AppHistory, AppRunning, AppSettings, AppStore, Container,
    Data, Kept, Trouble, order,
};
pub use app_moments::{AppFork, AppMoments, Day, Moment};
pub use catalog::{Catalog, Choice, Install, Offer, Part, Picture, parts};
pub use confirm::Confirm;
pub use devices::{AddDevice, AppRow, Device, DeviceRow, Devices, NewDevice, VolumeRow};
pub use enter::{Accept, Login, Setup};
pub use error::Error;
pub use home::{Alert, Home, Tile};
pub use me::{Me, Second, SessionRow};
pub use moving::{AppForce, AppMove, Step, Working};
pub use once::Once;
pub use onward::Onward;
pub use settings::{ChannelRow, InviteRow, PersonRow, RetentionRow, Settings, StoreRow, TokenRow};
