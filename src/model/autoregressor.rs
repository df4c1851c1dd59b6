//! g_ar: what came before, in one vector per frame.
use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::causal_transformer::{CausalTransformer, CausalTransformerSettings};
use super::gru::Gru;
use super::init::Initializer;
use crate::error::{Error, Result, Stage};

/// `context.*`: exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoregressorSettings {
    /// A gated recurrent unit, as in the paper.
    Gru(GruSettings),
    /// A transformer that sees no later frame.
    CausalTransformer(CausalTransformerSettings),
}
impl Default for AutoregressorSettings {
    fn default() -> Self {
        Self::Gru(GruSettings::default())
    }
}

/// `context.gru`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GruSettings {
    /// Columns of a context; the paper has 256.
    pub width_channels: usize,
}
impl Default for GruSettings {
    fn default() -> Self {
        Self { width_channels: 256 }
    }
}

/// One of them. Weights are known by their own names: the variant is no part of a path.
#[derive(Module, Debug)]
pub enum Autoregressor {
    /// Gated recurrent unit.
    Gru(Gru),
    /// Causal transformer.
    CausalTransformer(CausalTransformer),
}

impl Autoregressor {
    /// Parameters below `path`, for encodings of `inputs` columns.
    ///
    /// # Errors
    /// The settings make no such model.
    pub fn new(path: &str, inputs: usize, settings: &AutoregressorSettings, init: &Initializer<'_>) -> Result<Self> {
        match settings {
            AutoregressorSettings::Gru(GruSettings { width_channels: 0 }) => {
                Err(Error::at(Stage::Model, "context.gru.width_channels", "a context of 0 columns; take 1 or more"))
            }
            AutoregressorSettings::Gru(settings) => {
                Ok(Self::Gru(Gru::new(path, inputs, settings.width_channels, init)))
            }
            AutoregressorSettings::CausalTransformer(settings) => {
                CausalTransformer::new(path, inputs, settings, init).map(Self::CausalTransformer)
            }
        }
    }

    /// Columns of a context.
    pub fn width(&self) -> usize {
        match self {
            Self::Gru(gru) => gru.width(),
            Self::CausalTransformer(transformer) => transformer.width(),
        }
    }

    /// The context of each frame: a function of it and the frames before it.
    ///
    /// # Shapes
    /// `[sequences, frames, inputs]` to `[sequences, frames, width]`.
    pub fn forward(&self, encodings: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Gru(gru) => gru.forward(encodings),
            Self::CausalTransformer(transformer) => transformer.forward(encodings),
        }
    }
}
