//! Contrastive predictive coding (van den Oord et al. 2018, arXiv 1807.03748): from what came before, tell the true future
//! from others.
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Stage};
use crate::loss::{InfoNce, Negatives, Predicted, Sequences};
use crate::model::{
    Autoregressor, AutoregressorSettings, FrameEncoder, FrameEncoderSettings, InitOptions, Initializer, StepPredictor,
    Windows,
};

/// `[method.cpc]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// g_enc: exactly one.
    pub encoder: FrameEncoderSettings,
    /// g_ar: exactly one.
    #[serde(default)]
    pub context: AutoregressorSettings,
    /// K: frames ahead that are predicted, each by a map of its own. A window needs more frames than that.
    #[serde(default = "default_predicted_frames")]
    pub predicted_frames: usize,
    /// What the true future is told from.
    #[serde(default = "default_negatives")]
    pub negatives: Negatives,
    /// What evaluation takes from a window.
    #[serde(default = "default_pooling")]
    pub pooling: Pooling,
}
fn default_predicted_frames() -> usize {
    12
}
fn default_negatives() -> Negatives {
    Negatives::BatchSameTime
}
fn default_pooling() -> Pooling {
    Pooling::Statistics
}

/// One vector from the frames of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The context of the last frame.
    LastContext,
    /// The mean of the contexts.
    MeanContext,
    /// Mean and standard deviation over the frames, of the contexts and then of the encodings.
    Statistics,
}

/// g_enc, g_ar and W_1 … W_K.
#[derive(Module, Debug)]
pub struct CPC {
    g_enc: FrameEncoder,
    g_ar: Autoregressor,
    predictor: StepPredictor,
    #[module(skip)]
    loss: InfoNce,
    #[module(skip)]
    pooling: Pooling,
}

impl CPC {
    /// A new model with the weights that `init` names, on `device`, for series of `channels` (1 for sentences, 3 for
    /// images). W_k are scaled by keyed noise; [`Self::calibrated`] scales them by data.
    ///
    /// # Errors
    /// The settings make no such model.
    pub fn new(settings: &Settings, channels: usize, init: InitOptions, device: &Device) -> Result<Self> {
        if settings.predicted_frames == 0 || channels == 0 {
            let reason =
                format!("{} predicted frames of {channels} channels; take 1 or more", settings.predicted_frames);
            return Err(Error::at(Stage::Model, "predicted_frames", reason));
        }
        let seed = init.seed;
        let init = Initializer::new(init, device);
        let g_enc = FrameEncoder::new("g_enc", channels, &settings.encoder, &init)?;
        let g_ar = Autoregressor::new("g_ar", g_enc.width(), &settings.context, &init)?;
        let predictor = StepPredictor::new("predictor", g_ar.width(), g_enc.width(), settings.predicted_frames, &init);
        let noise = g_enc.noise(channels, seed, device);
        let model = Self { g_enc, g_ar, predictor, loss: InfoNce::new(settings.negatives), pooling: settings.pooling };
        model.calibrated(noise)
    }

    /// The same with W_k scaled so that the scores of these windows have a deviation of about 1: to be called with the
    /// first batch, before the first step.
    ///
    /// # Errors
    /// As of [`Self::loss`].
    pub fn calibrated(self, windows: impl Into<Windows>) -> Result<Self> {
        // Training mode, outside autodiff, on a copy: BatchNorm takes the batch's statistics and keeps none of them.
        let encodings = self.g_enc.valid().forward_train(windows.into().without_autodiff())?;
        let contexts = self.g_ar.valid().forward(encodings.clone());
        Ok(Self { predictor: self.predictor.calibrated(encodings, contexts), ..self })
    }

