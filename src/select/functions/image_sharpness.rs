//! `image_sharpness(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::Float64Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::{Luma, luma, of_images, within},
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// Longest side of the image that is looked at: sharpness is then that of what a model sees, not of the camera.
const SIDE_PIXELS: usize = 512;

/// Variance of the Laplacian.
pub fn image_sharpness() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_sharpness(image)",
        "Variance of the Laplacian (4 times a pixel less its four neighbours, edges left out) of BT.601 luma in levels \
         of 0 to 255, of the image reduced to at most 512 pixels a side. Near 0 for blurred and empty images; compare \
         within one data set. NULL for what cannot be decoded or is less than 3 pixels wide or high.",
        &[IMAGE],
        "> SELECT image_sharpness($PNG) AS of_a_smooth_ramp;
+------------------+
| of_a_smooth_ramp |
+------------------+
| 0.0              |
+------------------+",
    );
    let body: Body = |args| {
        let variances = of_images(&args[0], |_, encoded| {
            variance(&luma(encoded, |width, height| within(SIDE_PIXELS, width, height))?)
        })?;
        Ok(Arc::new(Float64Array::from(variances)) as _)
    };
    Function::new("image_sharpness", &[Takes::Image], DataType::Float64, body, documentation).into_udf()
}

/// In whole thousandths until the end, so that no order of adding matters.
fn variance(luma: &Luma) -> Option<f64> {
    let (mut count, mut sum, mut squares) = (0_u64, 0_i64, 0_u128);
    let rows: Vec<&[u32]> = luma.samples.chunks_exact(luma.width).collect();
    for three in rows.windows(3) {
        for x in 1..luma.width.saturating_sub(1) {
            let around = [three[0][x], three[2][x], three[1][x - 1], three[1][x + 1]];
            let edge = 4 * i64::from(three[1][x]) - around.iter().map(|&sample| i64::from(sample)).sum::<i64>();
            count += 1;
            sum += edge;
            squares += u128::from(edge.unsigned_abs()).pow(2);
        }
    }
    if count == 0 {
        return None;
    }
    let mean = sum as f64 / count as f64;
    Some(((squares as f64 / count as f64 - mean * mean) / 1e6).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(width: usize, pixel: impl Fn(usize, usize) -> u32) -> Option<f64> {
        let samples = (0..width * 8).map(|at| 1_000 * pixel(at % width, at / width)).collect();
        variance(&Luma { width, samples })
    }

    #[test]
    fn edges_count_and_gradients_do_not() {
        assert_eq!(of(8, |_, _| 200), Some(0.0));
        assert_eq!(of(8, |x, y| 10 * x as u32 + 5 * y as u32), Some(0.0));
        // A checkerboard's Laplacian is 4 x 200 with either sign.
        assert_eq!(of(8, |x, y| 200 * ((x + y) % 2) as u32), Some(640_000.0));
        let (soft, hard) = (of(8, |x, _| [0, 0, 50, 100, 150, 200, 200, 200][x]), of(8, |x, _| 200 * (x / 4) as u32));
        assert!(soft < hard, "{soft:?} {hard:?}");
    }

    #[test]
    fn an_image_without_an_inside_has_none() {
        assert_eq!(of(2, |_, _| 1), None);
    }
}
