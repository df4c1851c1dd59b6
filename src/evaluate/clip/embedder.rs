//! Encoded images and texts into embeddings of unit length, by either of a CLIP's towers.
//!
//! A released model and a trained run are the same here: a [`Checkpoint`]. Embeddings are on the host.
//!
//! Which other images and texts stand in a batch has no say in an embedding beyond the last bits of an f32: an image keeps its
//! shape, and a text goes only with texts of as many tokens, so that nothing is padded.
use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::checkpoint::Checkpoint;
use crate::augment::BadSample;
use crate::error::{Context as _, Error, Result, Stage};
use crate::evaluate::embeddings::unit;
use crate::model::clip::Captions;
use crate::tokenize::clip::{VOCABULARY_TOKENS, tokens};

/// Images that declare more pixels are refused before they are decoded, as PIL does.
pub const MAX_PIXELS: u64 = 178_956_970;
/// Images that go through the model at once.
const IMAGES_AT_ONCE: usize = 16;
/// Texts that go through the model at once.
const TEXTS_AT_ONCE: usize = 64;

/// A model that embeds.
#[derive(Debug)]
pub struct Embedder {
    checkpoint: Checkpoint,
    device: Device,
}

impl Embedder {
    /// The towers of a checkpoint whose weights are on `device`.
    ///
    /// # Errors
    /// The model has another vocabulary than CLIP's.
    pub fn new(checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let vocabulary = checkpoint.described.settings.text.vocabulary_tokens;
        if vocabulary < VOCABULARY_TOKENS {
            let reason =
                format!("the model has {vocabulary} tokens; texts are encoded with CLIP's {VOCABULARY_TOKENS}");
            return Err(Error::at(Stage::Model, "texts", reason));
        }
        Ok(Self { checkpoint, device })
    }

    /// The model, its settings, and where it comes from.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Numbers of an embedding.
    pub fn width(&self) -> usize {
        self.checkpoint.described.settings.embedding_width
    }

    /// Each encoded image, or why it cannot be used.
    ///
    /// # Errors
    /// The device does not give embeddings back, or one is not finite.
    pub fn images<B: AsRef<[u8]> + Sync>(&self, encoded: &[B]) -> Result<Vec<Result<Vec<f32>, BadSample>>> {
        let preprocess = &self.checkpoint.described.preprocess;
        let side = preprocess.crop_side_pixels;
        let mut all = Vec::with_capacity(encoded.len());
        for images in encoded.chunks(IMAGES_AT_ONCE) {
            let values: Vec<_> = images.par_iter().map(|image| preprocess.values(image.as_ref(), MAX_PIXELS)).collect();
            let usable: Vec<&Vec<f32>> = values.iter().flatten().collect();
            let mut rows = Vec::new();
            if !usable.is_empty() {
                let shape = [usable.len(), 3, side, side];
                let pixels = TensorData::new(usable.into_iter().flatten().copied().collect::<Vec<f32>>(), shape);
                rows = self.rows(self.checkpoint.clip.encode_images(Tensor::from_data(pixels, &self.device)))?;
            }
            let mut rows = rows.into_iter();
            for image in values {
                all.push(match image {
                    Err(bad) => Err(bad),
                    Ok(_) => Ok(rows.next().ok_or_else(|| Error::internal("an image without an embedding"))?),
                });
            }
        }
        Ok(all)
    }

    /// Each text, cut where the model reads no further.
    ///
    /// # Errors
    /// The device does not give embeddings back, or one is not finite.
    pub fn texts<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>> {
        let context = self.checkpoint.described.settings.text.context_tokens;
        let ids: Vec<Vec<u32>> = texts.par_iter().map(|text| tokens(text.as_ref(), context)).collect();
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        ids.iter().enumerate().for_each(|(at, ids)| by_length.entry(ids.len()).or_default().push(at));
        let mut all = vec![Vec::new(); texts.len()];
        for together in by_length.values().flat_map(|places| places.chunks(TEXTS_AT_ONCE)) {
            let ids: Vec<Vec<u32>> = together.iter().map(|&at| ids[at].clone()).collect();
            let captions = Captions::new(&ids, &self.device)?;
            let rows = self.rows(self.checkpoint.clip.encode_texts(&captions)?)?;
            together.iter().zip(rows).for_each(|(&at, row)| all[at] = row);
        }
        Ok(all)
    }

    /// Cosines of one image with texts, as the model scales and shifts them.
    ///
    /// # Errors
    /// The device does not give them back.
    pub fn logits(&self, cosines: &[f32]) -> Result<Vec<f32>> {
        let row = Tensor::from_data(TensorData::new(cosines.to_vec(), [1, cosines.len()]), &self.device);
        host(self.checkpoint.clip.logits(row))
    }

    /// `[rows, embedding]` as unit rows.
    fn rows(&self, embeddings: Tensor<2>) -> Result<Vec<Vec<f32>>> {
        let values = host(embeddings)?;
        let unit_row = |row: &[f32]| {
            let mut row = row.to_vec();
            unit(&mut row).map(|()| row)
        };
        values.chunks_exact(self.width().max(1)).map(unit_row).collect()
    }
}

fn host(values: Tensor<2>) -> Result<Vec<f32>> {
    values.into_data().try_into_vec::<f32>().context(Stage::Evaluate, "embeddings", "are not f32")
}

/// Whether a text says anything: a row with a blank one has none, in training as in evaluation.
pub fn is_said(text: &str) -> bool {
    !text.trim().is_empty()
}
