//! Open files of a tree that changes by itself, so that the kernel can be told to forget what it has of them.
//!
//! A file that was opened since the tree last changed keeps its pages when it is opened again: to forget them, the kernel waits
//! for those that are being read, and nobody can kill who waits. One that was open when the tree changed is forgotten then.

use std::collections::HashMap;

use fuser::{FopenFlags, INodeNo, Notifier};
use parking_lot::Mutex;

/// How often each file is open, and as of which change the kernel's pages of it are.
#[derive(Default)]
pub(crate) struct Readers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<INodeNo, u64>,
    /// For what the kernel knows, and nothing else.
    pages: HashMap<INodeNo, u64>,
    /// How often the tree changed.
    changes: u64,
}

impl Readers {
    /// Notes it, and says what the kernel may do with pages that it has.
    pub(crate) fn opened(&self, id: INodeNo) -> FopenFlags {
        let mut state = self.state.lock();
        *state.open.entry(id).or_default() += 1;
        let changes = state.changes;
        match state.pages.insert(id, changes) {
            Some(before) if before != changes => FopenFlags::empty(),
            _ => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    /// The kernel has nothing of it any more.
    pub(crate) fn forgotten(&self, id: INodeNo) {
        self.state.lock().pages.remove(&id);
    }

    pub(crate) fn closed(&self, id: INodeNo) {
        let open = &mut self.state.lock().open;
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
        let (open, changes) = {
            let mut state = self.state.lock();
            state.changes += 1;
            (state.open.keys().copied().collect::<Vec<_>>(), state.changes)
        };
        for id in open {
            // A failure means that the mount or the inode is gone.
            let _ = notifier.inval_inode(id, 0, 0);
            if let Some(pages) = self.state.lock().pages.get_mut(&id) {
                *pages = changes;
            }
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
        assert_eq!(readers.state.lock().open.get(&INodeNo(7)), Some(&1));
        readers.closed(INodeNo(7));
        readers.closed(INodeNo(7));
        assert!(readers.state.lock().open.is_empty());
    }

    #[test]
    fn pages_are_kept_until_the_tree_changes() {
        let readers = Readers::default();
        let kept = |number| readers.opened(INodeNo(number)) == FopenFlags::FOPEN_KEEP_CACHE;
        assert!(kept(7), "there are none yet");
        assert!(kept(7));
        readers.state.lock().changes += 1;
        assert!(!kept(7), "they may be of the moment before");
        assert!(kept(7));
        assert!(kept(8));
        readers.state.lock().changes += 1;
        readers.forgotten(INodeNo(7));
        assert!(kept(7), "they are gone");
        assert_eq!(readers.state.lock().pages.len(), 2);
    }
}
