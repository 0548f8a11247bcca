//! The `x-comb` block (`api.md`, section 9): what an app says of itself, and what people may choose.
//!
//! It is read from the text and not from compose's answer: options are needed before compose can run, and compose would
//! fill variables into patterns. Unknown keys are refused.

use std::collections::BTreeMap;
use std::fmt;

use crate::compose::variables::may_be_chosen;

mod action;
mod read;
mod setting;
#[cfg(test)]
mod tests;

pub use action::{Action, Hook, InputType};
pub use setting::{OptionType, OptionValueError, Setting, generate_secret};

/// What `show` may name beside options: the port that was given for `entry`.
pub const SHOW_WEB_PORT: &str = "web_port";

/// All that `x-comb` may say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    /// The app's version.
    pub version: Option<String>,
    /// What a domain leads to.
    pub entry: Option<Entry>,
    /// The address to show.
    pub web: Option<String>,
    /// What people choose, in the order of the file.
    pub options: Vec<Setting>,
    /// Names of options, or [`SHOW_WEB_PORT`], that people are shown.
    pub show: Vec<String>,
    /// The domain that is wished for.
    pub domain: Option<String>,
    /// When the app is well.
    pub health: Health,
    /// How it is updated.
    pub update: Update,
    /// Runs before a snapshot.
    pub before_snapshot: Option<Hook>,
    /// Runs after a snapshot, also a failed one.
    pub after_snapshot: Option<Hook>,
    /// Runs after a restore.
    pub after_restore: Option<Hook>,
    /// What people may ask of the app, by name.
    pub actions: BTreeMap<String, Action>,
    /// Settings of its volumes, by name.
    pub volumes: BTreeMap<String, VolumeSettings>,
    /// Services and volumes that the block names, with their lines, for checking that they exist.
    pub(in crate::compose) named: Vec<Named>,
}

/// A name in the block of something outside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::compose) struct Named {
    pub(in crate::compose) kind: NamedKind,
    pub(in crate::compose) name: String,
    pub(in crate::compose) line: u32,
    pub(in crate::compose) field: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::compose) enum NamedKind {
    Service,
    Volume,
}

/// A service's port, and a path there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The service.
    pub service: String,
    /// The port in its containers.
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
}

/// When the app is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How long it may take to start, in seconds.
    pub startup_s: u32,
    /// What is asked of it then.
    pub http: Option<HttpCheck>,
}

impl Default for Health {
    fn default() -> Self {
        Self { startup_s: 60, http: None }
    }
}

/// A page that must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// Where it is.
    pub at: Entry,
    /// Statuses that are well; none means 200 to 399.
    pub status: Vec<u16>,
    /// What the page must hold.
    pub contains: Option<String>,
}

/// How an app is updated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// `auto` is kept, and told as manual until it is built.
    pub auto: bool,
    /// How long it must be well before the update counts, in seconds.
    pub stable_s: Option<u32>,
    /// How long the moment before it is kept, in seconds.
    pub keep_s: Option<u64>,
}

/// Settings of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeSettings {
    /// Seconds between two seals.
    pub seal_every_s: Option<u32>,
    /// The most bytes.
    pub quota_bytes: Option<u64>,
    /// What is kept, as `comb` reads it; checked where the volume is made.
    pub retain: Option<String>,
}

/// The variables that options become.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Chosen {
    /// Each with a value.
    pub values: BTreeMap<String, String>,
    /// Secrets that nobody gave, which are to be generated.
    pub to_generate: Vec<String>,
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chosen")
    }
}

impl Block {
    /// The value of each option: what was given, or its default. Names that are no options are variables that the file
    /// asks for itself, and are only kept from steering programs.
    pub fn choose(&self, given: &BTreeMap<String, String>) -> Result<Chosen, Vec<OptionValueError>> {
        let mut chosen = Chosen { values: given.clone(), to_generate: Vec::new() };
        let mut wrong = Vec::new();
        let problem = |name: &str, problem: &str| OptionValueError {
            name: name.to_owned(),
            problem: problem.to_owned(),
        };
        for name in given.keys().filter(|name| !may_be_chosen(name)) {
            let name = name.escape_debug().to_string();
            wrong.push(problem(&name, "is no variable that can be chosen"));
        }
        for option in &self.options {
            match (given.get(&option.name), &option.default) {
                (Some(value), _) => wrong.extend(option.check(value).err()),
                (None, Some(default)) => {
                    chosen.values.insert(option.name.clone(), default.clone());
                }
                (None, None) if option.is_required() => wrong.push(problem(&option.name, "needs a value")),
                (None, None) => chosen.to_generate.push(option.name.clone()),
            }
        }
        if wrong.is_empty() { Ok(chosen) } else { Err(wrong) }
    }

    /// The address to show, with what is known filled in; none if the app names none or a part is not known.
    pub fn address(
        &self,
        ip: &str,
        web_port: Option<u16>,
        domain: Option<&str>,
        values: &BTreeMap<String, String>,
    ) -> Option<String> {
        let web = self.web.as_deref()?;
        let mut address = String::new();
        for (number, part) in web.split("##").enumerate() {
            if number % 2 == 0 {
                address.push_str(part);
                continue;
            }
            match part {
                "ip" => address.push_str(ip),
                SHOW_WEB_PORT => address.push_str(&web_port?.to_string()),
                "domain" => address.push_str(domain?),
                name => {
                    let option = self.options.iter().find(|option| option.name == name)?;
                    address.push_str(values.get(name).or(option.default.as_ref())?);
                }
            }
        }
        Some(address)
    }
}
