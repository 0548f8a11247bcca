//! What `comb doctor` asks the device for, as a page.

use orchestrator_console::pages::own::{Check, Doctor};
use orchestrator_console::render;
use orchestrator_console::show::{self, capital};

use super::frame::several;
use super::http::{Answer, Asked};

/// Looks at what the device needs, and says what is wrong and what to do.
pub async fn doctor(asked: Asked) -> Result<Answer, Answer> {
    // Docker and compose are asked each time: no more at once than volumes are.
    let permit = asked.turn().await?;
    let found = asked.world.checks().await;
    drop(permit);
    let wrong = found.iter().filter(|(_, found)| found.is_err()).count() as u64;
    let sum = match wrong {
        0 => "All that was looked at is well.".to_owned(),
        _ => format!("{} not as it should be.", several(wrong, "thing is", "things are")),
    };
    let check = |(what, found): (&str, Result<String, String>)| Check {
        what: capital(what),
        is_well: found.is_ok(),
        found: show::name(&capital(&found.unwrap_or_else(|wrong| wrong))),
    };
    let page = Doctor {
        frame: asked.frame(),
        device: show::name(&asked.device()),
        sum,
        checks: found.into_iter().map(check).collect(),
    };
    Ok(Answer::page(render(&page)))
}
