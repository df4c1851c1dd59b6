//! A block of CLIP's transformers: attention and a perceptron, each normalised in front and added to what came in.
use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, sigmoid};
use burn::tensor::module::{attention, layer_norm};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Tensor, TensorData};

use super::dropout::Dropout;
use super::settings::Activation;
use crate::model::cpu::{self, Affine, Gelu, ResidualHalf};
use crate::model::dense::Dense;
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
pub(super) fn norm(path: &str, width: usize, parameters: &mut Parameters<'_>) -> LayerNorm {
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
            ln_1: norm(&format!("{path}.ln_1"), width, parameters),
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
            ln_2: norm(&format!("{path}.ln_2"), width, parameters),
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
    pub fn forward(&self, x: Tensor<3>, dropout: Option<(&Dropout, &str)>) -> Tensor<3> {
        self.perceive(self.attend(x, dropout), dropout)
    }

    /// The first half: tokens look at each other. With a dropout, a share of what is added is dropped; its name is the block's.
    ///
    /// # Shapes
    /// As of [`Self::forward`].
    pub(super) fn attend(&self, x: Tensor<3>, dropout: Option<(&Dropout, &str)>) -> Tensor<3> {
        let factors = dropout.and_then(|(dropout, layer)| dropout.factors(&format!("{layer}.attn"), x.dims()));
        let Attention { in_proj_weight, in_proj_bias, out_proj, heads, causal } = &self.attn;
        let input = Affine { weight: in_proj_weight.val(), bias: in_proj_bias.val() };
        let products = [input, out_proj.parameters()];
        let half = ResidualHalf { norm: self.ln_1.parameters(), products, factors };
        match cpu::attend(&x, half.clone(), *heads, *causal) {
            Some(done) => done,
            None => compose(x, half, |all| mixed(&all, *heads, *causal)),
        }
    }

    /// The second half: a perceptron of each token.
    ///
    /// # Shapes
    /// As of [`Self::forward`].
    pub(super) fn perceive(&self, x: Tensor<3>, dropout: Option<(&Dropout, &str)>) -> Tensor<3> {
        let factors = dropout.and_then(|(dropout, layer)| dropout.factors(&format!("{layer}.mlp"), x.dims()));
        let Perceptron { c_fc, c_proj, activation } = &self.mlp;
        let products = [c_fc.parameters(), c_proj.parameters()];
        let half = ResidualHalf { norm: self.ln_2.parameters(), products, factors };
        let kind = match activation {
            Activation::QuickGelu => Gelu::Quick,
            Activation::Gelu => Gelu::Exact,
        };
        match cpu::perceive(&x, half.clone(), kind) {
            Some(done) => done,
            None => compose(x, half, |inner| activated(inner, *activation)),
        }
    }
}

