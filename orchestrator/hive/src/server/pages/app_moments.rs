//! Moments of an app: going back to one, and making a second app of one or of what a device kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_api::ids::DeviceId;
use orchestrator_api::text::Hex;
use orchestrator_api::wire::app::Moments;
use orchestrator_api::wire::command::{Moment as Told, MomentReason};
use orchestrator_console::pages::{self, Day, Moment};
use orchestrator_console::show::{self, Field, Html, Kind};
use serde_json::{Value, json};

use super::super::apps;
use super::super::call::{Answering, Call, Reply};
use super::super::database::How;
use super::super::fail::Fail;
use super::super::operations;
use super::super::tenant::Tenant;
use super::app::onward;
use super::app_view::{self, View};
use super::escaped;

/// How many stand on a page.
const SHOWN: usize = 60;
/// How long a device may take to tell them, in milliseconds.
const WAIT_MS: u64 = 4_000;

/// What a moment is called in an address: its tag, or `volume=seal` of each volume.
fn address(moment: &Told) -> String {
    match &moment.tag {
        Some(tag) => tag.as_str().to_owned(),
        None => {
            let seals: Vec<String> =
                moment.volumes.iter().map(|one| format!("{}={}", one.volume, one.seq.0)).collect();
            format!("seals:{}", seals.join(","))
        }
    }
}

/// The same as the routes for programs have it; none if it is no name of a moment.
fn named(text: &str) -> Option<Value> {
    let Some(seals) = text.strip_prefix("seals:") else {
        let fits = !text.is_empty() && text.len() <= 64 && !text.chars().any(char::is_control);
        return fits.then(|| text.into());
    };
    let mut all = BTreeMap::new();
    for part in seals.split(',').take(33) {
        let (volume, seq) = part.split_once('=')?;
        let volume: Hex<32> = volume.parse().ok()?;
        all.insert(volume.to_string(), seq.parse::<u64>().ok()?);
    }
    Some(json!(all))
}

fn reason(moment: &Told) -> (&'static str, &'static str) {
    match moment.reason {
        MomentReason::Asked => ("asked for", "asked"),
        MomentReason::Update => ("before an update", "asked"),
        MomentReason::UpdateFailed => ("what a failed update wrote", "odd-one"),
        MomentReason::MoveFailed => ("what a failed move wrote", "odd-one"),
        MomentReason::Regular => ("by itself", "regular"),
    }
}

fn row(view: &View, moment: &Told) -> Moment {
    let (reason, class) = reason(moment);
    let to = escaped(&address(moment));
    let exact = show::exact(moment.time);
    Moment {
        ago: show::ago(moment.time, view.frame.now),
        exact: Html::text(exact.split_once(' ').map_or(exact.as_str(), |(_, clock)| clock)),
        tag: moment
            .tag
            .as_ref()
            .filter(|tag| !tag.as_str().starts_with("comb-"))
            .map(|tag| show::name(tag.as_str())),
        reason,
        class,
        size: show::bytes(moment.volumes.iter().map(|one| one.bytes.0).sum()),
        files: moment.volumes.iter().map(|one| one.files.0).sum(),
        rollback: format!("{}/rollback?to={to}", view.head.path),
        fork: format!("{}/fork?to={to}", view.head.path),
    }
}

