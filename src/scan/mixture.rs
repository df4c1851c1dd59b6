//! Several sources in one epoch: which of them gives an item is a closed form of seed, position and weights.
//!
//! ```text
//! lane l of the epoch   ├─ block 0: 1,000 items ─┼─ block 1 ─┼ …     per block exact counts by largest remainder,
//!                       web clean web web clean …                   mixed by key
//! lane l of web         ├── pass 0 of its order ──┼── pass 1 … ──▶  goes on over epochs
//! lane l of clean       ├ pass 0 ┼ pass 1 ┼ pass 2 ┼ …
//! ```
//!
//! So the cursors of all sources follow from one count of batches, a rank reads its own lanes of every source, and a
//! small source repeats with other draws: its pass is part of their names.
use std::sync::Arc;

use crate::{
    error::{Error, Result, Stage},
    seed::draws,
    select::selection::Selection,
};

/// Items of a lane among which sources have exact shares: weights of three decimals are kept exactly.
pub const BLOCK_ITEMS: u64 = 1_000;

/// One source of a mixture.
#[derive(Debug, Clone)]
pub struct Source {
    /// As the pipeline names it; empty where there is but one.
    pub name: String,
    /// Its share of the items, relative to the other weights.
    pub weight: f64,
    /// Its samples.
    pub selection: Arc<Selection>,
}

/// What an epoch is made of: one selection, or several with weights.
#[derive(Debug, Clone)]
pub struct Mixture {
    sources: Vec<Source>,
    epoch_items: Option<u64>,
}

impl From<Arc<Selection>> for Mixture {
    fn from(selection: Arc<Selection>) -> Self {
        Self { sources: vec![Source { name: String::new(), weight: 1.0, selection }], epoch_items: None }
    }
}

impl From<&Arc<Selection>> for Mixture {
    fn from(selection: &Arc<Selection>) -> Self {
        Arc::clone(selection).into()
    }
}

impl From<Selection> for Mixture {
    fn from(selection: Selection) -> Self {
        Arc::new(selection).into()
    }
}

impl Mixture {
    /// Sources in the order in which the order of an epoch numbers them. Without `epoch_items` an epoch ends when the
    /// source that lasts longest by its weight has been seen once.
    ///
    /// # Errors
    /// No source, weights that are not above 0 or too small for a share, extra columns that not all sources have.
    pub fn new(sources: Vec<Source>, epoch_items: Option<u64>) -> Result<Self> {
        let mut problems = Vec::new();
        let weights: Vec<f64> = sources.iter().map(|source| source.weight).collect();
        let are_weights = weights.iter().all(|weight| weight.is_finite() && *weight > 0.0);
        let counts = if are_weights { apportion(&weights, BLOCK_ITEMS) } else { vec![0; weights.len()] };
        for (source, count) in sources.iter().zip(counts) {
            if count == 0 {
                problems.push(format!(
                    "{}: its weight {} is under a thousandth of all weights; raise it, or leave the source out",
                    source.name, source.weight
                ));
            }
            if source.selection.items() == 0 && sources.len() > 1 {
                problems
                    .push(format!("{}: its query keeps no sample; change it, or leave the source out", source.name));
            }
        }
        let columns = |source: &Source| source.selection.extra().map(|extra| extra.digest_of_columns());
        for pair in sources.windows(2) {
            if columns(&pair[0]) != columns(&pair[1]) {
                problems.push(format!(
                    "{} and {} return other columns beside sample_id; let all sources return the same",
                    pair[0].name, pair[1].name
                ));
            }
        }
        match sources.len() {
            0 => Err(Error::internal("a mixture of no sources")),
            _ if problems.is_empty() => Ok(Self { sources, epoch_items }),
            _ => Err(Error::at(Stage::Scan, "scan.sources", problems.join("\n  "))),
        }
    }

    /// The same with epochs that end with a whole batch: what is dropped at an epoch's end would be passed over by the
    /// sources, which go on from epoch to epoch. One selection alone stays as it is.
    #[must_use]
    pub fn in_batches(self, rows: usize, lanes: u32) -> Self {
        let (items, rows) = (self.items(lanes), (rows as u64).max(1));
        match self.only().is_some() || items < rows {
            true => self,
            false => Self { epoch_items: Some(items / rows * rows), ..self },
        }
    }

    /// The sources, by number.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The selection where there is but one source.
    pub fn only(&self) -> Option<&Arc<Selection>> {
        match self.sources.as_slice() {
            [one] if self.epoch_items.is_none() => Some(&one.selection),
            _ => None,
        }
    }

    /// What tells data sets apart: the digest of the one selection, or a digest over digests, shares and epoch.
    pub fn digest(&self) -> [u8; 32] {
        if let Some(selection) = self.only() {
            return selection.digest();
        }
        let mut hash = blake3::Hasher::new_derive_key("diptych mixture");
        for (source, count) in self.sources.iter().zip(self.shares()) {
            hash.update(&count.to_le_bytes());
            hash.update(&source.selection.digest());
        }
        hash.update(&self.epoch_items.unwrap_or(0).to_le_bytes());
        *hash.finalize().as_bytes()
    }

