//! Packages that are here: opened, checked, and what compose makes of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orchestrator_api::compose::paths::{self, Host};
use orchestrator_api::compose::{Given, Plan, check};
use orchestrator_api::ids::AppId;
use orchestrator_api::package::Judge;
use orchestrator_api::placement::Problem;
use orchestrator_api::text::{Time, Uuid};
use orchestrator_api::wire::PACKAGE_REQUEST_BYTES_MAX;
use orchestrator_api::wire::account;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::World;
use crate::app::folder::Folder;
use crate::app::package::{self, Package, Wanted};
use crate::app::variables::{self, Text};
use crate::app::{project, short};
use crate::doors::hive::{Ask, HiveError};
use crate::doors::ring;
use crate::trouble::{Result, Trouble};

/// How long a package may take.
const FETCH_WAIT: Duration = Duration::from_secs(30);

/// A package that was opened.
pub struct Loaded {
    /// The package.
    pub package: Package,
    /// Its text, with its variables.
    pub text: Text,
    /// What compose makes of it; asked once.
    pub(super) planned: OnceCell<Planned>,
}

/// What compose made of it, and what the policy says of that.
pub struct Planned {
    /// Compose's answer.
    pub config: Value,
    /// What is made of it.
    pub plan: Plan,
}

/// The wall clock, in milliseconds since 1970.
pub fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Loaded {
    /// Reads the text of a package.
    pub(super) fn read(package: Package) -> Result<Self> {
        let text = variables::read(&package)?;
        Ok(Self { package, text, planned: OnceCell::new() })
    }
}

impl World {
    /// The package of an app, from the disk or the hive; judged now.
    pub(super) async fn load(&self, app: AppId, revision: u64) -> Result<Arc<Loaded>> {
        let sealed = self.package(app, revision).await?;
        let ring = ring::open(&self.setup.state)?;
        let hive = self.hive_file.lock().clone();
        let judge = Judge {
            account: ring.account(),
            device: Uuid(hive.device.0),
            is_delegated: hive.accepts_authoring,
            revision_seen: self.app(app, |state| state.file.highest),
            now: wall_clock(),
        };
        let wanted = Wanted { app: Uuid(app.0), revision };
        self.keep_loaded(app, package::open(&sealed, ring.owner(), wanted, &judge)?)
    }

    /// The package of an app that runs, to look after it. It is not judged: what it may be started as now says nothing of what
    /// runs, which goes on (`security.md`, section 5). So nothing is started anew by this, only what exits again.
    pub(super) async fn load_running(&self, app: AppId, revision: u64) -> Result<Arc<Loaded>> {
        let sealed = self.package(app, revision).await?;
        let ring = ring::open(&self.setup.state)?;
        let wanted = Wanted { app: Uuid(app.0), revision };
        self.keep_loaded(app, package::open_own(&sealed, ring.owner(), wanted)?)
    }

    fn keep_loaded(&self, app: AppId, package: Package) -> Result<Arc<Loaded>> {
        let known = self.app(app, |state| state.loaded.clone());
        if let Some(known) = known.filter(|known| known.package.authorization == package.authorization) {
            return Ok(known);
        }
        let loaded = Arc::new(Loaded::read(package)?);
        self.app(app, |state| state.loaded = Some(loaded.clone()));
        Ok(loaded)
    }

    async fn package(&self, app: AppId, revision: u64) -> Result<account::Package> {
        if let Ok(Some(package)) = self.folder.read_package(app, revision) {
            return Ok(package);
        }
        let away = |error: HiveError| Trouble::new(Problem::PackageWrong, format!("no package: {error}"));
        let Some(session) = self.seen.lock().session else {
            return Err(away(HiveError::Away("no session".to_owned())));
        };
        let path = format!("/v1/packages/{app}/{revision}");
        let ask = Ask { bytes_max: PACKAGE_REQUEST_BYTES_MAX + 1024, ..Ask::get(session, &path, FETCH_WAIT) };
        let package: account::Package = self.hive.ask(&ask).await.map_err(away)?;
        self.folder
            .write_package(app, revision, &package)
            .map_err(|error| crate::app::folder::no_space(&self.folder.0, &error))?;
        Ok(package)
    }

