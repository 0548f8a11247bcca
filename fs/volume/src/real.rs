//! The real world behind the door: a folder, the system's clock, the system's chance.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fs_format::Timestamp;

use crate::buffer::{ALIGN, Buffer};
use crate::env::{Chance, Clock, Disk, DiskFile, Env, OpenMode};

/// The door to a volume's folder on this machine.
pub fn env(folder: &Path) -> Env {
    Env {
        disk: Arc::new(Folder(folder.to_path_buf())),
        clock: Arc::new(SystemClock(Instant::now())),
        chance: Arc::new(SystemChance),
    }
}

struct Folder(PathBuf);

impl Disk for Folder {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => drop(options.write(true)),
            OpenMode::CreateNew => drop(options.write(true).create_new(true)),
        }
        let file = options.open(self.0.join(path))?;
        Ok(Arc::new(RealFile { file, writes: mode != OpenMode::Read, uncached: OnceLock::new() }))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        match std::fs::create_dir(self.0.join(path)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.0.join(path))? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        File::open(self.0.join(path))?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let folder = File::open(&self.0)?;
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the descriptor is open, and the call writes the whole structure when it returns 0.
        let stat = unsafe {
            if libc::fstatvfs(folder.as_raw_fd(), stat.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            stat.assume_init()
        };
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct RealFile {
    file: File,
    writes: bool,
    /// The same file past the system's cache; `None` where that cannot be had, as on tmpfs.
    uncached: OnceLock<Option<File>>,
}

impl RealFile {
    fn uncached(&self) -> Option<&File> {
        let open = || {
            // By its number: the file may have another name by now, and another file its own.
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            OpenOptions::new().read(true).write(self.writes).custom_flags(libc::O_DIRECT).open(path).ok()
        };
        self.uncached.get_or_init(open).as_ref()
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn read_large(&self, buffer: &mut Buffer, offset: u64, len: usize) -> io::Result<()> {
        if let Some(file) = self.uncached() {
            let skip = (offset % ALIGN as u64) as usize;
            let wanted = skip + len;
            buffer.reset(wanted.next_multiple_of(ALIGN));
            let mut filled = 0;
            while filled < wanted {
                match file.read_at(&mut buffer[filled..], offset - skip as u64 + filled as u64) {
                    // Less than a block is the end of the file.
                    Ok(count) if count == 0 || (count % ALIGN != 0 && filled + count < wanted) => {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A disk that wants larger blocks.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                    Err(error) => return Err(error),
                }
            }
            if filled >= wanted {
                buffer.narrow(skip, len);
                return Ok(());
            }
        }
        buffer.reset(len);
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_large(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let head = (offset.next_multiple_of(ALIGN as u64) - offset) as usize;
        let is_aligned = bytes.as_ptr() as usize % ALIGN == (offset % ALIGN as u64) as usize;
        let (true, Some(file)) = (is_aligned && bytes.len() >= head + ALIGN, self.uncached()) else {
            return self.write_at(bytes, offset);
        };
        self.write_at(&bytes[..head], offset)?;
        let mut done = head;
        while bytes.len() - done >= ALIGN {
            let len = (bytes.len() - done) / ALIGN * ALIGN;
            match file.write_at(&bytes[done..done + len], offset + done as u64) {
                // What is left after half a block, and what this disk wants aligned otherwise, goes the usual way.
                Ok(count) if count > 0 && count % ALIGN == 0 => done += count,
                Ok(count) => {
                    done += count;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                Err(error) => return Err(error),
            }
        }
        self.write_at(&bytes[done..], offset + done as u64)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the descriptor is open; the call takes no pointers.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) {
            // A file system that cannot reserve: the length at least is there, room is asked for again.
            return self.file.set_len(len as u64);
        }
        Err(error)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_and_forget(&self) -> io::Result<()> {
        self.file.sync_data()?;
        // SAFETY: the descriptor is open; the call takes no pointers.
        match unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Measures from when it was made.
struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // Coarse, as the kernel stamps files itself: a finer clock would let the two disagree on order.
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a whole timespec; the clock exists on every Linux.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut time) };
        Timestamp(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec))
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn boottime(&self) -> Duration {
        boottime()
    }
}

/// Time since the machine was started, which goes on while it sleeps.
pub fn boottime() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

struct SystemChance;

impl Chance for SystemChance {
    fn fill(&self, out: &mut [u8]) {
        let mut filled = 0;
        while filled < out.len() {
            // SAFETY: the pointer and the length are those of the rest of the slice.
            let got = unsafe { libc::getrandom(out[filled..].as_mut_ptr().cast(), out.len() - filled, 0) };
            match usize::try_from(got) {
                Ok(got) => filled += got,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    // Keys rest on these bytes: to go on without them would be worse than to stop.
                    assert_eq!(
                        error.kind(),
                        io::ErrorKind::Interrupted,
                        "the system gives no random bytes: {error}"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes and reads much at once at places that are no blocks' edges.
    fn much_at_once(folder: &Path) {
        let path = folder.join(format!("comb-real-{}", std::process::id()));
        let disk = Folder(folder.to_path_buf());
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let file = disk.open(name, OpenMode::CreateNew).expect("a new file");
        let noise: Vec<u8> =
            (0..1_000_003_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut aligned = Buffer::of_len(noise.len() + ALIGN);
        for offset in [0, 1, 511, 512, 4095, 4096, 70_001] {
            // In memory as in the file, so that it may go past the cache; and elsewhere, so that it may not.
            for shift in [(offset as usize) % ALIGN, (offset as usize + 1) % ALIGN] {
                aligned.reset(noise.len() + ALIGN);
                let bytes = &mut aligned[shift..shift + noise.len()];
                bytes.copy_from_slice(&noise);
                file.write_at(&vec![0; noise.len()], offset).expect("wipes");
                file.write_large(bytes, offset).expect("writes");
                for (skip, len) in [(0, noise.len()), (1, 100_000), (4096, 65_536), (999_000, 1003)] {
                    let mut read = Buffer::default();
                    file.read_large(&mut read, offset + skip as u64, len).expect("reads");
                    assert!(read[..] == noise[skip..skip + len], "{len} bytes from {offset} + {skip}");
                    let mut plain = vec![0; len];
                    file.read_at(&mut plain, offset + skip as u64).expect("reads");
                    assert!(plain == noise[skip..skip + len], "{len} bytes from {offset} + {skip}, cached");
                }
            }
        }
        let end = file.len().expect("a length");
        for (from, len) in [(end - 100_000, 100_001), (end, 1), (end + 5000, 70_000)] {
            let error = file.read_large(&mut Buffer::default(), from, len).expect_err("there is no more");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        std::fs::remove_file(path).expect("removes");
    }

    #[test]
    fn much_at_once_comes_back_from_a_disk() {
        // The target folder is on a disk, unlike a temporary folder on many machines.
        let folder = std::env::current_exe().expect("a program").parent().expect("a folder").to_path_buf();
        much_at_once(&folder);
    }

    #[test]
    fn a_file_that_was_renamed_goes_past_the_cache() {
        let folder = std::env::current_exe().expect("a program").parent().expect("a folder").to_path_buf();
        let name = |word| folder.join(format!("comb-real-{word}-{}", std::process::id()));
        let (path, renamed) = (name("first"), name("second"));
        let new = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
            RealFile { file: file.expect("a new file"), writes: true, uncached: OnceLock::new() }
        };
        let can = new().uncached().is_some();
        let file = new();
        std::fs::rename(&path, &renamed).expect("renames");
        std::fs::write(&path, "another").expect("writes");
        assert_eq!(file.uncached().is_some(), can);
        let noise: Vec<u8> = (0..1_u32 << 20).map(|number| (number >> 8) as u8).collect();
        file.write_large(&Buffer::from(&noise[..]), 0).expect("writes");
        assert!(std::fs::read(&renamed).expect("reads") == noise);
        assert_eq!(std::fs::read(&path).expect("reads"), b"another");
        [path, renamed].iter().for_each(|path| std::fs::remove_file(path).expect("removes"));
    }

    #[test]
    fn much_at_once_comes_back_from_memory() {
        let shm = Path::new("/dev/shm");
        if shm.is_dir() {
            much_at_once(shm);
        }
    }
}
