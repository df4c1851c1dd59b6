//! Boxes of decoded planes into pixels of a view.
use super::{
    decoded::{Decoded, Layout, PlaneRef},
    filter::{Filter, GROUP, Shuffles, Span},
    planes::{PlanarImage, Planes},
    precise_resize::{Interpolation, PreciseResizer},
    region::Region,
    simd::{LANES, add_weighted_bytes, clamp_and_cut, multiversion, store_lanes},
};

/// Resamples `region` of `decoded` into `out`, whose size is the region's, without aliases.
///
/// The filter's support grows with the reduction, as in PIL and in torchvision with `antialias`: results are within one
/// level of theirs for an RGB image, and PIL's own where the region is bicubic. A JPEG's planes overshoot each by itself. A closed region's filter sees no sample outside it; where its
/// edge cuts a sample of a subsampled or scaled plane, that sample counts as inside.
///
/// Returns whether the region lay within the image.
pub(super) fn resample(resampler: &mut Resampler, decoded: &Decoded, region: &Region, out: &mut Planes<'_>) -> bool {
    let size = (region.out_width, region.out_height);
    if (out.width(), out.height()) != size {
        return false;
    }
    let channels = out.rgb();
    match decoded.layout {
        Layout::Gray => {
            let [red, green, blue] = channels;
            let done = resampler.resample_plane(decoded.planes[0].as_ref(), region, red);
            green.copy_from_slice(red);
            blue.copy_from_slice(red);
            done
        }
        layout => {
            let done = channels
                .into_iter()
                .zip(&decoded.planes)
                .all(|(channel, plane)| resampler.resample_plane(plane.as_ref(), region, channel));
            if layout == Layout::YCbCr {
                let [luma, blueness, redness] = out.rgb();
                ycbcr_to_rgb(luma, blueness, redness);
            }
            done
        }
    }
}

/// [`resample`] from an image that is RGB already; what lies outside it becomes black where nothing is resized.
pub(super) fn resample_image(
    resampler: &mut Resampler,
    image: &PlanarImage,
    region: &Region,
    out: &mut Planes<'_>,
) -> bool {
    let (width, height) = (image.width(), image.height());
    let plane = width * height;
    if !region.lies_within(width, height) {
        let (left, top) = (region.left as isize, region.top as isize);
        return region.is_crop() && pad(image, left, top, out);
    }
    out.rgb().into_iter().enumerate().all(|(channel, out)| {
        let samples = &image.pixels()[channel * plane..(channel + 1) * plane];
        resampler.resample_plane(PlaneRef { width, height, scale: [1.0; 2], samples }, region, out)
    })
}

/// Copies an image so that its pixel (`left`, `top`) comes to lie at the corner of `out`; black around it.
fn pad(image: &PlanarImage, left: isize, top: isize, out: &mut Planes<'_>) -> bool {
    let (width, height) = (image.width(), image.height());
    let (out_width, out_height) = (out.width(), out.height());
    for (channel, out) in out.rgb().into_iter().enumerate() {
        let samples = &image.pixels()[channel * width * height..];
        out.fill(0);
        for (y, row) in out.chunks_exact_mut(out_width).enumerate().take(out_height) {
            let from_y = y as isize + top;
            if from_y < 0 || from_y >= height as isize {
                continue;
            }
            let from = &samples[from_y as usize * width..][..width];
            let skipped = usize::try_from(left).unwrap_or(0);
            let indent = usize::try_from(-left).unwrap_or(0);
            let count = width.saturating_sub(skipped).min(out_width.saturating_sub(indent));
            row[indent..indent + count].copy_from_slice(&from[skipped..skipped + count]);
        }
    }
    true
}

/// Memory and tables of one thread.
#[derive(Debug, Default)]
pub(super) struct Resampler {
    rows: Filter,
    columns: Filter,
    shuffles: Shuffles,
    row: Vec<u8>,
    precise: PreciseResizer,
}

/// Weights of the vertical pass sum to this.
const ROW_ONE: u32 = 1 << 16;
/// Fraction bits of the horizontal pass: weights must fit an i16.
const COLUMN_BITS: u32 = 14;

