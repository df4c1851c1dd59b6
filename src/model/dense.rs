//! A linear layer that keeps its matrix as PyTorch does.
use burn::module::{Module, Param};
use burn::tensor::Tensor;

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
    let out = x.reshape([rows, inputs]).matmul(weight.transpose()) + bias.unsqueeze(); // [rows, outputs]
    out.reshape(shape)
}
