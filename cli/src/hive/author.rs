//! Making a package: an app's folder is read, checked, filled in, and signed (`orchestrator/docs/security.md`, sections
//! 5 and 6).
//!
//! Nothing is sent from here. What the owner is asked is asked on the terminal; without one, whatever is missing is an
//! error that names it.

use std::collections::{BTreeMap, BTreeSet};

use fs_crypto::{OwnerKey, Zeroizing};
use fs_format::AccountId;
use orchestrator_api::compose::{
    Ask, Block, Folder, Given, OptionType, Plan, Refusal, Setting, Source, check, generate_secret,
};
use orchestrator_api::names;
use orchestrator_api::package::{
    ActionName, Authorization, Body, Devices, InputName, Mark, NamedValue, Port, VolumeName,
};
use orchestrator_api::permission::Permission;
use orchestrator_api::text::{Hex, Time, Uuid, is_app_name, is_domain};
use orchestrator_api::wire::account::Package;

use super::compose::{self, Images, Stage};
use super::folder::AppFolder;
use super::sealed;
use crate::failure::{Failure, Kind, Result};
use crate::{ask, keys, output, passphrase};

/// The longest line of a grant, in bytes.
const GRANT_BYTES_MAX: usize = 512;
/// The variable with the secret of an app's link.
const LINK_TOKEN: &str = "LINK_TOKEN_DEFAULT";

/// What a person wants of a package.
pub struct Wishes {
    /// What the app is called.
    pub name: Option<String>,
    /// Its name in the net.
    pub domain: Option<String>,
    /// Values of options and variables.
    pub set: BTreeMap<String, String>,
    /// What is granted without a question.
    pub allow: BTreeSet<Permission>,
    /// Where it may run; as before if nothing is said.
    pub devices: Option<Devices>,
    /// Until when it may be started; none is until the next revision.
    pub expires: Option<Time>,
    /// How images are looked up.
    pub images: Images,
    /// Folders that are Comb's on this machine.
    pub comb_folders: Vec<String>,
    /// The base of names in the net.
    pub below: String,
}

/// Checked and filled in: all of a package but its number and its seal.
pub struct Draft {
    authorization: Authorization,
    body: Body,
    plan: Plan,
    quotas: BTreeMap<String, u64>,
}

impl Draft {
    /// What the app is called.
    pub fn name(&self) -> &str {
        &self.authorization.name
    }

    /// Which app.
    pub fn app(&self) -> Uuid {
        self.authorization.app
    }

    /// What compose made of it.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How much a volume may hold, if its file says so.
    pub fn quota(&self, volume: &str) -> Option<u64> {
        self.quotas.get(volume).copied()
    }

    /// Services whose images are on this machine only.
    pub fn only_here(&self) -> Vec<&str> {
        self.authorization.services.iter().filter(|one| !one.pull).map(|one| one.name.as_str()).collect()
    }

    /// Whether it says the same as a package that was signed before, but for its number and time.
    pub fn is_same(&self, before: &(Authorization, Body)) -> bool {
        let (authorization, body) = before;
        let same = Authorization {
            revision: self.authorization.revision,
            body: self.authorization.body,
            made: self.authorization.made,
            ..authorization.clone()
        };
        same == self.authorization && Body { revision: self.body.revision, ..body.clone() } == self.body
    }

    /// Seals and signs it as this revision.
    pub fn seal(&self, owner: &OwnerKey, revision: u64) -> Result<Package> {
        let authorization = Authorization { revision, ..self.authorization.clone() };
        let body = Body { revision, ..self.body.clone() };
        sealed::seal(owner, authorization, &body)
    }
}

