//! HTML's character references, decoded as browsers do.
use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

/// The standard's table: name, with its semicolon where it needs one, and code points in hexadecimal.
const TABLE: &str = include_str!("named_characters.tsv");
/// Letters and digits of a reference that is repaired.
const LONGEST_REPAIRED: usize = 24;
/// Characters of a name that are looked at.
const LONGEST_NAME: usize = 32;
const AMPERSAND: &str = "amp;";
/// What stands for a number that is no character.
const REPLACEMENT: char = '\u{fffd}';
/// What pages of windows-1252 mean by the numbers 128 to 159; those without a character stay themselves.
pub(super) const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

static NAMED: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
    let characters = |codes: &str| -> String {
        codes.split(' ').filter_map(|code| u32::from_str_radix(code, 16).ok().and_then(char::from_u32)).collect()
    };
    TABLE.lines().filter_map(|line| line.split_once('\t')).map(|(name, codes)| (name, characters(codes))).collect()
});

/// Decodes every reference once: `&eacute;`, `&#233;`, `&#xe9;`, and the old names that need no semicolon.
pub fn unescape(text: &str) -> Cow<'_, str> {
    replaced(text, |after| numbered(after).or_else(|| named(after)))
}

/// Decodes complete references only, as a repair: `&eacute` may be part of an address. `&EACUTE;` is `É`.
pub(super) fn unescape_complete(text: &str) -> Cow<'_, str> {
    replaced(text, |after| {
        let sign = usize::from(after.starts_with('#'));
        let letters = after.bytes().skip(sign).take(LONGEST_REPAIRED + 1).take_while(u8::is_ascii_alphanumeric).count();
        let end = sign + letters;
        if !(1..=LONGEST_REPAIRED).contains(&letters) || !after[end..].starts_with(';') {
            return None;
        }
        let name = &after[..=end];
        if name == AMPERSAND {
            // Of `&amp;amp;amp;` each round of repairs would decode one.
            let more =
                after.as_bytes()[name.len()..].chunks_exact(name.len()).take_while(|next| *next == name.as_bytes());
            return Some(("&".to_owned(), name.len() * (1 + more.count())));
        }
        if name.starts_with('#') {
            return numbered(name).filter(|(_, length)| *length == name.len());
        }
        if let Some(characters) = NAMED.get(name) {
            return Some((characters.clone(), name.len()));
        }
        let lower = name.to_ascii_lowercase();
        let loud = name.bytes().all(|byte| !byte.is_ascii_lowercase());
        // `&LTDOT;` is `<DOT;` to a browser.
        let is_free = || loud && named(name).is_none();
        NAMED.get(lower.as_str()).filter(|_| is_free()).map(|characters| (characters.to_uppercase(), name.len()))
    })
}

/// The text with what `decode` makes of the text after each ampersand: characters, and how many bytes they stand for.
fn replaced(text: &str, decode: impl Fn(&str) -> Option<(String, usize)>) -> Cow<'_, str> {
    let Some(first) = text.find('&') else { return Cow::Borrowed(text) };
    let mut plain = text[..first].to_owned();
    let mut rest = &text[first..];
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        match decode(after) {
            Some((characters, length)) => {
                plain.push_str(&characters);
                rest = &after[length..];
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

/// `#233;` or `#xe9;`, with or without the semicolon.
fn numbered(after: &str) -> Option<(String, usize)> {
    let number = after.strip_prefix('#')?;
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    let count = digits.bytes().take_while(|byte| char::from(*byte).is_digit(radix)).count();
    if count == 0 {
        return None;
    }
    // What is too long for a number is too large for a character.
    let code = u32::from_str_radix(&digits[..count], radix).unwrap_or(u32::MAX);
    let mut length = after.len() - digits.len() + count;
    if after[length..].starts_with(';') {
        length += 1;
    }
    let character = match code {
        0 => Some(REPLACEMENT),
        0x0d => Some('\r'),
        0x80..=0x9f => Some(WINDOWS_1252[code as usize - 0x80]),
        // No characters, says the standard; they vanish.
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        _ if code & 0xfffe == 0xfffe && code <= 0x10_ffff => None,
        _ => Some(char::from_u32(code).unwrap_or(REPLACEMENT)),
    };
    Some((character.map(String::from).unwrap_or_default(), length))
}

/// `eacute;`, or the longest old name that the text starts with.
fn named(after: &str) -> Option<(String, usize)> {
    let is_in_name = |character: char| !matches!(character, '\t' | '\n' | '\u{c}' | ' ' | '<' | '&' | '#' | ';');
    let mut end = after.char_indices().take(LONGEST_NAME).find(|(_, c)| !is_in_name(*c)).map(|(at, _)| at);
    if end.is_none() {
        end = after.char_indices().nth(LONGEST_NAME).map(|(at, _)| at);
    }
    let mut name = &after[..end.unwrap_or(after.len())];
    if after[name.len()..].starts_with(';') {
        name = &after[..=name.len()];
    }
    if let Some(characters) = NAMED.get(name) {
        return Some((characters.clone(), name.len()));
    }
    let mut lengths = name.char_indices().map(|(at, _)| at).filter(|&at| at > 1).rev();
    lengths.find_map(|length| NAMED.get(&name[..length]).map(|characters| (characters.clone(), length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_their_characters_and_other_ampersands_stay() {
        for (text, plain) in [
            ("salt &amp; pepper", "salt & pepper"),
            ("&#39;&#x263A;&#xd800;&lt", "'\u{263a}\u{fffd}<"),
            ("AT&T & &bogus; &", "AT&T & &bogus; &"),
            ("gr&uuml;n &uumln &Uuml", "gr\u{fc}n \u{fc}n \u{dc}"),
            ("&#150;&#x96;&#1;&#xfffe;&#99999999999;", "––\u{fffd}"),
            ("&NotEqualTilde;&ThickSpace;", "\u{2242}\u{338}\u{205f}\u{200a}"),
            ("&notit; &notin;", "\u{ac}it; \u{2209}"),
            ("&ü; &#; &#x;", "&ü; &#; &#x;"),
        ] {
            assert_eq!(unescape(text), plain, "{text}");
        }
    }

    #[test]
    fn repairs_touch_complete_references_only() {
        assert_eq!(unescape_complete("a?x=1&copy=2 &copy; &EACUTE; &#233; &#233"), "a?x=1&copy=2 © É é &#233");
        assert_eq!(unescape_complete("&LTDOT; &ACIRC; &ü; &;"), "&LTDOT; Â &ü; &;");
        assert_eq!(unescape_complete("&amp;amp;amp;lt; &amp;am"), "&lt; &am");
    }

    #[test]
    fn ampersands_without_references_cost_what_they_are_long() {
        let text = "& ".repeat(2_000_000);
        // Where each one looks for its semicolon to the end of the text, this never ends.
        assert_eq!(unescape_complete(&text), text);
    }
}
