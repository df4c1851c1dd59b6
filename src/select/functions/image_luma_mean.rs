//! `image_luma_mean(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::Float64Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::{luma, of_images, within},
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// Longest side of the image that is averaged: a mean needs no more, and a large JPEG then decodes at a fraction.
const SIDE_PIXELS: usize = 256;

/// Mean brightness, 0 to 255.
pub fn image_luma_mean() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_luma_mean(image)",
        "Mean brightness from 0 (black) to 255 (white): BT.601 luma (0.299 red + 0.587 green + 0.114 blue) of the \
         image reduced to at most 256 pixels a side. NULL for what cannot be decoded.",
        &[IMAGE],
        "> SELECT image_luma_mean($PNG) AS mean;
+-------+
| mean  |
+-------+
| 115.0 |
+-------+",
    );
    let body: Body = |args| Ok(Arc::new(Float64Array::from(of_images(&args[0], |_, encoded| mean(encoded))?)) as _);
    Function::new("image_luma_mean", &[Takes::Image], DataType::Float64, body, documentation).into_udf()
}

fn mean(encoded: &[u8]) -> Option<f64> {
    let small = luma(encoded, |width, height| within(SIDE_PIXELS, width, height))?;
    let sum: u64 = small.samples.iter().map(|&sample| u64::from(sample)).sum();
    Some(sum as f64 / small.samples.len() as f64 / 1_000.0)
}
