//! Figures of devices and apps over an hour, a day and a month, for graphs.
//!
//! A subject has a row for each length of time, which holds its points; a report writes at most one minute's. Ten minutes
//! become a point of the day, four hours one of the month. So a device takes less than 20 KiB, whatever its age, and most
//! reports write nothing.
//!
//! Invariants
//! - A row has so many points at most as its length of time says.
//! - What is not known is a gap, and is drawn as one.
//! - A device tells figures of itself and of apps that it has, and of nothing else.

use orchestrator_api::ids::DeviceId;
use orchestrator_api::text::{Time, Uuid};
use orchestrator_api::wire::report::{AppReport, DiskUse, Report};
use orchestrator_api::wire::value::Number;

use super::chance;
use super::database::DbError;
use super::fail::Fail;
use super::tenant::Tenant;

/// Of a device: processors in percent, memory and disk in bytes, then bytes a second: received, sent, read, written.
pub const MACHINE: usize = 7;
/// Of an app: percent of one processor, bytes of memory.
pub const APP: usize = 2;
/// Counters may stand still for so long before their rate is not told.
const COUNTERS_MS: i64 = 600_000;

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Sixty points of a minute.
    Hour,
    /// Of ten minutes.
    Day,
    /// Of four hours: 31 days.
    Month,
}

impl Span {
    /// As a column and an address have it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Of an address; the hour if nothing is said.
    pub fn of(text: Option<&String>) -> Self {
        match text.map(String::as_str) {
            Some("day") => Self::Day,
            Some("month") => Self::Month,
            _ => Self::Hour,
        }
    }

    /// From one point to the next, in milliseconds.
    pub fn step_ms(self) -> i64 {
        match self {
            Self::Hour => 60_000,
            Self::Day => 600_000,
            Self::Month => 4 * 3_600_000,
        }
    }

    /// How many points there are.
    pub fn points(self) -> i64 {
        match self {
            Self::Hour => 60,
            Self::Day => 144,
            Self::Month => 186,
        }
    }

    /// When its first point begins and its last one ends, which is going on.
    pub fn axis(self) -> (Time, Time) {
        let end = (chance::now() / self.step_ms() + 1) * self.step_ms();
        (chance::time(end - self.step_ms() * self.points()), chance::time(end))
    }

    /// The way to each length of time from this one: what it is called, its address, and whether it is shown.
    pub fn links(self, before: &str, behind: &str) -> Vec<(&'static str, String, bool)> {
        let all = [(Self::Hour, "Hour"), (Self::Day, "Day"), (Self::Month, "Month")];
        all.map(|(one, label)| (label, format!("{before}{}{behind}", one.text()), one == self)).to_vec()
    }
}

/// A point: the number of its step since 1970, and the values; one that is not known is none of the numbers.
type Point<const N: usize> = (i64, [f32; N]);

fn unpack<const N: usize>(bytes: &[u8]) -> Vec<Point<N>> {
    let four = |bytes: &[u8], at: usize| -> [u8; 4] { bytes[at * 4..][..4].try_into().expect("four bytes") };
    let point = |bytes: &[u8]| {
        let step = u32::from_le_bytes(four(bytes, 0));
        (i64::from(step), std::array::from_fn(|at| f32::from_le_bytes(four(bytes, at + 1))))
    };
    bytes.chunks_exact(4 + 4 * N).map(point).collect()
}

