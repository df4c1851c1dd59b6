//! NT-Xent, the loss of SimCLR (Chen et al. 2020, arXiv 2002.05709).
//!
//! Over Z = [z₁; z₂] with rows of unit length and S = Z Zᵀ / τ, the loss of row i with positive p is
//! ℓᵢ = LSE_{k≠i} Sᵢₖ − Sᵢₚ, and the result their mean: the positive stays in the denominator. (The released code of
//! google-research returns twice that.)
use burn::tensor::{Bool, Tensor};

use super::l2_normalize;
use super::tiles::{Excess, MASKED, Numbers, tiles, with_gradients};
use crate::error::{Error, Result, Stage};

/// The normalised temperature-scaled cross-entropy over two views of each item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NtXent {
    temperature: f64,
    tile_rows: Option<usize>,
}

/// A loss and the embeddings it was taken from.
#[derive(Debug, Clone)]
pub struct Contrast {
    /// `[1]`
    pub loss: Tensor<1>,
    /// Both views' rows at unit length, `[items, width]`, cut off from the graph.
    pub embeddings: [Tensor<2>; 2],
}

impl NtXent {
    /// With τ > 0.
    pub fn new(temperature: f64) -> Result<Self> {
        if temperature.is_finite() && temperature > 0.0 {
            Ok(Self { temperature, tile_rows: None })
        } else {
            let reason =
                format!("the temperature of NT-Xent is {temperature}; it must be a number above 0, such as 0.1");
            Err(Error::at(Stage::Model, "temperature", reason))
        }
    }

    /// With so many rows of the matrix of logits at a time; all of them where `tile_rows` is `None`.
    ///
    /// In tiles value and gradients are the same up to rounding, memory grows with `tile_rows · items` instead of `items²`,
    /// logits are computed twice, and there is no second derivative.
    #[must_use]
    pub fn with_tile_rows(self, tile_rows: Option<usize>) -> Self {
        Self { tile_rows, ..self }
    }

    /// Mean loss over both views of all items, from projections of any length.
    ///
    /// Fewer than two items are refused: without a negative the loss is exactly 0 and teaches nothing.
    ///
    /// # Shapes
    /// `first`, `second`: `[items, width]`, row i of both from the same item.
    pub fn forward(&self, first: Tensor<2>, second: Tensor<2>) -> Result<Contrast> {
        let [items, width] = first.dims();
        if second.dims() != [items, width] {
            let reason = format!("views of shapes {:?} and {:?} do not pair", first.dims(), second.dims());
            return Err(Error::at(Stage::Model, "NT-Xent", reason));
        }
        if items < 2 {
            let reason = format!("a batch of {items} has no negatives; at least 2 items are needed");
            return Err(Error::at(Stage::Model, "NT-Xent", reason));
        }
        let (first, second) = (l2_normalize(first), l2_normalize(second));
        let loss = match self.tile_rows {
            None => {
                let logits = ViewLogits::new(&first, &second, self.temperature);
                mean(logits.excess(2 * items).loss(logits.right.zeros_like()))
            }
            Some(tile_rows) => {
                let [a, b] = [&first, &second].map(|view| view.clone().without_autodiff());
                let tracked = first.is_tracked() || second.is_tracked();
                let (value, gradient) = ViewLogits::new(&a, &b, self.temperature).in_tiles(tile_rows, tracked);
                let halves = gradient.map(|both| [both.clone().narrow(0, 0, items), both.narrow(0, items, items)]);
                let parts = [first.clone(), second.clone()].into_iter().zip(halves.into_iter().flatten()).collect();
                with_gradients(value, parts)
            }
        };
        Ok(Contrast { loss, embeddings: [first.detach(), second.detach()] })
    }
}

/// `[rows, 1]` to `[1]`.
fn mean(losses: Tensor<2>) -> Tensor<1> {
    losses.mean_dim(0).squeeze_dim(1)
}

/// S = Z Zᵀ / τ, of which tiles are made on demand.
#[derive(Debug)]
struct ViewLogits {
    /// Both views' rows at unit length, the second below the first: `[2 items, width]`.
    both: Tensor<2>,
    /// S of each row's positive, `[2 items, 1]`.
    right: Tensor<2>,
    temperature: f64,
    numbers: Numbers,
}

