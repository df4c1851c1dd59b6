//! `diptych score`
use std::{fs, path::PathBuf, time::Instant};

use serde::Serialize;

use super::{clip_model, output, progress};
use crate::{
    augment::BadSample,
    device,
    error::{Context as _, Error, Result, Stage},
    evaluate::clip::{
        checkpoint::Checkpoint,
        clip_score::ClipScore,
        score::{Pair, Scorer},
    },
    model::clip::Activation,
    tokenize::clip,
};

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// A safetensors file, or its folder.
    pub weights: PathBuf,
    /// Files with images.
    pub images: Vec<PathBuf>,
    /// Texts.
    pub texts: Vec<String>,
    /// Which CLIPScore.
    pub variant: ClipScore,
    /// What the configuration must say.
    pub activation: Option<Activation>,
    /// Where the model runs.
    pub device: String,
    /// One JSON object instead of tables.
    pub json: bool,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    weights: String,
    naming: &'a str,
    activation: &'a str,
    clip_score: &'a str,
    images: Vec<Image>,
    /// Of which the model reads the beginning.
    cut_texts: Vec<CutText<'a>>,
    load_seconds: f64,
    text_seconds: f64,
    image_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Image {
    image: String,
    texts: Vec<Pair>,
}

#[derive(Debug, Serialize)]
struct CutText<'a> {
    text: &'a str,
    /// With the marks of start and end.
    tokens: usize,
}

fn cut_texts(texts: &[String], context_tokens: usize) -> Vec<CutText<'_>> {
    let counted = texts.iter().map(|text| CutText { text, tokens: clip::tokens(text, usize::MAX).len() });
    counted.filter(|counted| counted.tokens > context_tokens).collect()
}

/// Prints what a CLIP says of every image and text.
///
/// # Errors
/// The weights' and their configuration's; an image that cannot be read.
pub fn run(request: &Request) -> Result<()> {
    let device = device::parse(&request.device)?;
    let begin = Instant::now();
    let images = request
        .images
        .iter()
        .map(|path| fs::read(path).context(Stage::Evaluate, path.display().to_string(), "cannot be read"));
    let images = images.collect::<Result<Vec<_>>>()?;
    let embedder = clip_model::of_weights(&request.weights, request.activation, device)?;
    let checkpoint = embedder.checkpoint();
    let load_seconds = begin.elapsed().as_secs_f64();
    let context = checkpoint.described.settings.text.context_tokens;
    let cut = cut_texts(&request.texts, context);
    for CutText { text, tokens } in &cut {
        progress::log(&format!("warning: the model reads {context} of {tokens} tokens of the text {text:?}"));
    }
    let begin = Instant::now();
    let scorer = Scorer::new(&embedder, request.texts.clone(), request.variant)?;
    let text_seconds = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let undecodable = |path: &PathBuf, bad: BadSample| {
        Error::at(Stage::Evaluate, path.display().to_string(), "is no image that can be decoded").caused_by(bad)
    };
    let scores = request.images.iter().zip(scorer.score(&images)?);
    let scores = scores.map(|(path, score)| score.map_err(|bad| undecodable(path, bad))).collect::<Result<Vec<_>>>()?;
    let image_seconds = begin.elapsed().as_secs_f64();
    // A NaN would be `null` in JSON, and a CLIPScore of 0.
    if scores.iter().flatten().any(|pair| !pair.is_finite()) {
        let reason = "gives scores that are no finite numbers, so the weights are damaged; fetch them again";
        return Err(Error::at(Stage::Checkpoint, request.weights.display().to_string(), reason));
    }
    let name = |path: &PathBuf| path.display().to_string();
    let images = request.images.iter().map(name).zip(scores).map(|(image, texts)| Image { image, texts }).collect();
    let report = Report {
        weights: request.weights.display().to_string(),
        naming: checkpoint.naming.name(),
        activation: checkpoint.described.settings.activation.name(),
        clip_score: request.variant.name(),
        images,
        cut_texts: cut,
        load_seconds,
        text_seconds,
        image_seconds,
    };
    if request.json { output::json(&report) } else { print(&report, checkpoint) }
}

/// A table per image, the likeliest text on top.
fn print(report: &Report<'_>, checkpoint: &Checkpoint) -> Result<()> {
    let among = if checkpoint.clip.logit_bias.is_some() { "by itself" } else { "among these" };
    for image in &report.images {
        output::line(&format!(
            "{}\n  probability {among}   logit   cosine   CLIPScore ({})   text",
            image.image, report.clip_score
        ))?;
        let mut pairs: Vec<&Pair> = image.texts.iter().collect();
        pairs.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        for Pair { text, probability, logit, cosine, clip_score } in pairs {
            let (first, last) = (12 + among.len(), 12 + report.clip_score.len());
            output::line(&format!(
                "  {probability:>first$.4}   {logit:>5.2}   {cosine:>6.4}   {clip_score:>last$.4}   {text}"
            ))?;
        }
    }
    Ok(())
}
