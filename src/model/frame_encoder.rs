//! g_enc of CPC: one of those that turn windows into frames.
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::conv1d_encoder::{Conv1dEncoder, SeriesSettings, WaveformSettings};
use super::init::Initializer;
use super::patch_encoder::{PatchEncoder, PatchSettings};
use super::sentence_encoder::{SentenceEncoder, SentenceSettings};
use crate::error::{Error, Result, Stage};
use crate::seed;

/// Windows, frames and patches in a batch of noise.
const NOISE_WINDOWS: usize = 8;
const NOISE_FRAMES: usize = 16;
const NOISE_PATCHES: usize = 4;
const NOISE_TOKENS: usize = 12;

/// `encoder.*` of CPC: exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameEncoderSettings {
    /// The paper's five convolutions for audio.
    Waveform(WaveformSettings),
    /// Strided convolutions as written.
    Series(SeriesSettings),
    /// Text, a frame per sentence.
    Sentences(SentenceSettings),
    /// Images, a frame per patch.
    Patches(PatchSettings),
}

impl FrameEncoderSettings {
    /// Frames of a window of so many steps, or rows of patches of an image of so many pixels on a side.
    ///
    /// `None` where a frame is a sentence, or the settings make no encoder.
    pub fn frames(&self, extent: usize) -> Option<usize> {
        match self {
            Self::Waveform(waveform) => Some(waveform.as_series().receptive_field().frames(extent)),
            Self::Series(series) => series.check().is_ok().then(|| series.receptive_field().frames(extent)),
            Self::Sentences(_) => None,
            Self::Patches(patches) => (patches.hop_pixels > 0).then(|| patches.along(extent)),
        }
    }

    /// The least extent of so many frames, as in [`Self::frames`].
    pub fn extent(&self, frames: usize) -> Option<usize> {
        match self {
            Self::Waveform(waveform) => Some(waveform.as_series().receptive_field().window_steps(frames)),
            Self::Series(series) => series.check().is_ok().then(|| series.receptive_field().window_steps(frames)),
            Self::Sentences(_) => None,
            Self::Patches(patches) => Some(patches.side_pixels + frames.saturating_sub(1) * patches.hop_pixels),
        }
    }
}

/// What a batch holds.
#[derive(Debug, Clone)]
pub enum Windows {
    /// `[windows, channels, steps]`
    Series(Tensor<3>),
    /// Token ids, 0 where there is none: `[documents, sentences, tokens]`.
    Sentences(Tensor<3, Int>),
    /// Floats in [0, 1]: `[images, 3, height, width]`.
    Images(Tensor<4>),
}

impl From<Tensor<3>> for Windows {
    fn from(series: Tensor<3>) -> Self {
        Self::Series(series)
    }
}
impl From<Tensor<3, Int>> for Windows {
    fn from(sentences: Tensor<3, Int>) -> Self {
        Self::Sentences(sentences)
    }
}
impl From<Tensor<4>> for Windows {
    fn from(images: Tensor<4>) -> Self {
        Self::Images(images)
    }
}

impl Windows {
    /// Windows, documents or images.
    pub fn count(&self) -> usize {
        match self {
            Self::Series(series) => series.dims()[0],
            Self::Sentences(sentences) => sentences.dims()[0],
            Self::Images(images) => images.dims()[0],
        }
    }

    /// The same outside autodiff.
    #[must_use]
    pub fn without_autodiff(self) -> Self {
        match self {
            Self::Series(series) => Self::Series(series.without_autodiff()),
            Self::Sentences(sentences) => Self::Sentences(sentences.without_autodiff()),
            Self::Images(images) => Self::Images(images.without_autodiff()),
        }
    }
}

/// One of the encoders. Weights are known by their own names: the variant is no part of a path.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one; a box would only add a hop")]
pub enum FrameEncoder {
    /// Convolutions over steps.
    Series(Conv1dEncoder),
    /// Sentences.
    Sentences(SentenceEncoder),
    /// Patches.
    Patches(PatchEncoder),
}

impl FrameEncoder {
    /// Parameters below `path`; `channels` are a series' own.
    ///
    /// # Errors
    /// The settings make no such encoder.
    pub fn new(path: &str, channels: usize, settings: &FrameEncoderSettings, init: &Initializer<'_>) -> Result<Self> {
        match settings {
            FrameEncoderSettings::Waveform(settings) => {
                Conv1dEncoder::new(path, channels, &settings.as_series(), init).map(Self::Series)
            }
            FrameEncoderSettings::Series(settings) => {
                Conv1dEncoder::new(path, channels, settings, init).map(Self::Series)
            }
            FrameEncoderSettings::Sentences(settings) => {
                SentenceEncoder::new(path, settings, init).map(Self::Sentences)
            }
            FrameEncoderSettings::Patches(settings) => PatchEncoder::new(path, settings, init).map(Self::Patches),
        }
    }

    /// Columns of an encoding.
    pub fn width(&self) -> usize {
        match self {
            Self::Series(encoder) => encoder.width(),
            Self::Sentences(encoder) => encoder.width(),
            Self::Patches(encoder) => encoder.width(),
        }
    }

