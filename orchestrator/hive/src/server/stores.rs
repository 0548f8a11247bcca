//! Stores, device codes, rings, packages, releases: what an account keeps in the hive.

use fs_format::ring::open_ring;
use fs_format::signature::is_valid;
use orchestrator_api::code::{JoinCode, Secret};
use orchestrator_api::error::Code;
use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::package::Authorization;
use orchestrator_api::proof::{self, RING_CONTEXT};
use orchestrator_api::release::Release;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::account::{
    Made, MakeDeviceCode, MakeRelease, MakeStore, NewDeviceCode, OpenDeviceCode, Package, PackageName,
    ReleaseInfo, RingVersion, Store,
};
use orchestrator_api::wire::value::{Base64, Hidden, Number, Page};

use super::call::{Call, Reply};
use super::chance;
use super::database::Row;
use super::devices::arch_text;
use super::fail::Fail;
use super::tenant::{About, Tenant, uuid};

const CODES_MAX: u64 = 10;
const CODE_MS: i64 = 15 * 60_000;
const PACKAGES_KEPT: i64 = 20;
const RELEASES_MAX: i64 = 5;
const STORES_MAX: u64 = 64;
/// By how much a version may be ahead of the newest one here: of a machine that changed it while the hive was away.
const RINGS_AHEAD_MAX: u64 = 1_000;

fn count(tenant: &mut Tenant<'_>, sql: &str) -> Result<u64, Fail> {
    Ok(tenant.one(sql, &[])?.map(|row| row.count(0)).transpose()?.unwrap_or(0))
}

/// Whether devices can use a store of this address, and whether it can say who writes.
fn check_url(url: &str) -> Result<(), Fail> {
    let refused = |text: &str| Fail::new(Code::StoreKind, text.to_owned());
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Fail::field(
            "url",
            "the address of a store is like s3://BUCKET/PREFIX or file:///FOLDER",
        ));
    };
    if rest.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@')) {
        return Err(Fail::field("url", "the address holds credentials; those belong into the ring")
            .hint("`comb key ring store URL --credentials-file F` puts them there"));
    }
    match scheme {
        "s3" | "gs" | "https" | "http" | "file" | "ipfs" => Ok(()),
        "az" => {
            Err(refused("az:// takes its credentials from the environment only, which no device gives it"))
        }
        _ => {
            Err(refused("there is no kind of store of that name")
                .hint("s3, gs, https, file and ipfs are known"))
        }
    }
}

/// Whether a store can say who writes a volume.
pub fn arbitrates(url: &str) -> bool {
    matches!(url.split_once("://"), Some(("s3" | "gs" | "file", _)))
}

/// Registers a store; the one that is there if it is.
pub fn insert(
    tenant: &mut Tenant<'_>,
    url: &str,
    shared: bool,
    device: Option<DeviceId>,
) -> Result<Uuid, Fail> {
    check_url(url)?;
    let sql = "SELECT store FROM store WHERE account = $1 AND url = $2";
    if let Some(row) = tenant.one(sql, &[url.into()])? {
        return Ok(uuid(&row, 0)?);
    }
    if count(tenant, "SELECT count(*) FROM store WHERE account = $1")? >= STORES_MAX {
        return Err(Fail::state("the account has 64 stores").hint("remove one that no app uses"));
    }
    let id = chance::uuid();
    tenant.execute(
        "INSERT INTO store (account, store, url, shared, device) VALUES ($1, $2, $3, $4, $5)",
        &[id.0.into(), url.into(), shared.into(), device.map(|id| id.0).into()],
    )?;
    tenant.event("store", About::default().with("store", id.to_string()).with("url", url));
    tenant.changed("store", id);
    Ok(id)
}

