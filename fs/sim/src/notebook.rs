//! A toy engine whose flaws are known.
//!
//! It keeps whole models in a library in memory and writes only their page numbers to the disk, with care or
//! without. The trials must pass it and find each of its flaws.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use fs_format::{Ino, ManifestId, Seq, Timestamp};
use fs_volume::env::{Env, OpenMode};
use fs_volume::{
    Allocate, Attr, Caller, DirEntry, FsError, NewNode, NewXattrs, OpenError, ReadTree, RenameMode, SealInfo,
    Seek, SetAttr, SnapshotLabel, WriteTree, XattrMode,
};
use parking_lot::Mutex;

use crate::{Engine, Model, Opener, Refused};

/// A mistake that real engines make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// Does not sync a file before it renames it.
    ForgetsBytes,
    /// Does not sync the folder after a rename.
    ForgetsNames,
    /// Writes over the only copy instead of beside it.
    WritesInPlace,
    /// Says that a failed sync went well.
    HidesErrors,
    /// Turns read-only for good when the disk was full once.
    GivesUpWhenFull,
    /// Reads a page number without checking it.
    TrustsTheDisk,
    /// Truncation leaves what was cut off to be seen again.
    KeepsTheTail,
    /// Writes the clock's choice of bytes: two runs differ.
    Wavers,
}

/// Makes and opens notebooks.
#[derive(Clone)]
pub struct NotebookOpener {
    /// What they do wrong.
    pub flaw: Flaw,
    library: Arc<Mutex<Vec<Page>>>,
    opened: Arc<Mutex<u64>>,
}

impl NotebookOpener {
    /// With an empty library.
    pub fn new(flaw: Flaw) -> Self {
        Self { flaw, library: Arc::default(), opened: Arc::default() }
    }
}

/// A whole model; one that was sealed says when.
type Page = (Model, Option<SealInfo>);

/// A toy engine.
pub struct Notebook {
    opener: NotebookOpener,
    env: Env,
    inside: Mutex<Inside>,
}

struct Inside {
    model: Model,
    seals: BTreeMap<Seq, (Model, SealInfo)>,
    read_only: Option<String>,
}

/// The file that names the newest page.
const PAGE: &str = "page";

impl Opener for NotebookOpener {
    type Engine = Notebook;

    fn create(&self, env: &Env) -> Result<(), OpenError> {
        let notebook = Notebook {
            opener: self.clone(),
            env: env.clone(),
            inside: Mutex::new(Inside::new(Model::new())),
        };
        let model = Model::new();
        // Page numbers begin anew, so that two runs write the same ones.
        self.library.lock().clear();
        notebook.write_page(PAGE, &model, None).map_err(open_error)
    }

    fn open(&self, env: Env) -> Result<Notebook, OpenError> {
        *self.opened.lock() += 1;
        let notebook = Notebook { opener: self.clone(), env, inside: Mutex::new(Inside::new(Model::new())) };
        let (mut model, _) = notebook.read_page(PAGE)?;
        model.release_all();
        let mut inside = Inside::new(model);
        for name in notebook.env.disk.list("").map_err(open_error)? {
            if name.starts_with("seal-")
                && !name.ends_with(".tmp")
                && let (model, Some(info)) = notebook.read_page(&name)?
            {
                inside.seals.insert(info.seq, (model, info));
            }
        }
        *notebook.inside.lock() = inside;
        Ok(notebook)
    }
}

fn open_error(source: io::Error) -> OpenError {
    OpenError::Disk { what: "the notebook".to_owned(), source }
}

impl Inside {
    fn new(model: Model) -> Self {
        Self { model, seals: BTreeMap::new(), read_only: None }
    }
}

impl Notebook {
    fn write_page(&self, name: &str, model: &Model, info: Option<&SealInfo>) -> io::Result<()> {
        let number = {
            let mut library = self.opener.library.lock();
            let mut model = model.clone();
            model.release_all();
            library.push((model, info.cloned()));
            library.len() as u64 - 1
        };
        let flaw = self.opener.flaw;
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend_from_slice(&blake3::hash(&bytes).as_bytes()[..8]);
        if flaw == Flaw::Wavers {
            bytes.push(*self.opener.opened.lock() as u8);
        }
        let disk = &self.env.disk;
        if flaw == Flaw::WritesInPlace && disk.list("")?.iter().any(|other| other == name) {
            let file = disk.open(name, OpenMode::Write)?;
            file.allocate(0)?;
            file.write_at(&bytes, 0)?;
            return file.sync();
        }
        let beside = format!("{name}.tmp");
        if disk.list("")?.contains(&beside) {
            disk.remove(&beside)?;
        }
        let file = disk.open(&beside, OpenMode::CreateNew)?;
        file.write_at(&bytes, 0)?;
        if flaw != Flaw::ForgetsBytes {
            file.sync()?;
        }
        disk.rename(&beside, name)?;
        if flaw != Flaw::ForgetsNames {
            disk.sync_dir("")?;
        }
        Ok(())
    }

