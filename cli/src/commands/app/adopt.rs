//! `comb app adopt`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use orchestrator_api::compose::{PlannedVolume, VolumeKind};
use orchestrator_api::ids::AppId;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::app::{App, MakeApp};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::{List, Number};
use orchestrator_device::app::volume_name;
use orchestrator_device::daemon::Marker;
use orchestrator_device::daemon::files::Folder;
use orchestrator_device::doors::disk;
use orchestrator_device::doors::volumes::Volumes;
use orchestrator_device::trouble::Trouble;
use serde::{Deserialize, Serialize};

use super::add::{self, KeepingArgs};
use super::authoring::{self, AuthorArgs};
use crate::carry::{self, Sum};
use crate::device::Commands;
use crate::failure::{Context, Failure, Kind, Result};
use crate::hive::compose::Images;
use crate::hive::folder::AppFolder;
use crate::hive::old::{self, DockerVolume, Project};
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, author, here, ring};
use crate::interrupts::Interrupts;
use crate::passphrase::PassphraseArgs;
use crate::state::{State, lock_file, try_lock};
use crate::{ask, output, progress, stores};

/// How long the data may take to the app's store before the app is started all the same.
const SYNC_WAIT: Duration = Duration::from_secs(6 * 60 * 60);
/// How often a volume is sealed while it is filled.
const SEAL_EVERY: Duration = Duration::from_secs(15);
/// How long what a hive did not answer may still be on its way.
const SURE_AFTER: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// How often a volume is removed that is not free yet.
const REMOVE_TRIES: u32 = 5;
/// Before it is tried again.
const REMOVE_AGAIN: Duration = Duration::from_secs(1);

/// Add an app that runs already, with the data that it has
///
/// DIR is a compose project that runs on this machine without Comb, which is a device. Its containers are stopped; what its
/// volumes and the relative folders of its compose file hold is copied into volumes of Comb, with owners, attributes and
/// holes, and compared byte by byte; then the app is started on them. Docker's own volumes and the folders stay as they
/// are, so the old project can be started again as long as they do.
///
/// Where anything is not as it should be, nothing is added, and the old project is started again; so it is after an
/// interrupt, until the app is added. A second interrupt ends at once, and what is left is removed by the next adopt.
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
    let device = here::device(state, &client)?;
    let begun = Begun::of(state)?;
    let killed = begun.killed()?;
    if let Some(killed) = &killed {
        settle(state, &client, &begun, killed)?;
    }
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
    let runs = agree(&project, &volumes, args.yes)?;
    // One that was stopped by an adopt that did not come to its end is started as if it had run now.
    let was_stopped = killed.is_some_and(|killed| killed.project == project.0 && killed.was_running);
    let app = AppId(draft.app().0);
    let journal = Journal {
        app,
        project: project.0.clone(),
        was_running: runs || was_stopped,
        volumes: sources.iter().map(|source| volume_name(app, &source.name)).collect(),
    };
    begun.write(&journal)?;
    let interrupts = Interrupts::heed(journal.left())?;
    let urls: Vec<String> = chosen.iter().map(|store| store.url.clone()).collect();
    let filling = Filling { state, app, urls: &urls, interrupts: &interrupts };
    let filled = interrupts.or(stop(&project, runs).and_then(|()| {
        let sums = filling.all(&sources, &draft)?;
        let opened = ring::open(state, &client, &args.passphrase)?;
        let revision = authoring::post(&client, opened.ring.owner(), &draft, 1)?;
        interrupts.check()?;
        Ok((sums, revision))
    }));
    let undo = |failure: Failure| {
        undo(state, &begun, &journal);
        failure
    };
    let (sums, revision) = filled.map_err(undo)?;
    let make = MakeApp {
        app,
        revision: Number(revision),
        device: Some(device),
        policy: args.keeping.policy.into(),
        stores: List::cut(chosen.iter().map(|store| store.id)),
        start: true,
    };
    let ordered = match client.post::<Ordered>("/v1/apps", &make) {
        Ok(ordered) => Some(ordered),
        // What the hive did without its answer being heard is not undone: it starts the app on these volumes.
        Err(failure) => match is_there(&client, app, failure.kind) {
            Ok(None) => return Err(undo(failure)),
            Ok(Some(there)) => {
                output::note(&format!("\"{}\" was added, though the hive's answer was lost", draft.name()));
                operation(&client, &there)?
            }
            Err(why) => return Err(unknown(&failure, &why, draft.name(), &journal)),
        },
    };
    // From here on an interrupt ends the watching only.
    let interrupted = interrupts.end();
    for (source, sum) in sources.iter().zip(&sums) {
        output::note(&format!(
            "volume \"{}\" has all of {}: {} in {} entries, compared byte by byte",
            source.name,
            source.what,
            output::size(sum.bytes),
            sum.entries
        ));
    }
    begun.end(|| project.rest())?;
    if interrupted {
        tell_old(&project, &sources);
        return Err(Failure::other(format!(
            "interrupted when \"{}\" was added already: it stays",
            draft.name()
        ))
        .hint("`comb app list` says how it is"));
    }
    let watched = match ordered {
        Some(ordered) => {
            Some(args.order.finish(&client, ordered, &format!("starting \"{}\"", draft.name()))?)
        }
        None => None,
    };
    tell_old(&project, &sources);
    match watched.is_none_or(|watched| watched.waited) && !args.order.json {
        true => add::tell(&client.get(&format!("/v1/apps/{app}"))?),
        false => Ok(()),
    }
}

