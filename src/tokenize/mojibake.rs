//! UTF-8 that somebody read as windows-1252: `â€™` for `’`.
//!
//! A text is repaired where its characters, written back as windows-1252, are the bytes of UTF-8. Texts that mean what
//! they say hardly ever are: every letter beyond ASCII would have to be a capital with an accent and be followed by a sign.
use std::borrow::Cow;

use super::unescape::WINDOWS_1252;

/// Leads of two bytes that are believed where the text around them is sound: `Â` and `Ã`, in front of Latin-1.
const LATIN_LEADS: [u8; 2] = [0xc2, 0xc3];

/// The text as it was before it was misread; itself where it was not.
pub fn repaired(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    if let Some(whole) = text.chars().map(byte).collect::<Option<Vec<u8>>>().and_then(|b| String::from_utf8(b).ok()) {
        return Cow::Owned(whole);
    }
    in_parts(text)
}

/// The byte that windows-1252 writes for a character; bytes without one stand for the control characters of Latin-1.
fn byte(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ 0..=0xff => Some(code as u8),
        _ => WINDOWS_1252.iter().position(|known| *known == character).map(|at| at as u8 + 0x80),
    }
}

/// Repairs the sequences that cannot be anything else.
fn in_parts(text: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match sequence(rest) {
            Some((meant, length)) => {
                out.push(meant);
                rest = &rest[length..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// A misread character at the start of `text`, and how many bytes it takes there.
fn sequence(text: &str) -> Option<(char, usize)> {
    let lead = byte(text.chars().next()?)?;
    let count = match lead {
        _ if LATIN_LEADS.contains(&lead) => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let mut bytes = [0; 4];
    let mut length = 0;
    for (slot, character) in bytes[..count].iter_mut().zip(text.chars()) {
        *slot = byte(character)?;
        length += character.len_utf8();
    }
    let meant = std::str::from_utf8(&bytes[..count]).ok()?.chars().next()?;
    Some((meant, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misread(text: &str) -> String {
        let as_character = |byte: u8| match byte {
            0x80..=0x9f => WINDOWS_1252[usize::from(byte) - 0x80],
            _ => char::from(byte),
        };
        text.bytes().map(as_character).collect()
    }

    #[test]
    fn misread_text_is_read_again() {
        for text in ["don’t", "café", "“x” – y…", "日本語", "🙂 ok", "naïve Ñandú", "50 €", "a\u{a0}b"]
        {
            assert_eq!(repaired(&misread(text)), text, "{text}");
        }
    }

    #[test]
    fn sound_text_stays() {
        for text in
            ["café", "Ångström", "São Paulo", "ÀÉÎÕÜ", "日本語 ’", "price: 5€", "Ünïcödé", "naïve “quoted”", "¿Qué?"]
        {
            assert!(matches!(repaired(text), Cow::Borrowed(_)) || repaired(text) == text, "{text}");
        }
    }

    #[test]
    fn misread_parts_of_sound_text_are_read_again() {
        assert_eq!(repaired("日本 donâ€™t cafÃ©"), "日本 don’t café");
        assert_eq!(repaired("日本 São Ãs"), "日本 São Ãs");
    }
}