/// Makes a draft of a folder. `before` is the package that it follows.
pub fn draft(
    account: AccountId,
    folder: &AppFolder,
    wishes: &Wishes,
    before: Option<&(Authorization, Body)>,
) -> Result<Draft> {
    let app = match before {
        Some((authorization, _)) => authorization.app,
        None => Uuid(*uuid::Uuid::new_v4().as_bytes()),
    };
    let mut given: BTreeMap<String, String> = before
        .map(|(_, body)| body.options.iter().map(|one| (one.name.clone(), one.value.clone())).collect())
        .unwrap_or_default();
    given.extend(wishes.set.clone());

    let mut names: BTreeSet<String> = given.keys().cloned().collect();
    names.extend(filled("", "", "").into_keys());
    let text = Folder { files: &folder.files, main: &folder.main };
    let source = Source::read(text, &names).map_err(|refusals| refused(&refusals))?;
    let block = source.block();
    // What stood in an older file, and is an option no more, is a variable that nobody asks for.
    let asked: BTreeSet<&String> = block.options.iter().map(|option| &option.name).collect();
    if before.is_some() {
        given.retain(|name, _| {
            asked.contains(name) || wishes.set.contains_key(name) || mentions(folder, name)
        });
    }
    let name = name(folder, wishes, before)?;
    let domain = domain(block, wishes, before)?;
    let (values, secrets) = fill(folder, block, given, before)?;

    let token = secrets.get(LINK_TOKEN).map_or("none", String::as_str);
    let mut variables = values.clone();
    variables.extend(secrets.clone());
    variables.extend(filled(&name, &domain, token));
    let stage = Stage::new(&folder.packed())?;
    let config = stage.config(&name, &folder.main, &variables)?;

    let mut policy = Given {
        folder: stage.app().display().to_string(),
        variables: variables.clone(),
        permissions: wishes.allow.clone(),
        adopted: BTreeSet::new(),
        comb_folders: wishes.comb_folders.clone(),
    };
    if let Some((authorization, _)) = before {
        policy.permissions.extend(authorization.permissions.iter().cloned());
    }
    let verdict = check(&source, &config, &policy);
    if verdict.refusals.is_empty() {
        policy.permissions.extend(granted(&verdict.asks)?);
    }
    let verdict = check(&source, &config, &policy);
    for note in &verdict.notes {
        output::note(&format!("note: {note}"));
    }
    let asks = verdict.asks.clone();
    let plan = verdict.accept().map_err(|refusals| refused(&refusals))?;

    let services = {
        let builds = plan.services.iter().any(|service| service.build);
        if builds && !folder.path.as_os_str().is_empty() {
            compose::build(&folder.path, &folder.main, &name, &variables)?;
        }
        compose::images(&plan.services, &name, wishes.images)?
    };
    let values_of = |map: BTreeMap<String, String>| {
        map.into_iter().map(|(name, value)| NamedValue { name, value }).collect::<Vec<_>>()
    };
    let devices = wishes.devices.clone().or_else(|| before.map(|(one, _)| one.devices.clone()));
    let authorization = Authorization {
        comb: Mark::Package,
        format: 1,
        account: Hex(account.0),
        app,
        name,
        revision: 1,
        version: block.version.clone().unwrap_or_default(),
        domain: Some(domain),
        body: Hex([0; 32]),
        services,
        volumes: plan
            .volumes
            .iter()
            .map(|volume| VolumeName { name: volume.name.clone(), link: volume.is_link() })
            .collect(),
        ports: plan
            .ports
            .iter()
            .map(|port| Port {
                service: port.service.clone(),
                port: port.port,
                protocol: port.protocol,
                wish: port.wish,
            })
            .collect(),
        actions: actions(block),
        health_seconds: block.health.startup_s,
        permissions: asks.iter().map(|ask| ask.permission.clone()).collect(),
        devices: devices.unwrap_or(Devices::All),
        expires: wishes.expires,
        author: None,
        made: Time(jiff::Timestamp::now().as_millisecond()),
    };
    let body = Body {
        app,
        revision: 1,
        files: folder.packed(),
        compose: folder.main.clone(),
        options: values_of(values),
        secrets: values_of(secrets),
        grants: asks.iter().map(grant).collect(),
    };
    let quotas =
        block.volumes.iter().filter_map(|(name, one)| Some((name.clone(), one.quota_bytes?))).collect();
    Ok(Draft { authorization, body, plan, quotas })
}

/// What a package that was signed becomes; compose is asked again, and nothing new is granted.
pub fn plan_of(authorization: &Authorization, body: &Body) -> Result<Plan> {
    let folder = AppFolder::of_package(&body.compose, &body.files);
    let mut variables: Values =
        body.options.iter().chain(&body.secrets).map(|one| (one.name.clone(), one.value.clone())).collect();
    variables.extend(filled_in(authorization));
    let text = Folder { files: &folder.files, main: &folder.main };
    let mut names: BTreeSet<String> = variables.keys().cloned().collect();
    names.insert(LINK_TOKEN.to_owned());
    let source = Source::read(text, &names).map_err(|refusals| refused(&refusals))?;
    let stage = Stage::new(&body.files)?;
    let config = stage.config(&authorization.name, &folder.main, &variables)?;
    let policy = Given {
        folder: stage.app().display().to_string(),
        variables,
        permissions: authorization.permissions.iter().cloned().collect(),
        ..Given::default()
    };
    check(&source, &config, &policy).accept().map_err(|refusals| refused(&refusals))
}

/// What a device fills in for a package, but for the token of its link, which is a secret.
pub fn filled_in(authorization: &Authorization) -> Values {
    let mut filled = filled(&authorization.name, authorization.domain.as_deref().unwrap_or_default(), "");
    filled.remove(LINK_TOKEN);
    filled
}

