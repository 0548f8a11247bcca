//! Opening volumes and their past, and the engine's errors in words for a person.

use fs_format::manifest::PackEntry;
use fs_format::{Epoch, Ino, Seq};
use fs_volume::env::Env;
use fs_volume::{Caller, FsError, History, OpenError, Options, ReadTree, SealInfo, View, Volume};
use jiff::Zoned;

use crate::control::Address;
use crate::failure::{Failure, Kind, Result};
use crate::output;
use crate::state::{Lock, State, VolumeFolder};
use crate::when::When;
use crate::{elsewhere, keys, notes};

/// Memory for a command that reads and ends, in bytes.
pub const COMMAND_CACHE_BYTES: u64 = 64 << 20;

/// Opens the past of a volume; it may be mounted meanwhile.
pub fn history(volume: &VolumeFolder) -> Result<History> {
    history_through(elsewhere::door_of_command(volume)?, volume)
}

/// The same as far as it is here: no store is asked.
pub fn history_here(volume: &VolumeFolder) -> Result<History> {
    history_through(elsewhere::door_of_what_is_here(volume)?, volume)
}

/// The same through a door that is open already.
pub fn history_through(env: Env, volume: &VolumeFolder) -> Result<History> {
    let read_key = keys::load_any(volume)?.read_key();
    History::open(env, volume.id, read_key, COMMAND_CACHE_BYTES).map_err(|error| open_failure(volume, &error))
}

/// Opens a volume for writing or, with `options.read_only`, for reading what the journal holds too.
pub fn open(state: &State, volume: &VolumeFolder, lock: &Lock, options: Options) -> Result<Volume> {
    open_through(elsewhere::door_of_command(volume)?, state, volume, lock, options)
}

/// The same through a door that is open already.
pub fn open_through(
    env: Env,
    state: &State,
    volume: &VolumeFolder,
    _lock: &Lock,
    options: Options,
) -> Result<Volume> {
    let config = volume.config()?;
    let options = Options {
        quota_bytes: config.quota_bytes,
        read_only: options.read_only || is_others(volume)?,
        ..options
    };
    let key = keys::load(volume)?;
    let device = keys::device(state)?;
    Volume::open(env, key, &device, options).map_err(|error| open_failure(volume, &error))
}

/// Whether somebody else writes the volume: it was opened here to be read, or another device has taken it over.
pub fn is_others(volume: &VolumeFolder) -> Result<bool> {
    Ok(volume.config()?.follows || notes::is_fenced(volume))
}

/// Opens a volume for one change, or says why it refuses all of them.
pub fn open_to_write(state: &State, volume: &VolumeFolder, lock: &Lock) -> Result<Volume> {
    open_or_refuse(state, volume, lock, Kind::NotPermitted)
}

/// Refuses a volume that another device writes.
pub fn refuse_others(volume: &VolumeFolder) -> Result<()> {
    if is_others(volume)? {
        if keys::load_any(volume).is_ok_and(|key| key.signing().is_none()) {
            return Err(keys::reads_only(volume));
        }
        let what = format!("volume \"{}\" is read-only: another device writes it", volume.name);
        let failure = Failure::new(Kind::NotPermitted, what);
        return Err(match volume.name.branch() {
            None => failure.hint(format!("`comb volume open {}` takes it over", volume.name)),
            Some(_) => {
                failure.hint(format!("`comb fork {}@head NEW` makes a volume of the branch", volume.name))
            }
        });
    }
    Ok(())
}

fn open_or_refuse(state: &State, volume: &VolumeFolder, lock: &Lock, kind: Kind) -> Result<Volume> {
    refuse_others(volume)?;
    let opened = open(state, volume, lock, command_options())?;
    match opened.read_only_reason() {
        None => Ok(opened),
        Some(reason) => Err(Failure::new(kind, format!("volume \"{}\" is read-only: {reason}", volume.name))
            .hint(way_out(&volume.name))),
    }
}

/// What to do about a volume that is damaged and so takes no changes.
pub fn way_out(name: impl std::fmt::Display) -> String {
    format!(
        "`comb check {name}` names what is damaged, `comb mount {name} DIR` shows the rest; `comb fork {name}@head NEW` \
         goes on from the newest whole moment"
    )
}

/// What to do about a volume that another device has taken over; `mount_point` is where it is mounted, if it is.
pub fn way_on(name: impl std::fmt::Display, mount_point: Option<&str>) -> String {
    let first = mount_point.map_or_else(String::new, |dir| format!("`comb unmount {dir}` first, then "));
    format!("{first}`comb volume open {name}` goes on with it here, with --read-only it follows the other")
}

/// The options of a command that opens a volume, does one thing and ends.
pub fn command_options() -> Options {
    Options { cache_bytes: COMMAND_CACHE_BYTES, ..Options::default() }
}

