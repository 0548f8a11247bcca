//! Packages: what the owner signed, and the sealed body (`security.md`, section 5).
//!
//! Invariants
//! - The signature is checked before anything of an authorization is believed, and over the bytes as they came.
//! - A decoder reads at most its limit, refuses fields that it does not know, and lists before they grow too long.
//! - Errors of a body repeat nothing of it: it was sealed.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_format::AccountId;
use fs_format::signature::is_valid;
use serde::de::{self, DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::compose::variables::{is_name, may_be_chosen};
use crate::compose::{
    Block, FILES_MAX, FOLDER_BYTES_MAX, Files, InputType, PORTS_MAX, Plan, Protocol, SERVICES_MAX,
    VOLUMES_MAX, is_file_path,
};
use crate::permission::{PERMISSIONS_MAX, Permission};
use crate::text::{Hex, Time, Uuid, is_app_name, is_domain, is_plain, is_short_name};

/// What the signature of a package is bound to.
pub const PACKAGE_CONTEXT: &str = "comb 2026-11 v1 package signature";
/// The largest authorization, in bytes.
pub const AUTHORIZATION_BYTES_MAX: usize = 64 << 10;
/// The largest body object, in bytes.
pub const BODY_BYTES_MAX: usize = 2 << 20;
/// The largest JSON in a body, in bytes: what is read of the decompressed text.
pub const BODY_JSON_BYTES_MAX: usize = 4 << 20;
/// The clear header of a body, in bytes.
pub const BODY_HEADER_BYTES: usize = 64;
/// What the sealed part of a body is padded to, in bytes; its tag comes behind.
pub const BODY_PAGE_BYTES: usize = 4096;
/// The image that an authorization names for a service that is only built: its digest says the rest.
pub const IMAGE_BUILT: &str = "build";

const BODY_MAGIC: &[u8; 8] = b"COMBPACK";
const BODY_TAG_BYTES: usize = 16;
const FORMAT: u16 = 1;
const NUMBER_MAX: u64 = (1 << 53) - 1;
const ACTIONS_MAX: usize = 64;
const INPUTS_MAX: usize = 8;
const DEVICES_MAX: usize = 256;
const OPTIONS_MAX: usize = 128;
const SECRETS_MAX: usize = 32;
const VALUE_BYTES_MAX: usize = 4096;
const GRANT_BYTES_MAX: usize = 512;
const IMAGE_BYTES_MAX: usize = 512;

/// Why a package was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Larger than may be read at all.
    #[error("the {0} is larger than {1} bytes")]
    TooLarge(&'static str, usize),
    /// The owner did not sign these bytes.
    #[error("the owner did not sign this package")]
    Signature,
    /// The bytes of the body are others than those that were signed for.
    #[error("the body is not the one that was signed")]
    Body,
    /// No package, or one of a newer Comb.
    #[error("this is no package that this comb reads: {0}")]
    Form(String),
    /// A field whose value no writer makes.
    #[error("{0} of the package is not valid")]
    Invalid(&'static str),
    /// Another account's.
    #[error("the package is another account's")]
    Account,
    /// It may not run here.
    #[error("the package may not run on this device")]
    Device,
    /// An older revision than one that was seen.
    #[error("revision {given} of the package is older than {seen}, which was here before")]
    Old {
        /// Its own.
        given: u64,
        /// The highest that was seen.
        seen: u64,
    },
    /// Its time is over.
    #[error("the package expired at {0}")]
    Expired(Time),
    /// Authorization and configuration say different things.
    #[error("{what} of the package are not those of the compose file: {which}")]
    Differs {
        /// What kind of things.
        what: &'static str,
        /// The first that differs.
        which: String,
    },
}

/// What the owner signs: one revision of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// Always `"package"`.
    pub comb: Mark,
    /// Always 1.
    pub format: u16,
    /// Whose it is.
    pub account: Hex<16>,
    /// Which app.
    pub app: Uuid,
    /// The app's name.
    pub name: String,
    /// Grows.
    pub revision: u64,
    /// For people.
    pub version: String,
    /// The app's name in the net.
    pub domain: Option<String>,
    /// BLAKE3 of the body object.
    pub body: Hex<32>,
    /// Exactly those of the compose file.
    #[serde(deserialize_with = "list::<_, _, SERVICES_MAX>")]
    pub services: Vec<ServiceImage>,
    /// Exactly those of the compose file.
    #[serde(deserialize_with = "list::<_, _, VOLUMES_MAX>")]
    pub volumes: Vec<VolumeName>,
    /// Exactly those of the compose file.
    #[serde(deserialize_with = "list::<_, _, PORTS_MAX>")]
    pub ports: Vec<Port>,
    /// What people may ask of it.
    #[serde(deserialize_with = "list::<_, _, ACTIONS_MAX>")]
    pub actions: Vec<ActionName>,
    /// How long the gate waits for it to be well.
    pub health_seconds: u32,
    /// What was granted beyond the rules.
    #[serde(deserialize_with = "list::<_, _, PERMISSIONS_MAX>")]
    pub permissions: Vec<Permission>,
    /// Where it may run.
    pub devices: Devices,
    /// After it no device starts it anew.
    pub expires: Option<Time>,
    /// The device that signed it for the hive; none for a person with the ring.
    pub author: Option<Uuid>,
    /// When it was made.
    pub made: Time,
}

/// Says that these bytes are a package, so that no other signed JSON is taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// The only word.
    Package,
}

