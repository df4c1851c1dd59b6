//! Dropout whose draws have a name.
use rayon::prelude::*;

use crate::seed;

/// Dropout (Srivastava et al. 2014) in the forward of one step's rows.
///
/// What is dropped depends on seed, step, layer and the row's place in the global batch alone: a row is treated the same in
/// a chunk and in the whole batch, the first and the second time, padded or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Share that becomes 0; what is left is scaled up, so that means stay.
    pub share: f64,
    /// The run's.
    pub seed: u64,
    /// Counted from 0.
    pub step: u64,
    /// Where the first row stands in the global batch.
    pub first_row: usize,
}

impl Dropout {
    /// What the states of some rows are multiplied by, `[rows, tokens, width]`; `None` where nothing is dropped. `layer` names
    /// the place.
    pub(super) fn factors(&self, layer: &str, [rows, tokens, width]: [usize; 3]) -> Option<Vec<f32>> {
        // 0 below, 2³² at most: a draw is dropped where it is below.
        let dropped = (self.share.clamp(0.0, 1.0) * (1_u64 << 32) as f64) as u64;
        if dropped == 0 {
            return None;
        }
        let kept = if self.share < 1.0 { (1.0 / (1.0 - self.share)) as f32 } else { 0.0 };
        let purpose = format!("dropout of {layer}");
        let mut factors = vec![0.0_f32; rows * tokens * width];
        factors.par_chunks_mut((tokens * width).max(1)).enumerate().for_each(|(row, factors)| {
            let mut draws = seed::draws(self.seed, &purpose, &[self.step, (self.first_row + row) as u64]);
            factors.iter_mut().filter(|_| u64::from(draws.next_u32()) >= dropped).for_each(|factor| *factor = kept);
        });
        Some(factors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROPOUT: Dropout = Dropout { share: 0.25, seed: 3, step: 7, first_row: 0 };

    fn factors(dropout: Dropout, layer: &str, shape: [usize; 3]) -> Vec<f32> {
        dropout.factors(layer, shape).unwrap_or_else(|| vec![1.0; shape.iter().product()])
    }

    #[test]
    fn a_share_is_dropped_and_the_mean_stays() {
        let factors = factors(DROPOUT, "a", [64, 20, 30]);
        assert!(factors.iter().all(|&factor| factor == 0.0 || (factor - 4.0 / 3.0).abs() < 1e-6));
        let dropped = factors.iter().filter(|factor| **factor == 0.0).count() as f64 / factors.len() as f64;
        // Four deviations of 38,400 draws.
        assert!((dropped - 0.25).abs() < 0.009, "{dropped}");
    }

    #[test]
    fn a_row_drops_the_same_in_a_chunk_and_with_more_padding_and_else_where_else_something_else() {
        let whole = factors(DROPOUT, "a", [6, 5, 8]);
        assert_eq!(whole, factors(DROPOUT, "a", [6, 5, 8]));
        assert_eq!(whole[3 * 40..], factors(Dropout { first_row: 3, ..DROPOUT }, "a", [3, 5, 8]));
        let padded = factors(DROPOUT, "a", [6, 9, 8]);
        assert!((0..6).all(|row| padded[row * 72..row * 72 + 40] == whole[row * 40..(row + 1) * 40]));
        assert_ne!(whole[..40], whole[40..80]);
        for other in [Dropout { step: 8, ..DROPOUT }, Dropout { seed: 4, ..DROPOUT }] {
            assert_ne!(factors(other, "a", [6, 5, 8]), whole);
        }
        assert_ne!(factors(DROPOUT, "b", [6, 5, 8]), whole);
    }

    #[test]
    fn nothing_and_everything_can_be_dropped() {
        assert_eq!(factors(Dropout { share: 0.0, ..DROPOUT }, "a", [1, 2, 2]), [1.0; 4]);
        assert_eq!(factors(Dropout { share: 1.0, ..DROPOUT }, "a", [1, 2, 2]), [0.0; 4]);
    }
}
