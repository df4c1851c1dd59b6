//! Tokens of texts as the text tower takes them.
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::error::{Error, Result, Stage};

/// A batch of texts, padded to the longest of them.
///
/// Attention is causal and a text is read off at its end, so that neither what follows the end nor the length of the
/// padding is seen: short texts cost what they are long.
#[derive(Debug, Clone)]
pub struct Captions {
    /// `[texts, longest]`
    pub(super) tokens: Tensor<2, Int>,
    /// Row of each text's last token among `texts · longest`. `[texts]`
    pub(super) ends: Tensor<1, Int>,
}

impl Captions {
    /// From the tokens of each text, start and end included, nothing behind the end.
    ///
    /// # Errors
    /// A text has no tokens.
    pub fn new(texts: &[Vec<u32>], device: &Device) -> Result<Self> {
        if texts.is_empty() || texts.iter().any(Vec::is_empty) {
            return Err(Error::at(Stage::Model, "captions", "a text has no tokens, not even those of start and end"));
        }
        let longest = texts.iter().map(Vec::len).max().unwrap_or(1);
        let padded = texts.iter().flat_map(|tokens| {
            let padding = std::iter::repeat_n(0, longest - tokens.len());
            tokens.iter().map(|&token| i64::from(token)).chain(padding)
        });
        let ends = texts.iter().enumerate().map(|(row, tokens)| (row * longest + tokens.len() - 1) as i64);
        let tokens = TensorData::new(padded.collect::<Vec<i64>>(), [texts.len(), longest]);
        let ends = TensorData::new(ends.collect::<Vec<i64>>(), [texts.len()]);
        Ok(Self { tokens: Tensor::from_data(tokens, device), ends: Tensor::from_data(ends, device) })
    }
}
