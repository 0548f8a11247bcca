//! Open files of a tree that changes by itself, so that the kernel can be told to forget what it has of them.
//!
//! Whoever opens a file makes the kernel forget its pages; one that was open before would go on with them.

use std::collections::HashMap;

use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;

/// How often each file is open.
#[derive(Default)]
pub(crate) struct Readers {
    open: Mutex<HashMap<INodeNo, u64>>,
}

impl Readers {
    pub(crate) fn opened(&self, id: INodeNo) {
        *self.open.lock().entry(id).or_default() += 1;
    }

    pub(crate) fn closed(&self, id: INodeNo) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                open.remove(&id);
            }
        }
    }

    /// Lets the kernel forget pages and attributes of all open files.
    ///
    /// Waits for reads that are under way, so a thread that serves them must not call it.
    pub(crate) fn forget_all(&self, notifier: &Notifier) {
        let open: Vec<INodeNo> = self.open.lock().keys().copied().collect();
        for id in open {
            // A failure means that the mount or the inode is gone.
            let _ = notifier.inval_inode(id, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_while_somebody_has_it_open() {
        let readers = Readers::default();
        readers.opened(INodeNo(7));
        readers.opened(INodeNo(7));
        readers.closed(INodeNo(7));
        assert_eq!(readers.open.lock().get(&INodeNo(7)), Some(&1));
        readers.closed(INodeNo(7));
        readers.closed(INodeNo(7));
        assert!(readers.open.lock().is_empty());
    }
}
