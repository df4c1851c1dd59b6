//! Blocks, one after the other.
use burn::module::Module;
use burn::tensor::Tensor;

use super::dropout::Dropout;
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

    /// [`Self::forward`] in training, with dropout where there is one; `tower` names these blocks.
    pub fn forward_train(&self, x: Tensor<3>, tower: &str, dropout: Option<&Dropout>) -> Tensor<3> {
        let Some(dropout) = dropout else { return self.forward(x) };
        let blocks = self.resblocks.iter().enumerate();
        blocks.fold(x, |x, (index, block)| block.forward_train(x, &format!("{tower}.resblocks.{index}"), dropout))
    }
}
