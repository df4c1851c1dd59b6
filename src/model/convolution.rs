//! Convolution of channels-last activations.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

use super::cpu;
use super::init::Initializer;

/// A square convolution without bias, the same stride and zero padding on all sides.
#[derive(Module, Debug)]
pub struct Convolution {
    /// `[out_channels, in_channels, kernel, kernel]`, as PyTorch stores it.
    pub weight: Param<Tensor<4>>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: usize,
}

impl Convolution {
    /// The parameter at `path`.weight; padding keeps the side at stride 1 (odd kernels).
    pub fn new(
        path: &str,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        init: &Initializer<'_>,
    ) -> Self {
        let weight = init.convolution(&format!("{path}.weight"), [out_channels, in_channels, kernel, kernel]);
        Self { weight, stride, padding: kernel / 2 }
    }

    /// The same layer around weights `[out_channels, in_channels, kernel, kernel]` from elsewhere.
    pub fn from_weight(weight: Param<Tensor<4>>, stride: usize) -> Self {
        let padding = weight.val().dims()[2] / 2;
        Self { weight, stride, padding }
    }

    /// # Shapes
    /// `[images, height, width, in_channels]` to `[images, ⌈height / stride⌉, ⌈width / stride⌉, out_channels]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        match cpu::convolve(&input, &weight, self.stride, self.padding) {
            Some(out) => out,
            None => compose(input, weight, self.stride, self.padding),
        }
    }
}

/// The same from Burn's own operations. CUDA kernels work on channels-last memory, so the permutations there are views.
fn compose(input: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
    conv2d(input.permute([0, 3, 1, 2]), weight, None, options).permute([0, 2, 3, 1])
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read single values as they go")]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::waves::waves;

    /// (output, gradient of the input, gradient of the weight) for Σ output · coefficients.
    fn run(f: impl Fn(Tensor<4>, Tensor<4>) -> Tensor<4>, input: &Tensor<4>, weight: &Tensor<4>) -> [Tensor<4>; 3] {
        let (input, weight) = (input.clone().require_grad(), weight.clone().require_grad());
        let out = f(input.clone(), weight.clone());
        let coefficients = waves(out.dims(), 0.9, &out.device());
        let loss = (out.clone() * coefficients).sum_dims(&[0, 1, 2, 3]);
        let gradients = loss.backward();
        [out.inner(), input.grad(&gradients).expect("tracked"), weight.grad(&gradients).expect("tracked")]
    }

    fn furthest(a: Tensor<4>, b: Tensor<4>) -> f32 {
        let scale: f32 = b.clone().abs().max().into_scalar();
        (a - b).abs().max().into_scalar::<f32>() / scale
    }

    #[test]
    fn kernel_for_the_cpu_equals_burns_own_convolution_and_its_gradients() {
        let device = Device::flex().autodiff();
        // (images, side, channels, out, kernel, stride): odd and even sides, pointwise, strided pointwise, 7x7, more images
        // than one tile, kernels larger than the image.
        let cases = [
            (2, 8, 3, 4, 3, 1),
            (3, 7, 4, 5, 3, 2),
            (2, 6, 4, 3, 1, 1),
            (2, 7, 4, 3, 1, 2),
            (2, 15, 3, 4, 7, 2),
            (70, 4, 2, 3, 3, 2),
            (530, 2, 2, 3, 3, 1),
            (5, 1, 3, 2, 3, 1),
            (5, 2, 3, 2, 7, 2),
        ];
        for (images, side, channels, out, kernel, stride) in cases {
            let input = waves([images, side, side, channels], 0.1, &device);
            let weight = waves([out, channels, kernel, kernel], 0.5, &device);
            let padding = kernel / 2;
            let ours = |x: Tensor<4>, w: Tensor<4>| cpu::convolve(&x, &w, stride, padding).expect("on flex");
            let a = run(ours, &input, &weight);
            let b = run(|x, w| compose(x, w, stride, padding), &input, &weight);
            for (name, (a, b)) in ["output", "input", "weight"].iter().zip(a.into_iter().zip(b)) {
                assert_eq!(a.dims(), b.dims());
                let gap = furthest(a, b);
                assert!(
                    gap < 1e-5,
                    "{name} of {images} images of side {side}, kernel {kernel}, stride {stride}: {gap}"
                );
            }
        }
    }

    #[test]
    fn untracked_input_gets_no_gradient_and_plain_tensors_no_graph() {
        let device = Device::flex();
        let weight = waves([4, 3, 3, 3], 0.5, &device);
        let input = waves([2, 8, 8, 3], 0.1, &device);
        let plain = cpu::convolve(&input, &weight, 1, 1).expect("on flex");
        assert!(!plain.is_autodiff());
        let tracked = weight.autodiff().require_grad();
        let out = cpu::convolve(&input, &tracked, 1, 1).expect("on flex");
        assert_eq!(out.clone().inner().into_data(), plain.into_data());
        let gradients = out.sum_dims(&[0, 1, 2, 3]).backward();
        assert_eq!(tracked.grad(&gradients).expect("tracked").dims(), [4, 3, 3, 3]);
    }

    #[test]
    fn result_has_the_same_bits_with_one_thread_and_with_three() {
        let device = Device::flex().autodiff();
        let input = waves([70, 8, 8, 3], 0.1, &device);
        let weight = waves([8, 3, 3, 3], 0.5, &device);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| run(|x, w| cpu::convolve(&x, &w, 1, 1).expect("on flex"), &input, &weight))
                .map(Tensor::into_data)
        };
        assert_eq!(on(1), on(3));
    }
}
