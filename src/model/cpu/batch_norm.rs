//! Batch normalisation of rows of channels, with an optional ReLU after it, on slices.
//!
//! As few passes over the activations as the dependencies allow: one for the moments and one for the output, then one
//! for the two sums of the backward and one for the gradient. Written as tensor operations it takes about twenty.
use rayon::prelude::*;

use super::zeros;

/// Values per piece: small enough for a core's own cache, since the moments read a piece twice.
const PIECE_VALUES: usize = 32_768;

/// Rows per piece at most: longer sums in single precision lose digits.
const PIECE_ROWS: usize = 1_024;

/// Mean and biased variance of each channel.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
}

/// Per-channel factors of the affine map (x − mean) · scale + shift, and what the backward needs beside them.
#[derive(Debug, Clone)]
pub(super) struct Normalizer {
    pub(super) mean: Vec<f32>,
    pub(super) inverse_deviation: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
    pub(super) relu: bool,
}

impl Normalizer {
    pub(super) fn new(moments: &Moments, weight: &[f32], bias: &[f32], epsilon: f64, relu: bool) -> Self {
        let inverse_deviation: Vec<f32> =
            moments.variance.iter().map(|&v| (1.0 / (f64::from(v) + epsilon).sqrt()) as f32).collect();
        Self {
            mean: moments.mean.clone(),
            scale: weight.iter().zip(&inverse_deviation).map(|(w, d)| w * d).collect(),
            inverse_deviation,
            shift: bias.to_vec(),
            relu,
        }
    }

    /// Mean, scale and shift, all of one known length, and the least value of the output.
    fn factors(&self) -> (&[f32], &[f32], &[f32], f32) {
        let channels = self.mean.len();
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        (&self.mean[..channels], &self.scale[..channels], &self.shift[..channels], floor)
    }
}

/// Values of a piece: whole rows, as many for any number of threads.
fn piece(channels: usize) -> usize {
    (PIECE_VALUES / channels).clamp(1, PIECE_ROWS) * channels
}

/// Moments over all rows of `values` `[rows, channels]`: within a piece about a first estimate of its mean, pieces
/// combined in double precision by Chan's formula, so that a large mean costs no digits.
pub(super) fn moments(values: &[f32], channels: usize) -> Moments {
    let pieces: Vec<(f64, [Vec<f32>; 3])> = values
        .par_chunks(piece(channels))
        .map(|values| {
            let rows = (values.len() / channels) as f32;
            let mut mean = vec![0.0_f32; channels];
            for row in values.chunks_exact(channels) {
                mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            mean.iter_mut().for_each(|sum| *sum /= rows);
            let (mut gaps, mut squares) = (vec![0.0_f32; channels], vec![0.0_f32; channels]);
            for row in values.chunks_exact(channels) {
                for c in 0..channels {
                    let gap = row[c] - mean[c];
                    gaps[c] += gap;
                    squares[c] += gap * gap;
                }
            }
            (f64::from(rows), [mean, gaps, squares])
        })
        .collect();
    let (mut mean, mut squares, mut seen) = (vec![0.0_f64; channels], vec![0.0_f64; channels], 0.0);
    for (rows, [estimate, gaps, piece_squares]) in &pieces {
        let total = seen + rows;
        for c in 0..channels {
            let correction = f64::from(gaps[c]) / rows;
            let gap = f64::from(estimate[c]) + correction - mean[c];
            mean[c] += gap * rows / total;
            squares[c] +=
                f64::from(piece_squares[c]) - correction * correction * rows + gap * gap * seen * rows / total;
        }
        seen = total;
    }
    Moments {
        mean: mean.iter().map(|&m| m as f32).collect(),
        variance: squares.iter().map(|s| (s / seen) as f32).collect(),
    }
}

/// The normalised rows.
pub(super) fn forward(values: &[f32], n: &Normalizer) -> Vec<f32> {
    let channels = n.mean.len();
    let (mean, scale, shift, floor) = n.factors();
    let mut out = zeros(values.len());
    out.par_chunks_mut(piece(channels)).zip(values.par_chunks(piece(channels))).for_each(|(out, values)| {
        for (out, row) in out.chunks_exact_mut(channels).zip(values.chunks_exact(channels)) {
            for c in 0..channels {
                let y = (row[c] - mean[c]) * scale[c] + shift[c];
                // Not `max`: it would turn a NaN into 0 and hide a diverged run.
                out[c] = if y < floor { floor } else { y };
            }
        }
    });
    out
}

/// `value` or 0, by bits: the compiler makes a branch of an `if` here, which guesses wrong for half of all activations.
#[inline]
fn where_true(condition: bool, value: f32) -> f32 {
    f32::from_bits(value.to_bits() & u32::from(condition).wrapping_neg())
}

/// Turns the output's `gradient` into that of `values`, and returns those of weight and bias. Of training: the moments
/// are the batch's own.
pub(super) fn backward(values: &[f32], gradient: &mut [f32], n: &Normalizer) -> (Vec<f32>, Vec<f32>) {
    let channels = n.mean.len();
    let rows = (values.len() / channels) as f64;
    let (mean, scale, shift, floor) = n.factors();
    let partial: Vec<(Vec<f32>, Vec<f32>)> = values
        .par_chunks(piece(channels))
        .zip(gradient.par_chunks(piece(channels)))
        .map(|(values, gradient)| {
            let (mut plain, mut centred) = (vec![0.0_f32; channels], vec![0.0_f32; channels]);
            let (plain_sum, centred_sum) = (&mut plain[..channels], &mut centred[..channels]);
            for (row, gradient) in values.chunks_exact(channels).zip(gradient.chunks_exact(channels)) {
                let (row, gradient) = (&row[..channels], &gradient[..channels]);
                for c in 0..channels {
                    let x = row[c] - mean[c];
                    let g = where_true(x * scale[c] + shift[c] > floor, gradient[c]);
                    plain_sum[c] += g;
                    centred_sum[c] += g * x;
                }
            }
            (plain, centred)
        })
        .collect();
    let (mut plain, mut centred) = (vec![0.0_f64; channels], vec![0.0_f64; channels]);
    for (p, q) in &partial {
        plain.iter_mut().zip(p).for_each(|(sum, p)| *sum += f64::from(*p));
        centred.iter_mut().zip(q).for_each(|(sum, q)| *sum += f64::from(*q));
    }
    // d = scale · (g − Σg / rows − (x − mean) · inverse_deviation² · Σg(x − mean) / rows)
    let offset: Vec<f32> = plain.iter().map(|sum| (sum / rows) as f32).collect();
    let slope: Vec<f32> =
        centred.iter().zip(&n.inverse_deviation).map(|(sum, d)| (sum / rows * f64::from(d * d)) as f32).collect();
    let (offset, slope) = (&offset[..channels], &slope[..channels]);
    gradient.par_chunks_mut(piece(channels)).zip(values.par_chunks(piece(channels))).for_each(|(gradient, values)| {
        for (gradient, row) in gradient.chunks_exact_mut(channels).zip(values.chunks_exact(channels)) {
            let (gradient, row) = (&mut gradient[..channels], &row[..channels]);
            for c in 0..channels {
                let x = row[c] - mean[c];
                let g = where_true(x * scale[c] + shift[c] > floor, gradient[c]);
                gradient[c] = scale[c] * (g - offset[c] - x * slope[c]);
            }
        }
    });
    let weight = centred.iter().zip(&n.inverse_deviation).map(|(sum, d)| (sum * f64::from(*d)) as f32).collect();
    (weight, plain.iter().map(|&sum| sum as f32).collect())
}