impl ViewLogits {
    fn new(first: &Tensor<2>, second: &Tensor<2>, temperature: f64) -> Self {
        let right = (first.clone() * second.clone()).sum_dim(1) / temperature; // [items, 1]
        let right = Tensor::cat(vec![right.clone(), right], 0); // [2 items, 1]
        let both = Tensor::cat(vec![first.clone(), second.clone()], 0); // [2 items, width]
        let numbers = Numbers::new(both.dims()[0], &both.device());
        Self { both, right, temperature, numbers }
    }

    /// `[length, 2 items]`
    fn tile(&self, first: usize, length: usize) -> Tensor<2> {
        let rows = self.both.clone().narrow(0, first, length);
        rows.matmul(self.both.clone().transpose()) / self.temperature
    }

    /// What all rows' logits sum up to, relative to their positives.
    ///
    /// Near convergence LSE − positive would cancel. log1p over the differences does not, and neither does its gradient, in
    /// which the positive stands in every exponent.
    fn excess(&self, tile_rows: usize) -> Excess {
        let sums = tiles(self.both.dims()[0], tile_rows).map(|(first, length)| {
            let above = self.tile(first, length) - self.right.clone().narrow(0, first, length);
            Excess::over(1, above.mask_fill(self.apart(first, length), MASKED))
        });
        Excess::below(sums.collect())
    }

    /// True where row and column are the same, or the two views of one item.
    fn apart(&self, first: usize, length: usize) -> Tensor<2, Bool> {
        let items = self.both.dims()[0] / 2;
        self.numbers.diagonal(first, length, 0).bool_or(self.numbers.diagonal(first, length, items))
    }

