//! The state folder: where volumes, their keys and their names lie on this machine.
//!
//! ```text
//! STATE/                       0700
//!   device                     0600  the device's secret, 32 bytes; the journals' keys depend on it
//!   ring, ring.key             0600  the newest version of the account's key ring, and what opens it on this device
//!   names/NAME                 the volume's public key in hexadecimal and a line break
//!   volumes/PUBKEY/            one volume; PUBKEY is its public key in hexadecimal
//!     key                      0600  the volume's keys
//!     config                   JSON: name, quota_bytes, created, stores, local_bytes, waiting_bytes, what is elsewhere, and a
//!                              check of them (see [`Config`])
//!     fenced                   JSON: since when another device writes the volume, once that was noticed
//!     branches/BRANCH/         what this machine wrote after another had taken the volume over: a volume's folder
//!     seen/STORE               JSON: the highest manifest that was seen in a store
//!     halted/STORE             JSON: what somebody must mend before anything goes to a store again
//!     parted/ID                JSON: what was seen last in a store to which the volume goes no more, by the store's id
//!     lock                     flock: held by the daemon, or by a command that writes
//!     control                  the daemon's socket while the volume is mounted
//!     views/PID                the sockets of daemons that show a moment (`comb mount --at`); each holds a
//!                              shared flock of the folder `views`, which removing the volume must win
//!     log                      what the daemons had to say, newest run last; a long one becomes `log.old`
//!     journal/ packs/ manifests/   the engine's
//!     data                     where `comb mount NAME` without DIR mounts; while the volume is
//!                              mounted at another DIR, a symbolic link to that
//!     snapshots/UUID           symbolic links to ../data/.snapshots/UUID: open while mounted
//! ```
//!
//! Invariants
//! - A volume exists if its folder has its final name *and* a name leads to it. Making writes the name
//!   first and renames the finished folder last; removing renames the folder away first. What a crash
//!   leaves in between is a dangling name or a folder that begins with a dot: both count as absent and
//!   are swept by the next command that makes or removes a volume.
//! - Names change only under a lock on the folder `names`.
//! - Everything here is for its owner alone: every file and folder is made without permissions for others.
//! - Root does not use what belongs to another user: what root would write there, its owner could not read.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_format::VolumeId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Kind, Result};
use crate::name::VolumeName;
use crate::output;
use crate::stores::StoreConfig;

/// The largest config or name file that is read, in bytes.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 10;

/// How long a lock is asked for again: a daemon that was killed lets go of it a moment after its mount is dead.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// The pause between two times.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// The state folder of this machine or user.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
}

/// What a volume's `config` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The volume's name; `names/` decides, this is for a person who finds only the folder.
    pub name: String,
    /// The most bytes the volume may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Where it is replicated to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreConfig>,
    /// What is not here is in the store that decides: it was opened from that, or packs were evicted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_store: bool,
    /// Packs were evicted for want of room: what is not here is not fetched before it is read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evicted: bool,
    /// The most bytes that its packs should take on this disk, as far as stores have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_bytes: Option<u64>,
    /// The most bytes that may wait for its stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_bytes: Option<u64>,
    /// Another device writes it, and this one only looks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows: bool,
}

/// What a config file may hold; more means that a newer comb wrote it.
const CONFIG_FIELDS: [&str; 9] = [
    "name",
    "quota_bytes",
    "created",
    "stores",
    "from_store",
    "evicted",
    "local_bytes",
    "waiting_bytes",
    "follows",
];

impl Config {
    /// That of a volume that is made now.
    pub fn new(name: &VolumeName) -> Self {
        Self {
            name: name.to_string(),
            quota_bytes: None,
            created: jiff::Timestamp::now().to_string(),
            stores: Vec::new(),
            from_store: false,
            evicted: false,
            local_bytes: None,
            waiting_bytes: None,
            follows: false,
        }
    }

