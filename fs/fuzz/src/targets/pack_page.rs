//! A full page of the pack table.

use fs_format::manifest::{PACK_PAGE_ENTRIES, PackPage};

use super::samples;
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || PackPage::decode(input),
        |page| {
            same(&page.encode(), input)?;
            let (shape, entries) = match page {
                PackPage::Packs(entries) => (0, entries.len()),
                PackPage::Pages(pages) => (1, pages.len()),
            };
            if entries == PACK_PAGE_ENTRIES { Ok(shape) } else { Err(format!("a page of {entries} entries")) }
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let numbers = 0..PACK_PAGE_ENTRIES as u8;
    let packs = PackPage::Packs(numbers.clone().map(samples::entry).collect());
    let pages = PackPage::Pages(numbers.map(samples::page).collect());
    vec![packs.encode(), pages.encode()]
}