impl Resampler {
    /// One plane: rows first, each at once followed by its columns, so what lies between stays in the first cache.
    fn resample_plane(&mut self, plane: PlaneRef<'_>, region: &Region, out: &mut [u8]) -> bool {
        let span = |axis: usize, start: f64, length: f64, samples: usize, outputs: usize| {
            let (start, length) = (start * plane.scale[axis], length * plane.scale[axis]);
            // A plane may be a fraction of a sample smaller than the image says.
            let end = (start + length).min(samples as f64);
            let (low, high) = if region.closed { (start as usize, end.ceil() as usize) } else { (0, samples) };
            (start >= 0.0 && end > start && outputs > 0).then_some(Span {
                start,
                length: end - start,
                low,
                high,
                outputs,
            })
        };
        let columns = span(0, region.left, region.width, plane.width, region.out_width);
        let rows = span(1, region.top, region.height, plane.height, region.out_height);
        let (Some(columns), Some(rows)) = (columns, rows) else { return false };
        if region.interpolation == Interpolation::Bicubic {
            self.precise.resize(plane.samples, plane.width, [columns, rows], region.interpolation, out);
            return true;
        }
        self.columns.prepare(columns, 1 << COLUMN_BITS);
        self.rows.prepare(rows, ROW_ONE);
        let reach = self.columns.reach(columns.high);
        self.shuffles.prepare(&self.columns, reach.start);
        // Windows and weightless taps reach beyond the last sample.
        let needed = reach.len() + self.columns.taps + 2 * LANES;
        if self.row.len() < needed {
            self.row.resize(needed, 0);
        }
        for (output, to) in out.chunks_exact_mut(region.out_width).enumerate() {
            let weights = &self.rows.weights[output * self.rows.taps..][..self.rows.taps];
            let first = self.rows.starts[output] as usize;
            let taps = weights.iter().rposition(|&weight| weight != 0).map_or(1, |last| last + 1);
            let from = &plane.samples[first * plane.width + reach.start..];
            mix_rows(from, plane.width, &weights[..taps], &mut self.row[..reach.len()]);
            mix_columns(&self.row, reach.start, &self.columns, &self.shuffles, to);
        }
        true
    }
}

/// Weighs the bytes of one row, eight results at a time where the processor can.
fn mix_columns(row: &[u8], origin: usize, filter: &Filter, shuffles: &Shuffles, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if shuffles.usable && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been asked for the one feature the callee needs.
        return unsafe { mix_columns_avx2(row, shuffles, out) };
    }
    mix_columns_portable(row, origin, filter, out);
}

fn mix_columns_portable(row: &[u8], origin: usize, filter: &Filter, out: &mut [u8]) {
    for ((out, weights), start) in out.iter_mut().zip(filter.weights.chunks_exact(filter.taps)).zip(&filter.starts) {
        let samples = &row[*start as usize - origin..];
        let sum: u32 = weights.iter().zip(samples).map(|(&w, &s)| u32::from(w) * u32::from(s)).sum();
        *out = ((sum + (1 << (COLUMN_BITS - 1))) >> COLUMN_BITS) as u8;
    }
}