/// A service with its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceImage {
    /// The service.
    pub name: String,
    /// The image as the compose file names it; [`IMAGE_BUILT`] where it names none.
    pub image: String,
    /// What runs.
    pub digest: Digest,
    /// Whether it comes from a registry; else it is on the machine only.
    pub pull: bool,
}

/// `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub Hex<32>);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let digits = text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        digits.map(Self).ok_or("a digest is sha256: and 64 hexadecimal digits")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A volume of the app. Its key is made at the first start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeName {
    /// In the compose file, or of the folder that is bound.
    pub name: String,
    /// Whether it is that of the app's link.
    pub link: bool,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The service.
    pub service: String,
    /// In its containers.
    pub port: u16,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The machine's port that is wished for.
    pub wish: Option<u16>,
}

/// An action, without its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionName {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub service: String,
    /// What it asks for.
    #[serde(deserialize_with = "list::<_, _, INPUTS_MAX>")]
    pub input: Vec<InputName>,
}

/// An input of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputName {
    /// Its name.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: InputType,
}

/// Where a package may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// On each device of the account.
    All,
    /// On each that takes apps from the hive: what one of them sealed for it may run on the others as well.
    Delegated,
    /// On these.
    These(Vec<Uuid>),
}

impl Devices {
    /// Whether one of them is this device, which takes apps from the hive or not.
    pub fn include(&self, device: Uuid, is_delegated: bool) -> bool {
        match self {
            Self::All => true,
            Self::Delegated => is_delegated,
            Self::These(devices) => devices.contains(&device),
        }
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Delegated => serializer.serialize_str("delegated"),
            Self::These(devices) => devices.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Devices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"all\", \"delegated\" or a list of devices")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Devices, E> {
                match text {
                    "all" => Ok(Devices::All),
                    "delegated" => Ok(Devices::Delegated),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Devices, A::Error> {
                bounded::<_, _, DEVICES_MAX>(items).map(Devices::These)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads a list that is refused as soon as it is too long.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Vec<T>, A::Error> {
            bounded::<_, _, MAX>(items)
        }
    }
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

fn bounded<'de, A: SeqAccess<'de>, T: Deserialize<'de>, const MAX: usize>(
    mut items: A,
) -> Result<Vec<T>, A::Error> {
    let mut list = Vec::new();
    while let Some(item) = items.next_element()? {
        if list.len() == MAX {
            return Err(de::Error::custom(format_args!("a list has more than {MAX} items")));
        }
        list.push(item);
    }
    Ok(list)
}

/// What a device knows when it judges a package.
#[derive(Debug, Clone, Copy)]
pub struct Judge {
    /// The account of its ring.
    pub account: AccountId,
    /// Itself.
    pub device: Uuid,
    /// Whether a person said on it that the hive may install apps there.
    pub is_delegated: bool,
    /// The highest revision of the app that it took; 0 for none.
    pub revision_seen: u64,
    /// Its clock.
    pub now: Time,
}

impl Authorization {
    /// Checks the signature over the bytes as they came, then reads them.
    pub fn open(bytes: &[u8], signature: &[u8; 64], owner: &[u8; 32]) -> Result<Self, PackageError> {
        if bytes.len() > AUTHORIZATION_BYTES_MAX {
            return Err(PackageError::TooLarge("authorization", AUTHORIZATION_BYTES_MAX));
        }
        if !is_valid(owner, PACKAGE_CONTEXT, bytes, signature) {
            return Err(PackageError::Signature);
        }
        Self::parse(bytes)
    }

    /// Reads the bytes without believing them: for a writer that checks itself, and for showing.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        if bytes.len() > AUTHORIZATION_BYTES_MAX {
            return Err(PackageError::TooLarge("authorization", AUTHORIZATION_BYTES_MAX));
        }
        let authorization: Self =
            serde_json::from_slice(bytes).map_err(|error| PackageError::Form(shown(&error)))?;
        authorization.check()?;
        Ok(authorization)
    }

