//! Credentials of S3: in the file of one store, else where the AWS tools find them, in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::Url;
use crate::surroundings::{Surroundings, in_words, read};

/// What signs requests, and in which region; of the secret parts nothing is ever shown.
#[derive(PartialEq, Eq)]
pub(crate) struct Aws {
    pub(crate) source: Source,
    /// The region that the environment or the profile names.
    pub(crate) region: Option<String>,
    /// Where was looked, for a person.
    pub(crate) looked_at: String,
}

/// Where the credentials come from.
#[derive(PartialEq, Eq)]
pub(crate) enum Source {
    /// Here they are.
    Keys(Keys),
    /// A service gives them: variables, by name, that tell which.
    Service(Vec<(&'static str, String)>),
    /// Nothing is set: the service that machines in the cloud of AWS have.
    Instance {
        /// Where it is, if not where it always is.
        endpoint: Option<String>,
    },
}

/// A key and its secret.
#[derive(PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// With keys that last for some hours.
    pub(crate) token: Option<String>,
}

/// Variables with which a service gives credentials; each group is whole or means nothing.
const SERVICES: &[&[&str]] = &[
    &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"],
    &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
    &["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
];

/// The files of the AWS tools: credentials, and configuration.
fn tools_files(around: &Surroundings) -> [Option<PathBuf>; 2] {
    [
        around.file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
        around.file("AWS_CONFIG_FILE", ".aws/config"),
    ]
}

/// All files that may have the credentials of a store.
pub(crate) fn files(around: &Surroundings, url: &Url) -> Vec<PathBuf> {
    around.files(url, tools_files(around).into_iter().flatten())
}

/// Looks for the credentials of a store. An error is for a person, and names what is wrong where.
pub(crate) fn find(around: &Surroundings, url: &Url) -> Result<Aws, String> {
    let own_file = around.own_file(url);
    if let Some(path) = &own_file
        && let Some(text) = read(path)?
    {
        return own(path, &text, around);
    }
    let profile = around.variable("AWS_PROFILE").unwrap_or("default");
    let [credentials_file, config_file] = tools_files(around);
    let credentials = section(credentials_file.as_deref(), |name| name == profile)?;
    let config = section(config_file.as_deref(), |name| {
        name.strip_prefix("profile ")
            .map_or(name == "default" && profile == "default", |name| name.trim_start() == profile)
    })?;

    let region = region(around);
    let of_profile = |key: &str| {
        [&credentials, &config].into_iter().flatten().find_map(|section| section.get(key)).cloned()
    };
    let region = region.or_else(|| of_profile("region"));
    let files = in_words(&[credentials_file, config_file].into_iter().flatten().collect::<Vec<_>>());
    let of_store = own_file.map(|path| format!("{}; ", path.display())).unwrap_or_default();
    let looked_at = format!(
        "{of_store}AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment; profile {profile:?} in {files}"
    );
    let found = |source| Ok(Aws { source, region: region.clone(), looked_at: looked_at.clone() });

    match (around.variable("AWS_ACCESS_KEY_ID"), around.variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            let token = around.variable("AWS_SESSION_TOKEN").map(str::to_owned);
            return found(Source::Keys(Keys { id: id.to_owned(), secret: secret.to_owned(), token }));
        }
        (None, None) => {}
        (id, _) => {
            let missing = if id.is_none() { "AWS_ACCESS_KEY_ID" } else { "AWS_SECRET_ACCESS_KEY" };
            return Err(format!("of its credentials only one half is in the environment: set {missing} too"));
        }
    }
    // Both halves stand together in one file.
    for section in [&credentials, &config].into_iter().flatten() {
        if let Some(keys) = keys(section) {
            return found(Source::Keys(keys));
        }
        if ["aws_access_key_id", "aws_secret_access_key"].iter().any(|key| section.contains_key(*key)) {
            return Err(format!("profile {profile:?} has only one half of its credentials ({files})"));
        }
    }
    // Of what the AWS tools can do with a profile, this is what asks somebody else.
    let ways = ["sso_session", "sso_start_url", "credential_process", "role_arn", "login_session"];
    if let Some(way) = ways.into_iter().find(|way| of_profile(way).is_some()) {
        return Err(format!(
            "profile {profile:?} gets its credentials by {way}, which comb cannot: \
             put the output of `aws configure export-credentials --format env` into the environment, \
             or keys into the profile"
        ));
    }
    if around.variable("AWS_PROFILE").is_some() && credentials.is_none() && config.is_none() {
        return Err(format!("AWS_PROFILE names {profile:?}, and there is no such profile in {files}"));
    }
    for service in SERVICES {
        let set: Vec<_> =
            service.iter().filter_map(|name| Some((*name, around.variable(name)?.to_owned()))).collect();
        if set.len() == service.len() {
            return found(Source::Service(set));
        }
    }
    if around.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(format!("no credentials: looked at {looked_at}. {HINT}"));
    }
    let endpoint = around.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").map(str::to_owned);
    found(Source::Instance { endpoint })
}

