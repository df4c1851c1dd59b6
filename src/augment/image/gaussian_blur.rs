//! `gaussian_blur`: a separable Gaussian of random width.
use super::{
    PixelOp, Scratch,
    planes::Planes,
    simd::{LANES, add_weighted_pairs, store_lanes},
};
use crate::{augment::recipe::GaussianBlurSettings, seed::Draws};

/// Fraction bits of values between the two passes.
const FRACTION_BITS: u32 = 7;

/// Blurs with a Gaussian whose standard deviation is drawn, with a probability; borders are reflected.
///
/// torchvision on u8 tensors, within one level: there a float convolution is rounded once, here weights have 16 bits and
/// values 7 fraction bits between the passes, in integers only. The kernel's side follows SimCLR where none is set: a
/// tenth of the image's side, made odd, 224 → 23.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianBlur {
    /// In [0, 1].
    pub probability: f64,
    /// Standard deviation in pixels, lowest and highest.
    pub sigma: [f64; 2],
    /// Odd side of the kernel.
    pub kernel_pixels: Option<u32>,
}

impl GaussianBlur {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "gaussian_blur";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &GaussianBlurSettings) -> Self {
        let GaussianBlurSettings { probability, sigma, kernel_pixels } = *settings;
        Self { probability, sigma, kernel_pixels }
    }
}

impl PixelOp for GaussianBlur {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        let kernel = self.kernel_pixels.map_or("a tenth".to_owned(), |k| k.to_string());
        format!("{} v1 probability={} sigma={:?} kernel_pixels={kernel}", Self::NAME, self.probability, self.sigma)
    }

    fn apply(&self, planes: &mut Planes<'_>, draws: &mut Draws, scratch: &mut Scratch) {
        if draws.chance(self.probability) {
            let sigma = draws.between(self.sigma[0], self.sigma[1]);
            let radius = self.kernel_pixels.map_or(planes.height() / 10 / 2, |side| side as usize / 2);
            blur(planes, radius, sigma, scratch);
        }
    }
}

/// Blurs with a kernel of side 2 `radius` + 1.
pub(super) fn blur(planes: &mut Planes<'_>, radius: usize, sigma: f64, scratch: &mut Scratch) {
    let (width, height) = (planes.width(), planes.height());
    let weights = &mut scratch.blur_weights;
    quantised_weights(radius, sigma, weights);
    if weights.len() < 2 || width == 0 || height == 0 {
        return;
    }
    let stride = width.next_multiple_of(LANES);
    scratch.blur_source.resize(stride * height, 0);
    scratch.blur_row.resize(stride + 2 * (weights.len() - 1), 0);
    for plane in planes.rgb() {
        blur_plane(plane, width, weights, &mut scratch.blur_source, &mut scratch.blur_row);
    }
}

/// Half of the kernel, centre first, in 1/65536: both halves and the centre sum to 65536 exactly. Weights that round to
/// 0 are left out, so a narrow Gaussian is cheap whatever the kernel's side; one weight or none means no blur at all.
fn quantised_weights(radius: usize, sigma: f64, weights: &mut Vec<u16>) {
    const ONE: f64 = 65_536.0;
    let density = |offset: usize| {
        let x = offset as f64 / sigma;
        libm::exp(-0.5 * x * x)
    };
    let sum = 1.0 + 2.0 * (1..=radius).map(density).sum::<f64>();
    weights.clear();
    weights.push(0);
    for offset in 1..=radius {
        let weight = libm::round(density(offset) / sum * ONE) as u16;
        if weight == 0 {
            break;
        }
        weights.push(weight);
    }
    let sides: u32 = weights.iter().map(|&weight| 2 * u32::from(weight)).sum();
    weights[0] = 65_536_u32.saturating_sub(sides).min(65_535) as u16;
}

/// Mirrors an index at the borders, without repeating them.
fn reflect(index: isize, length: usize) -> usize {
    let last = length as isize - 1;
    if last == 0 {
        return 0;
    }
    let mut index = index;
    while index < 0 || index > last {
        index = if index < 0 { -index } else { 2 * last - index };
    }
    index as usize
}

/// `LANES` values from `start`.
#[inline(always)]
fn lanes<T>(values: &[T], start: usize) -> &[T; LANES] {
    values[start..].first_chunk().expect("rows are padded to whole lanes")
}

/// Blurs one plane: rows of a copy into one row of sums, that row into the plane.
fn blur_plane(plane: &mut [u8], width: usize, weights: &[u16], source: &mut [u16], row: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2(plane: &mut [u8], width: usize, weights: &[u16], source: &mut [u16], row: &mut [u16]) {
            blur_plane_lanes::<true>(plane, width, weights, source, row);
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has just been asked for the one feature the callee needs.
            return unsafe { avx2(plane, width, weights, source, row) };
        }
    }
    blur_plane_lanes::<false>(plane, width, weights, source, row);
}

