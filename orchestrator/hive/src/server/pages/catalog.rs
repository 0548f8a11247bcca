//! The catalog, and installing an app of it: a device that accepts authoring seals it, and then it is made of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orchestrator_api::compose::{OptionType, Setting};
use orchestrator_api::names::app_domain;
use orchestrator_api::placement::Policy;
use orchestrator_api::text::{is_app_name, is_domain};
use orchestrator_api::wire::account::Store;
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::report::Docker;
use orchestrator_console::pages::{self, Choice, Offer, Picture};
use orchestrator_console::show::{self, Field, Html, Kind, capital, quoted};
use serde_json::json;

use super::super::apps;
use super::super::call::{Answering, Body, Call, Reply};
use super::super::catalog::{Entry, Project};
use super::super::chance;
use super::super::database::{How, Tx};
use super::super::devices;
use super::super::fail::Fail;
use super::super::people::may;
use super::super::stores;
use super::super::tenant::Tenant;
use super::app::{all_stores, device_words};
use super::app_view::protections;
use super::home::all_devices;
use super::{Here, frame};

/// Before the names of options in the form.
const OPTION: &str = "option.";
/// Replication's interval where nobody said another one.
const SEAL_EVERY_S: u64 = 15;
/// How far a device is from an app that takes none from the hive.
const FOREIGN: u8 = 5;
/// The most characters that are looked for.
const QUERY_MAX: usize = 100;

fn picture(entry: &Entry) -> Picture {
    let letter = entry.name.chars().find(|one| one.is_alphanumeric()).unwrap_or('·');
    Picture {
        path: (entry.has_icon && is_app_name(&entry.name)).then(|| format!("/catalog/{}/icon", entry.name)),
        letter: letter.to_uppercase().collect(),
    }
}

fn version(project: &Project) -> Option<Html> {
    project.block.version.as_deref().map(show::name)
}

/// `GET /catalog`.
pub fn list(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let query: String =
            call.query.get("q").map_or("", String::as_str).trim().chars().take(QUERY_MAX).collect();
        let mut page = pages::Catalog {
            frame: frame(&call, Here::Catalog),
            query: query.clone(),
            count: None,
            offers: Vec::new(),
            problem: None,
        };
        let Some(catalog) = &call.shared.catalog else { return Ok(Reply::page(&page)) };
        match catalog.list().await {
            Ok(entries) => {
                page.count = Some(entries.len());
                let wanted = query.to_lowercase();
                page.offers = entries.iter().filter(|entry| entry.has(&wanted)).map(offer).collect();
            }
            Err(error) => {
                tracing::warn!(%error, "the catalog's folder cannot be read");
                page.problem = Some("See that it is there, and that the hive may read it.".to_owned());
            }
        }
        Ok(Reply::page(&page))
    })
}

fn offer(entry: &Entry) -> Offer {
    Offer {
        path: entry.project.is_ok().then(|| format!("/catalog/{}", entry.name)),
        name: show::name(&entry.name),
        picture: picture(entry),
        version: entry.project.as_ref().ok().and_then(version),
        summary: show::name(&entry.summary),
        problem: entry.project.as_ref().err().map(|problem| show::name(problem)),
    }
}

async fn entry(call: &Call) -> Result<Entry, Fail> {
    let catalog = call.shared.catalog.as_ref().ok_or_else(Fail::not_found)?;
    let name = call.params.first().map_or("", String::as_str);
    catalog.get(name).await.ok_or_else(Fail::not_found)
}

/// `GET /catalog/{name}/icon`: a picture, and nothing that runs, even if it is opened by itself.
pub fn icon(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let catalog = call.shared.catalog.as_ref().ok_or_else(Fail::not_found)?;
        let name = call.params.first().map_or("", String::as_str);
        let (kind, bytes) = catalog.icon(name).await.ok_or_else(Fail::not_found)?;
        let reply = Reply { body: Body::Picture(kind, bytes), ..Reply::none().status(200) };
        Ok(reply
            .header((
                "content-security-policy",
                "sandbox; default-src 'none'; style-src 'unsafe-inline'".to_owned(),
            ))
            .header(("cache-control", "private, max-age=300".to_owned())))
    })
}

