//! g_ar as a transformer whose frames attend to themselves and to what came before.
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::cpu::{self, Affine, Gelu, ResidualHalf};
use super::init::Initializer;
use crate::error::{Error, Result, Stage};

/// Added to the variance of a layer normalisation, as PyTorch does.
const EPSILON: f64 = 1e-5;

/// The longest wavelength of the positions, in frames / 2π.
const LONGEST_WAVE: f64 = 10_000.0;

/// The logit of a later frame: finite, so that no kernel meets ∞ · 0.
const LATER: f32 = -1e30;

/// `context.causal_transformer`: blocks of attention and a perceptron four times as wide, normalised in front of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CausalTransformerSettings {
    /// Columns of a context.
    pub width_channels: usize,
    /// Blocks.
    pub blocks: usize,
    /// Parts that attend by themselves; they share the width.
    pub heads: usize,
}
impl Default for CausalTransformerSettings {
    fn default() -> Self {
        Self { width_channels: 256, blocks: 2, heads: 4 }
    }
}

/// Linear input, sinusoidal positions, blocks, a last normalisation.
#[derive(Module, Debug)]
pub struct CausalTransformer {
    input: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    width: usize,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    query_key_value: Linear,
    attention_out: Linear,
    perceptron_norm: LayerNorm,
    perceptron_in: Linear,
    perceptron_out: Linear,
    #[module(skip)]
    heads: usize,
}

#[derive(Module, Debug)]
struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl LayerNorm {
    fn new(width: usize, init: &Initializer<'_>) -> Self {
        Self { weight: init.constant(width, 1.0), bias: init.constant(width, 0.0) }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [sequences, frames, width] = x.dims();
        match cpu::layer_norm(&x.clone().reshape([sequences * frames, width]), &self.parameters()) {
            Some(done) => done.reshape([sequences, frames, width]),
            None => self.compose(x),
        }
    }

    /// The same from Burn's own operations.
    fn compose(&self, x: Tensor<3>) -> Tensor<3> {
        let centred = x.clone() - x.mean_dim(2);
        let variance = centred.clone().square().mean_dim(2); // [sequences, frames, 1]
        centred * (variance + EPSILON).sqrt().recip() * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }

    /// Both parameters, as a kernel takes them.
    fn parameters(&self) -> cpu::Norm {
        cpu::Norm { weight: self.weight.val(), shift: self.bias.val(), epsilon: EPSILON }
    }
}

impl CausalTransformer {
    /// Parameters below `path`.
    ///
    /// # Errors
    /// The heads do not divide the width, the width is odd, or one of the numbers is 0.
    pub fn new(
        path: &str,
        inputs: usize,
        settings: &CausalTransformerSettings,
        init: &Initializer<'_>,
    ) -> Result<Self> {
        let &CausalTransformerSettings { width_channels: width, blocks, heads } = settings;
        if width == 0 || blocks == 0 || heads == 0 || !width.is_multiple_of(heads) || !width.is_multiple_of(2) {
            let reason = format!(
                "a transformer of width {width} with {blocks} blocks of {heads} heads; the width must be even and a \
                 multiple of the heads, and all above 0"
            );
            return Err(Error::at(Stage::Model, "context.causal_transformer", reason));
        }
        let blocks = (0..blocks)
            .map(|index| {
                let linear = |name: &str, from: usize, to: usize| {
                    init.linear(&format!("{path}.blocks.{index}.{name}"), from, to, true)
                };
                Block {
                    attention_norm: LayerNorm::new(width, init),
                    query_key_value: linear("query_key_value", width, 3 * width),
                    attention_out: linear("attention_out", width, width),
                    perceptron_norm: LayerNorm::new(width, init),
                    perceptron_in: linear("perceptron_in", width, 4 * width),
                    perceptron_out: linear("perceptron_out", 4 * width, width),
                    heads,
                }
            })
            .collect();
        let input = init.linear(&format!("{path}.input"), inputs, width, true);
        Ok(Self { input, blocks, norm: LayerNorm::new(width, init), width })
    }

    /// Columns of a context.
    pub fn width(&self) -> usize {
        self.width
    }

