//! Sentences into ids from 1, for encoders that take 0 for padding.
use serde::{Deserialize, Serialize};

use super::clip;

/// Ids of bytes: what UTF-8 needs.
const BYTES: usize = 256;

/// How a sentence becomes ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// CLIP's byte-pair encoding of cleaned, lower-cased text, without its marks of start and end.
    #[default]
    Clip,
    /// Bytes of UTF-8 with one space for white space.
    Bytes,
}

impl Tokenizer {
    /// As a pipeline writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::Bytes => "bytes",
        }
    }

    /// Ids that may occur, the padding 0 included.
    pub fn vocabulary_tokens(self) -> usize {
        1 + match self {
            Self::Clip => clip::VOCABULARY_TOKENS,
            Self::Bytes => BYTES,
        }
    }

    /// The first ids of a sentence, and 0 behind its last.
    pub fn fill(self, sentence: &str, ids: &mut [u32]) {
        ids.fill(0);
        match self {
            Self::Clip => {
                let marked = clip::tokens(sentence, ids.len() + 2);
                let between = &marked[1..marked.len() - 1];
                ids.iter_mut().zip(between).for_each(|(id, token)| *id = 1 + token);
            }
            Self::Bytes => {
                let words = sentence.split_whitespace().enumerate();
                let spaced = words.flat_map(|(at, word)| (at > 0).then_some(b' ').into_iter().chain(word.bytes()));
                ids.iter_mut().zip(spaced).for_each(|(id, byte)| *id = 1 + u32::from(byte));
            }
        }
    }

    /// What ids stand for, to be read by people.
    pub fn text_of(self, ids: &[u32]) -> String {
        let ids = ids.iter().filter_map(|id| id.checked_sub(1));
        match self {
            Self::Clip => clip::text_of(ids),
            Self::Bytes => String::from_utf8_lossy(&ids.map(|id| id as u8).collect::<Vec<u8>>()).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(tokenizer: Tokenizer, sentence: &str, length: usize) -> Vec<u32> {
        let mut ids = vec![7; length];
        tokenizer.fill(sentence, &mut ids);
        ids
    }

    #[test]
    fn ids_begin_at_one_and_padding_follows_them() {
        assert_eq!(filled(Tokenizer::Clip, "Hello\nworld", 5), [3307, 1003, 0, 0, 0]);
        assert_eq!(filled(Tokenizer::Clip, "hello world", 1), [3307]);
        assert_eq!(filled(Tokenizer::Clip, "", 2), [0, 0]);
        // CLIP's id of ! is 0.
        assert_eq!(filled(Tokenizer::Clip, "!", 2), [256 + 1, 0]);
        assert_eq!(filled(Tokenizer::Bytes, " a\t b ", 5), [98, 33, 99, 0, 0]);
        assert_eq!(filled(Tokenizer::Bytes, "é", 1), [1 + 0xc3]);
    }

    #[test]
    fn every_id_is_in_the_vocabulary_and_reads_as_what_it_came_from() {
        let sentence = "Ünïcode “quotes”, numbers 42 and <|endoftext|> !";
        for tokenizer in [Tokenizer::Clip, Tokenizer::Bytes] {
            let ids = filled(tokenizer, sentence, 100);
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary_tokens()), "{ids:?}");
            assert!(tokenizer.text_of(&ids).contains("numbers"), "{}", tokenizer.text_of(&ids));
        }
        assert_eq!(Tokenizer::Bytes.text_of(&filled(Tokenizer::Bytes, "a  b", 9)), "a b");
    }
}