fn pack<const N: usize>(points: &[Point<N>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(points.len() * (4 + 4 * N));
    for (step, values) in points {
        out.extend_from_slice(&u32::try_from(*step).unwrap_or(0).to_le_bytes());
        values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
    out
}

/// Adds a point, and lets those go that are too old; the points of the same step stay one.
fn push<const N: usize>(points: &mut Vec<Point<N>>, span: Span, point: Point<N>) {
    // A clock that was set back makes what comes after it worthless.
    points.retain(|(step, _)| (point.0 - span.points() + 1..point.0).contains(step));
    points.push(point);
}

/// The mean of the points whose steps are in a range, value by value.
fn mean<const N: usize>(points: &[Point<N>], steps: std::ops::Range<i64>) -> [f32; N] {
    std::array::from_fn(|at| {
        let known = || {
            points
                .iter()
                .filter(|point| steps.contains(&point.0))
                .map(|point| point.1[at])
                .filter(|it| it.is_finite())
        };
        let count = known().count();
        if count == 0 { f32::NAN } else { known().sum::<f32>() / count as f32 }
    })
}

fn load<const N: usize>(
    tenant: &mut Tenant<'_>,
    subject: [u8; 16],
    span: Span,
) -> Result<Vec<Point<N>>, DbError> {
    let sql = "SELECT points FROM samples WHERE account = $1 AND subject = $2 AND span = $3";
    let row = tenant.one(sql, &[subject.into(), span.text().into()])?;
    Ok(row.map(|row| row.bytes(0).map(unpack)).transpose()?.unwrap_or_default())
}

fn save(
    tenant: &mut Tenant<'_>,
    subject: [u8; 16],
    span: &str,
    at: i64,
    points: Vec<u8>,
) -> Result<(), DbError> {
    tenant.execute(
        "INSERT INTO samples (account, subject, span, at, points) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (account, subject, span) DO UPDATE SET at = excluded.at, points = excluded.points",
        &[subject.into(), span.into(), at.into(), points.into()],
    )?;
    Ok(())
}

fn add<const N: usize>(
    tenant: &mut Tenant<'_>,
    subject: [u8; 16],
    now: i64,
    values: [f32; N],
) -> Result<(), DbError> {
    let mut below: Vec<Point<N>> = load(tenant, subject, Span::Hour)?;
    let step = now / Span::Hour.step_ms();
    let before = below.last().map(|(step, _)| step * Span::Hour.step_ms());
    push(&mut below, Span::Hour, (step, values));
    save(tenant, subject, Span::Hour.text(), now, pack(&below))?;
    // What ended since the last point becomes one of the next length of time.
    for (under, over) in [(Span::Hour, Span::Day), (Span::Day, Span::Month)] {
        let Some(ended) =
            before.map(|before| before / over.step_ms()).filter(|ended| *ended < now / over.step_ms())
        else {
            break;
        };
        let each = over.step_ms() / under.step_ms();
        let made = (ended, mean(&below, ended * each..(ended + 1) * each));
        below = load(tenant, subject, over)?;
        push(&mut below, over, made);
        save(tenant, subject, over.text(), now, pack(&below))?;
    }
    Ok(())
}

fn counters(report: &Report) -> [Option<u64>; 4] {
    let load = &report.load;
    [load.received_bytes, load.sent_bytes, load.read_bytes, load.written_bytes]
        .map(|it| it.map(|it: Number| it.0))
}

fn rates(tenant: &mut Tenant<'_>, device: DeviceId, report: &Report, now: i64) -> Result<[f32; 4], DbError> {
    let sql = "SELECT at, points FROM samples WHERE account = $1 AND subject = $2 AND span = 'counters'";
    let row = tenant.one(sql, &[device.0.into()])?;
    let present = counters(report);
    let mut out = [f32::NAN; 4];
    if let Some(row) = row {
        let (at, bytes): (i64, [u8; 32]) = (row.int(0)?, row.id(1)?);
        let passed = now - at;
        if (1..COUNTERS_MS).contains(&passed) {
            for (at, chunk) in bytes.chunks_exact(8).enumerate() {
                let before = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
                // A counter that is smaller began anew.
                let grown = present[at].and_then(|it| it.checked_sub(before)).filter(|_| before != u64::MAX);
                out[at] = grown.map_or(f32::NAN, |grown| grown as f32 * 1000.0 / passed as f32);
            }
        }
    }
    let bytes: Vec<u8> = present.iter().flat_map(|it| it.unwrap_or(u64::MAX).to_le_bytes()).collect();
    save(tenant, device.0, "counters", now, bytes)?;
    Ok(out)
}

/// Takes the figures of a report, once a minute: of the device, and of those apps in it that are the device's. `seen` is
/// when the device reported before.
pub fn take<'r>(
    tenant: &mut Tenant<'_>,
    device: DeviceId,
    report: &Report,
    apps: impl Iterator<Item = &'r AppReport>,
    seen: Option<i64>,
) -> Result<(), Fail> {
    let now = chance::now();
    let minute = |ms: i64| ms / Span::Hour.step_ms();
    if seen.is_some_and(|seen| minute(seen) == minute(now)) {
        return Ok(());
    }
    let load = &report.load;
    let used = load.memory_bytes.0.saturating_sub(load.memory_free_bytes.0) as f32;
    let state = report.disks.iter().find(|disk| disk.what == DiskUse::State);
    let disk = state.map_or(f32::NAN, |disk| disk.bytes.0.saturating_sub(disk.free_bytes.0) as f32);
    let [received, sent, read, written] = rates(tenant, device, report, now)?;
    let values = [load.cpu_percent.0 as f32, used, disk, received, sent, read, written];
    add::<MACHINE>(tenant, device.0, now, values)?;
    for app in apps.filter(|app| !app.services.is_empty()) {
        let sum = |of: fn(&orchestrator_api::wire::report::ServiceReport) -> u64| {
            app.services.iter().map(of).fold(0u64, u64::saturating_add) as f32
        };
        add::<APP>(tenant, app.app.0, now, [sum(|it| it.cpu_percent.0), sum(|it| it.memory_bytes.0)])?;
    }
    Ok(())
}

/// The points of a length of time up to now, a line for each value; none where nothing is known.
pub fn lines<const N: usize>(
    tenant: &mut Tenant<'_>,
    subject: Uuid,
    span: Span,
) -> Result<[Vec<Option<f64>>; N], Fail> {
    let points: Vec<Point<N>> = load(tenant, subject.0, span)?;
    let last = chance::now() / span.step_ms();
    let mut out: [Vec<Option<f64>>; N] = std::array::from_fn(|_| vec![None; span.points() as usize]);
    for (step, values) in points {
        let Ok(at) = usize::try_from(step - (last - span.points() + 1)) else { continue };
        for (line, value) in out.iter_mut().zip(values) {
            if let Some(place) = line.get_mut(at).filter(|_| value.is_finite()) {
                *place = Some(f64::from(value));
            }
        }
    }
    Ok(out)
}

/// Forgets the figures of what is gone.
pub fn forget(tenant: &mut Tenant<'_>, subject: [u8; 16]) -> Result<(), Fail> {
    tenant.execute("DELETE FROM samples WHERE account = $1 AND subject = $2", &[subject.into()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_as_they_were_written() {
        let points: Vec<Point<2>> = vec![(29_000_000, [1.5, f32::NAN]), (29_000_001, [0.0, 3e12])];
        let read: Vec<Point<2>> = unpack(&pack(&points));
        assert_eq!(read[1], points[1]);
        assert!(read[0].1[1].is_nan() && read[0].0 == 29_000_000);
        assert!(unpack::<2>(b"short").is_empty());
    }

    #[test]
    fn a_row_does_not_grow_and_the_clock_may_jump() {
        for span in [Span::Hour, Span::Day, Span::Month] {
            let mut points: Vec<Point<MACHINE>> = Vec::new();
            for step in 0..1000 {
                push(&mut points, span, (step, [1.0; MACHINE]));
            }
            assert_eq!(points.len() as i64, span.points());
            push(&mut points, span, (999, [2.0; MACHINE]));
            assert_eq!(points.len() as i64, span.points());
            push(&mut points, span, (5, [2.0; MACHINE]));
            assert_eq!(points.len(), 1, "those of the future are gone");
        }
        let all: i64 = [Span::Hour, Span::Day, Span::Month].iter().map(|span| span.points()).sum();
        assert!(all as usize * (4 + 4 * MACHINE) < 20 << 10);
    }

    #[test]
    fn a_mean_counts_what_is_known() {
        let points: Vec<Point<2>> = vec![(10, [2.0, f32::NAN]), (11, [4.0, f32::NAN]), (20, [100.0, 1.0])];
        let [first, second] = mean(&points, 10..20);
        assert!(first == 3.0 && second.is_nan());
    }
}