/// What a form says of the options: those that nobody filled in are left out where something else becomes their value.
fn given(call: &Call, project: &Project) -> BTreeMap<String, String> {
    let form = &call.visit.form;
    let mut all = BTreeMap::new();
    for option in &project.block.options {
        let text = form.text(&format!("{OPTION}{}", option.name));
        let value = match option.kind {
            OptionType::Flag => (if text.is_empty() { "false" } else { "true" }).to_owned(),
            OptionType::Text => text.replace("\r\n", "\n"),
            OptionType::Secret => text.to_owned(),
            _ => text.trim().to_owned(),
        };
        // An empty field is no value; where there is a default, it says that the default is not wanted.
        if !value.is_empty() || option.default.as_deref().is_some_and(|default| !default.is_empty()) {
            all.insert(option.name.clone(), value);
        }
    }
    all
}

fn option_field(call: &Call, option: &Setting, wrong: &BTreeMap<String, String>) -> Field {
    let kind = match option.kind {
        OptionType::String | OptionType::Path => Kind::Text,
        OptionType::Text => Kind::Lines,
        OptionType::Number | OptionType::Port => Kind::Number,
        OptionType::Flag => Kind::Flag,
        OptionType::Email => Kind::Email,
        OptionType::Secret => Kind::Password,
        OptionType::Enum => {
            let mut choices: Vec<show::Choice> =
                option.values.iter().map(|one| show::Choice::new(one, one)).collect();
            if option.default.is_none() {
                choices.insert(0, show::Choice::new("", "Choose…"));
            }
            Kind::Choices(choices)
        }
    };
    let name = format!("{OPTION}{}", option.name);
    let tried = !call.visit.form.text("name").is_empty();
    let value = match (tried, option.kind) {
        (true, _) => call.visit.form.text(&name).to_owned(),
        (false, OptionType::Flag) => {
            (if option.default.as_deref() == Some("true") { "on" } else { "" }).to_owned()
        }
        (false, _) => option.default.clone().unwrap_or_default(),
    };
    let mut hints: Vec<String> = option.hint.iter().cloned().collect();
    if option.kind == OptionType::Secret {
        hints.push("Left empty, 24 random letters are made for it.".to_owned());
    }
    let label = option.name.replace('_', " ");
    let label =
        if label.chars().any(char::is_lowercase) { capital(&label) } else { capital(&label.to_lowercase()) };
    let mut field =
        Field::new(&name, &label, kind).value(value).length(4096).error(wrong.get(&option.name).cloned());
    if !hints.is_empty() {
        field = field.hint(hints.join(" "));
    }
    // Where an empty field is no value of its kind, and nothing else becomes it, something must stand in it.
    let may_be_empty = match option.kind {
        OptionType::Secret => true,
        OptionType::String | OptionType::Text => option.default.is_some(),
        _ => false,
    };
    if may_be_empty { field.optional() } else { field }
}

/// Why a device cannot seal and run the app now, and how far it is from it.
struct Missing {
    distance: u8,
    words: &'static str,
}

fn missing(device: &Device, project: &Project) -> Option<Missing> {
    let arch = match devices::arch_text(device.arch) {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let platforms = project.platforms();
    // What takes no apps from the hive is further away than what does and cannot now.
    let (distance, words) = match (device.state, device.docker) {
        (DeviceState::Revoked, _) => (7, "it was revoked"),
        (DeviceState::Silent, _) if device.accepts_authoring => (2, "it is silent"),
        (DeviceState::Silent, _) => (6, "it is silent"),
        (DeviceState::Draining, _) if device.accepts_authoring => (3, "it is being emptied"),
        (DeviceState::Draining, _) => (6, "it is being emptied"),
        (DeviceState::Online, _) if !device.accepts_authoring => (
            FOREIGN,
            "it takes no apps from the hive: `comb device join --accept-authoring` on its machine lets it",
        ),
        (DeviceState::Online, _) if device.locked => (1, "it waits for its passphrase"),
        (DeviceState::Online, Some(Docker::Stopped | Docker::Missing)) => (0, "Docker does not answer there"),
        (DeviceState::Online, _) if platforms.iter().any(|one| !one.contains(arch)) => {
            (4, "its processor is another one than the app is for")
        }
        (DeviceState::Online, _) => return None,
    };
    Some(Missing { distance, words })
}

/// Why no device takes the app: of the one that is nearest to it.
fn nowhere(devices: &[Device], project: &Project) -> String {
    let nearest = devices.iter().filter_map(|device| Some((device, missing(device, project)?)));
    match nearest.min_by_key(|(_, missing)| missing.distance) {
        Some((device, missing)) if missing.distance < FOREIGN => {
            format!("No device can take it now. Nearest to it is {}, but {}.", device.name, missing.words)
        }
        Some((_, missing)) if missing.distance < 7 => "No device that is online takes apps from the hive. A device joined with --accept-authoring does; whoever controls the hive can then run programs in containers there.".to_owned(),
        _ => "There is no device yet that could take it: add one under Devices.".to_owned(),
    }
}

/// The device that can seal the app and has most free memory.
fn best<'d>(devices: &'d [Device], project: &Project) -> Option<&'d Device> {
    let free = |device: &&Device| device.load.as_ref().map_or(0, |load| load.memory_free_bytes.0);
    devices.iter().filter(|device| missing(device, project).is_none()).max_by_key(free)
}

