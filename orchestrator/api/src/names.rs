//! Names that apps get when nobody gives them one: `hasty-hopper`, and in the net `hasty-hopper-kvbt.example.org`.
//!
//! The first word is a manner, the second one of those who found out how things work. The letters behind them are
//! consonants, so that they make no word, and are there so that two accounts do not meet under one domain.

use crate::text::is_domain;

/// Bytes of chance that a name takes.
pub const RANDOM_BYTES: usize = 4;

/// A name of two words, one of 16,384.
pub fn app_name(random: [u8; RANDOM_BYTES]) -> String {
    format!("{}-{}", FIRST[usize::from(random[0] & 127)], SECOND[usize::from(random[1] & 127)])
}

/// The app's name in the net below the hive's domain: that of [`app_name`] and four letters.
///
/// None if the two do not make a domain.
pub fn app_domain(random: [u8; RANDOM_BYTES], below: &str) -> Option<String> {
    let letters = random[2..].iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let letters: String = letters.map(|number| char::from(LETTERS[usize::from(number)])).collect();
    Some(format!("{}-{letters}.{below}", app_name(random))).filter(|domain| is_domain(domain))
}

const LETTERS: &[u8; 16] = b"bcdfghjkmnpqrtvz";

#[rustfmt::skip]
const FIRST: [&str; 128] = [
    "able", "agile", "amber", "ample", "apt", "arctic", "avid", "azure", "balanced", "balmy",
    "blithe", "bold", "brave", "breezy", "bright", "brisk", "bronze", "bubbly", "calm", "candid",
    "cheery", "chilly", "civil", "clear", "clever", "cordial", "cosy", "crisp", "curly", "dainty",
    "dapper", "daring", "deft", "eager", "early", "earnest", "easy", "fabled", "fair", "fancy",
    "fearless", "festive", "fiery", "fleet", "fluent", "fond", "frank", "fresh", "frosty",
    "gallant", "genial", "gentle", "gifted", "glad", "gleaming", "glossy", "golden", "grand",
    "happy", "hardy", "hasty", "hazel", "hearty", "honest", "humble", "icy", "ideal", "jaunty",
    "jolly", "jovial", "keen", "kind", "lively", "lofty", "loyal", "lucid", "lucky", "lunar",
    "mellow", "merry", "mighty", "mild", "misty", "modest", "neat", "nimble", "noble", "novel",
    "opal", "patient", "pearly", "placid", "playful", "plucky", "polite", "prime", "proud", "quick",
    "quiet", "radiant", "rapid", "ready", "regal", "robust", "rosy", "royal", "rustic", "sage",
    "sandy", "serene", "sharp", "silver", "sincere", "sleek", "smart", "snowy", "solar", "solid",
    "spry", "stable", "starry", "steady", "sturdy", "subtle", "sunny", "swift", "tidy", "tranquil",
];

#[rustfmt::skip]
const SECOND: [&str; 128] = [
    "abel", "agnesi", "ampere", "archimedes", "avogadro", "babbage", "banach", "bassi", "bell",
    "berners", "bernoulli", "bessel", "bohr", "boole", "boyle", "brahe", "cannon", "cantor",
    "carson", "cauchy", "cavendish", "cerf", "chandrasekhar", "clarke", "copernicus", "coulomb",
    "curie", "dalton", "darwin", "davy", "dijkstra", "dirac", "doppler", "edison", "einstein",
    "elion", "engelbart", "eratosthenes", "euclid", "euler", "faraday", "fermat", "fermi",
    "feynman", "franklin", "galileo", "galois", "gauss", "germain", "goldberg", "goodall",
    "hamilton", "hawking", "heisenberg", "hertz", "hilbert", "hodgkin", "hooke", "hopper", "hubble",
    "huffman", "hypatia", "jennings", "joule", "kahn", "kalam", "kapitsa", "keller", "kepler",
    "khayyam", "kilby", "knuth", "lagrange", "lamarr", "laplace", "lavoisier", "leakey", "leavitt",
    "leibniz", "linnaeus", "lovelace", "lumiere", "margulis", "maxwell", "mayer", "mccarthy",
    "mcclintock", "meitner", "mendel", "mirzakhani", "morse", "napier", "nash", "neumann", "newton",
    "nightingale", "nobel", "noether", "ohm", "pascal", "pasteur", "pauli", "payne", "perlman",
    "planck", "poincare", "ptolemy", "raman", "ramanujan", "riemann", "ritchie", "rubin", "sagan",
    "shannon", "sinoussi", "somerville", "swan", "tesla", "thompson", "turing", "volta", "wiles",
    "wilson", "wing", "wright", "yalow", "yonath", "zhukovsky",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::text::is_app_name;

    #[test]
    fn no_word_stands_twice() {
        assert_eq!(BTreeSet::from(FIRST).len(), FIRST.len());
        assert_eq!(BTreeSet::from(SECOND).len(), SECOND.len());
        let hasty = FIRST.iter().position(|word| *word == "hasty").expect("is a word") as u8;
        let hopper = SECOND.iter().position(|word| *word == "hopper").expect("is a word") as u8;
        assert_eq!(app_name([hasty, hopper, 0, 0]), "hasty-hopper");
        assert_eq!(
            app_domain([hasty | 128, hopper | 128, 0x0f, 0xe1], "example.org").as_deref(),
            Some("hasty-hopper-bzvc.example.org")
        );
        assert_eq!(app_domain([0; 4], "Example.org"), None);
        assert_eq!(app_domain([0; 4], ""), None);
    }

    proptest! {
        #[test]
        fn every_name_is_one(random in any::<[u8; RANDOM_BYTES]>()) {
            prop_assert!(is_app_name(&app_name(random)));
            prop_assert!(app_domain(random, "home.arpa").is_some());
        }
    }
}