    /// JSON with a `check` of the rest: a flipped bit in the quota would go unnoticed otherwise.
    fn encode(&self) -> Result<String> {
        let fields = || -> serde_json::Result<String> {
            let mut fields: Fields = serde_json::from_value(serde_json::to_value(self)?)?;
            fields.insert("check".into(), check_of(&fields)?.into());
            serde_json::to_string_pretty(&fields)
        };
        let mut text = fields().map_err(io::Error::from).context("config")?;
        text.push('\n');
        Ok(text)
    }

    /// Reads what `encode` wrote, or what a person changed and left without a `check`.
    fn decode(text: &str) -> std::result::Result<Self, (Kind, String)> {
        let damaged = |error: serde_json::Error| (Kind::Damaged, format!("is damaged: {error}"));
        let mut fields: Fields = serde_json::from_str(text).map_err(damaged)?;
        if let Some(check) = fields.remove("check")
            && check != check_of(&fields).map_err(damaged)?
        {
            return Err((Kind::Damaged, "is damaged: its check does not match".into()));
        }
        if let Some(field) = fields.keys().find(|field| !CONFIG_FIELDS.contains(&field.as_str())) {
            return Err((Kind::Foreign, format!("has a field \"{field}\" that this comb does not know")));
        }
        serde_json::from_value(fields.into_iter().collect()).map_err(damaged)
    }
}

/// In order of names, whatever the order in the file.
type Fields = BTreeMap<String, serde_json::Value>;

fn check_of(fields: &Fields) -> serde_json::Result<String> {
    Ok(blake3::hash(serde_json::to_string(fields)?.as_bytes()).to_hex()[..32].to_owned())
}

/// A volume's folder.
#[derive(Debug, Clone)]
pub struct VolumeFolder {
    /// Its name.
    pub name: VolumeName,
    /// Its public key.
    pub id: VolumeId,
    /// The folder, an absolute path.
    pub path: PathBuf,
}