fn device_choices(call: &Call, devices: &[Device], project: &Project) -> Vec<Choice> {
    let asked = call.visit.form.text("device");
    let mut all = Vec::new();
    if let Some(best) = best(devices, project).filter(|_| devices.len() > 1) {
        all.push(Choice {
            value: String::new(),
            label: Html::text("The one with most free memory"),
            words: Html::pair("now ", show::name(&best.name)),
            is_chosen: asked.is_empty(),
            is_possible: true,
        });
    }
    for device in devices.iter().filter(|device| device.state != DeviceState::Revoked) {
        let why = missing(device, project).map(|missing| missing.words);
        let id = device.id.to_string();
        all.push(Choice {
            label: show::name(&device.name),
            is_chosen: asked == id || (devices.len() == 1 && why.is_none()),
            is_possible: why.is_none(),
            words: Html::text(&why.map_or_else(|| device_words(device), capital)),
            value: id,
        });
    }
    all
}

fn store_choices(call: &Call, all: &[Store], devices: &[Device]) -> Vec<Choice> {
    let asked = call.visit.form.text("store");
    let first = all.iter().find(|store| stores::arbitrates(&store.url));
    let choice = |store: &Store| {
        let can = stores::arbitrates(&store.url);
        let words = match (store.url.starts_with("file://"), store.device, store.shared) {
            (true, Some(device), false) => Html::pair(
                Html::pair("a folder on ", super::app_view::device_name(devices, Some(device))),
                ": if that machine is lost, so is this copy",
            ),
            (true, ..) => Html::text("a folder that your devices share"),
            _ if !can => Html::text("holds copies only, and cannot say who writes"),
            _ => Html::text("encrypted before it leaves the device"),
        };
        Choice {
            value: store.id.to_string(),
            label: show::name(&store.url),
            words,
            is_chosen: if asked.is_empty() {
                first.is_some_and(|one| one.id == store.id)
            } else {
                asked == store.id.to_string()
            },
            is_possible: can,
        }
    };
    all.iter().map(choice).collect()
}

/// The same at a terminal. No secret stands in it: `comb` asks for those, or makes them.
fn command(call: &Call, entry: &Entry, project: Option<&Project>) -> String {
    let form = &call.visit.form;
    let mut words = vec!["comb app add".to_owned(), quoted(format!("./{}", entry.name))];
    let name = form.maybe("name").filter(|name| is_app_name(name) && *name != entry.name);
    words.extend(name.map(|name| format!("--name {}", quoted(name))));
    if form.text("policy") == "auto" {
        words.push("--policy auto".to_owned());
    }
    let options = project.map_or(&[][..], |project| &project.block.options);
    for option in options.iter().filter(|option| option.kind != OptionType::Secret) {
        let value = form.text(&format!("{OPTION}{}", option.name));
        if !value.is_empty() && option.kind != OptionType::Flag && option.default.as_deref() != Some(value) {
            words.push(quoted_set(&option.name, value));
        }
    }
    words.join(" ")
}

