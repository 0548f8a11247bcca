//! A hive that was restored from a backup learns from its devices what it forgot: `failover.md`, section 12.

use orchestrator_api::ids::{DeviceId, Incarnation, Term};
use orchestrator_api::report::Hello;

use crate::rules::{Rule, keeps};
use crate::state::{DeviceState, Hive, OperationState, Refused};

/// How much a counter may have grown beyond the moment at which it was put above everything.
const GROWN_MAX: u64 = 1_000_000;
/// By how much the clock of a hive may have been ahead when it was restored, in milliseconds.
const AHEAD_MAX: u64 = 86_400_000;

impl Hive {
    /// A number that no hive can have given: it would leave no room for those that come.
    pub(crate) fn unbelievable(&self, hello: &Hello, now_ms: u64) -> Option<u64> {
        let lives = self.incarnation.0.max(now_ms + AHEAD_MAX);
        let counters = lives.max(self.floor) + GROWN_MAX;
        let said = hello.apps.values().flat_map(|said| [said.term.0, said.generation.0]);
        let beyond = said.chain([hello.command.0]).find(|number| *number > counters);
        beyond.or(Some(hello.incarnation.0).filter(|number| *number > lives))
    }

    /// Begins a new life with old knowledge.
    pub(crate) fn restored(&mut self, now_ms: u64) {
        self.incarnation = Incarnation((self.incarnation.0 + 1).max(now_ms));
        self.recovering = keeps(Rule::RecoveryWaits);
        self.heard = false;
        if keeps(Rule::CountersGoOn) {
            self.floor = self.floor.max(now_ms);
        }
        for operation in self.operations.values_mut() {
            if operation.state == OperationState::Running {
                operation.state = OperationState::Lost;
            }
        }
        // What they ask for may have been done, undone and forgotten since.
        self.commands.retain(|_, given| given.result.is_some());
        for device in self.devices.values_mut() {
            device.session = None;
            device.apps.clear();
        }
        for app in self.apps.values_mut() {
            app.placement.withdrawn = false;
            // What is known of it is old: until its device says that its volumes have an end, it is not watched.
            app.placement.leased &= !keeps(Rule::LeasesAreHeardOf);
        }
    }

    /// Whether a device heard more of this hive than it ever said.
    pub(crate) fn knows_less(&self, hello: &Hello) -> bool {
        let later = |(app, said): (_, &orchestrator_api::report::HelloApp)| {
            self.apps.get(app).map(|app| &app.placement).is_some_and(|placement| {
                let missed = placement.device.is_none() && said.mine && placement.term == said.term;
                placement.term < said.term || (missed && said.term > Term(0))
            })
        };
        hello.apps.iter().any(later)
    }

    /// Takes over what a device knows better.
    pub(crate) fn recover(&mut self, id: DeviceId, hello: &Hello) {
        let Some(device) = self.devices.get(&id) else { return };
        let (renewals, writers) = (device.renewals, device.writers.clone());
        for (app_id, said) in hello.apps.iter().filter(|_| !device.locked) {
            let Some(app) = self.apps.get_mut(app_id) else { continue };
            let placement = &mut app.placement;
            let later = said.term > placement.term;
            let newer = said.generation > app.generation;
            app.generation = app.generation.max(said.generation);
            if later {
                // Somebody has it; who, that device says itself.
                placement.term = said.term;
                placement.device = None;
            }
            // What the package does not allow was never given to it.
            let mine = said.mine && app.devices.contains(&id);
            if mine && said.term == placement.term && said.term > Term(0) {
                placement.device = Some(id);
                placement.renewed = Some(renewals);
                // Only who asks for leases can lose one.
                placement.leased = said.leased;
                if newer || later || app.problem == Some(Refused::NotHeld) {
                    app.wanted = !said.stopped;
                    app.problem = None;
                }
                for (volume, known) in &mut app.volumes {
                    known.writers.extend(writers.get(volume));
                }
            }
        }
        let greeted = |device: &crate::state::Device| {
            device.state == DeviceState::Revoked || device.locked || device.greeted >= self.incarnation
        };
        if self.devices.values().all(greeted) {
            self.heard_enough();
        }
    }

    /// A device that was not waited for says which of its terms have a lease.
    pub(crate) fn hear_of_leases(&mut self, id: DeviceId, hello: &Hello) {
        for (app_id, said) in &hello.apps {
            let free = self.running(*app_id).is_none();
            let Some(app) = self.apps.get_mut(app_id) else { continue };
            let placement = &mut app.placement;
            if free && said.mine && placement.device == Some(id) && placement.term == said.term {
                placement.leased = said.leased;
            }
        }
    }

    /// No more devices are waited for. A lease may still run that was granted for a term of before, or by a hive
    /// that was forgotten; the scheduler waits for the end of them all.
    pub(crate) fn heard_enough(&mut self) {
        self.heard = true;
        if !keeps(Rule::RecoveryWaitsForLeases) {
            self.recovered();
        }
    }

    /// Goes on with what is known now.
    pub(crate) fn recovered(&mut self) {
        self.recovering = false;
        self.heard = false;
        for app in self.apps.values_mut() {
            if app.placement.device.is_none() && app.wanted {
                app.wanted = false;
                app.problem = Some(Refused::NotHeld);
            }
        }
    }
}
