//! `text_sentences(text)`.
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
use crate::tokenize::sentences::SentenceUnit;

/// Number of sentences.
pub fn text_sentences() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "text_sentences(text)",
        "Number of sentences, as [pair.sentences] cuts them: up to a full stop, question or exclamation mark before white \
         space, or a blank line. No sentence ends before a small letter or behind an initial (J. Smith); what holds no \
         letter and no digit is none.",
        &[("text", "A document or other text.")],
        "> SELECT text_sentences('Who? J. Smith, aged 3.5 years. Yes!') AS sentences;
+-----------+
| sentences |
+-----------+
| 3         |
+-----------+",
    );
    Function::new("text_sentences", &[Takes::Text], DataType::UInt32, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let sentences = |text: &str| u32::try_from(SentenceUnit::Sentences.of(text).len()).unwrap_or(u32::MAX);
    Ok(Arc::new(args[0].as_string_view().iter().map(|text| text.map(sentences)).collect::<UInt32Array>()))
}
