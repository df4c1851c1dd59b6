//! Layer normalisation.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::module::layer_norm;

use super::cpu;

/// Added to the variance, as PyTorch does.
pub const EPSILON: f64 = 1e-5;

/// Normalisation over the last axis (Ba et al. 2016), with PyTorch's parameter names.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Gain, `[width]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[width]`.
    pub bias: Param<Tensor<1>>,
}

impl LayerNorm {
    /// # Shapes
    /// `[.., width]` to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let shape = x.dims();
        let (width, norm) = (shape[D - 1], self.parameters());
        let x = x.reshape([shape[..D - 1].iter().product::<usize>(), width]); // [rows, width]
        let out = match cpu::layer_norm(&x, &norm) {
            Some(done) => done,
            None => compose(x, norm),
        };
        out.reshape(shape)
    }

    /// Both parameters, as a kernel takes them.
    pub(super) fn parameters(&self) -> cpu::Norm {
        cpu::Norm { weight: self.weight.val(), shift: self.bias.val(), epsilon: EPSILON }
    }
}

/// The same from Burn's own operations.
fn compose(x: Tensor<2>, norm: cpu::Norm) -> Tensor<2> {
    layer_norm(x, norm.weight, Some(norm.shift), norm.epsilon)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::waves::{gap, values, waves};

    #[test]
    fn kernel_for_the_cpu_equals_the_composed_form_and_its_gradients() {
        let device = Device::flex().autodiff();
        for (rows, width) in [(1, 16), (7, 3), (3_000, 21), (700, 128)] {
            let x = waves([rows, width], 0.1, &device) * 1.7 + 3.0;
            let parameters = [0.4, 1.4].map(|phase| waves([width], phase, &device));
            let coefficients = waves([rows, width], 0.9, &device);
            let run = |kernel: bool| {
                let x = x.clone().detach().require_grad();
                let [weight, shift] = parameters.clone().map(|of| of.detach().require_grad());
                let norm = cpu::Norm { weight: weight.clone(), shift: shift.clone(), epsilon: EPSILON };
                let out = if kernel { cpu::layer_norm(&x, &norm).expect("on flex") } else { compose(x.clone(), norm) };
                let gradients = (out.clone() * coefficients.clone()).sum_dims(&[0, 1]).backward();
                let of = |tensor: &Tensor<1>| values(tensor.grad(&gradients).expect("tracked"));
                [values(out), values(x.grad(&gradients).expect("tracked")), of(&weight), of(&shift)]
            };
            for (index, (a, b)) in run(true).iter().zip(&run(false)).enumerate() {
                let bound = if index == 0 { 1e-5 } else { 1e-4 };
                assert!(gap(a, b) < bound, "value {index} of {rows}x{width}: {}", gap(a, b));
            }
        }
    }

    #[test]
    fn not_a_number_stays_in_its_row() {
        let device = Device::flex();
        let x = Tensor::<2>::from_data([[1.0, 2.0], [f32::NAN, 3.0]], &device);
        let norm =
            cpu::Norm { weight: Tensor::ones([2], &device), shift: Tensor::zeros([2], &device), epsilon: EPSILON };
        let out = values(cpu::layer_norm(&x, &norm).expect("on flex"));
        assert!(!out[0].is_nan() && !out[1].is_nan() && out[2].is_nan() && out[3].is_nan());
    }
}