    /// The loss, and its gradient by both views' rows, `[2 items, width]`, where it is wanted.
    ///
    /// S is symmetric, so that what row i and row j say of Sᵢⱼ adds up within one tile.
    fn in_tiles(&self, tile_rows: usize, want_gradient: bool) -> (Tensor<1>, Option<Tensor<2>>) {
        let [rows, _] = self.both.dims();
        let sums = self.excess(tile_rows);
        let own = self.right.zeros_like(); // [rows, 1]
        let value = mean(sums.loss(own.clone()));
        if !want_gradient {
            return (value, None);
        }
        let softmax = sums.softmax(own);
        let (columns, right) = (softmax.transpose(), self.right.clone().transpose()); // [1, rows]
        let gradients = tiles(rows, tile_rows).map(|(first, length)| {
            let (logits, apart) = (self.tile(first, length), self.apart(first, length)); // [length, rows]
            let by_row = logits.clone() - self.right.clone().narrow(0, first, length);
            let by_row = softmax.tile(first, length).of(by_row.mask_fill(apart.clone(), MASKED));
            let by_column = columns.of((logits - right.clone()).mask_fill(apart, MASKED));
            (by_row + by_column).matmul(self.both.clone()) // [length, width]
        });
        let gradient = Tensor::cat(gradients.collect(), 0);
        // A positive's softmax is one minus all others', less its target of one: their sum, so that its digits are kept.
        let shares = sums.share(&softmax);
        let turned = |of: &Tensor<2>| {
            let half = rows / 2;
            Tensor::cat(vec![of.clone().narrow(0, half, half), of.clone().narrow(0, 0, half)], 0)
        };
        let gradient = gradient - (shares.clone() + turned(&shares)) * turned(&self.both);
        (value, Some(gradient / (rows as f64 * self.temperature)))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read single values as they go")]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::seed;

    /// Rows of `width`, row after row.
    fn rows(values: &[f64], width: usize, device: &Device) -> Tensor<2> {
        let floats: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        Tensor::from_data(TensorData::new(floats, [values.len() / width, width]), device)
    }

    fn random(count: usize, name: u64) -> Vec<f64> {
        let mut draws = seed::draws(3, "test of NT-Xent", &[name]);
        (0..count).map(|_| draws.normal()).collect()
    }

    fn loss(first: &[f64], second: &[f64], width: usize, temperature: f64) -> f64 {
        let device = Device::flex();
        let contrast = NtXent::new(temperature)
            .and_then(|loss| loss.forward(rows(first, width, &device), rows(second, width, &device)))
            .expect("a loss");
        f64::from(contrast.loss.into_scalar::<f32>())
    }

    fn nt_xent(temperature: f64) -> NtXent {
        NtXent::new(temperature).expect("above 0")
    }

    /// The definition, term by term, in double precision.
    fn naive(first: &[f64], second: &[f64], width: usize, temperature: f64) -> f64 {
        let all: Vec<Vec<f64>> = first
            .chunks(width)
            .chain(second.chunks(width))
            .map(|row| {
                let norm = row.iter().map(|x| x * x).sum::<f64>().max(1e-24).sqrt();
                row.iter().map(|x| x / norm).collect()
            })
            .collect();
        let count = all.len();
        let logit =
            |i: usize, k: usize| -> f64 { all[i].iter().zip(&all[k]).map(|(a, b)| a * b).sum::<f64>() / temperature };
        let row = |i: usize| -> f64 {
            let positive = logit(i, (i + count / 2) % count);
            (0..count).filter(|&k| k != i).map(|k| (logit(i, k) - positive).exp()).sum::<f64>().ln()
        };
        (0..count).map(row).sum::<f64>() / count as f64
    }

    #[test]
    fn equals_the_definition_on_random_rows() {
        for (items, width, temperature) in [(2, 3, 0.5), (5, 4, 0.1), (33, 16, 0.07), (8, 2, 1.0)] {
            let (a, b) = (random(items * width, 1), random(items * width, 2));
            let (ours, expected) = (loss(&a, &b, width, temperature), naive(&a, &b, width, temperature));
            assert!((ours - expected).abs() < 2e-6 * expected.max(1.0), "{ours} {expected}");
        }
    }

    #[test]
    fn gradient_equals_finite_differences_of_the_definition() {
        let (items, width, temperature) = (4, 3, 0.2);
        let (a, b) = (random(items * width, 5), random(items * width, 6));
        let device = Device::flex().autodiff();
        let (x, y) = (rows(&a, width, &device).require_grad(), rows(&b, width, &device).require_grad());
        let loss = nt_xent(temperature).forward(x.clone(), y.clone()).expect("a loss").loss;
        let gradients = loss.backward();
        let of = |z: &Tensor<2>| -> Vec<f32> {
            z.grad(&gradients).expect("tracked").into_data().try_into_vec::<f32>().expect("f32")
        };
        let (of_a, of_b) = (of(&x), of(&y));
        let step = 1e-5;
        for index in 0..items * width {
            let mut moved = (a.clone(), a.clone());
            moved.0[index] += step;
            moved.1[index] -= step;
            let slope =
                (naive(&moved.0, &b, width, temperature) - naive(&moved.1, &b, width, temperature)) / (2.0 * step);
            assert!((f64::from(of_a[index]) - slope).abs() < 1e-5, "{} {slope}", of_a[index]);
            let mut moved = (b.clone(), b.clone());
            moved.0[index] += step;
            moved.1[index] -= step;
            let slope =
                (naive(&a, &moved.0, width, temperature) - naive(&a, &moved.1, width, temperature)) / (2.0 * step);
            assert!((f64::from(of_b[index]) - slope).abs() < 1e-5, "{} {slope}", of_b[index]);
        }
        // Scaling a row changes nothing, so its gradient is orthogonal to it.
        for (row, gradient) in a.chunks(width).zip(of_a.chunks(width)) {
            let along: f64 = row.iter().zip(gradient).map(|(x, g)| x * f64::from(*g)).sum();
            assert!(along.abs() < 1e-6, "{along}");
        }
    }

    #[test]
    fn gradient_keeps_its_digits_near_convergence() {
        // Positives at cosine 1, negatives far: the naive softmax − 1 would have no correct digit in f32.
        let (width, temperature, step) = (3, 0.05, 1e-4);
        let a: Vec<f64> = vec![1.0, 0.1, 0.0, -0.2, 1.0, 0.1, 0.3, -0.4, 0.8];
        let b: Vec<f64> = vec![1.0, 0.12, 0.01, -0.2, 1.0, 0.13, 0.31, -0.4, 0.8];
        let device = Device::flex().autodiff();
        let x = rows(&a, width, &device).require_grad();
        let loss = nt_xent(temperature).forward(x.clone(), rows(&b, width, &device)).expect("a loss").loss;
        let expected = naive(&a, &b, width, temperature);
        let gradients = loss.backward();
        let ours = f64::from(loss.inner().into_scalar::<f32>());
        assert!(expected < 1e-3 && (ours - expected).abs() < 1e-5 * expected.max(1e-3), "{ours} {expected}");
        let gradient: Vec<f32> = x.grad(&gradients).expect("tracked").into_data().try_into_vec::<f32>().expect("f32");
        let scale = gradient.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        for index in 0..a.len() {
            let (mut up, mut down) = (a.clone(), a.clone());
            up[index] += step;
            down[index] -= step;
            let slope = (naive(&up, &b, width, temperature) - naive(&down, &b, width, temperature)) / (2.0 * step);
            assert!(
                (f64::from(gradient[index]) - slope).abs() < 1e-3 * f64::from(scale),
                "{} {slope}",
                gradient[index]
            );
        }
    }

    #[test]
    fn views_may_be_swapped_items_permuted_and_rows_scaled() {
        let (items, width, temperature) = (6, 5, 0.1);
        let (a, b) = (random(items * width, 7), random(items * width, 8));
        let base = loss(&a, &b, width, temperature);
        assert!((loss(&b, &a, width, temperature) - base).abs() < 1e-6);
        let turned = |z: &[f64]| [&z[2 * width..], &z[..2 * width]].concat();
        assert!((loss(&turned(&a), &turned(&b), width, temperature) - base).abs() < 1e-6);
        let scaled: Vec<f64> = a.iter().enumerate().map(|(i, x)| x * (1.0 + (i / width) as f64)).collect();
        assert!((loss(&scaled, &b, width, temperature) - base).abs() < 1e-6);
        let mut mispaired = b.clone();
        mispaired.rotate_left(width);
        assert!((loss(&a, &mispaired, width, temperature) - base).abs() > 1e-2);
    }

    #[test]
    fn collapse_and_orthogonality_give_the_logarithm_of_all_others() {
        let same = [0.3, -0.4, 1.2].repeat(4);
        assert!((loss(&same, &same, 3, 0.1) - 7.0_f64.ln()).abs() < 1e-6);
        // Eight rows of the identity: every cosine is 0.
        let identity: Vec<f64> = (0..64).map(|i| if i % 9 == 0 { 1.0 } else { 0.0 }).collect();
        assert!((loss(&identity[..32], &identity[32..], 8, 0.1) - 7.0_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn independent_random_rows_have_the_expected_loss() {
        // ln(2N − 1) + 1 / (2dτ²) = 6.627 at N = 256, d = 128, τ = .1; one draw of N positives has a deviation of .07.
        let draws = 8;
        let mean = (0..draws)
            .map(|draw| loss(&random(256 * 128, 100 + draw), &random(256 * 128, 200 + draw), 128, 0.1))
            .sum::<f64>()
            / draws as f64;
        assert!((mean - 6.627).abs() < 0.08, "{mean}");
    }

    #[test]
    fn zero_rows_and_small_temperatures_stay_finite() {
        let device = Device::flex().autodiff();
        for temperature in [0.5, 0.01, 0.005] {
            let x = rows(&[0.0, 0.0, 1.0, 0.0, -1.0, 1e-3], 2, &device).require_grad();
            let y = rows(&[0.0, 0.0, -1.0, 1e-3, 1.0, 0.0], 2, &device).require_grad();
            let loss = nt_xent(temperature).forward(x.clone(), y.clone()).expect("a loss").loss;
            let gradients = loss.backward();
            assert!(loss.inner().into_scalar::<f32>().is_finite());
            for z in [x, y] {
                let gradient: Vec<f32> =
                    z.grad(&gradients).expect("tracked").into_data().try_into_vec::<f32>().expect("f32");
                assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
            }
        }
    }

    #[test]
    fn too_few_items_unpaired_views_and_bad_temperatures_are_refused() {
        let device = Device::flex();
        let of = |items: usize| rows(&random(items * 2, 11), 2, &device);
        let loss = nt_xent(0.1);
        assert!(loss.forward(of(1), of(1)).is_err());
        assert!(loss.forward(of(3), of(2)).is_err());
        assert!(loss.forward(of(2), of(2)).is_ok());
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(NtXent::new(temperature).is_err());
        }
    }

    #[test]
    fn embeddings_are_at_unit_length_and_outside_the_graph() {
        let device = Device::flex().autodiff();
        let x = rows(&random(12, 12), 3, &device).require_grad();
        let contrast = nt_xent(0.1).forward(x.clone(), x).expect("a loss");
        let [first, _] = contrast.embeddings;
        assert!(!first.is_tracked());
        let lengths: Vec<f32> = first.square().sum_dim(1).into_data().try_into_vec::<f32>().expect("f32");
        assert!(lengths.iter().all(|l| (l - 1.0).abs() < 1e-6));
    }
}
