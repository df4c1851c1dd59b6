//! `sentences`: stretches of consecutive sentences of documents, as ids.
//!
//! A window is what a window of a series is: what comes first in it predicts what comes later. Only the sentences of a
//! window are tokenized.
use serde::{Deserialize, Serialize};

use super::{Encoded, SampleKernel, context_future::one, starts::Starts};
use crate::{
    augment::{BadClass, BadSample, series::recipe::WindowKey},
    scan::tensor_column::Element,
    seed::ItemKey,
    tokenize::{sentences::SentenceUnit, tokenizer::Tokenizer},
};

/// `[pair.sentences]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentencesSettings {
    /// Column with the text.
    #[serde(default = "default_column")]
    pub column: String,
    /// What a document is cut into.
    #[serde(default)]
    pub unit: SentenceUnit,
    /// How a sentence becomes ids.
    #[serde(default)]
    pub tokenizer: Tokenizer,
    /// Consecutive sentences of a window.
    pub window_sentences: usize,
    /// Ids of a sentence: longer ones are cut, shorter ones padded.
    pub sentence_tokens: usize,
    /// Windows of one document that meet in a batch.
    #[serde(default = "one")]
    pub windows_per_document: usize,
    /// Column whose values say which documents belong together, for negatives of the same group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Windows of one document that an evaluation averages over, from its first sentence to its last.
    #[serde(default = "one")]
    pub evaluation_windows: usize,
}
fn default_column() -> String {
    "text".into()
}

/// Fills slots with windows of documents: a row is `[sentences, tokens]`, ids from 1 and 0 for padding.
#[derive(Debug, Clone)]
pub struct Sentences {
    name: &'static str,
    settings: SentencesSettings,
    windows: usize,
    starts: Starts,
    shape: [usize; 2],
}

impl Sentences {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "sentences";
    /// Under which name evaluations describe their windows.
    pub const EVALUATION_NAME: &'static str = "document_windows";

    /// The windows that training sees: drawn by seed, pass and item, none twice in a pass.
    pub fn training(settings: &SentencesSettings) -> Self {
        let starts = Starts::Random { hop_steps: 1 };
        Self::new(Self::NAME, settings.clone(), settings.windows_per_document, starts)
    }

    /// The windows that an evaluation sees: no draw; documents shorter than a window are followed by padding.
    pub fn evaluation(settings: &SentencesSettings) -> Self {
        let settings = SentencesSettings { group: None, ..settings.clone() };
        let windows = settings.evaluation_windows;
        Self::new(Self::EVALUATION_NAME, settings, windows, Starts::Covering)
    }

    fn new(name: &'static str, settings: SentencesSettings, windows: usize, starts: Starts) -> Self {
        let shape = [settings.window_sentences, settings.sentence_tokens];
        Self { name, settings, windows, starts, shape }
    }

    /// Sentences that a document needs.
    pub fn least_sentences(&self) -> usize {
        self.starts.least_steps(self.settings.window_sentences, self.windows)
    }

    /// What a row's ids stand for, a sentence each, to be read by people.
    pub fn texts_of(&self, ids: &[u32]) -> Vec<String> {
        let sentences = ids.chunks(self.settings.sentence_tokens.max(1));
        sentences.map(|ids| self.settings.tokenizer.text_of(ids)).collect()
    }
}

impl SampleKernel for Sentences {
    fn name(&self) -> &str {
        self.name
    }

