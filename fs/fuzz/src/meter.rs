//! Counts what a thread allocates.
//!
//! A program that fuzzes names [`Meter`] as its global allocator; without it the runner refuses to start,
//! because a bound that nobody measures always holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
pub struct Meter;

/// What a piece of work allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The most bytes that were held at one moment above what was held before.
    pub peak_bytes: usize,
    /// How often memory was asked for.
    pub count: u64,
}

/// Does the work and counts; work within work is counted for the inner one only.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let before = LIVE.get();
    PEAK.set(before);
    let count = COUNT.get();
    let done = work();
    (done, Cost { peak_bytes: (PEAK.get() - before) as usize, count: COUNT.get() - count })
}

/// Whether this program counts at all.
pub fn is_installed() -> bool {
    measure(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(64)))).1.count > 0
}

// The cells have neither a destructor nor a lazy beginning, so they never allocate by themselves.

fn taken(bytes: usize) {
    LIVE.set(LIVE.get() + bytes as isize);
    PEAK.set(PEAK.get().max(LIVE.get()));
    COUNT.set(COUNT.get() + 1);
}

fn given_back(bytes: usize) {
    LIVE.set(LIVE.get() - bytes as isize);
}

// SAFETY: every call goes on to the system's allocator with the arguments it came with; counting touches
// nothing but cells of the calling thread.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is the system's too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // Old and new may exist side by side for a moment: that is the peak.
        taken(bytes);
        given_back(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}
