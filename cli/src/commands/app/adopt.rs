//! `comb app adopt`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use orchestrator_api::compose::{PlannedVolume, VolumeKind};
use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::app::MakeApp;
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::{List, Number};
use orchestrator_device::app::volume_name;
use orchestrator_device::daemon::Marker;
use orchestrator_device::daemon::files::Folder;
use orchestrator_device::doors::disk;
use orchestrator_device::doors::volumes::Volumes;
use orchestrator_device::trouble::Trouble;

use super::add::{self, KeepingArgs};
use super::authoring::{self, AuthorArgs};
use crate::carry::{self, Sum};
use crate::device::Commands;
use crate::failure::{Context, Failure, Kind, Result};
use crate::hive::compose::Images;
use crate::hive::folder::AppFolder;
use crate::hive::old::{self, DockerVolume, Project};
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, author, ring};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{ask, output, progress, stores};

/// How long the data may take to the app's store before the app is started all the same.
const SYNC_WAIT: Duration = Duration::from_secs(6 * 60 * 60);
/// How often a volume is sealed while it is filled.
const SEAL_EVERY: Duration = Duration::from_secs(15);

/// Add an app that runs already, with the data that it has
///
/// DIR is a compose project that runs on this machine without Comb, which is a device. Its containers are stopped; what its
/// volumes and the relative folders of its compose file hold is copied into volumes of Comb, with owners, attributes and
/// holes, and compared byte by byte; then the app is started on them. Docker's own volumes and the folders stay as they
/// are, so the old project can be started again as long as they do.
///
/// Where anything is not as it should be, nothing is added, and the old project is started again.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The project's folder, or its compose file
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// What the app is called [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// What compose calls the old project [default: as its containers say, else by its folder]
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,

    /// The Docker volume whose data a volume of the compose file gets; may be given several times
    /// [default: the one that compose made for it]
    #[arg(long, value_name = "VOLUME=DOCKER_VOLUME")]
    volume: Vec<String>,

    /// Stop the old project without a question
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    keeping: KeepingArgs,

    #[command(flatten)]
    author: AuthorArgs,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// What a volume gets.
struct Source {
    /// The volume, in the app.
    name: String,
    /// Where its data lies.
    folder: PathBuf,
    /// What that is, for a person.
    what: String,
}

/// Adopts a project.
pub fn run(state: &State, args: &AdoptArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let device = this_device(state, &client)?;
    let folder = AppFolder::read(&args.dir)?;
    let path = folder.path.clone();
    let wishes =
        author::Wishes { name: args.name.clone(), ..args.author.wishes(state, &client, Images::Here)? };
    let chosen = add::stores(&client, &args.keeping.store, Some(device))?;
    if let Some(name) = wishes.name.clone().or_else(|| folder.name()) {
        add::refuse_second(&client, &name)?;
    }
    let opened = ring::open(state, &client, &args.passphrase)?;
    let draft = author::draft(opened.ring.account(), &folder, &wishes, None)?;
    // The commands that make volumes take the ring themselves.
    drop(opened);
    authoring::tell_only_here(&draft);

    let project = match &args.project {
        Some(name) => Project(name.clone()),
        None => old::project(&path)?,
    };
    let (sources, volumes) = sources(&path, &project, &draft.plan().volumes, &named(&args.volume)?)?;
    let was_running = stop(&project, &volumes, args.yes)?;
    let urls: Vec<String> = chosen.iter().map(|store| store.url.clone()).collect();
    let filling = Filling { state, app: AppId(draft.app().0), urls: &urls };
    let added = filling.all(&sources, &draft).and_then(|sums| {
        let opened = ring::open(state, &client, &args.passphrase)?;
        let revision = authoring::post(&client, opened.ring.owner(), &draft, 1)?;
        drop(opened);
        let make = MakeApp {
            app: AppId(draft.app().0),
            revision: Number(revision),
            device: Some(device),
            policy: args.keeping.policy.into(),
            stores: List::cut(chosen.iter().map(|store| store.id)),
            start: true,
        };
        Ok((sums, client.post::<Ordered>("/v1/apps", &make)?, make.app))
    });
    let (sums, ordered, app) = match added {
        Ok(added) => added,
        Err(failure) => {
            filling.undo(&sources);
            if was_running && let Err(error) = project.start() {
                output::note(&format!("error: \"{}\" does not start again: {error}", project.0));
            }
            return Err(failure);
        }
    };
    for (source, sum) in sources.iter().zip(&sums) {
        output::note(&format!(
            "volume \"{}\" has all of {}: {} in {} entries, compared byte by byte",
            source.name,
            source.what,
            output::size(sum.bytes),
            sum.entries
        ));
    }
    project.rest()?;
    let watched = args.order.finish(&client, ordered, &format!("starting \"{}\"", draft.name()))?;
    tell_old(&project, &sources);
    match watched.waited && !args.order.json {
        true => add::tell(&client.get(&format!("/v1/apps/{app}"))?),
        false => Ok(()),
    }
}

