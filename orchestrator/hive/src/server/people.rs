//! Setup, logins, invitations, people, tokens.

use std::sync::Arc;

use orchestrator_api::code::Secret;
use orchestrator_api::error::Code;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::people::{
    Accept, Account, ChangePassword, ChangePerson, Invite, Login, MakeToken, Me, NewInvite, NewToken,
    OpenInvite, Person, Role, Setup, TOKEN_S, Token,
};
use orchestrator_api::wire::value::{Hidden, Page};
use tokio::sync::Semaphore;

use super::auth::{hash_password, is_password, role, token_hash};
use super::call::{Answering, Call, Caller, Reply, not_logged_in};
use super::chance;
use super::database::{How, Row, Value};
use super::door::knock;
use super::fail::Fail;
use super::second;
use super::tenant::{About, AccountId, Former, Tenant, uuid};

const PEOPLE_MAX: u64 = 50;
const TOKENS_MAX: u64 = 200;
const INVITES_MAX: u64 = 20;
const FAILURES_MAX: i64 = 5;
const LOCKED_MS: i64 = 10 * 60_000;
const DAY_S: u64 = 86_400;

/// Does what a password costs: its memory is that of one of few until it is done, also when nobody waits for it any more.
async fn at_cost<T: Send + 'static>(
    room: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let permit = room.clone().acquire_owned().await.ok()?;
    // Whoever asked may be gone before it is done. It goes on, so the permit does not go with them.
    let work = move || {
        let _permit = permit;
        work()
    };
    tokio::task::spawn_blocking(work).await.ok()
}

/// Whether this is somebody's password. It costs as much memory as making a hash.
async fn is_right(call: &Call, password: &Hidden, kept: Option<String>) -> bool {
    let password = password.clone();
    let check = move || is_password(password.reveal(), kept.as_deref());
    at_cost(&call.shared.passwords, check).await.unwrap_or(false)
}

/// A password's hash costs memory: only some are made at a time.
async fn hashed(call: &Call, password: &Hidden) -> Result<String, Fail> {
    let password = password.clone();
    let made = at_cost(&call.shared.passwords, move || hash_password(password.reveal())).await;
    made.unwrap_or_else(|| Err(Fail::start("a password could not be hashed")))
}

/// What a login gives.
#[derive(Debug, Clone)]
pub enum Grant {
    /// A token, for programs.
    Token,
    /// A session, for a browser that says what it is.
    Session(String),
}

/// What came of a login.
pub struct Entered {
    /// The token, or the session's letters.
    pub made: NewToken,
    /// Whether a code of the second factor is still to come.
    pub is_half: bool,
}

/// How long a session is good, in seconds, if it is used.
pub const SESSION_S: u64 = 30 * DAY_S;
/// How long a browser may take to give the second factor.
const HALF_S: u64 = 300;
const SESSIONS_MAX: u64 = 50;

fn grant(
    tenant: &mut Tenant<'_>,
    person: Uuid,
    (title, role, ends_in_s): (&str, Role, u64),
    grant: &Grant,
    is_half: bool,
) -> Result<NewToken, Fail> {
    let Grant::Session(agent) = grant else { return make_token(tenant, person, title, role, ends_in_s) };
    let now = chance::now();
    tenant.execute(
        "DELETE FROM session WHERE account = $1 AND (ends <= $2 OR used <= $3)",
        &[now.into(), (now - super::auth::SESSION_IDLE_MS).into()],
    )?;
    // The oldest go, so that nobody is kept out.
    tenant.execute(
        "DELETE FROM session WHERE account = $1 AND person = $2 AND id NOT IN (SELECT id FROM session \
         WHERE account = $1 AND person = $2 ORDER BY used DESC LIMIT $3)",
        &[person.0.into(), (SESSIONS_MAX - 1).into()],
    )?;
    let (secret, id) = (chance::token(), chance::uuid());
    let ends_in_s = if is_half { HALF_S } else { SESSION_S };
    let ends = now + i64::try_from(ends_in_s * 1000).unwrap_or(0);
    let agent: orchestrator_api::wire::value::Text<200> = orchestrator_api::wire::value::Text::cut(agent);
    tenant.execute(
        "INSERT INTO session (hash, id, account, person, half, made, used, ends, agent, address) \
         VALUES ($2, $3, $1, $4, $5, $6, $6, $7, $8, $9)",
        &[
            token_hash(&secret).into(),
            id.0.into(),
            person.0.into(),
            is_half.into(),
            now.into(),
            ends.into(),
            agent.as_str().into(),
            tenant.from.clone().unwrap_or_default().into(),
        ],
    )?;
    let token = Hidden::new(secret).map_err(|_| Fail::start("a session is too long"))?;
    Ok(NewToken { id, token, role, ends: chance::time(ends) })
}

