//! The bytes of a file, sparse, so that a byte at one tebibyte costs a page.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// The bytes of a file; cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes, and extends when the bytes end behind the end.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.each_page(offset, bytes.len() as u64, |page, within, done| {
            let len = within.len();
            page[within].copy_from_slice(&bytes[done..done + len]);
        });
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    /// Makes a range read as zeros; the length stays.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        if offset >= end {
            return;
        }
        let touched: Vec<u64> =
            self.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(|(i, _)| *i).collect();
        for index in touched {
            let start = (index * PAGE_BYTES).max(offset);
            let stop = ((index + 1) * PAGE_BYTES).min(end);
            self.each_page(start, stop - start, |page, within, _| page[within].fill(0));
        }
    }

    /// Cuts or extends with zeros.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, self.len - len);
            self.pages.split_off(&len.div_ceil(PAGE_BYTES));
        }
        self.len = len;
    }

    /// Up to `len` bytes from `offset`; fewer only at the end.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = offset.saturating_add(len as u64).min(self.len);
        if offset >= end {
            return Vec::new();
        }
        let mut out = vec![0; (end - offset) as usize];
        for (index, page) in self.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let start = (index * PAGE_BYTES).max(offset);
            let stop = ((index + 1) * PAGE_BYTES).min(end);
            let from = (start - index * PAGE_BYTES) as usize;
            let to = (start - offset) as usize;
            let len = (stop - start) as usize;
            out[to..to + len].copy_from_slice(&page[from..from + len]);
        }
        out
    }

    /// Where data may lie, as ranges of whole pages in order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.pages.keys().map(|i| (i * PAGE_BYTES, ((i + 1) * PAGE_BYTES).min(self.len)))
    }

    fn each_page(
        &mut self,
        offset: u64,
        len: u64,
        mut act: impl FnMut(&mut Page, std::ops::Range<usize>, usize),
    ) {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let (index, from) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let stop = (PAGE_BYTES).min(from + end - at);
            let page = self.pages.entry(index).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            act(Arc::make_mut(page), from as usize..stop as usize, (at - offset) as usize);
            at += stop - from;
        }
    }
}

/// The identity of a file's bytes: a hash over its length and those pages that are not zero, so that holes
/// and written zeros are the same.
pub(crate) struct Digester {
    hasher: blake3::Hasher,
}

impl Digester {
    pub(crate) fn new(len: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&len.to_le_bytes());
        Self { hasher }
    }

    /// Adds bytes that begin at a page's start and end at a page's or the file's end.
    pub(crate) fn add(&mut self, offset: u64, bytes: &[u8]) {
        debug_assert!(offset.is_multiple_of(PAGE_BYTES), "digests are made of whole pages");
        for (i, page) in bytes.chunks(PAGE_BYTES as usize).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                self.hasher.update(&(offset / PAGE_BYTES + i as u64).to_le_bytes());
                self.hasher.update(page);
            }
        }
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dice;

    #[test]
    fn it_behaves_like_a_vector() {
        let mut dice = Dice::seeded(5);
        let (mut content, mut bytes) = (Content::default(), Vec::new());
        for round in 0..2000u64 {
            let (offset, len) = (dice.below(20_000), dice.below(9_000));
            match dice.below(3) {
                0 => {
                    let data = vec![round as u8 | 1; len as usize];
                    content.write(offset, &data);
                    if len > 0 && bytes.len() < (offset + len) as usize {
                        bytes.resize((offset + len) as usize, 0);
                    }
                    bytes[offset as usize..(offset + len) as usize].copy_from_slice(&data);
                }
                1 => {
                    content.zero(offset, len);
                    let end = ((offset + len) as usize).min(bytes.len());
                    if (offset as usize) < end {
                        bytes[offset as usize..end].fill(0);
                    }
                }
                _ => {
                    content.set_len(offset);
                    bytes.resize(offset as usize, 0);
                }
            }
            assert_eq!(content.len(), bytes.len() as u64);
            assert_eq!(content.read(0, bytes.len() + 10), bytes);
            assert_eq!(
                content.read(777, 5000),
                bytes.get(777..).map_or(&[][..], |tail| &tail[..tail.len().min(5000)])
            );
        }
    }

    #[test]
    fn a_far_byte_is_cheap() {
        let mut content = Content::default();
        content.write(1 << 40, b"x");
        assert_eq!(content.len(), (1 << 40) + 1);
        assert_eq!(content.ranges().collect::<Vec<_>>(), [(1 << 40, (1 << 40) + 1)]);
        content.set_len(10);
        assert_eq!(content.ranges().count(), 0);
    }
}