/// `GET /apps/{id}/moments`: the app's device is asked.
pub fn list(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let account = call.account()?;
        let asking = call.clone();
        let look = move |tx: &mut dyn super::super::database::Tx| {
            View::of(&asking, &mut Tenant::new(tx, account), "moments")
        };
        let view = call.shared.database.transact(How::Read, look).await?;
        let asked = call.listing([("wait_ms", Some(WAIT_MS.to_string()))]);
        let told = match operations::moments(Arc::new(asked)).await {
            Ok(reply) => Ok(reply.thing::<Moments>()?),
            Err(Fail::Api(error)) => Err(error),
            Err(other) => return Err(other),
        };
        let (moments, problem) = match told {
            Ok(moments) => (moments, None),
            Err(error) => {
                let none = Moments { items: Vec::new(), as_of: None };
                (none, Some((show::capital(&error.message), error.hint)))
            }
        };
        let first = call.number("first")?.unwrap_or(0).min(10_000) as usize;
        let mut days: Vec<Day> = Vec::new();
        for told in moments.items.iter().skip(first).take(SHOWN) {
            let date = show::exact(told.time).split(' ').next().unwrap_or_default().to_owned();
            match days.last_mut().filter(|day| day.date == date) {
                Some(day) => day.moments.push(row(&view, told)),
                None => days.push(Day { date, moments: vec![row(&view, told)] }),
            }
        }
        let count = moments.items.len();
        let next = first + SHOWN;
        let page = pages::AppMoments {
            days,
            count,
            as_of: moments.as_of.map(|time| show::ago(time, view.frame.now)),
            problem,
            more: (next < count).then(|| format!("{}/moments?first={next}", view.head.path)),
            head: view.head,
            frame: view.frame,
        };
        Ok(Reply::page(&page))
    })
}

/// What a form or an address says of a moment.
fn wished(call: &Call) -> Result<(String, Value), Fail> {
    let text = call.query.get("to").map_or_else(|| call.visit.form.text("to"), String::as_str);
    let value = named(text).ok_or_else(Fail::not_found)?;
    Ok((text.to_owned(), value))
}

/// What is known of a moment: the hive keeps what the app's device told last.
fn known(tenant: &mut Tenant<'_>, view: &View, text: &str) -> Result<Option<Told>, Fail> {
    let sql = "SELECT moments FROM moments WHERE account = $1 AND app = $2";
    let Some(found) = tenant.one(sql, &[view.app.id.0.into()])? else { return Ok(None) };
    let all: Vec<Told> = super::super::tenant::read(found.text(0)?)?;
    Ok(all.into_iter().find(|one| address(one) == text))
}

fn described(view: &View, moment: Option<&Told>) -> Html {
    match moment {
        Some(moment) => {
            let (reason, _) = reason(moment);
            Html::pair(
                show::ago(moment.time, view.frame.now),
                format!(" ({}, {reason})", show::exact(moment.time)),
            )
        }
        None => Html::text("the moment that you chose"),
    }
}

/// `GET /apps/{id}/rollback?to=`: asks.
pub fn rollback(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "moments")?;
    let (text, _) = wished(call)?;
    let moment = known(tenant, &view, &text)?;
    let page = pages::Confirm {
        title: format!("Go back with {}?", view.app.name),
        subject: Html::pair("To ", described(&view, moment.as_ref())),
        what: vec![
            "The app stops, all of its data becomes what it was at that moment, and the app starts again if it runs now.".to_owned(),
            "What is there now is kept as a moment before that: you can come back to it the same way.".to_owned(),
            "For a look without changing anything, make a second app of the moment instead.".to_owned(),
        ],
        fields: Vec::new(),
        action: format!("{}/rollback?to={}", view.head.path, escaped(&text)),
        button: "Go back to it".to_owned(),
        is_danger: false,
        back: format!("{}/moments", view.head.path),
        frame: view.frame,
    };
    Ok(Reply::page(&page))
}

/// `POST /apps/{id}/rollback?to=`.
pub fn rollback_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (_, to) = wished(call)?;
    let reply = apps::rollback(&call.asking(&json!({"to": to})), tenant)?;
    onward(call, &reply)
}

/// A branch as an address names it: `device:volume:branch`.
fn branch(text: &str) -> Option<(DeviceId, Hex<32>, &str)> {
    let (device, rest) = text.split_once(':')?;
    let (volume, name) = rest.split_once(':')?;
    Some((device.parse().ok()?, volume.parse().ok()?, name))
}

