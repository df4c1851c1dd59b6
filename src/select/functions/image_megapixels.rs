//! `image_megapixels(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::Float64Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::of_headers,
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// Width times height, in millions.
pub fn image_megapixels() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_megapixels(image)",
        "Width times height in millions, as the header declares them. NULL for what is no image. \
         Over shards that have columns `width` and `height` it is computed from them, and no image is read.",
        &[IMAGE],
        "> SELECT image_megapixels($PNG) < 0.04 AS too_small;
+-----------+
| too_small |
+-----------+
| true      |
+-----------+",
    );
    let body: Body = |args| {
        let megapixels = of_headers(&args[0], |header| header.pixels() as f64 / 1e6)?;
        Ok(Arc::new(Float64Array::from(megapixels)) as _)
    };
    Function::new("image_megapixels", &[Takes::Image], DataType::Float64, body, documentation).into_udf()
}