/// `POST /v1/stores`.
pub fn make(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: MakeStore = call.read()?;
    if let Some(device) = wish.device {
        super::devices::row(tenant, device)?;
    }
    if wish.device.is_some() && (wish.shared || !wish.url.as_str().starts_with("file://")) {
        return Err(Fail::field("device", "only a folder that is not shared is on one device"));
    }
    let id = insert(tenant, wish.url.as_str(), wish.shared, wish.device)?;
    Ok(Reply::json(&Made { id }))
}

/// `GET /v1/stores`.
pub fn list(_: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let mut items = Vec::new();
    for row in
        tenant.query("SELECT store, url, shared, device FROM store WHERE account = $1 ORDER BY url", &[])?
    {
        items.push(Store {
            id: uuid(&row, 0)?,
            url: row.text(1)?.to_owned(),
            shared: row.flag(2)?,
            device: row.maybe(3, Row::id::<16>)?.map(DeviceId),
        });
    }
    Ok(Reply::json(&Page { items, next: None }))
}

/// `DELETE /v1/stores/{id}`.
pub fn remove(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: Uuid = call.param(0)?;
    let used = format!("%{id}%");
    if tenant.one("SELECT 1 FROM app WHERE account = $1 AND stores LIKE $2", &[used.into()])?.is_some() {
        return Err(Fail::state("an app uses this store"));
    }
    let row = tenant.one("SELECT url FROM store WHERE account = $1 AND store = $2", &[id.0.into()])?;
    let url = row.ok_or_else(Fail::not_found)?.text(0)?.to_owned();
    tenant.execute("DELETE FROM store WHERE account = $1 AND store = $2", &[id.0.into()])?;
    tenant.event("store_gone", About::default().with("store", id.to_string()).with("url", url));
    tenant.changed("store", id);
    Ok(Reply::none())
}

/// `POST /v1/device-codes`.
pub fn make_code(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: MakeDeviceCode = call.read()?;
    let now = chance::now();
    tenant
        .execute("DELETE FROM device_code WHERE account = $1 AND ends <= $2", &[(now - 86_400_000).into()])?;
    let sql = "SELECT count(*) FROM device_code WHERE account = $1 AND used_by IS NULL AND ends > $2";
    let open = tenant.one(sql, &[now.into()])?.map(|row| row.count(0)).transpose()?.unwrap_or(0);
    if open >= CODES_MAX {
        return Err(
            Fail::state("there are 10 open codes").hint("remove some of them, or wait a quarter of an hour")
        );
    }
    let code = JoinCode::new(call.shared.public(), Secret::new(chance::bytes()));
    let ends = now + CODE_MS;
    tenant.execute(
        "INSERT INTO device_code (code_id, account, join_key, name, auto_update, ends, used_by) \
         VALUES ($2, $1, $3, $4, $5, $6, NULL)",
        &[
            code.id().0.into(),
            code.key().0.into(),
            wish.name.as_ref().map(|name| name.as_str()).into(),
            wish.auto_update.into(),
            ends.into(),
        ],
    )?;
    let name = wish.name.as_ref().map(|name| name.as_str().to_owned());
    tenant.event("code_made", About::default().with("code", code.id().to_string()).with("name", name));
    let hidden = |text: String| Hidden::new(text).map_err(|_| Fail::start("a code is too long"));
    Ok(Reply::json(&NewDeviceCode {
        id: code.id(),
        code: hidden(code.show())?,
        ends: chance::time(ends),
        // How the hive is reached is known to who asked for the code, and put in there.
        command: hidden(code.join_command("HIVE"))?,
        docker: hidden(code.docker_command("HIVE"))?,
    })
    .once())
}

/// `GET /v1/device-codes`.
pub fn codes(_: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let sql = "SELECT code_id, name, auto_update, ends FROM device_code WHERE account = $1 AND used_by IS NULL \
         AND ends > $2 ORDER BY ends";
    let mut items = Vec::new();
    for row in tenant.query(sql, &[chance::now().into()])? {
        items.push(OpenDeviceCode {
            id: Hex(row.id(0)?),
            name: row.maybe(1, Row::text)?.map(str::to_owned),
            auto_update: row.flag(2)?,
            ends: chance::time(row.int(3)?),
        });
    }
    Ok(Reply::json(&Page { items, next: None }))
}

