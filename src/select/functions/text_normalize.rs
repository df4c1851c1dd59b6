//! `text_normalize(text)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, StringViewBuilder},
        datatypes::DataType,
    },
    common::Result,
    logical_expr::ScalarUDF,
};
use icu_normalizer::ComposingNormalizerBorrowed;

use super::function::{Function, Group, Takes, documented};

/// Text in one spelling.
pub fn text_normalize() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "text_normalize(text)",
        "Text in one spelling, to find duplicates by: Unicode NFC, lower case (Unicode's, of no language in \
         particular), every stretch of white space one space, none at the ends. Punctuation and HTML entities stay.",
        &[("text", "A caption or other text.")],
        "> SELECT text_normalize('  A  Dog\ton the BEACH ') AS normal;
+--------------------+
| normal             |
+--------------------+
| a dog on the beach |
+--------------------+",
    );
    Function::new("text_normalize", &[Takes::Text], DataType::Utf8View, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = args[0].as_string_view();
    let mut normal = StringViewBuilder::with_capacity(texts.len());
    let mut folded = String::new();
    for text in texts {
        normal.append_option(text.map(|text| {
            normalize(text, &mut folded);
            folded.as_str()
        }));
    }
    Ok(Arc::new(normal.finish()))
}

fn normalize(text: &str, folded: &mut String) {
    folded.clear();
    // Lower case first: it can take a character apart (İ), which composing then puts together.
    let lower = text.to_lowercase();
    let composed = ComposingNormalizerBorrowed::new_nfc().normalize(&lower);
    for word in composed.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_become_one() {
        let normal = |text: &str| {
            let mut folded = String::new();
            normalize(text, &mut folded);
            folded
        };
        assert_eq!(normal("Cafe\u{301}\u{a0}NOIR\r\n"), "caf\u{e9} noir");
        assert_eq!(normal("caf\u{e9} noir"), "caf\u{e9} noir");
        assert_eq!(normal(" \t\n"), "");
        let twice = normal("\u{130}stanbul \u{1e9e} \u{3a3}\u{3a3}");
        assert_eq!(normal(&twice), twice);
    }
}
