//! `text_clip_tokens(text)`.
use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, UInt32Array},
        datatypes::DataType,
    },
    common::Result,
    logical_expr::ScalarUDF,
};
use instant_clip_tokenizer::Tokenizer;

use super::function::{Function, Group, Takes, documented};

/// Entities as HTML writes them; more than these hardly occur in captions.
const ENTITIES: [(&str, char); 6] =
    [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\''), ("nbsp", '\u{a0}')];
/// Characters between `&` and `;`: the longest is `#x10ffff`.
const LONGEST_ENTITY: usize = 8;
/// Start and end of a text.
const MARKERS: usize = 2;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);

/// Number of CLIP's tokens.
pub fn text_clip_tokens() -> ScalarUDF {
    let documentation = documented(
        Group::Text,
        "text_clip_tokens(text)",
        "Number of tokens that CLIP's byte-pair encoding makes of the text, start and end included, before anything is \
         cut off: CLIP reads 77. The text is cleaned as CLIP does it as far as numeric entities and &amp; &lt; &gt; \
         &quot; &apos; &nbsp; are decoded, twice, and case and white space make no difference; what `ftfy` would \
         repair (mojibake) is counted as it is.",
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
    let mut tokens = Vec::new();
    let mut count = |text: &str| {
        tokens.clear();
        // Captions come escaped once and, from scrapers of scrapers, twice.
        TOKENIZER.encode(&unescaped(&unescaped(text)), &mut tokens);
        u32::try_from(tokens.len() + MARKERS).unwrap_or(u32::MAX)
    };
    Ok(Arc::new(args[0].as_string_view().iter().map(|text| text.map(&mut count)).collect::<UInt32Array>()))
}

fn unescaped(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find('&') else { return Cow::Borrowed(text) };
    let mut plain = text[..first].to_owned();
    let mut rest = &text[first..];
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let end = after.bytes().take(LONGEST_ENTITY + 1).position(|byte| byte == b';');
        match end.and_then(|end| Some((character(&after[..end])?, end))) {
            Some((character, end)) => {
                plain.push(character);
                rest = &after[end + 1..];
            }
            None => {
                plain.push('&');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

fn character(entity: &str) -> Option<char> {
    match entity.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
        None => ENTITIES.iter().find(|(name, _)| *name == entity).map(|(_, character)| *character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_clip() {
        let ids = |text: &str| {
            let mut tokens = vec![];
            TOKENIZER.encode(text, &mut tokens);
            tokens.into_iter().map(instant_clip_tokenizer::Token::to_u16).collect::<Vec<_>>()
        };
        assert_eq!(ids("hello world"), [3306, 1002]);
        assert_eq!(ids("  Hello\nWORLD"), [3306, 1002]);
        assert_eq!((TOKENIZER.start_of_text().to_u16(), TOKENIZER.end_of_text().to_u16()), (49406, 49407));
    }

    #[test]
    fn entities_become_their_characters_and_other_ampersands_stay() {
        assert_eq!(unescaped("salt &amp; pepper"), "salt & pepper");
        assert_eq!(unescaped(&unescaped("&amp;quot;a&amp;quot;")), "\"a\"");
        assert_eq!(unescaped("&#39;&#x263A;&#xd800;&lt"), "'\u{263a}&#xd800;&lt");
        assert_eq!(unescaped("AT&T & &bogus; &"), "AT&T & &bogus; &");
        assert_eq!(unescaped("grün & & ü;"), "grün & & ü;");
    }
}
