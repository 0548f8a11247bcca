//! Moments of an app: all its volumes at one instant, and what there is to go back to.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use orchestrator_api::compose::Block;
use orchestrator_api::ids::{AppId, VolumeId};
use orchestrator_api::placement::{Phase, Problem};
use orchestrator_api::text::Hex;
use orchestrator_api::wire::command::{MOMENTS_MAX, Moment, MomentName, MomentReason, MomentVolume};
use orchestrator_api::wire::value::{List, Number, Text};

use super::World;
use crate::doors::docker::{Container, State};
use crate::doors::volumes::{Seal, Which};
use crate::trouble::{Result, Trouble};

/// How long containers may stand still for an instant of several volumes.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often they are told to go on before that is left to whoever watches the app, and how long it is waited in between.
const GO_ON_TRIES: u32 = 3;
const GO_ON_AGAIN: Duration = Duration::from_millis(500);
/// What volumes keep, unless the file says otherwise.
pub(super) const RETAIN: &str = "keep all for 1h, 1h for 2d, 1d for 30d; keep last 3";
/// How long the moment before an update is kept, unless the file says otherwise, in seconds.
const UPDATE_KEPT_S: u64 = 30 * 86_400;
/// The least of that: an update that is under way goes back to its moment.
const UPDATE_KEPT_S_MIN: u64 = 86_400;

impl World {
    /// All volumes of an app at one instant.
    pub(super) async fn snapshot(
        &self,
        app: AppId,
        tag: &str,
        message: &str,
        reason: MomentReason,
    ) -> Result<Moment> {
        let names = self.names(app);
        let runs = self.phase(app) == Some(Phase::Running);
        let several = runs && names.len() > 1;
        let hands = self.app(app, |state| state.hands.clone());
        let _hands = hands.lock().await;
        let loaded = self.app(app, |state| state.loaded.clone());
        let block = loaded.as_ref().map(|loaded| loaded.text.source.block());
        if runs && let Some(hook) = block.and_then(|block| block.before_snapshot.clone()) {
            self.hook(app, &hook).await?;
        }
        let tags = [tag.to_owned(), reason_tag(reason).to_owned()];
        let taken = self.instant(app, &names, several, (&tags, message)).await;
        // The app prepared itself for it, and is told that it is over, whatever came of it.
        let after = match block.and_then(|block| block.after_snapshot.clone()).filter(|_| runs) {
            Some(hook) => self.hook(app, &hook).await,
            None => Ok(()),
        };
        let seals = taken?;
        after?;
        Ok(moment(Some(tag), reason, &seals))
    }

    /// A snapshot of each of these volumes; of several while the app's containers stand still.
    async fn instant(
        &self,
        app: AppId,
        names: &BTreeMap<VolumeId, String>,
        stands_still: bool,
        (tags, message): (&[String], &str),
    ) -> Result<Vec<(VolumeId, Seal)>> {
        let running: Vec<Container> = match stands_still {
            true => {
                let all = self.docker.containers(Some(app)).await?;
                all.into_iter().filter(|one| one.state == State::Running).collect()
            }
            false => Vec::new(),
        };
        let take = async {
            let paused = join_all(running.iter().map(|one| self.docker.pause(one))).await;
            paused.into_iter().collect::<Result<Vec<()>>>()?;
            let seals = join_all(names.iter().map(|(volume, name)| async move {
                Ok((*volume, self.setup.volumes.snapshot(name, tags, message).await?))
            }));
            seals.await.into_iter().collect::<Result<Vec<_>>>()
        };
        let taken = tokio::time::timeout(PAUSE_MAX, take).await;
        self.go_on(app, running).await;
        let late =
            |_| Trouble::new(Problem::InstantTorn, "the volumes were not kept while the app stood still");
        taken.map_err(late)?
    }

