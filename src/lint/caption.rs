//! Captions that describe no image.
use std::borrow::Cow;

/// Fewer characters say nothing.
pub const LEAST_CHARACTERS: usize = 6;
/// Fewer words say little.
pub const LEAST_WORDS: usize = 2;
/// Endings of file names.
const ENDINGS: [&str; 12] =
    [".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".heic", ".psd", ".pdf"];
/// What cameras and telephones begin their file names with.
const CAMERA_PREFIXES: [&str; 7] = ["img_", "dsc_", "dscn", "dscf", "pict", "image_", "screenshot_"];
/// Characters of Windows code page 1252 at 0x80 to 0x9f; the unassigned five as Latin-1 has them.
const CP1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// One reason to doubt a caption: a class of findings and a sentence.
pub type Doubt = (&'static str, Cow<'static, str>);

/// Every reason to doubt a caption; none for most.
///
/// ```
/// use diptych::lint::caption::doubts;
///
/// assert!(doubts("a brown dog on a beach").is_empty());
/// assert_eq!(doubts("IMG_2041.jpg")[0].0, "file_name");
/// assert_eq!(doubts("CafÃ© at night")[0].0, "mojibake");
/// ```
pub fn doubts(caption: &str) -> Vec<Doubt> {
    let trimmed = caption.trim();
    if trimmed.is_empty() {
        return vec![("empty", "has no visible character".into())];
    }
    let mut doubts: Vec<Doubt> = vec![];
    if is_file_name(trimmed) {
        doubts.push(("file_name", format!("is the name of a file: {}", excerpt(trimmed)).into()));
    } else if let Some(url) = url(trimmed) {
        doubts.push(("url", format!("holds an address: {}", excerpt(url)).into()));
    } else {
        let (words, characters) = (trimmed.split_whitespace().count(), trimmed.chars().count());
        // Scripts without spaces have one word of many characters.
        let is_one_latin_word = words < LEAST_WORDS && trimmed.is_ascii();
        if characters < LEAST_CHARACTERS || is_one_latin_word {
            let plural = |count: usize| if count == 1 { "" } else { "s" };
            let (s, of_characters) = (plural(words), plural(characters));
            let said = format!("has {words} word{s} and {characters} character{of_characters}: {}", excerpt(trimmed));
            doubts.push(("short", said.into()));
        }
    }
    if let Some(markup) = markup(trimmed) {
        doubts.push(("html", format!("holds markup: {}", excerpt(markup)).into()));
    }
    if let Some(control) = caption.chars().find(|&c| is_control(c)) {
        doubts.push(("control", format!("holds the control character U+{:04X}", control as u32).into()));
    }
    if caption.contains('\u{fffd}') {
        doubts.push(("mojibake", "holds U+FFFD: it was read as UTF-8 and was none".into()));
    } else if let Some((found, meant)) = misread(caption) {
        doubts.push(("mojibake", format!("was UTF-8 read as Windows-1252: {found:?} for {meant:?}").into()));
    }
    doubts
}

fn is_file_name(caption: &str) -> bool {
    if caption.contains(char::is_whitespace) || caption.contains("://") {
        return false;
    }
    let lower = caption.to_lowercase();
    let has_digits_only_after = |prefix: &str| {
        lower
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    ENDINGS.iter().any(|ending| lower.ends_with(ending)) || CAMERA_PREFIXES.iter().any(|p| has_digits_only_after(p))
}

fn url(caption: &str) -> Option<&str> {
    caption.split_whitespace().find(|word| word.contains("://") || word.to_ascii_lowercase().starts_with("www."))
}

/// A tag or an entity.
fn markup(caption: &str) -> Option<&str> {
    for (at, opening) in caption.match_indices(['<', '&']) {
        let rest = &caption[at + 1..];
        let found = match opening {
            "<" => {
                let name = rest.strip_prefix('/').unwrap_or(rest);
                name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '!').then(|| rest.find('>')).flatten()
            }
            _ => {
                let end = rest.find(';').filter(|&end| (2..=8).contains(&end));
                let is_entity = |end: &usize| {
                    let name = &rest[..*end];
                    name.strip_prefix('#').map_or_else(
                        || {
                            name.chars().all(|c| c.is_ascii_alphanumeric())
                                && !name.starts_with(|c: char| c.is_ascii_digit())
                        },
                        |number| !number.is_empty() && number.chars().all(|c| c.is_ascii_hexdigit() || c == 'x'),
                    )
                };
                end.filter(is_entity)
            }
        };
        if let Some(end) = found {
            return Some(&caption[at..=at + 1 + end]);
        }
    }
    None
}

/// Line ends and tabs are not worth a finding.
fn is_control(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || matches!(c, '\u{feff}' | '\u{202a}'..='\u{202e}')
}

/// The first run of characters that is the Windows-1252 reading of one or more UTF-8 characters, and what they were.
fn misread(caption: &str) -> Option<(String, String)> {
    let mut run: Vec<(char, u8)> = vec![];
    for c in caption.chars().chain(std::iter::once(' ')) {
        if let Some(byte) = cp1252(c).filter(|byte| *byte >= 0x80) {
            run.push((c, byte));
            continue;
        }
        // Real text has such runs only by rare accident: "Ã©" is no pair of letters of any language.
        let bytes: Vec<u8> = run.iter().map(|(_, byte)| *byte).collect();
        if bytes.len() > 1
            && let Ok(meant) = std::str::from_utf8(&bytes)
        {
            return Some((run.iter().map(|(c, _)| c).collect(), meant.to_owned()));
        }
        run.clear();
    }
    None
}

fn cp1252(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0..=0x7f | 0xa0..=0xff) => Some(code as u8),
        _ => CP1252.iter().position(|&known| known == c).map(|at| 0x80 + at as u8),
    }
}

/// The beginning of a text, for a sentence.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 60;
    let mut cut: String = text.chars().take(CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(CHARACTERS).is_some() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(caption: &str) -> Vec<&'static str> {
        doubts(caption).into_iter().map(|(class, _)| class).collect()
    }

    #[test]
    fn every_class_is_found() {
        for (caption, class) in [
            ("  \u{a0} ", "empty"),
            ("dog", "short"),
            ("butterflies", "short"),
            ("see https://example.org/a for more", "url"),
            ("www.example.org", "url"),
            ("DSC_0042", "file_name"),
            ("holiday-2020.JPEG", "file_name"),
            ("<b>a red car</b>", "html"),
            ("salt &amp; pepper on a table", "html"),
            ("it&#39;s a dog in the rain", "html"),
            ("a bell \u{7} rings loudly", "control"),
            ("\u{feff}a dog on a beach", "control"),
            ("CafÃ© by the sea", "mojibake"),
            ("donâ€™t look at this", "mojibake"),
            ("a caf\u{fffd} by the sea", "mojibake"),
        ] {
            assert_eq!(classes(caption), [class], "{caption:?}");
        }
    }

    #[test]
    fn good_captions_of_many_languages_are_left_alone() {
        for caption in [
            "a brown dog on a beach",
            "Ein Café am Meer, «schön» – 5 € für alle",
            "São Paulo à noite, où l’été dure…",
            "海辺の茶色い犬が走っている",
            "x < y and y > z, R&D; a & b",
            "“quoted” words — and dashes",
            "line one\nline two",
            "image 3 of the series",
        ] {
            assert_eq!(classes(caption), [""; 0], "{caption:?}");
        }
    }
}
