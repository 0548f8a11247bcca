//! Names as a person writes them, and what a hive calls them.

use std::collections::BTreeMap;

use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::wire::account::Store;
use orchestrator_api::wire::app::App;
use orchestrator_api::wire::device::{Device, DeviceState};

use super::Client;
use crate::failure::{Failure, Kind, Result};
use crate::output;

/// The fewest digits of an id that are taken for its beginning.
const ID_DIGITS_MIN: usize = 4;

/// All apps.
pub fn apps(client: &Client) -> Result<Vec<App>> {
    client.list("/v1/apps")
}

/// All devices.
pub fn devices(client: &Client) -> Result<Vec<Device>> {
    client.list("/v1/devices")
}

/// The account's stores.
pub fn stores(client: &Client) -> Result<Vec<Store>> {
    client.list("/v1/stores")
}

/// The app of a name, or of an id or its beginning.
pub fn app(client: &Client, name: &str) -> Result<App> {
    choose(apps(client)?, name, "app", "`comb app list` lists them", |app| (&app.name, app.id.to_string()))
}

/// The device of a name, or of an id or its beginning. Of several of one name, one that was not revoked.
pub fn device(client: &Client, name: &str) -> Result<Device> {
    let mut all = devices(client)?;
    all.sort_by_key(|device| device.state == DeviceState::Revoked);
    if let Some(at) =
        all.iter().position(|device| device.name == name && device.state != DeviceState::Revoked)
    {
        return Ok(all.swap_remove(at));
    }
    choose(all, name, "device", "`comb device list` lists them", |device| {
        (&device.name, device.id.to_string())
    })
}

/// The store of a URL or an id.
pub fn store(client: &Client, text: &str) -> Result<Store> {
    choose(stores(client)?, text, "store", "`comb account store list` lists them", |store| {
        (&store.url, store.id.to_string())
    })
}

/// Names of devices by their ids.
pub fn device_names(devices: &[Device]) -> BTreeMap<DeviceId, String> {
    devices.iter().map(|device| (device.id, device.name.clone())).collect()
}

/// Names of apps by their ids.
pub fn app_names(apps: &[App]) -> BTreeMap<AppId, String> {
    apps.iter().map(|app| (app.id, app.name.clone())).collect()
}

fn choose<T>(
    all: Vec<T>,
    text: &str,
    what: &str,
    hint: &str,
    called: impl Fn(&T) -> (&str, String),
) -> Result<T> {
    let missing = || {
        let text = output::escape(text.as_bytes());
        Failure::new(Kind::NotFound, format!("there is no {what} \"{text}\"")).hint(hint)
    };
    if let Some(at) = all.iter().position(|one| called(one).0 == text) {
        return all.into_iter().nth(at).ok_or_else(missing);
    }
    let fits = |one: &T| text.len() >= ID_DIGITS_MIN && called(one).1.starts_with(text);
    let mut found: Vec<T> = all.into_iter().filter(fits).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(missing()),
        several => Err(Failure::new(
            Kind::Usage,
            format!("{several} ids of a {what} begin with {text}: write more of it"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_before_the_beginning_of_an_id() {
        let all = || vec![("abcd", "1111-1"), ("photos", "abcd-2"), ("music", "abce-3")];
        let find =
            |text: &str| choose(all(), text, "app", "h", |one| (one.0, one.1.to_owned())).map(|one| one.0);
        assert_eq!(find("abcd").expect("a name"), "abcd");
        assert_eq!(find("abcd-").expect("an id"), "photos");
        assert_eq!(find("abc").expect_err("too short").kind, Kind::NotFound);
        assert_eq!(find("nothing").expect_err("none").kind, Kind::NotFound);
        let two = vec![("a", "abcd1"), ("b", "abcd2")];
        let found = choose(two, "abcd", "app", "h", |one: &(&str, &str)| (one.0, one.1.to_owned()));
        assert_eq!(found.expect_err("two").kind, Kind::Usage);
    }
}