fn make_token(
    tenant: &mut Tenant<'_>,
    person: Uuid,
    title: &str,
    role: Role,
    ends_in_s: u64,
) -> Result<NewToken, Fail> {
    let sql = "SELECT count(*) FROM token WHERE account = $1";
    if tenant.one(sql, &[])?.map(|row| row.count(0)).transpose()?.unwrap_or(0) >= TOKENS_MAX {
        let now = chance::now();
        let gone = tenant.execute("DELETE FROM token WHERE account = $1 AND ends <= $2", &[now.into()])?;
        if gone == 0 {
            return Err(Fail::state("the account has 200 tokens").hint("remove some of them"));
        }
    }
    let token = chance::token();
    let (id, ends) = (chance::uuid(), chance::now() + i64::try_from(ends_in_s * 1000).unwrap_or(0));
    tenant.execute(
        "INSERT INTO token (hash, id, account, person, title, role, ends, used) \
         VALUES ($2, $3, $1, $4, $5, $6, $7, NULL)",
        &[
            token_hash(&token).into(),
            id.0.into(),
            person.0.into(),
            title.into(),
            role.text().into(),
            ends.into(),
        ],
    )?;
    let hidden = Hidden::new(token).map_err(|_| Fail::start("a token is too long"))?;
    Ok(NewToken { id, token: hidden, role, ends: chance::time(ends) })
}

fn make_account(tenant: &mut Tenant<'_>, title: &str, first: bool) -> Result<(), Fail> {
    tenant.execute(
        "INSERT INTO account (account, title, letters, ring_account, owner_key, event_number, event_hash, \
         operation_number, first) VALUES ($1, $2, $3, NULL, NULL, 0, $4, 0, $5)",
        &[title.into(), chance::letters().into(), [0u8; 32].into(), first.into()],
    )?;
    Ok(())
}

fn make_person(tenant: &mut Tenant<'_>, name: &str, password: &str, role: Role) -> Result<Uuid, Fail> {
    let count = tenant.one("SELECT count(*) FROM person WHERE account = $1", &[])?;
    if count.map(|row| row.count(0)).transpose()?.unwrap_or(0) >= PEOPLE_MAX {
        return Err(Fail::state("the account has 50 people"));
    }
    let id = chance::uuid();
    let made = tenant.execute(
        "INSERT INTO person (account, person, name, password, role, failures, locked_until) \
         VALUES ($1, $2, $3, $4, $5, 0, 0)",
        &[id.0.into(), name.into(), password.into(), role.text().into()],
    );
    made.map_err(|error| Fail::from(error).taken("somebody has that name already"))?;
    tenant.changed("people", id);
    Ok(id)
}

/// `POST /v1/setup`.
pub fn setup(call: Arc<Call>) -> Answering {
    Box::pin(async move { Ok(Reply::json(&set_up(call, Grant::Token).await?).once()) })
}

/// Sets the hive up; its first owner is logged in.
pub async fn set_up(call: Arc<Call>, how: Grant) -> Result<NewToken, Fail> {
    knock(&call, make_first(&call, how)).await
}