    fn column(&self) -> &str {
        &self.settings.column
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn element(&self) -> Element {
        Element::U32
    }

    fn rows_per_item(&self) -> usize {
        self.windows
    }

    fn makes_windows(&self) -> bool {
        true
    }

    fn group_column(&self) -> Option<&str> {
        self.settings.group.as_deref()
    }

    fn describe(&self) -> String {
        let SentencesSettings { column, unit, tokenizer, window_sentences, sentence_tokens, .. } = &self.settings;
        format!(
            "{} v1 column={column} unit={} tokenizer={} window_sentences={window_sentences} \
             sentence_tokens={sentence_tokens} windows={} starts={}",
            self.name,
            unit.name(),
            tokenizer.name(),
            self.windows,
            self.starts
        )
    }

    fn apply(
        &self,
        encoded: Encoded<'_>,
        seed: u64,
        pass: u64,
        item: ItemKey,
        out: &mut [u8],
    ) -> Result<(), BadSample> {
        let SentencesSettings { column, unit, tokenizer, window_sentences, sentence_tokens, .. } = &self.settings;
        let text = std::str::from_utf8(encoded.bytes)
            .map_err(|error| BadSample::undecodable(format!("{column} is no UTF-8 text: {error}")))?;
        let sentences = unit.of(text);
        let least = self.least_sentences();
        if sentences.len() < least {
            let remedy = match unit {
                SentenceUnit::Sentences => format!(
                    "add `sentences >= {least}` to the WHERE of scan.sql, or `text_sentences({column}) >= {least}` where \
                     the shards do not count them"
                ),
                SentenceUnit::Lines => {
                    format!("add `text_sentences({column}, 'lines') >= {least}` to the WHERE of scan.sql")
                }
            };
            let message = format!(
                "{column} has {} {}, fewer than the {least} that {} takes; {remedy}",
                sentences.len(),
                unit.name(),
                self.name
            );
            return Err(BadSample { class: BadClass::TooShort, message });
        }
        let draws = || WindowKey { seed, pass, item, window: 0 }.draws(self.name, 0);
        let starts = self.starts.of(sentences.len(), *window_sentences, self.windows, item.occurrence as usize, draws);
        let mut ids = vec![0; *sentence_tokens];
        let places = starts.iter().flat_map(|start| (0..*window_sentences).map(move |at| start + at));
        for (place, slot) in places.zip(out.chunks_exact_mut(sentence_tokens * Element::U32.bytes())) {
            match sentences.get(place) {
                Some(sentence) => tokenizer.fill(sentence, &mut ids),
                None => ids.fill(0),
            }
            slot.as_chunks_mut::<4>().0.iter_mut().zip(&ids).for_each(|(bytes, id)| *bytes = id.to_le_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn settings(text: &str) -> SentencesSettings {
        toml::from_str(text).unwrap()
    }

    /// The windows of a document as texts.
    fn windows(kernel: &Sentences, text: &[u8], pass: u64, row: u64) -> Result<Vec<Vec<String>>, BadClass> {
        // A slot's memory held another batch before.
        let mut out = vec![0xff; kernel.slot_bytes()];
        let item = ItemKey { shard: 1, row, occurrence: 0 };
        kernel.apply(Encoded::image(text), 7, pass, item, &mut out).map_err(|bad| bad.class)?;
        let ids: Vec<u32> = out.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        Ok(ids.chunks(kernel.shape().iter().product()).map(|ids| kernel.texts_of(ids)).collect())
    }

    const TEN: &str = "Zero. One. Two. Three. Four. Five. Six. Seven. Eight. Nine.";
    const NAMES: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

    fn position(sentence: &str) -> usize {
        NAMES.iter().position(|name| sentence == format!("{name} .")).unwrap_or_else(|| panic!("{sentence:?}"))
    }

    #[test]
    fn windows_are_consecutive_sentences_and_reach_both_ends() {
        let kernel = Sentences::training(&settings("window_sentences = 4\nsentence_tokens = 6"));
        let mut starts = BTreeSet::new();
        for row in 0..200 {
            let found = windows(&kernel, TEN.as_bytes(), 0, row).unwrap();
            let places: Vec<usize> = found[0].iter().map(|sentence| position(sentence)).collect();
            assert!(found.len() == 1 && places.windows(2).all(|pair| pair[1] == pair[0] + 1), "{places:?}");
            starts.insert(places[0]);
        }
        assert_eq!(starts, (0..=6).collect());
    }

    #[test]
    fn draws_are_those_of_seed_pass_and_item_and_windows_of_a_document_differ() {
        let kernel =
            Sentences::training(&settings("window_sentences = 3\nsentence_tokens = 4\nwindows_per_document = 4"));
        let drawn = |pass, row| windows(&kernel, TEN.as_bytes(), pass, row).unwrap();
        assert_eq!(drawn(0, 0), drawn(0, 0));
        assert!((1..9).any(|pass| drawn(pass, 0) != drawn(0, 0)) && (1..9).any(|row| drawn(0, row) != drawn(0, 0)));
        let starts: BTreeSet<usize> = drawn(0, 3).iter().map(|window| position(&window[0])).collect();
        assert_eq!(starts.len(), 4);
    }

    #[test]
    fn documents_that_are_short_or_no_text_are_bad_samples() {
        let text = "window_sentences = 3\nsentence_tokens = 4\nwindows_per_document = 2";
        let kernel = Sentences::training(&settings(text));
        assert_eq!(kernel.least_sentences(), 4);
        assert_eq!(windows(&kernel, b"One. Two. Three.", 0, 0), Err(BadClass::TooShort));
        assert_eq!(windows(&kernel, b"One. Two. Three. \xff", 0, 0), Err(BadClass::Decode));
        let lines = Sentences::training(&settings(&format!("{text}\nunit = \"lines\"")));
        assert_eq!(windows(&lines, TEN.as_bytes(), 0, 0), Err(BadClass::TooShort));
    }

    #[test]
    fn evaluations_cover_a_document_and_pad_short_ones() {
        let text = "window_sentences = 4\nsentence_tokens = 5\nevaluation_windows = 2\ntokenizer = \"bytes\"";
        let kernel = Sentences::evaluation(&settings(text));
        let found = windows(&kernel, TEN.as_bytes(), 3, 1).unwrap();
        assert_eq!((found[0][0].as_str(), found[1][3].as_str()), ("Zero.", "Nine."));
        assert_eq!(found[1][1], "Seven", "cut at five bytes");
        let short = windows(&kernel, b"Only this.", 0, 0).unwrap();
        assert_eq!(short[0], ["Only ", "", "", ""]);
    }
}