/// What a device fills in; here with what stands for it, so that compose can read the file.
fn filled(name: &str, domain: &str, token: &str) -> BTreeMap<String, String> {
    [
        ("APP_VOLUME_NAME", "comb-app"),
        ("LINK_VOLUME_NAME", "comb-link"),
        ("LINK_DOMAIN_DEFAULT", domain),
        (LINK_TOKEN, token),
        ("COMB_APP", name),
        ("COMB_DOMAIN", domain),
        ("COMB_URL", &format!("https://{domain}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn mentions(folder: &AppFolder, name: &str) -> bool {
    folder.files.values().any(|bytes| bytes.windows(name.len()).any(|window| window == name.as_bytes()))
}

fn name(folder: &AppFolder, wishes: &Wishes, before: Option<&(Authorization, Body)>) -> Result<String> {
    if let Some((authorization, _)) = before {
        return Ok(authorization.name.clone());
    }
    let name = match &wishes.name {
        Some(name) => name.clone(),
        None => match folder.name() {
            Some(name) => name,
            None => names::app_name(keys::chance()?),
        },
    };
    match is_app_name(&name) {
        true => Ok(name),
        false => Err(Failure::new(
            Kind::Usage,
            format!("\"{}\" is no name for an app", output::escape(name.as_bytes())),
        )
        .hint("a name is a letter a-z, and then up to 62 of a-z, 0-9 and hyphens")),
    }
}

/// The app's name in the net, which stays its own for ever.
fn domain(block: &Block, wishes: &Wishes, before: Option<&(Authorization, Body)>) -> Result<String> {
    if let Some(domain) = &wishes.domain {
        return match is_domain(domain) {
            true => Ok(domain.clone()),
            false => Err(Failure::new(
                Kind::Usage,
                format!("\"{}\" is no domain in lower case", output::escape(domain.as_bytes())),
            )),
        };
    }
    if let Some(domain) = before.and_then(|(authorization, _)| authorization.domain.clone()) {
        return Ok(domain);
    }
    if let Some(domain) = &block.domain {
        return Ok(domain.clone());
    }
    names::app_domain(keys::chance()?, &wishes.below)
        .ok_or_else(|| Failure::new(Kind::Foreign, "the hive's domain for apps is no domain"))
}

type Values = BTreeMap<String, String>;

/// Values for all options, asked for where nobody gave one, and what is generated.
fn fill(
    folder: &AppFolder,
    block: &Block,
    mut given: Values,
    before: Option<&(Authorization, Body)>,
) -> Result<(Values, Values)> {
    let kept: Values = before
        .map(|(_, body)| body.secrets.iter().map(|one| (one.name.clone(), one.value.clone())).collect())
        .unwrap_or_default();
    let missing: Vec<&Setting> = block
        .options
        .iter()
        .filter(|option| option.is_required() && !given.contains_key(&option.name))
        .collect();
    if !missing.is_empty() && !ask::is_possible() {
        let lines: Vec<String> = missing.iter().map(|option| format!("\n  {}", described(option))).collect();
        return Err(Failure::new(Kind::Usage, format!("the app asks for values:{}", lines.concat()))
            .hint("give them with --set KEY=VALUE, or --set-from FILE with a line KEY=VALUE for each"));
    }
    for option in missing {
        given.insert(option.name.clone(), ask_for(option)?);
    }
    let chosen = block.choose(&given).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(Kind::Usage, lines.join("\nerror: "))
    })?;
    let mut secrets = Values::new();
    let mut wanted = chosen.to_generate;
    if mentions(folder, LINK_TOKEN) {
        wanted.push(LINK_TOKEN.to_owned());
    }
    for name in wanted {
        let value = match kept.get(&name) {
            Some(value) => value.clone(),
            None => generate_secret(&Zeroizing::new(keys::chance::<24>()?)),
        };
        secrets.insert(name, value);
    }
    Ok((chosen.values, secrets))
}

fn described(option: &Setting) -> String {
    let mut text = option.name.clone();
    if let Some(hint) = &option.hint {
        text.push_str(&format!(" ({})", output::escape(hint.as_bytes())));
    }
    if !option.values.is_empty() {
        text.push_str(&format!(", one of {}", output::escape(option.values.join(", ").as_bytes())));
    }
    text
}

fn ask_for(option: &Setting) -> Result<String> {
    loop {
        let question = format!("{}: ", described(option));
        let value = match option.kind {
            OptionType::Secret => passphrase::secret(&question, None)?.to_string(),
            _ => ask::line(&question)?,
        };
        match option.check(&value) {
            Ok(()) => return Ok(value),
            Err(error) => output::note(&error.to_string()),
        }
    }
}

/// Permissions that a person grants on the terminal, each in words.
fn granted(asks: &[Ask]) -> Result<Vec<Permission>> {
    let mut granted = Vec::new();
    if asks.iter().all(|ask| ask.granted) || !ask::is_possible() {
        return Ok(granted);
    }
    for ask in asks.iter().filter(|ask| !ask.granted) {
        output::note(&format!("{ask}"));
        if ask::confirm(&format!("Allow it ({})?", ask.permission))? {
            granted.push(ask.permission.clone());
        }
    }
    Ok(granted)
}

fn grant(ask: &Ask) -> String {
    let mut line = format!("{}: {ask}", ask.permission);
    let end = (0..=GRANT_BYTES_MAX).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    line.truncate(end);
    line
}

fn actions(block: &Block) -> Vec<ActionName> {
    let input = |(name, kind): &(String, _)| InputName { name: name.clone(), kind: *kind };
    block
        .actions
        .iter()
        .map(|(name, action)| ActionName {
            name: name.clone(),
            service: action.run.service.clone(),
            input: action.input.iter().map(input).collect(),
        })
        .collect()
}

/// All that is refused, each with its file and line, and what to do.
fn refused(refusals: &[Refusal]) -> Failure {
    let mut lines = Vec::new();
    for refusal in refusals {
        let hint = refusal.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        lines.push(format!("{refusal}{hint}"));
    }
    Failure::new(Kind::NotPermitted, lines.join("\nerror: "))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn wishes() -> Wishes {
        Wishes {
            name: None,
            domain: None,
            set: Values::new(),
            allow: BTreeSet::new(),
            devices: None,
            expires: None,
            images: Images::Here,
            comb_folders: vec!["/var/lib/comb".to_owned()],
            below: "example.org".to_owned(),
        }
    }

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, AppFolder) {
        let top = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            write(&top.path().join(path), text);
        }
        let folder = AppFolder::read(top.path()).expect("read");
        (top, folder)
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn what_is_refused_is_told_with_file_and_line() {
        let (_top, folder) = folder(&[(
            "compose.yaml",
            "services:\n  web:\n    image: nginx\n    volums: [a]\n    env_file: ../x\n",
        )]);
        let failure = draft(AccountId([0; 16]), &folder, &wishes(), None).map(drop).expect_err("refused");
        assert_eq!(failure.exit_code(), 8);
        assert!(failure.message.contains("compose.yaml:4: \"volums\" is not a key"), "{}", failure.message);
        assert!(failure.message.contains("compose.yaml:5: "), "{}", failure.message);
    }

    #[test]
    fn secrets_are_generated_once_and_stay() {
        let (_top, folder) = folder(&[(
            "compose.yaml",
            "x-comb:\n  options:\n    - {name: title, default: Photos}\n    - {name: db_password, type: secret}\nservices:\n  web:\n    image: nginx\n    environment: {T: $LINK_TOKEN_DEFAULT}\n",
        )]);
        let text = Folder { files: &folder.files, main: &folder.main };
        let names = filled("", "", "").into_keys().collect();
        let source = Source::read(text, &names).expect("it may say that");
        let (values, secrets) =
            fill(&folder, source.block(), Values::new(), None).expect("nothing is missing");
        assert_eq!(values["title"], "Photos");
        assert_eq!(secrets.keys().collect::<Vec<_>>(), [LINK_TOKEN, "db_password"]);
        assert!(secrets.values().all(|value| value.len() == 24));
        assert_ne!(secrets[LINK_TOKEN], secrets["db_password"]);

        let (_, others) = fill(&folder, source.block(), Values::new(), None).expect("nothing is missing");
        assert_ne!(others["db_password"], secrets["db_password"]);
        let given = Values::from([("db_password".to_owned(), "chosen".to_owned())]);
        let (values, secrets) = fill(&folder, source.block(), given, None).expect("nothing is missing");
        assert_eq!((values["db_password"].as_str(), secrets.len()), ("chosen", 1));
    }

    #[test]
    fn a_name_in_the_net_is_the_wished_one_or_a_new_one() {
        let block = Block::default();
        let made = domain(&block, &wishes(), None).expect("made");
        assert!(made.ends_with(".example.org"), "{made}");
        let mut wished = Block::default();
        wished.domain = Some("photos.example.net".to_owned());
        assert_eq!(domain(&wished, &wishes(), None).expect("wished"), "photos.example.net");
        let said = Wishes { domain: Some("a.example.net".to_owned()), ..wishes() };
        assert_eq!(domain(&wished, &said, None).expect("said"), "a.example.net");
        assert!(domain(&block, &Wishes { domain: Some("A b".to_owned()), ..wishes() }, None).is_err());
    }
}