async fn make_first(call: &Call, how: Grant) -> Result<NewToken, Fail> {
    let wish: Setup = call.read()?;
    let wrong = || Fail::new(Code::SetupCodeWrong, "this is not the code that the hive printed");
    let code = Secret::parse(wish.setup_code.reveal()).map_err(|_| wrong())?;
    let password = hashed(call, &wish.password).await?;
    let (store, address) = (call.shared.store.clone(), call.address.to_string());
    let account: AccountId = chance::uuid().0;
    let (made, told) = call
        .shared
        .database
        .transact(How::Write, move |tx| {
            tx.lock(0, false)?;
            let rows = tx.query("SELECT setup_hash FROM hive WHERE id = 1", &[])?;
            let hash = rows.first().map(|row| row.maybe(0, Row::id::<32>)).transpose()?.flatten();
            if !tx.query("SELECT 1 FROM account WHERE first = 1", &[])?.is_empty() {
                return Err(Fail::new(Code::Exists, "this hive is set up already"));
            }
            if !hash.is_some_and(|hash| code.matches(&Hex(hash))) {
                return Err(Fail::new(Code::SetupCodeWrong, "this is not the code that the hive printed"));
            }
            tx.execute("UPDATE hive SET setup_hash = NULL WHERE id = 1", &[])?;
            let mut tenant = Tenant { from: Some(address.clone()), ..Tenant::new(tx, account) };
            make_account(&mut tenant, wish.account.as_str(), true)?;
            let person = make_person(&mut tenant, wish.name.as_str(), &password, Role::Owner)?;
            if let Some(url) = &store {
                super::stores::insert(&mut tenant, url, false, None)?;
            }
            tenant.by = orchestrator_api::wire::operation::By { person: Some(person), ..Default::default() };
            let token = grant(&mut tenant, person, ("setup", Role::Owner, TOKEN_S), &how, false)?;
            tenant.event("login", About::default());
            Ok((token, tenant.end()?))
        })
        .await?;
    call.shared.deliver(told);
    Ok(made)
}

/// `POST /v1/login`.
pub fn login(call: Arc<Call>) -> Answering {
    Box::pin(async move { Ok(Reply::json(&log_in(call, Grant::Token).await?.made).once()) })
}

/// How often somebody's passwords and codes were wrong since the last login. Refuses who must wait.
///
/// Whoever decides by it asks when nobody else decides about the account: what was read before a password was compared says
/// nothing of those that were compared meanwhile.
pub fn failures(tenant: &mut Tenant<'_>, person: Uuid) -> Result<i64, Fail> {
    let sql = "SELECT failures, locked_until FROM person WHERE account = $1 AND person = $2";
    let row = tenant.one(sql, &[person.0.into()])?.ok_or_else(Fail::not_found)?;
    let (failures, until, now) = (row.int(0)?, row.int(1)?, chance::now());
    match until > now {
        true => Err(Fail::wait(
            (until - now).unsigned_abs(),
            "too many passwords or codes of this name were wrong",
        )),
        false => Ok(failures),
    }
}

/// Counts a password or code that was wrong, which is an event of this kind.
pub fn failed(tenant: &mut Tenant<'_>, person: Uuid, kind: &str) -> Result<(), Fail> {
    let count = failures(tenant, person)? + 1;
    let (count, until) = if count >= FAILURES_MAX { (0, chance::now() + LOCKED_MS) } else { (count, 0) };
    tenant.execute(
        "UPDATE person SET failures = $3, locked_until = $4 WHERE account = $1 AND person = $2",
        &[person.0.into(), count.into(), until.into()],
    )?;
    tenant.event(kind, About::default());
    Ok(())
}

/// Somebody is in, with all that a login needs: the only thing by which failures are forgotten.
fn is_in(tenant: &mut Tenant<'_>, person: Uuid) -> Result<(), Fail> {
    let sql = "UPDATE person SET failures = 0, locked_until = 0 WHERE account = $1 AND person = $2";
    tenant.execute(sql, &[person.0.into()])?;
    tenant.event("login", About::default());
    Ok(())
}

fn second_wrong() -> Fail {
    Fail::new(Code::SecondWrong, "this code is wrong, or was used already")
        .hint("wait for the next code of the app, or use a recovery code")
}

/// The second step of a login in a browser; the session's letters.
pub async fn log_in_second(call: Arc<Call>) -> Result<Hidden, Fail> {
    knock(&call, second_step(&call)).await
}

