//! Resizing as PIL does it, to the last bit: what models that were evaluated with PIL expect.
//!
//! Augmentation resamples faster and within one level of PIL (`resample`), but only with a filter that has no negative
//! weights; a released model's preprocessing is part of the model. Rows are resampled first, rounded to bytes, then columns;
//! weights have 22 bits of fraction.
use serde::{Deserialize, Serialize};

use super::filter::Span;

/// Fraction bits of a weight: sums of bytes times weights that add up to one, and overshoot, fit an i32.
const WEIGHT_BITS: u32 = 22;

/// Shape of the filter. Its support grows with the reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The triangle.
    #[default]
    Bilinear,
    /// Keys' cubic with a = −1/2.
    Bicubic,
}

impl Interpolation {
    /// As files of settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        }
    }

    /// Samples on one side that an output sees where nothing is reduced.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            // Keys 1981, equation 8, with a = −1/2.
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Bicubic => 0.0,
        }
    }
}

/// For each output the first sample and the weights from there on.
#[derive(Debug, Default)]
struct Taps {
    /// What this was made for.
    made_for: Option<(Span, Interpolation)>,
    starts: Vec<usize>,
    /// Weights of output i are `weights[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
    weights: Vec<i32>,
}

impl Taps {
    fn prepare(&mut self, span: Span, interpolation: Interpolation) {
        if self.made_for == Some((span, interpolation)) {
            return;
        }
        self.starts.clear();
        self.ends.clear();
        self.weights.clear();
        let scale = span.length / span.outputs as f64;
        let reduction = scale.max(1.0);
        let support = interpolation.support() * reduction;
        let inverse = 1.0 / reduction;
        // Counted from the first sample in reach: a box of whole samples has the very weights of an image of its size.
        let (start, count) = (span.start - span.low as f64, span.high - span.low);
        for output in 0..span.outputs {
            let centre = start + (output as f64 + 0.5) * scale;
            let first = ((centre - support + 0.5).max(0.0) as usize).min(count - 1);
            let end = ((centre + support + 0.5) as usize).clamp(first + 1, count);
            let exact = |sample: usize| interpolation.weight((sample as f64 - centre + 0.5) * inverse);
            let sum: f64 = (first..end).map(exact).sum();
            let one = f64::from(1 << WEIGHT_BITS);
            self.weights.extend((first..end).map(|sample| {
                let weight = exact(sample);
                let fixed = if sum == 0.0 { weight } else { weight / sum } * one;
                // Halves away from zero, then cut.
                (if fixed < 0.0 { fixed - 0.5 } else { fixed + 0.5 }) as i32
            }));
            self.starts.push(span.low + first);
            self.ends.push(self.weights.len());
        }
        self.made_for = Some((span, interpolation));
    }

    fn of(&self, output: usize) -> (usize, &[i32]) {
        let begin = if output == 0 { 0 } else { self.ends[output - 1] };
        (self.starts[output], &self.weights[begin..self.ends[output]])
    }

    /// Samples that any output reads.
    fn reach(&self) -> std::ops::Range<usize> {
        let last = self.starts.len().saturating_sub(1);
        let (start, weights) = self.of(last);
        self.starts[0]..start + weights.len()
    }
}

