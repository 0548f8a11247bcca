//! A new app that begins as another was at a moment (`api.md`, section 6, `fork`).
//!
//! Invariants
//! - What is to be forked is there in each volume before anything is made.
//! - A new volume names its own app before anybody else can open it.
//! - Where it cannot be finished, this device keeps nothing of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use orchestrator_api::ids::{AppId, OperationId, SessionId, VolumeId};
use orchestrator_api::names;
use orchestrator_api::package::{Authorization, Body};
use orchestrator_api::placement::Problem;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::PACKAGE_REQUEST_BYTES_MAX;
use orchestrator_api::wire::account::Package as Sealed;
use orchestrator_api::wire::command::{Data, Fork, MomentName, MomentReason, NamedVolume, WriterAt};
use orchestrator_api::wire::value::{List, Number};

use super::World;
use super::files::{AppFile, AppVolume};
use super::loaded::{Loaded, wall_clock};
use super::moments::retention;
use super::steps::{Marker, mount_point};
use crate::app::{package, volume_name};
use crate::doors::hive::{Ask, HiveError};
use crate::doors::{disk, ring};
use crate::trouble::{Result, Trouble};

/// The first revision of an app.
const FIRST: u64 = 1;
/// How long the packs of a new volume may take to its store: they are copied, however little differs.
const PUBLISH_WAIT: Duration = Duration::from_secs(1_800);
/// How long a mount lives in which only a marker is written.
const SEAL_EVERY: Duration = Duration::from_secs(300);
/// How long the hive may take to keep a package.
const POST_WAIT: Duration = Duration::from_secs(30);

impl World {
    /// Makes the volumes and the package of a new app.
    pub(super) async fn fork(
        &self,
        session: SessionId,
        app: AppId,
        operation: OperationId,
        fork: &Fork,
    ) -> Result<Data> {
        let new = AppId::made(self.hive_file.lock().device, &fork.seed.0);
        let loaded = self.load(app, fork.revision.0).await?;
        let from = self.sources(app, operation, fork).await?;
        if from.is_empty() && !loaded.package.authorization.volumes.is_empty() {
            return Err(Trouble::new(Problem::State, "this device has no volumes of the app"));
        }
        let urls = self.app(app, |state| state.file.urls());
        let made = join_all(from.iter().map(|(name, from)| {
            let urls = &urls;
            let retain = retention(loaded.text.source.block(), name);
            async move {
                let volume = self.fork_volume(new, name, from, urls, &retain).await?;
                let writer = self.setup.volumes.look(&volume_name(new, name)).await?.writer;
                Ok((name.clone(), volume, writer))
            }
        }));
        let finished: Result<Vec<_>> = made.await.into_iter().collect();
        let posted = match finished {
            Ok(made) => self.post_fork(session, &loaded, new, fork).await.map(|()| made),
            Err(trouble) => Err(trouble),
        };
        let kept = posted.and_then(|made| {
            self.keep_fork(app, new, fork.new_name.as_str(), &made)?;
            Ok(made)
        });
        match kept {
            Ok(made) => {
                let volumes = made.iter().filter_map(|(name, volume, _)| {
                    Some(NamedVolume { name: name.clone().try_into().ok()?, volume: Hex(volume.0) })
                });
                let writer = |(_, volume, writer): &(String, VolumeId, fs_format::DeviceId)| WriterAt {
                    volume: Hex(volume.0),
                    writer: Hex(writer.0),
                };
                Ok(Data {
                    volumes: List::cut(volumes),
                    writers: List::cut(made.iter().map(writer)),
                    revision: Some(Number::from(FIRST)),
                    ..Data::default()
                })
            }
            Err(trouble) => {
                self.unmake(new, from.keys()).await;
                Err(trouble)
            }
        }
    }

    /// Writes down what was made: if the hive does not have the new app after all, it is to be forgotten here.
    fn keep_fork(
        &self,
        app: AppId,
        new: AppId,
        name: &str,
        made: &[(String, VolumeId, fs_format::DeviceId)],
    ) -> Result<()> {
        let before = self.app(app, |state| state.file.clone());
        let volume = |(name, volume, _): &(String, VolumeId, _)| AppVolume {
            name: name.clone(),
            volume: Hex(volume.0),
        };
        let file = AppFile {
            name: name.to_owned(),
            revision: FIRST,
            highest: FIRST,
            stores: before.stores,
            seal_every_s: before.seal_every_s,
            volumes: made.iter().map(volume).collect(),
            ..AppFile::default()
        };
        self.write_file(new, file)
    }

