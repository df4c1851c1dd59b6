//! `image_height(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::UInt32Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::of_headers,
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// Rows of pixels, as the header declares them.
pub fn image_height() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_height(image)",
        "Rows of pixels, as the header declares them; EXIF orientation is not applied. NULL for what is no image. \
         Over shards that have a column `height` it is that column, and no image is read.",
        &[IMAGE],
        "> SELECT image_height($PNG) AS height;
+--------+
| height |
+--------+
| 4      |
+--------+",
    );
    let body: Body = |args| Ok(Arc::new(UInt32Array::from(of_headers(&args[0], |header| header.height)?)) as _);
    Function::new("image_height", &[Takes::Image], DataType::UInt32, body, documentation).into_udf()
}
