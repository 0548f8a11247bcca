//! The `x-comb` block (`api.md`, section 9): what an app says of itself, and what people may choose.
//!
//! It is read from the text and not from compose's answer: options are needed before compose can run, and compose would
//! fill variables into patterns. Unknown keys are refused.

use std::collections::{BTreeMap, BTreeSet};

use regex::RegexBuilder;

use super::keys::{join, not_a_key};
use super::variables::{is_name, steers};
use super::{Note, Place, Refusal};
use crate::text::{is_domain, is_email, is_plain, is_short_name};
use crate::yaml::{self, Entry as YamlEntry, Node, Value};

/// What `show` may name beside options: the port that was given for `entry`.
pub const SHOW_WEB_PORT: &str = "web_port";

const OPTIONS_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 4096;
const SHOW_MAX: usize = 32;
const ARGV_MAX: usize = 64;
const ARGUMENT_BYTES_MAX: usize = 4096;
const ACTIONS_MAX: usize = 64;
const INPUTS_MAX: usize = 8;
const VOLUMES_MAX: usize = 32;
/// Compiled bytes of an option's pattern.
const PATTERN_COMPILED_MAX: usize = 256 << 10;
/// The largest number that a JSON reader keeps whole.
const NUMBER_MAX: i64 = 1 << 53;

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
    pub(super) named: Vec<Named>,
}

/// A name in the block of something outside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) kind: NamedKind,
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) field: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedKind {
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

/// What an option holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionType {
    /// One line.
    String,
    /// Lines.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// 1 to 65535.
    Port,
    /// An address of a person.
    Email,
    /// An absolute path in a container.
    Path,
    /// One line that nobody but the owner may see.
    Secret,
    /// One of [`Setting::values`].
    Enum,
}

impl OptionType {
    const NAMES: [(&str, Self); 9] = [
        ("string", Self::String),
        ("text", Self::Text),
        ("number", Self::Number),
        ("flag", Self::Flag),
        ("port", Self::Port),
        ("email", Self::Email),
        ("path", Self::Path),
        ("secret", Self::Secret),
        ("enum", Self::Enum),
    ];
}

/// Something that people choose; it becomes a variable of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The variable.
    pub name: String,
    /// What it holds.
    pub kind: OptionType,
    /// What it is if nobody says anything.
    pub default: Option<String>,
    /// For people.
    pub hint: Option<String>,
    /// Of an enum.
    pub values: Vec<String>,
    /// What the whole value must match.
    pub pattern: Option<String>,
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" {problem}")]
pub struct OptionValueError {
    /// The option or input.
    pub name: String,
    /// What it must be.
    pub problem: String,
}

impl Setting {
    /// Whether somebody must give a value.
    pub fn is_required(&self) -> bool {
        self.default.is_none() && self.kind != OptionType::Secret
    }

    /// Checks a value, which is not repeated in the error: it may be secret.
    pub fn check(&self, value: &str) -> Result<(), OptionValueError> {
        let problem = if value.len() > VALUE_BYTES_MAX {
            Some(format!("is longer than {VALUE_BYTES_MAX} bytes"))
        } else {
            self.problem_with(value).map(str::to_owned).or_else(|| match self.kind {
                OptionType::Enum if !self.values.iter().any(|one| one == value) => {
                    Some(format!("must be one of {}", self.values.join(", ")))
                }
                _ => None,
            })
        };
        let problem = problem.or_else(|| match self.pattern.as_deref().map(compile) {
            Some(Some(pattern)) if pattern.is_match(value) => None,
            Some(_) => Some("does not have the form that the app asks for".to_owned()),
            None => None,
        });
        match problem {
            Some(problem) => Err(OptionValueError { name: self.name.clone(), problem }),
            None => Ok(()),
        }
    }

    fn problem_with(&self, value: &str) -> Option<&'static str> {
        let one_line = !value.chars().any(char::is_control);
        let (fits, problem) = match self.kind {
            OptionType::String | OptionType::Secret => {
                (one_line, "must be one line without control characters")
            }
            OptionType::Text => (
                value.chars().all(|one| !one.is_control() || matches!(one, '\n' | '\t')),
                "must be text without control characters",
            ),
            OptionType::Number => (is_number(value), "must be a whole number"),
            OptionType::Flag => (matches!(value, "true" | "false"), "must be true or false"),
            OptionType::Port => (
                is_number(value) && value.parse::<u16>().is_ok_and(|port| port > 0),
                "must be a port from 1 to 65535",
            ),
            OptionType::Email => (is_email(value), "must be an address like name@example.org"),
            OptionType::Path => (
                one_line && value.starts_with('/') && value.split('/').all(|part| part != ".."),
                "must be an absolute path without \"..\"",
            ),
            OptionType::Enum => (true, ""),
        };
        (!fits).then_some(problem)
    }
}

/// A whole number in its one form, within ±2^53.
fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number.abs() <= NUMBER_MAX && number.to_string() == text)
}

