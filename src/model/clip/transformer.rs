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
    /// The states of those tokens that are read, with dropout where there is one; `tower` names these blocks. `pick` takes them out of
    /// `[rows, tokens, width]`: the last perceptron looks at nobody else, so it has to see no others.
    ///
    /// # Shapes
    /// `[rows, tokens, width]` to `[tokens picked, width]`.
    pub(super) fn read(
        &self,
        x: Tensor<3>,
        tower: &str,
        dropout: Option<&Dropout>,
        pick: impl Fn(Tensor<3>) -> Tensor<2>,
    ) -> Tensor<2> {
        let Some((last, before)) = self.resblocks.split_last() else { return pick(x) };
        let name = |index: usize| format!("{tower}.resblocks.{index}");
        let x = before.iter().enumerate().fold(x, |x, (index, block)| {
            let name = name(index);
            block.forward(x, dropout.map(|dropout| (dropout, name.as_str())))
        });
        let name = name(before.len());
        let dropout = dropout.map(|dropout| (dropout, name.as_str()));
        let x = last.attend(x, dropout);
        if dropout.is_some() {
            // A draw belongs to a token's place among all.
            return pick(last.perceive(x, dropout));
        }
        let picked = pick(x).unsqueeze_dim::<3>(1); // [tokens picked, 1, width]
        last.perceive(picked, None).squeeze_dim(1)
    }
}
