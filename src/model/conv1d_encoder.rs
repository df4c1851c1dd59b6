//! g_enc for signals: strided convolutions over steps, from samples to frames.
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use super::batch_norm::BatchNorm;
use super::channel_norm::ChannelNorm;
use super::conv1d::Conv1d;
use super::init::Initializer;
use super::receptive_field::ReceptiveField;
use crate::error::{Error, Result, Stage};

/// Kernels and strides of CPC's encoder for audio (van den Oord et al. 2018): one frame per 160 samples.
const WAVEFORM: [(usize, usize); 5] = [(10, 5), (8, 4), (4, 2), (4, 2), (4, 2)];

/// `encoder.waveform`: five layers with kernels 10, 8, 4, 4, 4 and strides 5, 4, 2, 2, 2; a frame sees 465 samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WaveformSettings {
    /// Channels of every layer; the paper has 512.
    pub width_channels: usize,
    /// Between each convolution and its ReLU.
    pub normalization: Normalization,
    /// Zeros around the window in each layer.
    pub padding: Padding,
}
impl Default for WaveformSettings {
    fn default() -> Self {
        Self { width_channels: 512, normalization: Normalization::Channel, padding: Padding::Symmetric }
    }
}

impl WaveformSettings {
    /// The same as layers of a series' encoder.
    pub fn as_series(&self) -> SeriesSettings {
        let layer = |(kernel_steps, stride_steps)| LayerSettings {
            width_channels: self.width_channels,
            kernel_steps,
            stride_steps,
        };
        SeriesSettings {
            layers: WAVEFORM.into_iter().map(layer).collect(),
            normalization: self.normalization,
            padding: self.padding,
        }
    }
}

/// `encoder.series`: any stack of strided convolutions over any number of channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesSettings {
    /// From the samples on; each is followed by a normalisation and a ReLU.
    pub layers: Vec<LayerSettings>,
    /// Between each convolution and its ReLU.
    #[serde(default = "channel")]
    pub normalization: Normalization,
    /// Zeros around the window in each layer.
    #[serde(default = "causal")]
    pub padding: Padding,
}
fn channel() -> Normalization {
    Normalization::Channel
}
fn causal() -> Padding {
    Padding::Causal
}

/// One of `encoder.series.layers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerSettings {
    /// Channels out.
    pub width_channels: usize,
    /// Steps of its input that one step of its output sees.
    pub kernel_steps: usize,
    /// Steps of its input per step of its output.
    pub stride_steps: usize,
}

/// Between a convolution and its ReLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Each frame over its own channels: the usual one for CPC.
    Channel,
    /// Each channel over the batch and over time. Statistics of the future reach the past through it.
    Batch,
    /// None, as in the paper.
    None,
}

/// Zeros around the window in every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// None: 20,480 samples are 126 frames.
    None,
    /// kernel − stride in front: frame t sees nothing behind step (t + 1) · hop, and 20,480 samples are 128 frames.
    Causal,
    /// ⌈(kernel − stride) / 2⌉ on both sides: CPC_audio's 3, 2, 1, 1, 1. Also 128 frames, each looking 152 samples ahead of
    /// its hop.
    Symmetric,
}

impl Padding {
    fn of(self, layer: LayerSettings) -> [usize; 2] {
        let overlap = layer.kernel_steps.saturating_sub(layer.stride_steps);
        match self {
            Self::None => [0, 0],
            Self::Causal => [overlap, 0],
            Self::Symmetric => [overlap.div_ceil(2); 2],
        }
    }
}

impl SeriesSettings {
    /// What a frame sees.
    pub fn receptive_field(&self) -> ReceptiveField {
        let layers = self.layers.iter().map(|&layer| (layer.kernel_steps, layer.stride_steps, self.padding.of(layer)));
        ReceptiveField::of(layers)
    }

    /// Refuses layers that compute nothing.
    ///
    /// # Errors
    /// There is no layer, or one has a size that cannot be.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::at(Stage::Model, "encoder", reason));
        if self.layers.is_empty() {
            return refuse("an encoder needs at least one layer".to_owned());
        }
        let least_channels = if self.normalization == Normalization::Channel { 2 } else { 1 };
        for (index, layer) in self.layers.iter().enumerate() {
            if layer.kernel_steps == 0 || layer.stride_steps == 0 || layer.width_channels < least_channels {
                return refuse(format!(
                    "layer {index} has {} channels, kernel {} and stride {}; it needs at least {least_channels} channels \
                     under this normalization, and a kernel and a stride of at least 1",
                    layer.width_channels, layer.kernel_steps, layer.stride_steps
                ));
            }
        }
        Ok(())
    }
}

