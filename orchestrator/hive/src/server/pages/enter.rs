//! The first run, logging in and out.

use std::sync::Arc;

use orchestrator_api::error::Code;
use orchestrator_console::layout::Problem;
use orchestrator_console::pages;
use orchestrator_console::show::{Field, Kind};
use serde_json::json;

use super::super::call::{Answering, Call, Caller, Reply};
use super::super::database::How;
use super::super::fail::Fail;
use super::super::people::{self, Grant, SESSION_S};
use super::{Here, escaped, frame, inside};

async fn is_set_up(call: &Call) -> Result<bool, Fail> {
    let ask = |tx: &mut dyn super::super::database::Tx| {
        Ok(!tx.query("SELECT 1 FROM account WHERE first = 1", &[])?.is_empty())
    };
    call.shared.database.transact(How::Read, ask).await
}

/// `GET /`: set up, log in, or home.
pub fn root(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        if matches!(call.caller, Caller::Person { .. }) {
            return super::looked(&call, super::home).await;
        }
        Ok(if is_set_up(&call).await? { super::to_login(&call) } else { Reply::to("/setup") })
    })
}

fn name_field(call: &Call) -> Field {
    Field::new("name", "Your name", Kind::Text)
        .value(call.visit.form.text("name"))
        .autocomplete("username")
        .length(96)
}

/// `GET /setup`.
pub fn setup(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        if is_set_up(&call).await? {
            return Ok(Reply::to("/login"));
        }
        let frame = frame(&call, Here::None);
        let form = &call.visit.form;
        let field = |field: Field, name: &str| field.error(frame.error(name));
        let fields = vec![
            field(
                Field::new("setup_code", "Setup code", Kind::Text)
                    .hint("32 letters and digits, which “comb hive run” printed.")
                    .value(form.text("setup_code"))
                    .focus(),
                "setup_code",
            ),
            field(
                Field::new("account", "What this home is called", Kind::Text)
                    .value(form.maybe("account").unwrap_or("Home"))
                    .length(64),
                "account",
            ),
            field(name_field(&call).hint("To log in with: small letters, digits and hyphens."), "name"),
            field(
                Field::new("password", "Password", Kind::Password)
                    .hint("At least 12 characters. A few words that only you put together are easiest.")
                    .autocomplete("new-password"),
                "password",
            ),
        ];
        Ok(Reply::page(&pages::Setup { frame, fields }))
    })
}

/// `POST /setup`.
pub fn setup_do(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let form = &call.visit.form;
        let wish = json!({
            "setup_code": form.text("setup_code").trim(), "account": form.text("account").trim(),
            "name": form.text("name").trim(), "password": form.text("password"),
        });
        let made =
            people::set_up(Arc::new(call.asking(&wish)), Grant::Session(call.visit.agent.clone())).await?;
        Ok(Reply::to("/devices/add").header(call.visit.begin(&made.token, SESSION_S)))
    })
}

fn wanted(call: &Call) -> String {
    let to = call.query.get("to").map(String::as_str).or_else(|| call.visit.form.maybe("to"));
    inside(to.unwrap_or("/")).to_owned()
}

/// `GET /login`.
pub fn login(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        if matches!(call.caller, Caller::Person { .. }) {
            return Ok(Reply::to(wanted(&call)));
        }
        if !is_set_up(&call).await? {
            return Ok(Reply::to("/setup"));
        }
        let mut frame = frame(&call, Here::None);
        if call.query.contains_key("unsent") {
            frame.problem = Some(Problem {
                message: "Nothing was sent: your login has ended".to_owned(),
                hint: Some("Log in, and send it again: its page comes next.".to_owned()),
                field: None,
            });
        }
        let fields = vec![
            name_field(&call).focus().error(frame.error("name")),
            Field::new("password", "Password", Kind::Password).autocomplete("current-password"),
        ];
        let to = wanted(&call);
        Ok(Reply::page(&pages::Login { frame, fields, action: "/login", to, is_second: false }))
    })
}

/// `POST /login`.
pub fn login_do(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let form = &call.visit.form;
        let wish = json!({"name": form.text("name").trim(), "password": form.text("password")});
        let grant = Grant::Session(call.visit.agent.clone());
        let made = people::log_in(Arc::new(call.asking(&wish)), grant).await;
        let made = made.map_err(|fail| match fail {
            Fail::Api(error)
                if error.code == Code::UnknownField
                    || error.code == Code::BadJson
                    || error.code == Code::BadRequest =>
            {
                Fail::new(Code::LoginWrong, "name or password is wrong")
            }
            other => other,
        })?;
        let to = wanted(&call);
        let next = if made.is_half { format!("/login/second?to={}", escaped(&to)) } else { to };
        Ok(Reply::to(next).header(call.visit.begin(&made.made.token, SESSION_S)))
    })
}

/// `GET /login/second`.
pub fn second(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        if matches!(call.caller, Caller::Person { .. }) {
            return Ok(Reply::to(wanted(&call)));
        }
        let frame = frame(&call, Here::None);
        let code = Field::new("code", "Code", Kind::Text).autocomplete("one-time-code").length(32).focus();
        let to = wanted(&call);
        let fields = vec![code.error(frame.error("code"))];
        Ok(Reply::page(&pages::Login { frame, fields, action: "/login/second", to, is_second: true }))
    })
}

/// `POST /login/second`.
pub fn second_do(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let made = people::log_in_second(call.clone()).await?;
        Ok(Reply::to(wanted(&call)).header(call.visit.begin(&made, SESSION_S)))
    })
}

/// `POST /logout`.
pub fn logout(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        call.write(|call, tenant| {
            let (_, session, _) = call.person()?;
            people::end_session(call, tenant, session)?;
            Ok(Reply::none())
        })
        .await?;
        Ok(Reply::to("/login?done=out").header(call.visit.end()))
    })
}
