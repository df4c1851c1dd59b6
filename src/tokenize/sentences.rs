//! Documents into sentences.
use serde::{Deserialize, Serialize};

/// Marks that end a sentence where white space follows.
const ENDS: [char; 4] = ['.', '!', '?', '…'];
/// Marks that end a sentence whatever follows: their scripts write no space behind it.
const FULL_ENDS: [char; 3] = ['。', '！', '？'];
/// What may close a sentence behind its mark.
const CLOSERS: [char; 10] = ['"', '\'', '”', '’', '»', ')', ']', '}', '」', '』'];

/// What a document is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentenceUnit {
    /// Up to a full stop, question or exclamation mark and what closes behind it, or a blank line: for prose.
    #[default]
    Sentences,
    /// Lines: for text that was cut before, and for code and verse.
    Lines,
}

impl SentenceUnit {
    /// As a pipeline writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sentences => "sentences",
            Self::Lines => "lines",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sentences, Self::Lines].into_iter().find(|unit| unit.name() == name)
    }

    /// The sentences of a text in their order, each without white space around it; what holds no letter and no digit is
    /// none (rules, bullets).
    ///
    /// A full stop ends a sentence where white space follows, and behind that no small letter (`e.g. this`), and where more
    /// than one letter stands before it (`J. Smith`). Other abbreviations (`Mr. Smith`) end one: the rule knows no language.
    pub fn of(self, text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        match self {
            Self::Lines => found.extend(text.lines()),
            Self::Sentences => paragraphs(text).for_each(|paragraph| cut(paragraph, &mut found)),
        }
        found.retain_mut(|sentence| {
            *sentence = sentence.trim();
            sentence.chars().any(char::is_alphanumeric)
        });
        found
    }
}

/// Stretches between blank lines.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            end += line.len();
            if line.trim().is_empty() {
                break;
            }
        }
        let (paragraph, after) = rest.split_at(end);
        rest = after;
        Some(paragraph)
    })
}

fn cut<'a>(paragraph: &'a str, found: &mut Vec<&'a str>) {
    let (mut start, mut word_start) = (0, 0);
    let mut marks = paragraph.char_indices().peekable();
    while let Some((at, mark)) = marks.next() {
        if mark.is_whitespace() {
            word_start = at + mark.len_utf8();
        }
        let is_full = FULL_ENDS.contains(&mark);
        if !is_full && !ENDS.contains(&mark) {
            continue;
        }
        let is_initial = mark == '.' && is_one_letter(&paragraph[word_start..at]);
        let mut end = at + mark.len_utf8();
        let closes =
            |mark: &(usize, char)| CLOSERS.contains(&mark.1) || ENDS.contains(&mark.1) || FULL_ENDS.contains(&mark.1);
        while let Some((at, mark)) = marks.next_if(closes) {
            end = at + mark.len_utf8();
        }
        let rest = &paragraph[end..];
        let next = rest.trim_start().chars().next();
        let is_apart = rest.starts_with(char::is_whitespace) && !next.is_some_and(char::is_lowercase);
        if is_full || (is_apart && !is_initial) {
            found.push(&paragraph[start..end]);
            (start, word_start) = (end, end);
        }
    }
    found.push(&paragraph[start..]);
}

fn is_one_letter(word: &str) -> bool {
    let mut letters = word.trim_start_matches(|mark: char| !mark.is_alphanumeric()).chars();
    letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_marks_and_blank_lines_and_may_run_over_lines() {
        let text =
            "First one\nruns on. Second!  Third? \"Fourth.\" Fifth (so it is.) Sixth\n\n* * *\n\nA heading\n \nLast";
        let expected = [
            "First one\nruns on.",
            "Second!",
            "Third?",
            "\"Fourth.\"",
            "Fifth (so it is.)",
            "Sixth",
            "A heading",
            "Last",
        ];
        assert_eq!(SentenceUnit::Sentences.of(text), expected);
        assert_eq!(SentenceUnit::Sentences.of("これは一つ。二つ目！終わり"), ["これは一つ。", "二つ目！", "終わり"]);
        assert_eq!(SentenceUnit::Sentences.of("Wait... what?! Yes."), ["Wait... what?!", "Yes."]);
        assert!(SentenceUnit::Sentences.of(" \n\n--- ...\n").is_empty());
    }

    #[test]
    fn numbers_initials_and_small_letters_end_no_sentence() {
        let text = "Pi is 3.14 here, e.g. for J. Smith and (K. Jones). So v1.2.3 it is";
        assert_eq!(
            SentenceUnit::Sentences.of(text),
            ["Pi is 3.14 here, e.g. for J. Smith and (K. Jones).", "So v1.2.3 it is"]
        );
    }

    #[test]
    fn lines_are_lines() {
        assert_eq!(SentenceUnit::Lines.of("One. Two.\r\n\n  three\n---\n"), ["One. Two.", "three"]);
    }

    #[test]
    fn nothing_of_a_text_is_lost_or_twice() {
        let text = "One. Two? three! Four\nfive. Six: \"seven.\" eight.\n\nNine";
        let kept: String = SentenceUnit::Sentences.of(text).concat().split_whitespace().collect();
        assert_eq!(kept, text.split_whitespace().collect::<String>());
    }
}
