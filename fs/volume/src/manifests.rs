//! Manifests on the local disk.
//!
//! Each lies in `manifests/<seq>`; the newest also in `head`, so that one flipped bit in it
//! does not hide what the journal behind it no longer has. Earlier ones are kept with their moments, but nobody needs
//! them to open those.

use fs_crypto::{Cipher, ReadKey, VolumeKey};
use fs_format::manifest::{
    self, Lineage, MANIFEST_BYTES_MAX, MANIFEST_CONTEXT, ManifestBody, ManifestHeader, manifest_id,
};
use fs_format::{DecodeError, DeviceId, Epoch, ManifestId, Seq, VolumeId};

use crate::env::{Env, OpenMode};
use crate::ledger::{Moment, into_label};
use crate::replace::{self, Missed};
use crate::store::disk_error;
use crate::tree::Root;
use crate::types::SealInfo;
use crate::{FsError, OpenError};

/// The copy of the newest manifest.
const HEAD: &str = "head";
/// What they are called while they are written.
const NEW: &str = "manifests/.new";
const NEW_HEAD: &str = "head.new";

/// A manifest that was read and checked.
pub struct Manifest {
    pub header: ManifestHeader,
    pub body: ManifestBody,
    pub info: SealInfo,
    /// The key that opens what it names: the volume's own, or a fork's parent's.
    pub read_key: ReadKey,
    /// Set when a newer one is damaged or missing.
    pub damage: Option<String>,
    /// Set when it was read from its copy: what is wrong with itself.
    pub copied: Option<String>,
    /// Whether its copy is old, damaged or missing.
    pub lacks_copy: bool,
}

/// The path of a manifest in the volume's folder.
pub fn path(seq: Seq) -> String {
    format!("manifests/{:016x}", seq.0)
}

/// The numbers of all manifests, ascending.
pub fn list(env: &Env) -> Result<Vec<Seq>, OpenError> {
    let names = env.disk.list("manifests").map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            OpenError::NotAVolume("the folder".into())
        } else {
            OpenError::Disk { what: "manifests".into(), source }
        }
    })?;
    let number = |name: &String| (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok()).flatten();
    let mut seqs: Vec<Seq> = names.iter().filter_map(number).map(Seq).collect();
    seqs.sort();
    Ok(seqs)
}

/// Reads the manifest with this number.
pub fn read(env: &Env, volume: &VolumeId, own: &ReadKey, seq: Seq) -> Result<Manifest, OpenError> {
    let manifest = read_file(env, volume, own, &path(seq))?;
    if manifest.header.seq != seq {
        return Err(OpenError::Damaged {
            what: path(seq),
            detail: format!("says that it is {}", manifest.header.seq),
        });
    }
    Ok(manifest)
}

/// Reads the newest manifest that is whole.
pub fn newest(env: &Env, volume: &VolumeId, own: &ReadKey) -> Result<Manifest, OpenError> {
    newest_of(env, volume, own, &list(env)?)
}

/// Reads the newest manifest that is whole, among those with these numbers.
pub fn newest_of(env: &Env, volume: &VolumeId, own: &ReadKey, seqs: &[Seq]) -> Result<Manifest, OpenError> {
    let Some(&last) = seqs.last() else { return Err(OpenError::NotAVolume("the folder".into())) };
    // The copy is written after the manifest and may be behind after a crash or on a full disk, but then the manifest
    // is whole.
    let copy = read_file(env, volume, own, HEAD);
    // It may also be ahead of the list, by a seal that came in between or by a manifest that is missing.
    let expected = copy.as_ref().map_or(last, |copy| copy.header.seq.max(last));
    let newest = match read(env, volume, own, expected) {
        Ok(mut manifest) => {
            manifest.lacks_copy = match &copy {
                Ok(copy) => copy.info.id != manifest.info.id,
                Err(error) => matches!(error, OpenError::Damaged { .. }),
            };
            return Ok(manifest);
        }
        Err(error @ OpenError::Damaged { .. }) => error,
        Err(error) => return Err(error),
    };
    if let Ok(mut copy) = copy
        && copy.header.seq >= last
    {
        copy.copied = Some(newest.to_string());
        return Ok(copy);
    }
    for &seq in seqs.iter().rev().filter(|&&seq| seq != expected) {
        if let Ok(mut manifest) = read(env, volume, own, seq) {
            manifest.damage = Some(format!("{newest}: showing seq {seq} instead"));
            return Ok(manifest);
        }
    }
    Err(newest)
}