/// What to do without credentials.
pub(crate) const HINT: &str = "Set the variables, or run `aws configure`";

/// The region that the environment names.
fn region(around: &Surroundings) -> Option<String> {
    around.variable("AWS_REGION").or(around.variable("AWS_DEFAULT_REGION")).map(str::to_owned)
}

/// What the file of one store has: a profile, whatever its name. No variable is of this store alone, so none comes before it.
fn own(path: &Path, text: &str, around: &Surroundings) -> Result<Aws, String> {
    let mut profiles = BTreeSet::new();
    let found = section_in(text, |name| {
        profiles.insert(name.to_owned());
        true
    });
    let path = path.display();
    if profiles.len() > 1 {
        return Err(format!("{path} has several profiles, and is the file of one store: leave one"));
    }
    let found = found.unwrap_or_default();
    let Some(keys) = keys(&found) else {
        return Err(format!(
            "{path} has no profile with aws_access_key_id and aws_secret_access_key, and is the file of this store"
        ));
    };
    let region = found.get("region").cloned().or_else(|| region(around));
    Ok(Aws { source: Source::Keys(keys), region, looked_at: path.to_string() })
}

/// The keys of a profile, if it has both halves.
fn keys(section: &BTreeMap<String, String>) -> Option<Keys> {
    let part = |key: &str| section.get(key).cloned();
    Some(Keys {
        id: part("aws_access_key_id")?,
        secret: part("aws_secret_access_key")?,
        token: part("aws_session_token"),
    })
}

/// What the sections of that name in a file hold, all together; nothing if there is none.
fn section(
    path: Option<&Path>,
    named: impl FnMut(&str) -> bool,
) -> Result<Option<BTreeMap<String, String>>, String> {
    let text = path.map(read).transpose()?.flatten();
    Ok(text.and_then(|text| section_in(&text, named)))
}