async fn second_step(call: &Call) -> Result<Hidden, Fail> {
    let over = || {
        Fail::new(Code::NotLoggedIn, "this login took too long, or was never begun")
            .hint("Begin again with name and password.")
    };
    let half = token_hash(call.visit.half().ok_or_else(over)?);
    let (given, address) = (call.visit.form.text("code").to_owned(), call.address.to_string());
    let agent = Grant::Session(call.visit.agent.clone());
    let (made, told) = call
        .shared
        .database
        .transact(How::Write, move |tx| {
            let now = chance::now();
            let rows = tx.query(
                "SELECT s.account, s.person, p.role FROM session s \
                 JOIN person p ON p.account = s.account AND p.person = s.person \
                 WHERE s.hash = $1 AND s.half = 1 AND s.ends > $2",
                &[half.into(), now.into()],
            )?;
            let row = rows.first().ok_or_else(over)?;
            let (account, person, role) = (row.id::<16>(0)?, uuid(row, 1)?, role(row.text(2)?));
            let by = orchestrator_api::wire::operation::By { person: Some(person), ..Default::default() };
            let mut tenant = Tenant { by, from: Some(address.clone()), ..Tenant::new(tx, account) };
            tenant.alone()?;
            failures(&mut tenant, person)?;
            let made = match second::check(&mut tenant, person, &given)? {
                true => {
                    is_in(&mut tenant, person)?;
                    tenant.execute("DELETE FROM session WHERE account = $1 AND hash = $2", &[half.into()])?;
                    Some(grant(&mut tenant, person, ("", role, 0), &agent, false)?)
                }
                false => {
                    failed(&mut tenant, person, "login_failed")?;
                    None
                }
            };
            Ok((made, tenant.end()?))
        })
        .await?;
    call.shared.deliver(told);
    Ok(made.ok_or_else(second_wrong)?.token)
}

/// A login with name and password, and the second factor where it is on.
pub async fn log_in(call: Arc<Call>, how: Grant) -> Result<Entered, Fail> {
    knock(&call, first_step(&call, how)).await
}

async fn first_step(call: &Call, how: Grant) -> Result<Entered, Fail> {
    let wish: Login = call.read()?;
    let text = wish.name.as_str().to_owned();
    let (name, letters) = match text.split_once('@') {
        Some((name, letters)) => (name.to_owned(), Some(letters.to_owned())),
        None => (text, None),
    };
    let found = call
        .shared
        .database
        .transact(How::Read, move |tx| {
            let (which, value): (_, Value) = match &letters {
                Some(letters) => ("a.letters = $2", letters.into()),
                None => ("a.first = $2", 1i64.into()),
            };
            let sql = format!(
                "SELECT p.account, p.person, p.password FROM person p \
                     JOIN account a ON a.account = p.account WHERE p.name = $1 AND {which}"
            );
            let rows = tx.query(&sql, &[(&name).into(), value])?;
            let Some(row) = rows.first() else { return Ok(None) };
            let (account, person) = (row.id::<16>(0)?, uuid(row, 1)?);
            // A name that must wait costs no hash.
            failures(&mut Tenant::new(tx, account), person)?;
            Ok(Some((account, person, row.text(2)?.to_owned())))
        })
        .await?;
    let right = is_right(call, &wish.password, found.as_ref().map(|(.., kept)| kept.clone())).await;
    let wrong = || Fail::new(Code::LoginWrong, "name or password is wrong");
    let Some((account, person, kept)) = found else { return Err(wrong()) };
    let address = call.address.to_string();
    let title = wish.title.as_ref().map_or("login", |title| title.as_str()).to_owned();
    let ends_in_s = wish.ends_in_s.map_or(TOKEN_S, |it| it.0);
    let given = wish.second.as_ref().map(|text| text.as_str().to_owned());
    let (made, told) = call
        .shared
        .database
        .transact(How::Write, move |tx| {
            let by = orchestrator_api::wire::operation::By { person: Some(person), ..Default::default() };
            let mut tenant = Tenant { by, from: Some(address.clone()), ..Tenant::new(tx, account) };
            tenant.alone()?;
            // While the password was compared it may have become another one, or the person may have left.
            let sql = "SELECT password, role FROM person WHERE account = $1 AND person = $2";
            let row = tenant.one(sql, &[person.0.into()])?.ok_or_else(wrong)?;
            failures(&mut tenant, person)?;
            let (right, role) = (right && row.text(0)? == kept, role(row.text(1)?));
            let needs = right && second::is_on(&mut tenant, person)?;
            let wish = (title.as_str(), role, ends_in_s);
            let made = match (right, needs, &given, &how) {
                (false, ..) => Err(wrong()),
                (true, false, ..) => Ok(false),
                // The code comes on a page of its own.
                (true, true, None, Grant::Session(_)) => Ok(true),
                (true, true, None, Grant::Token) => {
                    Err(Fail::new(Code::SecondNeeded, "this login needs a code of the second factor besides"))
                }
                (true, true, Some(given), _) => match second::check(&mut tenant, person, given)? {
                    true => Ok(false),
                    false => Err(second_wrong()),
                },
            };
            let made = match made {
                Ok(is_half) => {
                    if !is_half {
                        is_in(&mut tenant, person)?;
                    }
                    Ok(Entered { made: grant(&mut tenant, person, wish, &how, is_half)?, is_half })
                }
                Err(Fail::Api(error)) if error.code == Code::SecondNeeded => Err(Fail::Api(error)),
                Err(fail) => {
                    failed(&mut tenant, person, "login_failed")?;
                    Err(fail)
                }
            };
            Ok((made, tenant.end()?))
        })
        .await?;
    call.shared.deliver(told);
    made
}

