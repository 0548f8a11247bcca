//! Sealing a package for the hive (`security.md`, section 5, "Delegated").
//!
//! Invariants
//! - Only where a person at this machine said so when it joined.
//! - Nothing is permitted beyond the rules, nothing is built, and it may run only on devices of which that was said too.
//! - The hive does not choose the app's id, so what it has sealed never comes to the volumes of another app.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::compose::variables::FILLED_ALWAYS;
use orchestrator_api::compose::{Block, Files, Folder as Text, Given, Plan, Refusal, Source, check};
use orchestrator_api::ids::{AppId, SessionId};
use orchestrator_api::package::{
    ActionName, Authorization, Body, Devices, Digest, InputName, Mark, NamedValue, PackedFile, Port,
    ServiceImage, VolumeName,
};
use orchestrator_api::placement::Problem;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::command::{Author, Data};
use orchestrator_api::wire::value::Number;

use super::World;
use super::loaded::wall_clock;
use crate::app::folder::Folder;
use crate::app::{package, project, short, variables};
use crate::doors::ring;
use crate::trouble::{Result, Trouble};

/// The first revision of an app.
const FIRST: u64 = 1;
/// The variable with the secret of an app's link.
const LINK_TOKEN: &str = "LINK_TOKEN_DEFAULT";

type Values = BTreeMap<String, String>;

impl World {
    /// Checks a folder that the hive sends, seals it and signs it.
    pub(super) async fn author(&self, session: SessionId, wish: &Author) -> Result<Data> {
        let hive = self.hive_file.lock().clone();
        if !hive.accepts_authoring {
            return Err(refused("this device takes no apps that its owner did not sign"));
        }
        let files: Vec<PackedFile> = wish
            .files
            .iter()
            .map(|file| PackedFile {
                path: file.path.as_str().to_owned(),
                mode: u32::try_from(file.mode.0).unwrap_or(0o644),
                bytes: file.bytes.0.clone(),
            })
            .collect();
        let (source, options, secrets) = self.read_folder(wish, &files)?;
        let app = AppId::made(hive.device, &wish.seed.0);
        let block = source.block();
        let domain =
            wish.domain.as_ref().map(|text| text.as_str().to_owned()).or_else(|| block.domain.clone());
        let body = Body {
            app: Uuid(app.0),
            revision: FIRST,
            files,
            compose: wish.compose.as_str().to_owned(),
            options: pairs(options.clone()),
            secrets: pairs(secrets.clone()),
            grants: Vec::new(),
        };
        let name = wish.name.as_str().to_owned();
        let mut values = options;
        values.extend(secrets);
        values.extend(variables::filled(&name, domain.as_deref()));
        let folder = Folder::new(&self.setup.apps, &format!("{name}-{}", short(app)));
        folder.write(&body)?;
        let planned = self.plan_without_permissions(app, &folder, &source, &values).await;
        // It comes again with its start, if there is one.
        folder.remove()?;
        let plan = planned?;
        let authorization = Authorization {
            comb: Mark::Package,
            format: 1,
            account: Hex([0; 16]),
            app: Uuid(app.0),
            name,
            revision: FIRST,
            version: block.version.clone().unwrap_or_default(),
            domain,
            body: Hex([0; 32]),
            services: self.name_images(&plan).await?,
            volumes: plan
                .volumes
                .iter()
                .map(|one| VolumeName { name: one.name.clone(), link: one.is_link() })
                .collect(),
            ports: plan
                .ports
                .iter()
                .map(|one| Port {
                    service: one.service.clone(),
                    port: one.port,
                    protocol: one.protocol,
                    wish: one.wish,
                })
                .collect(),
            actions: actions(block),
            health_seconds: block.health.startup_s,
            permissions: Vec::new(),
            devices: Devices::Delegated,
            expires: None,
            author: Some(Uuid(hive.device.0)),
            made: wall_clock(),
        };
        let sealed = {
            let ring = ring::open(&self.setup.state)?;
            let authorization = Authorization { account: Hex(ring.account().0), ..authorization };
            package::seal(authorization, &body, ring.owner(), &(self.setup.chance)())?
        };
        self.post_package(session, &sealed).await?;
        Ok(Data { revision: Some(Number::from(FIRST)), ..Data::default() })
    }

