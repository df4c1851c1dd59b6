//! `text_words(text)`.
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

/// Number of words.
pub fn text_words() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "text_words(text)",
        "Number of words: stretches without white space (Unicode's). Chinese, Japanese and Thai write whole sentences \
         as one.",
        &[("text", "A caption or other text.")],
        "> SELECT text_words('  a dog,  on the beach') AS words;
+-------+
| words |
+-------+
| 5     |
+-------+",
    );
    Function::new("text_words", &[Takes::Text], DataType::UInt32, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let words = |text: &str| u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX);
    Ok(Arc::new(args[0].as_string_view().iter().map(|text| text.map(words)).collect::<UInt32Array>()))
}
