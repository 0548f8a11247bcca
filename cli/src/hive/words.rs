//! Codes of hive and devices, in words for a person.

use std::collections::BTreeMap;

use orchestrator_api::compose::Protocol;
use orchestrator_api::release::Arch;
use orchestrator_api::wire::command::Late;
use orchestrator_api::wire::operation::{Lost, Operation};
use orchestrator_api::wire::report::ProblemReport;

use crate::output;

/// What a code of `api.md`, section 6, means, and what to do about it. A code of a newer hive is shown as it is.
pub fn problem(code: &str) -> (String, Option<&'static str>) {
    let (words, hint) = match code {
        "docker_stopped" => {
            ("Docker does not answer there", Some("start Docker on that machine; it goes on by itself"))
        }
        "docker_slow" => ("Docker answers slowly there", None),
        "image_missing" => (
            "an image is not on that machine and cannot be fetched",
            Some(
                "one that was built is on the machine only where it was built; push it to a registry, or choose that device",
            ),
        ),
        "image_unknown" => ("no registry has the image", Some("is its name right?")),
        "image_changed" => (
            "an image has another digest than was signed",
            Some("`comb app update NAME` signs the present one"),
        ),
        "arch_mismatch" => (
            "an image is for another processor than that machine has",
            Some(
                "name one that is for both, choose another device, or say `platform:` in the file to have it emulated",
            ),
        ),
        "pull_failed" => ("an image could not be fetched", Some("see that the machine reaches the registry")),
        "compose_failed" => (
            "docker compose refused the app",
            Some("`comb device status` on its machine, or the app's page there, has its words"),
        ),
        "config_changed" => (
            "docker compose reads the files there otherwise than when they were signed",
            Some("`comb app update NAME DIR` signs them anew"),
        ),
        "policy_refused" => ("the compose file says what it may not", None),
        "package_wrong" => (
            "the package is not signed by the owner, or does not fit",
            Some("`comb app update NAME DIR` makes a new one"),
        ),
        "package_expired" => {
            ("the package may not be started any more", Some("`comb app update NAME` signs it anew"))
        }
        "package_sealed" => (
            "the device has no key for the package",
            Some("`comb device unlock` on that machine asks for the passphrase"),
        ),
        "mount_dead" | "mount_died" => {
            ("a volume's mount there is dead", Some("`comb status` on that machine says why"))
        }
        "marker_wrong" | "epoch_wrong" => {
            ("what is mounted there is not the app's volume as it should be", None)
        }
        "lease_over" => ("the lease ended", None),
        "term_over" => ("another device has the app", None),
        "head_unexpected" => (
            "the store has a writer that the hive does not know of",
            Some(
                "`comb app show NAME` says whose; `comb app move NAME --to DEVICE --force --accept-seen` takes over all the same",
            ),
        ),
        "store_unreachable" => {
            ("the store does not answer", Some("see that the store is up and can be reached from there"))
        }
        "store_denied" => (
            "the store refuses the credentials",
            Some("`comb account store add URL --credentials-file F` puts new ones into the key ring"),
        ),
        "volume_damaged" => {
            ("a volume cannot be read there", Some("`comb check` on that machine names what is damaged"))
        }
        "volume_read_only" => {
            ("a volume takes no writes there", Some("`comb status` on that machine says why"))
        }
        "no_space" => (
            "there is too little room there",
            Some(
                "make room on that machine, or `comb app move NAME --to DEVICE`; what is safe stays, and the app goes on by itself",
            ),
        ),
        "port_taken" => ("a port is another program's there", None),
        "unhealthy" => ("a service is not healthy", Some("`comb app logs NAME` may say why")),
        "exits" => ("a service ends again and again", Some("`comb app logs NAME` may say why")),
        "gate_late" => (
            "it was not well in time",
            Some("`comb app logs NAME` may say why; x-comb.health.startup gives it longer"),
        ),
        "claim_lost" => ("others claimed the volumes at the same time", None),
        "instant_torn" => {
            ("only some of its volumes have the moment", Some("`comb app log NAME` lists moments"))
        }
        "ring_late" => ("the key ring could not be published in time", None),
        "key_missing" => (
            "the key ring there lacks a volume's key",
            Some("`comb key ring publish` on the machine that has it"),
        ),
        "stop_late" => ("its containers did not stop in time", None),
        "publish_late" => {
            ("not all could be replicated in time", Some("`comb status` there says what the store lacks"))
        }
        "hook_failed" => ("a hook of the app failed", None),
        "update_rolled_back" => {
            ("the new revision was not well; the old one runs again, with its data", None)
        }
        "unknown_command" => ("the device is too old for this", Some("update comb there")),
        "obsolete" => ("a later order took its place", None),
        "hive_went_back" => {
            ("the device knows a newer hive than this one", Some("two hives run: stop the old one"))
        }
        "fenced" => ("another device writes the volumes", None),
        "state" => ("it is in no state for this", None),
        "late" => ("the device did not answer in time", None),
        "not_logged_in" => ("the login ended, or may do less now", Some("`comb login` makes another")),
        "no_standby" => ("no other device stands by for it", Some("`comb device code` adds a device")),
        "no_candidate" => ("no device can take it", Some("`comb device list` says how they are")),
        "volumes_unknown" => (
            "it was started, and the device that has its volumes did not tell of them",
            Some(
                "let that device report, or start it there; if it never wrote anything, remove it and add it anew",
            ),
        ),
        "not_held" => ("no device has it any more", Some("`comb app start NAME` starts it")),
        "device_silent" => (
            "the device is silent",
            Some(
                "`comb device list` says when it was heard of; if it is gone, `comb app move NAME --to DEVICE --force` \
                 starts its app elsewhere with what is safe",
            ),
        ),
        "forced" => ("a forced move took its place", None),
        "stopped" => ("it does not run, so there is nothing to hand over", None),
        "operation_running" => (
            "something else is being done with it",
            Some("`comb operation list --running` shows what; wait for it, or cancel it"),
        ),
        "hive_recovering" => (
            "the hive was restored, and waits for its devices",
            Some("`comb hive recover` shows which are missing"),
        ),
        "device_online" => (
            "the device reports, and a planned move loses nothing",
            Some("move it without --force, or add --even-if-online"),
        ),
        "device_not_authorized" => (
            "the owner did not name the device for it",
            Some("`comb app update NAME --may-run-on DEVICE` signs it anew"),
        ),
        "device_revoked" => ("the device was revoked", Some("choose another device")),
        "device_draining" => {
            ("the device gets no app any more", Some("choose another one, or `comb device drain --undo` it"))
        }
        "device_locked" => {
            ("the device waits for its passphrase", Some("`comb device unlock` on that machine asks for it"))
        }
        "docker_away" => ("Docker does not answer there", Some("start Docker on that machine")),
        "store_is_local" => (
            "its store is a folder on another device",
            Some("`comb app add` it with a store that both devices reach"),
        ),
        "cancelled" => ("it was cancelled", None),
        other => return (other.replace('_', " "), None),
    };
    (words.to_owned(), hint)
}

