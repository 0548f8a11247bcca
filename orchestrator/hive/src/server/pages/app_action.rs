//! What people may ask of an app, with what it asks for. Its output is sealed for those who have the key ring.

use orchestrator_api::compose::InputType;
use orchestrator_api::wire::app::Action;
use orchestrator_console::pages;
use orchestrator_console::show::{self, Field, Kind, capital, quoted};
use serde_json::json;

use super::super::apps;
use super::super::call::{Call, Reply};
use super::super::chance;
use super::super::fail::Fail;
use super::super::tenant::Tenant;
use super::app::onward;
use super::app_view::View;
use super::escaped;

/// Before the names of inputs in the form.
const INPUT: &str = "input.";

fn declared<'v>(call: &Call, view: &'v View) -> Result<&'v Action, Fail> {
    let name = call.params.get(1).map_or("", String::as_str);
    view.app.actions.iter().find(|one| one.name == name).ok_or_else(Fail::not_found)
}

fn value(call: &Call, name: &str, kind: InputType) -> String {
    let text = call.visit.form.text(&format!("{INPUT}{name}"));
    match kind {
        InputType::Flag => (if text.is_empty() { "false" } else { "true" }).to_owned(),
        InputType::Text => text.to_owned(),
        _ => text.trim().to_owned(),
    }
}

/// `GET /apps/{id}/actions/{name}`.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "")?;
    let action = declared(call, &view)?;
    let tried = call.visit.problem.is_some();
    let field = |one: &orchestrator_api::wire::app::ActionInput| {
        let (kind, hint) = match one.kind {
            InputType::Name => (Kind::Text, "1 to 64 letters, digits, and . _ -"),
            InputType::Email => (Kind::Email, "An address like name@example.org"),
            InputType::Number => (Kind::Number, "A whole number"),
            InputType::Flag => (Kind::Flag, ""),
            InputType::Text => (Kind::Lines, "At most 1,024 bytes"),
        };
        let given = value(call, &one.name, one.kind);
        let error =
            one.kind.check(&one.name, &given).err().filter(|_| tried).map(|error| capital(&error.problem));
        let given = if kind == Kind::Flag && given == "true" { "on".to_owned() } else { given };
        let field = Field::new(&format!("{INPUT}{}", one.name), &capital(&show::words(&one.name)), kind);
        let field = if hint.is_empty() { field } else { field.hint(hint) };
        field.value(given).error(error)
    };
    let page = pages::AppAction {
        title: capital(&show::words(&action.name)),
        name: show::name(&capital(&show::words(&action.name))),
        service: show::name(&action.service),
        fields: action.input.iter().map(field).collect(),
        action: format!("{}/actions/{}", view.head.path, escaped(&action.name)),
        command: format!("comb app exec-action {} {}", quoted(&view.app.name), quoted(&action.name)),
        head: view.head,
        frame: view.frame,
    };
    Ok(Reply::page(&page))
}

/// `POST /apps/{id}/actions/{name}`.
pub fn run(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "")?;
    let mut input = Vec::new();
    for one in &declared(call, &view)?.input {
        let given = value(call, &one.name, one.kind);
        one.kind
            .check(&one.name, &given)
            .map_err(|error| Fail::field(&format!("{INPUT}{}", one.name), error.to_string()))?;
        input.push(json!({"name": one.name, "value": given}));
    }
    // Nobody reads the stream here: the hive could not, and says only how it ended.
    let wish = json!({"input": input, "stream": chance::uuid()});
    let reply = apps::action(&call.asking(&wish), tenant)?;
    onward(call, &reply)
}
