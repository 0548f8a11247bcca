//! Settings: people, stores, notifications, tokens, how long the past is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::account::Store;
use orchestrator_api::wire::people::{NewInvite, NewToken, OpenInvite, Person, Role, Token};
use orchestrator_api::wire::report::{Report, StoreState};
use orchestrator_api::wire::value::Page;
use orchestrator_console::pages::{
    self, ChannelRow, Confirm, InviteRow, Once, PersonRow, RetentionRow, StoreRow, TokenRow,
};
use orchestrator_console::show::{self, Choice, Field, Health, Html, Kind};
use serde_json::json;

use super::super::call::{Answering, Call, Reply};
use super::super::fail::Fail;
use super::super::notify::{self, Target};
use super::super::people;
use super::super::tenant::{Tenant, read};
use super::super::{chance, rows, second, stores};
use super::{Here, frame};

const DAY_S: u64 = 86_400;
/// So long an invitation is good at most, and a token.
const INVITE_DAYS: u64 = 7;
const TOKEN_DAYS: u64 = 365;

/// What one may do, in words.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Operator => "operator",
        Role::Viewer => "viewer",
    }
}

/// The same of somebody who is one: `an owner`.
fn somebody_who_is(role: Role) -> &'static str {
    match role {
        Role::Owner => "an owner",
        Role::Operator => "an operator",
        Role::Viewer => "a viewer",
    }
}

fn roles(least: &[Role]) -> Kind {
    let label = |role: &Role| match role {
        Role::Viewer => "Viewer: sees everything",
        Role::Operator => "Operator: starts, stops and moves apps",
        Role::Owner => "Owner: everything",
    };
    Kind::Choices(least.iter().map(|role| Choice::new(role_name(*role), label(role))).collect())
}

/// Which form was sent, of those on this page.
fn sent(call: &Call) -> &'static str {
    if call.method != "POST" {
        return "";
    }
    let path = call.path_and_query.as_str();
    let forms = [
        ("/settings/invites", "invite"),
        ("/settings/stores", "store"),
        ("/settings/channels/webhook", "webhook"),
        ("/settings/channels/mail", "mail"),
        ("/settings/tokens", "token"),
    ];
    forms.into_iter().find(|(form, _)| *form == path).map_or("", |(_, name)| name)
}

/// How stores answer devices that report: of several answers the worst.
pub fn store_states(tenant: &mut Tenant<'_>) -> Result<BTreeMap<[u8; 16], StoreState>, Fail> {
    let mut worst: BTreeMap<[u8; 16], StoreState> = BTreeMap::new();
    let sql = "SELECT report FROM device WHERE account = $1 AND state <> 'revoked' AND report IS NOT NULL AND seen > $2";
    for row in tenant.query(sql, &[(chance::now() - 60_000).into()])? {
        let report: Report = read(row.text(0)?)?;
        for store in report.stores.iter() {
            let known = worst.entry(store.store.0).or_insert(store.state);
            *known = (*known).max(store.state);
        }
    }
    Ok(worst)
}

fn store_state(state: Option<StoreState>) -> Html {
    match state {
        Some(StoreState::Ok) => show::health(Health::Well, "answers"),
        Some(StoreState::Unreachable) => show::health(Health::Bad, "a device cannot reach it"),
        Some(StoreState::Denied) => show::health(Health::Bad, "it refuses the credentials"),
        Some(StoreState::Other) => show::health(Health::Warn, "it answers with errors"),
        None => show::health(Health::Unknown, "no device uses it now"),
    }
}

