//! The floor that knows nothing: pixels as features.

use rayon::prelude::*;

use super::features::Features;

/// Larger images are averaged down to this side: a linear probe on 224 × 224 × 3 numbers would need more memory than the
/// images, and gains nothing from it.
pub const MOST_SIDE_PIXELS: usize = 32;

/// Numbers per image that [`raw_pixels`] makes of `channels` × `side` × `side` pixels.
pub fn width(channels: usize, side_pixels: usize) -> usize {
    channels * side_pixels.min(MOST_SIDE_PIXELS).pow(2)
}

/// Pixels over 255, flattened, `[images, channels · side · side]`, of u8 `[images, channels, side, side]`; images over
/// [`MOST_SIDE_PIXELS`] are averaged down to it by area.
pub fn raw_pixels(pixels: &[u8], channels: usize, side_pixels: usize) -> Vec<f32> {
    if side_pixels <= MOST_SIDE_PIXELS {
        return pixels.iter().map(|&x| f32::from(x) / 255.0).collect();
    }
    let weights = overlaps(side_pixels);
    let plane_pixels = side_pixels * side_pixels;
    let mut values = vec![0.0; pixels.len() / (channels * plane_pixels) * width(channels, side_pixels)];
    values
        .par_chunks_mut(MOST_SIDE_PIXELS * MOST_SIDE_PIXELS)
        .zip(pixels.par_chunks(plane_pixels))
        .for_each(|(small, plane)| average(plane, side_pixels, &weights, small));
    values
}

/// For each small pixel the pixels under it on one axis, with weights that add up to `side_pixels`.
fn overlaps(side_pixels: usize) -> Vec<Vec<(usize, u64)>> {
    let of = |small: usize| {
        let (start, end) = (small * side_pixels, (small + 1) * side_pixels);
        let first = start / MOST_SIDE_PIXELS;
        (first..end.div_ceil(MOST_SIDE_PIXELS))
            .map(|pixel| {
                let (from, to) = (pixel * MOST_SIDE_PIXELS, (pixel + 1) * MOST_SIDE_PIXELS);
                (pixel, (end.min(to) - start.max(from)) as u64)
            })
            .collect()
    };
    (0..MOST_SIDE_PIXELS).map(of).collect()
}

fn average(plane: &[u8], side_pixels: usize, weights: &[Vec<(usize, u64)>], small: &mut [f32]) {
    let scale = 1.0 / (255.0 * (side_pixels * side_pixels) as f64);
    for (row, out_row) in weights.iter().zip(small.chunks_mut(MOST_SIDE_PIXELS)) {
        for (column, out) in weights.iter().zip(out_row) {
            let mut sum = 0;
            for &(y, y_weight) in row {
                let line: u64 = column.iter().map(|&(x, w)| w * u64::from(plane[y * side_pixels + x])).sum();
                sum += y_weight * line;
            }
            *out = (sum as f64 * scale) as f32;
        }
    }
}

/// Keeps one channel where all are equal in every image of both sides: grey images say everything three times.
///
/// Cosines do not change by it, and a probe needs a third of the time.
pub fn keep_one_of_equal_channels(bank: &mut Features, queries: &mut Features, channels: usize) {
    let plane = bank.width / channels.max(1);
    if channels < 2 || plane * channels != bank.width || bank.width != queries.width {
        return;
    }
    let grey = |features: &Features| {
        features
            .values
            .par_chunks(features.width)
            .all(|image| image.chunks(plane).all(|other| other == &image[..plane]))
    };
    if grey(bank) && grey(queries) {
        for features in [bank, queries] {
            features.values =
                features.values.par_chunks(features.width).flat_map_iter(|x| x[..plane].to_vec()).collect();
            features.width = plane;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_images_are_taken_as_they_are() {
        assert_eq!(raw_pixels(&[0, 51, 255, 102], 1, 2), [0.0, 0.2, 1.0, 0.4]);
    }

    #[test]
    fn large_images_are_averaged_by_area() {
        // 48 → 32: each small pixel covers 1.5 pixels on each axis.
        let mut plane = vec![0_u8; 48 * 48];
        plane[0] = 255;
        plane[1] = 255;
        let small = raw_pixels(&plane, 1, 48);
        assert_eq!(small.len(), 1_024);
        // First: pixel 0 whole and pixel 1 half, of 2.25; second: the other half of pixel 1.
        assert!((small[0] - 1.5 / 2.25).abs() < 1e-6 && (small[1] - 0.5 / 2.25).abs() < 1e-6);
        assert!(small[2..].iter().all(|&x| x == 0.0));
        let white = raw_pixels(&vec![255; 2 * 3 * 100 * 100], 3, 100);
        assert_eq!(white.len(), 2 * width(3, 100));
        assert!(white.iter().all(|&x| (x - 1.0).abs() < 1e-6));
    }

    fn features(values: Vec<f32>) -> Features {
        let rows = values.len() / 6;
        Features { values, width: 6, labels: vec![String::new(); rows], sample_ids: vec![0; rows] }
    }

    #[test]
    fn grey_images_keep_one_channel_and_coloured_ones_all() {
        let grey = || features(vec![0.1, 0.2, 0.1, 0.2, 0.1, 0.2]);
        let (mut bank, mut queries) = (grey(), grey());
        keep_one_of_equal_channels(&mut bank, &mut queries, 3);
        assert_eq!((bank.values, bank.width, queries.width), (vec![0.1, 0.2], 2, 2));
        let (mut bank, mut queries) = (grey(), features(vec![0.1, 0.2, 0.1, 0.2, 0.1, 0.3]));
        keep_one_of_equal_channels(&mut bank, &mut queries, 3);
        assert_eq!((bank, queries.width), (grey(), 6));
    }
}
