//! `image_sha256(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::StringViewArray, datatypes::DataType},
    logical_expr::ScalarUDF,
};
use sha2::{Digest, Sha256};

use super::{
    encoded_images::of_images,
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// SHA-256 of the encoded bytes.
pub fn image_sha256() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_sha256(image)",
        "SHA-256 of the encoded bytes, 64 lower-case hexadecimal digits: what DataComp and others name samples by. \
         Two images may show the same and differ here.",
        &[IMAGE],
        "> SELECT left(image_sha256(X'616263'), 16) AS begins_with;
+------------------+
| begins_with      |
+------------------+
| ba7816bf8f01cfea |
+------------------+",
    );
    let body: Body = |args| {
        let digests = of_images(&args[0], |_, encoded| Some(format!("{:x}", Sha256::digest(encoded))))?;
        Ok(Arc::new(StringViewArray::from_iter(digests)) as _)
    };
    Function::new("image_sha256", &[Takes::Image], DataType::Utf8View, body, documentation).into_udf()
}
