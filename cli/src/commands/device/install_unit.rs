//! `comb device install-unit`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Context, Failure, Kind, Result};
use crate::output;
use crate::state::State;

/// Have systemd run this machine's device, from every boot on
#[derive(Debug, Args)]
pub struct InstallUnitArgs {
    /// Only print the unit
    #[arg(long)]
    print: bool,

    /// Where the unit goes
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    to: PathBuf,
}

/// Writes the unit.
pub fn run(state: &State, args: &InstallUnitArgs) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let text = unit(&program, state.root());
    if args.print {
        return output::line(text.trim_end());
    }
    write(&args.to, "comb-device.service", &text)?;
    output::note("`systemctl daemon-reload && systemctl enable --now comb-device` starts it");
    Ok(())
}

/// Writes a unit into a folder of systemd's.
pub fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    if !folder.is_dir() {
        return Err(Failure::new(Kind::NotFound, format!("{} is no folder", folder.display())).hint(
            "is this machine run by systemd? `comb device run` and `comb up --detach` run without it",
        ));
    }
    let path = folder.join(name);
    std::fs::write(&path, text).context(path.display())?;
    output::line(&format!("{} is written", path.display()))
}

/// A path as a unit has it.
pub fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%").replace('"', "\\\""))
}

/// The unit: volumes' daemons stay when the device is started again, and mounts show in containers.
fn unit(program: &Path, state: &Path) -> String {
    format!(
        "[Unit]
Description=Comb device: apps on volumes
After=network-online.target docker.service
Wants=network-online.target

[Service]
ExecStart={} --state {} device run
Restart=always
RestartSec=5
KillMode=process
MountFlags=shared
NoNewPrivileges=yes
ProtectHome=yes
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
",
        quoted(program),
        quoted(state)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_leaves_daemons_of_volumes_running() {
        let text = unit(Path::new("/usr/bin/comb"), Path::new("/var/lib/a b%"));
        assert!(text.contains("ExecStart=\"/usr/bin/comb\" --state \"/var/lib/a b%%\" device run\n"));
        for line in ["KillMode=process", "MountFlags=shared", "NoNewPrivileges=yes"] {
            assert!(text.lines().any(|one| one == line), "{line}");
        }
    }
}
