//! The lines of all parties, in the order of the machine's clock.

use std::collections::BTreeMap;

use orchestrator_api::history::{Line, Who};
use orchestrator_api::ids::DeviceId;

/// When somebody killed all of a device: what it did not write down ended there, at the latest.
pub type Deaths = BTreeMap<DeviceId, Vec<u64>>;

/// All lines of a run, on one machine.
#[derive(Debug, Clone, Default)]
pub struct Histories {
    lines: Vec<(Line, String)>,
    /// When devices were killed.
    pub deaths: Deaths,
}

impl Histories {
    /// Adds what one party wrote. Its last line may be torn by a crash; another one that cannot be read is a mistake.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        for (number, line) in text.split_inclusive('\n').enumerate() {
            match Line::from_json(line.trim_end()) {
                Ok(read) => self.lines.push((read, format!("{name}:{}: {}", number + 1, line.trim_end()))),
                Err(_) if !line.ends_with('\n') => {}
                Err(error) => return Err(format!("{name}:{}: {error}", number + 1)),
            }
        }
        // A party's own order holds within a millisecond.
        self.lines.sort_by_key(|(line, _)| line.boottime_ms);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Each with the text that shows where it stands.
    pub fn iter(&self) -> impl Iterator<Item = (&Line, &str)> {
        self.lines.iter().map(|(line, at)| (line, at.as_str()))
    }

    /// When a device surely wrote no more in what it began at `began`: it was killed, or wrote a line in a later boot.
    pub fn gone(&self, device: DeviceId, began: &Line) -> Option<u64> {
        let killed =
            self.deaths.get(&device).into_iter().flatten().copied().find(|at| *at >= began.boottime_ms);
        let booted = self.iter().map(|(line, _)| line).find(|line| {
            line.who == Who::Device(device)
                && line.boottime_ms >= began.boottime_ms
                && line.boot != began.boot
        });
        killed.into_iter().chain(booted.map(|line| line.boottime_ms)).min()
    }
}