    /// The loss of one batch, in training mode.
    ///
    /// Each column of an image's grid is a sequence of its own; it has the image's group.
    ///
    /// # Errors
    /// Windows of another kind than the encoder takes, with too few frames, or too few of them for a negative.
    pub fn loss(&mut self, windows: impl Into<Windows>, sequences: &Sequences<'_>) -> Result<Predicted> {
        let windows = windows.into();
        let per_item = self.g_enc.sequences_per_item(&windows);
        let groups: Option<Vec<u64>> = sequences
            .groups
            .map(|groups| groups.iter().flat_map(|&group| std::iter::repeat_n(group, per_item)).collect());
        let encodings = self.g_enc.forward_train(windows)?; // [sequences, frames, encoding width]
        let frames = encodings.dims()[1];
        if frames <= self.predictor.steps() {
            let reason = format!(
                "windows of {frames} frames cannot predict {} frames ahead; take longer windows or predict fewer",
                self.predictor.steps()
            );
            return Err(Error::at(Stage::Model, "predicted_frames", reason));
        }
        let contexts = self.g_ar.forward(encodings.clone()); // [sequences, frames, context width]
        let sequences = Sequences { groups: groups.as_deref(), ..*sequences };
        self.loss.forward(&encodings, self.predictor.forward(&contexts), &sequences)
    }

    /// The loss that this model is trained with.
    pub fn info_nce(&self) -> InfoNce {
        self.loss
    }

    /// g_enc.
    pub fn encoder(&self) -> &FrameEncoder {
        &self.g_enc
    }

    /// c_t of every frame, in evaluation mode and outside autodiff. Moves nothing.
    ///
    /// # Shapes
    /// To `[sequences, frames, context width]`.
    ///
    /// # Errors
    /// Windows of another kind than the encoder takes, or too short for a frame.
    pub fn contexts(&self, windows: impl Into<Windows>) -> Result<Tensor<3>> {
        self.frames(windows.into()).map(|(_, contexts)| contexts)
    }

    /// Columns of [`Self::features`].
    pub fn feature_width(&self) -> usize {
        match self.pooling {
            Pooling::LastContext | Pooling::MeanContext => self.g_ar.width(),
            Pooling::Statistics => 2 * (self.g_ar.width() + self.g_enc.width()),
        }
    }

    /// One row per window, in evaluation mode and outside autodiff. Of an image the mean over its columns.
    ///
    /// Windows of any length above one frame's may be given, but those of one call have the same.
    ///
    /// # Shapes
    /// To `[windows, feature_width]`.
    ///
    /// # Errors
    /// As of [`Self::contexts`].
    pub fn features(&self, windows: impl Into<Windows>) -> Result<Tensor<2>> {
        let windows = windows.into();
        let items = windows.count();
        let (encodings, contexts) = self.frames(windows)?;
        let [sequences, frames, width] = contexts.dims();
        let rows = match self.pooling {
            Pooling::LastContext => contexts.narrow(1, frames - 1, 1).reshape([sequences, width]),
            Pooling::MeanContext => mean_and_deviation(contexts)[0].clone(),
            Pooling::Statistics => {
                let both = [mean_and_deviation(contexts), mean_and_deviation(encodings)];
                Tensor::cat(both.concat(), 1) // [sequences, feature_width]
            }
        };
        let columns = rows.dims()[1];
        Ok(rows.reshape([items, sequences / items, columns]).mean_dim(1).reshape([items, columns]))
    }

    fn frames(&self, windows: Windows) -> Result<(Tensor<3>, Tensor<3>)> {
        let encodings = self.g_enc.valid().forward_eval(windows.without_autodiff())?;
        let contexts = self.g_ar.valid().forward(encodings.clone());
        Ok((encodings, contexts))
    }
}

/// Over the frames, each `[sequences, width]`; the variance is the biased one.
fn mean_and_deviation(of: Tensor<3>) -> [Tensor<2>; 2] {
    let [sequences, _, width] = of.dims();
    let mean = of.clone().mean_dim(1); // [sequences, 1, width]
    let deviation = (of - mean.clone()).square().mean_dim(1).sqrt(); // [sequences, 1, width]
    [mean, deviation].map(|moment| moment.reshape([sequences, width]))
}
