//! `image_phash(image)`.
use std::{f64::consts::PI, sync::Arc, sync::LazyLock};

use datafusion::{
    arrow::{array::UInt64Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::{luma, of_images},
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

const SIDE: usize = 32;
/// Frequencies per axis: 1 to 8. Frequency 0 is the brightness of a whole row or column, which editing changes first.
const FREQUENCIES: usize = 8;

/// `[frequency, position]`: cosines of the DCT-II, not scaled, as no scale changes which side of the median a value is on.
static COSINES: LazyLock<[[f64; SIDE]; FREQUENCIES]> = LazyLock::new(|| {
    std::array::from_fn(|frequency| {
        std::array::from_fn(|at| libm::cos(PI / SIDE as f64 * (at as f64 + 0.5) * (frequency as f64 + 1.0)))
    })
});

/// 64 bits that say which low frequencies of an image are strong.
///
/// The image becomes 32 x 32 pixels of BT.601 luma (bilinear with antialiasing, aspect not kept). Of its DCT-II, the 8 x 8
/// coefficients with vertical and horizontal frequencies 1 to 8 are compared with their median (the mean of the two in the
/// middle). Row by row from the lowest vertical frequency, the highest bit first, a bit is set where one is above it.
pub fn image_phash() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_phash(image)",
        "A hash that an image keeps, but for a few of its 64 bits, when it is resized, recompressed or made brighter: \
         of the DCT-II of its BT.601 luma at 32 x 32 pixels, the 8 x 8 coefficients with frequencies 1 to 8 are \
         compared with their median; row by row from the lowest vertical frequency, the highest bit first, a bit is \
         set where one is above it. Compare with `hamming`; up to about 10 different bits mean the same picture. NULL \
         for what cannot be decoded.",
        &[IMAGE],
        "> SELECT hamming(image_phash($PNG), image_phash($PNG)) AS different_bits;
+----------------+
| different_bits |
+----------------+
| 0              |
+----------------+",
    );
    let body: Body = |args| Ok(Arc::new(UInt64Array::from(of_images(&args[0], |_, encoded| hash(encoded))?)) as _);
    Function::new("image_phash", &[Takes::Image], DataType::UInt64, body, documentation).into_udf()
}

fn hash(encoded: &[u8]) -> Option<u64> {
    let small = luma(encoded, |_, _| (SIDE, SIDE))?;
    let coefficients = low_frequencies(&small.samples);
    let mut sorted = coefficients;
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = f64::midpoint(sorted[middle - 1], sorted[middle]);
    Some(coefficients.iter().fold(0, |bits, &coefficient| bits << 1 | u64::from(coefficient > median)))
}

/// `[vertical, horizontal]` coefficients of the frequencies 1 to 8 of 32 x 32 samples.
fn low_frequencies(samples: &[u32]) -> [f64; FREQUENCIES * FREQUENCIES] {
    // Each row's horizontal frequencies first.
    let mut by_row = [[0.0; FREQUENCIES]; SIDE];
    for (row, sums) in samples.chunks_exact(SIDE).zip(&mut by_row) {
        for (cosines, sum) in COSINES.iter().zip(sums) {
            *sum = row.iter().zip(cosines).map(|(&sample, cosine)| f64::from(sample) * cosine).sum();
        }
    }
    std::array::from_fn(|at| {
        let (vertical, horizontal) = (at / FREQUENCIES, at % FREQUENCIES);
        by_row.iter().zip(&COSINES[vertical]).map(|(sums, cosine)| sums[horizontal] * cosine).sum()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, RgbImage, imageops::FilterType};

    use super::*;

    /// Soft bright and dark blobs, as photographs have them.
    fn picture(seed: u64) -> DynamicImage {
        let mut draws = crate::seed::draws(seed, "blobs of a test", &[]);
        let blobs: Vec<[f64; 4]> = (0..8)
            .map(|number| {
                let height = (30.0 + 30.0 * draws.uniform()) * if number % 2 == 0 { 1.0 } else { -1.0 };
                [160.0 * draws.uniform(), 120.0 * draws.uniform(), 8.0 + 16.0 * draws.uniform(), height]
            })
            .collect();
        DynamicImage::from(RgbImage::from_fn(160, 120, |x, y| {
            let at = |&[left, top, radius, height]: &[f64; 4]| {
                let square = (f64::from(x) - left).powi(2) + (f64::from(y) - top).powi(2);
                height * libm::exp(-square / (2.0 * radius * radius))
            };
            let level = (120.0 + blobs.iter().map(at).sum::<f64>()).clamp(0.0, 240.0);
            image::Rgb([level as u8, (level * 0.8) as u8, 90])
        }))
    }

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn bits(image: &DynamicImage, format: ImageFormat) -> u64 {
        hash(&encoded(image, format)).unwrap()
    }

    #[test]
    fn recompressed_resized_and_brightened_copies_keep_it() {
        for seed in 0..6 {
            let image = picture(seed);
            let original = bits(&image, ImageFormat::Png);
            for copy in [
                bits(&image, ImageFormat::Jpeg),
                bits(&image.resize_exact(80, 60, FilterType::Triangle), ImageFormat::Png),
                bits(&image.brighten(12), ImageFormat::Png),
            ] {
                assert!((original ^ copy).count_ones() <= 10, "{seed}: {}", (original ^ copy).count_ones());
            }
        }
    }

    #[test]
    fn different_pictures_differ() {
        let hashes: Vec<u64> = (0..6).map(|seed| bits(&picture(seed), ImageFormat::Png)).collect();
        for (at, one) in hashes.iter().enumerate() {
            assert!(hashes[at + 1..].iter().all(|other| (one ^ other).count_ones() > 10), "{hashes:x?}");
        }
    }

    #[test]
    fn a_wave_of_one_frequency_is_found_where_it_is() {
        let samples: Vec<u32> = (0..SIDE * SIDE)
            .map(|at| (128_000.0 + 1_000.0 * COSINES[2][at / SIDE] * COSINES[4][at % SIDE]) as u32)
            .collect();
        let found = low_frequencies(&samples);
        let strongest = (0..64).max_by(|&a, &b| found[a].abs().total_cmp(&found[b].abs())).unwrap();
        assert_eq!((strongest / FREQUENCIES, strongest % FREQUENCIES), (2, 4));
    }
}