    fn read_page(&self, name: &str) -> Result<Page, OpenError> {
        let file = self.env.disk.open(name, OpenMode::Read).map_err(open_error)?;
        let mut bytes = [0; 16];
        file.read_at(&mut bytes, 0).map_err(open_error)?;
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[..8]);
        let library = self.opener.library.lock();
        let whole = blake3::hash(&number).as_bytes()[..8] == bytes[8..];
        let mut index = u64::from_le_bytes(number) as usize;
        if self.opener.flaw == Flaw::TrustsTheDisk {
            index %= library.len();
        } else if !whole || index >= library.len() {
            let (what, detail) = (name.to_owned(), "does not match its checksum".to_owned());
            return Err(OpenError::Damaged { what, detail });
        }
        Ok(library[index].clone())
    }

    fn change<T>(&self, act: impl FnOnce(&mut Model) -> Result<T, Refused>) -> Result<T, FsError> {
        let mut inside = self.inside.lock();
        if inside.read_only.is_some() {
            return Err(FsError::ReadOnly);
        }
        act(&mut inside.model).map_err(|reasons| reasons.first().cloned().unwrap_or(FsError::Invalid))
    }

    fn change_attr(&self, act: impl FnOnce(&mut Model) -> Result<Ino, Refused>) -> Result<Attr, FsError> {
        let ino = self.change(act)?;
        self.attr(ino)
    }

    fn failed(&self, inside: &mut Inside, error: &io::Error) -> FsError {
        let full = error.raw_os_error() == Some(28);
        if !full || self.opener.flaw == Flaw::GivesUpWhenFull {
            inside.read_only = Some(error.to_string());
        }
        if full { FsError::NoSpace } else { FsError::Disk(error.to_string()) }
    }
}

impl WriteTree for Notebook {
    fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u16,
        node: NewNode<'_>,
        xattrs: NewXattrs<'_>,
    ) -> Result<Attr, FsError> {
        self.change_attr(|model| model.make(caller, parent, name, mode, node, xattrs))
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.change_attr(|model| model.link(ino, parent, name).map(|()| ino))
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        self.change(|model| model.unlink(parent, name))
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        self.change(|model| model.rmdir(parent, name))
    }

    fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError> {
        self.change(|model| model.rename(from, from_name, to, to_name, mode))
    }

    fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        self.change_attr(|model| {
            let tail = match (self.opener.flaw, set.size) {
                (Flaw::KeepsTheTail, Some(size)) => model.read(ino, size, 100).ok().map(|tail| (size, tail)),
                _ => None,
            };
            model.set_attr(ino, set)?;
            if let Some((size, tail)) = tail.filter(|(_, tail)| !tail.is_empty()) {
                model.write(ino, size, &tail, false)?;
                let size = size + tail.len() as u64 / 2;
                model.set_attr(ino, SetAttr { size: Some(size), ..SetAttr::default() })?;
            }
            Ok(ino)
        })
    }

    fn set_attr_and_xattr(
        &self,
        ino: Ino,
        set: SetAttr,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Attr, FsError> {
        self.change_attr(|model| model.set_attr_and_xattr(ino, set, name, value).map(|()| ino))
    }

    fn write(&self, ino: Ino, offset: u64, bytes: &[u8], kill_suid: bool) -> Result<(), FsError> {
        self.change(|model| model.write(ino, offset, bytes, kill_suid))
    }

    fn allocate(&self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<(), FsError> {
        self.change(|model| model.allocate(ino, offset, len, how))
    }

    fn clone_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, FsError> {
        self.change(|model| model.clone_range(from, from_offset, to, to_offset, len))
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: XattrMode) -> Result<(), FsError> {
        self.change(|model| model.set_xattr(ino, name, value, how))
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        self.change(|model| model.remove_xattr(ino, name))
    }

    fn forget(&self, _: Ino) {}

    fn sync(&self) -> Result<(), FsError> {
        let mut inside = self.inside.lock();
        if inside.read_only.is_some() {
            return Err(FsError::ReadOnly);
        }
        match self.write_page(PAGE, &inside.model, None) {
            Err(error) if self.opener.flaw != Flaw::HidesErrors => Err(self.failed(&mut inside, &error)),
            _ => Ok(()),
        }
    }
}

impl Engine for Notebook {
    fn hold(&self, ino: Ino) {
        self.inside.lock().model.hold(ino);
    }

    fn release(&self, ino: Ino) {
        self.inside.lock().model.release(ino);
    }

    fn flush_journal(&self) -> Result<(), FsError> {
        Ok(())
    }

    fn seal(&self, label: Option<SnapshotLabel>) -> Result<SealInfo, FsError> {
        self.sync()?;
        let mut inside = self.inside.lock();
        let seq = Seq(inside.seals.keys().next_back().map_or(1, |seq| seq.0 + 1));
        let (id, time) = (ManifestId([0; 32]), Timestamp(0));
        let info =
            SealInfo { seq, id, time, files: inside.model.files(), bytes: 0, added: 0, snapshot: label };
        let mut model = inside.model.clone();
        model.release_all();
        match self.write_page(&format!("seal-{seq}"), &model, Some(&info)) {
            Err(error) => Err(self.failed(&mut inside, &error)),
            Ok(()) => {
                inside.seals.insert(seq, (model, info.clone()));
                Ok(info)
            }
        }
    }

    fn wants_seal(&self) -> bool {
        false
    }

    fn read_only_reason(&self) -> Option<String> {
        self.inside.lock().read_only.clone()
    }

    fn seals(&self) -> Result<Vec<SealInfo>, OpenError> {
        Ok(self.inside.lock().seals.values().map(|(_, info)| info.clone()).collect())
    }

    fn at(&self, seq: Seq) -> Result<Box<dyn ReadTree>, OpenError> {
        match self.inside.lock().seals.get(&seq) {
            Some((model, _)) => Ok(Box::new(model.clone())),
            None => Err(OpenError::NoSuchSnapshot(seq.to_string())),
        }
    }
}

impl ReadTree for Notebook {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.inside.lock().model.lookup(parent, name)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.inside.lock().model.attr(ino)
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.inside.lock().model.read_link(ino)
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        self.inside.lock().model.read_with(ino, offset, len, take)
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        self.inside.lock().model.read_dir(dir, cookie, limit)
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.inside.lock().model.xattr(ino, name)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.inside.lock().model.xattrs(ino)
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        self.inside.lock().model.seek(ino, offset, what)
    }
}
