//! What services see of volumes, of the folder and of the machine.

use serde_json::Value;

use super::value::{says, told, truth};
use super::{At, Checker, NAME_BYTES_MAX, VOLUMES_MAX};
use crate::compose::paths::{self, Host, absolute, below, inside};
use crate::compose::{Mount, Note, Owner, PackageFile, PlannedVolume, Refusal, TOLD_MAX, VolumeKind};
use crate::permission::Permission;
use crate::text::is_plain;

impl Checker<'_> {
    pub(super) fn volumes_from(&mut self, at: &At<'_>, value: &Value) {
        for (number, from) in self.texts(at, value).into_iter().enumerate() {
            if from.to_ascii_lowercase().starts_with("container:") {
                let message = format!("\"{}\" is a container that is not the app's", from.escape_debug());
                self.refuse(&at.item(number, &[from]), message);
            }
        }
    }

    pub(super) fn lost(&mut self, at: &At<'_>, what: &Value) {
        if self.lost.is_none() {
            let message = format!("what is written to \"{}\" is lost with the container", told(what));
            self.lost = Some(Note { place: self.source.place(&at.path, &at.clues), message });
        }
    }

    pub(super) fn mounts(&mut self, at: &At<'_>, service: &str, value: &Value, owner: &Owner) {
        for (number, mount) in self.items(at, value).iter().enumerate() {
            let text = |key: &str| mount[key].as_str().unwrap_or_default();
            let (source, target) = (text("source"), text("target"));
            let at = at.item(number, &[target, source]);
            if !target.starts_with('/') || !is_plain(target) {
                self.refuse(&at, format!("\"{}\" is no path in a container", target.escape_debug()));
                continue;
            }
            let seen = Mount {
                service: service.to_owned(),
                target: target.to_owned(),
                subpath: mount["volume"]["subpath"].as_str().map(str::to_owned),
                read_only: truth(&mount["read_only"]),
            };
            match text("type") {
                "tmpfs" => self.lost(&at, &mount["target"]),
                "volume" if source.is_empty() => self.lost(&at, &mount["target"]),
                "volume" if seen.subpath.as_deref().is_some_and(|path| inside("", path).is_none()) => {
                    self.refuse(
                        &at,
                        format!("\"{}\" is outside of the volume", told(&mount["volume"]["subpath"])),
                    );
                }
                "volume" => {
                    self.labels(&at, &mount["volume"]["labels"]);
                    match self.volumes.get_mut(source) {
                        Some(volume) => volume.mounts.push(seen),
                        None if self.volumes_refused.contains(source) => {}
                        None => {
                            self.refuse(&at, format!("volume \"{}\" is not declared", source.escape_debug()));
                        }
                    }
                }
                "bind" => self.bind(&at, source, mount, seen, owner),
                other => {
                    let other = other.escape_debug();
                    self.refuse(&at, format!("\"{other}\" is no kind of volume that Comb knows; there are bind, volume and tmpfs"));
                }
            }
        }
    }

    pub(super) fn bind(&mut self, at: &At<'_>, source: &str, mount: &Value, seen: Mount, owner: &Owner) {
        let Some(path) = absolute(source) else {
            self.refuse(at, format!("\"{}\" is no path of this machine", source.escape_debug()));
            return;
        };
        let propagation = self.text(at, &mount["bind"]["propagation"]);
        if !matches!(propagation, "" | "private" | "rprivate" | "slave" | "rslave") {
            let propagation = propagation.escape_debug();
            self.refuse(
                at,
                format!("propagation \"{propagation}\" would let it mount things on the machine"),
            );
        }
        match below(&self.folder, &path) {
            Some(inside) => {
                let inside = inside.to_owned();
                self.bind_inside(at, inside, seen, owner);
            }
            None => self.bind_outside(at, path, mount, seen.read_only),
        }
    }

    pub(super) fn bind_inside(&mut self, at: &At<'_>, path: String, seen: Mount, owner: &Owner) {
        if self.source.is_file(&path) {
            if !seen.read_only {
                self.note(
                    at,
                    format!("\"{path}\" is a file of the package: the app can read it and not write it"),
                );
            }
            self.plan.files.push(PackageFile { path, service: seen.service, target: seen.target });
            return;
        }
        // One more than an app may have is enough to refuse it.
        if self.volumes.len() > VOLUMES_MAX {
            return;
        }
        let seed = self.source.is_folder(&path);
        let last = path.rsplit('/').next().unwrap_or(&path);
        if !seed && last.trim_start_matches('.').contains('.') {
            self.note(
                at,
                format!("\"{path}\" is not in the folder: it becomes an empty volume, and no file"),
            );
        }
        let name = folder_name(&path);
        let place = self.source.place(&at.path, &at.clues);
        self.folders.entry(path.clone()).or_insert(place);
        let fresh = || VolumeKind::Folder { path: path.clone(), seed, owner: owner.clone() };
        let volume = self.volumes.entry(name.clone()).or_insert_with(|| PlannedVolume {
            name: name.clone(),
            kind: fresh(),
            mounts: Vec::new(),
        });
        match &mut volume.kind {
            VolumeKind::Folder { path: other, owner: first, .. } if *other == path => {
                // Whoever may write decides; one that only reads, or says nothing, does not.
                if *first == Owner::Image
                    || volume.mounts.iter().all(|mount| mount.read_only) && !seen.read_only
                {
                    *first = owner.clone();
                }
                volume.mounts.push(seen);
            }
            _ => {
                let hint = "give one of them another name";
                self.refuse_with(
                    at,
                    format!("\"./{path}\" and another volume would both be named \"{name}\""),
                    Some(hint),
                );
            }
        }
        if name.len() > NAME_BYTES_MAX {
            self.refuse(
                at,
                format!("\"./{path}\" is longer than {NAME_BYTES_MAX} bytes, too long for a volume's name"),
            );
        }
    }

    pub(super) fn bind_outside(&mut self, at: &At<'_>, path: String, mount: &Value, read_only: bool) {
        match paths::host(&path, &self.given.comb_folders) {
            Host::Socket => self.refuse(at, "the Docker socket is the machine itself"),
            Host::Machine(_) => self.refuse(at, format!("\"{path}\" belongs to the machine")),
            Host::Comb(_) => self.refuse(at, format!("\"{path}\" belongs to Comb")),
            Host::Clock | Host::Ask if !read_only => {
                let hint = "write \":ro\" behind it; what the app writes belongs into a volume";
                self.refuse_with(at, format!("\"{path}\" may only be read"), Some(hint));
            }
            Host::Clock => {}
            Host::Ask if says(&mount["bind"]["selinux"]) => {
                self.refuse(at, format!("\"selinux\" would change who may read \"{path}\""));
            }
            Host::Ask => match Permission::bind(&path) {
                Some(permission) => {
                    let message = format!(
                        "\"{path}\" is outside the app's folder, and it would read all that is there"
                    );
                    self.ask(at, permission, message);
                }
                None => self.refuse(at, format!("\"{}\" cannot be granted", path.escape_debug())),
            },
        }
    }

    /// A folder inside of another one would be another volume, and the outer one would not see it.
    pub(super) fn folders_apart(&mut self) {
        let folders: Vec<_> =
            self.folders.iter().map(|(path, place)| (path.clone(), place.clone())).collect();
        for (path, place) in &folders {
            let outer = folders.iter().find(|(other, _)| {
                other != path
                    && (other.is_empty()
                        || path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/')))
            });
            if let Some((outer, _)) = outer
                && self.refusals.len() < TOLD_MAX
            {
                self.refusals.push(Refusal {
                    place: place.clone(),
                    field: "services".to_owned(),
                    message: format!("\"./{path}\" lies inside \"./{outer}\", which is a volume of its own"),
                    hint: Some("bind folders that lie beside each other".to_owned()),
                });
            }
        }
    }
}

/// The name of the volume that a folder of the package becomes.
pub(super) fn folder_name(path: &str) -> String {
    let plain =
        |one: char| if one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-') { one } else { '-' };
    let name: String = path.chars().map(plain).collect();
    match name.trim_start_matches(['.', '-']) {
        "" => "folder".to_owned(),
        name => name.to_owned(),
    }
}
