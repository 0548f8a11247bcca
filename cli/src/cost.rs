//! What a store costs a month, about.
//!
//! From list prices in US dollars: what a GB (10⁹ bytes) costs a month, and a thousand requests of either kind. They are those
//! of the provider's pricing page for its common region and class, as known in 2025; free allowances, minimum sizes and
//! durations, traffic, taxes and discounts are left out. Whoever pays otherwise says so: `comb store add --prices`.
//!
//! | endpoint | GB-month | 1,000 creates or lists | 1,000 reads | page |
//! |---|---|---|---|---|
//! | Amazon S3, Standard, us-east-1 | 0.023 | 0.005 | 0.0004 | aws.amazon.com/s3/pricing |
//! | Google Cloud Storage, Standard, a US region | 0.020 | 0.005 | 0.0004 | cloud.google.com/storage/pricing |
//! | Azure Blob Storage, hot, LRS, East US | 0.018 | 0.005 | 0.0004 | azure.microsoft.com/pricing/details/storage/blobs |
//! | Cloudflare R2 | 0.015 | 0.0045 | 0.00036 | developers.cloudflare.com/r2/pricing |
//! | Backblaze B2 (creates are free; one request in four is a list, at 0.004) | 0.006 | 0.001 | 0.0004 | backblaze.com/cloud-storage/pricing |
//! | Wasabi | 0.00699 | 0 | 0 | wasabi.com/pricing |

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fs_replication::{LOOK_EVERY, REQUEST_BYTES_MAX, STAND_AGAIN, STAND_REQUESTS};
use fs_volume::SealInfo;

use crate::state::Config;
use crate::stores::StoreConfig;

/// Prices of a store, in dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    gb_month: f64,
    thousand_creates: f64,
    thousand_reads: f64,
}

/// Ends of host names, and what is paid there.
const KNOWN: [(&str, Prices); 6] = [
    ("amazonaws.com", prices(0.023, 0.005, 0.0004)),
    ("storage.googleapis.com", prices(0.020, 0.005, 0.0004)),
    ("blob.core.windows.net", prices(0.018, 0.005, 0.0004)),
    ("r2.cloudflarestorage.com", prices(0.015, 0.0045, 0.00036)),
    ("backblazeb2.com", prices(0.006, 0.001, 0.0004)),
    ("wasabisys.com", prices(0.00699, 0.0, 0.0)),
];

const fn prices(gb_month: f64, thousand_creates: f64, thousand_reads: f64) -> Prices {
    Prices { gb_month, thousand_creates, thousand_reads }
}

/// The most that a price may be: a slip of the keyboard is dearer.
const PRICE_MAX: f64 = 1_000.0;

impl FromStr for Prices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{text:?} are no prices: write GB-month,1000 creates,1000 reads as in 0.023,0.005,0.0004")
        };
        let numbers: Vec<f64> = text
            .split(',')
            .map(|part| part.trim().parse().ok().filter(|price| (0.0..=PRICE_MAX).contains(price)))
            .collect::<Option<_>>()
            .ok_or_else(bad)?;
        match numbers[..] {
            [gb_month, thousand_creates, thousand_reads] => {
                Ok(prices(gb_month, thousand_creates, thousand_reads))
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.gb_month, self.thousand_creates, self.thousand_reads)
    }
}

impl Prices {
    /// Those that a person said, else the list prices of the endpoint; none of a folder, a WebDAV server, or one that
    /// nobody here knows.
    pub fn of(store: &StoreConfig) -> Option<Self> {
        match &store.prices {
            Some(text) => text.parse().ok(),
            None => {
                let host = host(&store.url)?;
                let is_at = |end: &str| {
                    host.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                KNOWN.iter().find(|(end, _)| is_at(end)).map(|(_, prices)| *prices)
            }
        }
    }

    /// Dollars a month for so many bytes, creates or lists, and reads, and for reading all of it once, as a drill does.
    pub fn month(&self, bytes: u64, creates: u64, reads: u64) -> f64 {
        let reads = bytes.div_ceil(REQUEST_BYTES_MAX) + reads;
        bytes as f64 / 1e9 * self.gb_month
            + creates as f64 / 1e3 * self.thousand_creates
            + reads as f64 / 1e3 * self.thousand_reads
    }
}

/// The host that a store's requests go to.
fn host(url: &str) -> Option<String> {
    let (kind, rest) = url.split_once("://")?;
    let endpoint = rest.split_once('?').into_iter().flat_map(|(_, query)| query.split('&'));
    let endpoint = endpoint.filter_map(|part| part.strip_prefix("endpoint=")).next();
    let given = endpoint.map(|endpoint| {
        let decoded = endpoint.replace("%3A", ":").replace("%2F", "/");
        let host = decoded.split_once("://").map_or(&*decoded, |(_, host)| host);
        host.split(['/', ':']).next().unwrap_or_default().to_ascii_lowercase()
    });
    let own = match kind {
        "s3" => "s3.amazonaws.com",
        "gs" => "storage.googleapis.com",
        "az" => "blob.core.windows.net",
        _ => return None,
    };
    Some(given.unwrap_or_else(|| own.into()))
}

/// A month, in nanoseconds.
const MONTH: i64 = 30 * 86_400 * 1_000_000_000;
/// Creates and lists of a seal: a pack of chunks, one of nodes, the slot, and a look at who has claimed.
const REQUESTS_OF_A_SEAL: u64 = 4;
/// Bytes of a pack that is full: a seal of more makes more of them.
const PACK_BYTES: u64 = 16 << 20;

/// Lists and reads of a month by which a volume that is mounted all the time, and seldom written, looks whether its store is still
/// what it was; in the arbiter also whether the volume is still written here. None where another device writes it.
pub fn looks_of_a_month(store: &StoreConfig, config: &Config) -> (u64, u64) {
    if config.follows {
        return (0, 0);
    }
    let times = |every: Duration| MONTH as u64 / every.as_nanos() as u64;
    let (lists, reads) = STAND_REQUESTS;
    let claims = if store.arbiter { times(LOOK_EVERY) } else { 0 };
    (lists * times(STAND_AGAIN), reads * times(STAND_AGAIN) + claims)
}

/// Creates and lists of a month, if a volume goes on as in the last one. Seals that were dropped since are counted by their
/// numbers. `now` is nanoseconds since 1970.
pub fn creates_of_a_month(seals: &[SealInfo], now: i64) -> u64 {
    let (Some(first), Some(last)) = (seals.first(), seals.last()) else { return 0 };
    let from = now.saturating_sub(MONTH);
    // The last seal before the month is where the count begins.
    let before = seals.iter().rev().find(|seal| seal.time.0 < from).unwrap_or(first);
    let span = now.saturating_sub(before.time.0.max(from));
    let added: u64 = seals.iter().filter(|seal| seal.seq > before.seq).map(|seal| seal.added).sum();
    let creates = (last.seq.0 - before.seq.0) * REQUESTS_OF_A_SEAL + added / PACK_BYTES;
    // What is younger than a day says little of a month.
    let months = if span < MONTH / 30 { 1.0 } else { span as f64 / MONTH as f64 };
    (creates as f64 / months) as u64
}

#[cfg(test)]
mod tests {
    use fs_format::{ManifestId, Seq, Timestamp};