/// Whether the hive has the app, after it gave no good answer to the order that makes it.
fn is_there(client: &Client, app: AppId, why: Kind) -> Result<Option<App>> {
    match ask_for(client, app)? {
        // What was sent may still be done, if there was no answer at all.
        None if why == Kind::Unreachable => {
            std::thread::sleep(SURE_AFTER);
            ask_for(client, app)
        }
        found => Ok(found),
    }
}

fn ask_for(client: &Client, app: AppId) -> Result<Option<App>> {
    match client.get::<App>(&format!("/v1/apps/{app}")) {
        Ok(app) => Ok(Some(app)),
        Err(failure) if failure.kind == Kind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What the hive does with the app now; none if it has done it.
fn operation(client: &Client, app: &App) -> Result<Option<Ordered>> {
    let Some(id) = app.operation else { return Ok(None) };
    let operation = client.get(&format!("/v1/operations/{id}"))?;
    Ok(Some(Ordered { operation, at_stake: None, app: Some(app.id) }))
}

/// Nobody says whether the app was added, so nothing is undone.
fn unknown(failure: &Failure, why: &Failure, name: &str, journal: &Journal) -> Failure {
    Failure::new(Kind::Unreachable, format!("whether \"{name}\" was added is not known: {}", failure.message)).hint(
        format!(
            "{}; nothing was undone: the volumes are there, and \"{project}\" is stopped. When the hive answers, `comb app list` says \
             whether it has \"{name}\": if it does, all is well; if not, the same `comb app adopt` again removes the volumes and begins \
             anew, and `docker compose -p {project} start` starts the old project again",
            why.message,
            project = journal.project
        ),
    )
}

/// What is being adopted, as a later adopt reads it if this one is killed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    /// What it was to be.
    app: AppId,
    /// The old project.
    project: String,
    /// Whether that ran.
    was_running: bool,
    /// The volumes that are made for it.
    volumes: Vec<String>,
}

impl Journal {
    /// What is left where nothing is put back, and what to do.
    fn left(&self) -> String {
        let start = match self.was_running {
            true => format!("; `docker compose -p {} start` starts the old project again", self.project),
            false => String::new(),
        };
        format!("what was copied until now is left, and the next `comb app adopt` removes it{start}")
    }
}

/// The adopt of this machine: one at a time, as long as this lives.
struct Begun {
    folder: PathBuf,
    _lock: File,
}

impl Begun {
    fn of(state: &State) -> Result<Self> {
        let folder = adopting(state);
        disk::make(&folder).context(folder.display())?;
        let path = folder.join("lock");
        let lock = lock_file(&path)?;
        if !try_lock(&path, &lock)? {
            return Err(Failure::new(Kind::InTheWay, "another `comb app adopt` runs on this machine")
                .hint("wait for its end"));
        }
        Ok(Self { folder, _lock: lock })
    }

    fn path(&self) -> PathBuf {
        self.folder.join("adopt.json")
    }

    /// What one that was killed left.
    fn killed(&self) -> Result<Option<Journal>> {
        disk::read_json(&self.path()).context(self.path().display())
    }

    fn write(&self, journal: &Journal) -> Result<()> {
        disk::replace_json(&self.path(), journal).context(self.path().display())
    }

    /// The app is there: the old containers are to rest, and only then nothing is left to do. Two of one database on one port
    /// would be none.
    fn end(&self, rest: impl FnOnce() -> Result<()>) -> Result<()> {
        rest()?;
        self.forget()
    }

    fn forget(&self) -> Result<()> {
        disk::gone(fs::remove_file(self.path())).context(self.path().display())
    }
}

/// Where volumes are mounted while they are filled.
fn adopting(state: &State) -> PathBuf {
    state.root().join("orchestrator/adopt")
}

/// Clears what an adopt left that was killed, unless the hive has its app.
fn settle(state: &State, client: &Client, begun: &Begun, killed: &Journal) -> Result<()> {
    let project = &killed.project;
    if let Some(app) = ask_for(client, killed.app)? {
        output::note(&format!(
            "an adopt of \"{project}\" ended before it said so: \"{}\" is an app with its data",
            app.name
        ));
        return begun.end(|| Project(project.clone()).rest());
    }
    output::note(&format!("an adopt of \"{project}\" was ended before it was done: removing what it copied"));
    if killed.was_running {
        output::note(&format!(
            "\"{project}\" was stopped by it: `docker compose -p {project} start` starts it again, unless you did"
        ));
    }
    match remove(state, &killed.volumes) {
        true => begun.forget(),
        false => Err(Failure::new(Kind::InTheWay, "what an adopt left that was ended cannot be removed")
            .hint("`comb status` shows its volumes, and who uses them; then adopt again")),
    }
}

/// Puts all back as it was.
fn undo(state: &State, begun: &Begun, journal: &Journal) {
    let all_gone = remove(state, &journal.volumes);
    if journal.was_running {
        let project = &journal.project;
        match Project(project.clone()).start() {
            Ok(()) => output::note(&format!("\"{project}\" is started again, as it was")),
            Err(failure) => output::note(&format!(
                "error: \"{project}\" does not start again: {}\nhint: `docker compose -p {project} start` starts it",
                failure.message
            )),
        }
    }
    // What stays is for the next one.
    if all_gone && let Err(failure) = begun.forget() {
        output::note(&failure.to_string());
    }
}

/// Removes volumes that were to be an app's; a store keeps what it got until it is collected. Says whether all are gone.
fn remove(state: &State, volumes: &[String]) -> bool {
    let commands = Commands::new(state.clone(), Folder::of(state.root()).0);
    let wait = |door: &dyn Fn() -> Result<bool>| {
        let mut tries = 1;
        loop {
            match door() {
                Ok(true) => return Ok(()),
                // A mount that was begun when its command was interrupted may only now be there.
                Ok(false) | Err(_) if tries < REMOVE_TRIES => std::thread::sleep(REMOVE_AGAIN),
                Ok(false) => return Err(Failure::other("it is there still")),
                Err(failure) => return Err(failure),
            }
            tries += 1;
        }
    };
    let one = |name: &String| {
        let folder = adopting(state).join(name);
        let outcome = wait(&|| {
            let unmounted = ask_door(commands.unmount(&folder));
            let _ = fs::remove_dir(&folder);
            if ask_door(commands.find(name))?.is_none() {
                return Ok(!folder.exists());
            }
            unmounted?;
            ask_door(commands.remove(name))?;
            Ok(!folder.exists())
        });
        if let Err(failure) = &outcome {
            output::note(&format!("error: volume \"{name}\" stays: {}", failure.message));
        }
        outcome.is_ok()
    };
    // Each is tried, whatever became of the one before.
    let stay = volumes.iter().filter(|name| !one(name)).count();
    stay == 0
}

fn ask_door<T>(door: impl Future<Output = std::result::Result<T, Trouble>>) -> Result<T> {
    stores::block_on(async { door.await.map_err(|trouble| Failure::other(trouble.text())) })
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

/// Asks whether the old project may be stopped; says whether it runs. Containers of others that use its volumes are for a
/// person to stop.
fn agree(project: &Project, volumes: &[DockerVolume], yes: bool) -> Result<bool> {
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
    Ok(true)
}

/// Stops the old project, if it runs; if that fails, whoever undoes starts what did stop.
fn stop(project: &Project, runs: bool) -> Result<()> {
    if !runs {
        return Ok(());
    }
    output::note(&format!("stopping \"{}\"", project.0));
    project.stop()
}

/// New volumes on their way to be an app's.
struct Filling<'a> {
    state: &'a State,
    app: AppId,
    urls: &'a [String],
    interrupts: &'a Interrupts,
}

impl Filling<'_> {
    fn commands(&self) -> Commands {
        Commands::new(self.state.clone(), Folder::of(self.state.root()).0)
    }

    fn mount_point(&self, name: &str) -> PathBuf {
        adopting(self.state).join(volume_name(self.app, name))
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
        let go_on = || self.interrupts.check();
        carry::carry(&source.folder, &data, &go_on)?;
        bar.finish_and_clear();
        self.wait(commands.unmount(&folder))?;
        self.wait(commands.mount(&name, &folder, SEAL_EVERY, None))?;
        let bar = progress::waiting("comparing");
        let compared = carry::compare(&source.folder, &data, &go_on)?;
        bar.finish_and_clear();
        self.wait(commands.unmount(&folder))?;
        let bar = progress::waiting("bringing it to the store");
        let sent = stores::block_on(async {
            let sync = async {
                commands.sync(&name, Some(SYNC_WAIT)).await.map_err(|trouble| Failure::other(trouble.text()))
            };
            tokio::select! { sent = sync => sent, interrupted = self.interrupts.wait() => interrupted }
        });
        bar.finish_and_clear();
        sent?;
        fs::remove_dir(&folder).context(folder.display())?;
        Ok(compared)
    }

    /// A step of a minute or two, which is done even if it is interrupted: half of it would be harder to undo.
    fn wait<T>(&self, door: impl Future<Output = std::result::Result<T, Trouble>>) -> Result<T> {
        self.interrupts.check()?;
        ask_door(door)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hive::client::tests::{ID, answer, app, client, serving};

    #[test]
    fn volumes_are_named_in_pairs() {
        let pairs = named(&["data=old_data".to_owned()]).expect("a pair");
        assert_eq!(pairs, [("data".to_owned(), "old_data".to_owned())]);
        for wrong in ["data", "=x", "data="] {
            assert_eq!(named(&[wrong.to_owned()]).expect_err("no pair").kind, Kind::Usage);
        }
    }

    fn journal() -> Journal {
        Journal {
            app: "01010101-0101-4101-8101-010101010101".parse().expect("an id"),
            project: "diary".to_owned(),
            was_running: true,
            volumes: vec!["app-01010101-data".to_owned()],
        }
    }

    #[test]
    fn what_a_killed_adopt_left_is_known_to_the_next_and_two_do_not_run() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let state = State::locate(Some(top.path())).expect("a path");
        let begun = Begun::of(&state).expect("nobody adopts");
        assert_eq!(begun.killed(), Ok(None));
        begun.write(&journal()).expect("written");
        let second = Begun::of(&state).map(drop).expect_err("the first runs");
        assert_eq!(second.kind, Kind::InTheWay);
        drop(begun);
        let begun = Begun::of(&state).expect("it was killed");
        assert_eq!(begun.killed(), Ok(Some(journal())));
        // The old containers would start beside the app, so somebody has to see to them yet.
        let rests = || begun.killed().map(|killed| assert_eq!(killed, Some(journal()), "until they rest"));
        begun
            .end(|| rests().and(Err(Failure::other("Docker does not answer"))))
            .expect_err("they do not rest");
        begun.end(rests).expect("forgotten");
        begun.forget().expect("once is enough");
        assert_eq!(begun.killed(), Ok(None));
        assert!(journal().left().contains("docker compose -p diary start"));
        assert!(!Journal { was_running: false, ..journal() }.left().contains("docker"));
    }

    #[test]
    fn whether_an_app_was_added_is_asked_before_anything_is_undone() {
        let missing =
            || answer("404 Not Found", r#"{"error":{"code":"not_found","message":"there is no such app"}}"#);
        let denied =
            || answer("401 Unauthorized", r#"{"error":{"code":"token_ended","message":"the login ended"}}"#);
        let there = || {
            let app = serde_json::to_string(&app(&json!({"name": "diary"}))).expect("JSON");
            answer("200 OK", &app)
        };
        let app = ID.parse().expect("an id");
        let ask = |answers: Vec<String>, why: Kind| {
            let asked = answers.len();
            let (hive, serving) = serving(answers);
            let found = is_there(&client(hive), app, why).map(|found| found.map(|app| app.name));
            assert_eq!(serving.join().expect("asked").len(), asked);
            found
        };
        assert_eq!(ask(vec![missing()], Kind::NotPermitted), Ok(None), "what was refused is asked for once");
        assert_eq!(ask(vec![missing(), missing()], Kind::Unreachable), Ok(None));
        assert_eq!(ask(vec![there()], Kind::Unreachable), Ok(Some("diary".to_owned())));
        assert_eq!(
            ask(vec![missing(), there()], Kind::Unreachable),
            Ok(Some("diary".to_owned())),
            "it came late"
        );
        let why = ask(vec![denied()], Kind::Unreachable).expect_err("nobody says");
        let told = unknown(&Failure::other("the hive does not answer"), &why, "diary", &journal());
        assert_eq!(told.kind, Kind::Unreachable);
        assert!(told.hint.expect("a hint").contains("nothing was undone"));
    }
}
