//! A block of CLIP's transformers: attention and a perceptron, each normalised in front and added to what came in.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, sigmoid};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;

use super::dropout::Dropout;
use super::settings::Activation;
use crate::model::dense::{Dense, affine};
use crate::model::layer_norm::LayerNorm;
use crate::model::parameters::{Parameters, Start};

/// Slope of the logistic function inside QuickGELU.
const QUICK_GELU_SLOPE: f64 = 1.702;

/// x + attention(norm x), then x + perceptron(norm x).
#[derive(Module, Debug)]
pub struct ResidualBlock {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Perceptron,
}

#[derive(Module, Debug)]
struct Attention {
    /// Queries', keys' and values' matrices, one below the other: `[3 · width, width]`.
    in_proj_weight: Param<Tensor<2>>,
    in_proj_bias: Param<Tensor<1>>,
    out_proj: Dense,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    causal: bool,
}

#[derive(Module, Debug)]
struct Perceptron {
    c_fc: Dense,
    c_proj: Dense,
    #[module(skip)]
    activation: Activation,
}

/// Sizes and starts of one tower's blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockPlan {
    pub(super) width: usize,
    pub(super) perceptron_width: usize,
    pub(super) heads: usize,
    pub(super) causal: bool,
    pub(super) activation: Activation,
    pub(super) starts: BlockStarts,
}

/// How a tower's matrices start.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockStarts {
    pub(super) in_proj: Start,
    pub(super) out_proj: Start,
    pub(super) c_fc: Start,
    pub(super) c_proj: Start,
}

impl BlockStarts {
    /// The text tower's: normal, and narrower for what is added to the residual stream of `blocks`.
    pub(super) fn text(width: usize, blocks: usize) -> Self {
        let attention = (width as f64).sqrt().recip();
        let residual = attention * ((2 * blocks) as f64).sqrt().recip();
        Self {
            in_proj: Start::Normal(attention),
            out_proj: Start::Normal(residual),
            c_fc: Start::Normal(((2 * width) as f64).sqrt().recip()),
            c_proj: Start::Normal(residual),
        }
    }

    /// The image tower's: what PyTorch starts these layers with.
    pub(super) fn vision(width: usize, perceptron_width: usize) -> Self {
        let by_inputs = |inputs: usize| Start::Uniform((inputs as f64).sqrt().recip());
        Self {
            // Glorot and Bengio's bound for `width` inputs and three times as many outputs.
            in_proj: Start::Uniform((6.0 / (4 * width) as f64).sqrt()),
            out_proj: by_inputs(width),
            c_fc: by_inputs(width),
            c_proj: by_inputs(perceptron_width),
        }
    }
}

/// The normalisation at `path`.
pub(super) fn layer_norm(path: &str, width: usize, parameters: &mut Parameters<'_>) -> LayerNorm {
    LayerNorm {
        weight: parameters.trained(&format!("{path}.weight"), [width], Start::Constant(1.0)),
        bias: parameters.trained(&format!("{path}.bias"), [width], Start::Constant(0.0)),
    }
}

/// The linear layer at `path`; its shape is that of PyTorch.
pub(super) fn dense(
    path: &str,
    shape: [usize; 2],
    start: Start,
    bias: Start,
    parameters: &mut Parameters<'_>,
) -> Dense {
    Dense {
        weight: parameters.trained(&format!("{path}.weight"), shape, start),
        bias: parameters.trained(&format!("{path}.bias"), [shape[0]], bias),
    }
}

impl ResidualBlock {
    pub(super) fn new(path: &str, plan: &BlockPlan, parameters: &mut Parameters<'_>) -> Self {
        let (width, inner, zero) = (plan.width, plan.perceptron_width, Start::Constant(0.0));
        let by_inputs = |inputs: usize| Start::Uniform((inputs as f64).sqrt().recip());
        let starts = &plan.starts;
        Self {
            ln_1: layer_norm(&format!("{path}.ln_1"), width, parameters),
            attn: Attention {
                in_proj_weight: parameters.trained(
                    &format!("{path}.attn.in_proj_weight"),
                    [3 * width, width],
                    starts.in_proj,
                ),
                in_proj_bias: parameters.trained(&format!("{path}.attn.in_proj_bias"), [3 * width], zero),
                out_proj: dense(&format!("{path}.attn.out_proj"), [width, width], starts.out_proj, zero, parameters),
                heads: plan.heads,
                causal: plan.causal,
            },
            ln_2: layer_norm(&format!("{path}.ln_2"), width, parameters),
            mlp: Perceptron {
                c_fc: dense(&format!("{path}.mlp.c_fc"), [inner, width], starts.c_fc, by_inputs(width), parameters),
                c_proj: dense(
                    &format!("{path}.mlp.c_proj"),
                    [width, inner],
                    starts.c_proj,
                    by_inputs(inner),
                    parameters,
                ),
                activation: plan.activation,
            },
        }
    }

    /// # Shapes
    /// `[rows, tokens, width]` to the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.ln_1.forward(x));
        x.clone() + self.mlp.forward(self.ln_2.forward(x))
    }

    /// [`Self::forward`] with a share of what is added dropped; `layer` names the block.
    pub fn forward_train(&self, x: Tensor<3>, layer: &str, dropout: &Dropout) -> Tensor<3> {
        let attended = self.attn.forward(self.ln_1.forward(x.clone()));
        let x = x + dropout.apply(&format!("{layer}.attn"), attended);
        let perceived = self.mlp.forward(self.ln_2.forward(x.clone()));
        x + dropout.apply(&format!("{layer}.mlp"), perceived)
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [rows, tokens, width] = x.dims();
        let all = affine(x, self.in_proj_weight.val(), self.in_proj_bias.val()); // [rows, tokens, 3 · width]
        let part = |part: usize| {
            let part = all.clone().narrow(2, part * width, width);
            part.reshape([rows, tokens, self.heads, width / self.heads]).swap_dims(1, 2) // [rows, heads, tokens, own]
        };
        let options = AttentionModuleOptions { is_causal: self.causal, ..AttentionModuleOptions::default() };
        let mixed = attention(part(0), part(1), part(2), None, None, options); // [rows, heads, tokens, own]
        self.out_proj.forward(mixed.swap_dims(1, 2).reshape([rows, tokens, width]))
    }
}

impl Perceptron {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = self.c_fc.forward(x); // [rows, tokens, inner]
        let inner = match self.activation {
            Activation::QuickGelu => inner.clone() * sigmoid(inner * QUICK_GELU_SLOPE),
            Activation::Gelu => gelu(inner),
        };
        self.c_proj.forward(inner)
    }
}