fn quoted_set(name: &str, value: &str) -> String {
    format!("--set {}", quoted(format!("{name}={value}")))
}

fn needs(project: &Project) -> Vec<(&'static str, Vec<Html>)> {
    let mut all = Vec::new();
    let platforms = project.platforms();
    let platforms: Vec<Html> = platforms.into_iter().map(show::name).collect();
    all.push((
        "Processor",
        if platforms.is_empty() { vec![Html::text("any that its images are for")] } else { platforms },
    ));
    let memory: Vec<Html> = project
        .services
        .iter()
        .filter_map(|one| {
            let memory = one.memory.as_deref()?;
            // A number alone counts bytes.
            let told =
                memory.parse().map_or_else(|_| show::name(memory), |bytes| Html::text(&show::bytes(bytes)));
            Some(Html::pair(Html::pair(show::name(&one.service), ": "), told))
        })
        .collect();
    if !memory.is_empty() {
        all.push(("Memory", memory));
    }
    let image = |one: &orchestrator_api::compose::Declared| match &one.image {
        Some(image) => show::name(image),
        None => Html::text("one that is built on the machine"),
    };
    all.push(("Images", project.services.iter().map(image).collect()));
    all
}

/// `GET /catalog/{name}`.
pub fn show(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let entry = entry(&call).await?;
        let account = call.account()?;
        let asking = call.clone();
        let look = move |tx: &mut dyn Tx| {
            let mut tenant = Tenant::new(tx, account);
            Ok((all_devices(&asking, &mut tenant)?, all_stores(&asking, &mut tenant)?))
        };
        let (devices, stores) = call.shared.database.transact(How::Read, look).await?;
        Ok(Reply::page(&install_page(&call, &entry, &devices, &stores)))
    })
}

fn install_page(call: &Call, entry: &Entry, devices: &[Device], all: &[Store]) -> pages::Install {
    let mut frame = frame(call, Here::Catalog);
    let form = &call.visit.form;
    let tried = call.visit.problem.is_some();
    let project = entry.project.as_ref().ok();
    // Everything that is wrong is said at once, each at its field.
    let mut wrong = BTreeMap::new();
    if let Some(project) = project.filter(|_| tried)
        && let Err(errors) = project.block.choose(&given(call, project))
    {
        wrong.extend(errors.into_iter().map(|error| (error.name, capital(&error.problem))));
    }
    if wrong.len() > 1
        && let Some(problem) = &mut frame.problem
        && problem.field.as_deref().is_some_and(|field| field.starts_with(OPTION))
    {
        problem.message = format!("{} fields are not right yet", wrong.len());
    }
    let asks = project.map(Project::needs_a_person).unwrap_or_default();
    let can = may(&call.caller, Role::Operator).is_ok();
    let sealing = project.and_then(|project| best(devices, project));
    let arbiter = all.iter().any(|store| stores::arbitrates(&store.url));
    let refusal = match (can, asks.is_empty(), sealing.is_some(), arbiter) {
        (false, ..) => Some("You may look. An operator or owner installs apps.".to_owned()),
        (_, false, ..) => Some("It asks for more than a device grants by itself. A person with the key ring decides about that:".to_owned()),
        (_, _, _, false) => Some("Its data needs a store that can say who writes: a folder, S3 or the like. An owner adds one under Settings.".to_owned()),
        (_, _, false, _) => Some(project.map_or_else(String::new, |project| nowhere(devices, project))),
        _ => None,
    };
    let name = Field::new("name", "What it is called", Kind::Text)
        .hint("Small letters, digits and hyphens.")
        .value(if tried { form.text("name").to_owned() } else { entry.name.clone() })
        .length(63)
        .error(frame.error("name"));
    let domain = Field::new("domain", "Its name in the net", Kind::Text)
        .hint(match project.and_then(|project| project.block.domain.as_deref()) {
            Some(domain) => format!("Left empty: {domain}. It stays the app's, wherever it runs."),
            None => format!(
                "Left empty, it is made: like hasty-hopper-kvbt.{}. It stays the app's, wherever it runs.",
                call.shared.domain
            ),
        })
        .value(form.text("domain"))
        .length(253)
        .optional()
        .error(frame.error("domain"));
    let policy = if form.text("policy") == "auto" { Policy::Auto } else { Policy::Manual };
    let may_take_over =
        devices.iter().filter(|device| device.accepts_authoring && device.state != DeviceState::Revoked);
    let mut protections = protections(policy, SEAL_EVERY_S);
    if may_take_over.count() < 2 {
        for one in &mut protections {
            let is_auto = one.value == "auto";
            one.is_chosen = !is_auto;
            one.is_possible = !is_auto;
            if is_auto {
                one.words = Html::text(
                    "It needs a second device that takes apps from the hive: only such a one can take over what this page installs.",
                );
            }
        }
    }
    pages::Install {
        title: entry.name.clone(),
        name: show::name(&entry.name),
        picture: picture(entry),
        version: project.and_then(version),
        summary: show::name(&entry.summary),
        readme: pages::parts(&entry.readme),
        needs: project.map(needs).unwrap_or_default(),
        problem: entry.project.as_ref().err().map(|problem| show::name(problem)),
        asks: asks.iter().map(|ask| show::name(ask)).collect(),
        action: refusal.is_none().then(|| format!("/catalog/{}", entry.name)),
        refusal,
        fields: vec![name, domain],
        options: project.map_or_else(Vec::new, |project| {
            project.block.options.iter().map(|option| option_field(call, option, &wrong)).collect()
        }),
        devices: project.map_or_else(Vec::new, |project| device_choices(call, devices, project)),
        protections,
        stores: store_choices(call, all, devices),
        command: command(call, entry, project),
        frame,
    }
}

