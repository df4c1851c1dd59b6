//! Batch normalisation with plain buffers.
//!
//! Burn's own keeps running statistics in a state that lags behind what a checkpoint reads, and knows only the biased
//! variance. Here they are parameters like any other, updated at once.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::cpu;
use super::init::Initializer;
use super::parameters::{Parameters, Start};

/// Share of the batch in the running statistics: PyTorch's momentum .1 is the paper's decay .9.
pub const MOMENTUM: f64 = 0.1;

/// Added to the variance.
pub const EPSILON: f64 = 1e-5;

/// Normalisation of each channel over all other axes (Ioffe and Szegedy 2015).
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// γ, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// β, `[channels]`; none where the layer does not shift.
    pub bias: Option<Param<Tensor<1>>>,
    /// Not trained.
    pub running_mean: Param<Tensor<1>>,
    /// Not trained; biased, or unbiased as in PyTorch under `compat_torch`.
    pub running_var: Param<Tensor<1>>,
    #[module(skip)]
    unbiased: bool,
}

impl BatchNorm {
    /// γ = `gain`, β = 0, running mean 0 and variance 1.
    pub fn new(channels: usize, gain: f32, init: &Initializer<'_>) -> Self {
        Self {
            weight: init.constant(channels, gain),
            bias: Some(init.constant(channels, 0.0)),
            running_mean: init.buffer(channels, 0.0),
            running_var: init.buffer(channels, 1.0),
            unbiased: init.options().compat_torch,
        }
    }

    /// The layer at `path`, drawn or loaded.
    pub fn from_parameters(path: &str, channels: usize, gain: f32, parameters: &mut Parameters<'_>) -> Self {
        let mut trained =
            |name: &str, value| parameters.trained(&format!("{path}.{name}"), [channels], Start::Constant(value));
        let (weight, bias) = (trained("weight", gain), trained("bias", 0.0));
        Self {
            weight,
            bias: Some(bias),
            running_mean: parameters.buffer(&format!("{path}.running_mean"), channels, 0.0),
            running_var: parameters.buffer(&format!("{path}.running_var"), channels, 1.0),
            unbiased: parameters.compat_torch(),
        }
    }

    /// The same layer without β.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// Normalises with the batch's own moments and moves the running ones towards them.
    ///
    /// # Shapes
    /// `[.., channels]` to the same.
    pub fn forward_train<const D: usize>(&mut self, input: Tensor<D>) -> Tensor<D> {
        self.train(input, false)
    }

    /// [`Self::forward_train`], then ReLU, in one pass.
    pub fn forward_train_relu<const D: usize>(&mut self, input: Tensor<D>) -> Tensor<D> {
        self.train(input, true)
    }

    /// Normalises with the running moments.
    ///
    /// # Shapes
    /// `[.., channels]` to the same.
    pub fn forward_eval<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.eval(input, false)
    }

    /// [`Self::forward_eval`], then ReLU, in one pass.
    pub fn forward_eval_relu<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.eval(input, true)
    }

    fn train<const D: usize>(&mut self, input: Tensor<D>, with_relu: bool) -> Tensor<D> {
        let shape = input.dims();
        let rows = shape[..D - 1].iter().product::<usize>();
        let values = input.reshape([rows, shape[D - 1]]); // [rows, channels]
        let (weight, bias) = (self.weight.val(), self.shift());
        let (out, mean, variance) = match cpu::batch_norm_train(&values, &weight, &bias, EPSILON, with_relu) {
            Some(done) => done,
            None => compose_train(values, weight, bias, with_relu),
        };
        let correction = if self.unbiased { rows as f64 / (rows as f64 - 1.0).max(1.0) } else { 1.0 };
        self.running_mean = moved(&self.running_mean, mean);
        self.running_var = moved(&self.running_var, variance * correction);
        out.reshape(shape)
    }

    fn eval<const D: usize>(&self, input: Tensor<D>, with_relu: bool) -> Tensor<D> {
        let shape = input.dims();
        let rows = shape[..D - 1].iter().product::<usize>();
        let values = input.reshape([rows, shape[D - 1]]); // [rows, channels]
        let (weight, bias) = (self.weight.val(), self.shift());
        let (mean, variance) = (self.running_mean.val(), self.running_var.val());
        let out = match cpu::normalize(&values, [&mean, &variance], &weight, &bias, EPSILON, with_relu) {
            Some(done) => done,
            None => affine(values - mean.unsqueeze(), variance.unsqueeze(), weight, bias, with_relu),
        };
        out.reshape(shape)
    }

    fn shift(&self) -> Tensor<1> {
        self.bias.as_ref().map_or_else(|| self.weight.val().detach().zeros_like(), Param::val)
    }
}

/// The buffer moved towards this batch's moment, outside autodiff: a chain of all batches would never be freed.
fn moved(buffer: &Param<Tensor<1>>, moment: Tensor<1>) -> Param<Tensor<1>> {
    let old = buffer.val();
    let tracked = old.is_autodiff();
    let new = old.inner() * (1.0 - MOMENTUM) + moment.inner() * MOMENTUM;
    Param::initialized(buffer.id, if tracked { new.autodiff() } else { new })
}

