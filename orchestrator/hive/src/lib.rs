//! What a hive decides: where each app is to run, and how that changes.
//!
//! [`decide`] is one transaction: it takes the state and an event, changes the state, and says what to answer. The
//! caller commits the rows that changed and only then answers; if it cannot commit, nothing has happened. A caller with
//! a database gives it a [`Hive`] that holds only the rows that the event touches: those of one app and of the
//! account's devices. No I/O, no clock, no chance: new ids, and the wall clock after a restore, come with the event.
//!
//! Time is counted by the [`Scheduler`] alone, in memory: it looks at the state every second and proposes events.
//!
//! Invariants
//! - A term of an app is given to one device, once, also by a hive that was restored.
//! - A step of an operation and its commands are written together.
//! - The term of an app under lease is given on only when the device said that it ended, or its watch is over.
//!
//! `docs/failover.md` is the promise.

mod devices;
mod operations;
mod recovery;
pub mod rules;
mod scheduler;
#[cfg(feature = "server")]
mod server;
mod state;

pub use operations::{Accepted, Wish};
pub use scheduler::{Look, Scheduler};
#[cfg(feature = "server")]
pub use server::{
    Fail, Options, Recovery, Restored, Server, back_up_to, pages, recover, restore_from, routes, run,
};
pub use state::{
    App, Device, DeviceState, Given, Hive, Kind, Known, Operation, OperationState, Placement, Refused, Step,
};

use std::collections::BTreeSet;

use orchestrator_api::command::{Command, CommandResult};
use orchestrator_api::ids::{AppId, CommandNumber, DeviceId, OperationId, Renewals, SessionId, Term};
use orchestrator_api::report::{Hello, Refusal, Report, ReportAnswer, Welcome};

/// What happens to a hive.
#[derive(Debug, Clone)]
pub enum Event {
    /// A device begins a session; the caller brings a new id for it.
    Hello {
        /// Who says it.
        device: DeviceId,
        /// What it says.
        hello: Hello,
        /// Random.
        session: SessionId,
        /// The hive's wall clock, since 1970, in milliseconds.
        now_ms: u64,
        /// Whether it showed that it has the account's ring. What another one says of terms is not believed.
        proved: bool,
    },
    /// A device says how it is.
    Report {
        /// Who says it.
        device: DeviceId,
        /// In which session.
        session: SessionId,
        /// What it says.
        report: Report,
    },
    /// A device asks for its commands.
    Poll {
        /// Who asks.
        device: DeviceId,
        /// In which session.
        session: SessionId,
        /// The highest that it has.
        have: CommandNumber,
    },
    /// A device says what came of a command.
    Result {
        /// Who says it.
        device: DeviceId,
        /// In which session.
        session: SessionId,
        /// What it says.
        result: CommandResult,
    },
    /// A person wishes something.
    Ordered {
        /// The id of what begins, random.
        operation: OperationId,
        /// What is wished.
        wish: Wish,
    },
    /// The scheduler looked at an operation that waits for devices to be there.
    Check {
        /// The operation.
        operation: OperationId,
        /// Devices that reported lately.
        fresh: BTreeSet<DeviceId>,
    },
    /// The scheduler saw that a term is over.
    End {
        /// The app.
        app: AppId,
        /// Its term.
        term: Term,
        /// What was seen of it.
        seen: Seen,
        /// Devices that reported lately.
        fresh: BTreeSet<DeviceId>,
        /// The id of the failover, should one begin; random.
        operation: OperationId,
    },
    /// A step did not end within its wait.
    Late {
        /// The operation.
        operation: OperationId,
        /// The step's count: a later step is not late.
        count: u64,
    },
    /// The device of an app is nobody any more, and no other one gets the app now.
    GivenUp {
        /// The app.
        app: AppId,
        /// What is wrong with that; none where nobody wanted it to run.
        problem: Option<Refused>,
    },
    /// A person does not want a planned move any more that has touched its app: the way back.
    Back {
        /// The operation.
        operation: OperationId,
        /// The step's count: a later step is decided about anew.
        count: u64,
    },
    /// A device that an operation needs was not heard for long.
    Silent {
        /// The operation.
        operation: OperationId,
        /// The step's count: a later step may not need it.
        count: u64,
        /// The device.
        device: DeviceId,
        /// Its last report that was seen: one that came since says that it is there.
        heard: Renewals,
    },
    /// The state is that of a backup.
    Restored {
        /// The hive's wall clock, since 1970, in milliseconds.
        now_ms: u64,
    },
    /// A person ends a recovery without the devices that are missing.
    FinishRecovery,
    /// The scheduler waited for leases of before the recovery.
    Recovered,
}

/// What the scheduler saw of a term that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// No renewal since this one, for the whole watch.
    Silence(Renewals),
    /// The device's report says that nothing runs.
    Stopped,
}

/// What is answered when the transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a hello.
    Welcome(Welcome),
    /// To a report.
    Report(ReportAnswer),
    /// To a poll.
    Commands(Vec<Command>),
    /// To a result: it is kept, or nobody waits for it.
    Kept(CommandNumber),
    /// To a device.
    Refused(Refusal),
    /// To a person.
    Ordered(Result<Accepted, Refused>),
    /// To the scheduler.
    Nothing,
}

/// One transaction.
pub fn decide(hive: &mut Hive, event: Event) -> Answer {
    match event {
        Event::Hello { device, hello, session, now_ms, proved } => {
            hive.hello(device, &hello, session, now_ms, proved)
        }
        Event::Report { device, session, report } => hive.report(device, session, report),
        Event::Poll { device, session, have } => hive.poll(device, session, have),
        Event::Result { device, session, result } => hive.result(device, session, result),
        Event::Ordered { operation, wish } => Answer::Ordered(hive.ordered(operation, &wish)),
        Event::Check { operation, fresh } => {
            hive.check(operation, &fresh);
            Answer::Nothing
        }
        Event::End { app, term, seen, fresh, operation } => {
            hive.end(app, term, seen, &fresh, operation);
            Answer::Nothing
        }
        Event::Late { operation, count } => {
            hive.late(operation, count);
            Answer::Nothing
        }
        Event::GivenUp { app, problem } => {
            hive.given_up(app, problem);
            Answer::Nothing
        }
        Event::Back { operation, count } => {
            hive.back(operation, count);
            Answer::Nothing
        }
        Event::Silent { operation, count, device, heard } => {
            hive.silent(operation, count, device, heard);
            Answer::Nothing
        }
        Event::Restored { now_ms } => {
            hive.restored(now_ms);
            Answer::Nothing
        }
        Event::FinishRecovery => {
            if hive.recovering {
                hive.heard_enough();
            }
            Answer::Nothing
        }
        Event::Recovered => {
            if hive.recovering && hive.heard {
                hive.recovered();
            }
            Answer::Nothing
        }
    }
}
