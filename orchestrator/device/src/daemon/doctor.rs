//! What `comb doctor` hears from the device: each thing that was looked at with what was found, or what to do (`api.md`,
//! section 12).

use std::io::ErrorKind;
use std::path::Path;

use orchestrator_api::placement::Phase;
use orchestrator_api::wire::report::{Disk, DiskUse};

use super::{World, facts, room};
use crate::doors::volumes::Answers;
use crate::doors::{clock, ring};

/// Less free is told before anything is refused, in bytes; of a small disk a tenth.
const FREE_WANTED: u64 = 1 << 30;

/// What was looked at, and what was found: right, or wrong with what to do.
pub type Check = (&'static str, Result<String, String>);

impl World {
    /// Looks at everything.
    pub(super) async fn checks(&self) -> Vec<Check> {
        let mut checks = vec![("fuse", fuse())];
        checks.extend(shared(&self.setup.state).map(|found| ("mounts", found)));
        let docker = self.docker.ping().await;
        let answers = docker.is_ok();
        checks.push((
            "docker",
            match docker {
                Ok(took) => Ok(format!("answers in {} ms", took.as_millis())),
                Err(_) => Err(format!(
                    "it does not answer at {}: what runs there goes on, and no app is started, stopped or moved until it does; \
                     `systemctl start docker`",
                    self.docker.socket().display()
                )),
            },
        ));
        checks.push(("compose", self.compose.version().await.map_err(|trouble| trouble.text().to_owned())));
        checks.push((
            "key ring",
            match ring::open(&self.setup.state) {
                Ok(ring) => Ok(format!("version {}", ring.number().0)),
                Err(_) if self.is_locked() => {
                    Err("it is locked, and no app starts before `comb device unlock`".to_owned())
                }
                Err(trouble) => Err(trouble.text().to_owned()),
            },
        ));
        for (what, path) in [(DiskUse::State, &self.setup.state), (DiskUse::Apps, &self.setup.apps)] {
            if let Some(disk) = facts::disk(what, path) {
                checks.push(("disk", disk_of(path, &disk)));
            }
        }
        checks.push(("clock", self.seen.lock().clocks.check()));
        checks.push(("hive", self.hive_check()));
        checks.extend(self.stores());
        checks.extend(self.apps_held_up());
        checks.extend(self.results.damage().map(|text| ("results", Err(text.to_owned()))));
        if answers {
            checks.extend(self.images_of_all().await);
        }
        checks
    }

    fn hive_check(&self) -> Result<String, String> {
        let seen = self.seen.lock();
        if seen.answer == "online" {
            return Ok(format!("{} answers", self.hive.url()));
        }
        let since = seen.online.map(|online| clock::boottime().saturating_sub(online) / 1_000);
        let since = since.map_or_else(
            || "it was not heard since the device began".to_owned(),
            |seconds| format!("it was last heard {seconds} s ago"),
        );
        let answer = if seen.answer.is_empty() { "it was not asked yet" } else { seen.answer.as_str() };
        Err(format!(
            "{}: {answer}; {since}. `manual` apps go on, `auto` ones stop when their lease ends, and nothing new starts. See that \
             the hive runs and that this machine reaches it",
            self.hive.url()
        ))
    }

    fn stores(&self) -> Vec<Check> {
        let seen = self.seen.lock();
        let mut told: Vec<(String, Answers)> = Vec::new();
        for (url, answers) in seen.volumes.iter().flat_map(|volume| &volume.stores) {
            match told.iter_mut().find(|(one, _)| one == url) {
                Some((_, known)) if *known == Answers::Well => *known = *answers,
                Some(_) => {}
                None => told.push((url.clone(), *answers)),
            }
        }
        let check = |(url, answers): (String, Answers)| {
            let wrong = |what: &str| Err(format!("{url} {what}"));
            let found = match answers {
                Answers::Well => Ok(url),
                Answers::Unreachable => wrong(
                    "does not answer: what apps write stays here and follows later; see that this machine reaches it",
                ),
                Answers::Denied => wrong(
                    "refuses the credentials: nothing is replicated; `comb account store add --credentials-file` gives new ones",
                ),
                Answers::Otherwise => {
                    wrong("did not take what was sent: nothing is replicated; `comb status` has its words")
                }
            };
            ("store", found)
        };
        told.into_iter().map(check).collect()
    }

    /// Apps that their disk holds up.
    fn apps_held_up(&self) -> Vec<Check> {
        let (apps, seen) = (self.apps.lock(), self.seen.lock());
        let held_up = apps.iter().filter_map(|(app, state)| {
            let lives = state.record.as_ref().is_some_and(|record| record.phase.is_live());
            let trouble = room::trouble(*app, &state.file, &seen, &self.setup.state).filter(|_| lives)?;
            Some(("room", Err(format!("app \"{}\": {}", state.file.name, trouble.text()))))
        });
        held_up.collect()
    }

    /// Images of apps that are here, for the next start.
    async fn images_of_all(&self) -> Vec<Check> {
        let loaded: Vec<_> = {
            let apps = self.apps.lock();
            let here = apps.iter().filter(|(_, state)| {
                state.record.as_ref().is_some_and(|record| {
                    matches!(record.phase, Phase::Running | Phase::Starting | Phase::StandingBy)
                })
            });
            here.filter_map(|(app, state)| Some((*app, state.file.name.clone(), state.loaded.clone()?)))
                .collect()
        };
        let mut checks = Vec::new();
        for (app, name, loaded) in loaded {
            if let Err(trouble) = self.images(app, &loaded, false).await {
                checks.push(("images", Err(format!("app \"{name}\": {}", trouble.text()))));
            }
        }
        checks
    }
}

/// Whether this process can mount volumes.
pub fn fuse() -> Result<String, String> {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    opened.map(|_| "/dev/fuse opens".to_owned()).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "there is no /dev/fuse, so no volume can be mounted: load the kernel's module with `modprobe fuse`; \
                                a container needs --device /dev/fuse"
            .to_owned(),
        _ => format!("/dev/fuse does not open ({error}), so this user can mount no volume: a device runs as root, and in a container \
                      with --cap-add SYS_ADMIN"),
    })
}

