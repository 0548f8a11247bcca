//! `comb export`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use fs_format::{FileKind, Ino};
use fs_volume::{Attr, FsError, ReadTree, Seek};
use indicatif::ProgressBar;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::failure::{Context, Failure, Kind, Result};
use crate::pax::{Archive, Entry, Runs, What};
use crate::place::{self, Place};
use crate::state::State;
use crate::tree::READ_BYTES;
use crate::{engine, output, progress, tree};

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Write a moment, or a part of it, as an archive that other tools read
///
/// Names, contents, holes, links of both kinds, devices, modes, owners, times to the nanosecond, attributes and ACLs are
/// kept: `tar --xattrs --xattrs-include='*' -xf FILE` brings all of it back. **The archive is not encrypted.** Sockets have no
/// place in one and are named. Damage ends it, since an archive cannot say what it lacks; `comb restore` takes out the rest.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The volume, the moment, and a path in it, if it is not to be all; `-` reads it from standard input
    #[arg(value_name = "NAME@WHEN[:PATH]")]
    place: OsString,

    /// A tar in the pax format, to a new file that only you can read, or to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", required = true)]
    tar: PathBuf,
}

/// Writes an archive.
pub fn run(state: &State, args: &ExportArgs) -> Result<()> {
    let place = Place::parse(&place::given(&args.place)?, &engine::now())?;
    let when = place.when_required("export")?;
    let path = place.path.as_deref().unwrap_or_default();
    let volume = state.volume(&place.name)?;
    let (_, view) = engine::moment_to_copy(state, &volume, when)?;
    let found = tree::find(&view, path)?;
    // As tar calls what it is given: the root is `.`, anything else goes by its own name.
    let name = tree::base_name(path, ".");
    let bar = progress::bytes("exporting");
    bar.set_length(if path.is_empty() { view.info().bytes } else { found.inode.size });
    let outcome = if args.tar == Path::new("-") {
        let out = io::stdout().lock();
        if out.is_terminal() {
            return Err(Failure::new(Kind::Usage, "an archive is nothing to look at")
                .hint("name a file: `--tar FILE`, or pipe it to another command"));
        }
        write(&view, &found, name, out, &bar).map(drop)
    } else {
        write_file(&view, &found, name, &args.tar, &bar)
    };
    bar.finish_and_clear();
    outcome
}

/// Writes the archive under another name, which becomes its own when it is whole.
fn write_file(view: &dyn ReadTree, found: &Attr, name: &[u8], path: &Path, bar: &ProgressBar) -> Result<()> {
    let exists =
        || Failure::new(Kind::InTheWay, format!("{} exists", path.display())).hint("name another file");
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let part = path.with_added_extension("part");
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).context(part.display())?;
    let written = write(view, found, name, file, bar)
        .and_then(|file: File| file.sync_all().context(part.display()))
        .and_then(|()| match renameat_with(CWD, &part, CWD, path, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => Err(exists()),
            renamed => renamed.context(path.display()),
        });
    if written.is_err() {
        // Half an archive is none.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write<W: Write>(view: &dyn ReadTree, found: &Attr, name: &[u8], out: W, bar: &ProgressBar) -> Result<W> {
    let archive = Archive::new(BufWriter::with_capacity(BUFFER_BYTES, out));
    let mut export = Export { view, archive, links: HashMap::new(), left_out: 0, bar };
    // What is to come, the next one last. A folder's content follows it at once: tar dresses a folder when it leaves it.
    let mut rest = vec![(found.ino, name.to_vec())];
    while let Some((ino, path)) = rest.pop() {
        let fail = |error| read_failure(&path, &error);
        let attr = view.attr(ino).map_err(fail)?;
        export.add(&attr, &path)?;
        if tree::is_directory(&attr) {
            let entries = tree::entries(view, ino).map_err(fail)?;
            let inside = entries.into_iter().rev();
            rest.extend(inside.map(|entry| (entry.ino, [&path[..], b"/", &entry.name].concat())));
        }
    }
    if export.left_out > 0 {
        output::note(&format!("{} sockets are left out: an archive has no place for them", export.left_out));
    }
    let out = export.archive.finish().map_err(|error| write_failure(&error))?;
    out.into_inner().map_err(|error| write_failure(error.error()))
}