    /// Where each volume of an app is taken, by its name in the compose file.
    async fn sources(
        &self,
        app: AppId,
        operation: OperationId,
        fork: &Fork,
    ) -> Result<BTreeMap<String, String>> {
        let names = self.names(app);
        let mut from: BTreeMap<VolumeId, String> = BTreeMap::new();
        for (volume, branch) in fork.branches.iter().flatten() {
            let name = names
                .get(&VolumeId(volume.0))
                .ok_or_else(|| Trouble::new(Problem::KeyMissing, "a branch of another app's volume"))?;
            let known = self.setup.volumes.branches(name).await?;
            if !known.iter().any(|one| one.name == branch.as_str()) {
                let text = format!("volume \"{name}\" has no branch {} on this device", branch.as_str());
                return Err(Trouble::new(Problem::State, text));
            }
            from.insert(VolumeId(volume.0), format!("{name}/{}@head", branch.as_str()));
        }
        let rest: BTreeMap<VolumeId, String> = names
            .iter()
            .filter(|(volume, _)| !from.contains_key(volume))
            .map(|(id, name)| (*id, name.clone()))
            .collect();
        if !rest.is_empty() {
            let whens = match (&fork.to, &fork.branches) {
                (Some(to), _) => self.whens(&rest, to).await?,
                // Nothing of them was left behind: the newest that is here.
                (None, Some(_)) => rest.keys().map(|volume| (*volume, "head".to_owned())).collect(),
                (None, None) => {
                    // As all of it is now, at one instant.
                    let tag = operation.instant_tag();
                    self.snapshot(app, &tag, "", MomentReason::Asked).await?;
                    self.whens(&rest, &MomentName::Tag(orchestrator_api::wire::value::Text::cut(&tag)))
                        .await?
                }
            };
            for (volume, name) in &rest {
                let when = whens.get(volume).ok_or_else(|| {
                    Trouble::new(Problem::InstantTorn, format!("the moment names no seal of \"{name}\""))
                })?;
                from.insert(*volume, format!("{name}@{when}"));
            }
        }
        let file = self.app(app, |state| state.file.clone());
        let named = |(volume, from)| Some((file.name_of(volume)?.to_owned(), from));
        Ok(from.into_iter().filter_map(named).collect())
    }

    /// A volume of the new app, in its store; one that a crash left is taken as it is.
    async fn fork_volume(
        &self,
        new: AppId,
        plain: &str,
        from: &str,
        urls: &[String],
        retain: &str,
    ) -> Result<VolumeId> {
        let name = volume_name(new, plain);
        let volumes = &self.setup.volumes;
        let volume = match volumes.find(&name).await? {
            Some(_) => volumes.create(&name, None, urls).await?,
            None => volumes.fork(from, &name, urls).await?,
        };
        let folder = self.folder.mount(new, plain);
        mount_point(&folder)?;
        volumes.unmount(&folder).await?;
        volumes.mount(&name, &folder, SEAL_EVERY, None).await?;
        let marked =
            mark(&folder, &Marker { volume: Hex(volume.0), app: Uuid(new.0), name: plain.to_owned() });
        volumes.unmount(&folder).await?;
        marked?;
        volumes.retain(&name, retain).await?;
        volumes.sync(&name, Some(PUBLISH_WAIT)).await?;
        Ok(volume)
    }

    /// The package again, for the new app and with its name, signed by this device.
    async fn post_fork(&self, session: SessionId, loaded: &Loaded, new: AppId, fork: &Fork) -> Result<()> {
        let chance = (self.setup.chance)();
        let sealed = {
            let ring = ring::open(&self.setup.state)?;
            let app = Uuid(new.0);
            let before = &loaded.package.authorization;
            let authorization = Authorization {
                app,
                name: fork.new_name.as_str().to_owned(),
                revision: FIRST,
                domain: own_domain(before.domain.as_deref(), [chance[0], chance[1], chance[2], chance[3]]),
                author: Some(Uuid(self.hive_file.lock().device.0)),
                made: wall_clock(),
                ..before.clone()
            };
            let body = Body { app, revision: FIRST, ..loaded.package.body.clone() };
            package::seal(authorization, &body, ring.owner(), &(self.setup.chance)())?
        };
        self.post_package(session, &sealed).await
    }

    /// Brings a package to the hive. One that is there already is the one that was sent before a crash.
    pub(super) async fn post_package(&self, session: SessionId, sealed: &Sealed) -> Result<()> {
        let failed = |text: String| Trouble::new(Problem::PackageWrong, text);
        let body = serde_json::to_vec(sealed).map_err(|error| failed(error.to_string()))?;
        if body.len() > PACKAGE_REQUEST_BYTES_MAX {
            return Err(failed("the package is too large to be sent".to_owned()));
        }
        match self.hive.bytes(&Ask::post(session, "/v1/packages", &body, POST_WAIT)).await {
            Ok(_) => Ok(()),
            Err(HiveError::Refused { code, .. }) if code == "revision_old" => Ok(()),
            Err(error) => Err(failed(format!("the hive does not keep the package: {error}"))),
        }
    }

    /// Removes what was made of an app that could not be finished.
    async fn unmake(&self, new: AppId, names: impl Iterator<Item = &String>) {
        for plain in names {
            let name = volume_name(new, plain);
            let _ = self.setup.volumes.unmount(&self.folder.mount(new, plain)).await;
            if let Ok(Some(_)) = self.setup.volumes.find(&name).await
                && let Err(trouble) = self.setup.volumes.remove(&name).await
            {
                tracing::warn!(problem = ?trouble, "a volume of an app that was not made stays");
            }
        }
    }
}

/// Says in a volume whose it is.
fn mark(folder: &Path, marker: &Marker) -> Result<()> {
    disk::replace_json(&folder.join("comb.json"), marker)
        .map_err(|error| crate::app::folder::no_space(folder, &error))
}

/// A name in the net of the app's own, beside that of the one it was made of.
fn own_domain(parent: Option<&str>, random: [u8; names::RANDOM_BYTES]) -> Option<String> {
    let (_, below) = parent?.split_once('.')?;
    names::app_domain(random, below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_called_beside_its_parent_and_never_like_it() {
        let parent = "hasty-hopper-kvbt.example.org";
        let own = own_domain(Some(parent), [1, 2, 3, 4]).expect("a name");
        assert!(own.ends_with(".example.org") && own != parent, "{own}");
        assert_eq!(own_domain(None, [1, 2, 3, 4]), None);
    }
}
