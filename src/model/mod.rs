//! Encoders and heads, on Burn alone.
//!
//! Activations are channels-last, `[images, height, width, channels]` and `[sequences, frames, channels]`, from the pixels
//! or samples to the features.

pub mod autoregressor;
pub mod batch_norm;
pub mod causal_transformer;
pub mod channel_norm;
pub mod clip;
pub mod conv1d;
pub mod conv1d_encoder;
pub mod convnet;
pub mod convolution;
mod cpu;
pub mod dense;
pub mod encoder;
pub mod frame_encoder;
pub mod gru;
pub mod init;
pub mod layer_norm;
pub mod parameters;
pub mod patch_encoder;
pub mod projection;
pub mod receptive_field;
pub mod resnet;
pub mod sentence_encoder;
pub mod step_predictor;
#[cfg(test)]
mod waves;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use autoregressor::{Autoregressor, AutoregressorSettings};
pub use encoder::Encoder;
pub use frame_encoder::{FrameEncoder, FrameEncoderSettings, Windows};
pub use init::{InitOptions, Initializer};
pub use projection::ProjectionHead;
pub use step_predictor::StepPredictor;

/// `encoder.*` of a method: exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderSettings {
    /// ResNet-18.
    #[serde(rename = "resnet18")]
    ResNet18(ResNetSettings),
    /// ResNet-34.
    #[serde(rename = "resnet34")]
    ResNet34(ResNetSettings),
    /// ResNet-50 (v1.5: the stride is in the 3x3).
    #[serde(rename = "resnet50")]
    ResNet50(ResNetSettings),
    /// A small strided convnet for demonstrations on a CPU.
    #[serde(rename = "convnet")]
    ConvNet(ConvNetSettings),
}

/// `encoder.resnet*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResNetSettings {
    /// Which first layers.
    pub stem: Stem,
    /// Channels of the first stage: 64 is the usual one.
    pub base_width: usize,
    /// Start each block as the identity: its last BatchNorm's weight is 0 (Goyal et al.).
    pub zero_init_residual: bool,
}
impl Default for ResNetSettings {
    fn default() -> Self {
        Self { stem: Stem::Imagenet, base_width: 64, zero_init_residual: true }
    }
}

/// First layers of a ResNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 7x7 stride 2, then 3x3 max-pool stride 2.
    Imagenet,
    /// 3x3 stride 1, no pool.
    Cifar,
}

/// `encoder.convnet`: four 3x3 convolutions with BatchNorm and ReLU, strides 2, 1, 2, 2, then the mean over positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConvNetSettings {
    /// Channels of the first layer; doubled by each of the next three.
    pub base_width: usize,
}
impl Default for ConvNetSettings {
    fn default() -> Self {
        Self { base_width: 32 }
    }
}

/// Which projection head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadSettings {
    /// Linear, ReLU, linear: no BatchNorm.
    PaperV1,
    /// The same with BatchNorm after both layers (the released code).
    GoogleV1,
    /// Three layers, BatchNorm after each, the last without bias.
    GoogleV2,
}

/// `[images, height, width, channels]` to `[images, channels]`.
fn mean_over_positions(activations: Tensor<4>) -> Tensor<2> {
    let [images, height, width, channels] = activations.dims();
    activations.reshape([images, height * width, channels]).mean_dim(1).squeeze_dim(1)
}
