//! Released CLIPs: their files, and what they say of images and texts.
//!
//! | file | holds |
//! |---|---|
//! | [`checkpoint`] | weights with the settings beside them, in and out |
//! | [`transformers`], [`open_clip`] | those settings as the two libraries write them |
//! | [`clip_score`] | variants of CLIPScore, by name |
//! | [`embedder`] | encoded images and texts into unit embeddings |
//! | [`pair_scores`] | an image and a text per row into scores, for SQL |
//! | [`score`] | images x texts into logits, probabilities, cosines, scores |

pub mod checkpoint;
pub mod clip_score;
pub mod embedder;
pub mod open_clip;
pub mod pair_scores;
pub mod score;
pub mod transformers;

use crate::augment::image::preprocess::Preprocess;
use crate::model::clip::ClipSettings;

/// What a folder says of the weights in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// Sizes and choices of the model.
    pub settings: ClipSettings,
    /// What its images went through.
    pub preprocess: Preprocess,
}
