//! UTF-8 that somebody read as windows-1252 or Latin-1: `â€™` for `’`.
//!
//! Text that looks garbled is read again: its characters, written back as windows-1252, are bytes of UTF-8. All of it where
//! that works, else the stretches that look garbled by themselves. One of the bytes is often A0, a no-break space that became a
//! space on the way; it is put back where that makes a common character.
use std::borrow::Cow;

use super::{neighbours::clash, unescape::WINDOWS_1252};

/// Times that a text is taken to have been misread; each doubles what is not ASCII, so real text has two at most.
const MOST_LAYERS: usize = 8;
/// What became of bytes that windows-1252 lacks.
pub(super) const LOST: char = '\u{fffd}';
/// Leads whose second byte is often A0, a no-break space that became a space.
const LEADS_BEFORE_A0: [u8; 6] = [0xc2, 0xc3, 0xc5, 0xce, 0xd0, 0xd9];

/// The text as it was before it was misread; itself where it was not.
pub fn repaired(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..MOST_LAYERS {
        match read_again(&text) {
            Some(meant) => text = Cow::Owned(meant),
            None => break,
        }
    }
    text
}

fn read_again(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let characters: Vec<char> = text.chars().collect();
    if !clash(&characters) {
        return None;
    }
    let meant = whole(&characters).unwrap_or_else(|| in_parts(&characters));
    (meant != text).then_some(meant)
}

/// The byte that windows-1252 writes for a character; bytes without one stand for the control characters of Latin-1.
fn byte(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ 0..=0xff => Some(code as u8),
        _ => WINDOWS_1252.iter().position(|known| *known == character).map(|at| at as u8 + 0x80),
    }
}

/// All of the text; `None` where a character beyond ASCII is no part of a misread one.
fn whole(text: &[char]) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&first) = text.get(at) {
        if first.is_ascii() || first == LOST {
            out.push(first);
            at += 1;
        } else if let Some((meant, count)) = sequence(&text[at..]) {
            out.push(meant);
            at += count;
        } else {
            out.push(before_space(&text[at..])?);
            at += 2;
            // `Ã la` is most often `à la`, whose two spaces became one.
            if first == 'Ã' && !is_portuguese(&text[at..]) {
                out.push(' ');
            }
        }
    }
    Some(out)
}

/// A character of two bytes, the second of which became a space.
fn before_space(text: &[char]) -> Option<char> {
    let lead = byte(text[0]).filter(|lead| LEADS_BEFORE_A0.contains(lead) && text.get(1) == Some(&' '))?;
    char::from_u32(((u32::from(lead) & 0x1f) << 6) | 0x20)
}

/// Whether à and this make one word: `às`, `àquele`, `àquela`, `àquilo`; or the space is there already.
fn is_portuguese(rest: &[char]) -> bool {
    [" ", "quele", "quela", "quilo", "s "].iter().any(|word| {
        let mut letters = rest.iter();
        word.chars().all(|letter| letters.next() == Some(&letter))
    })
}

/// Reads stretches again that look garbled and that can be read as a whole.
fn in_parts(text: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let mut end = at;
        if !is_cut_off(text, at) {
            while let Some(count) = shaped(&text[end..]) {
                end += count;
            }
        }
        let stretch = &text[at..end.max(at + 1)];
        match clash(stretch).then(|| whole(stretch)).flatten() {
            Some(meant) => out.push_str(&meant),
            None => out.extend(stretch),
        }
        at += stretch.len();
    }
    out
}

/// Whether a sign stands before, which may be a part of another character. (Quotation marks and dashes stand before words.)
fn is_cut_off(text: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| byte(text[before]));
    before.is_some_and(|byte| matches!(byte, 0x80..=0xbf) && !matches!(byte, 0x82 | 0x84 | 0x85 | 0x91..=0x97))
}

/// Characters that the byte of the first one announces, where all of them may be bytes of UTF-8; spaces stand for A0.
fn shaped(text: &[char]) -> Option<usize> {
    let count = length(byte(*text.first()?)?)?;
    let continues = |&sign: &char| sign == ' ' || byte(sign).is_some_and(|byte| matches!(byte, 0x80..=0xbf));
    text.get(1..count)?.iter().all(continues).then_some(count)
}

/// Bytes of a character that begins with this one.
fn length(lead: u8) -> Option<usize> {
    match lead {
        0xc2..=0xdf => Some(2),
        0xe0..=0xef => Some(3),
        0xf0..=0xf4 => Some(4),
        _ => None,
    }
}

