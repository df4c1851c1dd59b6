//! `image_channels(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::UInt8Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::of_headers,
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// Channels as stored.
pub fn image_channels() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_channels(image)",
        "Channels as the header declares them: 1 grey, 2 grey and alpha, 3 colour or a palette, 4 colour and alpha, or \
         CMYK. NULL for what is no image. Reads the image, of which only the header is looked at.",
        &[IMAGE],
        "> SELECT image_channels($PNG) AS channels;
+----------+
| channels |
+----------+
| 1        |
+----------+",
    );
    let body: Body = |args| Ok(Arc::new(UInt8Array::from(of_headers(&args[0], |header| header.channels)?)) as _);
    Function::new("image_channels", &[Takes::Image], DataType::UInt8, body, documentation).into_udf()
}