/// The same sums as [`mix_columns_portable`], in another order of exact integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn mix_columns_avx2(row: &[u8], shuffles: &Shuffles, out: &mut [u8]) {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_loadu_si128, _mm_packus_epi16, _mm_storel_epi64, _mm_unpacklo_epi32, _mm256_add_epi32,
        _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_packs_epi32,
        _mm256_set_m128i, _mm256_set1_epi32, _mm256_shuffle_epi8, _mm256_srai_epi32,
    };
    assert!(shuffles.reach <= row.len(), "rows are padded by more than a window");
    // SAFETY: windows rise, the last one's end is `reach`, and the row has just been found to be that long.
    let load = |at: usize| unsafe { _mm_loadu_si128(row.as_ptr().add(at).cast::<__m128i>()) };
    let groups = shuffles.windows.iter().zip(&shuffles.controls).zip(shuffles.weights.chunks_exact(shuffles.pairs));
    for ((([first, second], control), weights), out) in groups.zip(out.chunks_mut(GROUP)) {
        // SAFETY: reads the thirty-two bytes of `control`.
        let control = unsafe { _mm256_loadu_si256(control.as_ptr().cast::<__m256i>()) };
        let mut sums = _mm256_set1_epi32(1 << (COLUMN_BITS - 1));
        for (pair, weights) in weights.iter().enumerate() {
            let samples = _mm256_set_m128i(load(*second as usize + 2 * pair), load(*first as usize + 2 * pair));
            // SAFETY: reads the sixteen 16-bit values of `weights`.
            let weights = unsafe { _mm256_loadu_si256(weights.as_ptr().cast::<__m256i>()) };
            let products = _mm256_madd_epi16(_mm256_shuffle_epi8(samples, control), weights);
            sums = _mm256_add_epi32(sums, products);
        }
        let sums = _mm256_srai_epi32(sums, COLUMN_BITS as i32);
        let words = _mm256_packs_epi32(sums, sums);
        let bytes = _mm_unpacklo_epi32(
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_castsi256_si128(words)),
            _mm_packus_epi16(_mm256_extracti128_si256(words, 1), _mm256_extracti128_si256(words, 1)),
        );
        if let Ok(eight) = <&mut [u8; GROUP]>::try_from(&mut *out) {
            // SAFETY: writes the eight bytes of `eight`.
            unsafe { _mm_storel_epi64(eight.as_mut_ptr().cast::<__m128i>(), bytes) };
        } else {
            let mut eight = [0_u8; GROUP];
            // SAFETY: writes the eight bytes of `eight`.
            unsafe { _mm_storel_epi64(eight.as_mut_ptr().cast::<__m128i>(), bytes) };
            out.copy_from_slice(&eight[..out.len()]);
        }
    }
}

/// Weighs rows that lie `stride` apart.
fn mix_rows(samples: &[u8], stride: usize, weights: &[u16], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2(samples: &[u8], stride: usize, weights: &[u16], out: &mut [u8]) {
            mix_rows_lanes::<true>(samples, stride, weights, out);
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has just been asked for the one feature the callee needs.
            return unsafe { avx2(samples, stride, weights, out) };
        }
    }
    mix_rows_lanes::<false>(samples, stride, weights, out);
}

/// The same integers with and without `AVX2`, which must be true only where the processor has it.
#[inline(always)]
fn mix_rows_lanes<const AVX2: bool>(samples: &[u8], stride: usize, weights: &[u16], out: &mut [u8]) {
    // Cutting each product loses half a unit on average; this gives it back, and rounds the sum.
    let bias = weights.len() as u16 / 2 + 64;
    let width = out.len();
    for x in (0..width).step_by(LANES) {
        // The last step overlaps the one before, unless there is none.
        let from = x.min(width.saturating_sub(LANES));
        let mut sums = [bias; LANES];
        for (row, &weight) in weights.iter().enumerate() {
            let row = &samples[row * stride + from..];
            let mut padded = [0; LANES];
            let row = match row.first_chunk() {
                Some(row) if width >= LANES => row,
                _ => {
                    padded[..width].copy_from_slice(&row[..width]);
                    &padded
                }
            };
            // SAFETY: `mix_rows` has asked the processor.
            unsafe { add_weighted_bytes::<AVX2>(&mut sums, row, weight) };
        }
        store_lanes(&sums.map(|sum| (sum >> 7).min(255) as u8), &mut out[from..]);
    }
}