/// `DELETE /v1/device-codes/{id}`.
pub fn uncode(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: Hex<8> = call.param(0)?;
    let sql = "SELECT used_by FROM device_code WHERE account = $1 AND code_id = $2";
    let row = tenant.one(sql, &[id.0.into()])?.ok_or_else(Fail::not_found)?;
    // Its row tells who made it that its device came.
    if row.maybe(0, Row::id::<16>)?.is_some() {
        return Err(Fail::state("a device joined with this code already")
            .hint("See it under Devices; if it is not yours, revoke it there."));
    }
    tenant.execute("DELETE FROM device_code WHERE account = $1 AND code_id = $2", &[id.0.into()])?;
    tenant.event("code_gone", About::default().with("code", id.to_string()));
    Ok(Reply::none())
}

/// `GET /v1/ring`.
pub fn rings(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let before = call.number("after")?.unwrap_or(i64::MAX as u64);
    let limit = call.limit()?.min(100);
    let sql = "SELECT number, object, made FROM ring WHERE account = $1 AND number < $2 ORDER BY number DESC \
         LIMIT $3";
    let mut items = Vec::new();
    for row in tenant.query(sql, &[before.into(), (limit as u64).into()])? {
        items.push(RingVersion {
            number: Number(row.count(0)?),
            bytes: Number(row.bytes(1)?.len() as u64),
            made: chance::time(row.int(2)?),
        });
    }
    let next = items.last().filter(|_| items.len() == limit).map(|last| last.number.0.to_string());
    Ok(Reply::json(&Page { items, next }))
}

/// `GET /v1/ring/{number}`.
pub fn ring(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let number: u64 = call.param(0)?;
    let sql = "SELECT object FROM ring WHERE account = $1 AND number = $2";
    let row = tenant.one(sql, &[number.into()])?.ok_or_else(Fail::not_found)?;
    Ok(Reply::object(row.bytes(0)?.to_vec()))
}

/// Refuses a version of a ring that nobody who has the ring open made: who has a device code only cannot sign it.
fn is_signed(call: &Call, owner: &[u8; 32], account: &[u8; 16], number: u64) -> Result<(), Fail> {
    let signature: Hex<64> = call.query_as("signature")?.ok_or_else(|| {
        Fail::field("signature", "a version of the ring comes with the signature of the owner's key")
            .hint("take a newer comb: it signs what it sends")
    })?;
    match is_valid(owner, RING_CONTEXT, &proof::of_ring(account, number, &call.body), &signature.0) {
        true => Ok(()),
        false => Err(Fail::new(Code::PolicyRefused, "the ring is not signed by the account's owner key")
            .hint("only who has the account's ring open can send a version of it: `comb device unlock` opens it")),
    }
}

/// A ring under which nobody signed anything goes with the last device that had it: whoever had a code first may have
/// made it, and the account's own would be refused for ever.
pub fn forget_ring(tenant: &mut Tenant<'_>) -> Result<(), Fail> {
    for sql in [
        "SELECT 1 FROM package WHERE account = $1",
        "SELECT 1 FROM release WHERE account = $1",
        "SELECT 1 FROM device WHERE account = $1 AND locked = 0 AND state <> 'revoked'",
    ] {
        if tenant.one(&format!("{sql} LIMIT 1"), &[])?.is_some() {
            return Ok(());
        }
    }
    tenant.execute("DELETE FROM ring WHERE account = $1", &[])?;
    tenant.execute("UPDATE account SET ring_account = NULL, owner_key = NULL WHERE account = $1", &[])?;
    tenant.changed("ring", 0);
    Ok(())
}