/// What a second app is made of, and what that is sent as.
fn origin<'c>(call: &'c Call, view: &View, tenant: &mut Tenant<'_>) -> Result<Second<'c>, Fail> {
    let text = call.query.get("branch").map_or_else(|| call.visit.form.text("branch"), String::as_str);
    if text.is_empty() {
        let (text, to) = wished(call)?;
        let moment = known(tenant, view, &text)?;
        return Ok((
            Html::pair("the moment ", described(view, moment.as_ref())),
            vec![("to", text)],
            Origin::Moment(to),
        ));
    }
    let (device, volume, name) = branch(text).ok_or_else(Fail::not_found)?;
    let is_kept = |one: &orchestrator_api::wire::app::KeptBranch| {
        one.device == device && one.branch.volume == volume && one.branch.name.as_str() == name
    };
    if !view.app.branches.iter().any(is_kept) {
        return Err(Fail::not_found());
    }
    let kept = Html::pair("what ", app_view::device_name(&view.devices, Some(device)));
    Ok((Html::pair(kept, " kept"), vec![("branch", text.to_owned())], Origin::Branch(device, volume, name)))
}

/// What a second app is made of: in words, as the form sends it along, and as it is ordered.
type Second<'c> = (Html, Vec<(&'static str, String)>, Origin<'c>);

enum Origin<'c> {
    Moment(Value),
    Branch(DeviceId, Hex<32>, &'c str),
}

/// `GET /apps/{id}/fork?to=` or `?branch=`.
pub fn fork(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let mut view = View::of(call, tenant, "moments")?;
    let (of, hidden, _) = origin(call, &view, tenant)?;
    // The form says what its page has behind the question mark.
    let asked: Vec<String> =
        hidden.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    view.frame.path = format!("{}/fork?{}", view.head.path, asked.join("&"));
    let form = &call.visit.form;
    let name = Field::new("name", "What it is called", Kind::Text)
        .hint("Small letters, digits and hyphens.")
        .value(form.maybe("name").map_or_else(|| format!("{}-2", view.app.name), str::to_owned))
        .length(63)
        .focus()
        .error(view.frame.error("name"));
    let page = pages::AppFork {
        of,
        fields: vec![name],
        hidden,
        action: format!("{}/fork", view.head.path),
        back: format!("{}/moments", view.head.path),
        head: view.head,
        frame: view.frame,
    };
    Ok(Reply::page(&page))
}

/// `POST /apps/{id}/fork`.
pub fn fork_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "moments")?;
    let name = call.visit.form.text("name").trim();
    if !orchestrator_api::text::is_app_name(name) {
        return Err(Fail::field(
            "name",
            "A name is 1 to 63 small letters, digits and hyphens, and begins with a letter",
        ));
    }
    let (_, _, origin) = origin(call, &view, tenant)?;
    let mut wish = json!({"name": name});
    match origin {
        Origin::Moment(to) => wish["to"] = to,
        Origin::Branch(device, volume, branch) => {
            wish["device"] = json!(device);
            wish["branches"] = json!({volume.to_string(): branch});
        }
    }
    let reply = apps::fork(&call.asking(&wish), tenant)?;
    onward(call, &reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_a_name_in_an_address_or_is_none() {
        let volume = "aa".repeat(32);
        assert_eq!(named("comb-0011223344556677"), Some(json!("comb-0011223344556677")));
        assert_eq!(named(&format!("seals:{volume}=9")), Some(json!({volume.clone(): 9})));
        for wrong in ["", "a\nb", "seals:", "seals:x=1", &format!("seals:{volume}=x"), &"x".repeat(65)] {
            assert_eq!(named(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_branch_is_of_a_device_and_a_volume() {
        let (device, volume) = ("5c0e1d6c-55ee-4d4f-b4d5-5d6f26bb2a11", "aa".repeat(32));
        let text = format!("{device}:{volume}:cut-6-e1");
        assert_eq!(branch(&text).map(|(_, _, name)| name), Some("cut-6-e1"));
        for wrong in ["", "x:y:z", &format!("{device}:{volume}")] {
            assert!(branch(wrong).is_none(), "{wrong}");
        }
    }
}