/// The output, mean and biased variance from Burn's own operations.
fn compose_train(
    values: Tensor<2>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    with_relu: bool,
) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let mean = values.clone().mean_dim(0); // [1, channels]
    let centred = values - mean.clone();
    let variance = centred.clone().square().mean_dim(0); // [1, channels]
    let moment = |of: Tensor<2>| of.detach().squeeze_dim::<1>(0);
    let moments = (moment(mean), moment(variance.clone()));
    (affine(centred, variance, weight, bias, with_relu), moments.0, moments.1)
}

fn affine(centred: Tensor<2>, variance: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, with_relu: bool) -> Tensor<2> {
    let scale = weight.unsqueeze() * (variance + EPSILON).sqrt().recip(); // [1, channels]
    let out = centred * scale + bias.unsqueeze();
    if with_relu { relu(out) } else { out }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::model::init::InitOptions;
    use crate::model::waves::{values, waves};

    fn layer(channels: usize, compat_torch: bool, device: &Device) -> BatchNorm {
        BatchNorm::new(channels, 1.0, &Initializer::new(InitOptions { seed: 0, compat_torch }, device))
    }

    fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
        let scale = b.iter().fold(1e-6_f32, |m, x| m.max(x.abs()));
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * scale)
    }

    #[test]
    fn kernel_for_the_cpu_equals_the_composed_form_and_its_gradients() {
        let device = Device::flex().autodiff();
        for (rows, channels, with_relu) in
            [(7, 3, false), (7, 3, true), (40_000, 5, false), (700, 5, true), (300, 256, false)]
        {
            let input = waves([rows, channels], 0.1, &device) * 1.7 + 3.0;
            let (weight, bias) = (waves([channels], 0.4, &device), waves([channels], 2.4, &device));
            let coefficients = waves([rows, channels], 0.9, &device);
            let run = |kernel: bool| {
                let (x, w, b) =
                    (input.clone().detach().require_grad(), weight.clone().require_grad(), bias.clone().require_grad());
                let (out, mean, variance) = if kernel {
                    cpu::batch_norm_train(&x, &w, &b, EPSILON, with_relu).expect("on flex")
                } else {
                    compose_train(x.clone(), w.clone(), b.clone(), with_relu)
                };
                let gradients = (out.clone() * coefficients.clone()).sum_dims(&[0, 1]).backward();
                [
                    values(out),
                    values(mean),
                    values(variance),
                    values(x.grad(&gradients).expect("tracked")),
                    values(w.grad(&gradients).expect("tracked")),
                    values(b.grad(&gradients).expect("tracked")),
                ]
            };
            for (index, (a, b)) in run(true).iter().zip(&run(false)).enumerate() {
                assert!(close(a, b, 2e-4), "value {index} of {rows}x{channels}, relu {with_relu}");
            }
        }
    }

    #[test]
    fn a_large_mean_costs_no_digits() {
        let device = Device::flex();
        let input = waves([5_000, 2], 0.1, &device);
        let mut plain = layer(2, false, &device);
        let mut moved = layer(2, false, &device);
        let a = values(plain.forward_train(input.clone()));
        let b = values(moved.forward_train(input + 256.0));
        // 256 leaves 2⁻¹⁵ to the input's own digits; one pass over squares would leave none.
        assert!(close(&a, &b, 1e-4));
    }

    #[test]
    fn running_statistics_move_by_a_tenth_and_are_unbiased_as_in_pytorch_where_asked() {
        let device = Device::flex();
        let data = vec![1.0_f32, 2.0, 3.0, 6.0];
        let input = Tensor::<2>::from_data(TensorData::new(data, [4, 1]), &device);
        for (compat_torch, variance) in [(false, 3.5), (true, 3.5 * 4.0 / 3.0)] {
            let mut layer = layer(1, compat_torch, &device);
            let out = values(layer.forward_train(input.clone()));
            assert!((out[0] + 2.0 / (3.5_f32 + 1e-5).sqrt()).abs() < 1e-5);
            assert!((values(layer.running_mean.val())[0] - 0.3).abs() < 1e-6);
            assert!((values(layer.running_var.val())[0] - (0.9 + 0.1 * variance)).abs() < 1e-6);
        }
    }

    #[test]
    fn evaluation_uses_the_running_statistics_and_moves_nothing() {
        let device = Device::flex();
        let mut layer = layer(3, false, &device);
        let input = waves([6, 2, 3], 0.1, &device);
        layer.forward_train(input.clone());
        let (mean, variance) = (values(layer.running_mean.val()), values(layer.running_var.val()));
        let out = values(layer.forward_eval_relu(input.clone()));
        for (index, (out, x)) in out.iter().zip(values(input)).enumerate() {
            let expected = (x - mean[index % 3]) / (variance[index % 3] + EPSILON as f32).sqrt();
            assert!((out - expected.max(0.0)).abs() < 1e-5);
        }
        assert_eq!(values(layer.running_mean.val()), mean);
    }

    #[test]
    fn not_a_number_is_not_hidden_by_the_relu() {
        let device = Device::flex();
        let input = Tensor::<2>::from_data([[1.0, 2.0], [f32::NAN, 3.0]], &device);
        let out = values(layer(2, false, &device).forward_train_relu(input));
        assert!(out[0].is_nan() && out[2].is_nan() && !out[1].is_nan());
    }
}
