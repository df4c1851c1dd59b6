//! Contrastive predictive coding (van den Oord et al. 2018, arXiv 1807.03748): from what came before, tell the true future
//! from others.
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Method, MethodOutput, Reading};
use crate::batch::{Input, SequencedWindows};
use crate::error::{Error, Result, Stage};
use crate::loss::{Chance, InfoNce, Negatives, Predicted, Sequences, l2_normalize};
use crate::model::{
    Autoregressor, AutoregressorSettings, FrameEncoder, FrameEncoderSettings, InitOptions, Initializer, StepPredictor,
    Windows,
};

/// `[method.cpc]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Channels of the series; sentences and images have none to choose.
    #[serde(default = "default_channels")]
    pub channels: usize,
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
fn default_channels() -> usize {
    1
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
    /// For negatives that are drawn.
    #[module(skip)]
    seed: u64,
}

/// A batch on its way through the model.
struct Forward {
    /// `[sequences, frames, encoding width]`
    encodings: Tensor<3>,
    /// Of k = 1, 2, …: `[sequences, frames − k, encoding width]`.
    predictions: Vec<Tensor<3>>,
    /// Sequences that each item of the batch became.
    per_item: usize,
}

impl CPC {
    /// A new model with the weights that `init` names, on `device`. W_k are scaled by keyed noise; [`Self::calibrated`]
    /// scales them by data.
    ///
    /// # Errors
    /// The settings make no such model.
    pub fn new(settings: &Settings, init: InitOptions, device: &Device) -> Result<Self> {
        let channels = settings.channels;
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
        let loss = InfoNce::new(settings.negatives);
        Self { g_enc, g_ar, predictor, loss, pooling: settings.pooling, seed }.calibrated(noise)
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
        let forward = self.forward(windows.into())?;
        self.compared(&forward, sequences)
    }

    fn forward(&mut self, windows: Windows) -> Result<Forward> {
        let per_item = self.g_enc.sequences_per_item(&windows);
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
        Ok(Forward { encodings, predictions: self.predictor.forward(&contexts), per_item })
    }

