//! The checks before containers start, starting them, and the gate (`failover.md`, section 8).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_format::manifest::open_manifest;
use futures_util::future::join_all;
use orchestrator_api::compose::{HttpCheck, Owner, PlannedVolume, VolumeKind};
use orchestrator_api::ids::{AppId, Term, VolumeId};
use orchestrator_api::package::{IMAGE_BUILT, ServiceImage};
use orchestrator_api::placement::Problem;
use orchestrator_api::text::Hex;

use super::World;
use super::files::{AppFile, Rollback, Update};
use super::loaded::{Loaded, Planned};
use super::steps::{is_alive, is_mounted};
use crate::app::gate::Verdict;
use crate::app::{ports, processor, project, run_file, volume_name};
use crate::doors::clock;
use crate::doors::compose::Project;
use crate::doors::disk::gone;
use crate::doors::docker::Container;
use crate::trouble::{Result, Trouble, is_of_docker};

/// For how long an updated app must be well, if its file says nothing, in seconds.
const STABLE_S: u32 = 60;
/// How often the gate looks.
const GATE_LOOK: Duration = Duration::from_millis(500);
/// How long a page of the gate may take.
const PAGE_WAIT: Duration = Duration::from_secs(5);
/// How much of a page is read for what it must hold, in bytes.
const PAGE_BYTES_MAX: usize = 1 << 20;

impl World {
    pub(super) async fn start_containers(&self, app: AppId, term: Term) -> Result<()> {
        let (update, ours) = self.app(app, |state| (state.file.update.clone(), state.updating));
        let Some(update) = update else { return self.start_once(app, term).await };
        let started = match ours {
            true => self.start_updated(app, term).await,
            // Whoever began it did not live to see it well.
            false => {
                Err(Trouble::new(Problem::Late, "who updated the app did not live to see the end of it"))
            }
        };
        match started {
            // Said before the app is said to run: an order that is given again has its answer from here.
            Ok(()) => self.change_file(app, |file| {
                (file.highest, file.update) = (file.revision, None);
                file.ended = Some(update.stays());
            }),
            // It says nothing of the new revision, which is started again when Docker answers.
            Err(trouble) if is_of_docker(trouble.problem) => Err(trouble),
            Err(trouble) => self.go_back(app, term, &update, trouble).await,
        }
    }

    /// Starts the new revision of an update, which must stay well for a while.
    async fn start_updated(&self, app: AppId, term: Term) -> Result<()> {
        self.start_once(app, term).await?;
        let ends = self.docker_ends();
        match self.stays_well(app).await {
            Ok(()) => Ok(()),
            Err(trouble) => Err(self.or_docker(ends, trouble).await),
        }
    }

    /// Watches an app that was updated for as long as its file says.
    async fn stays_well(&self, app: AppId) -> Result<()> {
        let Some(loaded) = self.app(app, |state| state.loaded.clone()) else { return Ok(()) };
        let planned = self.plan(app, &loaded).await?;
        let stable = loaded.text.source.block().update.stable_s.unwrap_or(STABLE_S);
        let until = clock::boottime() + u64::from(stable) * 1_000;
        self.note_step(app, "watching");
        while clock::boottime() < until {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let containers = self.docker.containers(Some(app)).await?;
            let verdict = self
                .app(app, |state| state.watch.look(&planned.plan.services, &containers, clock::boottime()).0);
            let exited = containers.iter().find(|one| one.exit.is_some_and(|exit| exit != 0));
            if let Some(one) = exited {
                return Err(Trouble::new(Problem::Exits, "it ended")
                    .of(&one.service)
                    .counted(one.exit.unwrap_or(-1)));
            }
            if let Verdict::Unwell(trouble) = verdict {
                return Err(trouble);
            }
        }
        Ok(())
    }

    /// The revision and the data from before an update; what the new one wrote stays a moment.
    async fn go_back(&self, app: AppId, term: Term, update: &Update, why: Trouble) -> Result<()> {
        tracing::warn!(%app, problem = ?why, "an update goes back");
        self.note_step(app, "going_back");
        self.remove_containers(app, None).await?;
        let states = self.setup.volumes.states().await?;
        let names = self.names(app);
        let leases = states.iter().filter(|one| names.contains_key(&one.volume));
        let lease = leases.filter_map(|one| one.mount.as_ref()?.lease).min();
        self.unmount_all(app).await;
        for name in names.values() {
            self.setup.volumes.snapshot(name, &["update-failed".to_owned()], "").await?;
        }
        // From here on it is a rollback like another: whoever mounts the app finishes it, and then starts the old revision.
        let whens = names.keys().map(|volume| (Hex(volume.0), update.tag.clone())).collect();
        self.change_file(app, |file| {
            *file = file.without_update();
            file.rollback = Some(Rollback { order: None, starts: true, whens });
            file.ended = Some(update.went_back(Some(&why)));
        })?;
        self.app(app, |state| state.went_back = Some(why));
        let volumes: Vec<VolumeId> = names.keys().copied().collect();
        self.mount_all(app, &volumes, &BTreeMap::new(), lease).await?;
        self.start_once(app, term).await
    }