/// `DELETE /v1/login`.
pub fn logout(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (_, token, _) = call.person()?;
    tenant.execute("DELETE FROM token WHERE account = $1 AND id = $2", &[token.0.into()])?;
    tenant.event("logout", About::default());
    Ok(Reply::none())
}

/// Ends a session of who asks: this one, or another of theirs.
pub fn end_session(call: &Call, tenant: &mut Tenant<'_>, id: Uuid) -> Result<(), Fail> {
    let (person, this, _) = call.person()?;
    let sql = "DELETE FROM session WHERE account = $1 AND person = $2 AND id = $3";
    if tenant.execute(sql, &[person.0.into(), id.0.into()])? == 0 {
        return Err(Fail::not_found());
    }
    match id == this {
        true => tenant.event("logout", About::default()),
        false => tenant.event("session_gone", About::default().with("session", id.to_string())),
    }
    Ok(())
}

fn account(tenant: &mut Tenant<'_>) -> Result<Account, Fail> {
    let sql = "SELECT title, letters, ring_account, owner_key, first FROM account WHERE account = $1";
    let row = tenant.one(sql, &[])?.ok_or_else(Fail::not_found)?;
    Ok(Account {
        id: Uuid(tenant.account),
        title: row.text(0)?.to_owned(),
        letters: row.text(1)?.to_owned(),
        ring_account: row.maybe(2, Row::id::<16>)?.map(Hex),
        owner_key: row.maybe(3, Row::id::<32>)?.map(Hex),
        first: row.flag(4)?,
    })
}

/// `GET /v1/me`.
pub fn me(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (person, _, role) = call.person()?;
    let sql = "SELECT name FROM person WHERE account = $1 AND person = $2";
    let row = tenant.one(sql, &[person.0.into()])?.ok_or_else(Fail::not_found)?;
    let name = row.text(0)?.to_owned();
    Ok(Reply::json(&Me { person, name, role, account: account(tenant)? }))
}

/// `PUT /v1/me/password`.
pub fn password(call: Arc<Call>) -> Answering {
    Box::pin(async move { knock(&call, new_password(&call)).await })
}

async fn new_password(call: &Arc<Call>) -> Result<Reply, Fail> {
    let wish: ChangePassword = call.read()?;
    let (account, (person, token, _)) = (call.account()?, call.person()?);
    let present = move |tenant: &mut Tenant<'_>| {
        failures(tenant, person)?;
        let sql = "SELECT password FROM person WHERE account = $1 AND person = $2";
        let row = tenant.one(sql, &[person.0.into()])?.ok_or_else(Fail::not_found)?;
        Ok(row.text(0)?.to_owned())
    };
    let kept: String =
        call.shared.database.transact(How::Read, move |tx| present(&mut Tenant::new(tx, account))).await?;
    let made = match is_right(call, &wish.old, Some(kept.clone())).await {
        true => Some(hashed(call, &wish.new).await?),
        false => None,
    };
    let is_changed = call
        .write(move |_, tenant| {
            let is_same = present(tenant)? == kept;
            let Some(made) = made.as_ref().filter(|_| is_same) else {
                failed(tenant, person, "password_wrong")?;
                return Ok(false);
            };
            tenant.execute(
                "UPDATE person SET password = $3 WHERE account = $1 AND person = $2",
                &[person.0.into(), made.into()],
            )?;
            for table in ["token", "session"] {
                let sql = format!("DELETE FROM {table} WHERE account = $1 AND person = $2 AND id <> $3");
                tenant.execute(&sql, &[person.0.into(), token.0.into()])?;
            }
            // A session that the new password ends has seen its secret.
            second::forget_begun(tenant, person)?;
            tenant.event("password", About::default());
            Ok(true)
        })
        .await?;
    match is_changed {
        true => Ok(Reply::none()),
        false => Err(Fail::new(Code::LoginWrong, "this is not the present password")),
    }
}

