//! Reading `x-comb`, and the older manifest, from their text.

use std::collections::{BTreeMap, BTreeSet};

use super::action::placeholder;
use super::setting::{compile, is_number};
use super::{
    Action, Block, Entry, Health, Hook, HttpCheck, InputType, Named, NamedKind, OptionType, SHOW_WEB_PORT,
    Setting, Update, VolumeSettings,
};
use crate::compose::keys::{join, not_a_key};
use crate::compose::variables::{is_name, may_be_chosen};
use crate::compose::{Note, Place, Refusal};
use crate::text::{is_domain, is_plain, is_short_name};
use crate::yaml::{self, Entry as YamlEntry, Node, Value};

const OPTIONS_MAX: usize = 128;
const SHOW_MAX: usize = 32;
const ARGV_MAX: usize = 64;
const ARGUMENT_BYTES_MAX: usize = 4096;
const ACTIONS_MAX: usize = 64;
const INPUTS_MAX: usize = 8;
const VOLUMES_MAX: usize = 32;

impl Block {
    /// Reads the value of `x-comb`, which stands in this file.
    pub(in crate::compose) fn read(node: &Node, file: &str) -> Result<Self, Vec<Refusal>> {
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
        if !may_be_chosen(&name) {
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
pub(super) fn seconds(text: &str) -> Option<u64> {
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
pub(super) fn bytes(text: &str) -> Option<u64> {
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