    use super::*;

    fn store(url: &str, prices: Option<&str>) -> StoreConfig {
        StoreConfig {
            name: "s".into(),
            url: url.into(),
            id: String::new(),
            arbiter: true,
            prices: prices.map(str::to_owned),
            rate: None,
        }
    }

    #[test]
    fn prices_are_those_of_the_endpoint_unless_somebody_says_otherwise() {
        let table = [
            ("s3://bucket/prefix", Some(0.023)),
            ("s3://bucket?region=eu-central-1", Some(0.023)),
            ("s3://bucket?endpoint=https://s3.eu-central-1.amazonaws.com", Some(0.023)),
            ("s3://b?endpoint=https%3A%2F%2Fs3.us-west-004.backblazeb2.com&region=x", Some(0.006)),
            ("s3://b?endpoint=https://abc.r2.cloudflarestorage.com:443/", Some(0.015)),
            ("s3://b?endpoint=https://evilamazonaws.com", None),
            ("s3://b?endpoint=http://127.0.0.1:9000", None),
            ("gs://bucket", Some(0.020)),
            ("az://container?account=a", Some(0.018)),
            ("file:///folder", None),
            ("https://cloud.example/dav", None),
            ("memory://x", None),
        ];
        for (url, gb_month) in table {
            assert_eq!(Prices::of(&store(url, None)).map(|prices| prices.gb_month), gb_month, "{url}");
        }
        let said = Prices::of(&store("file:///folder", Some("0.01,0,0"))).expect("prices");
        assert!((said.month(42_000_000_000, 9_000_000, 0) - 0.42).abs() < 1e-9);
        let all = "0.023,0.005,0.0004".parse::<Prices>().expect("prices").month(4 << 30, 2_000, 976);
        assert!((all - (4.294_967_296 * 0.023 + 0.010 + 2.0 * 0.0004)).abs() < 1e-9, "{all}");
    }

    #[test]
    fn three_prices_are_read_and_nothing_else() {
        let read: Prices = "0.023, 0.005,0.0004".parse().expect("prices");
        assert_eq!(read.to_string(), "0.023,0.005,0.0004");
        for bad in ["", "1", "1,2", "1,2,3,4", "a,b,c", "-1,0,0", "NaN,0,0", "inf,0,0", "1001,0,0", "1,,2"] {
            assert!(bad.parse::<Prices>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_month_is_guessed_from_what_was() {
        let day = MONTH / 30;
        let seal = |seq: u64, days: i64, added: u64| SealInfo {
            seq: Seq(seq),
            id: ManifestId([0; 32]),
            time: Timestamp(days * day),
            files: 0,
            bytes: 0,
            added,
            snapshot: None,
        };
        assert_eq!(creates_of_a_month(&[], 0), 0);
        // Ten days with 100 seals, of which two were dropped: three times as much in a month.
        let seals: Vec<SealInfo> = (0..=100)
            .filter(|seq| !matches!(seq, 7 | 8))
            .map(|seq| seal(seq + 1, seq as i64 / 10, 0))
            .collect();
        assert_eq!(creates_of_a_month(&seals, 10 * day), 3 * 100 * REQUESTS_OF_A_SEAL);
        // A year, in the last month of which nothing happened.
        assert_eq!(creates_of_a_month(&seals, 375 * day), 0);
        // One large seal.
        let large = [seal(1, 0, 0), seal(2, 345, 160 << 20)];
        assert_eq!(creates_of_a_month(&large, 365 * day), REQUESTS_OF_A_SEAL + 10);
    }
}
