//! What losses over all pairs share, whether they see the matrix of logits whole or a few rows at a time.
//!
//! Whole, autodiff keeps the matrix several times. In tiles, a loss takes its own gradient: a first pass over the tiles
//! leaves a number per row, a second one computes each tile's logits again and adds what follows from them to the
//! gradients, so that memory is that of a tile and of the embeddings. [`with_gradients`] then puts value and gradients into
//! the graph. Both passes run in the forward, and nothing is left to do in the backward but to scale.
//!
//! Second derivatives are not available: differentiated again, such a loss would be linear.
use burn::tensor::{Bool, Device, Int, Tensor};

/// A masked logit. Finite, so that no kernel meets ∞ · 0, and far below any of −2 s.
pub(super) const MASKED: f32 = -1e9;

/// First row and length of each tile.
pub(super) fn tiles(rows: usize, tile_rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let tile = tile_rows.clamp(1, rows.max(1));
    (0..rows).step_by(tile).map(move |first| (first, tile.min(rows - first)))
}

/// Numbers of rows and columns of a square matrix, from which tiles of its diagonals follow.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    /// `[rows, 1]`
    rows: Tensor<2, Int>,
}

impl Numbers {
    pub(super) fn new(rows: usize, device: &Device) -> Self {
        Self { rows: Tensor::<1, Int>::arange(0..rows as i64, device).reshape([rows, 1]) }
    }

    /// True where the column has the row's number, or that of the row so many further on, around the end.
    pub(super) fn diagonal(&self, first: usize, length: usize, further: usize) -> Tensor<2, Bool> {
        let [rows, _] = self.rows.dims();
        let columns = self.rows.clone().transpose(); // [1, rows]
        let wanted = self.rows.clone().narrow(0, first, length); // [length, 1]
        let wanted = if further == 0 { wanted } else { (wanted + further as i64) % (rows as i64) };
        wanted.equal(columns)
    }
}

/// Σ exp(x) over many x, kept as a shift that is never negative and a sum of exp(x − shift).
///
/// As a function the loss does not depend on the shift, so the shift takes no part in its gradient.
#[derive(Debug, Clone)]
pub(super) struct Excess {
    shift: Tensor<2>,
    sum: Tensor<2>,
}

impl Excess {
    /// Of every row, `[rows, 1]`, or column, `[1, columns]`: `dim` is the one summed over.
    pub(super) fn over(dim: usize, above: Tensor<2>) -> Self {
        let shift = above.clone().detach().max_dim(dim).clamp_min(0.0);
        Self { sum: (above - shift.clone()).exp().sum_dim(dim), shift }
    }

    /// Of both.
    pub(super) fn and(self, other: Self) -> Self {
        let shift = self.shift.clone().max_pair(other.shift.clone());
        let moved = |one: Self| one.sum * (one.shift - shift.clone()).exp();
        Self { sum: moved(self) + moved(other), shift }
    }

    /// Of tiles of rows, one below the other.
    pub(super) fn below(tiles: Vec<Self>) -> Self {
        let (shifts, sums) = tiles.into_iter().map(|tile| (tile.shift, tile.sum)).unzip();
        Self { shift: Tensor::cat(shifts, 0), sum: Tensor::cat(sums, 0) }
    }

    /// The same with a shift that is not below `own` either, which may be above 0 under soft targets.
    #[must_use]
    pub(super) fn not_below(self, own: &Tensor<2>) -> Self {
        let shift = self.shift.clone().max_pair(own.clone().detach());
        Self { sum: self.sum * (self.shift - shift.clone()).exp(), shift }
    }

    /// ln(exp(own) + Σ exp(x)), without the cancellation that the plain logarithm has where `own` is 0 and the sum small.
    /// The shift is [not below](Self::not_below) `own`.
    pub(super) fn loss(&self, own: Tensor<2>) -> Tensor<2> {
        (self.sum.clone() + ((own - self.shift.clone()).exp() - 1.0)).log1p() + self.shift.clone()
    }

    /// What turns each x into its part of the softmax that `own` belongs to.
    pub(super) fn softmax(&self, own: Tensor<2>) -> Softmax {
        let total = self.sum.clone() + (own - self.shift.clone()).exp();
        Softmax { shift: self.shift.clone(), inverse: total.recip() }
    }

    /// How much of the softmax is not the own's.
    pub(super) fn share(&self, softmax: &Softmax) -> Tensor<2> {
        self.sum.clone() * softmax.inverse.clone()
    }
}

/// A softmax whose sum is known.
///
/// Of shift and sum rather than their logarithm: that is a number as large as the logits, with as few digits behind the
/// point.
#[derive(Debug, Clone)]
pub(super) struct Softmax {
    shift: Tensor<2>,
    inverse: Tensor<2>,
}

