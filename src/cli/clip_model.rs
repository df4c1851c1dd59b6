//! The words that name a CLIP.
use std::path::PathBuf;

use clap::Args;
use diptych::{
    error::Result, evaluate::clip::clip_score::ClipScore, run::clip_model::ClipModel,
    select::functions::clip_score::ClipScores,
};

/// What `clip_score(image, caption)` asks.
#[derive(Debug, Args)]
pub(crate) struct ClipScoreWords {
    /// A CLIP for clip_score(image, caption): a safetensors file, or the folder in which it is with its configuration.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// What clip_score gives: hessel (2.5 cos, captions after "A photo depicts "), torchmetrics (100 cos), cosine.
    #[arg(long, value_name = "VARIANT", default_value = "hessel", requires = "weights")]
    clip_score: ClipScore,
    /// Where the model of --weights runs: cpu, or cuda:0, cuda:1, … where the build has it.
    #[arg(long, value_name = "NAME", default_value = "cpu", requires = "weights")]
    device: String,
}

impl ClipScoreWords {
    /// The model, where one is named.
    pub(crate) fn model(self) -> Result<Option<ClipScores>> {
        let Self { weights, clip_score, device } = self;
        weights.map(|weights| ClipModel { weights, device }.scores(clip_score)).transpose()
    }
}