    fn check(&self) -> Result<(), PackageError> {
        let expect = |holds: bool, what| if holds { Ok(()) } else { Err(PackageError::Invalid(what)) };
        if self.format != FORMAT {
            return Err(PackageError::Form(format!("its format is {}", self.format)));
        }
        expect(is_app_name(&self.name), "name")?;
        expect((1..=NUMBER_MAX).contains(&self.revision), "revision")?;
        expect(self.version.len() <= 64 && is_plain(&self.version), "version")?;
        expect(self.domain.as_deref().is_none_or(is_domain), "domain")?;
        expect((5..=3600).contains(&self.health_seconds), "health_seconds")?;
        expect(!self.services.is_empty(), "services")?;
        let image = |image: &str| (1..=IMAGE_BYTES_MAX).contains(&image.len()) && is_plain(image);
        expect(self.services.iter().all(|one| is_key(&one.name) && image(&one.image)), "services")?;
        expect(self.services.iter().all(|one| one.image != IMAGE_BUILT || !one.pull), "services")?;
        expect(each_once(self.services.iter().map(|one| &one.name)), "services")?;
        expect(self.volumes.iter().all(|one| is_key(&one.name)), "volumes")?;
        expect(each_once(self.volumes.iter().map(|one| &one.name)), "volumes")?;
        expect(
            self.ports.iter().all(|one| is_key(&one.service) && one.port > 0 && one.wish != Some(0)),
            "ports",
        )?;
        let inputs = |inputs: &[InputName]| {
            inputs.iter().all(|one| is_short_name(&one.name)) && each_once(inputs.iter().map(|one| &one.name))
        };
        expect(
            self.actions
                .iter()
                .all(|one| is_short_name(&one.name) && is_key(&one.service) && inputs(&one.input)),
            "actions",
        )?;
        expect(each_once(self.actions.iter().map(|one| &one.name)), "actions")?;
        expect(each_once(self.permissions.iter()), "permissions")?;
        match &self.devices {
            Devices::All | Devices::Delegated => Ok(()),
            Devices::These(devices) => expect(!devices.is_empty() && each_once(devices.iter()), "devices"),
        }
    }

    /// Whether this device may start it now, as far as the clear part says.
    pub fn permits(&self, judge: &Judge) -> Result<(), PackageError> {
        if self.account.0 != judge.account.0 {
            return Err(PackageError::Account);
        }
        if self.revision < judge.revision_seen {
            return Err(PackageError::Old { given: self.revision, seen: judge.revision_seen });
        }
        if !self.devices.include(judge.device, judge.is_delegated) {
            return Err(PackageError::Device);
        }
        match self.expires.filter(|expires| *expires <= judge.now) {
            Some(expires) => Err(PackageError::Expired(expires)),
            None => Ok(()),
        }
    }

