//! Packages, sealed and opened as devices do it (`orchestrator_device::app::package`), with words for a person.

use fs_crypto::OwnerKey;
use orchestrator_api::package::{Authorization, Body};
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::account::Package;
use orchestrator_api::wire::app::App;
use orchestrator_device::app::package::{self, SealError, Wanted};

use super::Client;
use crate::failure::{Failure, Kind, Result};
use crate::keys;

/// Seals a body and signs for it.
pub fn seal(owner: &OwnerKey, authorization: Authorization, body: &Body) -> Result<Package> {
    package::seal(authorization, body, owner, &*keys::random()?).map_err(|error| match error {
        SealError::TooLarge => Failure::new(Kind::Usage, error.to_string())
            .hint("large files belong into an image or a volume: keep them outside of the app's folder"),
        error => Failure::new(Kind::Usage, format!("this cannot be made a package: {error}")),
    })
}

/// The package of an app that a hive keeps, opened.
pub fn fetch(client: &Client, owner: &OwnerKey, app: &App) -> Result<(Authorization, Body)> {
    let wanted = Wanted { app: Uuid(app.id.0), revision: app.revision.0 };
    let sealed: Package = client.get(&format!("/v1/packages/{}/{}", app.id, wanted.revision))?;
    let opened = package::open_own(&sealed, owner, wanted).map_err(|error| {
        Failure::new(Kind::Foreign, format!("the package that the hive keeps: {error}"))
            .hint("it was changed, or signed under another key ring; `comb app update NAME DIR` makes a new one from the folder")
    })?;
    Ok((opened.authorization, opened.body))
}