    /// Where an app's files lie.
    pub(super) fn app_folder(&self, app: AppId, loaded: &Loaded) -> Folder {
        // Two apps of one name, of which one is stopped here, lie apart.
        let name = &loaded.package.authorization.name;
        Folder::new(&self.setup.apps, &format!("{name}-{}", short(app)))
    }

    /// What compose makes of the package, checked again by the policy and against what was signed.
    pub(super) async fn plan<'a>(&self, app: AppId, loaded: &'a Loaded) -> Result<&'a Planned> {
        loaded.planned.get_or_try_init(|| self.make_plan(app, loaded)).await
    }

    async fn make_plan(&self, app: AppId, loaded: &Loaded) -> Result<Planned> {
        let (package, text) = (&loaded.package, &loaded.text);
        let folder = self.app_folder(app, loaded);
        folder.write(&package.body)?;
        let files = folder.files();
        let config = self.compose.config(&project(app), &files, text.source.main(), &text.variables).await?;
        let main = files.join(text.source.main());
        let given = Given {
            folder: main.parent().unwrap_or(&files).to_string_lossy().into_owned(),
            variables: text.variables.clone(),
            permissions: package.authorization.permissions.iter().cloned().collect(),
            adopted: BTreeSet::new(),
            comb_folders: self.comb_folders().await,
        };
        let plan = check(&text.source, &config, &given).accept().map_err(|refusals| {
            let count = i64::try_from(refusals.len()).unwrap_or(i64::MAX);
            match refusals.first() {
                Some(first) => Trouble::new(Problem::PolicyRefused, first.to_string())
                    .at(&first.place.file, first.place.line)
                    .counted(count),
                None => Trouble::new(Problem::PolicyRefused, "the compose file is refused"),
            }
        })?;
        package
            .authorization
            .agrees(&plan, text.source.block())
            .map_err(|error| Trouble::new(Problem::ConfigChanged, error.to_string()))?;
        let config = serde_json::from_slice(&config)
            .map_err(|error| Trouble::new(Problem::ComposeFailed, error.to_string()))?;
        Ok(Planned { config, plan })
    }

    pub(super) async fn comb_folders(&self) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut folders = vec![text(&self.setup.state), text(&self.setup.apps)];
        if let Ok((_, Some(root))) = self.docker.version().await {
            folders.push(text(&root));
        }
        folders
    }

    /// What a granted bind of the machine leads to by links must be what was granted, too.
    pub(super) async fn check_binds(&self, app: AppId, loaded: &Loaded, config: &Value) -> Result<()> {
        let own = self.app_folder(app, loaded).files();
        let comb_folders = self.comb_folders().await;
        let services = config["services"].as_object().into_iter().flatten();
        for (name, service) in services {
            for mount in
                service["volumes"].as_array().into_iter().flatten().filter(|mount| mount["type"] == "bind")
            {
                let source = mount["source"].as_str().unwrap_or_default();
                let source = Path::new(source);
                if source.starts_with(&own) {
                    continue;
                }
                let wrong = |text: String| Trouble::new(Problem::PolicyRefused, text).of(name);
                let led =
                    source.canonicalize().map_err(|error| wrong(format!("{}: {error}", source.display())))?;
                match paths::host(&led.to_string_lossy(), &comb_folders) {
                    Host::Ask | Host::Clock => {}
                    _ if led == source || is_clock(source) => {}
                    _ => return Err(wrong(format!("{} leads to {}", source.display(), led.display()))),
                }
            }
        }
        Ok(())
    }
}

/// `/etc/localtime` is a link on every machine; who may read the clock may read where it leads.
fn is_clock(path: &Path) -> bool {
    matches!(path.to_str(), Some("/etc/localtime" | "/etc/timezone"))
}
