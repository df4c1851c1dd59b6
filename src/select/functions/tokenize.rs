//! `tokenize(text)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, ListArray},
        datatypes::{DataType, UInt32Type},
    },
    common::Result,
    logical_expr::ScalarUDF,
};

use super::function::{Function, Group, Takes, documented};
use crate::tokenize::clip::{CONTEXT_TOKENS, tokens};

/// CLIP's tokens.
pub fn tokenize() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "tokenize(text)",
        "What CLIP reads of a text: at most 77 ids of its byte-pair encoding, the start's (49406) and the end's (49407) \
         included, which stay where a text is cut. Before, broken Unicode is mended (mojibake of windows-1252, \
         ligatures, widths, curly quotes), HTML's references are decoded twice, white space becomes one space, letters \
         lower case. A literal <|endoftext|> is text.",
        &[("text", "A caption or other text.")],
        "> SELECT tokenize('hello world') AS ids;
+----------------------------+
| ids                        |
+----------------------------+
| [49406, 3306, 1002, 49407] |
+----------------------------+",
    );
    let ids = DataType::new_list(DataType::UInt32, true);
    Function::new("tokenize", &[Takes::Text], ids, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let ids = |text: &str| tokens(text, CONTEXT_TOKENS).into_iter().map(Some).collect::<Vec<_>>();
    let texts = args[0].as_string_view().iter().map(|text| text.map(ids));
    Ok(Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>(texts)))
}