/// `POST /v1/people/invites`.
pub fn invite(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Invite = call.read()?;
    let first = matches!(call.caller, Caller::Person { first: true, .. });
    if wish.new_account && !first {
        return Err(Fail::new(Code::RoleTooLow, "only an owner of the hive's first account makes new ones"));
    }
    let now = chance::now();
    tenant.execute("DELETE FROM invite WHERE account = $1 AND ends <= $2", &[now.into()])?;
    let open = tenant.one("SELECT count(*) FROM invite WHERE account = $1", &[])?;
    if open.map(|row| row.count(0)).transpose()?.unwrap_or(0) >= INVITES_MAX {
        return Err(Fail::state("there are 20 open invitations").hint("remove some of them"));
    }
    let secret = Secret::new(chance::bytes());
    let id = chance::uuid();
    let ends = now + i64::try_from(wish.ends_in_s.map_or(DAY_S, |it| it.0) * 1000).unwrap_or(0);
    let role = if wish.new_account { Role::Owner } else { wish.role };
    tenant.execute(
        "INSERT INTO invite (hash, id, account, role, new_account, ends) VALUES ($2, $3, $1, $4, $5, $6)",
        &[secret.hash().0.into(), id.0.into(), role.text().into(), wish.new_account.into(), ends.into()],
    )?;
    let about = About::default().with("invite", id.to_string()).with("role", role.text());
    tenant.event("invited", about.with("new_account", wish.new_account));
    let invite = Hidden::new(secret.show()).map_err(|_| Fail::start("an invitation is too long"))?;
    Ok(Reply::json(&NewInvite { id, invite, ends: chance::time(ends) }).once())
}

/// `GET /v1/people/invites`.
pub fn invites(_: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let sql = "SELECT id, role, new_account, ends FROM invite WHERE account = $1 AND ends > $2 ORDER BY ends";
    let mut items = Vec::new();
    for row in tenant.query(sql, &[chance::now().into()])? {
        let (id, ends) = (uuid(&row, 0)?, chance::time(row.int(3)?));
        items.push(OpenInvite { id, role: role(row.text(1)?), new_account: row.flag(2)?, ends });
    }
    Ok(Reply::json(&Page { items, next: None }))
}

/// `DELETE /v1/people/invites/{id}`.
pub fn uninvite(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: Uuid = call.param(0)?;
    let gone = tenant.execute("DELETE FROM invite WHERE account = $1 AND id = $2", &[id.0.into()])?;
    if gone == 0 {
        return Err(Fail::not_found());
    }
    tenant.event("invite_gone", About::default().with("invite", id.to_string()));
    Ok(Reply::none())
}

/// `POST /v1/people/accept`.
pub fn accept(call: Arc<Call>) -> Answering {
    Box::pin(async move { Ok(Reply::json(&accepted(call, Grant::Token).await?).once()) })
}

/// Takes an invitation up; who does is logged in.
pub async fn accepted(call: Arc<Call>, how: Grant) -> Result<NewToken, Fail> {
    knock(&call, take_up(&call, how)).await
}

