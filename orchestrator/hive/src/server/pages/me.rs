//! What is one's own: password, second factor, sessions; and an invitation that is taken up.

use std::sync::Arc;

use orchestrator_api::text::Uuid;
use orchestrator_api::wire::people::Me;
use orchestrator_console::pages::{self, Once, SessionRow};
use orchestrator_console::show::{self, Field, Html, Kind};
use serde_json::json;

use super::super::call::{Answering, Call, Reply};
use super::super::chance;
use super::super::fail::Fail;
use super::super::people::{self, Grant, SESSION_S};
use super::super::second;
use super::super::tenant::{Tenant, uuid};
use super::settings::role_name;
use super::{Here, frame};

/// `GET /me`.
pub fn me(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let frame = frame(call, Here::None);
    let me: Me = people::me(call, tenant)?.thing()?;
    let (_, this, _) = call.person()?;
    let sql = "SELECT id, agent, address, used FROM session WHERE account = $1 AND person = $2 AND half = 0 \
         AND ends > $3 ORDER BY used DESC";
    let mut sessions = Vec::new();
    for row in tenant.query(sql, &[me.person.0.into(), frame.now.0.into()])? {
        let id = uuid(&row, 0)?;
        sessions.push(SessionRow {
            agent: match row.text(1)? {
                "" => Html::text("a browser that does not say what it is"),
                text => browser(text).unwrap_or_else(|| show::name(text)),
            },
            address: row.text(2)?.to_owned(),
            used: show::ago(chance::time(row.int(3)?), frame.now),
            is_this: id == this,
            end: format!("/me/sessions/{id}/end"),
        });
    }
    let login =
        if me.account.first { me.name.clone() } else { format!("{}@{}", me.name, me.account.letters) };
    let password = vec![
        Field::new("old", "Present password", Kind::Password).autocomplete("current-password"),
        Field::new("new", "New password", Kind::Password)
            .hint("At least 12 characters.")
            .autocomplete("new-password")
            .error(frame.error("password")),
    ];
    Ok(Reply::page(&pages::Me {
        name: show::name(&me.name),
        role: role_name(me.role),
        account: show::name(&me.account.title),
        login,
        password,
        has_second: second::is_on(tenant, me.person)?,
        codes_left: second::codes_left(tenant, me.person)?,
        second_off: code_field("A code, or a recovery code").error(frame.error("code")),
        sessions,
        frame,
    }))
}

/// What most browsers say they are, in two words.
fn browser(agent: &str) -> Option<Html> {
    let first = |table: &[(&str, &'static str)]| {
        table.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name)
    };
    let browser = first(&[
        ("Firefox/", "Firefox"),
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ])?;
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "an iPhone"),
        ("iPad", "an iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "a Mac"),
        ("Linux", "Linux"),
    ])?;
    Some(Html::text(&format!("{browser} on {system}")))
}

fn code_field(label: &str) -> Field {
    Field::new("code", label, Kind::Text).autocomplete("one-time-code").length(32)
}

/// `POST /me/password`.
pub fn password(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let form = &call.visit.form;
        let wish = json!({"old": form.text("old"), "new": form.text("new")});
        people::password(Arc::new(call.asking(&wish))).await?;
        Ok(Reply::to("/me?done=saved"))
    })
}

/// `POST /me/sessions/{id}/end`.
pub fn end(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    people::end_session(call, tenant, call.param::<Uuid>(0)?)?;
    Ok(Reply::to("/me?done=removed"))
}

/// `GET /me/second`: begins to take it up.
pub fn second(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (person, ..) = call.person()?;
    if second::is_on(tenant, person)? {
        return Ok(Reply::to("/me"));
    }
    let secret = second::begin(tenant, person)?;
    let frame = frame(call, Here::None);
    let name = call.visit.name.clone().unwrap_or_default();
    Ok(Reply::page(&pages::Second {
        qr: show::qr(
            &second::uri(&secret, &name),
            "A picture for the authenticator app; the letters below say the same",
        ),
        secret: second::base32(&secret),
        code: code_field("Code").error(frame.error("code")),
        frame,
    }))
}

/// `POST /me/second`: turns it on.
pub fn second_on(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (person, ..) = call.person()?;
    let codes = second::confirm(tenant, person, call.visit.form.text("code"))?;
    Ok(Reply::page(&Once {
        frame: frame(call, Here::None),
        title: "Your recovery codes".to_owned(),
        what: vec![
            "The second factor is on.".to_owned(),
            "If your phone is lost, each of these codes logs you in once. Print them, or write them down."
                .to_owned(),
        ],
        secret: codes.join("\n"),
        back: ("/me", "I have them"),
    }))
}

/// `POST /me/second/off`.
pub fn second_off(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let is_off = call
            .write(|call, tenant| {
                let (person, ..) = call.person()?;
                people::failures(tenant, person)?;
                let is_right = second::check(tenant, person, call.visit.form.text("code"))?;
                match is_right {
                    true => second::off(tenant, person)?,
                    // A session that was stolen guesses no faster than a login.
                    false => people::failed(tenant, person, "second_wrong")?,
                }
                Ok(is_right)
            })
            .await?;
        match is_off {
            true => Ok(Reply::to("/me?done=saved")),
            false => Err(Fail::field("code", "this code is wrong, or was used already")),
        }
    })
}

/// `GET /accept`.
pub fn accept(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let frame = frame(&call, Here::None);
        let form = &call.visit.form;
        let field = |field: Field, name: &str| field.error(frame.error(name)).value(form.text(name));
        let fields = vec![
            field(
                Field::new("invite", "Invitation", Kind::Text)
                    .hint("The 32 letters and digits that you were given.")
                    .focus(),
                "invite",
            ),
            field(
                Field::new("name", "Your name", Kind::Text)
                    .hint("To log in with: small letters, digits and hyphens.")
                    .autocomplete("username"),
                "name",
            ),
            Field::new("password", "Password", Kind::Password)
                .hint("At least 12 characters.")
                .autocomplete("new-password")
                .error(frame.error("password")),
            field(
                Field::new("account", "What your home is called", Kind::Text)
                    .optional()
                    .hint("Only if you were invited to an account of your own.")
                    .length(64),
                "account",
            ),
        ];
        Ok(Reply::page(&pages::Accept { frame, fields }))
    })
}

/// `POST /accept`.
pub fn accept_do(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let form = &call.visit.form;
        let wish = json!({
            "invite": form.text("invite").trim(), "name": form.text("name").trim(),
            "password": form.text("password"), "account": form.maybe("account"),
        });
        let made =
            people::accepted(Arc::new(call.asking(&wish)), Grant::Session(call.visit.agent.clone())).await?;
        Ok(Reply::to("/").header(call.visit.begin(&made.token, SESSION_S)))
    })
}
