//! Layer normalisation of rows by their biased variance, on slices: one pass, and one back.
use rayon::prelude::*;

use super::wide::{sum, wide};
use super::zeros;

/// Values per piece: whole rows, as many for any number of threads.
const PIECE_VALUES: usize = 32_768;

/// Rows per piece at most: longer sums in single precision lose digits.
const PIECE_ROWS: usize = 1_024;

/// Parameters of every column, and what the formula fixes.
#[derive(Debug, Clone)]
pub(super) struct LayerNormalizer {
    pub(super) weight: Vec<f32>,
    pub(super) shift: Vec<f32>,
    /// Added to the variance.
    pub(super) epsilon: f32,
}

impl LayerNormalizer {
    pub(super) fn width(&self) -> usize {
        self.weight.len()
    }

    fn piece_rows(&self) -> usize {
        (PIECE_VALUES / self.width()).clamp(1, PIECE_ROWS)
    }
}

/// The normalised rows, and each row's mean and inverse deviation one after the other.
pub(super) fn forward(values: &[f32], n: &LayerNormalizer) -> (Vec<f32>, Vec<f32>) {
    let (width, rows) = (n.width(), n.piece_rows());
    let (mut out, mut moments) = (zeros(values.len()), zeros(values.len() / width * 2));
    out.par_chunks_mut(rows * width)
        .zip(moments.par_chunks_mut(rows * 2))
        .zip(values.par_chunks(rows * width))
        .for_each(|((out, moments), values)| normalize(values, n, out, moments));
    (out, moments)
}

/// Gradients of the values, of the weight and of the shift, from the output's.
pub(super) fn backward(values: &[f32], moments: &[f32], gradient: &[f32], n: &LayerNormalizer) -> [Vec<f32>; 3] {
    let (width, rows) = (n.width(), n.piece_rows());
    let mut of_values = zeros(values.len());
    let partial: Vec<Vec<f32>> = of_values
        .par_chunks_mut(rows * width)
        .zip(gradient.par_chunks(rows * width))
        .zip(moments.par_chunks(rows * 2))
        .zip(values.par_chunks(rows * width))
        .map(|(((of_values, gradient), moments), values)| {
            let mut sums = vec![0.0; 2 * width];
            propagate(values, moments, n, gradient, of_values, &mut sums);
            sums
        })
        .collect();
    let mut total = vec![0.0_f64; 2 * width];
    for part in &partial {
        total.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
    }
    let half = |which: usize| total[which * width..][..width].iter().map(|&sum| sum as f32).collect();
    [of_values, half(0), half(1)]
}

wide! {
    /// Rows of `values` into `out`, and their means and inverse deviations into `moments`.
    pub(super) fn normalize(values: &[f32], n: &LayerNormalizer, out: &mut [f32], moments: &mut [f32]) {
        let width = n.weight.len();
        let (weight, shift) = (&n.weight[..width], &n.shift[..width]);
        let rows = values.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(moments.chunks_exact_mut(2));
        for ((row, out), moments) in rows {
            let (row, out) = (&row[..width], &mut out[..width]);
            let mean = sum(width, |c| row[c]) / width as f32;
            let squares = sum(width, |c| {
                let gap = row[c] - mean;
                gap * gap
            });
            let inverse = 1.0 / (squares / width as f32 + n.epsilon).sqrt();
            moments.copy_from_slice(&[mean, inverse]);
            for c in 0..width {
                out[c] = (row[c] - mean) * inverse * weight[c] + shift[c];
            }
        }
    }

    /// [`normalize`] where the moments are known already.
    pub(super) fn normalize_again(values: &[f32], moments: &[f32], n: &LayerNormalizer, out: &mut [f32]) {
        let width = n.weight.len();
        let (weight, shift) = (&n.weight[..width], &n.shift[..width]);
        let rows = values.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(moments.chunks_exact(2));
        for ((row, out), moments) in rows {
            let (row, out, mean, inverse) = (&row[..width], &mut out[..width], moments[0], moments[1]);
            for c in 0..width {
                out[c] = (row[c] - mean) * inverse * weight[c] + shift[c];
            }
        }
    }

    /// Adds the gradient of `values` to `into`. With x̂ the normalised value and g the output's gradient times the weight:
    /// d = inverse · (g − Σg / C − x̂ · Σ g x̂ / C). `sums` takes those of weight and shift over the rows.
    pub(super) fn propagate(
        values: &[f32],
        moments: &[f32],
        n: &LayerNormalizer,
        gradient: &[f32],
        into: &mut [f32],
        sums: &mut [f32],
    ) {
        let width = n.weight.len();
        let weight = &n.weight[..width];
        let (of_weight, of_shift) = sums.split_at_mut(width);
        let of_shift = &mut of_shift[..width];
        let rows = values.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(into.chunks_exact_mut(width));
        for (((row, gradient), into), moments) in rows.zip(moments.chunks_exact(2)) {
            let (row, gradient, into) = (&row[..width], &gradient[..width], &mut into[..width]);
            let (mean, inverse) = (moments[0], moments[1]);
            for c in 0..width {
                of_weight[c] += gradient[c] * (row[c] - mean) * inverse;
                of_shift[c] += gradient[c];
            }
            let offset = sum(width, |c| gradient[c] * weight[c]) / width as f32;
            let slope = sum(width, |c| gradient[c] * weight[c] * (row[c] - mean)) * inverse / width as f32;
            for c in 0..width {
                into[c] += inverse * (gradient[c] * weight[c] - offset - (row[c] - mean) * inverse * slope);
            }
        }
    }
}
