//! `image_width(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::UInt32Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::of_headers,
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// Pixels per row, as the header declares them.
pub fn image_width() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_width(image)",
        "Pixels per row, as the header declares them; EXIF orientation is not applied. NULL for what is no image. \
         Over shards that have a column `width` it is that column, and no image is read.",
        &[IMAGE],
        "> SELECT image_width($PNG) AS width;
+-------+
| width |
+-------+
| 6     |
+-------+",
    );
    let body: Body = |args| Ok(Arc::new(UInt32Array::from(of_headers(&args[0], |header| header.width)?)) as _);
    Function::new("image_width", &[Takes::Image], DataType::UInt32, body, documentation).into_udf()
}
