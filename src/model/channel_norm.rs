//! Normalisation of each frame over its channels, as CPC for audio uses it (Rivière et al. 2020, arXiv 2002.02848).
//!
//! Unlike BatchNorm it takes nothing from other frames, so that the future cannot leak into the past through statistics.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::cpu;
use super::init::Initializer;

/// Added to the variance.
pub const EPSILON: f64 = 1e-5;

/// (x − mean) / √(variance + ε) · weight + bias over the channels of each row; the variance is the unbiased one.
#[derive(Module, Debug)]
pub struct ChannelNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
}

impl ChannelNorm {
    /// Weights 1 and biases 0. Of two channels or more: one has no variance.
    pub fn new(channels: usize, init: &Initializer<'_>) -> Self {
        Self { weight: init.constant(channels, 1.0), bias: init.constant(channels, 0.0) }
    }

    /// Adds `before` to every row, normalises it, then ReLU, in one pass.
    ///
    /// # Shapes
    /// `input`: `[sequences, frames, channels]` to the same; `before`: `[channels]`.
    pub fn forward_relu(&self, input: Tensor<3>, before: Tensor<1>) -> Tensor<3> {
        let shape = input.dims();
        let values = input.reshape([shape[0] * shape[1], shape[2]]); // [rows, channels]
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let out = match cpu::channel_norm(&values, [&before, &weight, &bias], EPSILON, true) {
            Some(done) => done,
            None => compose(values, before, weight, bias),
        };
        out.reshape(shape)
    }
}

/// The same from Burn's own operations.
fn compose(values: Tensor<2>, before: Tensor<1>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<2> {
    let values = values + before.unsqueeze();
    let channels = values.dims()[1] as f64;
    let centred = values.clone() - values.mean_dim(1); // [rows, channels]
    let variance = centred.clone().square().sum_dim(1) / (channels - 1.0); // [rows, 1]
    relu(centred * (variance + EPSILON).sqrt().recip() * weight.unsqueeze() + bias.unsqueeze())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::waves::{values, waves};

    #[test]
    fn kernel_for_the_cpu_equals_the_composed_form_and_its_gradients() {
        let device = Device::flex().autodiff();
        for (rows, channels) in [(7, 3), (5, 2), (3_000, 21), (700, 96)] {
            let input = waves([rows, channels], 0.1, &device) * 1.7 + 3.0;
            let parameters = [0.4, 1.4, 2.4].map(|phase| waves([channels], phase, &device));
            let coefficients = waves([rows, channels], 0.9, &device);
            let run = |kernel: bool| {
                let x = input.clone().detach().require_grad();
                let [before, weight, bias] = parameters.clone().map(Tensor::require_grad);
                let out = if kernel {
                    cpu::channel_norm(&x, [&before, &weight, &bias], EPSILON, true).expect("on flex")
                } else {
                    compose(x.clone(), before.clone(), weight.clone(), bias.clone())
                };
                let gradients = (out.clone() * coefficients.clone()).sum_dims(&[0, 1]).backward();
                let of = |tensor: &Tensor<1>| values(tensor.grad(&gradients).expect("tracked"));
                let of_input = values(x.grad(&gradients).expect("tracked"));
                [values(out), of_input, of(&before), of(&weight), of(&bias)]
            };
            for (index, (a, b)) in run(true).iter().zip(&run(false)).enumerate() {
                // Two channels are ±1/√2 whatever the input: its gradient is what is left of terms of size 1 and more.
                let scale = b.iter().fold(0.1_f32, |m, x| m.max(x.abs()));
                let gap = a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / scale;
                assert!(gap < 1e-4, "value {index} of {rows}x{channels}: {gap}");
            }
        }
    }

    #[test]
    fn not_a_number_is_not_hidden_by_the_relu() {
        let device = Device::flex();
        let input = Tensor::<2>::from_data([[1.0, 2.0], [f32::NAN, 3.0]], &device);
        let [zero, one] = [Tensor::zeros([2], &device), Tensor::ones([2], &device)];
        let out = values(cpu::channel_norm(&input, [&zero, &one, &zero], EPSILON, true).expect("on flex"));
        assert!(!out[0].is_nan() && !out[1].is_nan() && out[2].is_nan() && out[3].is_nan());
    }
}
