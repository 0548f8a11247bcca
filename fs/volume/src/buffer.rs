//! Memory for what is read: aligned for the disk, decrypted where it lies, used again.
//!
//! A fresh megabyte costs the kernel as much as decrypting it costs us, and a copy nearly as much; so a chunk stays in the
//! memory that it was read into, and that memory goes on to the next when the cache drops it.

use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;

/// What disks want places in a file and in memory to be multiples of, in bytes.
pub const ALIGN: usize = 4096;
/// Smaller memory is not worth keeping.
const KEPT_BYTES_MIN: usize = 64 << 10;
/// How many pieces of memory wait to be used again.
const KEPT_MAX: usize = 16;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes in aligned memory, of which a window counts.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Vec<u8>,
    from: usize,
    to: usize,
}

impl Buffer {
    /// A buffer of `len` bytes, aligned; their content is left over from before.
    pub fn of_len(len: usize) -> Self {
        let need = len + ALIGN;
        let mut kept = KEPT.lock();
        // Much more than is needed would be lost to the cache.
        let fit = kept.iter().position(|memory| memory.len() >= need && memory.len() <= need + need / 2);
        let memory = fit.map(|index| kept.swap_remove(index));
        drop(kept);
        let memory = memory.unwrap_or_else(|| vec![0; need]);
        let from = memory.as_ptr().align_offset(ALIGN);
        Self { memory, from, to: from + len }
    }

    /// Makes the window `len` bytes long, from an aligned place on; their content is left over from before.
    pub fn reset(&mut self, len: usize) {
        if self.memory.len() < len + ALIGN {
            *self = Self::of_len(len);
        }
        self.from = self.memory.as_ptr().align_offset(ALIGN);
        self.to = self.from + len;
    }

    /// Leaves `len` bytes of the window, from its byte `skip` on.
    pub fn narrow(&mut self, skip: usize, len: usize) {
        assert!(skip + len <= self.to - self.from, "a part is not larger than the whole");
        self.from += skip;
        self.to = self.from + len;
    }

    /// The memory that it takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory.len()
    }
}

/// Bytes that grow, from an aligned place in memory on, as long as they keep within what was reserved.
pub struct Growing {
    memory: Vec<u8>,
    from: usize,
}

impl Growing {
    /// Nothing yet, with room for `bytes`.
    pub fn with_room(bytes: usize) -> Self {
        let mut growing = Self { memory: Vec::with_capacity(bytes + ALIGN), from: 0 };
        growing.clear();
        growing
    }

    /// Adds bytes at the end.
    pub fn put(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Takes all bytes out; the room stays.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.from = self.memory.as_ptr().align_offset(ALIGN);
        self.memory.resize(self.from, 0);
    }
}

impl Deref for Growing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.from..]
    }
}

impl DerefMut for Growing {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..]
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Self {
        Self { memory: bytes.to_vec(), from: 0, to: bytes.len() }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.from..self.to]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.to]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.memory.len() >= KEPT_BYTES_MIN {
            let mut kept = KEPT.lock();
            if kept.len() < KEPT_MAX {
                kept.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_aligned_and_narrows() {
        let mut buffer = Buffer::of_len(100_000);
        assert_eq!((buffer.as_ptr() as usize % ALIGN, buffer.len()), (0, 100_000));
        buffer[10..13].copy_from_slice(b"abc");
        buffer.narrow(10, 3);
        assert_eq!(&*buffer, b"abc");
        buffer.reset(5000);
        assert_eq!((buffer.as_ptr() as usize % ALIGN, buffer.len()), (0, 5000));
        buffer.reset(1 << 20);
        assert_eq!((buffer.as_ptr() as usize % ALIGN, buffer.len()), (0, 1 << 20));
    }

    #[test]
    fn memory_is_used_again_but_not_for_much_less() {
        let large = Buffer::of_len(3 << 20);
        let place = large.memory.as_ptr();
        drop(large);
        assert_ne!(Buffer::of_len(1 << 20).memory.as_ptr(), place);
        let again =
            (0..KEPT_MAX).map(|_| Buffer::of_len(3 << 20)).any(|buffer| buffer.memory.as_ptr() == place);
        assert!(again || KEPT.lock().len() == KEPT_MAX, "other tests may have filled what is kept");
    }
}
