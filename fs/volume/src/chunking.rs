//! Where to cut a run of bytes into chunks.
//!
//! Appended and rewritten bytes are cut by their content, so that an edited dump shares
//! what was not edited; bytes written in place are cut to exactly their range.

use fs_format::tree::CHUNK_BYTES_MAX;

/// The smallest chunk that content-defined cutting makes, in bytes (the last of a run may be smaller).
pub const CONTENT_BYTES_MIN: usize = 64 << 10;
/// What content-defined chunks tend to, in bytes; `fs/docs/decisions` has the measurement.
const CONTENT_BYTES_AVERAGE: usize = 128 << 10;
/// The largest chunk of a run written in place: a small read decrypts no more than this.
pub const PLACE_BYTES_MAX: usize = 128 << 10;
/// What runs written in place are rounded to, in bytes.
pub const GRANULE_BYTES: u64 = 4096;

/// The length of the first content-defined chunk of `bytes`.
///
/// The caller gives at least [`CHUNK_BYTES_MAX`] bytes unless the run ends before.
pub fn first_content_chunk(bytes: &[u8], seed: u64) -> usize {
    if bytes.len() <= CONTENT_BYTES_MIN {
        return bytes.len();
    }
    let window = &bytes[..bytes.len().min(CHUNK_BYTES_MAX)];
    fastcdc::v2020::FastCDC::with_level_and_seed(
        window,
        CONTENT_BYTES_MIN,
        CONTENT_BYTES_AVERAGE,
        CHUNK_BYTES_MAX,
        fastcdc::v2020::Normalization::Level1,
        seed,
    )
    .next()
    .map_or(bytes.len(), |chunk| chunk.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(bytes: &[u8], seed: u64) -> Vec<usize> {
        let (mut at, mut cuts) = (0, Vec::new());
        while at < bytes.len() {
            at += first_content_chunk(&bytes[at..], seed);
            cuts.push(at);
        }
        cuts
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_around_it() {
        let before = noise(8 << 20);
        let mut after = before.clone();
        after.splice(1000..1000, [7; 5000]);
        let moved: Vec<usize> = cuts(&before, 1).iter().map(|cut| cut + 5000).collect();
        let same = cuts(&after, 1).iter().filter(|cut| moved.contains(cut)).count();
        assert!(same + 4 >= moved.len(), "{same} of {} cuts survive", moved.len());
    }

    #[test]
    fn another_seed_cuts_elsewhere() {
        let bytes = noise(4 << 20);
        assert_ne!(cuts(&bytes, 1), cuts(&bytes, 2));
    }

    #[test]
    fn chunks_keep_their_bounds() {
        let bytes = noise(6 << 20);
        let (mut at, mut lens) = (0, Vec::new());
        for cut in cuts(&bytes, 3) {
            lens.push(cut - at);
            at = cut;
        }
        assert!(lens.iter().all(|&len| len <= CHUNK_BYTES_MAX));
        assert!(lens[..lens.len() - 1].iter().all(|&len| len >= CONTENT_BYTES_MIN));
    }
}