fn compile(pattern: &str) -> Option<regex::Regex> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(PATTERN_COMPILED_MAX)
        .dfa_size_limit(PATTERN_COMPILED_MAX)
        .nest_limit(32)
        .build()
        .ok()
}

/// A password that nobody chose: 24 letters with 120 bits of the given chance.
pub fn generate_secret(random: &[u8; 24]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefgh";
    random.iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)])).collect()
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

/// A program that runs in a service around a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The service.
    pub service: String,
    /// Arguments, the program first.
    pub argv: Vec<String>,
    /// How long it may take, in seconds.
    pub timeout_s: u32,
}

/// Something that people may ask of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Where and what runs. An argument `{name}` is replaced by that input.
    pub run: Hook,
    /// What is asked for, in the order of the file.
    pub input: Vec<(String, InputType)>,
    /// For people.
    pub label: Option<String>,
}

/// What an input of an action holds (`security.md`, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// A short word.
    Name,
    /// An address of a person.
    Email,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// Text, given on standard input only.
    Text,
}

impl InputType {
    const NAMES: [(&str, Self); 5] = [
        ("name", Self::Name),
        ("email", Self::Email),
        ("number", Self::Number),
        ("flag", Self::Flag),
        ("text", Self::Text),
    ];

    /// Checks a value.
    pub fn check(self, name: &str, value: &str) -> Result<(), OptionValueError> {
        let (fits, problem) = match self {
            Self::Name => (is_short_name(value), "must be 1 to 64 of A-Z a-z 0-9 . _ - and not begin with -"),
            Self::Email => (is_email(value), "must be an address like name@example.org"),
            Self::Number => (is_number(value), "must be a whole number"),
            Self::Flag => (matches!(value, "true" | "false"), "must be true or false"),
            Self::Text => (
                value.len() <= 1024 && is_plain(value),
                "must be at most 1024 bytes without control characters",
            ),
        };
        if fits {
            Ok(())
        } else {
            Err(OptionValueError { name: name.to_owned(), problem: problem.to_owned() })
        }
    }
}

impl Action {
    /// The arguments and the standard input of a run with these values, each checked by its type.
    pub fn fill(
        &self,
        values: &BTreeMap<String, String>,
    ) -> Result<(Vec<String>, Option<String>), OptionValueError> {
        let wrong = |name: &str, problem: &str| OptionValueError {
            name: name.to_owned(),
            problem: problem.to_owned(),
        };
        if let Some(name) = values.keys().find(|name| !self.input.iter().any(|(one, _)| one == *name)) {
            return Err(wrong(&name.escape_debug().to_string(), "is not asked for"));
        }
        let mut input = None;
        for (name, kind) in &self.input {
            let value = values.get(name).ok_or_else(|| wrong(name, "is missing"))?;
            kind.check(name, value)?;
            if *kind == InputType::Text {
                input = Some(value.clone());
            }
        }
        let fill = |argument: &String| match placeholder(argument) {
            Some(name) => values.get(name).unwrap_or(argument).clone(),
            None => argument.clone(),
        };
        Ok((self.run.argv.iter().map(fill).collect(), input))
    }
}