    /// The text, with a value for each option, and what was generated.
    fn read_folder(&self, wish: &Author, files: &[PackedFile]) -> Result<(Source, Values, Values)> {
        let given: Values = wish
            .options
            .iter()
            .map(|one| (one.name.as_str().to_owned(), one.value.reveal().to_owned()))
            .collect();
        let texts: Files = files.iter().map(|file| (file.path.clone(), file.bytes.clone())).collect();
        let mut names: BTreeSet<String> = given.keys().cloned().collect();
        names.extend(FILLED_ALWAYS.iter().map(|name| (*name).to_owned()));
        let source = Source::read(Text { files: &texts, main: wish.compose.as_str() }, &names)
            .map_err(|refusals| first(&refusals))?;
        let chosen = source.block().choose(&given).map_err(|wrong| {
            let first = wrong.first().map(|one| format!("option {} {}", one.name, one.problem));
            Trouble::new(Problem::PackageWrong, first.unwrap_or_default())
        })?;
        let mut wanted = chosen.to_generate;
        let asks_for_link =
            |bytes: &Vec<u8>| bytes.windows(LINK_TOKEN.len()).any(|part| part == LINK_TOKEN.as_bytes());
        if texts.values().any(asks_for_link) {
            wanted.push(LINK_TOKEN.to_owned());
        }
        let secret = |name: String| {
            let chance = (self.setup.chance)();
            let random: [u8; 24] = std::array::from_fn(|at| chance[at]);
            (name, orchestrator_api::compose::generate_secret(&random))
        };
        Ok((source, chosen.values, wanted.into_iter().map(secret).collect()))
    }

    async fn plan_without_permissions(
        &self,
        app: AppId,
        folder: &Folder,
        source: &Source,
        values: &Values,
    ) -> Result<Plan> {
        let files = folder.files();
        let config = self.compose.config(&project(app), &files, source.main(), values).await?;
        let main = files.join(source.main());
        let given = Given {
            folder: main.parent().unwrap_or(&files).to_string_lossy().into_owned(),
            variables: values.clone(),
            comb_folders: self.comb_folders().await,
            ..Given::default()
        };
        check(source, &config, &given).accept().map_err(|refusals| first(&refusals))
    }

    /// What each service runs, by digest.
    async fn name_images(&self, plan: &Plan) -> Result<Vec<ServiceImage>> {
        let mut images = Vec::new();
        for service in &plan.services {
            let (Some(image), false) = (&service.image, service.build) else {
                return Err(refused("an app that the hive installs names its images, and builds none")
                    .of(&service.name));
            };
            let (digest, pull) = self.name_image(image).await.map_err(|trouble| trouble.of(&service.name))?;
            images.push(ServiceImage { name: service.name.clone(), image: image.clone(), digest, pull });
        }
        Ok(images)
    }

    async fn name_image(&self, image: &str) -> Result<(Digest, bool)> {
        let read = |text: &str| Digest::try_from(text.to_owned()).ok();
        if let Some(named) = image.split_once('@').and_then(|(_, digest)| read(digest)) {
            return Ok((named, true));
        }
        if self.docker.image(image).await?.is_none() {
            self.docker.pull(image).await?;
        }
        let found = self.docker.image(image).await?;
        let known = found.and_then(|found| match found.digest_of(image).and_then(read) {
            Some(digest) => Some((digest, true)),
            None => Some((read(&found.id)?, false)),
        });
        known.ok_or_else(|| Trouble::new(Problem::ImageUnknown, format!("image {image} has no digest")))
    }
}

fn refused(text: &str) -> Trouble {
    Trouble::new(Problem::PolicyRefused, text)
}

/// The first of what is refused, with its place.
fn first(refusals: &[Refusal]) -> Trouble {
    match refusals.first() {
        Some(first) => refused(&first.to_string())
            .at(&first.place.file, first.place.line)
            .counted(i64::try_from(refusals.len()).unwrap_or(i64::MAX)),
        None => refused("the compose file is refused"),
    }
}

fn pairs(values: Values) -> Vec<NamedValue> {
    values.into_iter().map(|(name, value)| NamedValue { name, value }).collect()
}

fn actions(block: &Block) -> Vec<ActionName> {
    let input = |(name, kind): &(String, _)| InputName { name: name.clone(), kind: *kind };
    let action = |(name, action): (&String, &orchestrator_api::compose::Action)| ActionName {
        name: name.clone(),
        service: action.run.service.clone(),
        input: action.input.iter().map(input).collect(),
    };
    block.actions.iter().map(action).collect()
}