fn read_failure(path: &[u8], error: &FsError) -> Failure {
    engine::fs_failure(output::escape(path), error)
}

fn write_failure(error: &io::Error) -> Failure {
    Failure::io("writing the archive", error)
}

struct Export<'a, W: Write> {
    view: &'a dyn ReadTree,
    archive: Archive<BufWriter<W>>,
    /// The first path of each file with several.
    links: HashMap<Ino, Vec<u8>>,
    left_out: u64,
    bar: &'a ProgressBar,
}

impl<W: Write> Export<'_, W> {
    /// Adds one thing; a folder's entries are left to the caller.
    fn add(&mut self, attr: &Attr, path: &[u8]) -> Result<()> {
        let inode = &attr.inode;
        let fail = |error: FsError| read_failure(path, &error);
        let first = self.links.get(&attr.ino).cloned();
        let (what, target) = match (inode.kind, &first) {
            (FileKind::Socket, _) => {
                self.left_out += 1;
                return Ok(());
            }
            (FileKind::Directory, _) => (What::Directory, Vec::new()),
            (_, Some(first)) => (What::Link, first.clone()),
            (FileKind::Symlink, _) => (What::Symlink, self.view.read_link(attr.ino).map_err(fail)?),
            (FileKind::File, _) => (What::File, Vec::new()),
            (FileKind::Fifo, _) => (What::Fifo, Vec::new()),
            (FileKind::CharDevice, _) => (What::CharDevice, Vec::new()),
            (FileKind::BlockDevice, _) => (What::BlockDevice, Vec::new()),
        };
        if inode.nlink > 1 && inode.kind != FileKind::Directory && first.is_none() {
            self.links.insert(attr.ino, path.to_vec());
        }
        let names = if what == What::Link { Vec::new() } else { self.view.xattrs(attr.ino).map_err(fail)? };
        let with_value = |name: Vec<u8>| self.view.xattr(attr.ino, &name).map(|value| (name, value));
        let xattrs: Vec<_> =
            names.into_iter().map(with_value).collect::<std::result::Result<_, _>>().map_err(fail)?;
        let shown = if what == What::Directory { [path, b"/"].concat() } else { path.to_vec() };
        let is_device = matches!(what, What::CharDevice | What::BlockDevice);
        let device = rustix::fs::Dev::from(inode.rdev);
        let entry = Entry {
            what,
            path: &shown,
            target: &target,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            device: match is_device {
                true => (rustix::fs::major(device), rustix::fs::minor(device)),
                false => (0, 0),
            },
            atime: inode.atime,
            mtime: inode.mtime,
            xattrs: &xattrs,
        };
        match what {
            What::File => self.file(attr, &entry),
            _ => self.archive.add(&entry).map_err(|error| write_failure(&error)),
        }
    }

    fn file(&mut self, attr: &Attr, entry: &Entry<'_>) -> Result<()> {
        let fail = |error: FsError| read_failure(entry.path, &error);
        let runs = runs(self.view, attr).map_err(fail)?;
        self.archive.begin(entry, &runs).map_err(|error| write_failure(&error))?;
        for &(start, len) in &runs.data {
            let (mut offset, end) = (start, start + len);
            while offset < end {
                let want = usize::try_from(end - offset).map_or(READ_BYTES, |left| left.min(READ_BYTES));
                let bytes = self.view.read(attr.ino, offset, want).map_err(fail)?;
                if bytes.is_empty() {
                    return Err(fail(FsError::Damaged(format!("it ends at byte {offset}"))));
                }
                self.archive.data(&bytes).map_err(|error| write_failure(&error))?;
                offset += bytes.len() as u64;
                self.bar.inc(bytes.len() as u64);
            }
        }
        Ok(())
    }
}

/// Where a file's data lies.
fn runs(view: &dyn ReadTree, attr: &Attr) -> std::result::Result<Runs, FsError> {
    let size = attr.inode.size;
    let mut data = Vec::new();
    let mut offset = 0;
    while offset < size {
        let start = match view.seek(attr.ino, offset, Seek::Data) {
            Ok(start) => start,
            // Only a hole is left.
            Err(FsError::NoSuchOffset) => break,
            Err(error) => return Err(error),
        };
        let end = view.seek(attr.ino, start, Seek::Hole)?.min(size);
        data.push((start, end - start));
        offset = end;
    }
    Ok(Runs { size, data })
}
