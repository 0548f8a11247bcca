//! What the pages of a device load beside what all pages do.

use std::sync::LazyLock;

use crate::assets::{self, Asset};

static OWN: LazyLock<[Asset; 2]> = LazyLock::new(|| {
    [
        assets::asset("own.css", "text/css; charset=utf-8", include_bytes!("own.css")),
        assets::asset("log.js", "text/javascript; charset=utf-8", include_bytes!("log.js")),
    ]
});

/// Where the style sheet of these pages is.
pub(crate) fn style() -> &'static str {
    &OWN[0].path
}

/// Where the script is that makes logs live.
pub(crate) fn script() -> &'static str {
    &OWN[1].path
}

/// What a path leads to, of these and of all.
pub fn find(path: &str) -> Option<&'static Asset> {
    OWN.iter().chain(assets::all()).find(|asset| asset.path == path)
}
