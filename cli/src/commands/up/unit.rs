//! `comb up --install-unit`: what systemd runs at every boot.

use std::path::Path;

use super::UpArgs;
use crate::commands::device::install_unit::{quoted, write};
use crate::device::docker_socket;
use crate::failure::{Context, Result};
use crate::output;
use crate::state::State;

/// The unit's name.
const NAME: &str = "comb-up.service";

/// Writes the unit.
pub fn install(state: &State, args: &UpArgs) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    write(Path::new("/etc/systemd/system"), NAME, &unit(&program, state, args)?)?;
    output::note(
        "`systemctl daemon-reload && systemctl enable --now comb-up` starts it; `comb down` first, if one runs already",
    );
    Ok(())
}

/// It starts the apps that it stopped, and stops them when the machine goes down.
fn unit(program: &Path, state: &State, args: &UpArgs) -> Result<String> {
    let mut words = format!("{} --state {} up", quoted(program), quoted(state.root()));
    // Devices know the hive by where it listens.
    if let Some(listen) = args.listen {
        words.push_str(&format!(" --listen {listen}"));
    }
    if let Some(apps) = &args.apps {
        words.push_str(&format!(" --apps {}", quoted(&std::path::absolute(apps).context(apps.display())?)));
    }
    let docker = docker_socket(args.docker.as_deref());
    if docker != Path::new("/var/run/docker.sock") {
        words.push_str(&format!(
            " --docker {}",
            quoted(&std::path::absolute(&docker).context(docker.display())?)
        ));
    }
    Ok(format!(
        "[Unit]
Description=comb up: apps, their hive and this device
After=network-online.target docker.service
Wants=network-online.target

[Service]
ExecStart={words}
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec=330
MountFlags=shared
NoNewPrivileges=yes
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        up: UpArgs,
    }

    #[test]
    fn the_unit_says_again_what_the_next_start_needs() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::locate(Some(folder.path())).expect("a path");
        let words = ["up", "--install-unit", "--listen", "0.0.0.0:8420", "--docker", "/run/other.sock"];
        let args = Words::parse_from(words).up;
        let text = unit(Path::new("/usr/bin/comb"), &state, &args).expect("a unit");
        let line = format!(
            "ExecStart=\"/usr/bin/comb\" --state \"{}\" up --listen 0.0.0.0:8420 --docker \"/run/other.sock\"",
            state.root().display()
        );
        assert!(text.lines().any(|one| one == line), "{text}");
        // Apps get their time to stop.
        assert!(text.contains("TimeoutStopSec=330\n"));
    }
}
