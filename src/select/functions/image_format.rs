//! `image_format(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::StringViewArray, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::of_headers,
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// `jpeg`, `png`, `webp` or `gif`.
pub fn image_format() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_format(image)",
        "jpeg, png, webp or gif, judged by the first bytes. NULL for what is no image, or none of these. \
         Over shards that have a column `format` it is that column, and no image is read.",
        &[IMAGE],
        "> SELECT image_format($PNG) AS format;
+--------+
| format |
+--------+
| png    |
+--------+",
    );
    let body: Body = |args| {
        let formats = of_headers(&args[0], |header| header.format.name())?;
        Ok(Arc::new(StringViewArray::from(formats)) as _)
    };
    Function::new("image_format", &[Takes::Image], DataType::Utf8View, body, documentation).into_udf()
}