/// Strided convolutions, each with a normalisation and ReLU.
#[derive(Module, Debug)]
pub struct Conv1dEncoder {
    layers: Vec<Layer>,
    #[module(skip)]
    receptive_field: ReceptiveField,
    #[module(skip)]
    channels: usize,
    #[module(skip)]
    width: usize,
}

#[derive(Module, Debug)]
struct Layer {
    conv: Conv1d,
    channel_norm: Option<ChannelNorm>,
    batch_norm: Option<BatchNorm>,
}

impl Conv1dEncoder {
    /// Parameters below `path`, for signals of `channels`.
    ///
    /// # Errors
    /// As of [`SeriesSettings::check`].
    pub fn new(path: &str, channels: usize, settings: &SeriesSettings, init: &Initializer<'_>) -> Result<Self> {
        settings.check()?;
        let mut from = channels;
        let mut layers = Vec::with_capacity(settings.layers.len());
        for (index, &layer) in settings.layers.iter().enumerate() {
            let (path, to) = (format!("{path}.layers.{index}.conv"), layer.width_channels);
            let batch = settings.normalization == Normalization::Batch;
            let padding = settings.padding.of(layer);
            layers.push(Layer {
                conv: Conv1d::new(&path, [from, to], layer.kernel_steps, layer.stride_steps, padding, !batch, init),
                channel_norm: (settings.normalization == Normalization::Channel).then(|| ChannelNorm::new(to, init)),
                batch_norm: batch.then(|| BatchNorm::new(to, 1.0, init)),
            });
            from = to;
        }
        Ok(Self { layers, receptive_field: settings.receptive_field(), channels, width: from })
    }

    /// Channels of the signal.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Columns of an encoding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What a frame sees.
    pub fn receptive_field(&self) -> ReceptiveField {
        self.receptive_field
    }

    /// Encodings with the batch's own statistics, where BatchNorm has any.
    ///
    /// # Shapes
    /// `[sequences, steps, channels]` to `[sequences, frames, width]`, where `receptive_field().frames(steps)` is above 0.
    pub fn forward_train(&mut self, signal: Tensor<3>) -> Tensor<3> {
        self.layers.iter_mut().fold(signal, |x, layer| {
            let x = layer.conv.forward(x);
            match &mut layer.batch_norm {
                Some(norm) => norm.forward_train_relu(x),
                None => layer.finish(x),
            }
        })
    }

    /// [`Self::forward_train`] with running statistics.
    pub fn forward_eval(&self, signal: Tensor<3>) -> Tensor<3> {
        self.layers.iter().fold(signal, |x, layer| {
            let x = layer.conv.forward(x);
            match &layer.batch_norm {
                Some(norm) => norm.forward_eval_relu(x),
                None => layer.finish(x),
            }
        })
    }
}