    /// Lets containers go on that a moment had stand still. Should one not, or should this process end before it did, whoever
    /// watches the app sees to it.
    async fn go_on(&self, app: AppId, mut containers: Vec<Container>) {
        for _ in 0..GO_ON_TRIES {
            let told = join_all(containers.iter().map(|one| self.docker.unpause(one))).await;
            let Some(trouble) = told.into_iter().find_map(Result::err) else { return };
            // Docker says no to one that goes on already, too: what it is now counts.
            if let Ok(all) = self.docker.containers(Some(app)).await {
                containers = all.into_iter().filter(|one| one.state == State::Paused).collect();
            }
            if containers.is_empty() {
                return;
            }
            tracing::warn!(%app, problem = ?trouble, "does not go on after a moment was taken");
            tokio::time::sleep(GO_ON_AGAIN).await;
        }
    }

    /// Lets containers go on that stand still though no moment is being taken: who had them do so died, Docker did not hear
    /// that they may go on, or somebody else did it. The service of one that stands still after that.
    pub(super) async fn end_pause(&self, app: AppId) -> Result<Option<String>> {
        let hands = self.app(app, |state| state.hands.clone());
        // Whoever takes a moment holds them, and whoever stops the app.
        let Ok(_hands) = hands.try_lock() else { return Ok(None) };
        let mut still = None;
        for one in self.docker.containers(Some(app)).await? {
            if one.state != State::Paused {
                continue;
            }
            match self.docker.unpause(&one).await {
                Ok(()) => tracing::warn!(%app, service = one.service, "stood still for nothing, and goes on"),
                Err(trouble) => {
                    tracing::warn!(%app, service = one.service, problem = ?trouble, "stands still, and does not go on");
                    still = Some(one.service);
                }
            }
        }
        Ok(still)
    }

    /// Runs a hook of an app, in its service.
    pub(super) async fn hook(&self, app: AppId, hook: &orchestrator_api::compose::Hook) -> Result<()> {
        let containers = self.docker.containers(Some(app)).await?;
        let failed = |text: &str| Trouble::new(Problem::HookFailed, text).of(&hook.service);
        let one = containers.iter().find(|one| one.service == hook.service && one.state == State::Running);
        let one = one.ok_or_else(|| failed("its service does not run"))?;
        let limit = Duration::from_secs(u64::from(hook.timeout_s));
        match self.docker.exec(one, &hook.argv, None, limit, |_| {}).await? {
            0 => Ok(()),
            exit => Err(failed("it says that it failed").counted(exit)),
        }
    }

    /// The moments of an app, newest first. What was kept by hand, or for a reason, comes before what came by itself where
    /// there are more than are told.
    pub(super) async fn moments(&self, app: AppId) -> Result<Vec<Moment>> {
        let mut by_tag: BTreeMap<String, Vec<(VolumeId, Seal)>> = BTreeMap::new();
        let mut alone = Vec::new();
        for (volume, name) in self.names(app) {
            let volumes = &self.setup.volumes;
            let mut seals = volumes.moments(&name, Which::All, MOMENTS_MAX).await?;
            if seals.len() == MOMENTS_MAX {
                // There may be older ones that were kept.
                seals.retain(|seal| seal.snapshot.is_none());
                seals.extend(volumes.moments(&name, Which::Snapshots, MOMENTS_MAX).await?);
            }
            for seal in seals {
                let tags = seal.snapshot.as_ref().map(|(_, tags)| tags.as_slice()).unwrap_or_default();
                match tags.iter().find(|tag| reason_of(tag).is_none()) {
                    Some(tag) => by_tag.entry(tag.clone()).or_default().push((volume, seal)),
                    None => alone.push((volume, seal)),
                }
            }
        }
        let mut moments: Vec<Moment> = by_tag
            .into_iter()
            .map(|(tag, seals)| {
                let tags =
                    seals.iter().filter_map(|(_, seal)| seal.snapshot.as_ref()).flat_map(|(_, tags)| tags);
                let reason = tags.filter_map(|tag| reason_of(tag)).next().unwrap_or(MomentReason::Asked);
                moment(Some(&tag), reason, &seals)
            })
            .collect();
        moments.extend(alone.into_iter().map(|one| {
            let reason = one.1.snapshot.as_ref().map_or(MomentReason::Regular, |(_, tags)| {
                tags.iter().find_map(|tag| reason_of(tag)).unwrap_or(MomentReason::Regular)
            });
            moment(None, reason, &[one])
        }));
        let is_regular = |moment: &Moment| moment.tag.is_none() && moment.reason == MomentReason::Regular;
        moments.sort_by_key(|moment| (is_regular(moment), std::cmp::Reverse(moment.time)));
        moments.truncate(MOMENTS_MAX);
        moments.sort_by_key(|moment| std::cmp::Reverse(moment.time));
        Ok(moments)
    }

