//! Convolution over the steps of channels-last sequences.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::module::conv1d;
use burn::tensor::ops::{ConvOptions, PadMode};

use super::cpu;
use super::init::Initializer;

/// A strided convolution over steps. The bias is left to whoever comes next, so that it costs no pass of its own.
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[out_channels, in_channels, kernel]`, as PyTorch stores it.
    pub weight: Param<Tensor<3>>,
    /// `[out_channels]`; none in front of a BatchNorm, which would take it away again.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: [usize; 2],
}

impl Conv1d {
    /// Parameters below `path`; `padding` is zeros in front and behind.
    ///
    /// Weights start with He et al.'s normal distribution by fan-in, biases at 0; under `compat_torch` both uniformly
    /// within 1/√fan-in.
    pub fn new(
        path: &str,
        [in_channels, out_channels]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: [usize; 2],
        bias: bool,
        init: &Initializer<'_>,
    ) -> Self {
        let shape = [out_channels, in_channels, kernel];
        let fan_in = (in_channels * kernel) as f64;
        let (weight, bias_path) = (format!("{path}.weight"), format!("{path}.bias"));
        let (weight, bias) = if init.options().compat_torch {
            let bound = 1.0 / fan_in.sqrt();
            (init.uniform(&weight, shape, bound), bias.then(|| init.uniform(&bias_path, [out_channels], bound)))
        } else {
            (init.normal(&weight, shape, (2.0 / fan_in).sqrt()), bias.then(|| init.constant(out_channels, 0.0)))
        };
        Self { weight, bias, stride, padding }
    }

    /// The product alone, without the bias.
    ///
    /// # Shapes
    /// `[sequences, steps, in_channels]` to `[sequences, (steps + padding − kernel) / stride + 1, out_channels]`.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let weight = self.weight.val();
        match cpu::convolve_steps(&input, &weight, self.stride, self.padding) {
            Some(out) => out,
            None => compose(input, weight, self.stride, self.padding),
        }
    }
}

/// The same from Burn's own operations.
fn compose(input: Tensor<3>, weight: Tensor<3>, stride: usize, [front, behind]: [usize; 2]) -> Tensor<3> {
    let input = input.swap_dims(1, 2); // [sequences, in_channels, steps]
    let input = if front + behind > 0 { input.pad([(front, behind)], PadMode::Constant(0.0)) } else { input };
    conv1d(input, weight, None, ConvOptions::new([stride], [0], [1], 1)).swap_dims(1, 2)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read single values as they go")]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::waves::waves;

    fn run(f: impl Fn(Tensor<3>, Tensor<3>) -> Tensor<3>, input: &Tensor<3>, weight: &Tensor<3>) -> [Tensor<3>; 3] {
        let (input, weight) = (input.clone().require_grad(), weight.clone().require_grad());
        let out = f(input.clone(), weight.clone());
        let coefficients = waves(out.dims(), 0.9, &out.device());
        let gradients = (out.clone() * coefficients).sum_dims(&[0, 1, 2]).backward();
        [out.inner(), input.grad(&gradients).expect("tracked"), weight.grad(&gradients).expect("tracked")]
    }

    #[test]
    fn kernel_for_the_cpu_equals_burns_own_convolution_and_its_gradients() {
        let device = Device::flex().autodiff();
        // (sequences, steps, channels, out, kernel, stride, padding): the first layer of a waveform encoder, causal and
        // one-sided padding, pointwise, strided pointwise, more positions than one tile, steps left over.
        let cases = [
            (2, 160, 1, 4, 10, 5, [3, 3]),
            (3, 33, 4, 5, 4, 2, [2, 0]),
            (3, 32, 4, 5, 4, 2, [0, 3]),
            (2, 9, 4, 3, 1, 1, [0, 0]),
            (2, 9, 4, 3, 1, 2, [0, 0]),
            (70, 40, 2, 3, 8, 4, [2, 2]),
            (1, 1030, 2, 3, 3, 1, [1, 1]),
            (2, 2, 3, 2, 7, 2, [3, 3]),
        ];
        for (sequences, steps, channels, out, kernel, stride, padding) in cases {
            let input = waves([sequences, steps, channels], 0.1, &device);
            let weight = waves([out, channels, kernel], 0.5, &device);
            let ours = run(|x, w| cpu::convolve_steps(&x, &w, stride, padding).expect("on flex"), &input, &weight);
            let burns = run(|x, w| compose(x, w, stride, padding), &input, &weight);
            for (name, (a, b)) in ["output", "input", "weight"].iter().zip(ours.into_iter().zip(burns)) {
                assert_eq!(a.dims(), b.dims());
                let scale: f32 = b.clone().abs().max().into_scalar();
                let gap = (a - b).abs().max().into_scalar::<f32>() / scale;
                assert!(gap < 1e-5, "{name} of {steps} steps, kernel {kernel}, stride {stride}, {padding:?}: {gap}");
            }
        }
    }
}