/// `PUT /v1/ring/{number}`.
pub fn put_ring(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let number: u64 = call.param(0)?;
    let opened = open_ring(&call.body).map_err(|error| {
        Fail::new(Code::BadRequest, format!("this is no ring that this comb reads: {error}"))
    })?;
    tenant.alone()?;
    let (account, told) = (opened.header.account.0, opened.header.number.0);
    if told != number {
        return Err(Fail::new(Code::BadRequest, format!("the ring says that its number is {told}")));
    }
    let row = tenant.one("SELECT ring_account, owner_key FROM account WHERE account = $1", &[])?;
    let row = row.ok_or_else(Fail::not_found)?;
    let known = row.maybe(0, Row::id::<16>)?.zip(row.maybe(1, Row::id::<32>)?);
    let named: Option<Hex<32>> = call.query_as("owner")?;
    let owner = match (known, named) {
        (Some((known, _)), _) if known != account => {
            return Err(Fail::new(Code::RingMoved, "this is the ring of another account"));
        }
        (Some((_, owner)), _) => owner,
        (None, Some(owner)) => owner.0,
        (None, None) => {
            return Err(Fail::field("owner", "the first ring of an account comes with its owner's public key")
                .hint("?owner= and 64 hexadecimal digits: the key stands in the sealed part, which the hive cannot read"));
        }
    };
    is_signed(call, &owner, &account, number)?;
    let newest = tenant.one("SELECT max(number) FROM ring WHERE account = $1", &[])?;
    let newest = newest.map(|row| row.maybe(0, Row::count)).transpose()?.flatten().unwrap_or(0);
    let sql = "SELECT object FROM ring WHERE account = $1 AND number = $2";
    match tenant.one(sql, &[number.into()])? {
        Some(row) if row.bytes(0)? == call.body => return Ok(Reply::none().status(200)),
        None if number > newest => {}
        _ => {
            let text = format!("the account's ring has number {newest} already: unite with it first");
            return Err(Fail::new(Code::RingMoved, text).detail("number", newest));
        }
    }
    if number > newest + RINGS_AHEAD_MAX {
        let text = format!("the account's ring has number {newest}, and {number} leaves no room for others");
        return Err(Fail::field("number", text));
    }
    if known.is_none() {
        tenant.execute(
            "UPDATE account SET ring_account = $2, owner_key = $3 WHERE account = $1",
            &[account.into(), owner.into()],
        )?;
    }
    tenant.execute(
        "INSERT INTO ring (account, number, object, made) VALUES ($1, $2, $3, $4)",
        &[number.into(), call.body.to_vec().into(), chance::now().into()],
    )?;
    tenant.event("ring", About::default().with("number", number));
    tenant.changed("ring", number);
    super::tasks::tell_ring(tenant, number, call.device().ok().map(|(device, _)| device))?;
    Ok(Reply::none().status(201))
}