/// The same for its text.
fn section_in(text: &str, mut named: impl FnMut(&str) -> bool) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    let mut nested = false;
    for line in text.trim_start_matches('\u{feff}').lines() {
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().unwrap_or_default().trim();
            inside = named(name);
            nested = false;
            if inside {
                found.get_or_insert_default();
            }
            continue;
        }
        // What stands indented below a key without a value belongs to that key.
        if nested && indented {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.split_once(" #").map_or(value, |(value, _)| value);
        let value = value.split_once(" ;").map_or(value, |(value, _)| value).trim();
        nested = value.is_empty();
        if inside && !nested {
            found.get_or_insert_default().insert(key.trim().to_lowercase(), value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::STORE_CREDENTIALS;

    /// A home with these files, and these variables.
    fn look(
        credentials: Option<&str>,
        config: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<Aws, String> {
        let home = tempfile::tempdir().expect("a folder");
        let aws = home.path().join(".aws");
        std::fs::create_dir(&aws).expect("made");
        for (name, text) in [("credentials", credentials), ("config", config)] {
            if let Some(text) = text {
                std::fs::write(aws.join(name), text).expect("written");
            }
        }
        let pairs = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        find(&Surroundings::new(pairs, Some(home.path().to_owned())), &bucket())
    }

    fn bucket() -> Url {
        "s3://bucket/comb".parse().expect("a URL")
    }

    fn keys(found: Result<Aws, String>) -> (String, String, Option<String>, Option<String>) {
        match found {
            Ok(Aws { source: Source::Keys(keys), region, .. }) => (keys.id, keys.secret, keys.token, region),
            Ok(other) => panic!("no keys: looked at {}", other.looked_at),
            Err(error) => panic!("{error}"),
        }
    }

    fn text(one: &str, two: &str) -> (String, String, Option<String>, Option<String>) {
        (one.to_owned(), two.to_owned(), None, None)
    }

    const CREDENTIALS: &str = "\u{feff}# made by hand\r\n[default]\r\naws_access_key_id = AKIA1\r\n\
        aws_secret_access_key=a/b+c=#d # comment\r\n\r\n[ work ]\nAWS_ACCESS_KEY_ID=AKIA2\n\
        aws_secret_access_key = s2\naws_session_token = t2 ; for a day\n[half]\naws_access_key_id = x\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n  max_concurrent_requests = 20\n  region = no\n\
        output = json\n[profile work]\nregion=eu-central-1\n[work]\nregion = wrong\n[profile  keys]\n\
        aws_access_key_id = AKIA3\naws_secret_access_key = s3\n[profile sso]\nsso_session = corp\n";

    #[test]
    fn credentials_are_found_where_the_aws_tools_find_them() {
        let found = keys(look(Some(CREDENTIALS), Some(CONFIG), &[]));
        assert_eq!(found, ("AKIA1".into(), "a/b+c=#d".into(), None, Some("eu-west-1".into())));

        let found = keys(look(Some(CREDENTIALS), Some(CONFIG), &[("AWS_PROFILE", "work")]));
        assert_eq!(found, ("AKIA2".into(), "s2".into(), Some("t2".into()), Some("eu-central-1".into())));

        assert_eq!(
            keys(look(Some(CREDENTIALS), Some(CONFIG), &[("AWS_PROFILE", "keys")])),
            text("AKIA3", "s3")
        );

        let environment = [
            ("AWS_ACCESS_KEY_ID", "AKIA9"),
            ("AWS_SECRET_ACCESS_KEY", "s9"),
            ("AWS_SESSION_TOKEN", "t9"),
            ("AWS_DEFAULT_REGION", "us-west-2"),
            ("AWS_PROFILE", "work"),
        ];
        let found = keys(look(Some(CREDENTIALS), Some(CONFIG), &environment));
        assert_eq!(found, ("AKIA9".into(), "s9".into(), Some("t9".into()), Some("us-west-2".into())));
        assert_eq!(keys(look(None, None, &environment[..2])), text("AKIA9", "s9"));
    }

    #[test]
    fn files_may_lie_elsewhere() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("mine");
        std::fs::write(&file, "[default]\naws_access_key_id=i\naws_secret_access_key=s\n").expect("written");
        let file = file.to_str().expect("text");
        assert_eq!(
            keys(look(Some(CREDENTIALS), None, &[("AWS_SHARED_CREDENTIALS_FILE", file)])),
            text("i", "s")
        );
    }

    #[test]
    fn the_file_of_a_store_comes_first_for_that_store_alone() {
        let place = tempfile::tempdir().expect("a folder");
        let pairs = [
            (STORE_CREDENTIALS, place.path().to_str().expect("text")),
            ("AWS_ACCESS_KEY_ID", "AKIA9"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("AWS_REGION", "us-west-2"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let around = Surroundings::new(pairs, None);
        let own = bucket().credentials_in(place.path()).expect("its kind has one");
        let general = || {
            let (id, secret, token, _) = text("AKIA9", "hidden");
            (id, secret, token, Some("us-west-2".to_owned()))
        };
        assert_eq!(keys(find(&around, &bucket())), general(), "there is no such file");

        let at_home = "[minio]\naws_access_key_id = home\naws_secret_access_key = s\nregion = here\n";
        std::fs::write(&own, at_home).expect("written");
        let expected = ("home".to_owned(), "s".to_owned(), None, Some("here".to_owned()));
        assert_eq!(keys(find(&around, &bucket())), expected);
        let other = "s3://bucket/comb?endpoint=http://nas:9000".parse().expect("a URL");
        assert_eq!(keys(find(&around, &other)), general(), "another store");

        for (wrong, says) in [
            ("", "no profile with"),
            ("[a]\naws_access_key_id = hidden\n", "no profile with"),
            ("[a]\naws_access_key_id = hidden\n[b]\naws_secret_access_key = hidden\n", "several profiles"),
        ] {
            std::fs::write(&own, wrong).expect("written");
            let Err(error) = find(&around, &bucket()) else { panic!("{wrong:?} has no credentials") };
            assert!(error.contains(says) && error.contains(own.to_str().expect("text")), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn without_keys_a_service_is_asked() {
        let instance =
            look(None, Some("[default]\nregion = eu-west-1"), &[]).unwrap_or_else(|e| panic!("{e}"));
        assert!(instance.source == Source::Instance { endpoint: None });
        assert_eq!(instance.region.as_deref(), Some("eu-west-1"));
        assert!(instance.looked_at.contains("AWS_ACCESS_KEY_ID"), "{}", instance.looked_at);
        assert!(instance.looked_at.contains(".aws/credentials"), "{}", instance.looked_at);
        assert!(instance.looked_at.contains(".aws/config"), "{}", instance.looked_at);

        let pod = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:r")];
        let pod = look(None, None, &pod).unwrap_or_else(|e| panic!("{e}"));
        assert!(matches!(pod.source, Source::Service(set) if set.len() == 2));
        let half = look(None, None, &[("AWS_ROLE_ARN", "arn:r")]).unwrap_or_else(|e| panic!("{e}"));
        assert!(matches!(half.source, Source::Instance { .. }));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let no_service = ("AWS_EC2_METADATA_DISABLED", "true");
        for (variables, says) in [
            (
                &[no_service][..],
                &["no credentials", "AWS_ACCESS_KEY_ID", ".aws/credentials", "aws configure"][..],
            ),
            (&[("AWS_ACCESS_KEY_ID", "x")], &["AWS_SECRET_ACCESS_KEY too"]),
            (&[("AWS_SECRET_ACCESS_KEY", "hidden")], &["AWS_ACCESS_KEY_ID too"]),
            (&[("AWS_PROFILE", "nobody")], &["\"nobody\"", ".aws/config"]),
            (&[("AWS_PROFILE", "sso")], &["sso_session", "export-credentials"]),
            (&[("AWS_PROFILE", "half")], &["one half"]),
            // In the config file a section without the word is no profile.
            (&[("AWS_PROFILE", "profile work"), no_service], &["no such profile"]),
        ] {
            let credentials = variables.iter().any(|(name, _)| *name == "AWS_PROFILE").then_some(CREDENTIALS);
            let config = credentials.map(|_| CONFIG);
            let Err(error) = look(credentials, config, variables) else { panic!("{variables:?}") };
            for words in says {
                assert!(error.contains(words), "{words}: {error}");
            }
            assert!(!error.contains("hidden"), "{error}");
        }
        let Err(error) = look(Some(&"x".repeat(2 << 20)), None, &[]) else { panic!("it is too large") };
        assert!(error.contains(".aws/credentials"), "{error}");
    }
}