/// Half a block from Burn's own operations: x + factors · f(norm x), where f has two products and something `between` them.
fn compose(x: Tensor<3>, half: ResidualHalf, between: impl Fn(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
    let ResidualHalf { norm, products, factors } = half;
    let [first, second] = products.map(|Affine { weight, bias }| {
        move |x: Tensor<3>| {
            let ([rows, tokens, inputs], [outputs, _]) = (x.dims(), weight.dims());
            let out = x.reshape([rows * tokens, inputs]).matmul(weight.transpose()) + bias.unsqueeze();
            out.reshape([rows, tokens, outputs])
        }
    });
    let normed = layer_norm(x.clone(), norm.weight, Some(norm.shift), norm.epsilon);
    let branch = second(between(first(normed))); // [rows, tokens, width]
    match factors {
        None => x + branch,
        Some(factors) => {
            let factors = Tensor::from_data(TensorData::new(factors, x.dims()), &x.device());
            x + branch * factors
        }
    }
}

/// Attention from Burn's own operations: `[rows, tokens, 3 · width]` to `[rows, tokens, width]`.
fn mixed(all: &Tensor<3>, heads: usize, causal: bool) -> Tensor<3> {
    let [rows, tokens, columns] = all.dims();
    let width = columns / 3;
    let part = |part: usize| {
        let part = all.clone().narrow(2, part * width, width);
        part.reshape([rows, tokens, heads, width / heads]).swap_dims(1, 2) // [rows, heads, tokens, own]
    };
    let options = AttentionModuleOptions { is_causal: causal, ..AttentionModuleOptions::default() };
    let mixed = attention(part(0), part(1), part(2), None, None, options); // [rows, heads, tokens, own]
    mixed.swap_dims(1, 2).reshape([rows, tokens, width])
}

fn activated(inner: Tensor<3>, activation: Activation) -> Tensor<3> {
    match activation {
        Activation::QuickGelu => inner.clone() * sigmoid(inner * QUICK_GELU_SLOPE),
        Activation::Gelu => gelu(inner),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::cpu::Norm;
    use crate::model::waves::{gap, values, waves};

    /// Which half, and what lies between its products.
    #[derive(Debug, Clone, Copy)]
    enum Kind {
        Attention { heads: usize, causal: bool },
        Perceptron { inner: usize, activation: Activation },
    }

    impl Kind {
        /// Columns of the first product, and those that the second one takes.
        fn columns(self, width: usize) -> [usize; 2] {
            match self {
                Self::Attention { .. } => [3 * width, width],
                Self::Perceptron { inner, .. } => [inner, inner],
            }
        }

        fn kernel(self, x: &Tensor<3>, half: ResidualHalf) -> Tensor<3> {
            let done = match self {
                Self::Attention { heads, causal } => cpu::attend(x, half, heads, causal),
                Self::Perceptron { activation: Activation::Gelu, .. } => cpu::perceive(x, half, Gelu::Exact),
                Self::Perceptron { activation: Activation::QuickGelu, .. } => cpu::perceive(x, half, Gelu::Quick),
            };
            done.expect("on flex")
        }

        fn composed(self, x: &Tensor<3>, half: ResidualHalf) -> Tensor<3> {
            compose(x.clone(), half, |first| match self {
                Self::Attention { heads, causal } => mixed(&first, heads, causal),
                Self::Perceptron { activation, .. } => activated(first, activation),
            })
        }
    }

    fn half(kind: Kind, [rows, tokens, width]: [usize; 3], dropped: bool, device: &Device) -> ResidualHalf {
        let [first, second] = kind.columns(width);
        let leaf = |shape: [usize; 2], phase: f64| {
            let scale = 1.5 / (shape[1] as f64).sqrt();
            (waves(shape, phase, device) * scale).detach().require_grad()
        };
        let vector = |length: usize, phase: f64| waves([length], phase, device).require_grad();
        let norm = Norm { weight: vector(width, 0.4), shift: vector(width, 1.4), epsilon: 1e-5 };
        let products = [([first, width], 0.6), ([width, second], 0.8)]
            .map(|(shape, phase)| Affine { weight: leaf(shape, phase), bias: vector(shape[0], 2.0 + phase) });
        let factors = (0..rows * tokens * width).map(|i| if i % 5 == 0 { 0.0 } else { 1.25 }).collect();
        ResidualHalf { norm, products, factors: dropped.then_some(factors) }
    }

    fn without_autodiff(ResidualHalf { norm, products, factors }: ResidualHalf) -> ResidualHalf {
        let norm = Norm { weight: norm.weight.inner(), shift: norm.shift.inner(), ..norm };
        let products = products.map(|Affine { weight, bias }| Affine { weight: weight.inner(), bias: bias.inner() });
        ResidualHalf { norm, products, factors }
    }

    /// The output, and the gradients of x and of every parameter, for Σ output · coefficients.
    fn run(kind: Kind, shape: [usize; 3], dropped: bool, kernel: bool) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let x = (waves(shape, 0.1, &device) * 1.3 + 0.2).detach().require_grad();
        let half = half(kind, shape, dropped, &device);
        let (of_half, coefficients) = (half.clone(), waves(shape, 0.9, &device));
        let out = if kernel { kind.kernel(&x, half) } else { kind.composed(&x, half) };
        let gradients = (out.clone() * coefficients).sum_dims(&[0, 1, 2]).backward();
        let ResidualHalf { norm, products: [first, second], .. } = of_half;
        let vector = |of: Tensor<1>| values(of.grad(&gradients).expect("tracked"));
        let matrix = |of: Tensor<2>| values(of.grad(&gradients).expect("tracked"));
        vec![
            values(out),
            values(x.grad(&gradients).expect("tracked")),
            vector(norm.weight),
            vector(norm.shift),
            matrix(first.weight),
            vector(first.bias),
            matrix(second.weight),
            vector(second.bias),
        ]
    }

    /// The output without autodiff, where few rows go another way.
    fn plain(kind: Kind, shape: [usize; 3], dropped: bool) -> Vec<f32> {
        let x = waves(shape, 0.1, &Device::flex()) * 1.3 + 0.2;
        values(kind.kernel(&x, without_autodiff(half(kind, shape, dropped, &Device::flex().autodiff()))))
    }

    const PERCEPTRONS: [Kind; 2] = [
        Kind::Perceptron { inner: 37, activation: Activation::Gelu },
        Kind::Perceptron { inner: 50, activation: Activation::QuickGelu },
    ];

    fn cases() -> Vec<(Kind, [usize; 3])> {
        let shapes = [[1, 1, 12], [3, 5, 12], [2, 150, 12], [70, 33, 12]];
        let attentions = [true, false].map(|causal| Kind::Attention { heads: 3, causal });
        let kinds = attentions.into_iter().chain(PERCEPTRONS);
        kinds.flat_map(|kind| shapes.map(|shape| (kind, shape))).collect()
    }

    #[test]
    fn kernels_for_the_cpu_equal_the_composed_form_and_its_gradients() {
        for (kind, shape) in cases() {
            for dropped in [false, true] {
                let (found, expected) = (run(kind, shape, dropped, true), run(kind, shape, dropped, false));
                for (index, (a, b)) in found.iter().zip(&expected).enumerate() {
                    let bound = if index == 0 { 1e-5 } else { 1e-4 };
                    assert!(gap(a, b) < bound, "value {index} of {kind:?} {shape:?} {dropped}: {}", gap(a, b));
                }
                let plain = plain(kind, shape, dropped);
                assert!(
                    gap(&plain, &expected[0]) < 1e-5,
                    "{kind:?} {shape:?} {dropped}: {}",
                    gap(&plain, &expected[0])
                );
            }
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let on = |threads: usize, work: &(dyn Fn() -> Vec<Vec<f32>> + Sync)| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(work)
        };
        for (kind, shape) in cases() {
            let work = || {
                let mut all = run(kind, shape, true, true);
                all.push(plain(kind, shape, false));
                all
            };
            let alone = on(1, &work);
            assert!(alone == on(2, &work) && alone == on(5, &work), "{kind:?} {shape:?}");
        }
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let device = Device::flex();
        let shape = [2, 3, 12];
        for (kind, _) in cases().into_iter().step_by(4) {
            let poison = Tensor::<3>::zeros([1, 1, 12], &device) + f32::NAN;
            let x = waves(shape, 0.1, &device).slice_assign([0..1, 1..2, 0..12], poison);
            let half = without_autodiff(half(kind, shape, false, &device.clone().autodiff()));
            let out = values(kind.kernel(&x, half));
            assert!(out[12..24].iter().all(|x| x.is_nan()) && out[36..].iter().all(|x| x.is_finite()), "{kind:?}");
        }
    }
}