impl State {
    /// The folder given by `--state`, or the default for this user.
    pub fn locate(given: Option<&Path>) -> Result<State> {
        let root = match given {
            Some(path) => path.to_owned(),
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/comb"),
            None => data_home()?.join("comb"),
        };
        // Absolute, since the daemon leaves the working directory.
        let root = std::path::absolute(&root).context(root.display())?;
        refuse_anothers(&root)?;
        Ok(State { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder with what belongs in it; no error if it is there.
    pub fn prepare(&self) -> Result<()> {
        for folder in [self.root.clone(), self.root.join("names"), self.root.join("volumes")] {
            make_private_dir(&folder)?;
        }
        Ok(())
    }

    /// The device's secret; made at its first use.
    pub fn device_secret(&self) -> Result<[u8; 32]> {
        let path = self.root.join("device");
        match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| {
                Failure::new(Kind::Damaged, format!("{} does not hold 32 bytes", path.display()))
                    .hint("put it back from a copy; without it only the journal's unsealed tail is lost")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.prepare()?;
                let mut secret = [0; 32];
                File::open("/dev/urandom")
                    .and_then(|mut source| source.read_exact(&mut secret))
                    .context("/dev/urandom")?;
                match write_new(&path, &secret) {
                    // Another command made it in this moment.
                    Err(failure) if failure.kind == Kind::InTheWay => self.device_secret(),
                    Err(failure) => Err(failure),
                    Ok(()) => Ok(secret),
                }
            }
            Err(error) => Err(Failure::io(path.display(), &error)),
        }
    }

    /// All volumes, in the order of their names.
    pub fn volumes(&self) -> Result<Vec<VolumeFolder>> {
        let names = self.root.join("names");
        let entries = match fs::read_dir(&names) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::io(names.display(), &error)),
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let file_name = entry.context(names.display())?.file_name();
            let Some(Ok(name)) = file_name.to_str().map(str::parse::<VolumeName>) else { continue };
            match self.find(&name) {
                Ok(found) => volumes.extend(found),
                // One damaged name does not hide the others.
                Err(failure) if failure.kind == Kind::Damaged => output::warn_once(&failure.message),
                Err(failure) => return Err(failure),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// The volume of this name.
    pub fn volume(&self, name: &VolumeName) -> Result<VolumeFolder> {
        self.find(name)?.ok_or_else(|| {
            let failure = Failure::new(
                Kind::NotFound,
                format!("there is no volume \"{name}\" in {}", self.root.display()),
            );
            if let Some((volume, _)) = name.branch()
                && let Ok(Some(_)) = self.find(&volume)
            {
                let what = format!("volume \"{volume}\" has no branch \"{name}\"");
                return Failure::new(Kind::NotFound, what)
                    .hint(format!("`comb branch list {volume}` shows those that are there"));
            }
            match self.volumes() {
                Ok(volumes) if !volumes.is_empty() => {
                    failure.hint("`comb volume list` shows those that are there")
                }
                _ => failure.hint(format!("`comb volume create {name}` makes it")),
            }
        })
    }

    fn find(&self, name: &VolumeName) -> Result<Option<VolumeFolder>> {
        if let Some((volume, _)) = name.branch() {
            let Some(volume) = self.find(&volume)? else { return Ok(None) };
            return Ok(volume.branches()?.into_iter().find(|branch| branch.name == *name));
        }
        let file = self.root.join("names").join(name.as_str());
        let damaged = |what: &str| {
            let failure = Failure::new(Kind::Damaged, format!("{} {what}", file.display()));
            match self.called(name) {
                Some(id) => failure
                    .hint(format!("its volume is here: `echo {id} > {}` puts it right", file.display())),
                None => failure
                    .hint("it holds the public key of the volume, which the folder of the volume is called"),
            }
        };
        let text = match read_small(&file) {
            Ok(text) => text,
            Err(failure) if failure.kind == Kind::NotFound => return Ok(None),
            Err(failure) if failure.kind == Kind::Damaged => {
                return Err(damaged("is damaged: it is not text"));
            }
            Err(failure) => return Err(failure),
        };
        let Some(id) = VolumeId::from_hex(text.trim_end()) else {
            return Err(damaged("is damaged: it holds no public key"));
        };
        let path = self.folder_of(&id);
        if path.is_dir() {
            refuse_anothers(&path)?;
            return Ok(Some(VolumeFolder { name: name.clone(), id, path }));
        }
        // A crash leaves a name without a volume; but a volume that has this name is one whose name is damaged.
        if self.called(name).is_some() { Err(damaged("is damaged: it leads to no volume")) } else { Ok(None) }
    }

    /// The volume that calls itself this.
    fn called(&self, name: &VolumeName) -> Option<VolumeId> {
        fs::read_dir(self.root.join("volumes")).ok()?.flatten().find_map(|entry| {
            let id = VolumeId::from_hex(entry.file_name().to_str()?)?;
            let volume = VolumeFolder { name: name.clone(), id, path: entry.path() };
            (volume.config().ok()?.name == name.as_str()).then_some(id)
        })
    }

    /// Adds what to do to a failure that was about this folder itself.
    pub fn explain(&self, failure: Failure) -> Failure {
        if failure.hint.is_some() || !failure.message.starts_with(&*self.root.to_string_lossy()) {
            return failure;
        }
        match failure.kind {
            Kind::NotPermitted => failure.hint(
                "comb writes to its state folder: run it as the user whom the folder belongs to, see that its disk is \
                 mounted for writing, or name another folder with `--state DIR`",
            ),
            Kind::InTheWay if !self.root.is_dir() => {
                failure.hint("the state folder is a folder: name another one with `--state DIR`")
            }
            Kind::NoSpace => failure.hint("free some space on the disk of the state folder"),
            _ => failure,
        }
    }

    /// Changes the config of a volume.
    pub fn change_config(
        &self,
        volume: &VolumeFolder,
        change: impl FnOnce(&mut Config) -> Result<()>,
    ) -> Result<()> {
        let names = self.lock_names()?;
        let mut config = volume.config()?;
        change(&mut config)?;
        replace(&volume.path.join("config"), config.encode()?.as_bytes())?;
        drop(names);
        Ok(())
    }

    /// Does something for which the config of a volume must not change meanwhile.
    pub fn hold_config<T>(
        &self,
        volume: &VolumeFolder,
        work: impl FnOnce(&Config) -> Result<T>,
    ) -> Result<T> {
        let names = self.lock_names()?;
        let done = work(&volume.config()?);
        drop(names);
        done
    }

    fn folder_of(&self, id: &VolumeId) -> PathBuf {
        self.root.join("volumes").join(id.to_hex())
    }

    /// Makes a volume: `fill` puts everything into the new folder before the volume exists.
    pub fn add(
        &self,
        config: &Config,
        name: &VolumeName,
        id: VolumeId,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<VolumeFolder> {
        if name.branch().is_some() {
            return Err(Failure::new(Kind::Usage, format!("\"{name}\" would be a branch of a volume"))
                .hint("a volume's name has no `/`"));
        }
        self.prepare()?;
        let names = self.lock_names()?;
        self.sweep()?;
        if self.find(name)?.is_some() {
            return Err(Failure::new(Kind::InTheWay, format!("there is a volume \"{name}\" already"))
                .hint("choose another name, or look at it with `comb volume show`"));
        }
        let path = self.folder_of(&id);
        if path.exists() {
            return Err(Failure::new(
                Kind::InTheWay,
                format!("the volume of this key is here already: {}", path.display()),
            )
            .hint("`comb volume list` shows its name"));
        }

        let making = self.root.join("volumes").join(format!(".making-{}", id.to_hex()));
        make_private_dir(&making)?;
        let filled = fill_folder(&making, config, fill).and_then(|()| {
            self.write_name(name, &id)?;
            fs::rename(&making, &path).context(path.display())
        });
        if let Err(failure) = filled {
            // Whatever cannot be removed now, the next sweep finds.
            let _ = fs::remove_dir_all(&making);
            let _ = fs::remove_file(self.root.join("names").join(name.as_str()));
            return Err(failure);
        }
        sync_dir(&self.root.join("volumes"))?;
        drop(names);
        Ok(VolumeFolder { name: name.clone(), id, path })
    }

    fn write_name(&self, name: &VolumeName, id: &VolumeId) -> Result<()> {
        let folder = self.root.join("names");
        // A name that leads nowhere may be in the way; renaming replaces it in one step.
        let new = folder.join(format!(".new-{name}"));
        let _ = fs::remove_file(&new);
        write_new(&new, format!("{}\n", id.to_hex()).as_bytes())?;
        fs::rename(&new, folder.join(name.as_str())).context(folder.display())?;
        sync_dir(&folder)
    }

    /// Removes a volume with its keys and everything else. Nobody else uses it: the caller holds all its locks.
    pub fn remove(&self, volume: &VolumeFolder, _lock: &Lock, _views: &ViewLock) -> Result<()> {
        let names = self.lock_names()?;
        let removed = self.root.join("volumes").join(format!(".removed-{}", volume.id.to_hex()));
        fs::rename(&volume.path, &removed).context(volume.path.display())?;
        sync_dir(&self.root.join("volumes"))?;
        let name = self.root.join("names").join(volume.name.as_str());
        fs::remove_file(&name).context(name.display())?;
        self.sweep()?;
        drop(names);
        Ok(())
    }

    /// Clears away what interrupted commands left. The caller holds the lock on the names.
    fn sweep(&self) -> Result<()> {
        let volumes = self.root.join("volumes");
        for entry in fs::read_dir(&volumes).context(volumes.display())? {
            let entry = entry.context(volumes.display())?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".making-") || name.starts_with(".removed-") {
                fs::remove_dir_all(entry.path()).context(entry.path().display())?;
            }
        }
        Ok(())
    }

    /// Locks the key ring; ends when dropped, also by a crash.
    pub fn lock_ring(&self) -> Result<File> {
        let folder = File::open(&self.root).context(self.root.display())?;
        flock(&folder, FlockOperation::LockExclusive).context(self.root.display())?;
        Ok(folder)
    }

    fn lock_names(&self) -> Result<File> {
        let path = self.root.join("names");
        let folder = File::open(&path).context(path.display())?;
        flock(&folder, FlockOperation::LockExclusive).context(path.display())?;
        Ok(folder)
    }
}

fn fill_folder(folder: &Path, config: &Config, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    for part in ["data", "snapshots", "views"] {
        make_private_dir(&folder.join(part))?;
    }
    write_new(&folder.join("config"), config.encode()?.as_bytes())?;
    write_new(&folder.join("lock"), b"")?;
    fill(folder)?;
    sync_dir(folder)
}

/// The right to write to a volume's folder; ends when dropped, also by a crash.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Held by each daemon that shows a moment, or by whoever removes the volume; ends when dropped, also by a crash.
#[derive(Debug)]
pub struct ViewLock {
    _folder: File,
}

impl VolumeFolder {
    /// Its branches, in the order of their names.
    pub fn branches(&self) -> Result<Vec<VolumeFolder>> {
        let folder = self.path.join("branches");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(folder.display())?,
        };
        let mut branches = Vec::new();
        for entry in entries {
            let entry = entry.context(folder.display())?;
            // What begins with a dot is being made or removed.
            let Some(name) = entry.file_name().to_str().and_then(|name| self.name.with_branch(name)) else {
                continue;
            };
            branches.push(VolumeFolder { name, id: self.id, path: entry.path() });
        }
        branches.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(branches)
    }

    /// Makes a branch of the volume: `fill` puts everything into the new folder before the branch exists. One that is
    /// there stays.
    pub fn add_branch(
        &self,
        branch: &str,
        config: &Config,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let folder = self.path.join("branches");
        make_private_dir(&folder)?;
        let (path, making) = (folder.join(branch), folder.join(".making"));
        if path.exists() {
            return Ok(());
        }
        remove_folder_if_there(&making)?;
        make_private_dir(&making)?;
        fill_folder(&making, config, fill)?;
        fs::rename(&making, &path).context(path.display())?;
        sync_dir(&folder)
    }

    /// Removes a branch with what only it needs. Nobody else uses it: the caller holds all its locks.
    pub fn remove_branch(&self, _lock: &Lock, _views: &ViewLock) -> Result<()> {
        let removed = self.path.with_file_name(".removed");
        remove_folder_if_there(&removed)?;
        fs::rename(&self.path, &removed).context(self.path.display())?;
        remove_folder_if_there(&removed)
    }

    /// Takes part in the lock of those who show a moment, so that the volume is not removed meanwhile.
    pub fn lock_as_view(&self) -> Result<ViewLock> {
        self.hold_views(FlockOperation::NonBlockingLockShared, "is being removed")
    }

    /// Takes the lock of those who show a moment from all of them.
    pub fn lock_out_views(&self) -> Result<ViewLock> {
        self.hold_views(FlockOperation::NonBlockingLockExclusive, "is in use: a moment of it is mounted")
            .map_err(|failure| failure.hint("`comb status` shows where; `comb unmount DIR` first"))
    }

    fn hold_views(&self, how: FlockOperation, taken: &str) -> Result<ViewLock> {
        let path = self.path.join("views");
        let folder = match File::open(&path) {
            // Only this one: a volume that was just removed does not come back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(&path).and_then(|()| File::open(&path))
            }
            opened => opened,
        };
        let folder = folder.context(path.display())?;
        match flock_patiently(&folder, how) {
            Ok(()) => Ok(ViewLock { _folder: folder }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Failure::new(Kind::InTheWay, format!("volume \"{}\" {taken}", self.name)))
            }
            Err(error) => Err(Failure::io(path.display(), &error.into())),
        }
    }

