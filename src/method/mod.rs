//! Encoder, head and loss of one published method.
use serde::{Deserialize, Serialize};

use crate::model::{EncoderSettings, HeadSettings};

/// `[method.*]` of a pipeline: exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodSettings {
    /// Chen et al. 2020.
    Simclr(SimclrSettings),
}

/// `[method.simclr]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimclrSettings {
    /// Exactly one encoder.
    pub encoder: EncoderSettings,
    /// Projection head.
    #[serde(default = "default_head")]
    pub head: HeadSettings,
    /// Width of z.
    #[serde(default = "default_projection_width")]
    pub projection_width: usize,
    /// NT-Xent's τ.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// Subtract ImageNet's mean and divide by its standard deviation; the paper does neither.
    #[serde(default)]
    pub imagenet_normalization: bool,
    /// Whether both views share one forward (and so one set of BatchNorm statistics), as torch repositories do.
    #[serde(default)]
    pub joint_forward: bool,
}
fn default_head() -> HeadSettings {
    HeadSettings::PaperV1
}
fn default_projection_width() -> usize {
    128
}
fn default_temperature() -> f64 {
    0.1
}