    async fn start_once(&self, app: AppId, term: Term) -> Result<()> {
        let ends = self.docker_ends();
        match self.start_now(app, term).await {
            Ok(()) => Ok(()),
            Err(trouble) => Err(self.or_docker(ends, trouble).await),
        }
    }

    /// Why something of an app failed; where Docker ended meanwhile or does not answer, that.
    async fn or_docker(&self, ends: u64, trouble: Trouble) -> Trouble {
        if is_of_docker(trouble.problem) {
            return trouble;
        }
        if let Err(away) = self.docker.ping().await {
            return away;
        }
        // Asked last: one that was started again answers.
        match self.docker_ends() == ends {
            true => trouble,
            false => Trouble::new(Problem::DockerStopped, "Docker ended while the app was started"),
        }
    }

    async fn start_now(&self, app: AppId, term: Term) -> Result<()> {
        self.docker.ping().await?;
        let (file, record) = self.app(app, |state| (state.file.clone(), state.record.clone()));
        let record = record.filter(|record| record.term == term && record.mine);
        let record = record.ok_or_else(|| Trouble::new(Problem::TermOver, "the term is over"))?;
        if file.rollback.is_some() {
            let text = "a rollback of its volumes was begun and is not whole: the next start finishes it";
            return Err(Trouble::new(Problem::InstantTorn, text));
        }
        self.note_step(app, "checking");
        let loaded = self.load(app, file.revision).await?;
        let planned = self.plan(app, &loaded).await?;
        self.check_binds(app, &loaded, &planned.config).await?;
        self.check_mounts(app, &file, &record).await?;
        let images = self.images(app, &loaded, true).await?;
        let file = self.make_run_file(app, term, file, &loaded, planned, &images).await?;
        self.note_step(app, "starting");
        let up = self.up(app, &loaded, planned).await;
        if up.is_ok() {
            self.note_address(app, &file, &loaded);
        }
        up
    }

    pub(super) fn note_step(&self, app: AppId, step: &str) {
        self.app(app, |state| step.clone_into(&mut state.step));
    }

    /// Each mount is alive, is the volume that it should be, takes changes, and is in the epoch of the record.
    async fn check_mounts(&self, app: AppId, file: &AppFile, record: &crate::Record) -> Result<()> {
        let states = self.setup.volumes.states().await?;
        for (volume, kept) in &record.volumes {
            let name = file.name_of(*volume).unwrap_or_default();
            let folder = self.folder.mount(app, name);
            let wrong = |problem, what: &str| Err(Trouble::new(problem, format!("volume \"{name}\" {what}")));
            if !is_mounted(&folder).await || !is_alive(&folder).await {
                return wrong(Problem::MountDead, "does not answer");
            }
            let marker: Option<super::steps::Marker> =
                crate::doors::disk::read_json(&folder.join("comb.json")).unwrap_or_default();
            if marker.is_none_or(|marker| {
                marker.volume.0 != volume.0 || marker.app.0 != app.0 || marker.name != name
            }) {
                return wrong(Problem::MarkerWrong, "has another volume's marker");
            }
            let mount = states.iter().find(|one| one.volume == *volume).and_then(|one| one.mount.as_ref());
            if !mount.is_some_and(|mount| mount.takes_changes && !mount.ending) {
                return wrong(Problem::VolumeReadOnly, "takes no changes");
            }
            let epoch = self.epoch_here(*volume);
            if kept.cut.is_some_and(|cut| epoch.is_some_and(|epoch| epoch != cut.head.epoch)) {
                return wrong(Problem::EpochWrong, "is in another epoch than was claimed");
            }
        }
        Ok(())
    }

