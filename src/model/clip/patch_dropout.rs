//! Which patches a vision transformer looks at in training (Li et al. 2023): fewer of them, so that steps are cheaper.
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::seed;

/// The patches that are kept, in order: at least one, and the same for the same step and row whatever the chunking.
///
/// # Shapes
/// `[rows, kept]`, for the rows of the global batch from `first_row` on.
pub fn kept(
    seed: u64,
    step: u64,
    first_row: usize,
    rows: usize,
    patches: usize,
    dropped_share: f64,
    device: &Device,
) -> Tensor<2, Int> {
    let keeps = ((patches as f64 * (1.0 - dropped_share)) as usize).clamp(1, patches.max(1));
    let mut all = Vec::with_capacity(rows * keeps);
    for row in first_row..first_row + rows {
        let mut order: Vec<i64> = (0..patches as i64).collect();
        seed::draws(seed, "patch dropout", &[step, row as u64]).shuffle(&mut order);
        order.truncate(keeps);
        order.sort_unstable();
        all.extend(order);
    }
    Tensor::from_data(TensorData::new(all, [rows, keeps]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(of: Tensor<2, Int>) -> Vec<i64> {
        of.into_data().iter::<i64>().collect()
    }

    #[test]
    fn rows_keep_different_patches_and_chunks_keep_what_the_batch_keeps() {
        let device = Device::flex();
        let whole = kept(1, 7, 0, 6, 49, 0.5, &device);
        assert_eq!(whole.dims(), [6, 24]);
        let halves = [kept(1, 7, 0, 3, 49, 0.5, &device), kept(1, 7, 3, 3, 49, 0.5, &device)].map(values);
        let whole = values(whole);
        assert_eq!(whole, halves.concat());
        assert_ne!(whole[..24], whole[24..48]);
        assert!(whole.chunks(24).all(|row| row.windows(2).all(|pair| pair[0] < pair[1]) && row[23] < 49));
        assert_ne!(values(kept(1, 8, 0, 6, 49, 0.5, &device)), whole);
        assert_eq!(kept(1, 7, 0, 1, 4, 1.0, &device).dims(), [1, 1]);
    }
}
