//! Images x texts into what a CLIP says of each pair.
use serde::Serialize;

use super::clip_score::{ClipScore, softmax};
use super::embedder::Embedder;
use crate::augment::BadSample;
use crate::error::{Error, Result, Stage};
use crate::evaluate::embeddings::dot;

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
    embedder: &'a Embedder,
    texts: Vec<String>,
    variant: ClipScore,
    plain: Vec<Vec<f32>>,
    /// With the variant's prompt; `None` where it has none.
    prompted: Option<Vec<Vec<f32>>>,
}

impl<'a> Scorer<'a> {
    /// Embeds the texts, which are cut where the model reads no further.
    ///
    /// # Errors
    /// There are none; the model cannot embed.
    pub fn new(embedder: &'a Embedder, texts: Vec<String>, variant: ClipScore) -> Result<Self> {
        if texts.is_empty() {
            return Err(Error::at(Stage::CommandLine, "--text", "there are no texts"));
        }
        let plain = embedder.texts(&texts)?;
        let prompted = match variant.prompt() {
            "" => None,
            prompt => {
                let prompted: Vec<String> = texts.iter().map(|text| format!("{prompt}{text}")).collect();
                Some(embedder.texts(&prompted)?)
            }
        };
        Ok(Self { embedder, texts, variant, plain, prompted })
    }

    /// What the model says of each encoded image and every text, or why an image cannot be used.
    ///
    /// # Errors
    /// The model cannot embed.
    pub fn score<B: AsRef<[u8]> + Sync>(&self, images: &[B]) -> Result<Vec<Result<Vec<Pair>, BadSample>>> {
        let pairs = |image: Result<Vec<f32>, BadSample>| match image {
            Ok(image) => self.pairs(&image).map(Ok),
            Err(bad) => Ok(Err(bad)),
        };
        self.embedder.images(images)?.into_iter().map(pairs).collect()
    }

    /// One image with every text.
    fn pairs(&self, image: &[f32]) -> Result<Vec<Pair>> {
        let with = |texts: &[Vec<f32>]| texts.iter().map(|text| dot(image, text)).collect::<Vec<f32>>();
        let cosines = with(&self.plain);
        let logits = self.embedder.logits(&cosines)?;
        let prompted = self.prompted.as_ref().map_or_else(|| cosines.clone(), |prompted| with(prompted));
        let scores = self.variant.of_texts(&prompted, &logits);
        let has_bias = self.embedder.checkpoint().clip.logit_bias.is_some();
        let probabilities = if has_bias { logistic(&logits) } else { softmax(&logits) };
        let pair = |at: usize| Pair {
            text: self.texts[at].clone(),
            probability: probabilities[at],
            logit: logits[at],
            cosine: cosines[at],
            clip_score: scores[at],
        };
        Ok((0..self.texts.len()).map(pair).collect())
    }
}

fn logistic(logits: &[f32]) -> Vec<f64> {
    logits.iter().map(|&logit| 1.0 / (1.0 + libm::exp(-f64::from(logit)))).collect()
}
