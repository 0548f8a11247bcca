//! Buckets: S3 and what speaks like it, Google Cloud Storage, Azure.
//!
//! The requests are `object_store`'s, with retries and redirects off; what an answer means is decided here.
//!
//! Invariants
//! - A create carries the condition that there is none of that name; no other request writes.
//! - *Exists* and *absent* are said only when the store said so in words of its own: a page of some proxy, or a
//!   bucket that is not there, is neither.
//! - No error tells a key, a signature or a query.

use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};

use crate::http::{Answer, Connector, Failure, NoInstanceCredentials, client_options};
use crate::memory::{not_empty, reaches, within};
use crate::surroundings::{Surroundings, first, in_words};
use crate::url::{Place, Url};
use crate::{Abilities, Entry, Kind, Name, Prefix, Store, StoreError, aws};

/// The most names in one answer of a listing; S3 gives no more.
const PAGE_NAMES_MAX: usize = 1_000;

/// A store in a bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    inside: Arc<dyn Objects>,
    /// What stands before each name.
    prefix: String,
    /// How a person named it, for errors.
    url: Url,
    /// What to say when an instance's credentials could not be had.
    looked_at: String,
}

trait Objects: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Objects for T {}

impl Bucket {
    /// The bucket of a URL of such a kind. Asks nobody yet.
    pub(crate) fn open(url: &Url, around: &Surroundings) -> Result<Bucket, StoreError> {
        let denied = |why: String| StoreError::new(Kind::Denied, "open", url, why);
        let refused = |error: object_store::Error| StoreError::new(Kind::Refused, "open", url, error);
        let looked_at;
        let (inside, prefix): (Arc<dyn Objects>, _) = match &url.0 {
            Place::S3 { bucket, prefix, endpoint, region } => {
                let found = aws::find(around, url).map_err(denied)?;
                looked_at = found.looked_at.clone();
                let s3 = s3(bucket, endpoint.as_deref(), region.as_deref(), found);
                (Arc::new(s3.build().map_err(refused)?), prefix)
            }
            Place::Gcs { bucket, prefix, endpoint } => {
                let files = google_files(around, url);
                // What somebody named must be there.
                let named =
                    || files.last().filter(|_| around.variable("GOOGLE_APPLICATION_CREDENTIALS").is_some());
                let mut gcs = GoogleCloudStorageBuilder::new()
                    .with_bucket_name(bucket)
                    .with_client_options(client_options())
                    .with_retry(no_retries())
                    .with_http_connector(Connector);
                if let Some(endpoint) = endpoint {
                    gcs = gcs.with_base_url(endpoint);
                }
                if let Some(known) = first(&files).or_else(named) {
                    gcs = gcs.with_application_credentials(known.display().to_string());
                }
                looked_at =
                    format!("GOOGLE_APPLICATION_CREDENTIALS in the environment; {}", in_words(&files));
                (Arc::new(gcs.build().map_err(refused)?), prefix)
            }
            Place::Azure { container, prefix, account, endpoint } => {
                looked_at = AZURE_PLACES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                let Some(account) = account.as_deref().or(around.variable("AZURE_STORAGE_ACCOUNT")) else {
                    let hint = "no account: add ?account=NAME to the URL, or set AZURE_STORAGE_ACCOUNT";
                    return Err(StoreError::new(Kind::Refused, "open", url, hint));
                };
                let mut azure = MicrosoftAzureBuilder::new()
                    .with_container_name(container)
                    .with_account(account)
                    .with_client_options(client_options())
                    .with_retry(no_retries())
                    .with_http_connector(Connector);
                if let Some(endpoint) = endpoint {
                    azure = azure.with_endpoint(endpoint.clone());
                }
                for (name, key) in AZURE_PLACES {
                    if let Some(value) = around.variable(name) {
                        azure = azure.with_config(*key, value);
                    }
                }
                (Arc::new(azure.build().map_err(refused)?), prefix)
            }
            Place::Folder(_) | Place::WebDav(_) | Place::Memory(_) | Place::Ipfs { .. } => {
                return Err(StoreError::new(Kind::Refused, "open", url, "this is no bucket"));
            }
        };
        Ok(Bucket { inside, prefix: prefix.clone(), url: url.clone(), looked_at })
    }

    fn path(&self, action: &'static str, name: &Name) -> Result<Path, StoreError> {
        // Letters of a name and of a prefix are among those that it takes as they are.
        Path::parse(format!("{}{name}", self.prefix))
            .map_err(|error| self.error(Kind::Refused, action, name, error))
    }