async fn take_up(call: &Call, how: Grant) -> Result<NewToken, Fail> {
    let wish: Accept = call.read()?;
    let wrong = || Fail::new(Code::CodeWrong, "this invitation is not one that is open");
    let secret = Secret::parse(wish.invite.reveal()).map_err(|_| wrong())?;
    let password = hashed(call, &wish.password).await?;
    let address = call.address.to_string();
    let (made, told) = call
        .shared
        .database
        .transact(How::Write, move |tx| {
            let hash: Value = secret.hash().0.into();
            let sql = "SELECT account, role, new_account, ends, id FROM invite WHERE hash = $1";
            let rows = tx.query(sql, std::slice::from_ref(&hash))?;
            let row = rows
                .first()
                .ok_or_else(|| Fail::new(Code::CodeWrong, "this invitation is not one that is open"))?;
            if row.int(3)? <= chance::now() {
                return Err(Fail::new(Code::CodeExpired, "this invitation ended"));
            }
            let (host, role, new, invite) =
                (row.id::<16>(0)?, role(row.text(1)?), row.flag(2)?, uuid(row, 4)?);
            if tx.execute("DELETE FROM invite WHERE hash = $1", &[hash])? == 0 {
                return Err(Fail::new(Code::CodeUsed, "this invitation was accepted already"));
            }
            let account = if new { chance::uuid().0 } else { host };
            let mut tenant = Tenant { from: Some(address.clone()), ..Tenant::new(tx, account) };
            if new {
                let title = wish.account.as_ref().ok_or_else(|| {
                    Fail::field("account", "this invitation is for a new account: say what it is called")
                })?;
                make_account(&mut tenant, title.as_str(), false)?;
            }
            tenant.alone()?;
            let person = make_person(&mut tenant, wish.name.as_str(), &password, role)?;
            tenant.by = orchestrator_api::wire::operation::By { person: Some(person), ..Default::default() };
            let token = grant(&mut tenant, person, ("invitation", role, TOKEN_S), &how, false)?;
            let about = About::default().with("invite", invite.to_string()).with("role", role.text());
            tenant.event("accepted", about);
            tenant.event("login", About::default());
            Ok((token, tenant.end()?))
        })
        .await?;
    call.shared.deliver(told);
    Ok(made)
}

/// `GET /v1/people`.
pub fn list(_: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let mut items = Vec::new();
    for row in tenant.query("SELECT person, name, role FROM person WHERE account = $1 ORDER BY name", &[])? {
        items.push(Person { id: uuid(&row, 0)?, name: row.text(1)?.to_owned(), role: role(row.text(2)?) });
    }
    Ok(Reply::json(&Page { items, next: None }))
}

/// An owner is one no more. Invitations do not say who made them: all that are open end, so that nobody comes back by one.
fn end_invites(tenant: &mut Tenant<'_>) -> Result<(), Fail> {
    for row in tenant.query("SELECT id FROM invite WHERE account = $1 ORDER BY ends, id", &[])? {
        tenant.event("invite_gone", About::default().with("invite", uuid(&row, 0)?.to_string()));
    }
    tenant.execute("DELETE FROM invite WHERE account = $1", &[])?;
    Ok(())
}

fn is_owner(tenant: &mut Tenant<'_>, person: Uuid) -> Result<bool, Fail> {
    let sql = "SELECT 1 FROM person WHERE account = $1 AND person = $2 AND role = 'owner'";
    Ok(tenant.one(sql, &[person.0.into()])?.is_some())
}

fn last_owner(tenant: &mut Tenant<'_>, person: Uuid) -> Result<bool, Fail> {
    let sql = "SELECT person FROM person WHERE account = $1 AND role = 'owner'";
    let owners = tenant.query(sql, &[])?;
    Ok(owners.len() == 1 && uuid(&owners[0], 0)? == person)
}

/// `PATCH /v1/people/{id}`.
pub fn change(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, wish): (Uuid, ChangePerson) = (call.param(0)?, call.read()?);
    if wish.role != Role::Owner && last_owner(tenant, id)? {
        return Err(Fail::state("the last owner stays one"));
    }
    let was_owner = is_owner(tenant, id)?;
    let changed = tenant.execute(
        "UPDATE person SET role = $3 WHERE account = $1 AND person = $2",
        &[id.0.into(), wish.role.text().into()],
    )?;
    if changed == 0 {
        return Err(Fail::not_found());
    }
    tenant.event("role", About::default().with("person", id.to_string()).with("role", wish.role.text()));
    if was_owner && wish.role != Role::Owner {
        end_invites(tenant)?;
    }
    tenant.changed("people", id);
    let row = tenant.one("SELECT name FROM person WHERE account = $1 AND person = $2", &[id.0.into()])?;
    let name = row.ok_or_else(Fail::not_found)?.text(0)?.to_owned();
    Ok(Reply::json(&Person { id, name, role: wish.role }))
}