/// The name in an argument that is `{name}` as a whole.
fn placeholder(argument: &str) -> Option<&str> {
    argument.strip_prefix('{')?.strip_suffix('}').filter(|name| is_name(name))
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

impl Block {
    /// Reads the value of `x-comb`, which stands in this file.
    pub(super) fn read(node: &Node, file: &str) -> Result<Self, Vec<Refusal>> {
        let mut reader = Reader { file, refusals: Vec::new(), named: Vec::new() };
        let mut block = reader.block(node);
        block.named = reader.named;
        if reader.refusals.is_empty() { Ok(block) } else { Err(reader.refusals) }
    }

    /// Reads a manifest of the older form: `method_options.Install` are the options, `show_options` is what is shown,
    /// `web_url_format` the address. What it shows without having it is left out, and noted.
    pub fn from_manifest(bytes: &[u8], file: &str) -> Result<(Self, Vec<Note>), Vec<Refusal>> {
        let mut reader = Reader { file, refusals: Vec::new(), named: Vec::new() };
        let root = match yaml::parse(bytes) {
            Ok(root) => root,
            Err(error) => {
                reader.refuse(error.line, "", format!("the file {}", error.message));
                return Err(reader.refusals);
            }
        };
        const KEYS: &[&str] = &[
            "exposed_methods",
            "method_options",
            "name",
            "rpc_name",
            "show_options",
            "version",
            "web_url_format",
        ];
        let (mut block, mut notes) = (Self::default(), Vec::new());
        let mut show = None;
        for entry in reader.entries(&root, "", "a manifest", KEYS) {
            match entry.key.as_str() {
                "version" => block.version = reader.text(&entry.node, "version", 64),
                "web_url_format" => block.web = reader.text(&entry.node, "web_url_format", 256),
                "method_options" => {
                    if let Some(install) = entry.node.get("Install") {
                        block.options = reader.options(&install.node, "method_options.Install");
                    }
                }
                "show_options" => show = Some(&entry.node),
                _ => {}
            }
        }
        for item in show.map_or(&[][..], |node| node.items()) {
            let Some(name) = reader.text(item, "show_options", 64) else { continue };
            if name == SHOW_WEB_PORT || block.options.iter().any(|option| option.name == name) {
                block.show.push(name);
            } else {
                let message =
                    format!("\"{}\" is shown, but is no option of \"Install\"", name.escape_debug());
                notes.push(Note { place: Place { file: file.to_owned(), line: item.line }, message });
            }
        }
        reader.check_web(root.get("web_url_format"), &block, "web_url_format");
        if reader.refusals.is_empty() { Ok((block, notes)) } else { Err(reader.refusals) }
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

struct Reader<'a> {
    file: &'a str,
    refusals: Vec<Refusal>,
    named: Vec<Named>,
}

impl Reader<'_> {
    fn refuse(&mut self, line: u32, field: &str, message: impl Into<String>) {
        self.refusals.push(Refusal {
            place: Place { file: self.file.to_owned(), line },
            field: field.to_owned(),
            message: message.into(),
            hint: None,
        });
    }

    /// The entries of a map whose keys are known; others are refused.
    fn entries<'n>(
        &mut self,
        node: &'n Node,
        field: &str,
        level: &str,
        known: &[&str],
    ) -> Vec<&'n YamlEntry> {
        if !matches!(node.value, Value::Map(_)) {
            if !node.is_null() {
                self.refuse(node.line, field, format!("{level} must be a map of keys"));
            }
            return Vec::new();
        }
        let mut entries = Vec::new();
        for entry in node.entries() {
            if known.contains(&entry.key.as_str()) {
                entries.push(entry);
            } else {
                let message = not_a_key(&entry.key, level, known.iter().copied());
                self.refuse(entry.line, &join(field, &entry.key), message);
            }
        }
        entries
    }

    fn text(&mut self, node: &Node, field: &str, max: usize) -> Option<String> {
        match node.text() {
            Some(text) if text.len() <= max && is_plain(text) => Some(text.to_owned()),
            Some(_) => {
                self.refuse(
                    node.line,
                    field,
                    format!("this must be at most {max} bytes without control characters"),
                );
                None
            }
            None => {
                self.refuse(node.line, field, "this must be a text");
                None
            }
        }
    }

    fn number(&mut self, node: &Node, field: &str, min: u64, max: u64) -> Option<u64> {
        match node.text().filter(|text| is_number(text)).and_then(|text| text.parse().ok()) {
            Some(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                self.refuse(node.line, field, format!("this must be a number from {min} to {max}"));
                None
            }
        }
    }

    /// A length of time in seconds.
    fn length(&mut self, node: &Node, field: &str, min: u64, max: u64) -> Option<u64> {
        match node.text().and_then(seconds) {
            Some(length) if (min..=max).contains(&length) => Some(length),
            _ => {
                let (min, max) = (told(min), told(max));
                self.refuse(
                    node.line,
                    field,
                    format!("this must be a length of time like \"90s\", from {min} to {max}"),
                );
                None
            }
        }
    }

    fn list<'n>(&mut self, node: &'n Node, field: &str, max: usize) -> Vec<&'n Node> {
        let Value::List(items) = &node.value else {
            if !node.is_null() {
                self.refuse(node.line, field, "this must be a list");
            }
            return Vec::new();
        };
        if items.len() > max {
            self.refuse(node.line, field, format!("this list has more than {max} items"));
            return Vec::new();
        }
        items.iter().map(AsRef::as_ref).collect()
    }

    fn one_of<T: Copy>(&mut self, node: &Node, field: &str, names: &[(&str, T)]) -> Option<T> {
        let found = node.text().and_then(|text| names.iter().find(|(name, _)| *name == text));
        if found.is_none() {
            let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            self.refuse(node.line, field, format!("this must be one of {}", names.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    fn service(&mut self, node: &Node, field: &str) -> Option<String> {
        let name = self.text(node, field, 255)?;
        self.named.push(Named {
            kind: NamedKind::Service,
            name: name.clone(),
            line: node.line,
            field: field.to_owned(),
        });
        Some(name)
    }

    fn block(&mut self, node: &Node) -> Block {
        const KEYS: &[&str] = &[
            "version", "entry", "web", "options", "show", "domain", "health", "update", "hooks", "actions",
            "volumes",
        ];
        let mut block = Block::default();
        for entry in self.entries(node, "x-comb", "x-comb", KEYS) {
            let (node, field) = (&entry.node, join("x-comb", &entry.key));
            match entry.key.as_str() {
                "version" => block.version = self.text(node, &field, 64),
                "entry" => block.entry = self.entry(node, &field, &[]).map(|(at, _)| at),
                "web" => block.web = self.text(node, &field, 256),
                "options" => block.options = self.options(node, &field),
                "domain" => block.domain = self.domain(node, &field),
                "health" => block.health = self.health(node, &field),
                "update" => block.update = self.update(node, &field),
                "hooks" => self.hooks(node, &field, &mut block),
                "actions" => block.actions = self.actions(node, &field),
                "volumes" => block.volumes = self.volumes(node, &field),
                // It names options, which may stand behind it.
                _ => {}
            }
        }
        if let Some(show) = node.get("show") {
            for item in self.list(&show.node, "x-comb.show", SHOW_MAX) {
                let Some(name) = self.text(item, "x-comb.show", 64) else { continue };
                if name != SHOW_WEB_PORT && !block.options.iter().any(|option| option.name == name) {
                    let message =
                        format!("\"{}\" is neither an option nor \"web_port\"", name.escape_debug());
                    self.refuse(item.line, "x-comb.show", message);
                }
                block.show.push(name);
            }
        }
        self.check_web(node.get("web"), &block, "x-comb.web");
        block
    }

    fn domain(&mut self, node: &Node, field: &str) -> Option<String> {
        let domain = self.text(node, field, 253)?;
        if !is_domain(&domain) {
            self.refuse(node.line, field, "this must be a domain like app.example.org, in lower case");
            return None;
        }
        Some(domain)
    }

    fn check_web(&mut self, entry: Option<&YamlEntry>, block: &Block, key: &str) {
        let (Some(web), Some(entry)) = (&block.web, entry) else { return };
        let parts: Vec<_> = web.split("##").collect();
        if parts.len().is_multiple_of(2) {
            self.refuse(entry.node.line, key, "a \"##\" has no second one");
            return;
        }
        for name in parts.iter().skip(1).step_by(2) {
            let option = block.options.iter().find(|option| option.name == **name);
            match option {
                // The address is shown to whoever may look, and goes through the hive.
                Some(option) if option.kind == OptionType::Secret => {
                    self.refuse(
                        entry.node.line,
                        key,
                        format!("\"{name}\" is a secret, and this address is shown"),
                    );
                }
                Some(_) => {}
                None if matches!(*name, "ip" | SHOW_WEB_PORT | "domain") => {}
                None => {
                    let name = name.escape_debug();
                    self.refuse(
                        entry.node.line,
                        key,
                        format!(
                            "\"##{name}##\" is neither an option nor one of ##ip##, ##web_port##, ##domain##"
                        ),
                    );
                }
            }
        }
    }

    fn options(&mut self, node: &Node, field: &str) -> Vec<Setting> {
        let mut options: Vec<Setting> = Vec::new();
        for (number, item) in self.list(node, field, OPTIONS_MAX).into_iter().enumerate() {
            let field = format!("{field}[{number}]");
            let Some(option) = self.option(item, &field) else { continue };
            if options.iter().any(|other| other.name == option.name) {
                self.refuse(item.line, &field, format!("the option \"{}\" stands here twice", option.name));
            }
            options.push(option);
        }
        options
    }

    fn option(&mut self, node: &Node, field: &str) -> Option<Setting> {
        const KEYS: &[&str] = &["name", "type", "default", "default_value", "hint", "values", "pattern"];
        let mut name = None;
        let mut option = Setting {
            name: String::new(),
            kind: OptionType::String,
            default: None,
            hint: None,
            values: Vec::new(),
            pattern: None,
        };
        let mut default_line = node.line;
        for entry in self.entries(node, field, "an option", KEYS) {
            let (node, field) = (&entry.node, join(field, &entry.key));
            match entry.key.as_str() {
                "name" => name = self.text(node, &field, 64),
                "type" => option.kind = self.one_of(node, &field, &OptionType::NAMES)?,
                "default" | "default_value" if node.is_null() => {}
                "default" | "default_value" => {
                    default_line = node.line;
                    match node.text() {
                        Some(text) if option.default.is_none() => option.default = Some(text.to_owned()),
                        Some(_) => self.refuse(node.line, &field, "the option has two defaults"),
                        None => {
                            self.refuse(node.line, &field, "a default must be a text, a number or a flag")
                        }
                    }
                }
                "hint" => option.hint = self.text(node, &field, 1024),
                "values" => {
                    for item in self.list(node, &field, 64) {
                        option.values.extend(self.text(item, &field, 256));
                    }
                }
                _ => {
                    option.pattern = self.text(node, &field, 256);
                    if option.pattern.as_deref().is_some_and(|pattern| compile(pattern).is_none()) {
                        self.refuse(node.line, &field, "this is no regular expression, or too large a one");
                        return None;
                    }
                }
            }
        }
        let Some(name) = name else {
            self.refuse(node.line, field, "an option needs a name");
            return None;
        };
        if !is_name(&name) {
            self.refuse(node.line, field, format!("\"{}\" is no name for a variable", name.escape_debug()));
            return None;
        }
        if steers(&name) {
            let message = format!(
                "\"{name}\" cannot be an option: the device fills it, or it steers the device's programs"
            );
            self.refuse(node.line, field, message);
            return None;
        }
        option.name = name;
        if option.kind == OptionType::Enum && option.values.is_empty() {
            self.refuse(node.line, field, format!("\"{}\" is an enum without values", option.name));
            return None;
        }
        // The older manifests write an empty default where there is none.
        if option.default.as_deref() == Some("") && option.check("").is_err()
            || option.kind == OptionType::Secret && option.default.as_deref() == Some("")
        {
            option.default = None;
        }
        if option.kind == OptionType::Secret && option.default.is_some() {
            let message = format!("\"{}\" is a secret, and everybody would know its default", option.name);
            self.refuse(default_line, field, message);
        } else if let Some(Err(error)) = option.default.as_deref().map(|default| option.check(default)) {
            self.refuse(default_line, field, format!("the default of {error}"));
        }
        Some(option)
    }

    /// `service`, `port` and `path`; keys of `others` are left to the caller.
    fn entry<'n>(
        &mut self,
        node: &'n Node,
        field: &str,
        others: &[&str],
    ) -> Option<(Entry, Vec<&'n YamlEntry>)> {
        let known = [&["service", "port", "path"], others].concat();
        let (mut service, mut port, mut path) = (None, None, Some("/".to_owned()));
        let mut rest = Vec::new();
        for entry in self.entries(node, field, "an address of a service", &known) {
            let field = join(field, &entry.key);
            match entry.key.as_str() {
                "service" => service = self.service(&entry.node, &field),
                "port" => port = self.number(&entry.node, &field, 1, 65535),
                "path" => {
                    path = self.text(&entry.node, &field, 256);
                    if path
                        .as_deref()
                        .is_some_and(|path| !path.starts_with('/') || path.contains(char::is_whitespace))
                    {
                        self.refuse(entry.node.line, &field, "a path begins with \"/\" and has no blanks");
                    }
                }
                _ => rest.push(entry),
            }
        }
        match (service, port, path) {
            (Some(service), Some(port), Some(path)) => {
                let port = u16::try_from(port).expect("the number was checked to be a port");
                Some((Entry { service, port, path }, rest))
            }
            (None, ..) if node.get("service").is_none() => {
                self.refuse(node.line, field, "\"service\" is missing here");
                None
            }
            (_, None, _) if node.get("port").is_none() => {
                self.refuse(node.line, field, "\"port\" is missing here");
                None
            }
            _ => None,
        }
    }

    fn health(&mut self, node: &Node, field: &str) -> Health {
        let mut health = Health::default();
        for entry in self.entries(node, field, "health", &["startup", "http"]) {
            let field = join(field, &entry.key);
            if entry.key == "startup" {
                if let Some(length) = self.length(&entry.node, &field, 5, 3600) {
                    health.startup_s =
                        u32::try_from(length).expect("the length was checked to be at most an hour");
                }
                continue;
            }
            let Some((at, rest)) = self.entry(&entry.node, &field, &["status", "contains"]) else { continue };
            let mut check = HttpCheck { at, status: Vec::new(), contains: None };
            for entry in rest {
                let field = join(&field, &entry.key);
                if entry.key == "contains" {
                    check.contains = self.text(&entry.node, &field, 256);
                    continue;
                }
                for item in self.list(&entry.node, &field, 8) {
                    let status = self.number(item, &field, 100, 599);
                    check.status.extend(status.and_then(|status| u16::try_from(status).ok()));
                }
            }
            health.http = Some(check);
        }
        health
    }

    fn update(&mut self, node: &Node, field: &str) -> Update {
        let mut update = Update::default();
        for entry in self.entries(node, field, "update", &["policy", "stable", "keep"]) {
            let field = join(field, &entry.key);
            match entry.key.as_str() {
                "policy" => {
                    update.auto =
                        self.one_of(&entry.node, &field, &[("manual", false), ("auto", true)]) == Some(true);
                }
                "stable" => {
                    let length = self.length(&entry.node, &field, 0, 900);
                    update.stable_s = length.and_then(|length| u32::try_from(length).ok());
                }
                _ => update.keep_s = self.length(&entry.node, &field, 0, 10 * 366 * 86_400),
            }
        }
        update
    }

    fn hooks(&mut self, node: &Node, field: &str, block: &mut Block) {
        for entry in
            self.entries(node, field, "hooks", &["before_snapshot", "after_snapshot", "after_restore"])
        {
            let field = join(field, &entry.key);
            let hook = self.run(&entry.node, &field, "a hook", &[], 300, 60).map(|(hook, _)| hook);
            match entry.key.as_str() {
                "before_snapshot" => block.before_snapshot = hook,
                "after_snapshot" => block.after_snapshot = hook,
                _ => block.after_restore = hook,
            }
        }
    }

    /// `service`, `argv` and `timeout`; keys of `others` are left to the caller.
    fn run<'n>(
        &mut self,
        node: &'n Node,
        field: &str,
        level: &str,
        others: &[&str],
        timeout_s_max: u64,
        timeout_s: u32,
    ) -> Option<(Hook, Vec<&'n YamlEntry>)> {
        let known = [&["service", "argv", "timeout"], others].concat();
        let mut hook = Hook { service: String::new(), argv: Vec::new(), timeout_s };
        let mut rest = Vec::new();
        for entry in self.entries(node, field, level, &known) {
            let field = join(field, &entry.key);
            match entry.key.as_str() {
                "service" => hook.service = self.service(&entry.node, &field)?,
                "argv" => {
                    for item in self.list(&entry.node, &field, ARGV_MAX) {
                        match item.text() {
                            Some(text) if text.len() <= ARGUMENT_BYTES_MAX && !text.contains('\0') => {
                                hook.argv.push(text.to_owned());
                            }
                            _ => {
                                let message = format!(
                                    "an argument must be a text of at most {ARGUMENT_BYTES_MAX} bytes"
                                );
                                self.refuse(item.line, &field, message);
                                return None;
                            }
                        }
                    }
                }
                "timeout" => {
                    let length = self.length(&entry.node, &field, 1, timeout_s_max)?;
                    hook.timeout_s =
                        u32::try_from(length).expect("the length was checked to be at most an hour");
                }
                _ => rest.push(entry),
            }
        }
        for (key, missing) in [("service", hook.service.is_empty()), ("argv", hook.argv.is_empty())] {
            if missing {
                self.refuse(node.line, field, format!("\"{key}\" is missing here"));
                return None;
            }
        }
        Some((hook, rest))
    }

    fn actions(&mut self, node: &Node, field: &str) -> BTreeMap<String, Action> {
        let mut actions = BTreeMap::new();
        if !matches!(node.value, Value::Map(_)) && !node.is_null() {
            self.refuse(node.line, field, "actions must be a map of names");
        }
        if node.entries().len() > ACTIONS_MAX {
            self.refuse(node.line, field, format!("there are more than {ACTIONS_MAX} actions"));
            return actions;
        }
        for entry in node.entries() {
            let field = join(field, &entry.key);
            if !is_short_name(&entry.key) {
                self.refuse(
                    entry.line,
                    &field,
                    format!("\"{}\" is no name for an action", entry.key.escape_debug()),
                );
                continue;
            }
            if let Some(action) = self.action(&entry.node, &field) {
                actions.insert(entry.key.clone(), action);
            }
        }
        actions
    }

    fn action(&mut self, node: &Node, field: &str) -> Option<Action> {
        let (run, rest) = self.run(node, field, "an action", &["input", "label"], 3600, 60)?;
        let mut action = Action { run, input: Vec::new(), label: None };
        for entry in rest {
            let field = join(field, &entry.key);
            if entry.key == "label" {
                action.label = self.text(&entry.node, &field, 256);
                continue;
            }
            if entry.node.entries().len() > INPUTS_MAX {
                self.refuse(entry.node.line, &field, format!("an action has at most {INPUTS_MAX} inputs"));
                return None;
            }
            for input in entry.node.entries() {
                let field = join(&field, &input.key);
                if !is_name(&input.key) || input.key.len() > 64 {
                    self.refuse(
                        input.line,
                        &field,
                        format!("\"{}\" is no name for an input", input.key.escape_debug()),
                    );
                    return None;
                }
                action.input.push((input.key.clone(), self.one_of(&input.node, &field, &InputType::NAMES)?));
            }
        }
        let texts: BTreeSet<_> = action
            .input
            .iter()
            .filter(|(_, kind)| *kind == InputType::Text)
            .map(|(name, _)| name.as_str())
            .collect();
        if texts.len() > 1 {
            self.refuse(
                node.line,
                field,
                "an action has one input of text at most: it becomes the standard input",
            );
        }
        for argument in &action.run.argv {
            for (name, _) in &action.input {
                let part = argument.contains(&format!("{{{name}}}"));
                let message = match placeholder(argument) {
                    Some(one) if one == name && texts.contains(one) => {
                        format!("\"{name}\" is text, which is given on standard input and not as an argument")
                    }
                    Some(one) if one == name => continue,
                    _ if part => {
                        format!("\"{{{name}}}\" must be an argument of its own, and not a part of one")
                    }
                    _ => continue,
                };
                self.refuse(node.line, field, message);
            }
        }
        Some(action)
    }

    fn volumes(&mut self, node: &Node, field: &str) -> BTreeMap<String, VolumeSettings> {
        let mut volumes = BTreeMap::new();
        if node.entries().len() > VOLUMES_MAX {
            self.refuse(node.line, field, format!("there are more than {VOLUMES_MAX} volumes"));
            return volumes;
        }
        for volume in node.entries() {
            let field = join(field, &volume.key);
            let mut settings = VolumeSettings::default();
            for entry in
                self.entries(&volume.node, &field, "a volume in x-comb", &["seal_every", "quota", "retain"])
            {
                let field = join(&field, &entry.key);
                match entry.key.as_str() {
                    "seal_every" => {
                        let length = self.length(&entry.node, &field, 5, 300);
                        settings.seal_every_s = length.and_then(|length| u32::try_from(length).ok());
                    }
                    "quota" => {
                        settings.quota_bytes = entry.node.text().and_then(bytes);
                        if settings.quota_bytes.is_none() {
                            self.refuse(entry.node.line, &field, "this must be a size like \"10G\"");
                        }
                    }
                    _ => settings.retain = self.text(&entry.node, &field, 256),
                }
            }
            self.named.push(Named {
                kind: NamedKind::Volume,
                name: volume.key.clone(),
                line: volume.line,
                field,
            });
            volumes.insert(volume.key.clone(), settings);
        }
        volumes
    }
}

/// Seconds of a length like `90s`, `1h30m` or `30d`.
fn seconds(text: &str) -> Option<u64> {
    let (mut sum, mut rest) = (0u64, text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let unit = behind.chars().next()?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = &behind[unit.len_utf8()..];
    }
    Some(sum)
}

fn told(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        one if one.is_multiple_of(86_400) => format!("{}d", one / 86_400),
        one if one.is_multiple_of(3600) => format!("{}h", one / 3600),
        one if one.is_multiple_of(60) => format!("{}m", one / 60),
        one => format!("{one}s"),
    }
}

