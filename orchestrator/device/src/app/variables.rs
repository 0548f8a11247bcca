//! What the variables of an app's compose file are: what was chosen, what was generated, and what the device fills in.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::compose::{Block, Folder, Source};
use orchestrator_api::placement::Problem;

use super::package::Package;
use crate::trouble::{Result, Trouble};

/// The name of the app's own volume for files that ask for it.
const APP_VOLUME: &str = "comb-app";
/// That of its link.
const LINK_VOLUME: &str = "comb-link";

/// The text of an app with the variables that it is read with.
#[derive(Clone)]
pub struct Text {
    /// The text, checked.
    pub source: Source,
    /// The variables, and no others. Never printed.
    pub variables: BTreeMap<String, String>,
    /// Options by name, with their defaults.
    pub options: BTreeMap<String, String>,
}

/// Reads the text of a package.
pub fn read(package: &Package) -> Result<Text> {
    let (authorization, body) = (&package.authorization, &package.body);
    let files = body.folder();
    let chosen: BTreeMap<String, String> =
        body.options.iter().chain(&body.secrets).map(|one| (one.name.clone(), one.value.clone())).collect();
    let filled = filled(&authorization.name, authorization.domain.as_deref());
    let names: BTreeSet<String> = chosen.keys().chain(filled.keys()).cloned().collect();
    let source =
        Source::read(Folder { files: &files, main: &body.compose }, &names).map_err(
            |refusals| match refusals.first() {
                Some(first) => Trouble::new(Problem::PolicyRefused, first.to_string())
                    .at(&first.place.file, first.place.line)
                    .counted(i64::try_from(refusals.len()).unwrap_or(i64::MAX)),
                None => Trouble::new(Problem::PolicyRefused, "the compose file is refused"),
            },
        )?;
    let options = options(source.block(), chosen)?;
    let mut variables = options.clone();
    // What a device fills in cannot be chosen.
    variables.extend(filled);
    Ok(Text { source, variables, options })
}

/// What a device fills in, but for the tokens of links.
pub fn filled(name: &str, domain: Option<&str>) -> BTreeMap<String, String> {
    let domain = domain.unwrap_or_default();
    let url = if domain.is_empty() { String::new() } else { format!("https://{domain}") };
    [
        ("APP_VOLUME_NAME", APP_VOLUME),
        ("LINK_VOLUME_NAME", LINK_VOLUME),
        ("LINK_DOMAIN_DEFAULT", domain),
        ("COMB_APP", name),
        ("COMB_DOMAIN", domain),
        ("COMB_URL", &url),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Chosen values with defaults. Tokens of links are secrets that no file may choose, so they are kept beside.
fn options(block: &Block, chosen: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let (tokens, given): (BTreeMap<_, _>, BTreeMap<_, _>) =
        chosen.into_iter().partition(|(name, _)| name.starts_with("LINK_TOKEN_"));
    let chosen = block.choose(&given).map_err(|wrong| {
        let first =
            wrong.first().map(|one| format!("option {} {}", one.name, one.problem)).unwrap_or_default();
        Trouble::new(Problem::PackageWrong, first)
    })?;
    if let Some(name) = chosen.to_generate.first() {
        return Err(Trouble::new(Problem::PackageWrong, format!("secret {name} was not generated")));
    }
    let mut values = chosen.values;
    values.extend(tokens);
    Ok(values)
}
