//! Shards of one fingerprint: copies, or files whose footers are alike though their values are not.
//!
//! Nothing but the place tells them apart, so a selection notes which of them it means, and is refused where that cannot
//! be found again.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::selection::{SelectedShard, Selection};
use super::shards::{Shard, ShardSet};
use crate::error::{Error, Result, Stage};

/// Which of the shards of one fingerprint it is, in the order of the set that was selected from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Twin {
    /// From 0.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Twin {
    /// A shard without any other of its fingerprint.
    pub const ALONE: Self = Self { number: 0, of: 1 };

    /// Whether its fingerprint says which shard it is.
    pub fn is_alone(&self) -> bool {
        *self == Self::ALONE
    }
}

impl Default for Twin {
    fn default() -> Self {
        Self::ALONE
    }
}

/// What every shard of `set` is, by ordinal.
pub(super) fn of_set(set: &ShardSet) -> BTreeMap<u32, Twin> {
    let mut alike: BTreeMap<&[u8; 32], Vec<u32>> = BTreeMap::new();
    for shard in &set.shards {
        alike.entry(&shard.fingerprint).or_default().push(shard.ordinal);
    }
    let twins = |ordinals: Vec<u32>| {
        let of = ordinals.len() as u32;
        (0..).zip(ordinals).map(move |(number, ordinal)| (ordinal, Twin { number, of })).collect::<Vec<_>>()
    };
    alike.into_values().flat_map(twins).collect()
}

/// Ordinal in `set` for every listed shard: by fingerprint, and among twins by the place where they were.
///
/// # Errors
/// Shards that the set lacks, and twins that it has under other names, all of them.
pub(super) fn ordinals(listed: &[SelectedShard], set: &ShardSet, place: &str) -> Result<Vec<u32>> {
    let mut alike: BTreeMap<&[u8; 32], Vec<&Arc<Shard>>> = BTreeMap::new();
    for shard in &set.shards {
        alike.entry(&shard.fingerprint).or_default().push(shard);
    }
    let (mut found, mut problems) = (Vec::with_capacity(listed.len()), Vec::new());
    for shard in listed {
        let candidates = alike.get(&shard.fingerprint).map(Vec::as_slice).unwrap_or_default();
        let meant = match candidates {
            [only] if shard.twin.is_alone() => Some(only),
            _ => candidates.iter().find(|candidate| candidate.address == shard.name),
        };
        match meant {
            Some(meant) => found.push(meant.ordinal),
            None if candidates.is_empty() => problems.push(missing(shard, set)),
            None => {
                let names: Vec<&str> = candidates.iter().map(|candidate| candidate.address.as_str()).collect();
                problems.push(format!(
                    "{} may be any of the shards with its fingerprint, now {}: move it back to its place",
                    shard.name,
                    names.join(", ")
                ));
            }
        }
    }
    if problems.is_empty() && found.iter().collect::<BTreeSet<_>>().len() < found.len() {
        problems.push("several of them are now one shard".to_owned());
    }
    if problems.is_empty() {
        return Ok(found);
    }
    let reason = format!("its shards are not those that were selected from:\n  {}", problems.join("\n  "));
    Err(Error::at(Stage::Select, place, format!("{reason}\nrestore them, or select again")))
}

fn missing(shard: &SelectedShard, set: &ShardSet) -> String {
    let file = |name: &str| name.rsplit('/').next().map(str::to_owned);
    match set.shards.iter().find(|other| file(&other.name) == file(&shard.name)) {
        Some(other) => format!("{} has changed since (now {})", shard.name, other.name),
        None => format!("{} is missing", shard.name),
    }
}

/// Pairs of shards of two selections that cannot be told to be one or two: twins under other names.
pub(super) fn doubtful(a: &Selection, b: &Selection) -> Vec<String> {
    let mut of_b: BTreeMap<&[u8; 32], Vec<&SelectedShard>> = BTreeMap::new();
    for shard in b.shards() {
        of_b.entry(&shard.fingerprint).or_default().push(shard);
    }
    let mut doubtful = Vec::new();
    for one in a.shards() {
        for two in of_b.get(&one.fingerprint).into_iter().flatten() {
            let has_twins = !one.twin.is_alone() || !two.twin.is_alone();
            if has_twins && (one.twin.number == two.twin.number) != (one.name == two.name) {
                doubtful.push(format!("{} and {} have one fingerprint, as others have", one.name, two.name));
            }
        }
    }
    doubtful
}