/// Bytes of a size like `500M` or `10GiB`; units are powers of 1,024.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << (10 * power)).filter(|bytes| (1..=1 << 53).contains(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Block, Vec<String>> {
        let node = yaml::parse(text.as_bytes()).expect("is YAML");
        Block::read(&node, "compose.yaml").map_err(|all| all.iter().map(|one| one.to_string()).collect())
    }

    fn option(text: &str) -> Setting {
        read(&format!("options: [{{name: it, {text}}}]")).expect("is a block").options.remove(0)
    }

    #[test]
    fn a_value_is_checked_by_its_type() {
        type Values<'a> = &'a [&'a str];
        let table: &[(&str, Values<'_>, Values<'_>)] = &[
            ("type: string", &["", "a b", "ü", "$(id)", "-x"], &["a\nb", "a\0b", "\u{1b}[0m"]),
            ("type: text", &["a\nb\tc", ""], &["a\0b", "a\rb"]),
            (
                "type: number",
                &["0", "-5", "9007199254740992"],
                &["", "1.5", "+1", "01", "1e3", "9007199254740993", "٣"],
            ),
            ("type: flag", &["true", "false"], &["yes", "True", "1", ""]),
            ("type: port", &["1", "65535"], &["0", "65536", "-1", "080", ""]),
            ("type: email", &["a@b.org"], &["a", "a@b@c", "-a@b", "a b@c"]),
            ("type: path", &["/", "/a/b"], &["a", "/a/../b", "/..", "", "/a\n"]),
            ("type: secret", &["x"], &["a\nb"]),
            ("type: enum, values: [a, b c]", &["a", "b c"], &["c", "", "A"]),
            ("pattern: '[a-z]+'", &["abc"], &["", "abc1", "ABC", "abc\n"]),
            ("pattern: 'a|b'", &["a", "b"], &["ab", "xa", "bx"]),
        ];
        for (text, good, bad) in table {
            let option = option(text);
            for value in *good {
                assert_eq!(option.check(value), Ok(()), "{text}: {value:?}");
            }
            for value in *bad {
                let problem = option.check(value).expect_err("is refused").to_string();
                assert!(problem.starts_with("\"it\" "), "{text}: {value:?}: {problem}");
            }
            assert!(option.check(&"a".repeat(VALUE_BYTES_MAX + 1)).is_err());
        }
    }

    #[test]
    fn a_pattern_cannot_take_long() {
        assert!(read("options: [{name: a, pattern: '(((a{1,1000}){1,1000}){1,1000})'}]").is_err());
        // What makes others go back and forth for ever is linear here.
        let option = option("pattern: '(a+)+$'");
        let begun = std::time::Instant::now();
        assert!(option.check(&format!("{}b", "a".repeat(4000))).is_err());
        assert!(begun.elapsed().as_secs() < 5);
    }

    #[test]
    fn a_secret_is_generated_and_never_has_a_default() {
        assert!(option("type: secret").default.is_none() && !option("type: secret").is_required());
        assert!(option("type: string").is_required() && !option("type: string, default: ''").is_required());
        let secret = generate_secret(&std::array::from_fn(|at| (at * 11) as u8));
        assert!(secret.len() == 24 && secret.bytes().all(|byte| byte.is_ascii_alphabetic()));
        assert_eq!(
            read("options: [{name: a, type: secret, default: x}]"),
            Err(vec!["compose.yaml:1: \"a\" is a secret, and everybody would know its default".to_owned()])
        );
        assert_eq!(
            read("web: http://##a##/\noptions: [{name: a, type: secret}]"),
            Err(vec!["compose.yaml:1: \"a\" is a secret, and this address is shown".to_owned()])
        );
    }

    #[test]
    fn an_address_is_filled_with_what_is_known() {
        let block = read(
            "web: http://##ip##:##web_port##/##room##?d=##domain##\noptions: [{name: room, default: hall}]",
        )
        .expect("is a block");
        let none = BTreeMap::new();
        assert_eq!(
            block.address("192.0.2.1", Some(8080), Some("a.example.org"), &none).as_deref(),
            Some("http://192.0.2.1:8080/hall?d=a.example.org")
        );
        assert_eq!(block.address("192.0.2.1", None, Some("a"), &none), None);
        assert_eq!(read("web: 'http://##ip##/##'").expect_err("is odd").len(), 1);
        assert_eq!(Block::default().address("192.0.2.1", None, None, &none), None);
    }

    #[test]
    fn an_action_takes_values_as_whole_arguments() {
        let block = read(
            "actions:\n  add: {service: web, argv: [add, '{user}', --mail, '{mail}', '{other}'], input: {user: name, mail: email, password: text}}\n",
        )
        .expect("is a block");
        let action = &block.actions["add"];
        let values =
            |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let (argv, input) = action
            .fill(&values(&[("user", "anna"), ("mail", "a@b.org"), ("password", "{user} $(id)")]))
            .expect("the values fit");
        assert_eq!(argv, ["add", "anna", "--mail", "a@b.org", "{other}"]);
        assert_eq!(input.as_deref(), Some("{user} $(id)"));
        for (name, value) in
            [("user", "-rf"), ("user", "a b"), ("mail", "x"), ("password", "a\nb"), ("more", "x")]
        {
            let mut all: BTreeMap<String, String> =
                values(&[("user", "anna"), ("mail", "a@b.org"), ("password", "x")]);
            all.insert(name.to_owned(), value.to_owned());
            assert_eq!(action.fill(&all).expect_err("is refused").name, name);
        }
        assert_eq!(
            action.fill(&values(&[("user", "anna")])).expect_err("two are missing").problem,
            "is missing"
        );
    }

    #[test]
    fn lengths_and_sizes_are_read() {
        for (text, expected) in [("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800), ("0s", 0)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5h", "1y", "99999999999999999999s", "9999999999999999999w", "5ü"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
        for (text, expected) in
            [("1", 1), ("10k", 10_240), ("5 MiB", 5 << 20), ("10G", 10 << 30), ("2TB", 2 << 40)]
        {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "0", "G", "-1G", "1.5G", "1E", "99999999999999999999", "9999999T"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn the_older_manifest_is_read() {
        let manifest = "\
exposed_methods:
- Install
- Restart
method_options:
  Install:
  - default_value: \"\"
    hint: \"\"
    name: password
    type: string
  - default_value: bytesized
    hint: \"\"
    name: username
    type: string
  - default_value: /home/bytesized/data
    hint: \"\"
    name: data_folder
    type: string
  Restart:
  - default_value: \"\"
    hint: \"\"
    name: container_id
    type: string
name: Deluge
rpc_name: DelugeRPC
show_options:
- username
- password
- web_port
- daemon_port
- data_folder
version: 1
web_url_format: http://##ip##:##web_port##/
";
        let (block, notes) = Block::from_manifest(manifest.as_bytes(), "deluge.yaml").expect("is a manifest");
        let names: Vec<_> = block.options.iter().map(|option| option.name.as_str()).collect();
        assert_eq!(names, ["password", "username", "data_folder"]);
        assert_eq!(block.options[1].default.as_deref(), Some("bytesized"));
        assert_eq!(block.show, ["username", "password", "web_port", "data_folder"]);
        assert_eq!(block.version.as_deref(), Some("1"));
        assert_eq!(
            block.address("192.0.2.1", Some(8112), None, &BTreeMap::new()).as_deref(),
            Some("http://192.0.2.1:8112/")
        );
        assert_eq!(notes.len(), 1);
        assert_eq!(
            notes[0].to_string(),
            "deluge.yaml:29: \"daemon_port\" is shown, but is no option of \"Install\""
        );
        let wrong = Block::from_manifest(b"show_option: [a]\n", "m.yaml").expect_err("has an unknown key");
        assert_eq!(
            wrong[0].to_string(),
            "m.yaml:1: \"show_option\" is not a key of a manifest; did you mean \"show_options\"?"
        );
    }

    proptest! {
        #[test]
        fn any_block_is_read_or_refused(text in "(options|show|web|actions|health|update|volumes|hooks|entry): [\\[\\]{}a-z:,0-9#' ]{0,60}") {
            if let Ok(node) = yaml::parse(text.as_bytes()) {
                let _ = Block::read(&node, "compose.yaml");
            }
            let _ = Block::from_manifest(text.as_bytes(), "manifest.yaml");
        }

        #[test]
        fn any_length_or_size_is_read_or_refused(text in "[0-9]{0,22}[a-zA-Zü ]{0,3}[0-9]{0,3}[smhd]?") {
            let _ = (seconds(&text), bytes(&text));
        }
    }
}