/// `POST /catalog/{name}`: orders a device to seal it, and the hive to make it of that.
pub fn install(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let entry = entry(&call).await?;
        let project = entry.project.map_err(|problem| {
            Fail::state(problem).hint("Somebody has to mend it in the catalog's folder.")
        })?;
        let form = &call.visit.form;
        let name = form.text("name").trim().to_owned();
        if !is_app_name(&name) {
            return Err(Fail::field(
                "name",
                "A name is 1 to 63 small letters, digits and hyphens, and begins with a letter",
            ));
        }
        let domain = form.maybe("domain").map(str::to_owned);
        if domain.as_deref().is_some_and(|domain| !is_domain(domain)) {
            return Err(Fail::field(
                "domain",
                "A name in the net is like photos.example.org, in small letters",
            ));
        }
        let domain = domain.or_else(|| match project.block.domain {
            Some(_) => None,
            None => app_domain(chance::bytes(), &call.shared.domain),
        });
        let chosen = given(&call, &project);
        if let Err(wrong) = project.block.choose(&chosen)
            && let Some(first) = wrong.first()
        {
            return Err(Fail::field(
                &format!("{OPTION}{}", first.name),
                format!("{} {}", first.name, first.problem),
            ));
        }
        let files: Vec<_> = project
            .files
            .iter()
            .map(|file| json!({"path": file.path, "mode": file.mode, "bytes": STANDARD.encode(&file.bytes)}))
            .collect();
        let options: Vec<_> =
            chosen.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let store = form.text("store").to_owned();
        let wanted = form.text("device").to_owned();
        let policy = if form.text("policy") == "auto" { "auto" } else { "manual" };
        let reply = call
            .write(move |call, tenant| {
                let device = match wanted.is_empty() {
                    false => wanted.parse().map_err(|_| Fail::field("device", "Choose a device"))?,
                    true => {
                        let devices = all_devices(call, tenant)?;
                        best(&devices, &project).map(|device| device.id).ok_or_else(|| {
                            Fail::field("device", nowhere(&devices, &project).trim_end_matches('.'))
                        })?
                    }
                };
                let known = all_stores(call, tenant)?;
                let store = known.iter().find(|one| one.id.to_string() == store).ok_or_else(|| Fail::field("store", "Choose where its data goes"))?;
                let wish = json!({
                    "device": device, "name": name, "files": files, "compose": project.main, "options": options,
                    "domain": domain, "install": {"policy": policy, "stores": [store.id], "start": true},
                });
                apps::author(&call.asking(&wish), tenant)
            })
            .await?;
        let operation = reply.order.ok_or_else(|| Fail::start("an order has an operation"))?;
        Ok(Reply::to(format!("/installs/{operation}")))
    })
}