    fn error(
        &self,
        kind: Kind,
        action: &'static str,
        object: impl std::fmt::Display,
        detail: impl ToString,
    ) -> StoreError {
        let object = object.to_string();
        let object = if object.is_empty() { "everything" } else { object.as_str() };
        StoreError::new(kind, action, format_args!("{object} in {}", self.url), detail)
    }

    /// What a failed request means.
    fn failed(
        &self,
        request: Request,
        object: impl std::fmt::Display,
        error: object_store::Error,
    ) -> StoreError {
        let action = request.action();
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(one) = cause {
            if let Some(NoInstanceCredentials(failure)) = one.downcast_ref() {
                let detail = format!(
                    "no credentials: looked at {}; and the service for machines in a cloud said: {failure}. {}",
                    self.looked_at,
                    if matches!(self.url.0, Place::S3 { .. }) { aws::HINT } else { "Set one of them" },
                );
                return self.error(Kind::Denied, action, object, detail);
            }
            match one.downcast_ref() {
                Some(Failure::Answer(answer)) => {
                    let (kind, hint) = meaning(request, answer);
                    if matches!(kind, Kind::Absent | Kind::Exists) {
                        return self.error(kind, action, object, "");
                    }
                    let detail =
                        if hint.is_empty() { answer.to_string() } else { format!("{hint} ({answer})") };
                    return self.error(kind, action, object, detail);
                }
                Some(Failure::Lost(why)) => return self.error(Kind::Unreachable, action, object, why),
                Some(failure @ Failure::Untrusted(_)) => {
                    return self.error(Kind::Refused, action, object, failure);
                }
                Some(Failure::TooLarge) => {
                    return self.error(Kind::Damaged, action, object, Failure::TooLarge);
                }
                None => cause = one.source(),
            }
        }
        // An answer that is none of the kind: nobody knows what was done.
        let (kind, hint) = match request {
            Request::Get => (Kind::Damaged, ""),
            Request::List => (Kind::Refused, "this is no listing of a bucket; is the endpoint right? "),
            Request::Create | Request::Remove => (Kind::Unreachable, "this is no answer of a bucket: "),
        };
        // What it says may hold a URL with a signature.
        let mut last: &dyn Error = &error;
        while let Some(source) = last.source() {
            last = source;
        }
        self.error(kind, action, object, format_args!("{hint}{last}"))
    }
}

/// Files that may have the credentials of Google, of which the first that is there counts.
pub(crate) fn google_files(around: &Surroundings, url: &Url) -> Vec<PathBuf> {
    let known = ".config/gcloud/application_default_credentials.json";
    around.files(url, around.file("GOOGLE_APPLICATION_CREDENTIALS", known))
}

/// Variables that hold credentials of Azure, as its tools read them.
const AZURE_PLACES: &[(&str, AzureConfigKey)] = &[
    ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
];

