//! Pooling by attention: the last layer of the paper's ResNet.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;

use super::residual_block::dense;
use crate::model::dense::Dense;
use crate::model::parameters::{Parameters, Start};

/// The mean over positions asks, all positions and the mean itself answer.
#[derive(Module, Debug)]
pub struct AttentionPool {
    positional_embedding: Param<Tensor<2>>,
    q_proj: Dense,
    k_proj: Dense,
    v_proj: Dense,
    c_proj: Dense,
    #[module(skip)]
    heads: usize,
}

impl AttentionPool {
    pub(super) fn new(
        path: &str,
        positions: usize,
        channels: usize,
        embedding_width: usize,
        heads: usize,
        parameters: &mut Parameters<'_>,
    ) -> Self {
        let start = Start::Normal((channels as f64).sqrt().recip());
        let bias = Start::Uniform((channels as f64).sqrt().recip());
        let mut named =
            |name: &str, outputs: usize| dense(&format!("{path}.{name}"), [outputs, channels], start, bias, parameters);
        let (q_proj, k_proj, v_proj) =
            (named("q_proj", channels), named("k_proj", channels), named("v_proj", channels));
        let c_proj = named("c_proj", embedding_width);
        let positional_embedding =
            parameters.trained(&format!("{path}.positional_embedding"), [positions + 1, channels], start);
        Self { positional_embedding, q_proj, k_proj, v_proj, c_proj, heads }
    }

    /// # Shapes
    /// `[images, height, width, channels]` to `[images, embedding]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.c_proj.forward(self.pooled(x))
    }

    /// What [`Self::forward`] projects.
    ///
    /// # Shapes
    /// `[images, height, width, channels]` to `[images, channels]`.
    pub fn pooled(&self, x: Tensor<4>) -> Tensor<2> {
        let [images, height, width, channels] = x.dims();
        let x = x.reshape([images, height * width, channels]);
        let x = Tensor::cat(vec![x.clone().mean_dim(1), x], 1); // [images, positions + 1, channels]
        let x = x + self.positional_embedding.val().unsqueeze();
        let heads = |x: Tensor<3>| {
            let tokens = x.dims()[1];
            x.reshape([images, tokens, self.heads, channels / self.heads]).swap_dims(1, 2) // [images, heads, tokens, own]
        };
        let query = heads(self.q_proj.forward(x.clone().narrow(1, 0, 1)));
        let (key, value) = (heads(self.k_proj.forward(x.clone())), heads(self.v_proj.forward(x)));
        let mixed = attention(query, key, value, None, None, AttentionModuleOptions::default()); // [images, heads, 1, own]
        mixed.swap_dims(1, 2).reshape([images, channels])
    }
}
