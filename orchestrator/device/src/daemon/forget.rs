//! An app leaves this device; and what would be lost if its volumes went now.
//!
//! Invariants
//! - A volume is removed only if the store that decides has all of it, or a person said that the rest may go. This device
//!   looks itself, when it is about to remove it: what anybody knew before is old.
//! - Its record is the last that goes, so what a crash leaves is told of, and forgotten when that is asked for again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use orchestrator_api::ids::{AppId, Term};
use orchestrator_api::placement::{Phase, Problem};
use orchestrator_api::wire::command::{Command, CommandResult, Data, Late};
use orchestrator_api::wire::value::{List, Number, Text};

use super::World;
use crate::Event;
use crate::app::volume_name;
use crate::trouble::{Result, Trouble};

/// How long a volume may be brought to its store before it is removed.
const PUBLISH_MAX: Duration = Duration::from_secs(120);

impl World {
    /// Nothing of an app is here any more but, if that is wanted, its volumes.
    ///
    /// What still runs is stopped: who returns did not hear of an app's end. Only what was given to this device after the
    /// order was made goes on.
    pub(super) async fn forget(
        self: &Arc<Self>,
        app: AppId,
        term: Term,
        keep_data: bool,
        discard: bool,
    ) -> Result<Data> {
        let present = self.app(app, |state| state.record.as_ref().map(|record| record.term));
        if self.phase(app).is_some_and(Phase::is_live) {
            if present.is_some_and(|present| present > term) {
                let text = "the app was given to this device after it was told to forget it";
                return Err(Trouble::new(Problem::TermOver, text));
            }
            let _ = self.events.send(Event::StopHere(app));
            self.stopped(app).await?;
        }
        // Of an app that never had a record, what was written down when its volumes were made.
        let is_known = self.app(app, |state| state.record.is_some() || !state.file.volumes.is_empty());
        if let (false, Ok(Some(file))) = (is_known, self.folder.read_app(app)) {
            self.app(app, |state| state.file = file);
        }
        self.remove_containers(app, None).await?;
        self.remove_docker_volumes(app).await;
        self.unmount_all(app).await;
        if !keep_data {
            if !discard {
                self.published(app).await?;
            }
            for name in self.names(app).values() {
                if self.setup.volumes.find(name).await?.is_some() {
                    self.setup.volumes.remove(name).await?;
                }
            }
        }
        if let Some(loaded) = self.app(app, |state| state.loaded.take()) {
            self.app_folder(app, &loaded).remove()?;
        }
        let _ = self.events.send(Event::Forgotten(app));
        Ok(Data::default())
    }

    /// Nothing of an app's volumes is here alone; what can be brought to the store is.
    async fn published(&self, app: AppId) -> Result<()> {
        let before = self.late(app, true).await?;
        // A tail goes nowhere.
        let volumes = before.iter().filter(|late| !late.name.as_str().contains('/'));
        join_all(volumes.map(|late| async {
            let name = volume_name(app, late.name.as_str());
            // Whether it helped is seen below.
            let _ = self.setup.volumes.sync(&name, Some(PUBLISH_MAX)).await;
        }))
        .await;
        let after = match before.is_empty() {
            true => before,
            false => self.late(app, true).await?,
        };
        if after.is_empty() {
            return Ok(());
        }
        let told: Vec<String> =
            after.iter().map(|late| format!("{} ({} bytes)", late.name.as_str(), late.bytes.0)).collect();
        Err(Trouble::new(
            Problem::PublishLate,
            format!("this is on this device and in no store: {}; nothing is removed", told.join(", ")),
        ))
    }

    /// Of which volumes of an app something is here that the store that decides lacks; with tails, also those.
    pub(super) async fn late(&self, app: AppId, with_tails: bool) -> Result<Vec<Late>> {
        let states = self.setup.volumes.states().await?;
        let mut found = Vec::new();
        for one in self.app(app, |state| state.file.volumes.clone()) {
            let name = volume_name(app, &one.name);
            let Some(state) = states.iter().find(|state| state.name == name) else { continue };
            let late = |name: &str, bytes| Late {
                volume: one.volume,
                name: Text::cut(name),
                bytes: Number::from(bytes),
            };
            let mut bytes = state.lacking();
            if with_tails {
                for branch in self.setup.volumes.branches(&name).await? {
                    match branch.name == name {
                        // Not set aside yet: the volume itself.
                        true => bytes = Some(bytes.unwrap_or(0).max(branch.bytes)),
                        false => found.push(late(&format!("{}/{}", one.name, branch.name), branch.bytes)),
                    }
                }
            }
            found.extend(bytes.map(|bytes| late(&one.name, bytes)));
        }
        Ok(found)
    }

    /// A result that something was not replicated for, with what that is.
    pub(super) async fn with_late(&self, command: &Command, mut result: CommandResult) -> CommandResult {
        if let (Some(app), Some(Problem::PublishLate)) = (command.app, result.code) {
            result.data.late = List::cut(self.late(app, true).await.unwrap_or_default());
        }
        result
    }
}