    /// Whether these are the bytes of the body that was signed for, and what its header says.
    pub fn body<'a>(&self, object: &'a [u8]) -> Result<(BodyHeader, &'a [u8], &'a [u8]), PackageError> {
        let opened = BodyHeader::split(object)?;
        if *blake3::hash(object).as_bytes() != self.body.0 {
            return Err(PackageError::Body);
        }
        if opened.0.account.0 != self.account.0 {
            return Err(PackageError::Account);
        }
        Ok(opened)
    }

    /// Whether the compose file has the services, volumes, ports and actions that were signed for, and no others.
    pub fn agrees(&self, plan: &Plan, block: &Block) -> Result<(), PackageError> {
        let services = self.services.iter().map(|one| format!("{} {}", one.name, one.image)).collect();
        let planned = plan
            .services
            .iter()
            .map(|one| format!("{} {}", one.name, one.image.as_deref().unwrap_or(IMAGE_BUILT)))
            .collect();
        same("services", services, planned)?;

        let pulls = plan.services.iter().find(|one| {
            one.build && self.services.iter().any(|signed| signed.name == one.name && signed.pull)
        });
        if let Some(one) = pulls {
            return Err(PackageError::Differs { what: "services", which: format!("{} is built", one.name) });
        }

        let volume = |name: &str, link: bool| format!("{name}{}", if link { " of the link" } else { "" });
        let volumes = self.volumes.iter().map(|one| volume(&one.name, one.link)).collect();
        same("volumes", volumes, plan.volumes.iter().map(|one| volume(&one.name, one.is_link())).collect())?;

        let port = |service: &str, port: u16, protocol: Protocol, wish: Option<u16>| match wish {
            Some(wish) => format!("{wish}:{port}/{protocol} of {service}"),
            None => format!("{port}/{protocol} of {service}"),
        };
        let ports =
            self.ports.iter().map(|one| port(&one.service, one.port, one.protocol, one.wish)).collect();
        let planned =
            plan.ports.iter().map(|one| port(&one.service, one.port, one.protocol, one.wish)).collect();
        same("ports", ports, planned)?;

        let action = |name: &str, service: &str, input: Vec<String>| {
            format!("{name}({}) in {service}", input.join(", "))
        };
        let input = |name: &str, kind: InputType| format!("{name}: {kind:?}");
        let actions = self.actions.iter().map(|one| {
            action(&one.name, &one.service, one.input.iter().map(|one| input(&one.name, one.kind)).collect())
        });
        let declared = block.actions.iter().map(|(name, one)| {
            action(name, &one.run.service, one.input.iter().map(|(name, kind)| input(name, *kind)).collect())
        });
        same("actions", actions.collect(), declared.collect())?;

        if self.health_seconds != block.health.startup_s {
            let which = format!("{} and {} seconds", self.health_seconds, block.health.startup_s);
            return Err(PackageError::Differs { what: "seconds to be well", which });
        }
        Ok(())
    }
}

/// A key of a compose file: a service or volume.
fn is_key(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_link_token(name: &str) -> bool {
    is_name(name) && name.starts_with("LINK_TOKEN_")
}

fn each_once<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

/// Whether two lists hold the same things, each as often, in whatever order.
fn same(what: &'static str, mut signed: Vec<String>, mut planned: Vec<String>) -> Result<(), PackageError> {
    signed.sort();
    planned.sort();
    let signed_only = signed.iter().find(|one| !planned.contains(one));
    let planned_only = planned.iter().find(|one| !signed.contains(one));
    match (signed_only, planned_only) {
        (Some(one), _) => {
            Err(PackageError::Differs { what, which: format!("{one} was signed, but is not there") })
        }
        (None, Some(one)) => Err(PackageError::Differs { what, which: format!("{one} was not signed") }),
        (None, None) if signed != planned => Err(PackageError::Differs {
            what,
            which: "one is there more often than it was signed".to_owned(),
        }),
        (None, None) => Ok(()),
    }
}

/// The clear part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHeader {
    /// Whose it is.
    pub account: AccountId,
    /// Makes the body's key unique.
    pub salt: [u8; 32],
}

impl BodyHeader {
    /// The header's bytes: the associated data of what is sealed.
    pub fn encode(&self) -> [u8; BODY_HEADER_BYTES] {
        let mut out = [0; BODY_HEADER_BYTES];
        out[..8].copy_from_slice(BODY_MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..32].copy_from_slice(&self.account.0);
        out[32..].copy_from_slice(&self.salt);
        out
    }

    /// Splits a body object into its header, the header's bytes, and what is sealed, with its tag.
    pub fn split(object: &[u8]) -> Result<(Self, &[u8], &[u8]), PackageError> {
        if object.len() > BODY_BYTES_MAX {
            return Err(PackageError::TooLarge("body", BODY_BYTES_MAX));
        }
        let form = |problem: &str| PackageError::Form(format!("the body {problem}"));
        let Some((header, sealed)) = object.split_at_checked(BODY_HEADER_BYTES) else {
            return Err(form("ends early"));
        };
        if header[..8] != *BODY_MAGIC {
            return Err(form("is none"));
        }
        let format = u16::from_le_bytes([header[8], header[9]]);
        if format != FORMAT {
            return Err(form(&format!("has format {format}")));
        }
        if header[10..16] != [0; 6] {
            return Err(form("has bytes where zeros belong"));
        }
        let padded =
            sealed.len().checked_sub(BODY_TAG_BYTES).filter(|len| *len > 0 && len % BODY_PAGE_BYTES == 0);
        if padded.is_none() {
            return Err(form("has a length that no writer makes"));
        }
        let account = AccountId(header[16..32].try_into().expect("the range has an account's length"));
        let salt = header[32..].try_into().expect("the range has a salt's length");
        Ok((Self { account, salt }, header, sealed))
    }
}