impl Softmax {
    /// Of some rows of `[rows, 1]`.
    pub(super) fn tile(&self, first: usize, length: usize) -> Self {
        let part = |of: &Tensor<2>| of.clone().narrow(0, first, length);
        Self { shift: part(&self.shift), inverse: part(&self.inverse) }
    }

    /// `[rows, 1]` as `[1, rows]`.
    pub(super) fn transpose(&self) -> Self {
        Self { shift: self.shift.clone().transpose(), inverse: self.inverse.clone().transpose() }
    }

    /// The parts of logits above the same as in [`Excess::over`].
    pub(super) fn of(&self, above: Tensor<2>) -> Tensor<2> {
        (above - self.shift.clone()).exp() * self.inverse.clone()
    }
}

/// `value`, with the given gradients with respect to some tensors of a graph.
///
/// The terms that carry the gradients are exactly 0. A tensor that is not tracked has no gradient.
///
/// # Shapes
/// `value`: `[1]`; tensors and gradients: of one shape each.
pub(super) fn with_gradients(value: Tensor<1>, parts: Vec<(Tensor<2>, Tensor<2>)>) -> Tensor<1> {
    parts.into_iter().filter(|(tensor, _)| tensor.is_tracked()).fold(value, |value, (tensor, gradient)| {
        let carrier = (tensor * gradient).sum_dim(1).sum_dim(0).squeeze_dim::<1>(1); // [1]
        value + (carrier.clone() - carrier.detach())
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn values(of: Tensor<2>) -> Vec<f32> {
        of.into_data().try_into_vec::<f32>().expect("f32")
    }

    #[test]
    fn tiles_cover_every_row_once() {
        let of = |rows, tile| tiles(rows, tile).collect::<Vec<_>>();
        assert_eq!(of(7, 3), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(of(2, 9), [(0, 2)]);
        assert_eq!(of(2, 0), [(0, 1), (1, 1)]);
        assert_eq!(of(0, 4), []);
    }

    #[test]
    fn diagonals_of_tiles_are_those_of_the_matrix() {
        let numbers = Numbers::new(4, &Device::flex());
        let of = |first, length, further| -> Vec<usize> {
            let mask: Vec<bool> = numbers.diagonal(first, length, further).into_data().iter::<bool>().collect();
            mask.iter().enumerate().filter(|(_, on)| **on).map(|(at, _)| at).collect()
        };
        assert_eq!(of(0, 4, 0), [0, 5, 10, 15]);
        assert_eq!(of(2, 2, 0), [2, 7]);
        assert_eq!(of(1, 3, 2), [3, 4, 9]);
    }

    #[test]
    fn sums_in_parts_are_the_sum_also_where_exponents_are_large() {
        let device = Device::flex();
        let rows =
            |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values.clone(), [1, values.len()]), &device);
        let all = vec![-3.0, 80.0, 200.0, 199.0, -1e9, 0.5];
        let zero = Tensor::<2>::zeros([1, 1], &device);
        let whole = Excess::over(1, rows(all.clone()));
        let parts = Excess::over(1, rows(all[..2].to_vec())).and(Excess::over(1, rows(all[2..].to_vec())));
        let expected = 200.0 + (1.0_f32 + (-1.0_f32).exp()).ln();
        for excess in [whole, parts] {
            let loss = excess.loss(zero.clone());
            let share = values(excess.share(&excess.softmax(zero.clone())))[0];
            assert!((values(loss)[0] - expected).abs() < 1e-4);
            assert!((share - 1.0).abs() < 1e-4, "{share}");
        }
        // An own far above everything else, as a text may be among those that share its image.
        let (own, far) = (rows(vec![150.0]), Excess::over(1, rows(vec![-3.0, 1.0])).not_below(&rows(vec![150.0])));
        assert_eq!(values(far.loss(own.clone())), [150.0]);
        assert_eq!(values(far.share(&far.softmax(own))), [0.0]);
        let tiny = Excess::over(1, rows(vec![-25.0])).not_below(&zero);
        let share = tiny.share(&tiny.softmax(zero.clone()));
        assert!((values(tiny.loss(zero))[0] / (-25.0_f32).exp() - 1.0).abs() < 1e-6);
        assert!((values(share)[0] / (-25.0_f32).exp() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_value_with_gradients_has_both_and_scales() {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device).require_grad();
        let constant = Tensor::<2>::from_data([[1.0]], &device);
        let gradient = Tensor::<2>::from_data([[0.5, -1.0], [0.0, 7.0]], &Device::flex());
        let value = Tensor::<1>::from_data([0.3], &Device::flex());
        let loss = with_gradients(value, vec![(x.clone(), gradient), (constant.clone(), constant.inner())]);
        let gradients = (loss.clone() * 2.0).backward();
        assert_eq!(loss.into_data().try_into_vec::<f32>().expect("f32"), [0.3]);
        assert_eq!(values(x.grad(&gradients).expect("tracked")), [1.0, -2.0, 0.0, 14.0]);
    }
}