/// The same with its place, in one line.
pub fn problem_at(report: &ProblemReport) -> String {
    let mut text = problem(report.code.text()).0;
    if let Some(service) = &report.service {
        text = format!("service \"{}\": {text}", output::escape(service.as_str().as_bytes()));
    }
    if let (Some(file), Some(line)) = (&report.file, report.line) {
        text = format!("{}:{}: {text}", output::escape(file.as_str().as_bytes()), line.0);
    }
    text
}

/// How far an operation is: apps of a device that is emptied, else bytes.
pub fn progress(operation: &Operation) -> Option<String> {
    let (done, total) = (operation.done?.0, operation.total?.0);
    Some(match operation.kind.as_str() {
        "drain" => format!("{done} of {total} apps"),
        _ => format!("{} of {}", output::size(done), output::size(total)),
    })
}

/// An age for a person: `3 s`, `4 min`, `2 h`, `5 d`.
pub fn age(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A step of an operation.
pub fn step(step: &str) -> &str {
    match step {
        "check" => "checking",
        "prepare" => "preparing the device: package, images, data",
        "hand_over" => "stopping there, and bringing the last change to the store",
        "grant" => "giving it to the device",
        "start" => "starting",
        "take_back" => "taking it back",
        "return" => "going back to where it was",
        "wait" => "waiting until the device before must have stopped",
        "stop" => "stopping",
        other => other,
    }
}

/// What is on a device alone: volumes and tails, with their bytes where they are known.
pub fn late(late: &[Late]) -> String {
    let one = |late: &Late| {
        let name = output::escape(late.name.as_str().as_bytes());
        match late.bytes.0 {
            0 => name,
            bytes => format!("{name} ({})", output::size(bytes)),
        }
    };
    late.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What was lost, or may have been: `failover.md`, section 9.
pub fn lost(lost: &Lost) -> String {
    match (&lost.exact, lost.lost_seconds_max) {
        (Some(exact), _) if exact.bytes.0 == 0 => "nothing was lost".to_owned(),
        (Some(exact), _) => format!(
            "{} s of changes, {}, which are a branch on the device before",
            exact.seconds.0,
            output::size(exact.bytes.0)
        ),
        (None, Some(seconds)) => format!(
            "at most the last {} s, {} as far as is known; what the device before still has becomes a branch when it returns",
            seconds.0,
            output::size(lost.lost_bytes_known.0)
        ),
        (None, None) => format!(
            "how much is not known until the device before is heard of, {} as far as it told; what it has becomes a branch",
            output::size(lost.lost_bytes_known.0)
        ),
    }
}

/// A processor.
pub fn arch(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64",
        Arch::Aarch64 => "aarch64",
    }
}

/// Ports in one line: `web 8080→80/tcp`.
pub fn port(service: &str, given: u64, port: u64, protocol: Protocol) -> String {
    format!("{service} {given}→{port}/{protocol}")
}

/// Names by ids, and the beginning of an id where there is no name any more.
pub fn named<I: std::fmt::Display + Ord>(names: &BTreeMap<I, String>, id: &I) -> String {
    names.get(id).cloned().unwrap_or_else(|| id.to_string().chars().take(8).collect())
}

#[cfg(test)]
mod tests {
    use orchestrator_api::placement::Problem;

    use super::*;

    #[test]
    fn every_problem_has_words() {
        for one in Problem::ALL {
            let (words, _) = problem(one.text());
            assert_ne!(words, one.text().replace('_', " "), "{}", one.text());
            assert!(!words.ends_with('.'), "{words}");
        }
        assert_eq!(problem("of_a_newer_hive"), ("of a newer hive".to_owned(), None));
    }

    #[test]
    fn ages_are_short() {
        let table =
            [(0, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 d")];
        for (ms, text) in table {
            assert_eq!(age(ms), text);
        }
    }
}
