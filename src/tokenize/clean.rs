//! What CLIP does to a caption before it is encoded.
use super::{mend::mend, unescape::unescape};

/// The iota below: to a pattern that knows no case it is a sign like its capital, a letter, and so part of no word.
const IN_NO_WORD: char = '\u{345}';

/// Repairs, references of HTML decoded twice, one space for white space, lower case.
///
/// Captions come escaped once and, from scrapers of scrapers, twice.
pub fn clean(text: &str) -> String {
    let text = unescape(&unescape(&mend(text))).to_lowercase();
    let mut out = String::with_capacity(text.len());
    let ends_word = |sign: char| sign.is_whitespace() || sign == IN_NO_WORD;
    for word in text.split(ends_word).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_unescaped_folded_and_lower_cased() {
        assert_eq!(clean("  Salt &amp;amp; PEPPER\u{a0}\n "), "salt & pepper");
        assert_eq!(clean("&amp;quot;A&amp;quot; &lt;b&gt;"), "\"a\" <b>");
        // Where there is a tag, references are decoded twice and no more.
        assert_eq!(clean("<b>&amp;amp;amp;"), "<b>&amp;");
        assert_eq!(clean("&amp;amp;amp;amp;"), "&");
        assert_eq!(clean(&format!("&{}", "amp;".repeat(100))), "&");
        assert_eq!(clean("ΟΔΟΣ"), "οδος");
        assert_eq!(clean("a\u{200b}b"), "a\u{200b}b");
        assert_eq!(clean("b\u{345}\u{345}x"), "b x");
    }
}