/// `DELETE /v1/people/{id}`.
pub fn remove(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: Uuid = call.param(0)?;
    if last_owner(tenant, id)? {
        return Err(Fail::state("the last owner stays"));
    }
    let row = tenant.one("SELECT name FROM person WHERE account = $1 AND person = $2", &[id.0.into()])?;
    let name = row.ok_or_else(Fail::not_found)?.text(0)?.to_owned();
    let was_owner = is_owner(tenant, id)?;
    for table in ["token", "session", "second", "person"] {
        tenant.execute(&format!("DELETE FROM {table} WHERE account = $1 AND person = $2"), &[id.0.into()])?;
    }
    // What they did stays readable.
    tenant.keep_name(Former::Person, id.0, &name)?;
    tenant.event("person_gone", About::default().with("person", id.to_string()).with("name", name));
    if was_owner {
        end_invites(tenant)?;
    }
    tenant.changed("people", id);
    Ok(Reply::none())
}

/// `GET /v1/tokens`.
pub fn tokens(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (person, this, own) = call.person()?;
    let sql = "SELECT id, person, title, role, ends, used FROM token WHERE account = $1 ORDER BY title, id";
    let mut items = Vec::new();
    for row in tenant.query(sql, &[])? {
        let token = Token {
            id: uuid(&row, 0)?,
            person: uuid(&row, 1)?,
            title: row.text(2)?.to_owned(),
            role: role(row.text(3)?),
            ends: chance::time(row.int(4)?),
            used: row.maybe(5, Row::int)?.map(chance::time),
            this: uuid(&row, 0)? == this,
        };
        if own == Role::Owner || token.person == person {
            items.push(token);
        }
    }
    Ok(Reply::json(&Page { items, next: None }))
}

/// `POST /v1/tokens`.
pub fn token(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: MakeToken = call.read()?;
    let (person, _, own) = call.person()?;
    if wish.role > own {
        return Err(Fail::new(Code::RoleTooLow, "a token has no more power than who makes it"));
    }
    let ends_in_s = wish.ends_in_s.map_or(TOKEN_S, |it| it.0);
    let made = make_token(tenant, person, wish.title.as_str(), wish.role, ends_in_s)?;
    let about = About::default().with("token", made.id.to_string()).with("title", wish.title.as_str());
    tenant.event("token_made", about.with("role", wish.role.text()));
    Ok(Reply::json(&made).once())
}

/// `DELETE /v1/tokens/{id}`.
pub fn untoken(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, (person, _, own)) = (call.param::<Uuid>(0)?, call.person()?);
    let sql = "SELECT person, title FROM token WHERE account = $1 AND id = $2";
    let row = tenant.one(sql, &[id.0.into()])?.ok_or_else(Fail::not_found)?;
    let theirs = uuid(&row, 0)?;
    if theirs != person && own != Role::Owner {
        return Err(Fail::not_found());
    }
    tenant.execute("DELETE FROM token WHERE account = $1 AND id = $2", &[id.0.into()])?;
    tenant.event("token_gone", About::default().with("token", id.to_string()).with("title", row.text(1)?));
    Ok(Reply::none())
}

/// Whether a caller has a role at least.
pub fn may(caller: &Caller, least: Role) -> Result<(), Fail> {
    match caller {
        Caller::Person { role, .. } if *role >= least => Ok(()),
        Caller::Person { .. } => {
            Err(Fail::new(Code::RoleTooLow, format!("this needs somebody who is {} here", least.text())))
        }
        _ => Err(not_logged_in()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_password_that_nobody_waits_for_takes_its_room_until_it_is_done() {
        let room = Arc::new(Semaphore::new(1));
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let work = at_cost(&room, move || wait.recv());
        let waited = tokio::time::timeout(Duration::from_millis(100), work).await;
        assert!(waited.is_err(), "who asked is gone");
        assert_eq!(room.available_permits(), 0, "and its memory is not free");
        let next = tokio::time::timeout(Duration::from_millis(100), at_cost(&room, || ())).await;
        assert!(next.is_err());
        done.send(()).expect("it goes on");
        let next = tokio::time::timeout(Duration::from_secs(10), at_cost(&room, || 7)).await;
        assert_eq!(next.expect("has its turn"), Some(7));
    }
}
