//! Normalisation of each row over its channels, with a bias before it and an optional ReLU after, on slices.
//!
//! Written as tensor operations it takes some twenty passes over the activations; here it is one, and one back.
use rayon::prelude::*;

use super::wide::{sum, wide};
use super::zeros;

/// Values per piece: whole rows, as many for any number of threads.
const PIECE_VALUES: usize = 32_768;

/// Rows per piece at most: longer sums in single precision lose digits.
const PIECE_ROWS: usize = 1_024;

/// Per-channel parameters, and what the formula fixes.
#[derive(Debug, Clone)]
pub(super) struct ChannelNormalizer {
    /// Added to the values first.
    pub(super) bias: Vec<f32>,
    pub(super) weight: Vec<f32>,
    pub(super) shift: Vec<f32>,
    /// Added to the variance.
    pub(super) epsilon: f32,
    pub(super) relu: bool,
}

impl ChannelNormalizer {
    fn piece(&self) -> usize {
        let channels = self.bias.len();
        (PIECE_VALUES / channels).clamp(1, PIECE_ROWS) * channels
    }
}

/// The normalised rows, and each row's mean and inverse deviation one after the other.
pub(super) fn forward(values: &[f32], n: &ChannelNormalizer) -> (Vec<f32>, Vec<f32>) {
    let channels = n.bias.len();
    let (mut out, mut moments) = (zeros(values.len()), zeros(values.len() / channels * 2));
    out.par_chunks_mut(n.piece())
        .zip(moments.par_chunks_mut(n.piece() / channels * 2))
        .zip(values.par_chunks(n.piece()))
        .for_each(|((out, moments), values)| normalize(values, n, out, moments));
    (out, moments)
}

/// Turns the output's `gradient` into that of the values, and returns those of bias, weight and shift.
pub(super) fn backward(values: &[f32], moments: &[f32], gradient: &mut [f32], n: &ChannelNormalizer) -> [Vec<f32>; 3] {
    let channels = n.bias.len();
    let partial: Vec<Vec<f32>> = gradient
        .par_chunks_mut(n.piece())
        .zip(moments.par_chunks(n.piece() / channels * 2))
        .zip(values.par_chunks(n.piece()))
        .map(|((gradient, moments), values)| {
            let mut sums = vec![0.0; 3 * channels];
            propagate(values, moments, n, gradient, &mut sums);
            sums
        })
        .collect();
    let mut total = vec![0.0_f64; 3 * channels];
    for part in &partial {
        total.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
    }
    let third = |which: usize| total[which * channels..][..channels].iter().map(|&sum| sum as f32).collect();
    [third(0), third(1), third(2)]
}

wide! {
    fn normalize(values: &[f32], n: &ChannelNormalizer, out: &mut [f32], moments: &mut [f32]) {
        let channels = n.bias.len();
        let (bias, weight, shift) = (&n.bias[..channels], &n.weight[..channels], &n.shift[..channels]);
        let floor = if n.relu { 0.0 } else { f32::NEG_INFINITY };
        let rows = values.chunks_exact(channels).zip(out.chunks_exact_mut(channels)).zip(moments.chunks_exact_mut(2));
        for ((row, out), moments) in rows {
            let row = &row[..channels];
            let mean = sum(channels, |c| row[c] + bias[c]) / channels as f32;
            let squares = sum(channels, |c| {
                let gap = row[c] + bias[c] - mean;
                gap * gap
            });
            let inverse = 1.0 / (squares / (channels as f32 - 1.0) + n.epsilon).sqrt();
            moments.copy_from_slice(&[mean, inverse]);
            for c in 0..channels {
                let y = (row[c] + bias[c] - mean) * inverse * weight[c] + shift[c];
                // Not `max`: it would turn a NaN into 0 and hide a diverged run.
                out[c] = if y < floor { floor } else { y };
            }
        }
    }

    /// With x̂ the normalised value and g the gradient in front of the ReLU times the weight:
    /// d = inverse · (g − Σg / C − x̂ · Σ g x̂ / (C − 1)). `sums` takes those of d, g₀ x̂ and g₀ over the rows.
    fn propagate(values: &[f32], moments: &[f32], n: &ChannelNormalizer, gradient: &mut [f32], sums: &mut [f32]) {
        let channels = n.bias.len();
        let (bias, weight, shift) = (&n.bias[..channels], &n.weight[..channels], &n.shift[..channels]);
        let floor = if n.relu { 0.0 } else { f32::NEG_INFINITY };
        let (of_bias, rest) = sums.split_at_mut(channels);
        let (of_weight, of_shift) = rest.split_at_mut(channels);
        let of_shift = &mut of_shift[..channels];
        let rows = values.chunks_exact(channels).zip(gradient.chunks_exact_mut(channels)).zip(moments.chunks_exact(2));
        for ((row, gradient), moments) in rows {
            let (row, gradient) = (&row[..channels], &mut gradient[..channels]);
            let (mean, inverse) = (moments[0], moments[1]);
            for c in 0..channels {
                let x = (row[c] + bias[c] - mean) * inverse;
                let open = u32::from(x * weight[c] + shift[c] > floor).wrapping_neg();
                let g = f32::from_bits(gradient[c].to_bits() & open);
                gradient[c] = g;
                of_weight[c] += g * x;
                of_shift[c] += g;
            }
            let offset = sum(channels, |c| gradient[c] * weight[c]) / channels as f32;
            let slope = sum(channels, |c| gradient[c] * weight[c] * (row[c] + bias[c] - mean));
            let slope = slope * inverse / (channels as f32 - 1.0);
            for c in 0..channels {
                let x = (row[c] + bias[c] - mean) * inverse;
                let d = inverse * (gradient[c] * weight[c] - offset - x * slope);
                gradient[c] = d;
                of_bias[c] += d;
            }
        }
    }
}