/// A misread character at the start of `text`, and how many characters it takes there. Where some of them are lost, so is it.
fn sequence(text: &[char]) -> Option<(char, usize)> {
    let lead = byte(*text.first()?)?;
    let count = length(lead)?;
    let followers = text.get(1..count)?;
    let mut bytes = [lead, 0, 0, 0];
    for (slot, &character) in bytes[1..].iter_mut().zip(followers) {
        *slot = if character == LOST { 0x80 } else { byte(character)? };
    }
    if let Some(at) = space_for_a0(lead, followers) {
        bytes[1 + at] = 0xa0;
    }
    if followers.contains(&LOST) {
        let continues = bytes[1..count].iter().all(|byte| matches!(byte, 0x80..=0xbf));
        return continues.then_some((LOST, count));
    }
    let meant = std::str::from_utf8(&bytes[..count]).ok()?.chars().next()?;
    Some((meant, count))
}

/// Which follower is a space that was A0, in characters that are common enough: one space, and no ellipsis beside it.
fn space_for_a0(lead: u8, followers: &[char]) -> Option<usize> {
    match (lead, followers) {
        (0xe0..=0xe3, [second, ' ']) => (!matches!(second, ' ' | '…' | '\u{85}' | '\u{a0}')).then_some(1),
        (0xe2 | 0xe3, [' ', third]) => (!matches!(third, ' ' | '…' | '\u{85}' | '\u{a0}')).then_some(0),
        (0xf0, _) => {
            let at = followers.iter().position(|&sign| sign == ' ')?;
            (followers.iter().filter(|sign| matches!(sign, ' ' | '…' | '\u{85}' | '\u{a0}')).count() == 1).then_some(at)
        }
        _ => None,
    }
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
        for text in
            ["don’t", "café", "“x” – y…", "日本語", "🙂 ok", "naïve Ñandú", "50 €", "a\u{a0}b", "šuplji", "مربع"]
        {
            assert_eq!(repaired(&misread(text)), text, "{text}");
            assert_eq!(repaired(&misread(&misread(text))), text, "{text}, twice");
        }
    }

    #[test]
    fn sound_text_stays() {
        for text in [
            "café",
            "Ångström",
            "São Paulo",
            "ÀÉÎÕÜ",
            "日本語 ’",
            "price: 5€",
            "Ünïcödé",
            "naïve “quoted”",
            "¿Qué?",
            // These end with the bytes of other characters' UTF-8.
            "symbole signifiant «\u{a0}réservé\u{a0}»",
            "“le café…”",
            "voilà\u{a0}» 日本",
            "perché’” città",
            "„Spaß“, „Fuß“",
            "grâce à\u{a0}«\u{a0}lui\u{a0}»",
            "NOËL… MÜLLER™ IRMÃ MARIA",
            "“CAFÉ·”, CAFÉ·BAR",
            "de A à\u{a0}–\u{a0}B, à\u{a0}— B",
            "50\u{a0}€ à 20 °C, così\u{a0}€ 5",
            "œuvre, Å, 2×4 ½ ª º, ¿Qué? ¡Sí!",
        ] {
            assert_eq!(repaired(text), text);
        }
    }

    #[test]
    fn misread_parts_of_sound_text_are_read_again() {
        assert_eq!(repaired("日本 donâ€™t cafÃ©"), "日本 don’t café");
        assert_eq!(repaired("日本 Ä\u{8d}aj"), "日本 čaj");
        assert_eq!(repaired("日本 São Ãs"), "日本 São Ãs");
    }

    #[test]
    fn what_was_lost_on_the_way_is_guessed_where_it_is_a_space_and_marked_where_not() {
        assert_eq!(repaired("voilÃ  le sÃ mi"), "voilà le sà mi");
        assert_eq!(repaired("Ã s vezes"), "às vezes");
        // A windows-1250 name of a real caption, in which CLIP saw a rune.
        assert_eq!(repaired("Mikolá\u{9a} Ale\u{9a}"), "MikolᚠAle\u{9a}");
        assert_eq!(repaired("Mikoláš Aleš, Má\u{9a}"), "Mikoláš Aleš, Má\u{9a}");
        assert_eq!(repaired("â€œquotedâ€\u{fffd}"), "“quoted\u{fffd}");
    }
}