    /// Sequences that each item of a batch becomes: 1, but for images one per column of the grid.
    pub fn sequences_per_item(&self, windows: &Windows) -> usize {
        match (self, windows) {
            (Self::Patches(encoder), Windows::Images(images)) => {
                let [_, _, height, width] = images.dims();
                encoder.grid(height, width)[1]
            }
            _ => 1,
        }
    }

    /// The least k for which frames t and t + k share nothing: predicting fewer steps ahead is partly copying.
    pub fn first_disjoint_k(&self) -> usize {
        match self {
            Self::Series(encoder) => encoder.receptive_field().first_disjoint_k(),
            Self::Sentences(_) => 1,
            Self::Patches(encoder) => encoder.side().div_ceil(encoder.hop()),
        }
    }

    /// Encodings in training mode, `[sequences, frames, width]`.
    ///
    /// # Errors
    /// Windows of another kind, or too short for a frame.
    pub fn forward_train(&mut self, windows: Windows) -> Result<Tensor<3>> {
        match (self, windows) {
            (Self::Series(encoder), Windows::Series(series)) => {
                Ok(encoder.forward_train(channels_last(series, encoder)?))
            }
            (Self::Sentences(encoder), Windows::Sentences(tokens)) => Ok(encoder.forward(tokens)),
            (Self::Patches(encoder), Windows::Images(images)) => Ok(encoder.forward_train(&large(images, encoder)?)),
            (encoder, windows) => Err(encoder.refuse(&windows)),
        }
    }

    /// Encodings in evaluation mode, `[sequences, frames, width]`.
    ///
    /// # Errors
    /// As of [`Self::forward_train`].
    pub fn forward_eval(&self, windows: Windows) -> Result<Tensor<3>> {
        match (self, windows) {
            (Self::Series(encoder), Windows::Series(series)) => {
                Ok(encoder.forward_eval(channels_last(series, encoder)?))
            }
            (Self::Sentences(encoder), Windows::Sentences(tokens)) => Ok(encoder.forward(tokens)),
            (Self::Patches(encoder), Windows::Images(images)) => Ok(encoder.forward_eval(&large(images, encoder)?)),
            (encoder, windows) => Err(encoder.refuse(&windows)),
        }
    }

    /// A keyed batch of noise that this encoder takes.
    pub fn noise(&self, channels: usize, seed: u64, device: &Device) -> Windows {
        let mut draws = seed::draws(seed, "noise that scores are scaled by", &[]);
        let mut normal = |count: usize| -> Vec<f32> { (0..count).map(|_| draws.normal() as f32).collect() };
        match self {
            Self::Series(encoder) => {
                let shape = [NOISE_WINDOWS, channels, encoder.receptive_field().window_steps(NOISE_FRAMES)];
                let values = normal(shape.iter().product());
                Windows::Series(Tensor::from_data(TensorData::new(values, shape), device))
            }
            Self::Sentences(encoder) => {
                let shape = [NOISE_WINDOWS, NOISE_FRAMES, NOISE_TOKENS];
                let mut token = || 1 + draws.below(encoder.vocabulary() as u64 - 1) as i64;
                let tokens: Vec<i64> = (0..shape.iter().product()).map(|_| token()).collect();
                Windows::Sentences(Tensor::from_data(TensorData::new(tokens, shape), device))
            }
            Self::Patches(encoder) => {
                let side = NOISE_PATCHES * encoder.side();
                let values: Vec<f32> =
                    normal(3 * side * side).into_iter().map(|x| (0.5 + 0.25 * x).clamp(0.0, 1.0)).collect();
                Windows::Images(Tensor::from_data(TensorData::new(values, [1, 3, side, side]), device))
            }
        }
    }

    fn refuse(&self, windows: &Windows) -> Error {
        let takes = match self {
            Self::Series(_) => "series",
            Self::Sentences(_) => "sentences",
            Self::Patches(_) => "images",
        };
        let found = match windows {
            Windows::Series(_) => "series",
            Windows::Sentences(_) => "sentences",
            Windows::Images(_) => "images",
        };
        Error::at(
            Stage::Model,
            "encoder",
            format!("this encoder takes {takes}, not {found}; choose the one for {found}"),
        )
    }
}

/// `[windows, channels, steps]` to `[windows, steps, channels]`, of windows that hold a frame.
fn channels_last(series: Tensor<3>, encoder: &Conv1dEncoder) -> Result<Tensor<3>> {
    let [_, channels, steps] = series.dims();
    let field = encoder.receptive_field();
    if channels != encoder.channels() || field.frames(steps) == 0 {
        let reason = format!(
            "windows of {channels} channels and {steps} steps do not fit an encoder of {} channels that needs {} steps",
            encoder.channels(),
            field.window_steps(1)
        );
        return Err(Error::at(Stage::Model, "encoder", reason));
    }
    Ok(series.swap_dims(1, 2))
}

fn large(images: Tensor<4>, encoder: &PatchEncoder) -> Result<Tensor<4>> {
    let [_, _, height, width] = images.dims();
    if encoder.grid(height, width).contains(&0) {
        let side = encoder.side();
        let reason = format!("images of {height}x{width} pixels hold no patch of {side}; take smaller patches");
        return Err(Error::at(Stage::Model, "encoder.patches", reason));
    }
    Ok(images)
}
