//! A linear layer that keeps its matrix as PyTorch does.
use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::cpu;

/// y = x Wᵀ + b.
///
/// Burn's own `Linear` keeps the transposed matrix, so each of a large model's weights would be turned when it is loaded
/// and again when it is saved; products read a transposed matrix in place.
#[derive(Module, Debug)]
pub struct Dense {
    /// W, `[outputs, inputs]`.
    pub weight: Param<Tensor<2>>,
    /// b, `[outputs]`.
    pub bias: Param<Tensor<1>>,
}

impl Dense {
    /// # Shapes
    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        affine(x, self.weight.val(), self.bias.val())
    }

    /// Both parameters, as a kernel takes them.
    pub(super) fn parameters(&self) -> cpu::Affine {
        cpu::Affine { weight: self.weight.val(), bias: self.bias.val() }
    }
}

/// x `weight`ᵀ + `bias`: one product for all rows, whatever axes they come in.
///
/// # Shapes
/// `[.., inputs]`, `[outputs, inputs]`, `[outputs]` to `[.., outputs]`.
pub(super) fn affine<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    let mut shape = x.dims();
    let inputs = shape[D - 1];
    let rows = shape[..D - 1].iter().product::<usize>();
    shape[D - 1] = weight.dims()[0];
    let (x, parameters) = (x.reshape([rows, inputs]), cpu::Affine { weight, bias });
    let out = match cpu::linear(&x, &parameters) {
        Some(done) => done, // [rows, outputs]
        None => compose(x, parameters),
    };
    out.reshape(shape)
}

/// The same from Burn's own operations.
fn compose(x: Tensor<2>, cpu::Affine { weight, bias }: cpu::Affine) -> Tensor<2> {
    x.matmul(weight.transpose()) + bias.unsqueeze()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::waves::{gap, values, waves};

    #[test]
    fn kernel_for_the_cpu_equals_the_composed_form_and_its_gradients() {
        let device = Device::flex().autodiff();
        // A row, few rows either way round, and many; sizes that fill no register.
        for (rows, inputs, outputs) in [(1, 3, 5), (1, 768, 700), (50, 200, 131), (300, 70, 131), (2_100, 17, 33)] {
            let x = waves([rows, inputs], 0.1, &device);
            let weight = waves([outputs, inputs], 0.6, &device) * 0.5;
            let bias = waves([outputs], 1.1, &device);
            let coefficients = waves([rows, outputs], 0.9, &device);
            let run = |kernel: bool| {
                let [x, weight] = [&x, &weight].map(|of| of.clone().detach().require_grad());
                let bias = bias.clone().detach().require_grad();
                let parameters = cpu::Affine { weight: weight.clone(), bias: bias.clone() };
                let out = if kernel {
                    cpu::linear(&x, &parameters).expect("on flex")
                } else {
                    compose(x.clone(), parameters)
                };
                let gradients = (out.clone() * coefficients.clone()).sum_dims(&[0, 1]).backward();
                let of = |tensor: &Tensor<2>| values(tensor.grad(&gradients).expect("tracked"));
                [values(out), of(&x), of(&weight), values(bias.grad(&gradients).expect("tracked"))]
            };
            for (index, (a, b)) in run(true).iter().zip(&run(false)).enumerate() {
                let bound = if index == 0 { 1e-5 } else { 1e-4 };
                assert!(gap(a, b) < bound, "value {index} of {rows}x{inputs}x{outputs}: {}", gap(a, b));
            }
            let plain = cpu::Affine { weight: weight.clone().inner(), bias: bias.clone().inner() };
            let out = values(cpu::linear(&x.clone().inner(), &plain).expect("on flex"));
            assert_eq!(out, run(true)[0], "without autodiff");
        }
    }
}
