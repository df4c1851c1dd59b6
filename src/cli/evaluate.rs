//! The words of `evaluate`.
use std::path::PathBuf;

use clap::Args;
use diptych::{
    error::Result,
    run::{
        Named, clip_evaluation,
        clip_model::{ClipModel, Place},
        evaluate,
        folder::PIPELINE,
    },
};

use super::places;

/// Scores the run's latest checkpoint: kNN and linear probe beside the floors on the same split; of methods that embed texts
/// zero-shot classification and retrieval beside chance and the untrained model.
#[derive(Debug, Args)]
pub(crate) struct EvaluateWords {
    /// The run's folder; with --weights a pipeline, or a run for its own, whose [scan] and [evaluate] say what is scored.
    run: PathBuf,
    /// Scores these weights of a CLIP instead: a safetensors file, or the folder in which it is with its configuration.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Where the model of --weights runs: cpu, or cuda:0, cuda:1, … where the build has it.
    #[arg(long, value_name = "NAME", default_value = "cpu", requires = "weights")]
    device: String,
    /// Writes captions with their best images to this page; a run has them in its report.
    #[arg(long, value_name = "FILE", requires = "weights", value_parser = places::local)]
    page: Option<PathBuf>,
    /// Changes one setting, such as evaluate.knn.neighbours=20. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

impl EvaluateWords {
    pub(crate) fn run(self) -> Result<()> {
        let Self { run, weights, device, page, sets, json } = self;
        match weights {
            None => evaluate::run(&run, &sets, json),
            Some(weights) => {
                // A run has a pipeline, too.
                let of_run = run.join(PIPELINE);
                let pipeline = if of_run.is_file() { of_run } else { run };
                let named = Named { pipeline: pipeline.display().to_string(), sets };
                clip_evaluation::run(
                    &named,
                    &ClipModel { place: Place::Weights(weights), device },
                    page.as_deref(),
                    json,
                )
            }
        }
    }
}