/// `POST /v1/packages`.
pub fn post_package(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Package = call.read()?;
    tenant.alone()?;
    let row = tenant.one("SELECT ring_account, owner_key FROM account WHERE account = $1", &[])?;
    let row = row.ok_or_else(Fail::not_found)?;
    let (Some(account), Some(owner)) = (row.maybe(0, Row::id::<16>)?, row.maybe(1, Row::id::<32>)?) else {
        return Err(Fail::state("the account has no ring yet, so nobody can have signed a package"));
    };
    let refused = |text: String| Fail::new(Code::PolicyRefused, text);
    let signature: [u8; 64] = wish
        .signature
        .0
        .as_slice()
        .try_into()
        .map_err(|_| Fail::field("signature", "a signature has 64 bytes"))?;
    let authorization = Authorization::open(&wish.authorization.0, &signature, &owner)
        .map_err(|error| refused(error.to_string()))?;
    if authorization.account.0 != account {
        return Err(refused("the package is another account's".to_owned()));
    }
    authorization.body(&wish.body.0).map_err(|error| refused(error.to_string()))?;
    let (app, revision) = (AppId(authorization.app.0), authorization.revision);
    let sql = "SELECT max(revision) FROM package WHERE account = $1 AND app = $2";
    let newest = tenant.one(sql, &[app.0.into()])?.map(|row| row.maybe(0, Row::count)).transpose()?.flatten();
    if let Some(newest) = newest.filter(|newest| *newest >= revision) {
        let sql = "SELECT authorization_json FROM package WHERE account = $1 AND app = $2 AND revision = $3";
        let same = tenant.one(sql, &[app.0.into(), revision.into()])?;
        if same.is_some_and(|row| row.bytes(0).is_ok_and(|bytes| bytes == wish.authorization.0)) {
            return Ok(Reply::json(&PackageName { app, revision: Number(revision) }));
        }
        let text = format!("revision {newest} of the app is here already, and {revision} is not above it");
        return Err(Fail::new(Code::RevisionOld, text).detail("revision", newest));
    }
    tenant.execute(
        "INSERT INTO package (account, app, revision, authorization_json, signature, body) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[app.0.into(), revision.into(), wish.authorization.0.into(), signature.into(), wish.body.0.into()],
    )?;
    tenant.execute(
        "DELETE FROM package WHERE account = $1 AND app = $2 AND revision <= $3 AND revision NOT IN \
         (SELECT revision FROM app WHERE account = $1 AND app = $2)",
        &[app.0.into(), (i64::try_from(revision).unwrap_or(0) - PACKAGES_KEPT).into()],
    )?;
    Ok(Reply::json(&PackageName { app, revision: Number(revision) }).status(201))
}

/// `GET /v1/packages/{app}/{revision}`.
pub fn get_package(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (app, revision): (AppId, u64) = (call.param(0)?, call.param(1)?);
    if let Ok((device, _)) = call.device() {
        // Placed there, or something with it is ordered of it.
        let placed = tenant.one(
            "SELECT 1 FROM app WHERE account = $1 AND app = $2 AND (device = $3 OR standby LIKE $4)",
            &[app.0.into(), device.0.into(), format!("%{device}%").into()],
        )?;
        let ordered = tenant.one(
            "SELECT 1 FROM command WHERE account = $1 AND app = $2 AND device = $3",
            &[app.0.into(), device.0.into()],
        )?;
        if placed.is_none() && ordered.is_none() {
            return Err(Fail::not_found());
        }
    }
    let sql = "SELECT authorization_json, signature, body FROM package WHERE account = $1 AND app = $2 \
         AND revision = $3";
    let row = tenant.one(sql, &[app.0.into(), revision.into()])?.ok_or_else(Fail::not_found)?;
    Ok(Reply::json(&Package {
        authorization: Base64(row.bytes(0)?.to_vec()),
        signature: Base64(row.bytes(1)?.to_vec()),
        body: Base64(row.bytes(2)?.to_vec()),
    }))
}

fn release_info(tenant: &mut Tenant<'_>, number: u64, bytes: &[u8]) -> Result<ReleaseInfo, Fail> {
    let release = Release::parse(bytes).map_err(|error| Fail::start(error.to_string()))?;
    let sql = "SELECT arch FROM release_binary WHERE account = $1 AND number = $2";
    let rows = tenant.query(sql, &[number.into()])?;
    let there: Vec<&str> = rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?;
    let (present, missing) =
        release.binaries.iter().map(|one| one.arch).partition(|arch| there.contains(&arch_text(*arch)));
    Ok(ReleaseInfo { number: Number(number), version: release.version, present, missing })
}

/// `GET /v1/releases`.
pub fn releases(_: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let sql = "SELECT number, release_json FROM release WHERE account = $1 ORDER BY number DESC";
    let mut items = Vec::new();
    for row in tenant.query(sql, &[])? {
        items.push(release_info(tenant, row.count(0)?, row.bytes(1)?)?);
    }
    Ok(Reply::json(&Page { items, next: None }))
}