    /// The epoch of the newest seal here, which the daemon of the volume writes in.
    pub(super) fn epoch_here(&self, volume: VolumeId) -> Option<fs_format::Epoch> {
        let path = self.setup.state.join("volumes").join(volume.to_hex()).join("head");
        let object = std::fs::read(path).ok()?;
        open_manifest(&object).ok().map(|(header, ..)| header.epoch)
    }

    /// What runs for each service; what is missing is fetched, if that is asked for.
    pub(super) async fn images(
        &self,
        app: AppId,
        loaded: &Loaded,
        fetch: bool,
    ) -> Result<BTreeMap<String, String>> {
        let mut images = BTreeMap::new();
        let processor = self.docker.processor().await?;
        let declared = loaded.text.source.declared();
        // Whoever names a platform in the file has chosen, and has what emulates it.
        let chosen =
            |service: &str| declared.iter().any(|one| one.service == service && one.platform.is_some());
        for service in &loaded.package.authorization.services {
            let name = reference(service);
            let mut found = self.docker.image(&name).await?;
            if found.is_none() && service.pull && fetch {
                self.note_step(app, "pulling");
                self.docker.pull(&name).await.map_err(|trouble| trouble.of(&service.name))?;
                found = self.docker.image(&name).await?;
            }
            let missing = || {
                let what = if service.pull { "" } else { "; it was made on another machine" };
                Trouble::new(Problem::ImageMissing, format!("image {} is not here{what}", service.image))
                    .of(&service.name)
            };
            let image = found.ok_or_else(missing)?;
            let digest = service.digest.to_string();
            if image.id != digest && !image.digests.contains(&digest) {
                return Err(Trouble::new(
                    Problem::ImageChanged,
                    format!("image {} is another one", service.image),
                )
                .of(&service.name));
            }
            if let (Some(machine), Some(of_image)) = (&processor, &image.processor)
                && !processor::runs(machine, of_image)
                && !chosen(&service.name)
            {
                let text =
                    format!("image {} is for {of_image}, and this machine has {machine}", service.image);
                return Err(Trouble::new(Problem::ArchMismatch, text).of(&service.name));
            }
            images.insert(service.name.clone(), name);
        }
        Ok(images)
    }

    async fn make_run_file(
        &self,
        app: AppId,
        term: Term,
        file: AppFile,
        loaded: &Loaded,
        planned: &Planned,
        images: &BTreeMap<String, String>,
    ) -> Result<AppFile> {
        let folder = self.app_folder(app, loaded);
        let mut volumes = BTreeMap::new();
        for volume in &planned.plan.volumes {
            let data = self.folder.mount(app, &volume.name).join("data");
            self.seed(volume, &data, &folder.files(), loaded).await?;
            let docker = format!("comb-{}", volume_name(app, &volume.name));
            self.docker.bind_volume(&docker, &data, app).await?;
            volumes.insert(volume.name.clone(), docker);
        }
        let given = ports::give(&planned.plan.ports, &file.ports, ports::is_free)?;
        self.change_file(app, |file| file.ports = given.clone())?;
        let file = AppFile { ports: given, ..file };
        let device = self.hive_file.lock().device;
        let name = project(app);
        let additions = run_file::Additions {
            app,
            term,
            device,
            project: &name,
            plan: &planned.plan,
            images,
            volumes: &volumes,
            ports: &file.ports,
            startup_s: loaded.package.authorization.health_seconds,
        };
        let made = run_file::make(planned.config.clone(), &additions);
        let json = serde_json::to_vec_pretty(&made)
            .map_err(|error| Trouble::new(Problem::ComposeFailed, error.to_string()))?;
        folder.write_run_file(&json)?;
        Ok(file)
    }

    /// The folder that containers see of a volume; made once, with what the package has for it.
    async fn seed(&self, volume: &PlannedVolume, data: &Path, files: &Path, loaded: &Loaded) -> Result<()> {
        if data.exists() {
            return Ok(());
        }
        let failed = |error: io::Error| crate::app::folder::no_space(data, &error);
        let (from, owner) = match &volume.kind {
            VolumeKind::Folder { path, seed, owner } => (seed.then(|| files.join(path)), Some(owner)),
            _ => (None, None),
        };
        let owner = match owner {
            Some(owner) => self.owner(owner, volume, loaded).await?,
            None => None,
        };
        let new = data.with_extension("new");
        let to = data.to_owned();
        let seeded = tokio::task::spawn_blocking(move || {
            gone(std::fs::remove_dir_all(&new))?;
            std::fs::create_dir(&new)?;
            // Whatever mask this process has: the app's own user has to get in.
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
            if let Some(from) = from {
                copy(&from, &new, owner)?;
            }
            if let Some((uid, gid)) = owner {
                chown(&new, Some(uid), Some(gid))?;
            }
            std::fs::rename(&new, &to)
        });
        seeded
            .await
            .map_err(|_| Trouble::new(Problem::NoSpace, "seeding a volume ended early"))?
            .map_err(failed)
    }