/// Of a device in a container: whether the engine sees what is mounted in it.
fn shared(state: &Path) -> Option<Result<String, String>> {
    if !Path::new("/.dockerenv").exists() && !Path::new("/run/.containerenv").exists() {
        return None;
    }
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    Some(match is_shared(&text, state) {
        true => Ok("what is mounted in this container is seen outside of it".to_owned()),
        false => Err(format!(
            "this device runs in a container, and what it mounts below {0} is not seen outside: apps would find no volume. Run it with \
             `-v {0}:{0}:rshared`",
            state.display()
        )),
    })
}

/// Whether the mount that a path lies on hands on what is mounted in it.
pub fn is_shared(mountinfo: &str, path: &Path) -> bool {
    let lines = mountinfo.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let folder = words.nth(4)?.replace("\\040", " ");
        let optional = words.skip(1).take_while(|word| *word != "-").any(|word| word.starts_with("shared:"));
        path.starts_with(&folder).then_some((folder.len(), optional))
    });
    // Of two on one folder the later one is what is seen.
    lines.max_by_key(|(len, _)| *len).is_none_or(|(_, shared)| shared)
}

fn disk_of(path: &Path, disk: &Disk) -> Result<String, String> {
    let (free, all) = (disk.free_bytes.0, disk.bytes.0);
    let text = format!("{} of {} MiB are free at {}", free >> 20, all >> 20, path.display());
    match free > FREE_WANTED.min(all / 10) {
        true => Ok(text),
        false => Err(format!(
            "only {text}: when none is left, apps get \"no space left\" for what they write. Remove something there, or move an app to \
             another device with `comb app move`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::wire::value::Number;

    use super::*;

    #[test]
    fn a_folder_is_shared_as_the_innermost_mount_around_it_is() {
        let text = "21 1 0:19 / / rw,relatime - overlay overlay rw\n\
                    30 21 254:0 /var/lib/comb /var/lib/comb rw,relatime shared:7 - ext4 /dev/vda rw\n\
                    31 30 254:0 /x /var/lib/comb/with\\040blank rw master:3 - ext4 /dev/vda rw\n";
        assert!(is_shared(text, Path::new("/var/lib/comb")));
        assert!(is_shared(text, Path::new("/var/lib/comb/orchestrator/apps")));
        assert!(!is_shared(text, Path::new("/var/lib/comb/with blank/x")));
        assert!(!is_shared(text, Path::new("/var/lib/combs")));
        assert!(is_shared("", Path::new("/")), "where the kernel says nothing, nothing is wrong");
    }

    #[test]
    fn a_small_disk_may_have_less_free() {
        let told = |free: u64, all: u64| {
            let disk =
                Disk { what: DiskUse::State, bytes: Number(all << 20), free_bytes: Number(free << 20) };
            disk_of(Path::new("/state"), &disk)
        };
        assert_eq!(told(2_000, 100_000).as_deref(), Ok("2000 of 100000 MiB are free at /state"));
        assert!(told(1_000, 100_000).is_err_and(|text| text.contains("comb app move")));
        assert!(told(200, 512).is_ok() && told(40, 512).is_err());
    }
}