    /// Takes the volume's lock, or says who has it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.path.join("lock");
        let opened = private().read(true).write(true).create(true).truncate(false).open(&path);
        self.hold(opened.context(path.display())?)
    }

    /// The same for whoever changes nothing, so that it works on a disk that is mounted read-only too.
    pub fn lock_to_read(&self) -> Result<Lock> {
        let path = self.path.join("lock");
        self.hold(File::open(&path).context(path.display())?)
    }

    fn hold(&self, mut file: File) -> Result<Lock> {
        match flock_patiently(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // The holder writes its number for this message alone; without it the message is shorter.
                let _ = file.read_to_string(&mut holder);
                let who = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(Failure::new(
                    Kind::InTheWay,
                    format!("volume \"{}\" is in use by {who}", self.name),
                )
                .hint(format!("`comb status {}` shows whether it is mounted", self.name)));
            }
            Err(error) => return Err(Failure::io(self.path.join("lock").display(), &error.into())),
        }
        // Only for that message: a failure to write it is none of the command's.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Lock { _file: file })
    }

    /// What was configured when it was made.
    pub fn config(&self) -> Result<Config> {
        let path = self.path.join("config");
        Config::decode(&read_small(&path)?).map_err(|(kind, what)| {
            let failure = Failure::new(kind, format!("{} {what}", path.display()));
            match kind {
                Kind::Foreign => failure.hint("use the version of comb that wrote it, or a newer one"),
                _ => failure.hint("put it right by hand and take out its line `check`, or put back a copy"),
            }
        })
    }

    /// The file with its keys.
    pub fn key_path(&self) -> PathBuf {
        self.path.join("key")
    }

    /// Where it mounts if no folder is given.
    pub fn data_path(&self) -> PathBuf {
        self.path.join("data")
    }

    /// What `/proc/self/mountinfo` shows as the source of its mounts.
    pub fn mount_source(&self) -> String {
        format!("comb:{}", &self.id.to_hex()[..16])
    }

    /// Makes `snapshots/UUID` lead into the mount's `.snapshots`.
    pub fn link_snapshot(&self, uuid: &str) -> Result<()> {
        let folder = self.path.join("snapshots");
        make_private_dir(&folder)?;
        let link = folder.join(uuid);
        match std::os::unix::fs::symlink(format!("../data/.snapshots/{uuid}"), &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.context(link.display()),
        }
    }

    /// Removes `snapshots/UUID` of all others than these.
    pub fn unlink_snapshots_but(&self, kept: &HashSet<String>) -> Result<()> {
        let folder = self.path.join("snapshots");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.context(folder.display())?,
        };
        for entry in entries {
            let entry = entry.context(folder.display())?;
            let is_kept = entry.file_name().to_str().is_some_and(|name| kept.contains(name));
            if !is_kept && entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                fs::remove_file(entry.path()).context(entry.path().display())?;
            }
        }
        Ok(())
    }

    /// Makes `data` a folder again, whatever a daemon that was killed has left.
    pub fn own_data(&self) -> Result<()> {
        let data = self.data_path();
        match fs::symlink_metadata(&data) {
            Ok(meta) if meta.is_symlink() => fs::remove_file(&data).context(data.display())?,
            _ => {}
        }
        make_private_dir(&data)
    }

    /// Makes `data` lead to where the volume is mounted, so that `data` and `snapshots/` show it.
    pub fn lead_data_to(&self, mount_point: &Path) -> Result<()> {
        let data = self.data_path();
        self.own_data()?;
        fs::remove_dir(&data).context(data.display())?;
        std::os::unix::fs::symlink(mount_point, &data).context(data.display())
    }
}