fn rounded(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Tables and memory of one thread.
#[derive(Debug, Default)]
pub(super) struct PreciseResizer {
    columns: Taps,
    rows: Taps,
    /// Rows in reach, each with its final width.
    between: Vec<u8>,
    sums: Vec<i32>,
}

impl PreciseResizer {
    /// A box of one plane, whose rows are `stride` samples, into `out`, `[rows.outputs, columns.outputs]`.
    pub(super) fn resize(
        &mut self,
        samples: &[u8],
        stride: usize,
        [columns, rows]: [Span; 2],
        interpolation: Interpolation,
        out: &mut [u8],
    ) {
        const HALF: i32 = 1 << (WEIGHT_BITS - 1);
        let width = columns.outputs;
        self.columns.prepare(columns, interpolation);
        self.rows.prepare(rows, interpolation);
        let reach = self.rows.reach();
        self.between.clear();
        for row in samples.chunks_exact(stride).take(reach.end).skip(reach.start) {
            self.between.extend((0..width).map(|x| {
                let (start, weights) = self.columns.of(x);
                let products = row[start..].iter().zip(weights).map(|(&sample, weight)| i32::from(sample) * weight);
                rounded(HALF + products.sum::<i32>())
            }));
        }
        self.sums.resize(width, HALF);
        for (y, out) in out.chunks_exact_mut(width).enumerate().take(rows.outputs) {
            let (start, weights) = self.rows.of(y);
            self.sums.fill(HALF);
            for (row, weight) in self.between[(start - reach.start) * width..].chunks_exact(width).zip(weights) {
                self.sums.iter_mut().zip(row).for_each(|(sum, &sample)| *sum += i32::from(sample) * weight);
            }
            out.iter_mut().zip(&self.sums).for_each(|(out, &sum)| *out = rounded(sum));
        }
    }
}

/// One plane `[height, width]` in another size, `[out_height, out_width]`; no side is 0.
pub fn resize_plane(
    samples: &[u8],
    (width, height): (usize, usize),
    (out_width, out_height): (usize, usize),
    interpolation: Interpolation,
) -> Vec<u8> {
    let whole = |samples: usize, outputs| Span { start: 0.0, length: samples as f64, low: 0, high: samples, outputs };
    let spans = [whole(width, out_width), whole(height, out_height)];
    let mut out = vec![0; out_height * out_width];
    PreciseResizer::default().resize(samples, width, spans, interpolation, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_grey_stays_one_grey_and_equal_sizes_stay_as_they_are() {
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for value in [0, 1, 77, 255] {
                let out = resize_plane(&vec![value; 31 * 7], (31, 7), (5, 40), interpolation);
                assert!(out.len() == 200 && out.iter().all(|&pixel| pixel == value), "{value}");
            }
            let ramp: Vec<u8> = (0..60).collect();
            assert_eq!(resize_plane(&ramp, (10, 6), (10, 6), interpolation), ramp);
        }
    }

    #[test]
    fn cubic_overshoots_beside_an_edge_and_is_cut_to_bytes() {
        let edge = [0, 0, 0, 0, 200, 200, 200, 200];
        let out = resize_plane(&edge, (8, 1), (16, 1), Interpolation::Bicubic);
        assert!(out.iter().any(|&value| value > 200) && out[0] == 0, "{out:?}");
        let linear = resize_plane(&edge, (8, 1), (16, 1), Interpolation::Bilinear);
        assert!(linear.iter().all(|&value| value <= 200), "{linear:?}");
    }

    #[test]
    fn a_box_of_whole_samples_is_an_image_of_its_own() {
        let samples: Vec<u8> = (0..40 * 30_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut resizer = PreciseResizer::default();
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for (left, top, width, height) in [(0, 0, 40, 30), (5, 3, 20, 17), (33, 0, 7, 30), (39, 29, 1, 1)] {
                let rows = samples.chunks(40).skip(top).take(height);
                let part: Vec<u8> = rows.flat_map(|row| &row[left..left + width]).copied().collect();
                for size in [(9, 12), (width, height), (64, 50)] {
                    let span = |low: usize, length: usize, outputs| Span {
                        start: low as f64,
                        length: length as f64,
                        low,
                        high: low + length,
                        outputs,
                    };
                    let mut out = vec![0; size.0 * size.1];
                    let spans = [span(left, width, size.0), span(top, height, size.1)];
                    resizer.resize(&samples, 40, spans, interpolation, &mut out);
                    assert_eq!(out, resize_plane(&part, (width, height), size, interpolation), "{left} {top} {size:?}");
                }
            }
        }
    }

    #[test]
    fn samples_around_a_box_are_seen_where_they_may_be() {
        let samples = [0, 0, 0, 0, 255, 255, 255, 255];
        let one = Span { start: 0.0, length: 1.0, low: 0, high: 1, outputs: 1 };
        let resized = |low, high| {
            let mut out = vec![0; 4];
            let columns = Span { start: 2.0, length: 2.0, low, high, outputs: 4 };
            PreciseResizer::default().resize(&samples, 8, [columns, one], Interpolation::Bicubic, &mut out);
            out
        };
        assert_eq!(resized(2, 4), [0; 4]);
        assert!(resized(0, 8).iter().any(|&value| value > 0));
    }
}