    /// The numbers of an owner; none for root.
    async fn owner(
        &self,
        owner: &Owner,
        volume: &PlannedVolume,
        loaded: &Loaded,
    ) -> Result<Option<(u32, u32)>> {
        match owner {
            Owner::Numbers { uid, gid } => Ok(Some((*uid, *gid))),
            Owner::Image | Owner::Named { .. } => {
                let service = volume.mounts.first().map(|mount| mount.service.as_str()).unwrap_or_default();
                let signed = loaded.package.authorization.services.iter().find(|one| one.name == service);
                let Some(signed) = signed else { return Ok(None) };
                let image = self.docker.image(&reference(signed)).await?;
                Ok(match image.and_then(|image| image.user).map(|user| Owner::of_user(&user)) {
                    Some(Owner::Numbers { uid, gid }) => Some((uid, gid)),
                    // A name that only the image explains: it begins as root's, and the app's own start sees to it.
                    _ => None,
                })
            }
        }
    }

    async fn up(&self, app: AppId, loaded: &Loaded, planned: &Planned) -> Result<()> {
        let hands = self.app(app, |state| state.hands.clone());
        let _hands = hands.lock().await;
        let folder = self.app_folder(app, loaded);
        let (files, run_file) = (folder.files(), folder.run_file());
        let name = project(app);
        let project = Project { name: &name, folder: &files, file: &run_file };
        let seconds = u64::from(loaded.package.authorization.health_seconds);
        let until = clock::boottime() + seconds * 1_000;
        self.app(app, |state| state.watch = Default::default());
        let up = self.compose.up(project, &loaded.text.variables);
        tokio::pin!(up);
        let (mut is_up, mut last) = (false, None);
        loop {
            tokio::select! {
                done = &mut up, if !is_up => {
                    done?;
                    is_up = true;
                }
                () = tokio::time::sleep(GATE_LOOK) => {}
            }
            let containers = self.docker.containers(Some(app)).await?;
            let now = clock::boottime();
            let (verdict, start, often) = self.app(app, |state| {
                let (verdict, start) = state.watch.look(&planned.plan.services, &containers, now);
                state.containers.clone_from(&containers);
                (verdict, start, state.watch.exits_too_often(&containers))
            });
            if let Some(trouble) = often {
                return Err(trouble);
            }
            for one in &start {
                self.docker.start(one).await?;
            }
            match verdict {
                Verdict::Well if is_up => match self.page(loaded, &containers).await {
                    Ok(()) => return Ok(()),
                    Err(trouble) => last = Some(trouble),
                },
                Verdict::Unwell(trouble) if trouble.problem == Problem::Exits && is_up => {
                    return Err(trouble);
                }
                Verdict::Unwell(trouble) => last = Some(trouble),
                Verdict::Well | Verdict::Waiting => {}
            }
            if clock::boottime() >= until {
                let unwell = last.map(|trouble| {
                    Trouble::new(Problem::Unhealthy, trouble.text()).of(trouble.service.unwrap_or_default())
                });
                let late = || {
                    let name = planned.plan.services.iter().map(|one| one.name.as_str());
                    let waits = name.clone().find(|name| !containers.iter().any(|one| one.service == *name));
                    let trouble =
                        Trouble::new(Problem::GateLate, format!("it was not well within {seconds} s"));
                    match waits {
                        Some(service) => trouble.of(service),
                        None => trouble,
                    }
                };
                return Err(unwell.unwrap_or_else(late));
            }
        }
    }

    /// The page of `x-comb.health.http`.
    async fn page(&self, loaded: &Loaded, containers: &[Container]) -> Result<()> {
        match &loaded.text.source.block().health.http {
            Some(check) => ask_page(check, containers).await,
            None => Ok(()),
        }
    }

