//! CLIP's byte-pair encoding of lower-cased text: 49,408 tokens.
use std::sync::LazyLock;

use instant_clip_tokenizer::{Token, Tokenizer};

use super::clean::clean;

/// In front of every text.
pub const START_OF_TEXT: u32 = 49_406;
/// Behind every text, and where it is read off.
pub const END_OF_TEXT: u32 = 49_407;
/// Tokens that CLIP's models read, start and end included.
pub const CONTEXT_TOKENS: usize = 77;
/// Tokens there are.
pub const VOCABULARY_TOKENS: usize = 49_408;

/// Bytes that are encoded at once: the work for one word grows with the square of its length.
const PIECE_BYTES: usize = 16_384;
/// As in `'ſ`, which is one word of two signs.
const LONG_S: &str = "ſ";
/// Id of an apostrophe behind which its word goes on.
const APOSTROPHE_IN_WORD: u32 = 6;
/// The encoder's own spelling of its two marks. Captions are data: whatever they say is text.
const MARKS: [&str; 2] = ["<start_of_text>", "<end_of_text>"];

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);

/// Ids of the text between start and end, of which `context_tokens` in all are kept: the end always is.
///
/// Texts are cleaned as CLIP cleans them. Two marks and nothing between them where there is no text.
pub fn tokens(text: &str, context_tokens: usize) -> Vec<u32> {
    let most = context_tokens.saturating_sub(2);
    let text = clean(text);
    let mut ids = vec![START_OF_TEXT];
    for piece in pieces(&text) {
        if ids.len() > most {
            break;
        }
        encode(piece, &mut ids);
    }
    ids.truncate(most + 1);
    ids.push(END_OF_TEXT);
    ids
}

/// Number of tokens of the whole text, start and end included.
pub fn count(text: &str) -> usize {
    let text = clean(text);
    let mut ids = Vec::new();
    let mut count = 2;
    for piece in pieces(&text) {
        ids.clear();
        encode(piece, &mut ids);
        count += ids.len();
    }
    count
}

/// The text that the ids of a caption stand for, as a model sees it: cleaned, a space behind every word, without start and end.
pub fn text(ids: &[u32]) -> String {
    text_of(ids.iter().copied().filter(|&id| id < START_OF_TEXT))
}

/// What ids stand for, to be read by people: with a space behind each word. Ids of no token are left out.
pub fn text_of(ids: impl IntoIterator<Item = u32>) -> String {
    let token = |id: u32| Token::from_u16(u16::try_from(id).ok()?, &TOKENIZER);
    TOKENIZER.decode(ids.into_iter().filter_map(token)).trim_end().to_owned()
}

/// Appends the ids of cleaned text. CLIP's `'s` stands for `'ſ` too, since its pattern knows no case.
fn encode(text: &str, ids: &mut Vec<u32>) {
    let mut rest = text;
    while let Some(at) = first_long_s(rest) {
        encode_words(&rest[..at], ids);
        ids.push(APOSTROPHE_IN_WORD);
        rest = &rest[at + 1..];
        encode_words(LONG_S, ids);
        rest = &rest[LONG_S.len()..];
    }
    encode_words(rest, ids);
}

/// Where `'ſ` ends a word, and the apostrophe is not the last of several signs.
fn first_long_s(text: &str) -> Option<usize> {
    let begins = |&at: &usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|before| before.is_alphanumeric() || before.is_whitespace())
    };
    text.match_indices('\'').map(|(at, _)| at).filter(|&at| text[at + 1..].starts_with(LONG_S)).find(begins)
}

fn encode_words(text: &str, ids: &mut Vec<u32>) {
    let mut found: Vec<Token> = Vec::new();
    let mut rest = text;
    // Between `<` and a letter there is a boundary anyway, so that two halves of a mark are what text of their letters is.
    while let Some(at) = first_mark(rest) {
        TOKENIZER.encode(&rest[..=at], &mut found);
        rest = &rest[at + 1..];
    }
    TOKENIZER.encode(rest, &mut found);
    ids.extend(found.into_iter().map(|token| u32::from(token.to_u16())));
}

