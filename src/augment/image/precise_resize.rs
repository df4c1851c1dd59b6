//! Resizing as PIL does it, to the last bit: what models that were evaluated with PIL expect.
//!
//! Augmentation resamples faster and within one level of PIL (`resample`); a released model's preprocessing is
//! part of the model. Rows are resampled first, rounded to bytes, then columns; weights have 22 bits of fraction.

/// Fraction bits of a weight: sums of bytes times weights that add up to one, and overshoot, fit an i32.
const WEIGHT_BITS: u32 = 22;

/// Shape of the filter. Its support grows with the reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// The triangle.
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
struct Taps {
    starts: Vec<usize>,
    /// Weights of output i are `weights[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
    weights: Vec<i32>,
}

impl Taps {
    fn new(samples: usize, outputs: usize, interpolation: Interpolation) -> Self {
        let scale = samples as f64 / outputs as f64;
        let reduction = scale.max(1.0);
        let support = interpolation.support() * reduction;
        let mut taps = Self { starts: Vec::with_capacity(outputs), ends: Vec::with_capacity(outputs), weights: vec![] };
        for output in 0..outputs {
            let centre = (output as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(samples);
            let inverse = 1.0 / reduction;
            let exact: Vec<f64> =
                (first..end).map(|sample| interpolation.weight((sample as f64 - centre + 0.5) * inverse)).collect();
            let sum: f64 = exact.iter().sum();
            let one = f64::from(1 << WEIGHT_BITS);
            taps.weights.extend(exact.iter().map(|weight| {
                let fixed = if sum == 0.0 { *weight } else { weight / sum } * one;
                // Halves away from zero, then cut.
                (if fixed < 0.0 { fixed - 0.5 } else { fixed + 0.5 }) as i32
            }));
            taps.starts.push(first);
            taps.ends.push(taps.weights.len());
        }
        taps
    }

    fn of(&self, output: usize) -> (usize, &[i32]) {
        let begin = if output == 0 { 0 } else { self.ends[output - 1] };
        (self.starts[output], &self.weights[begin..self.ends[output]])
    }
}

fn rounded(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// One plane `[height, width]` in another size, `[out_height, out_width]`; no side is 0.
pub fn resize_plane(
    samples: &[u8],
    (width, height): (usize, usize),
    (out_width, out_height): (usize, usize),
    interpolation: Interpolation,
) -> Vec<u8> {
    const HALF: i32 = 1 << (WEIGHT_BITS - 1);
    let mut rows = Vec::with_capacity(height * out_width);
    if width == out_width {
        rows.extend_from_slice(samples);
    } else {
        let taps = Taps::new(width, out_width, interpolation);
        for row in samples.chunks_exact(width) {
            rows.extend((0..out_width).map(|x| {
                let (start, weights) = taps.of(x);
                let products = row[start..].iter().zip(weights).map(|(&sample, weight)| i32::from(sample) * weight);
                rounded(HALF + products.sum::<i32>())
            }));
        }
    }
    if height == out_height {
        return rows;
    }
    let taps = Taps::new(height, out_height, interpolation);
    let mut out = Vec::with_capacity(out_height * out_width);
    let mut sums = vec![HALF; out_width];
    for y in 0..out_height {
        let (start, weights) = taps.of(y);
        sums.fill(HALF);
        for (row, weight) in rows[start * out_width..].chunks_exact(out_width).zip(weights) {
            sums.iter_mut().zip(row).for_each(|(sum, &sample)| *sum += i32::from(sample) * weight);
        }
        out.extend(sums.iter().map(|&sum| rounded(sum)));
    }
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
}
