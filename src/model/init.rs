//! Initial weights: drawn on the host under the name of the parameter, never by a device's own generator.
use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};

use crate::seed;

/// How weights start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// The run's seed.
    pub seed: u64,
    /// What a plain PyTorch script has: its default weights in convolutions, no zero gain, unbiased running variance.
    pub compat_torch: bool,
}

/// Makes the parameters of one model on one device.
///
/// A parameter's values depend on seed and path alone: not on the device, nor on which other layers the model has.
#[derive(Debug)]
pub struct Initializer<'a> {
    options: InitOptions,
    device: &'a Device,
}

impl<'a> Initializer<'a> {
    /// Parameters come to life on `device`; they are trainable once the module is in training mode.
    pub fn new(options: InitOptions, device: &'a Device) -> Self {
        Self { options, device }
    }

    /// What was asked for.
    pub fn options(&self) -> InitOptions {
        self.options
    }

    /// Weights `[out_channels, in_channels, kernel, kernel]`: He et al.'s normal distribution by fan-out, as torchvision
    /// starts its ResNets; under `compat_torch` PyTorch's default, uniform by fan-in.
    pub fn convolution(&self, path: &str, shape: [usize; 4]) -> Param<Tensor<4>> {
        let [out_channels, in_channels, kernel, _] = shape;
        let area = kernel * kernel;
        let mut draws = seed::draws(self.options.seed, &purpose(path), &[]);
        let count = out_channels * in_channels * area;
        let values: Vec<f32> = if self.options.compat_torch {
            let bound = 1.0 / ((in_channels * area) as f64).sqrt();
            (0..count).map(|_| draws.between(-bound, bound) as f32).collect()
        } else {
            let deviation = (2.0 / (out_channels * area) as f64).sqrt();
            (0..count).map(|_| (deviation * draws.normal()) as f32).collect()
        };
        self.trainable(values, shape)
    }

    /// Weights `[inputs, outputs]` and bias as PyTorch starts them: uniform within 1/√inputs.
    pub fn linear(&self, path: &str, inputs: usize, outputs: usize, bias: bool) -> Linear {
        let bound = 1.0 / (inputs as f64).sqrt();
        let uniform = |name: &str, count: usize| -> Vec<f32> {
            let mut draws = seed::draws(self.options.seed, &purpose(&format!("{path}.{name}")), &[]);
            (0..count).map(|_| draws.between(-bound, bound) as f32).collect()
        };
        Linear {
            weight: self.trainable(uniform("weight", inputs * outputs), [inputs, outputs]),
            bias: bias.then(|| self.trainable(uniform("bias", outputs), [outputs])),
        }
    }

    /// Trainable weights, uniform within `bound`.
    pub fn uniform<const D: usize>(&self, path: &str, shape: [usize; D], bound: f64) -> Param<Tensor<D>> {
        let mut draws = seed::draws(self.options.seed, &purpose(path), &[]);
        let values = (0..shape.iter().product()).map(|_| draws.between(-bound, bound) as f32).collect();
        self.trainable(values, shape)
    }

    /// Trainable weights, normal around 0.
    pub fn normal<const D: usize>(&self, path: &str, shape: [usize; D], deviation: f64) -> Param<Tensor<D>> {
        let mut draws = seed::draws(self.options.seed, &purpose(path), &[]);
        let values = (0..shape.iter().product()).map(|_| (deviation * draws.normal()) as f32).collect();
        self.trainable(values, shape)
    }

    /// A trainable vector of one value.
    pub fn constant(&self, length: usize, value: f32) -> Param<Tensor<1>> {
        self.trainable(vec![value; length], [length])
    }

    /// A trainable tensor of one value.
    pub fn filled<const D: usize>(&self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.trainable(vec![value; shape.iter().product()], shape)
    }

    /// A vector that travels with the weights but is not trained.
    pub fn buffer(&self, length: usize, value: f32) -> Param<Tensor<1>> {
        let data = TensorData::new(vec![value; length], [length]);
        Param::initialized(ParamId::new(), Tensor::from_data(data, self.device))
    }

    fn trainable<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }
}

fn purpose(path: &str) -> String {
    format!("weights of {path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(seed: u64, compat_torch: bool, path: &str) -> Vec<f32> {
        let device = Device::flex();
        let init = Initializer::new(InitOptions { seed, compat_torch }, &device);
        init.convolution(path, [64, 32, 3, 3]).val().into_data().try_into_vec::<f32>().expect("f32")
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        (mean, (values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count).sqrt())
    }

    #[test]
    fn weights_depend_on_seed_and_path_alone() {
        assert_eq!(weights(1, false, "a"), weights(1, false, "a"));
        assert_ne!(weights(1, false, "a"), weights(2, false, "a"));
        assert_ne!(weights(1, false, "a"), weights(1, false, "b"));
    }

    #[test]
    fn convolutions_start_with_the_deviation_of_the_paper_and_of_pytorch() {
        let (mean, deviation) = moments(&weights(1, false, "a"));
        let expected = (2.0_f64 / (64.0 * 9.0)).sqrt();
        assert!(mean.abs() < 0.02 * expected && (deviation / expected - 1.0).abs() < 0.02, "{mean} {deviation}");
        let torch = weights(1, true, "a");
        let bound = 1.0 / (32.0_f64 * 9.0).sqrt();
        let (mean, deviation) = moments(&torch);
        assert!(mean.abs() < 0.02 * bound && (deviation * 3.0_f64.sqrt() / bound - 1.0).abs() < 0.02);
        assert!(torch.iter().all(|&x| f64::from(x).abs() <= bound));
    }
}