/// `POST /v1/releases`.
pub fn make_release(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: MakeRelease = call.read()?;
    let row = tenant.one("SELECT ring_account, owner_key FROM account WHERE account = $1", &[])?;
    let row = row.ok_or_else(Fail::not_found)?;
    let (Some(account), Some(owner)) = (row.maybe(0, Row::id::<16>)?, row.maybe(1, Row::id::<32>)?) else {
        return Err(Fail::state("the account has no ring yet, so nobody can have signed a release"));
    };
    let signature: [u8; 64] = wish
        .signature
        .0
        .as_slice()
        .try_into()
        .map_err(|_| Fail::field("signature", "a signature has 64 bytes"))?;
    let refused = |text: String| Fail::new(Code::PolicyRefused, text);
    let release =
        Release::open(&wish.release.0, &signature, &owner).map_err(|error| refused(error.to_string()))?;
    if release.account.0 != account {
        return Err(refused("the release is another account's".to_owned()));
    }
    let newest = tenant.one("SELECT max(number) FROM release WHERE account = $1", &[])?;
    let newest = newest.map(|row| row.maybe(0, Row::count)).transpose()?.flatten();
    if let Some(newest) = newest.filter(|newest| *newest >= release.number) {
        let text = format!("release {newest} is here already, and {} is not above it", release.number);
        return Err(Fail::new(Code::RevisionOld, text).detail("revision", newest));
    }
    tenant.execute(
        "INSERT INTO release (account, number, version, release_json, signature) VALUES ($1, $2, $3, $4, $5)",
        &[release.number.into(), (&release.version).into(), wish.release.0.clone().into(), signature.into()],
    )?;
    for table in ["release_binary", "release"] {
        let sql = format!(
            "DELETE FROM {table} WHERE account = $1 AND number NOT IN (SELECT number FROM release \
             WHERE account = $1 ORDER BY number DESC LIMIT $2)"
        );
        tenant.execute(&sql, &[RELEASES_MAX.into()])?;
    }
    tenant.event("release", About::default().with("release", release.number));
    Ok(Reply::json(&release_info(tenant, release.number, &wish.release.0)?).status(201))
}

/// `PUT /v1/releases/{number}/{arch}`.
pub fn put_binary(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (number, arch): (u64, String) = (call.param(0)?, call.param(1)?);
    let sql = "SELECT release_json FROM release WHERE account = $1 AND number = $2";
    let row = tenant.one(sql, &[number.into()])?.ok_or_else(Fail::not_found)?;
    let release = Release::parse(row.bytes(0)?).map_err(|error| Fail::start(error.to_string()))?;
    let binary =
        release.binaries.iter().find(|one| arch_text(one.arch) == arch).ok_or_else(Fail::not_found)?;
    let hash = *blake3::hash(&call.body).as_bytes();
    if binary.bytes != call.body.len() as u64 || binary.blake3.0 != hash {
        return Err(Fail::new(Code::BadRequest, "these are not the bytes that the owner signed for"));
    }
    tenant.execute(
        "INSERT INTO release_binary (account, number, arch, bytes) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (account, number, arch) DO NOTHING",
        &[number.into(), arch.into(), call.body.to_vec().into()],
    )?;
    Ok(Reply::json(&release_info(tenant, number, row.bytes(0)?)?))
}

/// `GET /v1/device/releases/{number}/{arch}`.
pub fn binary(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (number, arch): (u64, String) = (call.param(0)?, call.param(1)?);
    let sql = "SELECT bytes FROM release_binary WHERE account = $1 AND number = $2 AND arch = $3";
    let row = tenant.one(sql, &[number.into(), arch.into()])?.ok_or_else(Fail::not_found)?;
    Ok(Reply::object(row.bytes(0)?.to_vec()))
}
