//! A 64-bit hash that stays near when an image is scaled, recompressed or brightened.
//!
//! The low frequencies of the discrete cosine transform of 32x32 luma values, each one bit: above their median or not
//! (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010). The same bits as SQL's `image_phash`,
//! but for the rounding of a JPEG that is transformed to another fraction of its size.
use std::sync::OnceLock;

use super::planes::PlanarImage;

/// Side of the image that is hashed.
pub const HASHED_SIDE_PIXELS: usize = 32;
/// Frequencies per axis that become bits: 1 to 8. Frequency 0 is the brightness of whole rows or columns.
const FREQUENCIES: usize = 8;
/// Images whose strongest frequency is below this, in levels, show nothing: their bits are noise.
const LEAST_AMPLITUDE: f64 = 0.5;

/// A perceptual hash; images that look alike differ in few bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PerceptualHash(pub u64);

impl PerceptualHash {
    /// Of an image of [`HASHED_SIDE_PIXELS`] a side; `None` where it is of one colour, or of another size.
    pub fn of(image: &PlanarImage) -> Option<Self> {
        if (image.width(), image.height()) != (HASHED_SIDE_PIXELS, HASHED_SIDE_PIXELS) {
            return None;
        }
        let plane = HASHED_SIDE_PIXELS * HASHED_SIDE_PIXELS;
        let pixels = image.pixels();
        let luma: Vec<f64> = (0..plane)
            .map(|at| {
                // BT.601, in integers.
                let [red, green, blue] = [0, 1, 2].map(|channel| u32::from(pixels[channel * plane + at]));
                f64::from((19_595 * red + 38_470 * green + 7_471 * blue + 32_768) >> 16)
            })
            .collect();
        Self::of_luma(&luma)
    }

    fn of_luma(luma: &[f64]) -> Option<Self> {
        let spectrum = low_frequencies(luma);
        let strongest = spectrum.iter().fold(0.0_f64, |strongest, value| strongest.max(value.abs()));
        // A cosine of amplitude a sums to a x 32 x 32 / 2 at most.
        let shows_nothing = strongest < LEAST_AMPLITUDE * (HASHED_SIDE_PIXELS * HASHED_SIDE_PIXELS) as f64 / 2.0;
        (!shows_nothing).then(|| Self::of_frequencies(&spectrum))
    }

    /// Of what [`low_frequencies`] gives, also where the image shows nothing: a bit is set where a coefficient is above the
    /// median (the mean of the two in the middle), row by row from the lowest vertical frequency, the highest bit first.
    pub fn of_frequencies(spectrum: &[f64; FREQUENCIES * FREQUENCIES]) -> Self {
        let mut sorted = *spectrum;
        sorted.sort_unstable_by(f64::total_cmp);
        let median = f64::midpoint(sorted[sorted.len() / 2 - 1], sorted[sorted.len() / 2]);
        Self(spectrum.iter().fold(0, |bits, &value| bits << 1 | u64::from(value > median)))
    }

    /// Bits in which two hashes differ.
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

/// `[vertical, horizontal]` coefficients of the DCT-II, frequencies 1 to 8, not scaled, of 32 x 32 samples in rows.
pub fn low_frequencies(luma: &[f64]) -> [f64; FREQUENCIES * FREQUENCIES] {
    let cosines = cosines();
    // Rows, then columns: [32 rows, 32] → [32 rows, 8] → [8, 8]
    let mut rows = [[0.0; FREQUENCIES]; HASHED_SIDE_PIXELS];
    for (row, values) in rows.iter_mut().zip(luma.chunks_exact(HASHED_SIDE_PIXELS)) {
        for (sum, cosines) in row.iter_mut().zip(cosines) {
            *sum = cosines.iter().zip(values).map(|(cosine, value)| cosine * value).sum();
        }
    }
    std::array::from_fn(|at| {
        let (vertical, horizontal) = (at / FREQUENCIES, at % FREQUENCIES);
        rows.iter().map(|sums| sums[horizontal]).zip(cosines[vertical]).map(|(sum, cosine)| sum * cosine).sum()
    })
}

fn cosines() -> &'static [[f64; HASHED_SIDE_PIXELS]; FREQUENCIES] {
    static COSINES: OnceLock<[[f64; HASHED_SIDE_PIXELS]; FREQUENCIES]> = OnceLock::new();
    COSINES.get_or_init(|| {
        let mut table = [[0.0; HASHED_SIDE_PIXELS]; FREQUENCIES];
        for (frequency, row) in table.iter_mut().enumerate() {
            for (at, value) in row.iter_mut().enumerate() {
                let turn = (2 * at + 1) as f64 * (frequency + 1) as f64 / (2 * HASHED_SIDE_PIXELS) as f64;
                *value = libm::cos(std::f64::consts::PI * turn);
            }
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_of_one_frequency_is_found_where_it_is() {
        let wave = |at: usize| cosines()[2][at / HASHED_SIDE_PIXELS] * cosines()[4][at % HASHED_SIDE_PIXELS];
        let samples: Vec<f64> = (0..HASHED_SIDE_PIXELS.pow(2)).map(|at| 128.0 + wave(at)).collect();
        let found = low_frequencies(&samples);
        let strongest = (0..64).max_by(|&a, &b| found[a].abs().total_cmp(&found[b].abs())).unwrap();
        assert_eq!((strongest / FREQUENCIES, strongest % FREQUENCIES), (2, 4));
    }

    fn image(value: impl Fn(usize, usize) -> f64) -> PlanarImage {
        let side = HASHED_SIDE_PIXELS;
        let plane = (0..side * side).map(|at| value(at % side, at / side).round().clamp(0.0, 255.0) as u8);
        let plane: Vec<u8> = plane.collect();
        PlanarImage::from_pixels(side, side, plane.repeat(3)).expect("its size")
    }

    fn waves(a: f64, b: f64) -> impl Fn(usize, usize) -> f64 {
        move |x, y| {
            120.0 + 60.0 * libm::sin(a * x as f64 / 9.0) + 50.0 * libm::cos(b * y as f64 / 7.0 + x as f64 / 11.0)
        }
    }

    #[test]
    fn brighter_and_noisier_copies_are_near_and_other_images_far() {
        let original = PerceptualHash::of(&image(waves(1.0, 2.0))).expect("a picture");
        let brighter = image(|x, y| 0.8 * waves(1.0, 2.0)(x, y) + 25.0);
        let noisier = image(|x, y| waves(1.0, 2.0)(x, y) + ((x * 7 + y * 13) % 5) as f64 - 2.0);
        for copy in [brighter, noisier] {
            let distance = original.distance(PerceptualHash::of(&copy).expect("a picture"));
            assert!(distance <= 6, "{distance}");
        }
        let other = PerceptualHash::of(&image(waves(3.0, 0.5))).expect("a picture");
        assert!(original.distance(other) > 12, "{}", original.distance(other));
    }

    #[test]
    fn one_colour_and_other_sizes_have_none() {
        assert_eq!(PerceptualHash::of(&image(|_, _| 77.0)), None);
        assert_eq!(PerceptualHash::of(&PlanarImage::from_pixels(2, 1, vec![0; 6]).expect("its size")), None);
    }
}