/// What a body holds once it is opened and decompressed. Prints nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// As in the authorization.
    pub app: Uuid,
    /// As in the authorization.
    pub revision: u64,
    /// The app's folder.
    #[serde(deserialize_with = "list::<_, _, FILES_MAX>")]
    pub files: Vec<PackedFile>,
    /// The path of the main compose file.
    pub compose: String,
    /// What people chose.
    #[serde(deserialize_with = "list::<_, _, OPTIONS_MAX>")]
    pub options: Vec<NamedValue>,
    /// What was generated.
    #[serde(deserialize_with = "list::<_, _, SECRETS_MAX>")]
    pub secrets: Vec<NamedValue>,
    /// The lines that the owner was shown for each permission.
    #[serde(deserialize_with = "list::<_, _, PERMISSIONS_MAX>")]
    pub grants: Vec<String>,
}

/// A file of the app's folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedFile {
    /// From the folder's top.
    pub path: String,
    /// Permissions of the file; nothing above them.
    pub mode: u32,
    /// What is in it.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub bytes: Vec<u8>,
}

/// A value with its name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedValue {
    /// The variable.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl fmt::Debug for PackedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackedFile")
    }
}

impl fmt::Debug for NamedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NamedValue")
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(|_| de::Error::custom("no base64"))
}

/// What is wrong with JSON that came in the clear; it may name a field, so it is made short and printable.
fn shown(error: &serde_json::Error) -> String {
    error.to_string().chars().take(200).flat_map(char::escape_debug).collect::<String>().replace("\\\"", "\"")
}

/// Reads JSON that was sealed; an error says where, and not what stands there.
fn sealed_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, PackageError> {
    serde_json::from_slice(json).map_err(|error| {
        PackageError::Form(format!(
            "the body's JSON is wrong at line {}, column {}",
            error.line(),
            error.column()
        ))
    })
}

impl Body {
    /// Reads the JSON of a body, and checks that it is the one of this authorization.
    pub fn parse(json: &[u8], authorization: &Authorization) -> Result<Self, PackageError> {
        if json.len() > BODY_JSON_BYTES_MAX {
            return Err(PackageError::TooLarge("body's JSON", BODY_JSON_BYTES_MAX));
        }
        let body: Self = sealed_json(json)?;
        if (body.app, body.revision) != (authorization.app, authorization.revision) {
            return Err(PackageError::Differs {
                what: "app and revision",
                which: "the body was sealed for others".to_owned(),
            });
        }
        body.check()?;
        Ok(body)
    }

    fn check(&self) -> Result<(), PackageError> {
        let expect = |holds: bool, what| if holds { Ok(()) } else { Err(PackageError::Invalid(what)) };
        expect(self.files.iter().all(|file| is_file_path(&file.path) && file.mode <= 0o777), "files")?;
        expect(each_once(self.files.iter().map(|file| &file.path)), "files")?;
        expect(self.files.iter().map(|file| file.bytes.len()).sum::<usize>() <= FOLDER_BYTES_MAX, "files")?;
        // A file cannot stand where another one needs a folder.
        let paths: BTreeSet<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let shadowed =
            paths.iter().any(|path| path.match_indices('/').any(|(at, _)| paths.contains(&path[..at])));
        expect(!shadowed, "files")?;
        expect(paths.contains(self.compose.as_str()), "compose")?;
        let value = |one: &NamedValue| one.name.len() <= 64 && one.value.len() <= VALUE_BYTES_MAX;
        let chosen = |one: &NamedValue| value(one) && may_be_chosen(&one.name);
        // A link's token is generated, and filled in by the device from here.
        let secret = |one: &NamedValue| chosen(one) || value(one) && is_link_token(&one.name);
        expect(self.options.iter().all(chosen), "options")?;
        expect(self.secrets.iter().all(secret), "secrets")?;
        let names = self.options.iter().chain(&self.secrets).map(|one| &one.name);
        expect(each_once(names), "options and secrets")?;
        expect(self.grants.iter().all(|line| line.len() <= GRANT_BYTES_MAX && is_plain(line)), "grants")
    }

