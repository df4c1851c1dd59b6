//! CLIPScores of rows that have an image and a text each, as SQL asks for them.
use std::collections::HashMap;
use std::hash::Hash;

use super::clip_score::ClipScore;
use super::embedder::{Embedder, is_said};
use crate::error::{Error, Result, Stage};
use crate::evaluate::embeddings::dot;

/// One score per row; `None` where either is missing, the text is blank or the image is bad.
///
/// What stands in several rows goes through the model once.
///
/// # Errors
/// The variant needs several texts per image; the model cannot embed.
pub fn pair_scores<'a>(
    embedder: &Embedder,
    variant: ClipScore,
    images: &[Option<&'a [u8]>],
    texts: &[Option<&'a str>],
) -> Result<Vec<Option<f32>>> {
    check_pairwise(variant)?;
    let of_row = |(image, text): (&Option<&'a [u8]>, &Option<&'a str>)| image.zip(text.filter(|text| is_said(text)));
    let rows: Vec<Option<(&[u8], &str)>> = images.iter().zip(texts).map(of_row).collect();
    let (images, image_of) = distinct(rows.iter().map(|row| row.map(|(image, _)| image)));
    let (texts, text_of) = distinct(rows.iter().map(|row| row.map(|(_, text)| text)));
    let images = embedder.images(&images)?;
    let prompted: Vec<String> = texts.iter().map(|text| format!("{}{text}", variant.prompt())).collect();
    let texts = embedder.texts(&prompted)?;
    let score = |(image, text): (&Option<usize>, &Option<usize>)| {
        let image = images[(*image)?].as_ref().ok()?;
        variant.of_pair(dot(image, &texts[(*text)?]))
    };
    Ok(image_of.iter().zip(&text_of).map(score).collect())
}

/// # Errors
/// The variant says nothing of an image and one text.
pub fn check_pairwise(variant: ClipScore) -> Result<()> {
    if variant.of_pair(0.0).is_some() {
        return Ok(());
    }
    let reason = format!(
        "{} compares the texts of one image with each other, and a row has one text; choose another, or use `diptych score`",
        variant.name()
    );
    Err(Error::at(Stage::CommandLine, "--clip-score", reason))
}

/// Each value once, and where each row's stands among them.
fn distinct<T: Hash + Eq + Copy>(values: impl Iterator<Item = Option<T>>) -> (Vec<T>, Vec<Option<usize>>) {
    let mut known: HashMap<T, usize> = HashMap::new();
    let mut all = Vec::new();
    let mut place = |value: T| {
        *known.entry(value).or_insert_with(|| {
            all.push(value);
            all.len() - 1
        })
    };
    let places = values.map(|value| value.map(&mut place)).collect();
    (all, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_taken_once_and_every_row_finds_its_own() {
        let (all, places) = distinct([Some("b"), None, Some("a"), Some("b")].into_iter());
        assert_eq!((all, places), (vec!["b", "a"], vec![Some(0), None, Some(1), Some(0)]));
    }

    #[test]
    fn a_variant_of_several_texts_is_refused_by_name() {
        let error = check_pairwise(ClipScore::SoftmaxRank).expect_err("needs several").to_string();
        assert!(error.contains("softmax_rank") && error.contains("diptych score"), "{error}");
        assert!(check_pairwise(ClipScore::Hessel).is_ok());
    }
}