/// Removes a file; no error if it is not there.
pub fn remove_file_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io(path.display(), &error)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it; no error if it is not there.
fn remove_folder_if_there(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io(folder.display(), &error)),
        _ => Ok(()),
    }
}

/// Where a user's programs keep their data.
fn data_home() -> Result<PathBuf> {
    // The specification ignores relative paths.
    let absolute =
        |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share"))).ok_or_else(
        || {
            Failure::new(Kind::Usage, "neither XDG_DATA_HOME nor HOME is set")
                .hint("say where with `--state DIR`")
        },
    )
}

/// Opens the file of a lock that a whole program holds, and makes it where there is none.
pub fn lock_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).context(path.display())
}

/// Takes a lock, which ends with the file; false if somebody else has it.
pub fn try_lock(path: &Path, file: &File) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(Failure::io(path.display(), &error.into())),
    }
}

/// Asks for a lock again for a moment.
fn flock_patiently(file: &File, how: FlockOperation) -> rustix::io::Result<()> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(file, how) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            held => return held,
        }
    }
}

/// Refuses root a folder of another user.
fn refuse_anothers(folder: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // One that cannot be looked at belongs to nobody yet, or is told by whoever uses it.
    let Ok(metadata) = fs::metadata(folder) else { return Ok(()) };
    if metadata.uid() == 0 {
        return Ok(());
    }
    let user = user_name(metadata.uid()).unwrap_or_else(|| format!("#{}", metadata.uid()));
    Err(Failure::new(
        Kind::NotPermitted,
        format!("{} belongs to {user}, who could not read what root writes there", folder.display()),
    )
    .hint(match user.strip_prefix('#') {
        None => format!("`runuser -u {user} -- comb …` does it as {user}"),
        Some(uid) => format!("`setpriv --reuid {uid} --clear-groups comb …` does it as its owner"),
    }))
}