    fn compared(&self, forward: &Forward, of_items: &Sequences<'_>) -> Result<Predicted> {
        let Forward { encodings, predictions, per_item } = forward;
        let columns = 0..*per_item as u32;
        let groups: Option<Vec<u32>> = of_items
            .groups
            .map(|groups| groups.iter().flat_map(|&group| columns.clone().map(move |_| group)).collect());
        // The same column of two images of one sequence is one sequence, two columns of an image are two.
        let sequences: Option<Vec<u32>> = of_items.sequences.map(|sequences| {
            let of_columns = |&sequence: &u32| columns.clone().map(move |column| sequence * columns.end + column);
            sequences.iter().flat_map(of_columns).collect()
        });
        let sequences = Sequences { sequences: sequences.as_deref(), groups: groups.as_deref(), ..*of_items };
        self.loss.forward(encodings, predictions.clone(), &sequences)
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

    /// One row per window, in evaluation mode and outside autodiff. Of an image the mean over its columns.
    ///
    /// Windows of any length above one frame's may be given, but those of one call have the same.
    ///
    /// # Shapes
    /// To `[windows, columns]`.
    ///
    /// # Errors
    /// As of [`Self::contexts`].
    pub fn pooled(&self, windows: impl Into<Windows>) -> Result<Tensor<2>> {
        let windows = windows.into();
        let items = windows.count();
        let (encodings, contexts) = self.frames(windows)?;
        let [sequences, frames, width] = contexts.dims();
        let rows = match self.pooling {
            Pooling::LastContext => contexts.narrow(1, frames - 1, 1).reshape([sequences, width]),
            Pooling::MeanContext => mean_and_deviation(contexts)[0].clone(),
            Pooling::Statistics => {
                let both = [mean_and_deviation(contexts), mean_and_deviation(encodings)];
                Tensor::cat(both.concat(), 1) // [sequences, columns]
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

impl Method for CPC {
    fn name(&self) -> &'static str {
        "cpc"
    }

    fn feature_width(&self) -> usize {
        match self.pooling {
            Pooling::LastContext | Pooling::MeanContext => self.g_ar.width(),
            Pooling::Statistics => 2 * (self.g_ar.width() + self.g_enc.width()),
        }
    }

    fn features_in_words(&self) -> &'static str {
        match self.pooling {
            Pooling::LastContext => "context of the last frame",
            Pooling::MeanContext => "mean of the contexts over the frames",
            Pooling::Statistics => "mean and standard deviation over the frames of the contexts, then of the encodings",
        }
    }

    /// Scales W_k by the run's first batch.
    fn prepare(self, first: Input) -> Result<Self> {
        let windows = first.into_windows(self.name())?.windows;
        self.calibrated(windows)
    }

    fn train_loss(&mut self, input: Input, step: u64) -> Result<MethodOutput> {
        let SequencedWindows { windows, sequences, groups } = input.into_windows(self.name())?;
        let sequences =
            Sequences { sequences: Some(&sequences), groups: groups.as_deref(), seed: self.seed, batch: step };
        let forward = self.forward(windows)?;
        let predicted = self.compared(&forward, &sequences)?;
        let of_chance = |of: fn(&Chance) -> f64| predicted.chance.iter().map(of).collect::<Vec<f64>>();
        let (losses, accuracies) = (of_chance(|chance| chance.loss), of_chance(|chance| chance.accuracy));
        let no_signal_loss = losses.iter().sum::<f64>() / losses.len() as f64;
        let mut readings = vec![
            Reading::measured("step_losses", predicted.step_losses.clone()),
            Reading::measured("step_accuracies", predicted.step_accuracies),
            Reading::known("chance_losses", losses.clone()),
            Reading::known("chance_accuracies", accuracies),
            Reading::known("first_disjoint_step", vec![self.g_enc.first_disjoint_k() as f64]),
        ];
        if self.loss.bounds_information(&sequences) && forward.per_item == 1 {
            let losses: Vec<f32> = losses.into_iter().map(|loss| loss as f32).collect();
            let count = losses.len();
            let chance = Tensor::<1>::from_data(TensorData::new(losses, [count]), &predicted.step_losses.device());
            readings.push(Reading::measured("information_nats", chance - predicted.step_losses));
        }
        Ok(MethodOutput { loss: predicted.loss, embeddings: forward.last_step(), no_signal_loss, readings })
    }

    fn features(&self, input: Input) -> Result<Tensor<2>> {
        self.pooled(input.into_windows(self.name())?.windows)
    }
}

impl Forward {
    /// What was predicted for the last frame from the one before it, and that frame, at unit length and cut off from the
    /// graph; of an image its middle column. Each `[items, encoding width]`.
    fn last_step(&self) -> [Tensor<2>; 2] {
        let one = |of: &Tensor<3>| {
            let [sequences, frames, width] = of.dims();
            let last = of.clone().narrow(1, frames - 1, 1); // [sequences, 1, encoding width]
            let by_item = last.reshape([sequences / self.per_item, self.per_item, width]);
            let middle = by_item.narrow(1, self.per_item / 2, 1); // [items, 1, encoding width]
            l2_normalize(middle.squeeze_dim::<2>(1).detach())
        };
        [one(&self.predictions[0]), one(&self.encodings)]
    }
}

/// Over the frames, each `[sequences, width]`; the variance is the biased one.
fn mean_and_deviation(of: Tensor<3>) -> [Tensor<2>; 2] {
    let [sequences, _, width] = of.dims();
    let mean = of.clone().mean_dim(1); // [sequences, 1, width]
    let deviation = (of - mean.clone()).square().mean_dim(1).sqrt(); // [sequences, 1, width]
    [mean, deviation].map(|moment| moment.reshape([sequences, width]))
}
