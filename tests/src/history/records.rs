//! The numbered records of `fixtures/apps/ledger`: `number life time chain`, the chain a hash of everything up to it.

use std::collections::BTreeMap;

use super::Broken;

/// What one file, or one listener, has of them: number → chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Records(BTreeMap<u64, String>);

impl Records {
    /// Reads them; a torn last line counts for nothing.
    pub fn read(name: &str, text: &str) -> Result<Self, String> {
        let mut records = BTreeMap::new();
        for (at, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')) {
            let mut words = line.split_whitespace();
            let (number, chain) = (words.next().and_then(|word| word.parse().ok()), words.nth(2));
            let (Some(number), Some(chain), None) = (number, chain, words.next()) else {
                return Err(format!("{name}:{}: this is no record", at + 1));
            };
            if let Some(other) = records.insert(number, chain.to_owned()).filter(|other| other != chain) {
                return Err(format!("{name}:{}: record {number} stands twice, once as {other}", at + 1));
            }
        }
        Ok(Self(records))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, number: u64, chain: &str) -> bool {
        self.0.get(&number).is_some_and(|have| have == chain)
    }
}

/// Invariant 3: records of the volume have no hole; each that was told is there, or (if the move was not planned) beyond one
/// point all of them are on the branch. Returns how many are on the branch only.
pub fn held(told: &Records, volume: &Records, branch: Option<&Records>) -> Result<usize, Broken> {
    let broken = |at: String, why: String| Broken { invariant: 3, at, why };
    for (number, want) in volume.0.keys().zip(1..) {
        if *number != want {
            return Err(broken(format!("record {number}"), format!("record {want} is missing before it")));
        }
    }
    let mut lost = 0;
    for (number, chain) in &told.0 {
        let at = || format!("record {number}, told as {chain}");
        match (volume.has(*number, chain), branch) {
            (true, _) if lost > 0 => {
                return Err(broken(
                    at(),
                    format!("it is there, but {lost} before it are not: no suffix was lost"),
                ));
            }
            (true, _) => {}
            (false, Some(branch)) if branch.has(*number, chain) => lost += 1,
            (false, Some(_)) => {
                return Err(broken(at(), "it is neither in the volume nor on the branch".to_owned()));
            }
            (false, None) => return Err(broken(at(), "it is not in the volume".to_owned())),
        }
    }
    Ok(lost)
}
