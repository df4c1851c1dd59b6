//! The words of `score`.
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use diptych::{
    error::Result,
    evaluate::clip::clip_score::ClipScore,
    model::clip::Activation,
    run::score::{self, Request},
};

/// Says how well texts fit images, by a CLIP: probabilities, logits, cosines and CLIPScores.
///
/// Reads safetensors with transformers' or open_clip's names, and the configuration beside them: config.json and
/// preprocessor_config.json (since transformers 5 processor_config.json), or open_clip_config.json. A probability is that of
/// the text among those given.
#[derive(Debug, Args)]
pub(crate) struct ScoreWords {
    /// A safetensors file, or the folder in which it is.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// PNG, JPEG, WebP or GIF.
    #[arg(long = "image", value_name = "FILE", num_args = 1.., required = true)]
    images: Vec<PathBuf>,
    /// Texts; what the model does not read of a long one is cut off.
    #[arg(long = "text", value_name = "TEXT", num_args = 1.., required = true)]
    texts: Vec<String>,
    /// Which CLIPScore: hessel (2.5 cos, texts after "A photo depicts "), torchmetrics (100 cos), cosine, softmax_rank
    /// (softmax of the logits over all texts of an image).
    #[arg(long, value_name = "VARIANT", default_value = "hessel")]
    clip_score: ClipScore,
    /// What the weights were trained with; an error where the configuration says otherwise.
    #[arg(long, value_name = "NAME")]
    activation: Option<ActivationWord>,
    /// cpu, or cuda:0, cuda:1, … where the build has it.
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    device: String,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum ActivationWord {
    QuickGelu,
    Gelu,
}

impl ScoreWords {
    pub(crate) fn run(self) -> Result<()> {
        score::run(&Request {
            weights: self.weights,
            images: self.images,
            texts: self.texts,
            variant: self.clip_score,
            activation: self.activation.map(|word| match word {
                ActivationWord::QuickGelu => Activation::QuickGelu,
                ActivationWord::Gelu => Activation::Gelu,
            }),
            device: self.device,
            json: self.json,
        })
    }
}