    /// # Shapes
    /// `[sequences, frames, inputs]` to `[sequences, frames, width]`.
    pub fn forward(&self, inputs: Tensor<3>) -> Tensor<3> {
        let ([_, frames, _], device) = (inputs.dims(), inputs.device());
        let x = self.input.forward(inputs) + positions(frames, self.width, &device); // [sequences, frames, width]
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.norm.forward(x)
    }
}

/// A layer of Burn's, whose matrix is `[inputs, outputs]`, as a kernel takes it; without a bias it has one of zeros.
fn parameters(layer: &Linear) -> Affine {
    let weight = layer.weight.val().transpose(); // [outputs, inputs]
    let bias = layer.bias.as_ref().map(Param::val);
    let bias = bias.unwrap_or_else(|| Tensor::zeros([weight.dims()[0]], &weight.device()));
    Affine { weight, bias }
}

impl Block {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self.kernels(&x) {
            Some(done) => done,
            None => self.compose(x),
        }
    }

    fn kernels(&self, x: &Tensor<3>) -> Option<Tensor<3>> {
        let half = |norm: &LayerNorm, layers: [&Linear; 2]| ResidualHalf {
            norm: norm.parameters(),
            products: layers.map(parameters),
            factors: None,
        };
        let attention = half(&self.attention_norm, [&self.query_key_value, &self.attention_out]);
        let perceptron = half(&self.perceptron_norm, [&self.perceptron_in, &self.perceptron_out]);
        cpu::perceive(&cpu::attend(x, attention, self.heads, true)?, perceptron, Gelu::Exact)
    }

    /// The same from Burn's own operations.
    fn compose(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attend(self.attention_norm.compose(x));
        let hidden = gelu(self.perceptron_in.forward(self.perceptron_norm.compose(x.clone())));
        x + self.perceptron_out.forward(hidden)
    }

    fn attend(&self, x: Tensor<3>) -> Tensor<3> {
        let [sequences, frames, width] = x.dims();
        let own = width / self.heads;
        let later = later_frames(frames, &x.device()); // [1, 1, frames, frames]
        let all = self.query_key_value.forward(x).reshape([sequences, frames, 3 * self.heads, own]);
        let all = all.swap_dims(1, 2); // [sequences, 3 · heads, frames, own]
        let [query, key, value] = [0, 1, 2].map(|part| all.clone().narrow(1, part * self.heads, self.heads));
        let scores = query.matmul(key.transpose()) / (own as f64).sqrt(); // [sequences, heads, frames, frames]
        let mixed = softmax(scores + later, 3).matmul(value); // [sequences, heads, frames, own]
        self.attention_out.forward(mixed.swap_dims(1, 2).reshape([sequences, frames, width]))
    }
}

fn later_frames(frames: usize, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = (0..frames * frames).map(|i| if i % frames > i / frames { LATER } else { 0.0 }).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, frames, frames]), device)
}