/// `GET /settings`.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let frame = frame(call, Here::Settings);
    let open = sent(call);
    let (me, _, own) = call.person()?;
    let can_own = own == Role::Owner;
    let given = |form: &str, field: Field, name: &str| {
        let field = field.of(form);
        if open == form { field.error(frame.error(name)).value(call.visit.form.text(name)) } else { field }
    };
    let (mut people_rows, mut invite_rows, mut channels) = (Vec::new(), Vec::new(), Vec::new());
    if can_own {
        let with_second = second::people(tenant)?;
        let people: Page<Person> = people::list(call, tenant)?.thing()?;
        for person in people.items {
            people_rows.push(PersonRow {
                name: show::name(&person.name),
                role: Field::new("role", "May", roles(&[Role::Viewer, Role::Operator, Role::Owner]))
                    .of(&person.id.to_string())
                    .value(role_name(person.role)),
                has_second: with_second.contains(&person.id),
                is_self: person.id == me,
                path: format!("/settings/people/{}", person.id),
            });
        }
        let open: Page<OpenInvite> = people::invites(call, tenant)?.thing()?;
        for invite in open.items {
            invite_rows.push(InviteRow {
                role: if invite.new_account {
                    "owner of an account of their own"
                } else {
                    role_name(invite.role)
                },
                ends: Html::pair("ends ", show::until(invite.ends, frame.now)),
                path: format!("/settings/invites/{}/remove", invite.id),
            });
        }
        for channel in notify::channels(tenant)? {
            let state = match (channel.problem, channel.sent) {
                (Some(problem), _) => show::health(Health::Bad, &problem),
                (None, Some(sent)) => Html::pair(
                    show::health(Health::Well, "the last one arrived "),
                    show::ago(chance::time(sent), frame.now),
                ),
                (None, None) => Html::text("nothing was sent yet"),
            };
            channels.push(ChannelRow {
                kind: channel.target.kind(),
                to: show::name(&channel.target.shown()),
                state,
                path: format!("/settings/channels/{}", channel.id),
            });
        }
    }
    let names = super::names::people(tenant)?;
    let tokens: Page<Token> = people::tokens(call, tenant)?.thing()?;
    let token = |token: Token| TokenRow {
        title: show::name(&token.title),
        person: names.get(&token.person.0).map_or_else(|| Html::text("–"), |name| show::name(name)),
        role: role_name(token.role),
        ends: show::until(token.ends, frame.now),
        path: format!("/settings/tokens/{}/end", token.id),
    };
    let states = store_states(tenant)?;
    let all: Page<Store> = stores::list(call, tenant)?.thing()?;
    let store = |store: Store| StoreRow {
        url: show::name(&store.url),
        state: store_state(states.get(&store.id.0).copied()),
        path: format!("/settings/stores/{}/remove", store.id),
    };
    let mut retention = Vec::new();
    for row in tenant
        .query("SELECT app, name, seal_every_s FROM app WHERE account = $1 ORDER BY name LIMIT 200", &[])?
    {
        retention.push(RetentionRow {
            path: format!("/apps/{}", Uuid(row.id(0)?)),
            name: show::name(row.text(1)?),
            keeps: format!("a moment at least every {} s while it writes", row.count(2)?),
        });
    }
    let life = rows::life(tenant)?;
    let facts = vec![
        ("Version", Html::text(env!("CARGO_PKG_VERSION"))),
        ("Base of apps' names", Html::text(&call.shared.domain)),
        ("Its key", Html::text(&Hex(call.shared.public()).to_string())),
        (
            "State",
            if life.recovering {
                show::health(Health::Warn, "waits for its devices after a restore")
            } else {
                show::health(Health::Well, "well")
            },
        ),
    ];
    let days = |form: &str, first: &str, most: u64| {
        let field = Field::new("days", "Good for so many days", Kind::Number).value(first);
        given(form, field.hint(format!("At most {most}.")), "days")
    };
    let below: Vec<Role> =
        [Role::Viewer, Role::Operator, Role::Owner].into_iter().filter(|role| *role <= own).collect();
    let mut invite = vec![
        given(
            "invite",
            Field::new("role", "They may", roles(&[Role::Viewer, Role::Operator, Role::Owner])),
            "role",
        ),
        days("invite", "1", INVITE_DAYS),
    ];
    if matches!(call.caller, super::Caller::Person { first: true, .. }) {
        let own =
            Field::new("new_account", "They get an account of their own here, apart from yours", Kind::Flag);
        invite.push(given("invite", own, "new_account"));
    }
    let text = |form: &str, name: &str, label: &str, hint: &str| {
        let field = Field::new(name, label, Kind::Text);
        given(form, if hint.is_empty() { field } else { field.hint(hint) }, name)
    };
    let ways = Kind::Choices(vec![
        Choice::new("starttls", "STARTTLS (usually port 587)"),
        Choice::new("tls", "TLS from the beginning (usually port 465)"),
        Choice::new("none", "Without encryption: on this machine or your own network"),
    ]);
    Ok(Reply::page(&pages::Settings {
        can_own,
        people: people_rows,
        invites: invite_rows,
        invite,
        tokens: tokens.items.into_iter().map(token).collect(),
        token: vec![
            text("token", "title", "What it is called", "").length(64),
            given("token", Field::new("role", "It may", roles(&below)), "role"),
            days("token", "90", TOKEN_DAYS),
        ],
        stores: all.items.into_iter().map(store).collect(),
        store: vec![
            text(
                "store",
                "url",
                "Address",
                "Like s3://BUCKET/PREFIX, gs://BUCKET, https://SERVER/FOLDER, or file:///FOLDER.",
            ),
            given(
                "store",
                Field::new("shared", "Of a folder: every device sees the same one", Kind::Flag),
                "shared",
            ),
        ],
        channels,
        webhook: vec![given(
            "webhook",
            Field::new("url", "Address", Kind::Url)
                .hint("A POST with JSON (title, text, kind, time) goes there."),
            "url",
        )],
        mail: vec![
            given("mail", Field::new("to", "To", Kind::Email), "to"),
            given("mail", Field::new("from", "From", Kind::Email), "from"),
            text("mail", "host", "Mail server", ""),
            given("mail", Field::new("port", "Port", Kind::Number).value("587"), "port")
                .value(if open == "mail" { call.visit.form.text("port") } else { "587" }),
            given("mail", Field::new("security", "Encryption", ways), "security"),
            text("mail", "user", "User", "").optional(),
            Field::new("password", "Password", Kind::Password)
                .of("mail")
                .optional()
                .hint("The hive keeps it, since it must log in with it: make one for this alone."),
        ],
        retention,
        facts,
        open,
        frame,
    }))
}

