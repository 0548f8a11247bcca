//! Codes of devices and hive (`api.md`, section 6), in plain words, with what a person does about it.

/// What a code means, and what to do. One of a newer program is shown as it is.
pub fn problem(code: &str) -> (String, Option<&'static str>) {
    let (words, what) = match code {
        "docker_stopped" | "docker_away" => (
            "Docker does not answer on its device",
            Some("Start Docker on that machine. The app goes on by itself then."),
        ),
        "docker_slow" => ("Docker answers slowly on its device", Some("See what keeps that machine busy.")),
        "image_missing" => (
            "an image is not on the device and cannot be fetched",
            Some(
                "One that was built is only where it was built: push it to a registry, or choose that device.",
            ),
        ),
        "image_unknown" => {
            ("no registry has the image", Some("See whether its name in the compose file is right."))
        }
        "image_changed" => (
            "an image has another digest than was signed",
            Some("`comb app update` on a machine with your key ring signs the present one."),
        ),
        "arch_mismatch" => (
            "an image is for another processor than the device has",
            Some("Choose another device, or an image that is for this one's processor, too."),
        ),
        "pull_failed" => (
            "an image could not be fetched",
            Some("See that the machine reaches the registry, then order it again."),
        ),
        "compose_failed" => {
            ("docker compose refused the app", Some("Its own words are on the app's page of the device."))
        }
        "config_changed" => (
            "docker compose reads the files there otherwise than when they were signed",
            Some("`comb app update` with the app's folder signs them anew."),
        ),
        "policy_refused" => (
            "the compose file asks for more than the rules allow",
            Some(
                "A person with the key ring can grant it: `comb app add` shows each permission in words, and asks.",
            ),
        ),
        "package_wrong" => (
            "the app's package does not fit, or is not signed by the owner",
            Some("`comb app update` with the app's folder makes a new one."),
        ),
        "package_expired" => {
            ("the app's package may not be started any more", Some("`comb app update` signs it anew."))
        }
        "package_sealed" | "device_locked" => (
            "the device waits for its passphrase",
            Some("`comb device unlock` on that machine asks for it. No page of the hive ever does."),
        ),
        "mount_dead" | "mount_died" => (
            "a volume does not answer on the device",
            Some("`comb status` on that machine says why; restarting the app mounts it again."),
        ),
        "marker_wrong" | "epoch_wrong" => (
            "what is mounted there is not the app's volume as it should be",
            Some("Restart the app; `comb status` on that machine says more."),
        ),
        "lease_over" => (
            "its device was not heard of in time, so it gave the app up",
            Some("It starts where it may run next."),
        ),
        "term_over" => ("another device has the app now", None),
        "head_unexpected" => (
            "the store holds changes of a device that the hive does not know of",
            Some(
                "Nothing was overwritten. Moving it with force and \u{201c}take over what was found\u{201d} goes on from there.",
            ),
        ),
        "store_unreachable" => {
            ("the store does not answer", Some("See that it is up and that the device reaches it."))
        }
        "store_denied" => (
            "the store refuses the credentials",
            Some("`comb account store add` with --credentials-file puts new ones into the key ring."),
        ),
        "volume_damaged" => (
            "a volume cannot be read",
            Some(
                "`comb check` on its device's machine names what is damaged; an earlier moment may be whole.",
            ),
        ),
        "volume_read_only" => {
            ("a volume takes no writes", Some("`comb status` on its device's machine says why."))
        }
        "no_space" => {
            ("there is too little room", Some("Make room on the device, or move the app to another one."))
        }
        "port_taken" => (
            "another program has one of its ports",
            Some("Stop that one, or move the app to another device."),
        ),
        "unhealthy" => {
            ("a part of it says that it is not well", Some("Its log, on the device's page, may say why."))
        }
        "exits" => ("a part of it ends again and again", Some("Its log, on the device's page, may say why.")),
        "gate_late" => (
            "it was not well in time",
            Some(
                "Its log, on the device's page, may say why. `x-comb.health.startup` in its compose file gives it longer.",
            ),
        ),
        "claim_lost" => ("others claimed its data at the same time", Some("Order it again.")),
        "instant_torn" => ("only some of its volumes have that moment", Some("Choose another moment.")),
        "ring_late" => (
            "the key ring could not be written in time",
            Some("See that hive and store answer, then order it again."),
        ),
        "key_missing" => (
            "the key ring there lacks a volume's key",
            Some("`comb key ring publish` on the machine that has it sends it."),
        ),
        "stop_late" => ("its containers did not stop in time", None),
        "publish_late" => (
            "not all of its data reached the store in time",
            Some(
                "Nothing was moved or removed. See that the store answers and is fast enough, then order it again.",
            ),
        ),
        "hook_failed" => ("a hook of the app failed", Some("Its log, on the device's page, may say why.")),
        "update_rolled_back" => {
            ("the new revision was not well, so the old one runs again, with its data", None)
        }
        "unknown_command" => ("the device is too old for this", Some("Update Comb there.")),
        "obsolete" => ("a later order took its place", None),
        "hive_went_back" => {
            ("the device knows a newer hive than this one", Some("Two hives run: stop the old one."))
        }
        "fenced" => ("another device writes its data now", None),
        "late" => {
            ("the device did not answer in time", Some("See whether it is online, then order it again."))
        }
        "state" => ("it was in no state for this", Some("See how it is now, then order it again.")),
        "no_standby" => (
            "no other device stands by for it",
            Some("Under Settings, choose a device that does; until then nobody can take over in time."),
        ),
        "no_candidate" => ("no device can take it", Some("Under Devices you see how they are.")),
        "volumes_unknown" => (
            "it was started, and the device that has its volumes did not tell of them",
            Some(
                "Let that device report, or start it there. If it never wrote anything, remove it and add it anew.",
            ),
        ),
        "not_held" => ("no device has it any more", Some("Start it: a device is found for it.")),
        "device_silent" => ("its device is silent", Some("Under Devices you see since when.")),
        "device_online" => {
            ("its device reports, and a planned move loses nothing", Some("Move it as planned."))
        }
        "device_not_authorized" => (
            "the owner did not name that device for the app",
            Some(
                "`comb app update` with --may-run-on, on a machine with your key ring, signs it for more devices.",
            ),
        ),
        "device_revoked" => ("that device was revoked", Some("Choose another one.")),
        "device_draining" => ("that device is being emptied, and gets no apps", Some("Choose another one.")),
        "store_is_local" => {
            ("its store is a folder of another device", Some("Choose a store that both devices reach."))
        }
        "forced" => ("a forced move took its place", None),
        "operation_running" => {
            ("something else is being done with it", Some("Wait until that is over, or cancel it."))
        }
        "hive_recovering" => {
            ("the hive was restored, and waits for its devices", Some("It goes on when they were heard."))
        }
        "exists" => ("there is an app of that name already", Some("Choose another name.")),
        "cancelled" => ("it was cancelled", None),
        "stopped" => ("it does not run, so there is nothing to hand over", None),
        other => return (super::words(other), None),
    };
    (words.to_owned(), what)
}

#[cfg(test)]
mod tests {
    use orchestrator_api::placement::Problem;

    use super::problem;

    #[test]
    fn every_code_of_a_device_has_words_of_its_own() {
        for one in Problem::ALL {
            let (words, _) = problem(one.text());
            assert_ne!(words, super::super::words(one.text()), "{}", one.text());
        }
        assert_eq!(problem("of_tomorrow"), ("of tomorrow".to_owned(), None));
    }
}