/// Compares the copy of the newest manifest with it; one behind is what a crash leaves.
pub fn check_copy(env: &Env, volume: &VolumeId, own: &ReadKey, last: Seq) -> Result<(), OpenError> {
    let copy = read_file(env, volume, own, HEAD)?;
    if copy.header.seq.0.saturating_add(1) >= last.0 {
        return Ok(());
    }
    Err(OpenError::Damaged { what: HEAD.into(), detail: format!("is seq {}, not {last}", copy.header.seq) })
}

/// Writes the newest manifest anew from its copy.
pub fn restore_from_copy(env: &Env, seq: Seq) -> Result<(), FsError> {
    replace(env, NEW, &path(seq), &bytes(env, HEAD)?)
}

/// Writes the copy anew from the newest manifest.
///
/// A crash leaves the copy one behind. Were it left so, the next crash would leave it two behind.
pub fn refresh_copy(env: &Env, seq: Seq) -> Result<(), FsError> {
    replace(env, NEW_HEAD, HEAD, &bytes(env, &path(seq))?)
}

/// The object that was read as this manifest.
pub fn object(env: &Env, manifest: &Manifest) -> Result<Vec<u8>, FsError> {
    match &manifest.copied {
        None => bytes(env, &path(manifest.header.seq)),
        Some(_) => bytes(env, HEAD),
    }
}

/// The bytes of a manifest that was read and checked.
fn bytes(env: &Env, path: &str) -> Result<Vec<u8>, FsError> {
    let read = || -> std::io::Result<Vec<u8>> {
        let file = env.disk.open(path, OpenMode::Read)?;
        let len = file.len()?.min(MANIFEST_BYTES_MAX as u64);
        let mut object = vec![0; len as usize];
        file.read_at(&mut object, 0)?;
        Ok(object)
    };
    read().map_err(|error| disk_error(path, &error))
}

/// What a manifest says of its moment, of which the bytes came from elsewhere.
pub fn manifest_info(object: &[u8], volume: &VolumeId, own: &ReadKey) -> Result<SealInfo, OpenError> {
    open(object, volume, own, "a manifest").map(|manifest| manifest.info)
}

fn read_file(env: &Env, volume: &VolumeId, own: &ReadKey, path: &str) -> Result<Manifest, OpenError> {
    let disk = |source: std::io::Error| {
        if matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof) {
            OpenError::Damaged { what: path.into(), detail: source.to_string() }
        } else {
            OpenError::Disk { what: path.into(), source }
        }
    };
    let file = env.disk.open(path, OpenMode::Read).map_err(disk)?;
    let len = file.len().map_err(disk)?;
    if len > MANIFEST_BYTES_MAX as u64 {
        return Err(OpenError::Damaged {
            what: path.into(),
            detail: "is larger than a manifest can be".into(),
        });
    }
    let mut object = vec![0; len as usize];
    file.read_at(&mut object, 0).map_err(disk)?;
    open(&object, volume, own, path)
}

/// Opens the bytes of a manifest; `path` says where they lie.
fn open(object: &[u8], volume: &VolumeId, own: &ReadKey, path: &str) -> Result<Manifest, OpenError> {
    let decode = |error: DecodeError| match error {
        DecodeError::Newer { .. } | DecodeError::Unreleased(_) => {
            OpenError::Newer { what: path.into(), detail: error.to_string() }
        }
        _ => OpenError::Damaged { what: path.into(), detail: error.to_string() },
    };
    let (header, associated, body) = manifest::open_manifest(object).map_err(decode)?;
    if header.volume != *volume {
        return Err(OpenError::WrongKey { expected: header.volume.to_hex() });
    }
    let damaged = |detail: &str| OpenError::Damaged { what: path.into(), detail: detail.into() };
    let read_key = match &header.lineage {
        Lineage::Own => own.clone(),
        Lineage::Forked(wrapped) => {
            own.unwrap(wrapped).map_err(|_| damaged("has a key that does not unwrap"))?
        }
    };
    let cipher = read_key.manifest_cipher(&header.salt);
    let Some(split) = body.len().checked_sub(Cipher::TAG_BYTES) else {
        return Err(damaged("ends early"));
    };
    let mut plain = body[..split].to_vec();
    let tag = body[split..].try_into().expect("the tag's length");
    cipher.open(0, associated, &mut plain, &tag).map_err(|_| damaged("does not open with this key"))?;
    let body = ManifestBody::decode(&plain).map_err(decode)?;
    let info = info(header.seq, manifest_id(object), &body);
    Ok(Manifest { header, body, info, read_key, damage: None, copied: None, lacks_copy: false })
}