fn saved(part: &str) -> Reply {
    Reply::to(format!("/settings?done=saved#{part}"))
}

fn removed(part: &str) -> Reply {
    Reply::to(format!("/settings?done=removed#{part}"))
}

/// How long something is good for, as the form says it: so many days at most.
fn seconds(call: &Call, most: u64) -> Result<u64, Fail> {
    let days: Option<u64> = call.visit.form.text("days").trim().parse().ok();
    let days = days.filter(|days| (1..=most).contains(days));
    let days = days.ok_or_else(|| Fail::field("days", format!("say a number of days from 1 to {most}")))?;
    Ok(days * DAY_S)
}

/// `POST /settings/people/{id}/role`. Who takes something from themselves is asked first: nobody but another owner gives
/// it back.
pub fn role(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, (me, _, own)): (Uuid, _) = (call.param(0)?, call.person()?);
    let confirmed = call.query.get("role");
    let wish = confirmed.map_or_else(|| call.visit.form.text("role"), String::as_str);
    if id == me && confirmed.is_none() && [Role::Viewer, Role::Operator].map(role_name).contains(&wish) {
        return Ok(Reply::to(format!("/settings/people/{id}/role?role={wish}")));
    }
    // The same as it was changes nothing, and is no event.
    if id != me || wish != role_name(own) {
        people::change(&call.asking(&json!({"role": wish})), tenant)?;
    }
    Ok(saved("people"))
}

/// `GET /settings/people/{id}/role`: whether somebody really wishes to be less than an owner from now on.
pub fn own_role(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, name) = somebody(call, tenant)?;
    let wish = call.query.get("role").map_or("", String::as_str);
    let less = [Role::Operator, Role::Viewer].into_iter().find(|role| role_name(*role) == wish);
    let Some(less) = less.filter(|_| call.person().is_ok_and(|(me, ..)| me == id)) else {
        return Ok(Reply::to("/settings#people"));
    };
    let what = [
        "You are an owner no more: people, stores, notifications and devices are then for others to change.",
        "Only another owner makes you one again.",
    ];
    Ok(Reply::page(&Confirm {
        frame: frame(call, Here::Settings),
        title: format!("Become {}?", somebody_who_is(less)),
        subject: show::name(&name),
        what: what.map(str::to_owned).to_vec(),
        fields: Vec::new(),
        action: format!("/settings/people/{id}/role?role={wish}"),
        button: "Change it".to_owned(),
        is_danger: true,
        back: "/settings#people".to_owned(),
    }))
}