impl Layer {
    /// Bias, normalisation of each frame by itself where there is one, ReLU.
    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        let Some(bias) = self.conv.bias.as_ref().map(burn::module::Param::val) else { return relu(x) };
        match &self.channel_norm {
            Some(norm) => norm.forward_relu(x, bias),
            None => relu(x + bias.unsqueeze()),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::model::InitOptions;

    fn noise(shape: [usize; 3]) -> Vec<f32> {
        let mut draws = crate::seed::draws(2, "signal", &[]);
        (0..shape.iter().product()).map(|_| draws.normal() as f32).collect()
    }

    fn encoder(settings: &SeriesSettings, channels: usize, device: &Device) -> Conv1dEncoder {
        let init = InitOptions { seed: 1, compat_torch: false };
        Conv1dEncoder::new("g_enc", channels, settings, &Initializer::new(init, device)).expect("plain settings")
    }

    fn layer(width_channels: usize, kernel_steps: usize, stride_steps: usize) -> LayerSettings {
        LayerSettings { width_channels, kernel_steps, stride_steps }
    }

    #[test]
    fn waveforms_give_the_frames_of_the_paper_and_of_cpc_audio() {
        let device = Device::flex();
        for (padding, frames) in [(Padding::None, 126), (Padding::Causal, 128), (Padding::Symmetric, 128)] {
            let settings = WaveformSettings { width_channels: 4, normalization: Normalization::Channel, padding };
            let encoder = encoder(&settings.as_series(), 1, &device);
            let field = encoder.receptive_field();
            assert_eq!((field.width_steps, field.hop_steps, field.first_disjoint_k()), (465, 160, 3));
            let out = encoder.forward_eval(Tensor::zeros([1, 20_480, 1], &device));
            assert_eq!(out.dims(), [1, frames, 4]);
            assert_eq!(field.frames(20_480), frames);
        }
        assert_eq!(WaveformSettings::default().as_series().layers[0], layer(512, 10, 5));
        let paddings: Vec<[usize; 2]> =
            WaveformSettings::default().as_series().layers.iter().map(|&l| Padding::Symmetric.of(l)).collect();
        assert_eq!(paddings, [[3, 3], [2, 2], [1, 1], [1, 1], [1, 1]]);
    }

    /// Frames of one channel's output that change with each step of the input.
    #[test]
    fn a_frame_sees_exactly_its_receptive_field() {
        let device = Device::flex();
        for padding in [Padding::None, Padding::Causal, Padding::Symmetric] {
            let settings = SeriesSettings {
                layers: vec![layer(8, 5, 3), layer(8, 4, 2)],
                normalization: Normalization::Channel,
                padding,
            };
            let encoder = encoder(&settings, 2, &device);
            let field = encoder.receptive_field();
            let steps = 61;
            let values = noise([1, steps, 2]);
            let run = |values: &[f32]| -> Vec<f32> {
                let signal = Tensor::from_data(TensorData::new(values.to_vec(), [1, steps, 2]), &device);
                let out = encoder.forward_eval(signal);
                assert_eq!(out.dims(), [1, field.frames(steps), 8]);
                out.into_data().try_into_vec::<f32>().expect("f32")
            };
            let base = run(&values);
            for step in 0..steps {
                let mut changed = values.clone();
                changed[2 * step] += 3.0;
                let moved = run(&changed);
                for frame in 0..field.frames(steps) {
                    let differs = base[frame * 8..][..8] != moved[frame * 8..][..8];
                    let seen = field.steps_of(frame).contains(&(step as i64));
                    assert_eq!(differs, seen, "{padding:?}: step {step}, frame {frame}");
                }
            }
        }
    }

    #[test]
    fn every_normalization_trains_and_none_but_batch_moves_statistics() {
        let device = Device::flex().autodiff();
        for normalization in [Normalization::Channel, Normalization::Batch, Normalization::None] {
            let settings = SeriesSettings {
                layers: vec![layer(6, 4, 2), layer(5, 3, 1)],
                normalization,
                padding: Padding::Causal,
            };
            let mut encoder = encoder(&settings, 3, &device);
            let values = noise([2, 20, 3]);
            let signal = Tensor::<3>::from_data(TensorData::new(values, [2, 20, 3]), &device);
            let out = encoder.forward_train(signal.clone());
            let gradients = out.clone().square().sum_dims(&[0, 1, 2]).backward();
            for layer in &encoder.layers {
                let gradient = layer.conv.weight.val().grad(&gradients).expect("tracked");
                let values = gradient.into_data().try_into_vec::<f32>().expect("f32");
                assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != 0.0), "{normalization:?}");
                assert_eq!(layer.conv.bias.is_none(), normalization == Normalization::Batch);
            }
            let same = out.inner().into_data() == encoder.valid().forward_eval(signal.inner()).into_data();
            assert_eq!(same, normalization != Normalization::Batch, "{normalization:?}");
        }
    }

    #[test]
    fn settings_that_compute_nothing_are_refused() {
        let base = SeriesSettings { layers: vec![], normalization: Normalization::Channel, padding: Padding::None };
        assert!(base.check().is_err());
        for wrong in [layer(1, 3, 1), layer(4, 0, 1), layer(4, 3, 0)] {
            assert!(SeriesSettings { layers: vec![wrong], ..base.clone() }.check().is_err());
        }
        let one = SeriesSettings { layers: vec![layer(1, 3, 1)], normalization: Normalization::None, ..base };
        assert!(one.check().is_ok());
    }
}