impl Manifest {
    /// What it says, as its record says it.
    pub fn moment(&self) -> Moment {
        let root = Root { pointer: self.body.root, height: self.body.height };
        Moment { info: self.info.clone(), root, epoch: self.header.epoch }
    }
}

/// What a new manifest follows, and who writes it.
pub struct Place<'a> {
    pub epoch: Epoch,
    pub seq: Seq,
    pub parent: ManifestId,
    /// The volume's own read key, when it reads with another's.
    pub forked: Option<&'a ReadKey>,
    /// Whether compaction may have moved frames.
    pub has_moved: bool,
    pub device: DeviceId,
}

/// A manifest that was not written.
pub struct Unwritten {
    /// Why.
    pub error: FsError,
    /// Whether it may be there all the same, and its seal count.
    pub may_count: bool,
}

/// Signs a manifest and makes it durable: this is the moment at which a seal counts.
pub fn write(
    env: &Env,
    key: &VolumeKey,
    read: &ReadKey,
    place: &Place<'_>,
    body: &ManifestBody,
) -> Result<SealInfo, Unwritten> {
    let mut random = [0; 32];
    env.chance.fill(&mut random);
    let mut plain = body.encode();
    let salt = fs_crypto::hedged_salt(
        &random,
        &[&place.epoch.0.to_le_bytes(), &place.seq.0.to_le_bytes(), &place.parent.0, &plain],
    );
    let header = ManifestHeader {
        body_bytes: (plain.len() + Cipher::TAG_BYTES) as u32,
        volume: key.id(),
        epoch: place.epoch,
        seq: place.seq,
        parent: place.parent,
        salt,
        lineage: place.forked.map_or(Lineage::Own, |own| Lineage::Forked(own.wrap(read))),
        has_moved: place.has_moved,
        device: place.device,
    };
    let mut object = header.encode().to_vec();
    let tag = read.manifest_cipher(&salt).seal(0, &object, &mut plain);
    object.extend_from_slice(&plain);
    object.extend_from_slice(&tag);
    let signature = key.sign(MANIFEST_CONTEXT, &object);
    object.extend_from_slice(&signature);
    assert!(
        object.len() <= MANIFEST_BYTES_MAX,
        "a table's top and a label are far smaller than a manifest may be"
    );
    let id = manifest_id(&object);
    let path = path(place.seq);
    let put = replace::put(&*env.disk, NEW, &path, |file| file.write_at(&object, 0));
    put.map_err(|Missed { error, may_be_there }| match may_be_there {
        // Not even of a full disk it is said that there is no room: whoever tried again would change what is sealed.
        true => Unwritten { error: FsError::Disk(format!("{path}: {error}")), may_count: true },
        false => Unwritten { error: disk_error(&path, &error), may_count: false },
    })?;
    if let Err(error) = replace(env, NEW_HEAD, HEAD, &object) {
        // The seal counts. The next one, or whoever opens the volume for writing, writes the copy anew.
        tracing::warn!(seq = %place.seq, %error, "the copy `head` of the newest manifest cannot be written");
    }
    Ok(info(place.seq, id, body))
}

fn info(seq: Seq, id: ManifestId, body: &ManifestBody) -> SealInfo {
    let ManifestBody { time, files, bytes, added, .. } = *body;
    SealInfo { seq, id, time, files, bytes, added, snapshot: body.snapshot.clone().map(into_label) }
}

fn replace(env: &Env, temporary: &str, path: &str, bytes: &[u8]) -> Result<(), FsError> {
    replace::put(&*env.disk, temporary, path, |file| file.write_at(bytes, 0))
        .map(drop)
        .map_err(|missed| disk_error(path, &missed.error))
}
