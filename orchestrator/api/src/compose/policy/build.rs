//! Builds: what happens where a package is authored.

use serde_json::Value;

use super::value::{says, truth};
use super::{At, Checker};
use crate::compose::paths::{absolute, below};

impl Checker<'_> {
    pub(super) fn build(&mut self, at: &At<'_>, value: &Value) {
        self.entries(at, value);
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let folder = self.folder.clone();
        let is_inside = |path: &str| absolute(path).is_some_and(|path| below(&folder, &path).is_some());
        if !is_inside(text("context")) {
            let context = text("context").escape_debug();
            self.refuse(
                &at.key("context"),
                format!("build context \"{context}\" is outside the app's folder"),
            );
        } else {
            let dockerfile = self.text(&at.key("dockerfile"), &value["dockerfile"]);
            let whole = if dockerfile.starts_with('/') {
                dockerfile.to_owned()
            } else {
                format!("{}/{dockerfile}", text("context"))
            };
            if !is_inside(&whole) {
                let message = format!("\"{}\" is outside the app's folder", dockerfile.escape_debug());
                self.refuse(&at.key("dockerfile"), message);
            }
        }
        for (name, context) in self.entries(&at.key("additional_contexts"), &value["additional_contexts"]) {
            let context = context.as_str().unwrap_or_default();
            let known =
                ["service:", "docker-image://", "target:"].iter().any(|prefix| context.starts_with(prefix));
            if !known && !is_inside(context) {
                let at = At { clues: vec![name], ..at.key("additional_contexts") };
                self.refuse(
                    &at,
                    format!("build context \"{}\" is outside the app's folder", context.escape_debug()),
                );
            }
        }
        if truth(&value["privileged"]) {
            self.refuse(&at.key("privileged"), "\"privileged\" would give the build all of the machine");
        }
        if says(&value["entitlements"]) {
            self.refuse(&at.key("entitlements"), "\"entitlements\" would give the build all of the machine");
        }
        if says(&value["ssh"]) {
            self.refuse(&at.key("ssh"), "\"ssh\" would lend the build the keys of whoever builds");
        }
        let network = self.text(&at.key("network"), &value["network"]);
        if !matches!(network, "" | "default" | "none") {
            let network = network.escape_debug();
            self.refuse(
                &at.key("network"),
                format!("the build's network \"{network}\" would show it other programs"),
            );
        }
        if says(&value["isolation"]) {
            self.refuse(&at.key("isolation"), "\"isolation\" is of Windows");
        }
        if says(&value["tags"]) {
            self.refuse(&at.key("tags"), "\"tags\" would rename images of the machine");
        }
        self.labels(&at.key("labels"), &value["labels"]);
        for (key, known) in [("cache_from", "type=registry,"), ("cache_to", "type=inline")] {
            for cache in self.texts(&at.key(key), &value[key]) {
                let plain = key == "cache_from" && !cache.contains('=');
                if !plain && !cache.starts_with(known) || cache.contains("dest=") || cache.contains("src=") {
                    let at = At { clues: vec![cache], ..at.key(key) };
                    self.refuse(
                        &at,
                        format!("\"{key}: {}\" is outside the app's folder", cache.escape_debug()),
                    );
                }
            }
        }
    }
}