/// `POST /settings/people/{id}/second-off`.
pub fn second_off(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, _) = somebody_else(call, tenant)?;
    second::off(tenant, id)?;
    Ok(saved("people"))
}

/// Of whom a path is, and what they are called.
fn somebody(call: &Call, tenant: &mut Tenant<'_>) -> Result<(Uuid, String), Fail> {
    let id: Uuid = call.param(0)?;
    let row = tenant.one("SELECT name FROM person WHERE account = $1 AND person = $2", &[id.0.into()])?;
    Ok((id, row.ok_or_else(Fail::not_found)?.text(0)?.to_owned()))
}

/// The same, but for who asks: their own second factor is turned off with a code, which is counted and slowed down.
fn somebody_else(call: &Call, tenant: &mut Tenant<'_>) -> Result<(Uuid, String), Fail> {
    let (id, name) = somebody(call, tenant)?;
    if id == call.person()?.0 {
        return Err(Fail::state("your own second factor is turned off with a code")
            .hint("Turn it off under your name, at the top of the page."));
    }
    Ok((id, name))
}

/// `GET /settings/people/{id}/second-off`.
pub fn second(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, name) = somebody_else(call, tenant)?;
    let what = [
        "From then on their password alone logs them in: whoever has learnt it is in.",
        "This is for who lost phone and recovery codes. Be sure that it is they who ask you.",
    ];
    Ok(Reply::page(&Confirm {
        frame: frame(call, Here::Settings),
        title: format!("Turn off the second factor of {name}?"),
        subject: show::name(&name),
        what: what.map(str::to_owned).to_vec(),
        fields: Vec::new(),
        action: format!("/settings/people/{id}/second-off"),
        button: "Turn it off".to_owned(),
        is_danger: true,
        back: "/settings#people".to_owned(),
    }))
}

/// `GET /settings/people/{id}/remove`.
pub fn person(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, name) = somebody(call, tenant)?;
    let what = "They are logged out everywhere, and their tokens end. What they know already, they know: who had the data passphrase still has it.";
    Ok(Reply::page(&Confirm {
        frame: frame(call, Here::Settings),
        title: format!("Remove {name}?"),
        subject: show::name(&name),
        what: vec![what.to_owned()],
        fields: Vec::new(),
        action: format!("/settings/people/{id}/remove"),
        button: "Remove".to_owned(),
        is_danger: true,
        back: "/settings#people".to_owned(),
    }))
}

/// `POST /settings/people/{id}/remove`.
pub fn person_remove(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    people::remove(call, tenant)?;
    Ok(removed("people"))
}

/// `POST /settings/invites`.
pub fn invite(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let form = &call.visit.form;
    let wish = json!({"role": form.text("role"), "ends_in_s": seconds(call, INVITE_DAYS)?, "new_account": form.flag("new_account")});
    let made: NewInvite = people::invite(&call.asking(&wish), tenant)?.thing()?;
    Ok(Reply::page(&Once {
        frame: frame(call, Here::Settings),
        title: "The invitation".to_owned(),
        what: vec![format!(
            "Give it to one person. It is taken up at {}/accept, once, until {}.",
            call.visit.origin(),
            show::exact(made.ends)
        )],
        secret: made.invite.reveal().to_owned(),
        back: ("/settings#people", "Back to the settings"),
    }))
}

/// `POST /settings/invites/{id}/remove`.
pub fn uninvite(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    people::uninvite(call, tenant)?;
    Ok(removed("people"))
}

