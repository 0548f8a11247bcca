//! What pages load: one style sheet, one script of our own, one logo. All of it is inside of the program.
//!
//! A path carries the hash of what it leads to, so a browser keeps it for ever, and an update is another path.

use std::sync::LazyLock;

/// Something that pages load.
#[derive(Debug, Clone)]
pub struct Asset {
    /// Where it is: `/assets/<hash>/<name>`.
    pub path: String,
    /// What it is.
    pub kind: &'static str,
    /// It.
    pub bytes: &'static [u8],
}

/// How long a browser may keep an asset.
pub const CACHING: &str = "public, max-age=31536000, immutable";

pub(crate) fn asset(name: &str, kind: &'static str, bytes: &'static [u8]) -> Asset {
    let hash = blake3::hash(bytes).to_hex();
    Asset { path: format!("/assets/{}/{name}", &hash.as_str()[..16]), kind, bytes }
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| asset("console.css", "text/css; charset=utf-8", include_bytes!("assets/console.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| asset("live.js", "text/javascript; charset=utf-8", include_bytes!("assets/live.js")));
static LOGO: LazyLock<Asset> =
    LazyLock::new(|| asset("logo.svg", "image/svg+xml", include_bytes!("assets/logo.svg")));

/// The style sheet.
pub fn style() -> &'static Asset {
    &STYLE
}

/// The script that makes pages live.
pub fn script() -> &'static Asset {
    &SCRIPT
}

/// The logo.
pub fn logo() -> &'static Asset {
    &LOGO
}

/// All of them.
pub fn all() -> [&'static Asset; 3] {
    [style(), script(), logo()]
}

/// What a path leads to, with its hash and name as they stand in it.
pub fn find(hash: &str, name: &str) -> Option<&'static Asset> {
    all().into_iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(&format!("{hash}/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_are_found_by_their_paths_and_by_no_others() {
        for asset in all() {
            let (hash, name) = asset.path["/assets/".len()..].split_once('/').expect("has two parts");
            assert_eq!(find(hash, name).expect("is there").bytes, asset.bytes);
            assert!(find("0000000000000000", name).is_none());
        }
    }

    /// The first page has less than 100 KiB with all that it loads.
    #[test]
    fn assets_are_small_and_ask_nobody() {
        assert!(all().iter().map(|asset| asset.bytes.len()).sum::<usize>() < 48 << 10);
        for asset in [style(), script()] {
            let text = std::str::from_utf8(asset.bytes).expect("is text");
            for foreign in ["http:", "https:", "//fonts", "@import", "url("] {
                assert!(!text.contains(foreign), "{}: {foreign}", asset.path);
            }
        }
    }
}