/// What the old project left, and how to be rid of it.
fn tell_old(project: &Project, sources: &[Source]) {
    let all: Vec<&str> = sources.iter().map(|source| source.what.as_str()).collect();
    if !all.is_empty() {
        output::note(&format!("as they were, and of no use to the app any more: {}", all.join(", ")));
    }
    output::note(&format!(
        "the old containers are stopped: `docker compose -p {0} rm` removes them; `docker compose -p {0} start` would start \
         them again on the old data",
        project.0
    ));
}

/// This machine, as the hive calls it.
fn this_device(state: &State, client: &Client) -> Result<DeviceId> {
    let file = Folder::of(state.root()).hive().context("the device's folder")?;
    let file = file.ok_or_else(|| {
        Failure::new(Kind::NotFound, "this machine is no device")
            .hint("adopt an app where it runs: `comb device join HIVE --code C` makes this machine a device")
    })?;
    match client.info()?.key == file.key {
        true => Ok(file.device),
        false => Err(Failure::new(
            Kind::Foreign,
            format!("this machine is a device of another hive, {}", file.url),
        )),
    }
}

fn named(list: &[String]) -> Result<Vec<(String, String)>> {
    let read = |text: &String| {
        let pair = text.split_once('=').filter(|(name, docker)| !name.is_empty() && !docker.is_empty());
        pair.map(|(name, docker)| (name.to_owned(), docker.to_owned()))
            .ok_or_else(|| Failure::new(Kind::Usage, "a volume is written VOLUME=DOCKER_VOLUME"))
    };
    list.iter().map(read).collect()
}

/// Where the data of each volume lies now. A volume that never had any is left to its first start.
fn sources(
    path: &Path,
    project: &Project,
    planned: &[PlannedVolume],
    named: &[(String, String)],
) -> Result<(Vec<Source>, Vec<DockerVolume>)> {
    if let Some((name, _)) = named.iter().find(|(name, _)| !planned.iter().any(|one| one.name == *name)) {
        return Err(Failure::new(Kind::Usage, format!("the compose file has no volume \"{name}\"")));
    }
    let (mut sources, mut volumes) = (Vec::new(), Vec::new());
    for volume in planned {
        let said = named.iter().find(|(name, _)| *name == volume.name).map(|(_, docker)| docker);
        let found = match (said, &volume.kind) {
            (Some(docker), _) => Some(old::docker_volume(docker)?.ok_or_else(|| {
                Failure::new(Kind::NotFound, format!("Docker has no volume \"{docker}\""))
                    .hint("`docker volume ls` lists them")
            })?),
            (None, VolumeKind::Folder { path: inside, .. }) => {
                let folder = path.join(inside);
                if folder.is_dir() {
                    let what = format!("folder {}", folder.display());
                    sources.push(Source { name: volume.name.clone(), folder, what });
                }
                continue;
            }
            (None, _) => project.volume(&volume.name)?,
        };
        match found {
            Some(docker) => {
                sources.push(Source {
                    name: volume.name.clone(),
                    folder: docker.folder.clone(),
                    what: format!("Docker's volume \"{}\"", docker.name),
                });
                volumes.push(docker);
            }
            None => output::note(&format!(
                "volume \"{}\" begins empty: Docker has no volume of project \"{}\" for it (--volume names one)",
                volume.name, project.0
            )),
        }
    }
    if sources.is_empty() {
        return Err(Failure::new(Kind::NotFound, format!("project \"{}\" has no data to adopt", project.0)).hint(
            "--project names the old project, as `docker compose ls -a` lists it; `comb app add` adds an app without data",
        ));
    }
    Ok((sources, volumes))
}