/// Sines in even columns and cosines in odd ones, wavelengths from 2π frames up (Vaswani et al. 2017).
fn positions(frames: usize, width: usize, device: &Device) -> Tensor<3> {
    let value = |frame: usize, column: usize| {
        let angle = frame as f64 / libm::pow(LONGEST_WAVE, (column - column % 2) as f64 / width as f64);
        if column.is_multiple_of(2) { libm::sin(angle) } else { libm::cos(angle) }
    };
    let values: Vec<f32> = (0..frames * width).map(|i| value(i / width, i % width) as f32).collect();
    Tensor::from_data(TensorData::new(values, [1, frames, width]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InitOptions;
    use crate::model::waves::{self, gap, waves};

    fn make(settings: &CausalTransformerSettings, device: &Device) -> Result<CausalTransformer> {
        CausalTransformer::new(
            "g_ar",
            3,
            settings,
            &Initializer::new(InitOptions { seed: 1, compat_torch: false }, device),
        )
    }

    fn values(of: Tensor<3>) -> Vec<f32> {
        of.into_data().try_into_vec::<f32>().expect("f32")
    }

    #[test]
    fn a_context_depends_on_every_earlier_frame_and_on_no_later_one() {
        let device = Device::flex();
        let settings = CausalTransformerSettings { width_channels: 8, blocks: 2, heads: 2 };
        let transformer = make(&settings, &device).expect("plain settings");
        let frames = 6;
        let mut draws = crate::seed::draws(1, "frames", &[]);
        let base: Vec<f32> = (0..frames * 3).map(|_| draws.normal() as f32).collect();
        let run = |values_in: &[f32]| {
            values(transformer.forward(Tensor::from_data(TensorData::new(values_in.to_vec(), [1, frames, 3]), &device)))
        };
        let before = run(&base);
        for changed in 0..frames {
            let mut other = base.clone();
            other[3 * changed] += 1.0;
            let after = run(&other);
            for frame in 0..frames {
                let differs = before[8 * frame..][..8] != after[8 * frame..][..8];
                assert_eq!(differs, frame >= changed, "frame {frame} after a change of {changed}");
            }
        }
    }

    #[test]
    fn equal_frames_are_told_apart_by_their_positions_and_every_weight_learns() {
        let device = Device::flex().autodiff();
        let settings = CausalTransformerSettings { width_channels: 8, blocks: 1, heads: 4 };
        let transformer = make(&settings, &device).expect("plain settings");
        let out = transformer.forward(Tensor::ones([2, 4, 3], &device));
        let rows = values(out.clone().inner());
        assert_ne!(rows[..8], rows[8..16]);
        let weights =
            Tensor::from_data(TensorData::new((0..64).map(|i| (i as f32).sin()).collect(), [2, 4, 8]), &device);
        let gradients = (out * weights).sum_dims(&[0, 1, 2]).backward();
        let block = &transformer.blocks[0];
        for linear in [
            &transformer.input,
            &block.query_key_value,
            &block.attention_out,
            &block.perceptron_in,
            &block.perceptron_out,
        ] {
            let gradient = linear.weight.val().grad(&gradients).expect("tracked");
            let values = gradient.into_data().try_into_vec::<f32>().expect("f32");
            assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != 0.0));
        }
    }

    #[test]
    fn kernels_for_the_cpu_equal_the_composed_form_and_its_gradients() {
        let device = Device::flex().autodiff();
        let settings = CausalTransformerSettings { width_channels: 24, blocks: 1, heads: 3 };
        let block = &make(&settings, &device).expect("plain settings").blocks[0];
        for (sequences, frames) in [(1, 1), (3, 7), (2, 130)] {
            let shape = [sequences, frames, 24];
            let run = |kernels: bool| {
                let x = waves(shape, 0.3, &device).require_grad();
                let out = if kernels { block.kernels(&x).expect("on flex") } else { block.compose(x.clone()) };
                let gradients = (out.clone() * waves(shape, 0.7, &device)).sum_dims(&[0, 1, 2]).backward();
                let layers =
                    [&block.query_key_value, &block.attention_out, &block.perceptron_in, &block.perceptron_out];
                let norms = [&block.attention_norm, &block.perceptron_norm];
                let mut found = vec![values(out), values(x.grad(&gradients).expect("tracked"))];
                for layer in layers {
                    found.push(waves::values(layer.weight.val().grad(&gradients).expect("tracked")));
                    let bias = layer.bias.as_ref().expect("has one").val();
                    found.push(waves::values(bias.grad(&gradients).expect("tracked")));
                }
                for norm in norms {
                    for parameter in [&norm.weight, &norm.bias] {
                        found.push(waves::values(parameter.val().grad(&gradients).expect("tracked")));
                    }
                }
                found
            };
            for (index, (a, b)) in run(true).iter().zip(&run(false)).enumerate() {
                let bound = if index == 0 { 1e-5 } else { 1e-4 };
                assert!(gap(a, b) < bound, "value {index} of {shape:?}: {}", gap(a, b));
            }
        }
    }

    #[test]
    fn heads_that_do_not_share_the_width_are_refused() {
        let device = Device::flex();
        for (width_channels, blocks, heads) in [(8, 1, 3), (8, 0, 2), (8, 1, 0), (0, 1, 1), (9, 1, 3)] {
            assert!(make(&CausalTransformerSettings { width_channels, blocks, heads }, &device).is_err());
        }
    }
}