    /// What a moment is for each volume: a tag, or a seal's number. It is there in each of them.
    pub(super) async fn whens(
        &self,
        names: &BTreeMap<VolumeId, String>,
        to: &MomentName,
    ) -> Result<BTreeMap<VolumeId, String>> {
        let whens: BTreeMap<VolumeId, String> = match to {
            MomentName::Tag(tag) => names.keys().map(|volume| (*volume, tag.as_str().to_owned())).collect(),
            MomentName::Seals(seals) => {
                seals.iter().map(|(volume, seq)| (VolumeId(volume.0), seq.0.to_string())).collect()
            }
        };
        for (volume, when) in &whens {
            let name = names
                .get(volume)
                .ok_or_else(|| Trouble::new(Problem::KeyMissing, "the moment names another volume"))?;
            if !self.has_moment(name, when).await? {
                return Err(Trouble::new(
                    Problem::InstantTorn,
                    format!("volume \"{name}\" has no moment {when}"),
                ));
            }
        }
        Ok(whens)
    }

    /// The moment of this tag that was taken before an update.
    pub(super) async fn moment_of(&self, app: AppId, tag: &str) -> Result<Moment> {
        let mut seals = Vec::new();
        for (volume, name) in self.names(app) {
            seals.extend(self.setup.volumes.moment(&name, tag).await?.map(|seal| (volume, seal)));
        }
        Ok(moment(Some(tag), MomentReason::Update, &seals))
    }

    /// Whether a volume has a moment: a tag, or a seal's number.
    pub(super) async fn has_moment(&self, name: &str, when: &str) -> Result<bool> {
        let found = self.setup.volumes.moment(name, when).await?;
        Ok(found.is_some_and(|seal| {
            seal.seq.0.to_string() == when
                || seal.snapshot.as_ref().is_some_and(|(_, tags)| tags.iter().any(|tag| tag == when))
        }))
    }

    /// Whether these volumes have the moment before an update of which nobody saw the end. Where none has it, the update had
    /// changed nothing that was replicated; where only some have it, a person decides (`failover.md`, section 11).
    pub(super) async fn is_gone_back_to(&self, names: &[String], tag: &str) -> Result<bool> {
        let mut lacks = Vec::new();
        for name in names {
            if !self.has_moment(name, tag).await? {
                lacks.push(format!("\"{name}\""));
            }
        }
        match lacks.len() {
            0 => Ok(!names.is_empty()),
            all if all == names.len() => Ok(false),
            _ => Err(Trouble::new(
                Problem::InstantTorn,
                format!(
                    "{} lacks the moment {tag} before the update, and the app's other volumes have it",
                    lacks.join(", ")
                ),
            )),
        }
    }
}

/// How often a volume of an app is sealed: as its file says of it, else as is said of the app.
pub(super) fn seal_every(block: Option<&Block>, volume: &str, of_app_s: u64) -> Duration {
    let own = block.and_then(|block| block.volumes.get(volume)).and_then(|one| one.seal_every_s);
    Duration::from_secs(own.map_or(of_app_s, u64::from).clamp(5, 300))
}

/// What a volume of an app keeps: as its file says, and the moment before an update for as long as that says.
pub(super) fn retention(block: &Block, volume: &str) -> String {
    let said = block.volumes.get(volume).and_then(|one| one.retain.as_deref()).unwrap_or(RETAIN);
    // Who speaks of them himself is believed.
    if said.split_whitespace().collect::<Vec<_>>().windows(2).any(|words| words == ["tag", "update"]) {
        return said.to_owned();
    }
    let seconds = block.update.keep_s.unwrap_or(UPDATE_KEPT_S).max(UPDATE_KEPT_S_MIN);
    let kept = match seconds % 86_400 {
        0 => format!("{}d", seconds / 86_400),
        _ => format!("{seconds}s"),
    };
    format!("{}; keep tag update for {kept}", said.trim_end_matches([';', ' ']))
}

