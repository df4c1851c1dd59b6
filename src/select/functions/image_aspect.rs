//! `image_aspect(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::Float64Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::of_headers,
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// The longer side over the shorter.
pub fn image_aspect() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_aspect(image)",
        "The longer side divided by the shorter, as the header declares them: 1 for a square, never less. So \
         `image_aspect(image) <= 3` refuses banners, lying and standing. NULL for what is no image. \
         Over shards that have columns `width` and `height` it is computed from them, and no image is read.",
        &[IMAGE],
        "> SELECT image_aspect($PNG) AS aspect;
+--------+
| aspect |
+--------+
| 1.5    |
+--------+",
    );
    let body: Body = |args| {
        let aspects = of_headers(&args[0], |header| {
            f64::from(header.width.max(header.height)) / f64::from(header.width.min(header.height))
        })?;
        Ok(Arc::new(Float64Array::from(aspects)) as _)
    };
    Function::new("image_aspect", &[Takes::Image], DataType::Float64, body, documentation).into_udf()
}
