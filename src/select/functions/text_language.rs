//! `text_language(text [, min_confidence])`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, StringViewArray},
        datatypes::{DataType, Float64Type},
    },
    common::Result,
    logical_expr::ScalarUDF,
};
use whatlang::Lang;

use super::function::{Function, Group, Takes, documented};

/// What `whatlang` itself calls reliable.
const RELIABLE: f64 = 0.9;

/// Language by trigrams and script.
pub fn text_language() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "text_language(text [, min_confidence])",
        "The language that the text's script and trigrams are most like, of 70, as ISO 639-1 code (en, de, zh) or, \
         where there is none, ISO 639-3. NULL where the detector's confidence is below `min_confidence`, 0.9 unless \
         given: captions of a few words rarely reach that, so lower it, or take a column that a better model filled.",
        &[("text", "A caption or other text."), ("min_confidence", "0 (always answer) to 1.")],
        "> SELECT text_language('Two children are playing with a red ball in the garden.') AS sentence,
         text_language('a dog on the beach') AS caption, text_language('a dog on the beach', 0.5) AS lenient;
+----------+---------+---------+
| sentence | caption | lenient |
+----------+---------+---------+
| en       |         | en      |
+----------+---------+---------+",
    );
    let takes = &[Takes::Text, Takes::Float64];
    Function::new("text_language", takes, DataType::Utf8View, body, documentation).with_optional(1).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = args[0].as_string_view();
    let least = args.get(1).map(|least| least.as_primitive::<Float64Type>());
    let language = |row: usize| {
        let least = match least {
            Some(least) if least.is_null(row) => return None,
            Some(least) => least.value(row),
            None => RELIABLE,
        };
        let info = texts.is_valid(row).then(|| whatlang::detect(texts.value(row))).flatten()?;
        (info.confidence() >= least).then(|| code(info.lang()))
    };
    Ok(Arc::new((0..texts.len()).map(language).collect::<StringViewArray>()))
}

/// ISO 639-1 where the language has a code of two letters.
fn code(language: Lang) -> &'static str {
    const TWO_LETTERS: [(&str, &str); 70] = [
        ("afr", "af"),
        ("aka", "ak"),
        ("amh", "am"),
        ("ara", "ar"),
        ("aze", "az"),
        ("bel", "be"),
        ("ben", "bn"),
        ("bul", "bg"),
        ("cat", "ca"),
        ("ces", "cs"),
        ("cmn", "zh"),
        ("cym", "cy"),
        ("dan", "da"),
        ("deu", "de"),
        ("ell", "el"),
        ("eng", "en"),
        ("epo", "eo"),
        ("est", "et"),
        ("fin", "fi"),
        ("fra", "fr"),
        ("guj", "gu"),
        ("heb", "he"),
        ("hin", "hi"),
        ("hrv", "hr"),
        ("hun", "hu"),
        ("hye", "hy"),
        ("ind", "id"),
        ("ita", "it"),
        ("jav", "jv"),
        ("jpn", "ja"),
        ("kan", "kn"),
        ("kat", "ka"),
        ("khm", "km"),
        ("kor", "ko"),
        ("lat", "la"),
        ("lav", "lv"),
        ("lit", "lt"),
        ("mal", "ml"),
        ("mar", "mr"),
        ("mkd", "mk"),
        ("mya", "my"),
        ("nep", "ne"),
        ("nld", "nl"),
        ("nob", "nb"),
        ("ori", "or"),
        ("pan", "pa"),
        ("pes", "fa"),
        ("pol", "pl"),
        ("por", "pt"),
        ("ron", "ro"),
        ("rus", "ru"),
        ("sin", "si"),
        ("slk", "sk"),
        ("slv", "sl"),
        ("sna", "sn"),
        ("spa", "es"),
        ("srp", "sr"),
        ("swe", "sv"),
        ("tam", "ta"),
        ("tel", "te"),
        ("tgl", "tl"),
        ("tha", "th"),
        ("tuk", "tk"),
        ("tur", "tr"),
        ("ukr", "uk"),
        ("urd", "ur"),
        ("uzb", "uz"),
        ("vie", "vi"),
        ("yid", "yi"),
        ("zul", "zu"),
    ];
    let three = language.code();
    TWO_LETTERS.iter().find(|(known, _)| *known == three).map_or(three, |(_, two)| two)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_two_letters() {
        for language in Lang::all() {
            assert_eq!(code(*language).len(), 2, "{language:?}");
        }
    }
}
