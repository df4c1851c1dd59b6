//! Tokens into the text tower's first states.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::module::embedding;

use super::captions::Captions;

/// A row per token of the vocabulary.
#[derive(Module, Debug)]
pub struct TokenEmbedding {
    /// `[vocabulary, width]`
    pub weight: Param<Tensor<2>>,
}

/// Embedded tokens at their positions, the first of `[context, width]`.
///
/// # Shapes
/// `[texts]` to `[texts, longest, width]`.
pub(super) fn read(tokens: &TokenEmbedding, captions: &Captions, positions: Tensor<2>) -> Tensor<3> {
    let [_, longest] = captions.tokens.dims();
    embedding(tokens.weight.val(), captions.tokens.clone()) + positions.narrow(0, 0, longest).unsqueeze()
}