multiversion! {
    /// JFIF's full-range YCbCr to RGB, in place, rounded.
    fn ycbcr_to_rgb(first: &mut [u8], second: &mut [u8], third: &mut [u8]) {
        for ((first, second), third) in first.iter_mut().zip(second).zip(third) {
            let luma = f32::from(*first) + 0.5;
            let (blueness, redness) = (f32::from(*second) - 128.0, f32::from(*third) - 128.0);
            *first = clamp_and_cut(luma + 1.402 * redness);
            *second = clamp_and_cut(luma - 0.344_136_3 * blueness - 0.714_136_3 * redness);
            *third = clamp_and_cut(luma + 1.772 * blueness);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        width: usize,
        height: usize,
        image: String,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        op: String,
        settings: Vec<f64>,
        pixels: String,
    }

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
    }

    fn noise(count: usize) -> Vec<u8> {
        (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    #[test]
    fn boxes_give_the_values_of_the_formula_within_one_level() {
        let text = include_str!("../../../tests/golden/image_ops.json");
        let golden: Golden = serde_json::from_str(text).expect("written by image_ops.py");
        let image = PlanarImage::from_pixels(golden.width, golden.height, bytes(&golden.image)).expect("its size");
        let mut resampler = Resampler::default();
        let cases: Vec<&Case> = golden.cases.iter().filter(|case| case.op == "resample").collect();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let [left, top, width, height, out_width, out_height, closed] = case.settings[..] else {
                panic!("seven settings: {:?}", case.settings)
            };
            let (out_width, out_height) = (out_width as usize, out_height as usize);
            let (closed, interpolation) = (closed == 1.0, Interpolation::Bilinear);
            let region = Region { left, top, width, height, out_width, out_height, closed, interpolation };
            let expected = bytes(&case.pixels);
            let mut out = vec![0; expected.len()];
            let mut planes = Planes::new(out_width, out_height, &mut out).expect("its size");
            assert!(resample_image(&mut resampler, &image, &region, &mut planes));
            let difference = out.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(difference <= Some(1), "{region:?}: {difference:?}");
        }
    }

    #[test]
    fn portable_code_gives_the_bits_of_the_vector_code() {
        for (width, outputs) in [(1, 1), (3, 7), (40, 33), (150, 224), (300, 64), (700, 150), (1000, 16)] {
            let span = Span { start: 0.25, length: width as f64 - 0.5, low: 0, high: width, outputs };
            let (mut filter, mut shuffles) = (Filter::default(), Shuffles::default());
            filter.prepare(span, 1 << COLUMN_BITS);
            let origin = filter.reach(width).start;
            shuffles.prepare(&filter, origin);
            let row = noise(width + filter.taps + 2 * LANES);
            let (mut portable, mut best) = (vec![0; outputs], vec![0; outputs]);
            mix_columns_portable(&row, origin, &filter, &mut portable);
            mix_columns(&row, origin, &filter, &shuffles, &mut best);
            assert_eq!(portable, best, "columns, {width} to {outputs}");

            let samples = noise(5 * width);
            let weights = [1_000, 30_000, 20_000, 14_000, 536];
            let (mut portable, mut best) = (vec![0; width], vec![0; width]);
            mix_rows_lanes::<false>(&samples, width, &weights, &mut portable);
            mix_rows(&samples, width, &weights, &mut best);
            assert_eq!(portable, best, "rows of {width}");
        }
    }

    #[test]
    fn same_size_is_a_copy() {
        let pixels = noise(3 * 90 * 70);
        let image = PlanarImage::from_pixels(90, 70, pixels.clone()).expect("its size");
        let mut out = vec![0; pixels.len()];
        let mut planes = Planes::new(90, 70, &mut out).expect("its size");
        assert!(resample_image(&mut Resampler::default(), &image, &Region::whole(90, 70), &mut planes));
        assert_eq!(out, pixels);
    }

    #[test]
    fn one_colour_stays_that_colour_at_every_size() {
        let mut resampler = Resampler::default();
        for value in [0, 1, 127, 254, 255] {
            let image = PlanarImage::from_pixels(120, 80, vec![value; 3 * 120 * 80]).expect("its size");
            for side in [1, 3, 50, 80, 333] {
                let region = Region { out_width: side, out_height: side, ..Region::whole(120, 80) };
                let mut out = vec![9; 3 * side * side];
                let mut planes = Planes::new(side, side, &mut out).expect("its size");
                assert!(resample_image(&mut resampler, &image, &region, &mut planes));
                assert!(out.iter().all(|&out| out == value), "{value} at {side}");
            }
        }
    }

    #[test]
    fn region_outside_the_image_is_refused() {
        let image = PlanarImage::from_pixels(10, 10, vec![5; 300]).expect("its size");
        let region = Region { left: 4.0, out_width: 5, ..Region::whole(10, 10) };
        let mut out = vec![0; 3 * 5 * 10];
        let mut planes = Planes::new(5, 10, &mut out).expect("its size");
        assert!(!resample_image(&mut Resampler::default(), &image, &region, &mut planes));
    }

    #[test]
    fn ycbcr_follows_jfif() {
        let mut planes = [[76, 150, 29, 255, 0], [85, 44, 255, 128, 128], [255, 21, 107, 128, 128]];
        let [luma, blueness, redness] = &mut planes;
        ycbcr_to_rgb(luma, blueness, redness);
        assert_eq!(planes, [[254, 0, 0, 255, 0], [0, 255, 0, 255, 0], [0, 1, 254, 255, 0]]);
    }
}
