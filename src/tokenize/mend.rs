//! Repairs of broken text, those that CLIP's captions went through in Python.
use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

use super::{
    mojibake::repaired,
    unescape::{WINDOWS_1252, unescape_complete},
};

/// Repairs feed each other (a reference decoded shows a wrong encoding); text that takes more rounds was made to.
const MOST_ROUNDS: usize = 16;

/// Line by line: references, wrong encodings, ligatures, widths, quotes, line ends, control characters, composition.
///
/// From the first line on that has a `<`, references are left alone: they may be what keeps text from being a tag.
pub fn mend(text: &str) -> Cow<'_, str> {
    // Printable ASCII without references cannot be broken.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t') && byte != b'&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut unescapes = true;
    for line in text.split_inclusive('\n') {
        unescapes &= !line.contains('<');
        let mut line = Cow::Borrowed(line);
        for _ in 0..MOST_ROUNDS {
            let next = round(&line, unescapes);
            if next == *line {
                break;
            }
            line = Cow::Owned(next);
        }
        out.push_str(&line);
    }
    Cow::Owned(out)
}

fn round(line: &str, unescapes: bool) -> String {
    let line = if unescapes { unescape_complete(line) } else { Cow::Borrowed(line) };
    let line = without_terminal_escapes(&repaired(&line)).into_owned();
    let line = line.replace("\r\n", "\n");
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let mut out = String::with_capacity(line.len());
    for character in line.chars() {
        match character {
            '\u{80}'..='\u{9f}' => out.push(WINDOWS_1252[character as usize - 0x80]),
            '\r' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => out.push('\''),
            '\u{201c}'..='\u{201f}' => out.push('"'),
            '\u{3000}' => out.push(' '),
            '\u{fb05}' => out.push_str("\u{17f}t"),
            // Two letters that were one type, and halves and doubles of East Asian widths.
            '\u{132}'
            | '\u{133}'
            | '\u{149}'
            | '\u{1c4}'..='\u{1cc}'
            | '\u{1f1}'..='\u{1f3}'
            | '\u{fb00}'..='\u{fb04}'
            | '\u{fb06}'
            | '\u{ff01}'..='\u{ffef}' => out.push_str(&nfkc.normalize(character.encode_utf8(&mut [0; 4]))),
            '\0'..='\u{8}'
            | '\u{b}'
            | '\u{e}'..='\u{1f}'
            | '\u{7f}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffc}' => {}
            other => out.push(other),
        }
    }
    ComposingNormalizerBorrowed::new_nfc().normalize(&out).into_owned()
}

/// Without what turns a terminal's letters red: ESC, a bracket, numbers, a letter.
fn without_terminal_escapes(line: &str) -> Cow<'_, str> {
    if !line.contains("\u{1b}[") {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut parts = line.split("\u{1b}[");
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != ';');
        match end.filter(|&end| part[end..].starts_with(|c: char| c.is_ascii_alphabetic())) {
            Some(end) => out.push_str(&part[end + 1..]),
            None => {
                out.push_str("\u{1b}[");
                out.push_str(part);
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_mended_and_the_rest_stays() {
        for (text, mended) in [
            ("plain text", "plain text"),
            ("‘a’ “b” ‚c‘ „d“", "'a' \"b\" 'c' \"d\""),
            ("ﬁne ﬂat Ĳs ŉ ﬅ", "fine flat IJs 'n ſt"),
            ("ＦＵＬＬ　ｗｉｄｔｈ ｶﾞ", "FULL width ガ"),
            ("e\u{301}", "é"),
            ("a\r\nb\rc\u{2028}d", "a\nb\nc\nd"),
            ("a\u{0}b\u{feff}c\u{1b}[31mred\u{1b}[0m", "abcred"),
            ("\u{85}x\u{96}", "…x–"),
            ("&lt;b&gt;", "<b>"),
            ("<i>&lt;b&gt;", "<i>&lt;b&gt;"),
            ("<\n&amp;", "<\n&amp;"),
            ("日本語 🙂 \u{200d}", "日本語 🙂 \u{200d}"),
        ] {
            assert_eq!(mend(text), mended, "{text:?}");
        }
    }
}
