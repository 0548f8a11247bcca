//! Open files of a tree that changes by itself, so that the kernel can be told to forget what it has of them.
//!
//! Whoever opens a file makes the kernel forget its pages; one that was open before would go on with them.

use std::collections::HashMap;

use fs_format::Ino;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;

/// How often each file is open.
#[derive(Default)]
pub(crate) struct Readers {
    open: Mutex<HashMap<u64, u64>>,
}

impl Readers {
    pub(crate) fn opened(&self, ino: Ino) {
        *self.open.lock().entry(ino.0).or_default() += 1;
    }

    pub(crate) fn closed(&self, ino: Ino) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&ino.0) {
            *count -= 1;
            if *count == 0 {
                open.remove(&ino.0);
            }
        }
    }

    /// Lets the kernel forget pages and attributes of all open files.
    ///
    /// Waits for reads that are under way, so a thread that serves them must not call it.
    pub(crate) fn forget_all(&self, notifier: &Notifier) {
        let open: Vec<u64> = self.open.lock().keys().copied().collect();
        for ino in open {
            // A failure means that the mount or the inode is gone.
            let _ = notifier.inval_inode(INodeNo(ino), 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_while_somebody_has_it_open() {
        let readers = Readers::default();
        readers.opened(Ino(7));
        readers.opened(Ino(7));
        readers.closed(Ino(7));
        assert_eq!(readers.open.lock().get(&7), Some(&1));
        readers.closed(Ino(7));
        readers.closed(Ino(7));
        assert!(readers.open.lock().is_empty());
    }
}
