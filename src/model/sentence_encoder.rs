//! g_enc for text: each sentence is one frame, as in CPC's experiments on books.
use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::conv1d::Conv1d;
use super::init::Initializer;
use crate::error::{Error, Result, Stage};

/// The token that fills a sentence up.
pub const PADDING_TOKEN: i64 = 0;

/// `encoder.sentences`: embedded tokens, a convolution over them with ReLU, the mean over the sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentenceSettings {
    /// Tokens, the padding token 0 included.
    pub vocabulary_tokens: usize,
    /// Columns of an embedding; the paper has 620.
    pub embedding_channels: usize,
    /// Columns of an encoding; the paper has 2,400.
    pub width_channels: usize,
    /// Tokens that the convolution sees at once.
    pub kernel_tokens: usize,
}

/// Embedding, convolution, ReLU, mean.
#[derive(Module, Debug)]
pub struct SentenceEncoder {
    /// `[vocabulary, embedding_channels]`
    embedding: Param<Tensor<2>>,
    conv: Conv1d,
    #[module(skip)]
    width: usize,
}

impl SentenceEncoder {
    /// Parameters below `path`; embeddings start from a standard normal distribution, as PyTorch's do.
    ///
    /// # Errors
    /// The settings make no such encoder.
    pub fn new(path: &str, settings: &SentenceSettings, init: &Initializer<'_>) -> Result<Self> {
        let &SentenceSettings { vocabulary_tokens, embedding_channels, width_channels: width, kernel_tokens: kernel } =
            settings;
        if vocabulary_tokens < 2 || [embedding_channels, width, kernel].contains(&0) {
            let reason = format!(
                "a vocabulary of {vocabulary_tokens} tokens, embeddings of {embedding_channels} channels, a kernel of \
                 {kernel} tokens and {width} channels out; take two tokens or more (0 is padding), and 1 or more of each"
            );
            return Err(Error::at(Stage::Model, "encoder.sentences", reason));
        }
        // As many frames as tokens.
        let padding = [(kernel - 1) / 2, kernel / 2];
        Ok(Self {
            embedding: init.normal(&format!("{path}.embedding"), [vocabulary_tokens, embedding_channels], 1.0),
            conv: Conv1d::new(&format!("{path}.conv"), [embedding_channels, width], kernel, 1, padding, true, init),
            width,
        })
    }

    /// Columns of an encoding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens that may occur.
    pub fn vocabulary(&self) -> usize {
        self.embedding.val().dims()[0]
    }

    /// One encoding per sentence; what pads a sentence has no part in it. One of padding alone is all zeros.
    ///
    /// # Shapes
    /// `[documents, sentences, tokens]` to `[documents, sentences, width]`.
    pub fn forward(&self, tokens: Tensor<3, Int>) -> Tensor<3> {
        let [documents, sentences, length] = tokens.dims();
        let rows = documents * sentences;
        let tokens = tokens.reshape([rows * length]);
        let columns = self.embedding.val().dims()[1];
        let real = tokens.clone().not_equal_scalar(PADDING_TOKEN).float().reshape([rows, length, 1]);
        let embedded = self.embedding.val().select(0, tokens).reshape([rows, length, columns]);
        let encoded = self.conv.forward(embedded * real.clone()); // [rows, tokens, width]
        let encoded = match &self.conv.bias {
            Some(bias) => relu(encoded + bias.val().unsqueeze()),
            None => relu(encoded),
        };
        let mean = (encoded * real.clone()).sum_dim(1) / real.sum_dim(1).clamp_min(1.0); // [rows, 1, width]
        mean.reshape([documents, sentences, self.width])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::model::InitOptions;

    fn encoder(device: &Device) -> SentenceEncoder {
        let settings =
            SentenceSettings { vocabulary_tokens: 11, embedding_channels: 4, width_channels: 6, kernel_tokens: 3 };
        let init = InitOptions { seed: 1, compat_torch: false };
        SentenceEncoder::new("g_enc", &settings, &Initializer::new(init, device)).expect("plain settings")
    }

    fn encode(encoder: &SentenceEncoder, tokens: &[i64], shape: [usize; 3], device: &Device) -> Vec<f32> {
        let tokens = Tensor::<3, Int>::from_data(TensorData::new(tokens.to_vec(), shape), device);
        encoder.forward(tokens).into_data().try_into_vec::<f32>().expect("f32")
    }

    #[test]
    fn padding_has_no_part_in_a_sentence() {
        let device = Device::flex();
        let encoder = encoder(&device);
        let short = encode(&encoder, &[3, 5, 7, 2, 9, 4], [1, 2, 3], &device);
        let long = encode(&encoder, &[3, 5, 7, 0, 0, 0, 0, 2, 9, 4, 0, 0, 0, 0], [1, 2, 7], &device);
        assert_eq!(short.len(), 12);
        assert!(short.iter().zip(&long).all(|(a, b)| (a - b).abs() < 1e-6), "{short:?} {long:?}");
        assert_eq!(encode(&encoder, &[0; 4], [1, 1, 4], &device), [0.0; 6]);
    }

    #[test]
    fn tokens_and_their_order_matter() {
        let device = Device::flex();
        let encoder = encoder(&device);
        let of = |tokens: &[i64]| encode(&encoder, tokens, [1, 1, 4], &device);
        assert_ne!(of(&[3, 5, 7, 2]), of(&[3, 5, 7, 6]));
        assert_ne!(of(&[3, 5, 7, 2]), of(&[5, 3, 7, 2]));
    }

    #[test]
    fn embeddings_of_the_tokens_in_a_batch_are_trained() {
        let device = Device::flex().autodiff();
        let encoder = encoder(&device);
        let tokens = Tensor::<3, Int>::from_data(TensorData::new(vec![3_i64, 5, 0, 0], [1, 1, 4]), &device);
        let gradients = encoder.forward(tokens).square().sum_dims(&[0, 1, 2]).backward();
        let gradient = encoder.embedding.val().grad(&gradients).expect("tracked");
        let values = gradient.into_data().try_into_vec::<f32>().expect("f32");
        for (token, row) in values.chunks(4).enumerate() {
            assert_eq!(row.iter().any(|v| *v != 0.0), [3, 5].contains(&token), "token {token}");
        }
    }
}
