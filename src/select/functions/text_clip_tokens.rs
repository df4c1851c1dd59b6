//! `text_clip_tokens(text)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, UInt32Array},
        datatypes::DataType,
    },
    common::Result,
    logical_expr::ScalarUDF,
};

use super::function::{Function, Group, Takes, documented};
use crate::tokenize::clip;

/// Number of CLIP's tokens.
pub fn text_clip_tokens() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "text_clip_tokens(text)",
        "Number of tokens that CLIP's byte-pair encoding makes of the text, start and end included, before anything is \
         cut off: CLIP reads 77. See tokenize(text) for what happens to the text before.",
        &[("text", "A caption or other text.")],
        "> SELECT text_clip_tokens('hello world') AS tokens;
+--------+
| tokens |
+--------+
| 4      |
+--------+",
    );
    Function::new("text_clip_tokens", &[Takes::Text], DataType::UInt32, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let count = |text: &str| u32::try_from(clip::count(text)).unwrap_or(u32::MAX);
    Ok(Arc::new(args[0].as_string_view().iter().map(|text| text.map(count)).collect::<UInt32Array>()))
}
