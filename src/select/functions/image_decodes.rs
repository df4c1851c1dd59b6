//! `image_decodes(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::BooleanArray, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::{LIMITS, of_images},
    function::{Body, Function, Group, IMAGE, Takes, documented},
};
use crate::augment::image::thumbnail::decodes;

/// Whether the whole image can be decoded.
pub fn image_decodes() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_decodes(image)",
        "Whether training could use the image: its header declares at most 100 megapixels, and every coefficient \
         decodes without an error or a warning of damage. NULL only for NULL.",
        &[IMAGE],
        "> SELECT image_decodes($PNG) AS whole, image_decodes(X'89504e47') AS cut;
+-------+-------+
| whole | cut   |
+-------+-------+
| true  | false |
+-------+-------+",
    );
    let body: Body = |args| {
        let whole = of_images(&args[0], |_, encoded| Some(decodes(encoded, LIMITS.max_pixels).is_ok()))?;
        Ok(Arc::new(BooleanArray::from(whole)) as _)
    };
    Function::new("image_decodes", &[Takes::Image], DataType::Boolean, body, documentation).into_udf()
}