/// `POST /settings/tokens`.
pub fn token(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let form = &call.visit.form;
    let wish = json!({"title": form.text("title").trim(), "role": form.text("role"), "ends_in_s": seconds(call, TOKEN_DAYS)?});
    let made: NewToken = people::token(&call.asking(&wish), tenant)?.thing()?;
    Ok(Reply::page(&Once {
        frame: frame(call, Here::Settings),
        title: "The token".to_owned(),
        what: vec![format!(
            "Programs show it as `Authorization: Bearer …`. It may do what {} may, until {}.",
            somebody_who_is(made.role),
            show::exact(made.ends)
        )],
        secret: made.token.reveal().to_owned(),
        back: ("/settings#tokens", "Back to the settings"),
    }))
}

/// `POST /settings/tokens/{id}/end`.
pub fn untoken(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    people::untoken(call, tenant)?;
    Ok(removed("tokens"))
}

/// `POST /settings/stores`.
pub fn store(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let form = &call.visit.form;
    stores::make(
        &call.asking(&json!({"url": form.text("url").trim(), "shared": form.flag("shared")})),
        tenant,
    )?;
    Ok(saved("stores"))
}

/// `GET /settings/stores/{id}/remove`.
pub fn store_gone(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: Uuid = call.param(0)?;
    let all: Page<Store> = stores::list(call, tenant)?.thing()?;
    let store = all.items.into_iter().find(|store| store.id == id).ok_or_else(Fail::not_found)?;
    let what = [
        "The hive forgets it, and nothing goes there any more. While an app uses it, it cannot be removed.",
        "What lies in it stays there, encrypted, until you delete it yourself.",
    ];
    Ok(Reply::page(&Confirm {
        frame: frame(call, Here::Settings),
        title: "Remove a store?".to_owned(),
        subject: show::name(&store.url),
        what: what.map(str::to_owned).to_vec(),
        fields: Vec::new(),
        action: format!("/settings/stores/{id}/remove"),
        button: "Remove it".to_owned(),
        is_danger: true,
        back: "/settings#stores".to_owned(),
    }))
}

/// `POST /settings/stores/{id}/remove`.
pub fn unstore(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    stores::remove(call, tenant)?;
    Ok(removed("stores"))
}

/// `POST /settings/channels/webhook`.
pub fn webhook(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    notify::add(tenant, Target::webhook(call.visit.form.text("url").trim())?)?;
    Ok(saved("notify"))
}

/// `POST /settings/channels/mail`.
pub fn mail(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let form = &call.visit.form;
    let port = form
        .text("port")
        .trim()
        .parse()
        .map_err(|_| Fail::field("port", "a port is a number from 1 to 65535"))?;
    let text = |name: &str| form.text(name).trim().to_owned();
    let login = form.maybe("user").map(|user| (user.to_owned(), form.text("password").to_owned()));
    notify::add(
        tenant,
        Target::mail(text("to"), text("from"), (text("host"), port), &text("security"), login)?,
    )?;
    Ok(saved("notify"))
}

/// `POST /settings/channels/{id}/test`.
pub fn channel_test(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        notify::test(&call).await?;
        Ok(saved("notify"))
    })
}

/// `GET /settings/channels/{id}/remove`.
pub fn channel_gone(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: Uuid = call.param(0)?;
    let all = notify::channels(tenant)?;
    let channel = all.iter().find(|channel| channel.id == id).ok_or_else(Fail::not_found)?;
    let last = if all.len() == 1 { " It is the only one: then nobody is told." } else { "" };
    let what = [
        format!("Nothing is told there any more when a device is silent, or an app is not well.{last}"),
        "The hive forgets its address and its password: you fill them in again if you want it back."
            .to_owned(),
    ];
    Ok(Reply::page(&Confirm {
        frame: frame(call, Here::Settings),
        title: "Remove a notification?".to_owned(),
        subject: Html::pair(format!("{}: ", channel.target.kind()), show::name(&channel.target.shown())),
        what: what.into(),
        fields: Vec::new(),
        action: format!("/settings/channels/{id}/remove"),
        button: "Remove it".to_owned(),
        is_danger: true,
        back: "/settings#notify".to_owned(),
    }))
}

/// `POST /settings/channels/{id}/remove`.
pub fn channel_remove(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    notify::remove(tenant, call.param(0)?)?;
    Ok(removed("notify"))
}