/// Stops the old project; says whether it ran. Containers of others that use its volumes are for a person to stop.
fn stop(project: &Project, volumes: &[DockerVolume], yes: bool) -> Result<bool> {
    let strangers = project.strangers(volumes)?;
    if !strangers.is_empty() {
        return Err(Failure::new(
            Kind::InTheWay,
            format!(
                "the data is in use by containers that are not of \"{}\": {}",
                project.0,
                strangers.join(", ")
            ),
        )
        .hint("stop them first"));
    }
    let running = project.running()?.len();
    if running == 0 {
        return Ok(false);
    }
    let question = format!("Stop the {running} containers of \"{}\" to copy its data?", project.0);
    if !yes && !ask::confirm(&question)? {
        return Err(Failure::new(Kind::InTheWay, format!("\"{}\" runs; nothing was changed", project.0))
            .hint("--yes stops it without a question"));
    }
    output::note(&format!("stopping \"{}\"", project.0));
    if let Err(failure) = project.stop() {
        // What did stop goes on.
        let _ = project.start();
        return Err(failure);
    }
    Ok(true)
}

/// New volumes on their way to be an app's.
struct Filling<'a> {
    state: &'a State,
    app: AppId,
    urls: &'a [String],
}

impl Filling<'_> {
    fn commands(&self) -> Commands {
        Commands::new(self.state.clone(), Folder::of(self.state.root()).0)
    }

    fn mount_point(&self, name: &str) -> PathBuf {
        self.state.root().join("orchestrator/adopt").join(volume_name(self.app, name))
    }

    fn all(&self, sources: &[Source], draft: &author::Draft) -> Result<Vec<Sum>> {
        sources.iter().map(|source| self.one(source, draft.quota(&source.name))).collect()
    }

    /// Makes a volume, fills it, and compares what is in it when it was sealed and mounted again.
    fn one(&self, source: &Source, quota: Option<u64>) -> Result<Sum> {
        let (commands, name) = (self.commands(), volume_name(self.app, &source.name));
        let folder = self.mount_point(&source.name);
        fs::create_dir_all(&folder).context(folder.display())?;
        let id = self.wait(commands.create(&name, quota, self.urls))?;
        self.wait(commands.mount(&name, &folder, SEAL_EVERY, None))?;
        let marker = Marker { volume: Hex(id.0), app: Uuid(self.app.0), name: source.name.clone() };
        disk::replace_json(&folder.join("comb.json"), &marker).context(folder.display())?;
        let data = folder.join("data");
        fs::create_dir(&data).context(data.display())?;
        let bar = progress::waiting("copying");
        carry::carry(&source.folder, &data)?;
        bar.finish_and_clear();
        self.wait(commands.unmount(&folder))?;
        self.wait(commands.mount(&name, &folder, SEAL_EVERY, None))?;
        let bar = progress::waiting("comparing");
        let compared = carry::compare(&source.folder, &data)?;
        bar.finish_and_clear();
        self.wait(commands.unmount(&folder))?;
        let bar = progress::waiting("bringing it to the store");
        let sent = self.wait(commands.sync(&name, Some(SYNC_WAIT)));
        bar.finish_and_clear();
        sent?;
        fs::remove_dir(&folder).context(folder.display())?;
        Ok(compared)
    }

    fn wait<T>(&self, door: impl Future<Output = std::result::Result<T, Trouble>>) -> Result<T> {
        stores::block_on(async { door.await.map_err(|trouble| Failure::other(trouble.text())) })
    }

    /// Removes what was made; a store keeps what it got until it is collected.
    fn undo(&self, sources: &[Source]) {
        for source in sources {
            let (commands, name) = (self.commands(), volume_name(self.app, &source.name));
            let folder = self.mount_point(&source.name);
            let _ = self.wait(commands.unmount(&folder));
            let _ = fs::remove_dir(&folder);
            if matches!(self.wait(commands.find(&name)), Ok(Some(_)))
                && let Err(failure) = self.wait(commands.remove(&name))
            {
                output::note(&format!("error: volume \"{name}\" stays: {failure}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_named_in_pairs() {
        let pairs = named(&["data=old_data".to_owned()]).expect("a pair");
        assert_eq!(pairs, [("data".to_owned(), "old_data".to_owned())]);
        for wrong in ["data", "=x", "data="] {
            assert_eq!(named(&[wrong.to_owned()]).expect_err("no pair").kind, Kind::Usage);
        }
    }
}
