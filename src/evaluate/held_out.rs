//! The part of the bank on which choices are made, so that no query is looked at twice.

use crate::seed;

/// At most so many bank samples are held out: ± .01 at an accuracy of .85, and nine tenths of the bank stay to learn from.
const HELD_OUT_ROWS: usize = 5_000;

/// Bank rows to learn from and bank rows to choose by: the same for every representation of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOut {
    /// Rows that stay, ascending.
    pub kept: Vec<usize>,
    /// Rows held out, ascending: a tenth of the bank, at most 5,000.
    pub held_out: Vec<usize>,
}

impl HeldOut {
    /// Splits `rows` bank rows at random, as a function of `seed` alone.
    pub fn of(rows: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..rows).collect();
        seed::draws(seed, "evaluate.held_out", &[rows as u64]).shuffle(&mut order);
        let mut held_out = order.split_off(rows - (rows / 10).min(HELD_OUT_ROWS));
        order.sort_unstable();
        held_out.sort_unstable();
        Self { kept: order, held_out }
    }
}

/// The first of the largest: candidates stand in order of preference.
pub(crate) fn best_of<T: Copy>(candidates: &[T], scores: &[f64]) -> Option<T> {
    let mut best: Option<(T, f64)> = None;
    for (&candidate, &score) in candidates.iter().zip(scores) {
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((candidate, score));
        }
    }
    best.map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_on_exactly_one_side() {
        let split = HeldOut::of(1_003, 7);
        assert_eq!(split.held_out.len(), 100);
        let mut all = [split.kept.clone(), split.held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1_003).collect::<Vec<_>>());
        assert_eq!(split, HeldOut::of(1_003, 7));
        assert_ne!(split, HeldOut::of(1_003, 8));
    }

    #[test]
    fn held_out_part_is_bounded() {
        assert_eq!(HeldOut::of(60_000, 0).held_out.len(), 5_000);
    }

    #[test]
    fn of_equal_scores_the_first_candidate_is_taken() {
        assert_eq!(best_of(&[1, 5, 20], &[0.5, 0.7, 0.7]), Some(5));
        assert_eq!(best_of::<u8>(&[], &[]), None);
    }
}