/// The name of a user of this machine.
fn user_name(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Writes a file that must not exist, for its owner alone, and makes it durable.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = private().write(true).create_new(true).open(path).context(path.display())?;
    file.write_all(bytes).and_then(|()| file.sync_all()).context(path.display())?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_dir(folder),
        _ => sync_dir(Path::new(".")),
    }
}

/// Puts a file in the place of one that may be there, whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // No name that a person gives begins with a dot.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".new-{name}"));
    // What an interrupted command left.
    let _ = fs::remove_file(&new);
    write_new(&new, bytes)?;
    fs::rename(&new, path).context(path.display())?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes a folder for its owner alone; no error if it is there.
pub fn make_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).context(path.display())
}

/// Makes durable which names a folder holds.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).context(path.display())
}

fn read_small(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).context(path.display())?;
    file.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut bytes).context(path.display())?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(Kind::Damaged, format!("{} is damaged: it is not text", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct World {
        state: State,
        _folder: tempfile::TempDir,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::locate(Some(&folder.path().join("state"))).expect("a path");
        World { state, _folder: folder }
    }

    impl World {
        fn name(&self, text: &str) -> VolumeName {
            text.parse().expect("a name")
        }

        fn add(&self, name: &str, id: u8) -> Result<VolumeFolder> {
            self.add_with(name, id, |folder| write_new(&folder.join("key"), b"secret"))
        }

        fn add_with(
            &self,
            name: &str,
            id: u8,
            fill: impl FnOnce(&Path) -> Result<()>,
        ) -> Result<VolumeFolder> {
            let config = Config {
                quota_bytes: Some(10),
                created: "2026-11-21T00:00:00Z".into(),
                ..Config::new(&name.parse().expect("a name"))
            };
            self.state.add(&config, &self.name(name), VolumeId([id; 32]), fill)
        }

        fn names(&self) -> Vec<String> {
            self.state.volumes().expect("a list").iter().map(|volume| volume.name.to_string()).collect()
        }
    }

    #[test]
    fn a_volume_is_found_by_its_name() {
        let world = world();
        assert_eq!(world.names(), Vec::<String>::new());
        let photos = world.add("photos", 1).expect("made");
        world.add("mail", 2).expect("made");
        assert_eq!(world.names(), ["mail", "photos"]);
        let found = world.state.volume(&world.name("photos")).expect("found");
        assert_eq!((found.id, found.path), (photos.id, photos.path));
        assert_eq!(found.name.as_str(), "photos");
        let missing = world.state.volume(&world.name("music")).expect_err("not made");
        assert_eq!(missing.kind, Kind::NotFound);
    }

    #[test]
    fn a_name_and_a_key_are_taken_once() {
        let world = world();
        world.add("photos", 1).expect("made");
        assert_eq!(world.add("photos", 2).expect_err("the name").kind, Kind::InTheWay);
        assert_eq!(world.add("other", 1).expect_err("the key").kind, Kind::InTheWay);
        assert_eq!(world.names(), ["photos"]);
    }

    #[test]
    fn a_volume_that_could_not_be_made_leaves_nothing() {
        let world = world();
        let failed = world.add_with("photos", 1, |_| Err(Failure::new(Kind::NoSpace, "full")));
        assert_eq!(failed.expect_err("it failed").kind, Kind::NoSpace);
        assert_eq!(world.names(), Vec::<String>::new());
        assert_eq!(fs::read_dir(world.state.root().join("volumes")).expect("a folder").count(), 0);
        assert_eq!(fs::read_dir(world.state.root().join("names")).expect("a folder").count(), 0);
        world.add("photos", 1).expect("the name and the key are free");
    }

    #[test]
    fn what_a_crash_leaves_counts_as_absent_and_is_swept() {
        let world = world();
        world.add("photos", 1).expect("made");
        // Killed between the name and the folder, and in the middle of a removal.
        let names = world.state.root().join("names");
        fs::write(names.join("half"), format!("{}\n", VolumeId([9; 32]).to_hex())).expect("a name");
        let removed = world.state.root().join("volumes/.removed-x");
        fs::create_dir_all(removed.join("packs")).expect("a folder");

        assert_eq!(world.names(), ["photos"]);
        world.add("half", 3).expect("the name is free");
        assert!(!removed.exists());
        assert_eq!(world.names(), ["half", "photos"]);
    }

    #[test]
    fn removing_takes_keys_and_name() {
        let world = world();
        let photos = world.add("photos", 1).expect("made");
        let lock = photos.lock().expect("free");
        let view = photos.lock_as_view().expect("a moment is shown");
        let second = photos.lock_as_view().expect("and another");
        drop(view);
        assert_eq!(photos.lock_out_views().expect_err("one is still shown").kind, Kind::InTheWay);
        drop(second);
        let views = photos.lock_out_views().expect("nobody is left");
        assert_eq!(photos.lock_as_view().expect_err("it is being removed").kind, Kind::InTheWay);
        world.state.remove(&photos, &lock, &views).expect("removed");
        drop(views);
        photos.lock_as_view().expect_err("it is gone");
        assert!(!photos.path.exists(), "and does not come back");
        assert_eq!(world.names(), Vec::<String>::new());
        assert!(!photos.path.exists());
        world.add("photos", 1).expect("both are free again");
    }

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let world = world();
        let photos = world.add("photos", 1).expect("made");
        let lock = photos.lock().expect("free");
        let failure = photos.lock().expect_err("held");
        assert_eq!(failure.kind, Kind::InTheWay);
        assert!(failure.message.contains(&format!("process {}", std::process::id())), "{failure}");
        drop(lock);
        photos.lock().expect("free again");
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let world = world();
        let photos = world.add("photos", 1).expect("made");
        let secret = world.state.device_secret().expect("made at its first use");
        assert_eq!(world.state.device_secret().expect("kept"), secret);
        assert_ne!(secret, [0; 32]);
        for path in [world.state.root().join("device"), photos.key_path()] {
            let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
        let mode = fs::metadata(world.state.root()).expect("a folder").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
    }

    #[test]
    fn a_device_file_of_another_length_is_refused() {
        let world = world();
        world.state.device_secret().expect("made");
        fs::write(world.state.root().join("device"), b"short").expect("written");
        assert_eq!(world.state.device_secret().expect_err("refused").kind, Kind::Damaged);
    }

    #[test]
    fn data_leads_to_the_mount_and_back() {
        let world = world();
        let photos = world.add("photos", 1).expect("made");
        let elsewhere = world.state.root().join("elsewhere");
        photos.lead_data_to(&elsewhere).expect("linked");
        photos.lead_data_to(&elsewhere).expect("linked again, as after a kill");
        assert_eq!(fs::read_link(photos.data_path()).expect("a link"), elsewhere);
        photos.own_data().expect("a folder");
        assert!(fs::symlink_metadata(photos.data_path()).expect("there").is_dir());

        photos.link_snapshot("7d0c").expect("linked");
        photos.link_snapshot("7d0c").expect("linking twice is fine");
        let link = fs::read_link(photos.path.join("snapshots/7d0c")).expect("a link");
        assert_eq!(link, Path::new("../data/.snapshots/7d0c"));
    }
}
