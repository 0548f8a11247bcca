//! What `comb app add` and `comb app update` share: what a person chooses, and bringing a signed package to the hive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use clap::Args;
use fs_crypto::OwnerKey;
use orchestrator_api::error::Code;
use orchestrator_api::package::Devices;
use orchestrator_api::permission::Permission;
use orchestrator_api::text::{Time, Uuid};
use orchestrator_api::wire::account::PackageName;

use crate::failure::{Context, Failure, Kind, Result};
use crate::hive::author::{Draft, Wishes};
use crate::hive::client::failure as refusal;
use crate::hive::compose::Images;
use crate::hive::{Client, find};
use crate::name::parse_span;
use crate::output;
use crate::state::State;

/// How often a revision is counted on, where others sign at the same time.
const ROUNDS_MAX: usize = 8;

/// What a person chooses of a package.
#[derive(Debug, Clone, Default, Args)]
pub struct AuthorArgs {
    /// The value of an option or variable; may be given several times. For a secret take --set-from, or wait to be asked
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// The same from a file, a line KEY=VALUE each
    #[arg(long, value_name = "FILE")]
    pub set_from: Option<PathBuf>,

    /// Grant a permission that the app asks for, without a question: cap:NET_ADMIN, bind:/srv/media:ro, port:25/tcp …
    #[arg(long, value_name = "PERMISSION")]
    pub allow: Vec<String>,

    /// A device that it may run on; may be given several times [default: all]
    #[arg(long, value_name = "DEVICE")]
    pub may_run_on: Vec<String>,

    /// How long from now it may be started, such as 90d; what runs then goes on [default: until the next revision]
    #[arg(long, value_name = "SPAN")]
    pub expires: Option<String>,
}

impl AuthorArgs {
    /// As the author of a package takes it.
    pub fn wishes(&self, state: &State, client: &Client, images: Images) -> Result<Wishes> {
        let usage = |error: &dyn std::fmt::Display| Failure::new(Kind::Usage, error.to_string());
        let mut allow = BTreeSet::new();
        for text in &self.allow {
            allow.insert(text.parse::<Permission>().map_err(|error| usage(&error))?);
        }
        let devices = match self.may_run_on.is_empty() {
            true => None,
            false => {
                let ids = self.may_run_on.iter().map(|name| Ok(Uuid(find::device(client, name)?.id.0)));
                let ids: BTreeSet<Uuid> = ids.collect::<Result<_>>()?;
                Some(Devices::These(ids.into_iter().collect()))
            }
        };
        let expires = match &self.expires {
            Some(span) => {
                let span = parse_span(span).map_err(|error| usage(&error))?;
                let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                Some(Time(jiff::Timestamp::now().as_millisecond().saturating_add(ms)))
            }
            None => None,
        };
        Ok(Wishes {
            name: None,
            domain: None,
            set: self.values()?,
            allow,
            devices,
            expires,
            images,
            comb_folders: vec![
                "/apps".to_owned(),
                "/var/lib/comb".to_owned(),
                state.root().display().to_string(),
            ],
            below: client.info()?.domain,
        })
    }

    fn values(&self) -> Result<BTreeMap<String, String>> {
        let mut lines = Vec::new();
        if let Some(path) = &self.set_from {
            let text = fs::read_to_string(path).context(path.display())?;
            lines.extend(
                text.lines()
                    .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
                    .map(str::to_owned),
            );
        }
        lines.extend(self.set.iter().cloned());
        let mut values = BTreeMap::new();
        for line in lines {
            let Some((name, value)) = line.split_once('=') else {
                return Err(Failure::new(Kind::Usage, "a value is written KEY=VALUE"));
            };
            values.insert(name.trim().to_owned(), value.to_owned());
        }
        Ok(values)
    }
}

/// Brings a draft to the hive, as the next revision; says which that is.
pub fn post(client: &Client, owner: &OwnerKey, draft: &Draft, first: u64) -> Result<u64> {
    let mut revision = first;
    for _ in 0..ROUNDS_MAX {
        let package = draft.seal(owner, revision)?;
        match client.try_post::<PackageName>("/v1/packages", &package)? {
            Ok(_) => return Ok(revision),
            // One that was signed and never used, or another person's just now.
            Err(error) if error.code == Code::RevisionOld => {
                let newest = error.details.get("revision").and_then(serde_json::Value::as_u64);
                revision = newest.unwrap_or(revision).max(revision) + 1;
            }
            Err(error) => return Err(refusal(client.hive(), *error)),
        }
    }
    Err(Failure::new(Kind::InTheWay, "others sign packages of this app all the time").hint("try again"))
}

/// Says which images are on this machine only.
pub fn tell_only_here(draft: &Draft) {
    let services = draft.only_here();
    if !services.is_empty() {
        output::note(&format!(
            "note: the image of {} is in no registry: the app starts only on machines that have this very image. \
             `docker push` it under a registry's name to move it elsewhere",
            services.join(", ")
        ));
    }
}
