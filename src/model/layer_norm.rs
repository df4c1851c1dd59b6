//! Layer normalisation.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::module::layer_norm;

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
        layer_norm(x, self.weight.val(), Some(self.bias.val()), EPSILON)
    }
}