const REASONS: [(MomentReason, &str); 5] = [
    (MomentReason::Asked, "asked"),
    (MomentReason::Update, "update"),
    (MomentReason::UpdateFailed, "update-failed"),
    (MomentReason::MoveFailed, "move-failed"),
    (MomentReason::Regular, "regular"),
];

fn reason_tag(reason: MomentReason) -> &'static str {
    REASONS.iter().find(|(one, _)| *one == reason).map_or("regular", |(_, tag)| tag)
}

fn reason_of(tag: &str) -> Option<MomentReason> {
    REASONS.iter().find(|(_, one)| *one == tag).map(|(reason, _)| *reason)
}

fn moment(tag: Option<&str>, reason: MomentReason, seals: &[(VolumeId, Seal)]) -> Moment {
    let time = seals.iter().filter_map(|(_, seal)| time_of(&seal.time)).max();
    let volume = |(volume, seal): &(VolumeId, Seal)| MomentVolume {
        volume: Hex(volume.0),
        seq: Number::from(seal.seq.0),
        uuid: seal.snapshot.as_ref().and_then(|(uuid, _)| uuid.parse().ok()),
        files: Number::from(seal.files),
        bytes: Number::from(seal.bytes),
    };
    Moment {
        tag: tag.map(Text::cut),
        time: time.unwrap_or(orchestrator_api::text::Time(0)),
        reason,
        volumes: List::cut(seals.iter().map(volume)),
    }
}

/// A time as seals tell it, which may have more digits than travel.
pub(super) fn time_of(text: &str) -> Option<orchestrator_api::text::Time> {
    let (seconds, rest) = text.strip_suffix('Z')?.split_at_checked(19)?;
    let millis: String = rest.trim_start_matches('.').chars().take(3).collect();
    format!("{seconds}.{millis:0<3}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use orchestrator_api::compose::VolumeSettings;

    use super::*;

    #[test]
    fn times_of_seals_lose_their_last_digits_only() {
        let told = |text: &str| time_of(text).map(|time| time.to_string());
        assert_eq!(told("2026-11-22T08:30:00.123456Z").as_deref(), Some("2026-11-22T08:30:00.123Z"));
        assert_eq!(told("2026-11-22T08:30:00.1Z").as_deref(), Some("2026-11-22T08:30:00.100Z"));
        assert_eq!(told("2026-11-22T08:30:00Z").as_deref(), Some("2026-11-22T08:30:00.000Z"));
        assert_eq!(told("soon"), None);
    }

    #[test]
    fn a_volume_is_sealed_as_often_as_its_file_says_or_the_app() {
        let mut block = Block::default();
        let every = |block: Option<&Block>, volume: &str| seal_every(block, volume, 15).as_secs();
        let own = VolumeSettings { seal_every_s: Some(60), ..VolumeSettings::default() };
        block.volumes.insert("data".to_owned(), own);
        assert_eq!(
            (every(Some(&block), "data"), every(Some(&block), "cache"), every(None, "data")),
            (60, 15, 15)
        );
        assert_eq!(seal_every(None, "data", 0).as_secs(), 5);
    }

    #[test]
    fn the_moment_before_an_update_is_kept_for_as_long_as_the_file_says() {
        let mut block = Block::default();
        assert_eq!(retention(&block, "data"), format!("{RETAIN}; keep tag update for 30d"));
        block.update.keep_s = Some(129_601);
        assert_eq!(retention(&block, "data"), format!("{RETAIN}; keep tag update for 129601s"));
        block.update.keep_s = Some(0);
        assert!(retention(&block, "data").ends_with("; keep tag update for 1d"));
        let keeps =
            |text: &str| VolumeSettings { retain: Some(text.to_owned()), ..VolumeSettings::default() };
        block.volumes.insert("data".to_owned(), keeps("keep last 9;"));
        assert_eq!(retention(&block, "data"), "keep last 9; keep tag update for 1d");
        block.volumes.insert("data".to_owned(), keeps("keep last 9, keep tag  update forever"));
        assert_eq!(retention(&block, "data"), "keep last 9, keep tag  update forever");
    }
}