    /// The address that people are shown.
    pub(super) fn note_address(&self, app: AppId, file: &AppFile, loaded: &Loaded) {
        let block = loaded.text.source.block();
        let entry = block.entry.as_ref();
        let given = entry.and_then(|entry| {
            file.ports.iter().find(|one| one.service == entry.service && one.port == entry.port)
        });
        let first = given.or(file.ports.first());
        let ip = super::facts::address(self.hive.url()).to_string();
        let domain = loaded.package.authorization.domain.as_deref();
        let told = block.address(&ip, first.map(|one| one.given), domain, &loaded.text.options);
        let path = entry.map_or("/", |entry| entry.path.as_str());
        let address = told.or_else(|| first.map(|one| format!("http://{ip}:{}{path}", one.given)));
        self.app(app, |state| state.address = address);
    }
}

/// How an image is named to Docker: by its digest, or by its id if it is on this machine only.
fn reference(service: &ServiceImage) -> String {
    if !service.pull || service.image == IMAGE_BUILT {
        return service.digest.to_string();
    }
    let name = service.image.split('@').next().unwrap_or_default();
    // A colon behind the last slash is a tag's; one before it is a port's.
    let tag = name.rfind(':').filter(|at| name.rfind('/').is_none_or(|slash| slash < *at));
    format!("{}@{}", &name[..tag.unwrap_or(name.len())], service.digest)
}

async fn ask_page(check: &HttpCheck, containers: &[Container]) -> Result<()> {
    let wrong = |text: String| Trouble::new(Problem::Unhealthy, text).of(&check.at.service);
    let address =
        containers.iter().filter(|one| one.service == check.at.service).find_map(|one| one.address.clone());
    let address = address.ok_or_else(|| wrong("its page has no address".to_owned()))?;
    let url = format!("http://{address}:{}{}", check.at.port, check.at.path);
    let client =
        reqwest::Client::builder().timeout(PAGE_WAIT).no_proxy().redirect(reqwest::redirect::Policy::none());
    let client = client.build().map_err(|error| wrong(error.to_string()))?;
    let mut answer = client.get(&url).send().await.map_err(|error| wrong(error.without_url().to_string()))?;
    let status = answer.status().as_u16();
    let fits =
        if check.status.is_empty() { (200..400).contains(&status) } else { check.status.contains(&status) };
    if !fits {
        return Err(wrong(format!("its page answers {status}")).counted(i64::from(status)));
    }
    let Some(wanted) = &check.contains else { return Ok(()) };
    let mut page = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| wrong(error.without_url().to_string()))? {
        page.extend_from_slice(&part);
        if page.len() > PAGE_BYTES_MAX {
            break;
        }
    }
    match String::from_utf8_lossy(&page).contains(wanted.as_str()) {
        true => Ok(()),
        false => Err(wrong("its page lacks what it must hold".to_owned())),
    }
}

/// Copies a folder's files and folders; the package has nothing else.
fn copy(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
            copy(&entry.path(), &target, owner)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
        if let Some((uid, gid)) = owner {
            chown(&target, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

impl World {
    /// Fetches images and the plan before they are needed, for a start that is soon.
    pub(super) async fn warm(&self, app: AppId, revision: u64) -> Result<()> {
        let loaded = self.load(app, revision).await?;
        self.images(app, &loaded, true).await?;
        self.plan(app, &loaded).await.map(|_| ())
    }

    /// Docker's volumes of an app; what they lead to stays.
    pub(super) async fn remove_docker_volumes(&self, app: AppId) {
        let names = self.app(app, |state| {
            state.file.volumes.iter().map(|one| volume_name(app, &one.name)).collect::<Vec<_>>()
        });
        let removed =
            names.iter().map(|name| async move { self.docker.remove_volume(&format!("comb-{name}")).await });
        join_all(removed).await;
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::package::Digest;
    use orchestrator_api::text::Hex;

    use super::*;

    #[test]
    fn an_image_is_named_by_its_digest() {
        let digest = Digest(Hex([0x22; 32]));
        let named = |image: &str, pull| {
            reference(&ServiceImage { name: "web".to_owned(), image: image.to_owned(), digest, pull })
        };
        let hash = format!("sha256:{}", "22".repeat(32));
        assert_eq!(named("nginx:1", true), format!("nginx@{hash}"));
        assert_eq!(
            named("registry.example.org:5000/a/b", true),
            format!("registry.example.org:5000/a/b@{hash}")
        );
        assert_eq!(
            named("registry.example.org:5000/a/b:3@sha256:x", true),
            format!("registry.example.org:5000/a/b@{hash}")
        );
        assert_eq!(named("own", false), hash);
        assert_eq!(named(IMAGE_BUILT, true), hash);
    }
}