    /// The folder, for reading the compose file.
    pub fn folder(&self) -> Files {
        self.files.iter().map(|file| (file.path.clone(), file.bytes.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use fs_format::signature::signed_digest;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const APP: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    const DEVICE: &str = "7f2504e0-4f89-41d3-9a0c-0305e82c3302";

    fn authorization() -> Value {
        json!({
            "comb": "package", "format": 1, "account": "00".repeat(16), "app": APP, "name": "photos", "revision": 3,
            "version": "1.2", "domain": "hasty-hopper-kvbt.example.org", "body": "11".repeat(32),
            "services": [{"name": "web", "image": "nginx:1", "digest": format!("sha256:{}", "22".repeat(32)), "pull": true}],
            "volumes": [{"name": "data", "link": false}],
            "ports": [{"service": "web", "port": 80, "protocol": "tcp", "wish": 8080}],
            "actions": [{"name": "add-user", "service": "web", "input": [{"name": "user", "type": "name"}]}],
            "health_seconds": 60, "permissions": ["cap:NET_ADMIN"], "devices": [DEVICE],
            "expires": "2027-01-01T00:00:00.000Z", "author": null, "made": "2026-11-22T08:30:00.000Z",
        })
    }

    fn parse(value: &Value) -> Result<Authorization, PackageError> {
        Authorization::parse(value.to_string().as_bytes())
    }

    fn owner() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn sign(bytes: &[u8]) -> [u8; 64] {
        owner().sign(&signed_digest(PACKAGE_CONTEXT, bytes)).to_bytes()
    }

    #[test]
    fn only_bytes_that_the_owner_signed_are_opened() {
        let bytes = authorization().to_string().into_bytes();
        let key = owner().verifying_key().to_bytes();
        let signature = sign(&bytes);
        Authorization::open(&bytes, &signature, &key).expect("the owner signed it");
        // The same JSON in another form is other bytes.
        let spaced = format!("{} ", authorization()).into_bytes();
        assert_eq!(Authorization::open(&spaced, &signature, &key), Err(PackageError::Signature));
        assert_eq!(Authorization::open(&bytes, &signature, &[9; 32]), Err(PackageError::Signature));
        let other = owner().sign(&signed_digest("comb 2026-11 v1 release signature", &bytes)).to_bytes();
        assert_eq!(Authorization::open(&bytes, &other, &key), Err(PackageError::Signature));
        for bit in 0..512 {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                Authorization::open(&bytes, &flipped, &key),
                Err(PackageError::Signature),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn every_field_is_needed_and_no_other_is_taken() {
        parse(&authorization()).expect("is a package");
        let whole = authorization();
        for key in whole.as_object().expect("is an object").keys() {
            let mut without = whole.clone();
            without.as_object_mut().expect("is an object").remove(key);
            let may_be_missing = ["domain", "expires", "author"].contains(&key.as_str());
            assert_eq!(parse(&without).is_ok(), may_be_missing, "without {key}");
        }
        for at in ["", "/services/0", "/volumes/0", "/ports/0", "/actions/0", "/actions/0/input/0"] {
            let mut more = whole.clone();
            let place = more.pointer_mut(at).and_then(Value::as_object_mut).expect("is an object");
            place.insert("more".to_owned(), json!(1));
            let problem = parse(&more).expect_err("has an unknown field").to_string();
            assert!(problem.contains("unknown field `more`"), "{problem}");
        }
        let twice = whole.to_string().replacen("{", "{\"comb\":\"package\",", 1);
        assert!(Authorization::parse(twice.as_bytes()).is_err());
    }

    #[test]
    fn values_that_no_writer_makes_are_refused() {
        let wrong = [
            ("/comb", json!("release")),
            ("/format", json!(2)),
            ("/account", json!("00".repeat(15))),
            ("/account", json!("AA".repeat(16))),
            ("/app", json!("3F2504E0-4F89-41D3-9A0C-0305E82C3301")),
            ("/name", json!("Photos")),
            ("/revision", json!(0)),
            ("/revision", json!(1u64 << 53)),
            ("/revision", json!(-1)),
            ("/revision", json!("3")),
            ("/version", json!("x".repeat(65))),
            ("/version", json!("a\nb")),
            ("/domain", json!("A.example.org")),
            ("/body", json!("11".repeat(31))),
            ("/services", json!([])),
            ("/services/0/name", json!("a b")),
            ("/services/0/image", json!("x".repeat(513))),
            ("/services/0/digest", json!("sha256:00")),
            ("/services/0/digest", json!(format!("sha512:{}", "22".repeat(32)))),
            ("/services/0/image", json!("build")),
            ("/volumes/0/name", json!("../x")),
            ("/volumes/0/link", json!("no")),
            ("/ports/0/port", json!(0)),
            ("/ports/0/port", json!(65_536)),
            ("/ports/0/wish", json!(0)),
            ("/ports/0/protocol", json!("sctp")),
            ("/actions/0/name", json!("-x")),
            ("/actions/0/input/0/type", json!("file")),
            ("/health_seconds", json!(4)),
            ("/health_seconds", json!(3601)),
            ("/permissions/0", json!("cap:SYS_ADMIN")),
            ("/permissions/0", json!("bind:/etc:ro")),
            ("/devices", json!("some")),
            ("/devices", json!([])),
            ("/devices", json!([DEVICE, DEVICE])),
            ("/expires", json!("tomorrow")),
            ("/author", json!("me")),
            ("/made", json!(null)),
        ];
        for (at, value) in wrong {
            let mut changed = authorization();
            *changed.pointer_mut(at).expect("is there") = value.clone();
            assert!(parse(&changed).is_err(), "{at} = {value}");
        }
    }

    #[test]
    fn lists_have_their_limits() {
        let table = [
            (
                "/services",
                64,
                json!({"name": "a", "image": "i", "digest": format!("sha256:{}", "2".repeat(64)), "pull": true}),
                "name",
            ),
            ("/volumes", 32, json!({"name": "a", "link": false}), "name"),
            ("/ports", 64, json!({"service": "web", "port": 80, "protocol": "udp", "wish": null}), ""),
            ("/actions", 64, json!({"name": "a", "service": "web", "input": []}), "name"),
            ("/actions/0/input", 8, json!({"name": "a", "type": "flag"}), "name"),
        ];
        for (at, max, item, name) in table {
            let of = |count: usize| {
                let items: Vec<Value> = (0..count)
                    .map(|number| {
                        let mut item = item.clone();
                        if !name.is_empty() {
                            item[name] = json!(format!("n{number}"));
                        }
                        item
                    })
                    .collect();
                let mut changed = authorization();
                *changed.pointer_mut(at).expect("is there") = json!(items);
                parse(&changed)
            };
            assert!(of(max).is_ok(), "{at} takes {max}");
            assert!(of(max + 1).expect_err("too many").to_string().contains("more than"), "{at}");
        }
        let large = vec![b' '; AUTHORIZATION_BYTES_MAX + 1];
        assert_eq!(
            Authorization::parse(&large),
            Err(PackageError::TooLarge("authorization", AUTHORIZATION_BYTES_MAX))
        );
    }

    #[test]
    fn a_device_starts_only_what_is_meant_for_it_and_now() {
        let package = parse(&authorization()).expect("is a package");
        let judge = Judge {
            account: AccountId([0; 16]),
            device: DEVICE.parse().expect("is a uuid"),
            is_delegated: false,
            revision_seen: 3,
            now: "2026-12-31T23:59:59.999Z".parse().expect("is a time"),
        };
        assert_eq!(package.permits(&judge), Ok(()));
        let refused = [
            (Judge { account: AccountId([1; 16]), ..judge }, PackageError::Account),
            (Judge { device: APP.parse().expect("is a uuid"), ..judge }, PackageError::Device),
            (Judge { revision_seen: 4, ..judge }, PackageError::Old { given: 3, seen: 4 }),
            (
                Judge { now: package.expires.expect("it expires"), ..judge },
                PackageError::Expired(package.expires.expect("it expires")),
            ),
        ];
        for (judge, expected) in refused {
            assert_eq!(package.permits(&judge), Err(expected));
        }
        let everywhere = Authorization { devices: Devices::All, expires: None, ..package };
        assert_eq!(everywhere.permits(&Judge { device: APP.parse().expect("is a uuid"), ..judge }), Ok(()));
        let delegated = Authorization { devices: Devices::Delegated, ..everywhere };
        assert_eq!(delegated.permits(&judge), Err(PackageError::Device));
        assert_eq!(delegated.permits(&Judge { is_delegated: true, ..judge }), Ok(()));
    }

    fn object(sealed: usize) -> Vec<u8> {
        let header = BodyHeader { account: AccountId([0; 16]), salt: [5; 32] };
        [header.encode().as_slice(), &vec![9; sealed]].concat()
    }

    #[test]
    fn a_body_is_the_one_that_was_signed_for() {
        let whole = object(4096 + 16);
        let mut value = authorization();
        value["body"] = json!(blake3::hash(&whole).to_hex().as_str());
        let package = parse(&value).expect("is a package");
        let (header, associated, sealed) = package.body(&whole).expect("is its body");
        assert_eq!((header.salt, associated.len(), sealed.len()), ([5; 32], 64, 4112));
        assert_eq!(package.body(&object(8192 + 16)), Err(PackageError::Body));
        for at in 0..16 {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(matches!(package.body(&changed), Err(PackageError::Form(_))), "byte {at}");
        }
        for sealed in [0, 15, 16, 4096, 4111, 4113] {
            assert!(matches!(BodyHeader::split(&object(sealed)), Err(PackageError::Form(_))), "{sealed}");
        }
        let large = object(BODY_BYTES_MAX);
        assert_eq!(BodyHeader::split(&large), Err(PackageError::TooLarge("body", BODY_BYTES_MAX)));
    }

    fn body() -> Value {
        json!({
            "app": APP, "revision": 3, "compose": "compose.yaml",
            "files": [{"path": "compose.yaml", "mode": 0o644, "bytes": "eDogMQo="}, {"path": "conf/a", "mode": 0o600, "bytes": ""}],
            "options": [{"name": "title", "value": "secret-value"}], "secrets": [{"name": "LINK_TOKEN_DEFAULT", "value": "t"}, {"name": "db_password", "value": "p"}], "grants": ["NET_ADMIN lets it change its own network"],
        })
    }

    #[test]
    fn a_body_says_nothing_of_itself_in_errors() {
        let package = parse(&authorization()).expect("is a package");
        let opened = Body::parse(body().to_string().as_bytes(), &package).expect("is its body");
        assert_eq!(opened.folder()["compose.yaml"], b"x: 1\n");
        assert_eq!(
            format!("{opened:?} {:?} {:?}", opened.files[0], opened.options[0]),
            "Body PackedFile NamedValue"
        );

        let wrong = [
            ("/app", json!(DEVICE)),
            ("/revision", json!(4)),
            ("/compose", json!("secret-value.yaml")),
            ("/files/0/path", json!("../secret-value")),
            ("/files/0/path", json!("/secret-value")),
            ("/files/0/path", json!("a//secret-value")),
            ("/files/0/path", json!("conf")),
            ("/files/0/path", json!("conf/a")),
            ("/files/0/mode", json!(0o4755)),
            ("/files/0/bytes", json!("secret-value")),
            ("/options/0/name", json!("secret-value")),
            ("/options/0/name", json!("LD_PRELOAD")),
            ("/options/0/name", json!("APP_VOLUME_NAME")),
            ("/secrets", json!([{"name": "title", "value": "twice"}])),
            ("/secrets", json!([{"name": "DOCKER_HOST", "value": "secret-value"}])),
            ("/options/0/value", json!("secret-value".repeat(400))),
            ("/options/0/value", json!(["secret-value"])),
            ("/grants/0", json!("secret-value\n")),
            ("/secrets", json!("secret-value")),
        ];
        for (at, value) in wrong {
            let mut changed = body();
            *changed.pointer_mut(at).expect("is there") = value;
            let problem =
                Body::parse(changed.to_string().as_bytes(), &package).expect_err("is refused").to_string();
            assert!(!problem.contains("secret-value"), "{at}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Authorization::parse(&bytes);
            let _ = BodyHeader::split(&bytes);
            let _ = sealed_json::<Body>(&bytes);
        }

        #[test]
        fn a_changed_package_is_read_or_refused(at in 0usize..1200, byte in any::<u8>()) {
            let mut bytes = authorization().to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Authorization::parse(&bytes);
        }
    }
}
