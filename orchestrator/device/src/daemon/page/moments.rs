//! The time machine of a volume.

use orchestrator_api::text::Time;
use orchestrator_console::pages::own::{Branch, Day, Mark, MomentRow, Moments, Timeline, line};
use orchestrator_console::render;
use orchestrator_console::show;

use super::frame::{self, MOMENTS_MAX, choices, several};
use super::http::{Answer, Asked};
use super::link;
use crate::doors::past::{Moment, Place};

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `Sunday, 22 November 2026`.
fn date(time: Time) -> String {
    let text = time.to_string();
    let part = |from: usize, to: usize| text.get(from..to).and_then(|part| part.parse::<usize>().ok());
    let (Some(year), Some(month), Some(day)) = (part(0, 4), part(5, 7), part(8, 10)) else { return text };
    let weekday = DAYS[usize::try_from(time.0.div_euclid(86_400_000).rem_euclid(7)).unwrap_or_default()];
    let month = MONTHS.get(month.wrapping_sub(1)).copied().unwrap_or_default();
    format!("{weekday}, {day} {month} {year}")
}

/// The page.
pub async fn moments(asked: Asked) -> Result<Answer, Answer> {
    let place = asked.place()?;
    let known = asked.known(&place.volume);
    let past = &asked.world.setup.past;
    let moments = asked.question(past.moments(&place.volume, MOMENTS_MAX + 1)).await?;
    let is_cut = moments.len() > MOMENTS_MAX;
    let moments = &moments[..moments.len().min(MOMENTS_MAX)];
    let branches = match known.branch {
        Some(_) => Ok(Vec::new()),
        None => asked.world.setup.volumes.branches(&place.volume).await,
    };
    let (branches, unasked) = match branches {
        Ok(branches) => (branches, None),
        Err(trouble) => (Vec::new(), Some(line(trouble.text()))),
    };
    let branch = |branch: &crate::doors::volumes::Branch| {
        let span = u64::try_from(branch.span.as_millis()).unwrap_or(u64::MAX);
        let volume = format!("{}/{}", place.volume, branch.name);
        Branch {
            name: show::name(&branch.name),
            holds: format!(
                "{} in {}, of {}",
                show::bytes(branch.bytes),
                several(branch.seals, "moment", "moments"),
                show::span(span)
            ),
            path: format!("/moments?volume={}", link::encode(volume.as_bytes())),
        }
    };
    let frame = asked.frame();
    let now = frame.now;
    let files = |moment: &Moment| {
        let path = known.base().to_vec();
        link::to("files", &Place { volume: place.volume.clone(), seq: Some(moment.seq), path })
    };
    let mut days: Vec<Day> = Vec::new();
    for (at, moment) in moments.iter().enumerate() {
        let date = date(moment.time);
        if days.last().is_none_or(|day| day.date != date) {
            days.push(Day { date, rows: Vec::new() });
        }
        let before = moments.get(at + 1).map(|before| before.seq);
        let row = row(moment, before, files(moment), &place.volume, now);
        days.last_mut().expect("one was pushed").rows.push(row);
    }
    let mark = |moment: &Moment| Mark {
        seq: moment.seq,
        time: moment.time,
        added: moment.added_bytes,
        label: moment.snapshot.is_some().then(|| {
            let tags = frame::tags(moment).join(", ");
            if tags.is_empty() { frame::reason(moment) } else { tags }
        }),
        path: files(moment),
    };
    let timeline = (moments.len() > 1).then(|| Timeline { now, marks: moments.iter().map(mark).collect() });
    let page = Moments {
        frame,
        crumbs: frame::here(asked.way(&known, &place.volume)),
        name: known.label(),
        volume: place.volume.clone(),
        is_branch: known.branch.is_some(),
        timeline,
        choices: choices(moments, None),
        before: moments.get(1).map(|moment| moment.seq),
        days,
        is_cut,
        branches: branches.iter().map(branch).collect(),
        unasked,
    };
    Ok(Answer::page(render(&page)))
}

fn row(moment: &Moment, before: Option<u64>, path: String, volume: &str, now: Time) -> MomentRow {
    let message = moment.snapshot.as_ref().map(|(_, message)| message).filter(|message| !message.is_empty());
    let is_ours = frame::reason(moment) == "before something was brought back";
    let volume = link::encode(volume.as_bytes());
    MomentRow {
        seq: moment.seq,
        time: show::clock(moment.time),
        ago: show::ago(moment.time, now),
        reason: frame::reason(moment),
        tags: frame::tags(moment).into_iter().map(show::name).collect(),
        message: message.filter(|_| !is_ours).map(|message| line(message)),
        is_snapshot: moment.snapshot.is_some(),
        files: frame::count(moment.files),
        bytes: show::bytes(moment.bytes),
        added: show::bytes(moment.added_bytes),
        path,
        changes: before.map(|before| format!("/compare?volume={volume}&from={before}&to={}", moment.seq)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_names() {
        let told = |text: &str| date(text.parse().expect("is a time"));
        assert_eq!(told("2026-11-22T08:30:00.000Z"), "Sunday, 22 November 2026");
        assert_eq!(told("2024-02-29T23:59:59.999Z"), "Thursday, 29 February 2024");
        assert_eq!(date(Time(0)), "Thursday, 1 January 1970");
    }
}