fn s3(bucket: &str, endpoint: Option<&str>, region: Option<&str>, found: aws::Aws) -> AmazonS3Builder {
    let region = region.map(str::to_owned).or(found.region).unwrap_or_else(|| "us-east-1".to_owned());
    let mut s3 = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // One object by a plain DELETE, which every such store knows.
        .with_disable_bulk_delete(true)
        .with_client_options(client_options())
        .with_retry(no_retries())
        .with_http_connector(Connector);
    s3 = match endpoint {
        // Others than AWS have the bucket in the path; some have no names for buckets at all.
        Some(endpoint) => s3.with_endpoint(endpoint),
        // A certificate covers one name before the dot.
        None => s3.with_virtual_hosted_style_request(!bucket.contains('.')),
    };
    match found.source {
        aws::Source::Keys(keys) => {
            s3 = s3.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
            if let Some(token) = keys.token {
                s3 = s3.with_token(token);
            }
        }
        aws::Source::Service(variables) => {
            for (name, value) in variables {
                let key: AmazonS3ConfigKey =
                    name.to_lowercase().parse().expect("each variable of a service has a key of its name");
                s3 = s3.with_config(key, value);
            }
        }
        aws::Source::Instance { endpoint: Some(endpoint) } => s3 = s3.with_metadata_endpoint(endpoint),
        aws::Source::Instance { endpoint: None } => {}
    }
    s3
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

#[async_trait]
impl Store for Bucket {
    fn abilities(&self) -> Abilities {
        Abilities { create_if_absent: true }
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path("create", name)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let created = self.inside.put_opts(&path, PutPayload::from_bytes(bytes), options).await;
        created.map(|_| ()).map_err(|error| self.failed(Request::Create, name, error))
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        let path = self.path("get", name)?;
        let failed = |error| self.failed(Request::Get, name, error);
        let found = self.inside.get_opts(&path, GetOptions::default()).await.map_err(failed)?;
        let size = found.meta.size;
        within(name, size, limit)?;
        let bytes = found.bytes().await.map_err(failed)?;
        self.complete(name, bytes, size)
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        not_empty(name, &range)?;
        let path = self.path("get", name)?;
        let failed = |error| self.failed(Request::Get, name, error);
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        // Some answer a range past the end with the bytes there are; `object_store` then says so.
        let found = self.inside.get_opts(&path, options).await.map_err(failed)?;
        reaches(name, found.meta.size, &range)?;
        let bytes = found.bytes().await.map_err(failed)?;
        self.complete(name, bytes, range.end - range.start)
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut found: Vec<Entry> = Vec::new();
        if after.is_some_and(|after| after.as_str() > prefix.as_str() && !prefix.holds(after)) {
            return Ok(found);
        }
        let below = format!("{}{prefix}", self.prefix);
        let below = Some(below.as_str()).filter(|below| !below.is_empty());
        let mut offset =
            after.filter(|after| prefix.holds(after)).map(|after| format!("{}{after}", self.prefix));
        let mut page_token = None;
        while found.len() < limit {
            let max_keys = Some((limit - found.len()).min(PAGE_NAMES_MAX));
            let options =
                PaginatedListOptions { offset: offset.take(), max_keys, page_token, ..Default::default() };
            let page = self.inside.list_paginated(below, options).await;
            let page = page.map_err(|error| self.failed(Request::List, prefix, error))?;
            for object in page.result.objects {
                let name = object.location.as_ref().strip_prefix(&self.prefix).map(Name::new);
                // What is no name is somebody else's. Azure cannot begin after a name.
                let Some(Ok(name)) = name else { continue };
                if !prefix.holds(&name) || after.is_some_and(|after| name <= *after) {
                    continue;
                }
                if found.last().is_some_and(|last| last.name >= name) {
                    let what = format_args!("{name} is listed out of order");
                    return Err(self.error(Kind::Damaged, "list", prefix, what));
                }
                found.push(Entry { name, size: object.size });
            }
            page_token = page.page_token;
            if page_token.is_none() {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        let path = self.path("remove", name)?;
        match self.inside.delete(&path).await.map_err(|error| self.failed(Request::Remove, name, error)) {
            Err(error) if error.kind() == Kind::Absent => Ok(()),
            other => other,
        }
    }
}

impl Bucket {
    /// What was announced must have come.
    fn complete(&self, name: &Name, bytes: Bytes, size: u64) -> Result<Bytes, StoreError> {
        if bytes.len() as u64 == size {
            return Ok(bytes);
        }
        let what = format_args!("{} bytes came of {size}", bytes.len());
        Err(self.error(Kind::Damaged, "get", name, what))
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Create,
    Get,
    List,
    Remove,
}

impl Request {
    fn action(self) -> &'static str {
        match self {
            Request::Create => "create",
            Request::Get => "get",
            Request::List => "list",
            Request::Remove => "remove",
        }
    }
}

/// What an answer means, and what a person may do about it.
fn meaning(request: Request, answer: &Answer) -> (Kind, &'static str) {
    const BUCKET: &str = "there is no such bucket: make it, or name another in the URL";
    const REGION: &str = "the bucket lies in another region: add ?region=… to the URL";
    const KEY: &str = "check the key and its secret";
    const RIGHTS: &str = "the key needs leave to read, write, list and delete in this bucket";
    const AGAIN: &str = "";
    let creating = request == Request::Create;
    // Codes say more than a status, and some come with several.
    match answer.code.as_str() {
        "NoSuchBucket" | "ContainerNotFound" => return (Kind::Refused, BUCKET),
        // The last two are versitygw's, with a 404, and Google's for a key that was withdrawn.
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "AuthenticationFailed"
        | "XAdminUserNotFound"
        | "invalid_grant" => {
            return (Kind::Denied, KEY);
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            return (Kind::Denied, "the credentials are no longer valid: get new ones");
        }
        "RequestTimeTooSkewed" => return (Kind::Denied, "the clock of this machine is wrong: set it"),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" => return (Kind::Refused, REGION),
        "SlowDown" | "SlowDownRead" | "SlowDownWrite" | "ServerBusy" | "TooManyRequests" => {
            return (Kind::Busy, AGAIN);
        }
        // Torn on the way to the store.
        "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch" | "Md5Mismatch" => {
            return (Kind::Unreachable, AGAIN);
        }
        "XMinioStorageFull" | "InsufficientCapacity" | "QuotaExceeded" => {
            return (Kind::Unreachable, "the store is full");
        }
        "BlobAlreadyExists" if creating => return (Kind::Exists, ""),
        "NoSuchKey" | "BlobNotFound" if !creating => return (Kind::Absent, ""),
        _ => {}
    }
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (Kind::Denied, RIGHTS),
        StatusCode::NOT_FOUND => (Kind::Refused, "what answers here is no bucket; is the endpoint right?"),
        StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED if creating => (Kind::Exists, ""),
        // Somebody else creates it right now: who wins is not decided, and nothing was done.
        StatusCode::CONFLICT if creating => (Kind::Busy, AGAIN),
        StatusCode::CONFLICT => (Kind::Unreachable, AGAIN),
        StatusCode::RANGE_NOT_SATISFIABLE => (Kind::Damaged, "the object is shorter"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => (Kind::Busy, AGAIN),
        StatusCode::REQUEST_TIMEOUT => (Kind::Unreachable, AGAIN),
        StatusCode::INSUFFICIENT_STORAGE => (Kind::Unreachable, "the store is full"),
        StatusCode::NOT_IMPLEMENTED if creating => {
            (Kind::Refused, "this store may not know If-None-Match, without which it holds copies only")
        }
        StatusCode::NOT_IMPLEMENTED => (Kind::Refused, ""),
        status if status.is_redirection() => (Kind::Refused, REGION),
        status if status.is_server_error() => (Kind::Unreachable, AGAIN),
        _ => (Kind::Refused, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, code: code.to_owned(), message: String::new(), to: None }
    }

    #[test]
    fn what_an_answer_means_is_decided_here() {
        use Request::*;
        for (request, status, code, kind) in [
            (Create, 412, "PreconditionFailed", Kind::Exists),
            (Create, 304, "", Kind::Exists),
            (Create, 409, "BlobAlreadyExists", Kind::Exists),
            (Create, 409, "ConditionalRequestConflict", Kind::Busy),
            // Whatever it means, nobody said that the object is there.
            (Create, 409, "", Kind::Busy),
            (Create, 404, "NoSuchKey", Kind::Refused),
            (Create, 501, "NotImplemented", Kind::Refused),
            (Get, 404, "NoSuchKey", Kind::Absent),
            (Get, 404, "BlobNotFound", Kind::Absent),
            (Remove, 404, "NoSuchKey", Kind::Absent),
            // A page of a proxy, and a bucket that is gone, are no absent objects.
            (Get, 404, "", Kind::Refused),
            (Get, 404, "NoSuchBucket", Kind::Refused),
            (List, 404, "ContainerNotFound", Kind::Refused),
            (Get, 412, "", Kind::Refused),
            (Get, 416, "InvalidRange", Kind::Damaged),
            (Get, 403, "AccessDenied", Kind::Denied),
            (Get, 401, "", Kind::Denied),
            (Get, 404, "XAdminUserNotFound", Kind::Denied),
            (Create, 400, "invalid_grant", Kind::Denied),
            (List, 403, "SignatureDoesNotMatch", Kind::Denied),
            (Create, 400, "ExpiredToken", Kind::Denied),
            (Create, 403, "RequestTimeTooSkewed", Kind::Denied),
            (Create, 400, "BadDigest", Kind::Unreachable),
            (Create, 400, "RequestTimeout", Kind::Unreachable),
            (Create, 400, "InvalidArgument", Kind::Refused),
            (Create, 413, "EntityTooLarge", Kind::Refused),
            (List, 301, "PermanentRedirect", Kind::Refused),
            (List, 307, "", Kind::Refused),
            (Create, 503, "SlowDown", Kind::Busy),
            (Create, 200, "SlowDown", Kind::Busy),
            (Get, 503, "", Kind::Busy),
            (Get, 429, "", Kind::Busy),
            (Create, 500, "InternalError", Kind::Unreachable),
            (Create, 507, "XMinioStorageFull", Kind::Unreachable),
            (Create, 507, "", Kind::Unreachable),
            (Get, 502, "", Kind::Unreachable),
            (Get, 408, "", Kind::Unreachable),
            (Remove, 409, "", Kind::Unreachable),
        ] {
            assert_eq!(meaning(request, &answer(status, code)).0, kind, "{request:?} {status} {code}");
        }
    }
}
