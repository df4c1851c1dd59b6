//! The text that goes with an image, as the ids that a text tower reads.
use crate::{
    augment::{BadClass, BadSample},
    seed::{DrawKey, ItemKey},
    tokenize::clip::{self, CONTEXT_TOKENS},
};

/// Version of what becomes of a text: cleaning, encoding, the draw among several.
const TOKENS_VERSION: u32 = 1;

/// Tokens of a caption column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionTokens {
    column: String,
    separator: Option<String>,
    context_tokens: usize,
}

impl CaptionTokens {
    /// Of texts in `column`, several of them with `separator` in between, cut to `context_tokens`.
    pub fn new(column: &str, separator: Option<&str>, context_tokens: Option<usize>) -> Self {
        Self {
            column: column.to_owned(),
            separator: separator.filter(|separator| !separator.is_empty()).map(str::to_owned),
            context_tokens: context_tokens.unwrap_or(CONTEXT_TOKENS),
        }
    }

    /// Where the texts are.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Everything that decides the ids, as one line.
    pub fn describe(&self) -> String {
        let Self { column, separator, context_tokens } = self;
        format!("tokens v{TOKENS_VERSION} caption={column} separator={separator:?} context_tokens={context_tokens}")
    }

    /// Ids of one of a sample's texts, start and end included: the only one, or one that is drawn by the item's name.
    ///
    /// # Errors
    /// There is none, or nothing is left of it once it is cleaned.
    pub fn tokens(&self, texts: &[&str], seed: u64, pass: u64, item: ItemKey) -> Result<Vec<u32>, BadSample> {
        let none = |message: &str| BadSample { class: BadClass::NoCaption, message: message.to_owned() };
        let parts = texts.iter().flat_map(|text| self.parts(text)).map(str::trim);
        let texts: Vec<&str> = parts.filter(|text| !text.is_empty()).collect();
        if texts.is_empty() {
            return Err(none("its caption is empty or null"));
        }
        let draw = DrawKey { seed, pass, item, view: 0, op: "caption", op_occurrence: 0 };
        let ids = clip::tokens(texts[draw.draws().below(texts.len() as u64) as usize], self.context_tokens);
        match ids.len() {
            0..=2 => Err(none("no token is left of its caption once it is cleaned")),
            _ => Ok(ids),
        }
    }

    fn parts<'a>(&'a self, text: &'a str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match &self.separator {
            Some(separator) => Box::new(text.split(separator.as_str())),
            None => Box::new(std::iter::once(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn item(row: u64) -> ItemKey {
        ItemKey { shard: 7, row, occurrence: 0 }
    }

    #[test]
    fn a_caption_becomes_its_ids_and_is_cut_to_the_context() {
        let tokens = |context| CaptionTokens::new("caption", None, context).tokens(&[" Hello world\n"], 1, 2, item(3));
        assert_eq!(tokens(None).unwrap(), [49406, 3306, 1002, 49407]);
        assert_eq!(tokens(Some(3)).unwrap(), [49406, 3306, 49407]);
    }

    #[test]
    fn one_of_several_captions_is_drawn_by_seed_pass_and_item() {
        let lists = CaptionTokens::new("captions", None, None);
        let parts = CaptionTokens::new("captions", Some("|"), None);
        let drawn = |seed, pass, row| lists.tokens(&["one", "", "two", "three"], seed, pass, item(row)).unwrap();
        let mut seen = BTreeSet::new();
        for row in 0..60 {
            let of_list = drawn(1, 2, row);
            assert_eq!(of_list, drawn(1, 2, row));
            assert_eq!(of_list, parts.tokens(&["one| |two|three"], 1, 2, item(row)).unwrap());
            seen.insert(of_list);
        }
        assert_eq!(seen.len(), 3);
        let differs = |other: &dyn Fn(u64) -> Vec<u32>| (0..60).any(|row| other(row) != drawn(1, 2, row));
        assert!(differs(&|row| drawn(2, 2, row)) && differs(&|row| drawn(1, 3, row)));
    }

    #[test]
    fn empty_captions_are_bad_samples() {
        let captions = CaptionTokens::new("caption", Some(";"), None);
        assert_eq!(captions.tokens(&[], 0, 0, item(0)).unwrap_err().class, BadClass::NoCaption);
        for texts in ["", " \n", "; ;", "&nbsp;"] {
            let bad = captions.tokens(&[texts], 0, 0, item(0)).unwrap_err();
            assert_eq!(bad.class, BadClass::NoCaption, "{texts:?}");
        }
    }

    #[test]
    fn every_setting_is_in_the_description() {
        let of = |column, separator, context| CaptionTokens::new(column, separator, context).describe();
        let base = of("caption", None, Some(77));
        assert_eq!(base, of("caption", Some(""), None));
        for other in [of("text", None, None), of("caption", Some("|"), None), of("caption", None, Some(24))] {
            assert_ne!(other, base);
        }
    }
}