/// The same integers with and without `AVX2`, which must be true only where the processor has it.
#[inline(always)]
fn blur_plane_lanes<const AVX2: bool>(
    plane: &mut [u8],
    width: usize,
    weights: &[u16],
    source: &mut [u16],
    row: &mut [u16],
) {
    const NOTHING: [u16; LANES] = [0; LANES];
    let stride = width.next_multiple_of(LANES);
    let height = plane.len() / width;
    let radius = weights.len() - 1;
    // Cutting each product loses half a unit on average; this gives it back.
    let bias = weights.len() as u16 / 2;
    let add = |sums: &mut [u16; LANES], left: &[u16; LANES], right: &[u16; LANES], weight: u16| {
        // SAFETY: `blur_plane` has asked the processor.
        unsafe { add_weighted_pairs::<AVX2>(sums, left, right, weight) };
    };
    for (to, from) in source.chunks_exact_mut(stride).zip(plane.chunks_exact(width)) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = u16::from(*from) << FRACTION_BITS;
        }
    }
    for (y, out) in plane.chunks_exact_mut(width).enumerate() {
        for x in (0..stride).step_by(LANES) {
            let mut sums = [bias; LANES];
            add(&mut sums, lanes(source, y * stride + x), &NOTHING, weights[0]);
            for (offset, &weight) in weights.iter().enumerate().skip(1) {
                let above = lanes(source, reflect(y as isize - offset as isize, height) * stride + x);
                let below = lanes(source, reflect(y as isize + offset as isize, height) * stride + x);
                add(&mut sums, above, below, weight);
            }
            row[radius + x..][..LANES].copy_from_slice(&sums);
        }
        for offset in 1..=radius {
            row[radius - offset] = row[radius + reflect(-(offset as isize), width)];
            row[radius + width - 1 + offset] = row[radius + reflect((width - 1 + offset) as isize, width)];
        }
        for x in (0..width).step_by(LANES) {
            let mut sums = [bias + (1 << (FRACTION_BITS - 1)); LANES];
            add(&mut sums, lanes(row, radius + x), &NOTHING, weights[0]);
            for (offset, &weight) in weights.iter().enumerate().skip(1) {
                add(&mut sums, lanes(row, radius + x - offset), lanes(row, radius + x + offset), weight);
            }
            store_lanes(&sums.map(|sum| (sum >> FRACTION_BITS).min(255) as u8), &mut out[x..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_code_gives_the_bits_of_the_vector_code() {
        for (width, height, radius) in [(1_usize, 1, 1), (5, 3, 2), (64, 10, 4), (100, 20, 11), (224, 30, 11)] {
            let mut weights = vec![];
            quantised_weights(radius, 1.7, &mut weights);
            let stride = width.next_multiple_of(LANES);
            let noise: Vec<u8> =
                (0..(width * height) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let (mut portable, mut best) = (noise.clone(), noise);
            let mut source = vec![0; stride * height];
            let mut row = vec![0; stride + 2 * (weights.len() - 1)];
            blur_plane_lanes::<false>(&mut portable, width, &weights, &mut source, &mut row);
            blur_plane(&mut best, width, &weights, &mut source, &mut row);
            assert_eq!(portable, best, "{width}x{height}, radius {radius}");
        }
    }

    #[test]
    fn weights_sum_to_one_and_narrow_gaussians_have_few() {
        for (radius, sigma) in [(1, 0.5), (11, 0.1), (11, 2.0), (127, 900.0)] {
            let mut weights = vec![];
            quantised_weights(radius, sigma, &mut weights);
            let sides: u32 = weights[1..].iter().map(|&weight| 2 * u32::from(weight)).sum();
            let sum = sides + u32::from(weights[0]);
            assert!(sum == 65_536 || (weights.len() == 1 && sum == 65_535), "radius {radius}, sigma {sigma}: {sum}");
        }
        let mut weights = vec![];
        quantised_weights(11, 0.1, &mut weights);
        assert_eq!(weights.len(), 1);
    }

    #[test]
    fn white_stays_white_under_the_widest_kernel() {
        let mut image =
            crate::augment::image::planes::PlanarImage::from_pixels(300, 200, vec![255; 180_000]).expect("its size");
        blur(&mut image.planes(), 127, 1_000.0, &mut Scratch::default());
        assert!(image.pixels().iter().all(|&value| value == 255));
    }
}
