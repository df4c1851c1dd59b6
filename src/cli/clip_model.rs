//! The words that name a CLIP.
use std::path::PathBuf;

use clap::Args;
use diptych::{
    error::{Error, Result, Stage},
    evaluate::clip::clip_score::ClipScore,
    run::clip_model::{ClipModel, Place},
    select::functions::clip_score::ClipScores,
};

/// A model that embeds images and texts.
#[derive(Debug, Args)]
pub(crate) struct ClipModelWords {
    /// A CLIP: a safetensors file, or the folder in which it is with its configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    weights: Option<PathBuf>,
    /// A CLIP that was trained here: the folder of its run, of which the newest checkpoint counts.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Where the model runs: cpu (the default), or cuda:0, cuda:1, … where the build has it.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

impl ClipModelWords {
    /// Which one, where one is named.
    pub(crate) fn named(self) -> Result<Option<ClipModel>> {
        let Self { weights, run, device } = self;
        let place = weights.map(Place::Weights).or(run.map(Place::Run));
        match (place, device) {
            (Some(place), device) => Ok(Some(ClipModel { place, device: device.unwrap_or_else(|| "cpu".to_owned()) })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(homeless("--device")),
        }
    }

    /// Which one, where there must be one.
    pub(crate) fn wanted(self) -> Result<ClipModel> {
        let missing = || Error::at(Stage::CommandLine, "", "name a CLIP with --weights or --run");
        self.named()?.ok_or_else(missing)
    }
}

/// What `clip_score(image, caption)` asks.
#[derive(Debug, Args)]
pub(crate) struct ClipScoreWords {
    #[command(flatten)]
    model: ClipModelWords,
    /// What clip_score(image, caption) gives: hessel (the default; 2.5 cos, captions after "A photo depicts "), torchmetrics
    /// (100 cos), cosine.
    #[arg(long, value_name = "VARIANT")]
    clip_score: Option<ClipScore>,
}

impl ClipScoreWords {
    /// The model, where one is named.
    pub(crate) fn scores(self) -> Result<Option<ClipScores>> {
        match (self.model.named()?, self.clip_score) {
            (Some(model), variant) => model.scores(variant.unwrap_or(ClipScore::Hessel)).map(Some),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(homeless("--clip-score")),
        }
    }
}

fn homeless(option: &str) -> Error {
    Error::at(Stage::CommandLine, option, "says something of a model, and none is named; add --weights or --run")
}
