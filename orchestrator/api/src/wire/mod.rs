//! The JSON of `api.md`: a type for each thing that devices, hive and people send each other.
//!
//! Limits stand in the types and are checked while reading, before anything is made of what came. Whether a field that
//! nobody knows is a mistake depends on the direction: [`request`] refuses it and names it, [`answer`] ignores it.
//!
//! - `value`     texts, numbers and lists with their limits
//! - `people`    logins, invitations, tokens
//! - `account`   the hive itself, rings, stores, codes, releases, packages
//! - `device`    join and hello; devices as people see them
//! - `report`    how a device is, and what it is answered
//! - `command`   what is asked of a device, and its results
//! - `app`       apps, and what people order of them
//! - `operation` what the hive does in steps; events

pub mod account;
pub mod app;
pub mod command;
pub mod device;
pub mod operation;
pub mod people;
pub mod report;
pub mod value;

use serde::de::DeserializeOwned;

use crate::error::{ApiError, Code};

/// The header that makes an order repeatable.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// The header of an answer to a device.
pub const HIVE_HEADER: &str = "comb-hive";
/// The header of a join.
pub const JOIN_HEADER: &str = "comb-join";
/// The port of a hive, if nothing is said.
pub const PORT: u16 = 8420;
/// The version of these types in paths.
pub const API: u64 = 1;
/// What a device of this version can be asked for beside what all can.
pub const FEATURES: [&str; 4] = ["move", "auto", "update", "author"];

/// The largest request without a limit of its own, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// The largest report, in bytes.
pub const REPORT_BYTES_MAX: usize = 256 << 10;
/// The largest request with a package, in bytes.
pub const PACKAGE_REQUEST_BYTES_MAX: usize = 4 << 20;
/// The largest request that asks a device to author, in bytes.
pub const AUTHOR_REQUEST_BYTES_MAX: usize = 2 << 20;
/// The largest object of a ring, in bytes.
pub const RING_BYTES_MAX: usize = (1 << 20) + 240;
/// The largest part of a stream, in bytes.
pub const PART_BYTES_MAX: usize = 64 << 10;

/// Reads a request: a field that nobody knows is refused, and named.
pub fn request<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Box<ApiError>> {
    let mut unknown = None;
    let read = read(bytes, |path| {
        unknown.get_or_insert(path);
    });
    match unknown {
        // What is missing beside it is most often the same mistake.
        Some(field) => Err(Box::new(ApiError {
            hint: Some("the field may be misspelt, or the hive older than what asks it".to_owned()),
            field: Some(field.clone()),
            ..ApiError::new(Code::UnknownField, format!("there is no field \"{field}\" in this request"))
        })),
        None => read,
    }
}

/// Reads an answer: what a newer hive or device says beside is not understood, and does no harm.
pub fn answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Box<ApiError>> {
    read(bytes, |_| {})
}

fn read<T: DeserializeOwned>(bytes: &[u8], mut unknown: impl FnMut(String)) -> Result<T, Box<ApiError>> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| {
        let mut at = String::new();
        place(&path, &mut at);
        unknown(shown(&at));
    });
    let read = read.and_then(|read: T| json.end().map(|()| read));
    read.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            let field = shown(&track.path().to_string());
            let reason = plain(&error);
            let message = match field.as_str() {
                "" | "." => format!("the request {reason}"),
                field => format!("\"{field}\": {reason}"),
            };
            let field = Some(field).filter(|field| !matches!(field.as_str(), "" | "."));
            Box::new(ApiError { field, ..ApiError::new(Code::BadRequest, message) })
        }
        _ => Box::new(ApiError::new(
            Code::BadJson,
            format!("this is no JSON, at line {}, column {}", error.line(), error.column()),
        )),
    })
}

/// A path as the other errors write it: `apps[0].term`.
fn place(path: &serde_ignored::Path<'_>, out: &mut String) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            place(parent, out);
            out.push_str(&format!("[{index}]"));
        }
        Path::Map { parent, key } => {
            place(parent, out);
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(key);
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            place(parent, out);
        }
    }
}

/// A path of keys: of what came, so it is cut, and shows no control characters.
fn shown(path: &str) -> String {
    path.chars().filter(|one| !one.is_control()).take(128).collect()
}

/// An error's sentence without its place; values in it are cut too.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    shown(text)
}

/// The largest number that travels, again for those who write requests.
pub use crate::ids::NUMBER_MAX;

#[cfg(test)]
mod tests;
