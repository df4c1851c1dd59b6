//! Blocks, one after the other.
use burn::module::Module;
use burn::tensor::Tensor;

use super::residual_block::ResidualBlock;

/// What both towers have in common.
#[derive(Module, Debug)]
pub struct Transformer {
    pub(super) resblocks: Vec<ResidualBlock>,
}

impl Transformer {
    /// # Shapes
    /// `[rows, tokens, width]` to the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.resblocks.iter().fold(x, |x, block| block.forward(x))
    }
}