fn first_mark(text: &str) -> Option<usize> {
    let mut signs = text.match_indices('<').map(|(at, _)| at);
    signs.find(|&at| MARKS.iter().any(|mark| text[at..].starts_with(mark)))
}

/// The text in pieces of bounded length, cut at spaces where there are some.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match rest.len() <= PIECE_BYTES {
            true => rest.len(),
            false => {
                let most = rest.floor_char_boundary(PIECE_BYTES);
                rest[..most].rfind(' ').filter(|&at| at > 0).unwrap_or(most)
            }
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_clip() {
        assert_eq!(tokens("hello world", CONTEXT_TOKENS), [49406, 3306, 1002, 49407]);
        assert_eq!(tokens("  Hello\nWORLD", CONTEXT_TOKENS), [49406, 3306, 1002, 49407]);
        assert!(tokens("You should've done this", CONTEXT_TOKENS).contains(&1200));
        assert_eq!(tokens("", CONTEXT_TOKENS), [49406, 49407]);
        assert_eq!(TOKENIZER.start_of_text().to_u16(), 49_406);
        assert_eq!(TOKENIZER.end_of_text().to_u16(), 49_407);
    }

    #[test]
    fn a_long_s_behind_an_apostrophe_is_a_word_as_in_open_clip() {
        for (text, expected) in [
            ("'ſ", &[6, 129, 379][..]),
            ("it'ſhe", &[585, 6, 129, 379, 797]),
            ("x 'ſ y", &[343, 6, 129, 379, 344]),
            ("1'ſ", &[272, 6, 129, 379]),
            ("!'ſ", &[13222, 129, 379]),
            ("''ſ", &[8445, 129, 379]),
            ("ſs", &[129, 123, 338]),
        ] {
            let ids = tokens(text, CONTEXT_TOKENS);
            assert_eq!(ids[1..ids.len() - 1], *expected, "{text}");
        }
    }

    #[test]
    fn ids_are_text_again() {
        assert_eq!(text(&tokens("  A Cat,\nasleep", CONTEXT_TOKENS)), "a cat , asleep");
        assert_eq!(text(&tokens("一只 猫", CONTEXT_TOKENS)), "一只 猫");
        assert_eq!(text(&[START_OF_TEXT, END_OF_TEXT]), "");
    }

    #[test]
    fn long_texts_are_cut_and_keep_their_end() {
        let text = "dog ".repeat(500);
        let ids = tokens(&text, CONTEXT_TOKENS);
        assert_eq!((ids.len(), ids[0], ids[76]), (77, START_OF_TEXT, END_OF_TEXT));
        assert_eq!(count(&text), 502);
        assert_eq!(tokens(&text, 3).len(), 3);
    }

    #[test]
    fn marks_in_captions_are_text() {
        for mark in ["<|endoftext|>", "<|startoftext|>", "<end_of_text>", "<START_OF_TEXT>", "a<end_of_text>b"] {
            let ids = tokens(mark, CONTEXT_TOKENS);
            let inner = &ids[1..ids.len() - 1];
            assert!(!inner.is_empty() && inner.iter().all(|&id| id < START_OF_TEXT), "{mark}: {ids:?}");
        }
        let spaced = tokens("< end _ of _ text >", CONTEXT_TOKENS);
        assert_eq!(tokens("<end_of_text>", CONTEXT_TOKENS), spaced);
    }

    #[test]
    fn pieces_are_the_text_and_a_megabyte_without_spaces_takes_no_minutes() {
        for text in ["", "a b", &"ab ".repeat(20_000), &"ü".repeat(20_001)] {
            assert_eq!(pieces(text).collect::<String>(), text);
            assert!(pieces(text).all(|piece| piece.len() <= PIECE_BYTES));
        }
        assert!(count(&"x".repeat(100_000)) > 1_000);
    }
}