/// Whom the root directory of a new volume belongs to.
pub fn owner() -> Caller {
    Caller { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

/// Seals what the journal holds, so that the newest seal is what the volume holds now: through the
/// daemon if the volume is mounted, else by opening it.
fn seal_now(state: &State, volume: &VolumeFolder) -> Result<()> {
    if Address::live(&volume.path).seal()?.is_some() {
        return Ok(());
    }
    let lock = volume.lock()?;
    // What makes it read-only when it is opened for writing is damage.
    let opened = open_or_refuse(state, volume, &lock, Kind::Damaged)?;
    opened.seal(None).map_err(|error| fs_failure(&volume.name, &error))?;
    Ok(())
}

/// Brings the newest seal up to now; the failure says why it is not now.
///
/// What takes no changes cannot be sealed, and need not be where nothing is unsealed.
fn miss_now(state: &State, volume: &VolumeFolder) -> Option<Failure> {
    let failure = seal_now(state, volume).err()?;
    if failure.kind != Kind::NotPermitted {
        return Some(failure);
    }
    match Address::live(&volume.path).status() {
        Ok(Some(mount)) if mount.trouble.is_some() => Some(Failure { kind: Kind::Damaged, ..failure }),
        Ok(Some(mount)) if mount.sealed => None,
        Ok(None) if is_sealed(state, volume).unwrap_or(false) => None,
        _ => Some(failure),
    }
}

/// Whether the newest seal holds all that the volume holds; found without a change to its folder.
fn is_sealed(state: &State, volume: &VolumeFolder) -> Result<bool> {
    let lock = volume.lock_to_read()?;
    let status = open(state, volume, &lock, Options { read_only: true, ..command_options() })?.status();
    Ok(status.is_sealed && status.damage.is_empty())
}

/// A moment that was looked up.
pub struct Found {
    /// The past that it is of.
    pub history: History,
    /// The moment.
    pub view: View,
    /// Why it is only the newest seal, where now was asked for.
    missed: Option<Failure>,
    /// Why the store could not be looked at of a volume that another device writes.
    unseen: Option<Failure>,
}

impl Found {
    /// What a command ends with that has shown this moment: a failure if it was not the one asked for.
    ///
    /// What was not found in the newest seal may be there now.
    pub fn end(self, outcome: Result<()>) -> Result<()> {
        match (outcome, self.missed) {
            // What the store does not have any more is no damage here.
            (Err(failure), _) if failure.kind == Kind::Damaged => Err(self.unseen.unwrap_or(failure)),
            (Err(failure), Some(missed)) if failure.kind == Kind::NotFound => {
                output::note(&failure.message);
                Err(missed)
            }
            (Ok(()), Some(missed)) => Err(missed),
            (outcome, _) => outcome,
        }
    }

    /// The same for a command that has told what is sealed, and was asked for no more.
    pub fn end_of_sealed(self, outcome: Result<()>) -> Result<()> {
        match self.unseen {
            Some(_) => self.end(outcome),
            None => outcome,
        }
    }

    /// The past and the moment, for a command that needs the one asked for.
    pub fn required(self) -> Result<(History, View)> {
        match self.missed {
            None => Ok((self.history, self.view)),
            Some(missed) => Err(missed),
        }
    }
}

/// The past of a volume, brought up to now if no moment was named, and the moment.
///
/// Where now cannot be sealed (a second process, a full disk, damage) the newest seal is still worth
/// showing; a person is told that it is not the last word, and so is a program, by [`Found::end`].
///
/// Of a volume that this machine only looks at, the store is asked once what is newest.
pub fn moment(state: &State, volume: &VolumeFolder, when: Option<&When>) -> Result<Found> {
    moment_through(elsewhere::door_of_command, state, volume, when)
}

/// The same for a command that copies what it finds to somewhere else.
pub fn moment_to_copy(state: &State, volume: &VolumeFolder, when: &When) -> Result<(History, View)> {
    moment_through(elsewhere::door_of_copy, state, volume, Some(when))?.required()
}

fn moment_through(
    door: fn(&VolumeFolder) -> Result<Env>,
    state: &State,
    volume: &VolumeFolder,
    when: Option<&When>,
) -> Result<Found> {
    let unseen = elsewhere::refresh(volume);
    // Nothing new can be told from what is old before somebody says what to believe.
    let unknown = elsewhere::unknown(volume).filter(|_| matches!(when, None | Some(When::Head)));
    let missed = match when {
        _ if unknown.is_some() => unknown,
        Some(_) => None,
        // What others write is sealed by them.
        None if is_others(volume).unwrap_or(false) => None,
        None => miss_now(state, volume),
    };
    if let Some(failure) = missed.as_ref().filter(|_| unseen.is_none()) {
        output::note(&format!("warning: showing the newest sealed moment, not now: {}", failure.message));
    }
    let history = history_through(door(volume)?, volume)?;
    let view = find(volume, &history, when.unwrap_or(&When::Head))?;
    match unseen {
        // Where nothing of it can be shown, why is better told than what.
        Some(unseen) if view.attr(Ino::ROOT).is_err() => Err(unseen),
        unseen => Ok(Found { history, view, missed, unseen }),
    }
}

/// Opens the moment that `when` names. The newest and a number are found without a look at the others.
pub fn find(volume: &VolumeFolder, history: &History, when: &When) -> Result<View> {
    let known = match when {
        When::Head => Some(history.head().and_then(|head| history.at(head.seq))),
        When::Seq(seq, _) => match history.at(Seq(*seq)) {
            // The number may be the beginning of a uuid.
            Err(OpenError::NoSuchSnapshot(_)) => None,
            other => Some(other),
        },
        When::Time(_) | When::Listed(..) | When::Name(_) => None,
    };
    let found = match known {
        Some(view) => view.map(Ok),
        None => history.find(|seals| when.resolve(seals).map(|seal| seal.seq)),
    };
    warn_of_damage(history);
    found.map_err(|error| open_failure(volume, &error))?
}

/// Says what was found damaged, each place once.
fn warn_of_damage(history: &History) {
    for damage in history.damage() {
        output::warn_once(&output::escape(damage.as_bytes()));
    }
}

/// The epoch in which the newest seal was made.
pub fn epoch(volume: &VolumeFolder, history: &History) -> Result<Epoch> {
    let newest = history.head().and_then(|head| history.at(head.seq));
    newest.map(|newest| newest.epoch()).map_err(|error| open_failure(volume, &error))
}

/// All seals of a volume, oldest first.
pub fn seals(volume: &VolumeFolder, history: &History) -> Result<Vec<SealInfo>> {
    let seals = history.seals().map_err(|error| open_failure(volume, &error))?;
    warn_of_damage(history);
    Ok(seals)
}

/// The packs of a volume, the newest first.
pub fn packs(volume: &VolumeFolder, history: &History) -> Result<Vec<PackEntry>> {
    history.packs().collect::<std::result::Result<_, _>>().map_err(|error| fs_failure(&volume.name, &error))
}

/// Now, in nanoseconds since 1970.
pub fn now_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Now, in the time zone of this machine.
pub fn now() -> Zoned {
    Zoned::now()
}

/// Why a volume could not be made or opened.
pub fn open_failure(volume: &VolumeFolder, error: &OpenError) -> Failure {
    let kind = match error {
        OpenError::NotAVolume(_) | OpenError::WrongKey { .. } | OpenError::Newer { .. } => Kind::Foreign,
        OpenError::AlreadyAVolume(_) => Kind::InTheWay,
        OpenError::Damaged { .. } => Kind::Damaged,
        OpenError::NoSuchSnapshot(_) => Kind::NotFound,
        error if error.is_away() => {
            return Failure::new(Kind::Unreachable, format!("volume \"{}\": {error}", volume.name))
                .hint(AWAY);
        }
        OpenError::Disk { what, source } => return Failure::io(what, source),
    };
    let failure = Failure::new(kind, format!("volume \"{}\": {error}", volume.name));
    match error {
        OpenError::WrongKey { .. } => {
            failure.hint(format!("put the right key at {}", volume.key_path().display()))
        }
        OpenError::Newer { .. } => failure.hint("use the version of comb that wrote it, or a newer one"),
        OpenError::Damaged { .. } => {
            failure.hint(format!("`comb check {}` names everything that is damaged", volume.name))
        }
        OpenError::NoSuchSnapshot(_) => failure.hint(format!("`comb log {}` lists the moments", volume.name)),
        _ => failure,
    }
}

/// What to do where a part of a volume is in a store alone that does not answer.
const AWAY: &str = "what was never read on this machine is in the store alone: see that it can be reached from here, and try again";

/// Why an operation in a volume was refused; `what` says where.
pub fn fs_failure(what: impl std::fmt::Display, error: &FsError) -> Failure {
    let kind = match error {
        FsError::NotFound | FsError::NoAttribute | FsError::NoSuchOffset | FsError::Dropped => Kind::NotFound,
        FsError::Exists | FsError::NotEmpty => Kind::InTheWay,
        FsError::NoSpace => Kind::NoSpace,
        FsError::ReadOnly | FsError::NotPermitted => Kind::NotPermitted,
        FsError::Damaged(_) => Kind::Damaged,
        FsError::Newer(_) => Kind::Foreign,
        FsError::Away(_) => Kind::Unreachable,
        _ => Kind::Other,
    };
    let failure = Failure::new(kind, format!("{what}: {error}"));
    match error {
        FsError::NoSpace => failure.hint(
            "free some space; a quota is `quota_bytes` in the file `config` of the volume's folder, which a change by hand \
             leaves without its line `check`",
        ),
        FsError::ReadOnly => failure.hint("`comb status` says why it is read-only"),
        FsError::Away(_) => failure.hint(AWAY),
        FsError::Damaged(_) => {
            failure.hint("`comb check` names everything that is damaged; other moments may be whole")
        }
        _ => failure,
    }
}
