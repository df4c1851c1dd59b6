//! `text_chars(text)`.
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

/// Number of characters.
pub fn text_chars() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "text_chars(text)",
        "Number of characters: Unicode scalar values, white space included, so that ü is one and a family emoji several.",
        &[("text", "A caption or other text.")],
        "> SELECT text_chars('grün') AS chars;
+-------+
| chars |
+-------+
| 4     |
+-------+",
    );
    Function::new("text_chars", &[Takes::Text], DataType::UInt32, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let chars = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    Ok(Arc::new(args[0].as_string_view().iter().map(|text| text.map(chars)).collect::<UInt32Array>()))
}