    /// Items of each source in a block.
    pub(crate) fn shares(&self) -> Vec<u64> {
        apportion(&self.weights(), BLOCK_ITEMS)
    }

    fn weights(&self) -> Vec<f64> {
        self.sources.iter().map(|source| source.weight).collect()
    }

    /// Items of an epoch of `lanes` lanes.
    pub fn items(&self, lanes: u32) -> u64 {
        match (self.only(), self.epoch_items) {
            (Some(selection), _) => selection.items(),
            (None, Some(items)) => items,
            (None, None) => {
                let lanes = u64::from(lanes.max(1));
                let longest = self
                    .sources
                    .iter()
                    .enumerate()
                    .map(|(number, source)| self.lane_items_for(number, source.selection.items().div_ceil(lanes)));
                longest.max().unwrap_or(0) * lanes
            }
        }
    }

    /// Items of a lane after which `wanted` of them are of source `number`.
    fn lane_items_for(&self, number: usize, wanted: u64) -> u64 {
        let share = self.shares()[number].max(1);
        let whole = wanted / share * BLOCK_ITEMS;
        let rest = wanted % share;
        let mut part = rest * BLOCK_ITEMS / share;
        while apportion(&self.weights(), part)[number] < rest {
            part += 1;
        }
        whole + part
    }

    /// Items of a lane of an epoch of `lanes` lanes.
    pub(crate) fn lane_items(&self, lane: u32, lanes: u32) -> u64 {
        let (items, lanes) = (self.items(lanes), u64::from(lanes.max(1)));
        items / lanes + u64::from(u64::from(lane) < items % lanes)
    }

    /// How many of the `items` items of a lane each source gives.
    pub(crate) fn lane_counts(&self, items: u64) -> Vec<u64> {
        let rest = apportion(&self.weights(), items % BLOCK_ITEMS);
        self.shares().iter().zip(rest).map(|(share, rest)| items / BLOCK_ITEMS * share + rest).collect()
    }

    /// How many items of an epoch of `lanes` lanes each source gives: known before anything is read.
    pub fn counts(&self, lanes: u32) -> Vec<u64> {
        if let Some(selection) = self.only() {
            return vec![selection.items()];
        }
        let mut counts = vec![0; self.sources.len()];
        for lane in 0..lanes {
            let of_lane = self.lane_counts(self.lane_items(lane, lanes));
            counts.iter_mut().zip(of_lane).for_each(|(all, more)| *all += more);
        }
        counts
    }

    /// One line per source: how many items of an epoch it gives, and how often it is seen in it.
    pub fn describe(&self, lanes: u32) -> Vec<String> {
        let counts = self.counts(lanes);
        let items: u64 = counts.iter().sum();
        let line = |(source, count): (&Source, &u64)| {
            let of = source.selection.items();
            format!(
                "source {}: {count} of {items} items an epoch ({:.2} %), {:.3} passes over its {of} items",
                source.name,
                100.0 * *count as f64 / items.max(1) as f64,
                *count as f64 / of.max(1) as f64
            )
        };
        if self.only().is_some() { vec![] } else { self.sources.iter().zip(&counts).map(line).collect() }
    }

    /// The sources of a block of a lane in their order, each with how often it came in the block before.
    pub(crate) fn block(&self, seed: u64, epoch: u64, lane: u32, block: u64, items: u64) -> Vec<(u32, u64)> {
        let counts = apportion(&self.weights(), items);
        let mut sources: Vec<u32> = Vec::with_capacity(items as usize);
        for (number, count) in (0_u32..).zip(counts) {
            sources.extend(std::iter::repeat_n(number, count as usize));
        }
        draws(seed, "sources in block", &[epoch, u64::from(lane), block]).shuffle(&mut sources);
        let mut met = vec![0; self.sources.len()];
        let numbered = sources.into_iter().map(|source| {
            let before = met[source as usize];
            met[source as usize] += 1;
            (source, before)
        });
        numbered.collect()
    }
}

/// `total` divided by weights: whole parts first, then one each to the largest remainders, the first of equal ones.
pub fn apportion(weights: &[f64], total: u64) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    let quotas: Vec<f64> = weights.iter().map(|weight| weight / sum * total as f64).collect();
    let mut counts: Vec<u64> = quotas.iter().map(|quota| quota.floor() as u64).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| (quotas[b] - quotas[b].floor()).total_cmp(&(quotas[a] - quotas[a].floor())));
    let given: u64 = counts.iter().sum();
    for &number in order.iter().cycle().take(total.saturating_sub(given) as usize) {
        counts[number] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_and_remainders_go_to_the_largest() {
        assert_eq!(apportion(&[0.7, 0.3], 1_000), [700, 300]);
        assert_eq!(apportion(&[7.0, 3.0], 10), [7, 3]);
        assert_eq!(apportion(&[1.0, 1.0, 1.0], 1_000), [334, 333, 333]);
        assert_eq!(apportion(&[2.0, 1.0], 5), [3, 2]);
        assert_eq!(apportion(&[1.0], 17), [17]);
        assert_eq!(apportion(&[1e-9, 1.0], 1_000), [0, 1_000]);
        for total in 0..500 {
            assert_eq!(apportion(&[0.61, 0.27, 0.12], total).iter().sum::<u64>(), total);
        }
    }
}
