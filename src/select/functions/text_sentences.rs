//! `text_sentences(text [, unit])`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, UInt32Array},
        datatypes::DataType,
    },
    common::{Result, exec_err},
    logical_expr::ScalarUDF,
};

use super::function::{Function, Group, Takes, documented};
use crate::tokenize::sentences::SentenceUnit;

/// Number of sentences, or of lines.
pub fn text_sentences() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "text_sentences(text [, unit])",
        "Number of sentences, as [pair.sentences] cuts them: up to a full stop, question or exclamation mark before white \
         space, or a blank line. No sentence ends before a small letter or behind an initial (J. Smith); what holds no \
         letter and no digit is none. With 'lines' the lines that hold one.",
        &[
            ("text", "A document or other text."),
            ("unit", "'sentences', which is meant where nothing is said, or 'lines': what pair.sentences.unit says."),
        ],
        "> SELECT text_sentences('Who? J. Smith, aged 3.5 years. Yes!') AS sentences,
         text_sentences('Who? J. Smith, aged 3.5 years. Yes!', 'lines') AS lines;
+-----------+-------+
| sentences | lines |
+-----------+-------+
| 3         | 1     |
+-----------+-------+",
    );
    let takes = &[Takes::Text, Takes::Text];
    Function::new("text_sentences", takes, DataType::UInt32, body, documentation).with_optional(1).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = args[0].as_string_view();
    let units = args.get(1).map(|units| units.as_string_view());
    let count = |row: usize| {
        let unit = match units {
            None => SentenceUnit::Sentences,
            Some(units) if units.is_null(row) => return Ok(None),
            Some(units) => match SentenceUnit::named(units.value(row)) {
                Some(unit) => unit,
                None => {
                    return exec_err!("text_sentences: no unit {:?}; write 'sentences' or 'lines'", units.value(row));
                }
            },
        };
        let of = |text: &str| u32::try_from(unit.of(text).len()).unwrap_or(u32::MAX);
        Ok(texts.is_valid(row).then(|| of(texts.value(row))))
    };
    Ok(Arc::new((0..texts.len()).map(count).collect::<Result<UInt32Array>>()?))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{array::StringViewArray, datatypes::UInt32Type};

    use super::*;

    #[test]
    fn the_unit_may_differ_from_row_to_row_and_another_is_an_error() {
        let counts = |units: [Option<&str>; 3]| {
            let texts = StringViewArray::from(vec!["One. Two.\nThree.", "One. Two.\nThree.", "One."]);
            body(&[Arc::new(texts), Arc::new(StringViewArray::from(units.to_vec()))])
        };
        let found = counts([Some("sentences"), Some("lines"), None]).unwrap();
        assert_eq!(found.as_primitive::<UInt32Type>().iter().collect::<Vec<_>>(), [Some(3), Some(2), None]);
        let error = counts([Some("words"), None, None]).unwrap_err().to_string();
        assert!(error.contains("\"words\"; write 'sentences' or 'lines'"), "{error}");
    }
}
