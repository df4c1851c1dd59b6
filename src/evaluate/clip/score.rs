//! Images x texts into what a CLIP says of each pair.
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::clip_score::ClipScore;
use crate::augment::BadSample;
use crate::error::{Error, Result, Stage};
use crate::model::clip::Captions;
use crate::tokenize::clip::tokens;

/// Images that go through the model at once.
const IMAGES_AT_ONCE: usize = 16;
/// Texts that go through the model at once.
const TEXTS_AT_ONCE: usize = 64;

/// One image and one text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The text.
    pub text: String,
    /// Among all texts; for a model with a bias (SigLIP) that of the pair by itself.
    pub probability: f64,
    /// The scaled cosine.
    pub logit: f32,
    /// Cosine of both embeddings.
    pub cosine: f32,
    /// In the variant that was asked for.
    pub clip_score: f32,
}

impl Pair {
    /// Whether these are numbers; they are not where weights are damaged, or their scale is.
    pub fn is_finite(&self) -> bool {
        self.logit.is_finite() && self.cosine.is_finite()
    }
}

/// Texts, embedded once for any number of images.
#[derive(Debug)]
pub struct Scorer<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    texts: Vec<String>,
    variant: ClipScore,
    /// `[texts, embedding]`
    plain: Tensor<2>,
    /// With the variant's prompt; `None` where it has none.
    prompted: Option<Tensor<2>>,
}

impl<'a> Scorer<'a> {
    /// Embeds the texts, which are cut where the model reads no further.
    ///
    /// # Errors
    /// There are none; the model has another vocabulary.
    pub fn new(checkpoint: &'a Checkpoint, texts: Vec<String>, variant: ClipScore, device: &'a Device) -> Result<Self> {
        let embed = |prompt: &str| -> Result<Tensor<2>> {
            let parts = texts.chunks(TEXTS_AT_ONCE).map(|texts| {
                let prompted: Vec<String> = texts.iter().map(|text| format!("{prompt}{text}")).collect();
                embed_texts(checkpoint, &prompted, device)
            });
            Ok(Tensor::cat(parts.collect::<Result<Vec<_>>>()?, 0))
        };
        if texts.is_empty() {
            return Err(Error::at(Stage::CommandLine, "--text", "there are no texts"));
        }
        let plain = embed("")?;
        let prompted = if variant.prompt().is_empty() { None } else { Some(embed(variant.prompt())?) };
        Ok(Self { checkpoint, device, texts, variant, plain, prompted })
    }

    /// What the model says of each encoded image and every text.
    ///
    /// # Errors
    /// The first image that is bad, by its index.
    pub fn score(&self, images: &[Vec<u8>], max_pixels: u64) -> Result<Vec<Vec<Pair>>, (usize, BadSample)> {
        let mut scores = Vec::with_capacity(images.len());
        for (chunk, images) in images.chunks(IMAGES_AT_ONCE).enumerate() {
            let preprocess = &self.checkpoint.described.preprocess;
            let values: Vec<_> = images.par_iter().map(|image| preprocess.values(image, max_pixels)).collect();
            let mut pixels = Vec::new();
            for (index, values) in values.into_iter().enumerate() {
                pixels.extend(values.map_err(|bad| (chunk * IMAGES_AT_ONCE + index, bad))?);
            }
            let side = preprocess.crop_side_pixels;
            let pixels = TensorData::new(pixels, [images.len(), 3, side, side]);
            scores.extend(self.score_pixels(Tensor::from_data(pixels, self.device)));
        }
        Ok(scores)
    }

    /// `[images, 3, side, side]` to a row of pairs per image.
    fn score_pixels(&self, pixels: Tensor<4>) -> Vec<Vec<Pair>> {
        let clip = &self.checkpoint.clip;
        let images = clip.encode_images(pixels); // [images, embedding]
        let cosines = clip.cosines(images.clone(), self.plain.clone()); // [images, texts]
        let logits = host(clip.logits(cosines.clone()));
        let cosines = host(cosines);
        let prompted = self.prompted.as_ref().map(|texts| host(clip.cosines(images, texts.clone())));
        let count = self.texts.len();
        let rows = logits.chunks(count).zip(cosines.chunks(count)).enumerate();
        rows.map(|(row, (logits, cosines))| {
            let prompted = prompted.as_ref().map_or(cosines, |all| &all[row * count..][..count]);
            let probabilities = if clip.logit_bias.is_some() { logistic(logits) } else { softmax(logits) };
            let pair = |at: usize| Pair {
                text: self.texts[at].clone(),
                probability: probabilities[at],
                logit: logits[at],
                cosine: cosines[at],
                clip_score: self.variant.value(prompted[at]),
            };
            (0..count).map(pair).collect()
        })
        .collect()
    }
}

/// Texts through the model, cut where it reads no further.
///
/// # Errors
/// The model has another vocabulary.
pub fn embed_texts(checkpoint: &Checkpoint, texts: &[String], device: &Device) -> Result<Tensor<2>> {
    let settings = &checkpoint.described.settings.text;
    if settings.vocabulary_tokens < crate::tokenize::clip::VOCABULARY_TOKENS {
        let reason = format!(
            "the model has {} tokens; texts are encoded with CLIP's {}",
            settings.vocabulary_tokens,
            crate::tokenize::clip::VOCABULARY_TOKENS
        );
        return Err(Error::at(Stage::Model, "texts", reason));
    }
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokens(text, settings.context_tokens)).collect();
    checkpoint.clip.encode_texts(&Captions::new(&ids, device)?)
}

fn host(values: Tensor<2>) -> Vec<f32> {
    values.into_data().try_into_vec::<f32>().unwrap_or_default()
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| libm::exp(f64::from(logit - largest))).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn logistic(logits: &[f32]) -> Vec<f64> {
    logits.iter().map(|&logit| 1.0 / (1.0 + libm::exp(-f64::from(logit)))).collect()
}
