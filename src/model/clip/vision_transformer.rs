//! CLIP's vision transformer.
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use super::dropout::Dropout;
use super::residual_block::{BlockPlan, BlockStarts, ResidualBlock, norm};
use super::settings::{Activation, VisionTransformerSettings};
use super::transformer::Transformer;
use crate::model::cpu;
use crate::model::dense::affine;
use crate::model::layer_norm::LayerNorm;
use crate::model::parameters::{Parameters, Start};

/// Patches, a class token in front of them, blocks; the class token's last state is the image.
#[derive(Module, Debug)]
pub struct VisionTransformer {
    conv1: PatchEmbedding,
    class_embedding: Param<Tensor<1>>,
    positional_embedding: Param<Tensor<2>>,
    ln_pre: LayerNorm,
    transformer: Transformer,
    ln_post: LayerNorm,
    /// `[width, embedding]`
    proj: Param<Tensor<2>>,
    #[module(skip)]
    side: usize,
}

/// A convolution whose stride is its kernel: one product over all patches.
#[derive(Module, Debug)]
struct PatchEmbedding {
    /// `[width, 3, patch, patch]`
    weight: Param<Tensor<4>>,
}

impl VisionTransformer {
    /// Parameters below `path`.
    pub(super) fn new(
        path: &str,
        settings: &VisionTransformerSettings,
        embedding_width: usize,
        activation: Activation,
        parameters: &mut Parameters<'_>,
    ) -> Self {
        let (width, patch) = (settings.width, settings.patch_side_pixels);
        let scale = Start::Normal((width as f64).sqrt().recip());
        let by_inputs = Start::Uniform(((3 * patch * patch) as f64).sqrt().recip());
        let plan = BlockPlan {
            width,
            perceptron_width: settings.perceptron_width,
            heads: settings.heads,
            causal: false,
            activation,
            starts: BlockStarts::vision(width, settings.perceptron_width),
        };
        let blocks = (0..settings.blocks)
            .map(|index| ResidualBlock::new(&format!("{path}.transformer.resblocks.{index}"), &plan, parameters))
            .collect();
        let mut named = |name: &str, shape: [usize; 2]| parameters.trained(&format!("{path}.{name}"), shape, scale);
        Self {
            positional_embedding: named("positional_embedding", [settings.patches() + 1, width]),
            proj: named("proj", [width, embedding_width]),
            class_embedding: parameters.trained(&format!("{path}.class_embedding"), [width], scale),
            conv1: PatchEmbedding {
                weight: parameters.trained(&format!("{path}.conv1.weight"), [width, 3, patch, patch], by_inputs),
            },
            ln_pre: norm(&format!("{path}.ln_pre"), width, parameters),
            transformer: Transformer { resblocks: blocks },
            ln_post: norm(&format!("{path}.ln_post"), width, parameters),
            side: settings.image_side_pixels,
        }
    }

    /// Pixels per side.
    pub fn image_side_pixels(&self) -> usize {
        self.side
    }

    /// # Shapes
    /// `[images, 3, side, side]` to `[images, embedding]`; `kept`, `[images, patches kept]`, are the patches that are looked
    /// at, all where it is `None` (patch dropout, Li et al. 2023).
    pub fn forward(&self, pixels: Tensor<4>, kept: Option<Tensor<2, Int>>) -> Tensor<2> {
        self.forward_train(pixels, kept, None)
    }

    /// [`Self::forward`] in training, with dropout where there is one.
    pub fn forward_train(
        &self,
        pixels: Tensor<4>,
        kept: Option<Tensor<2, Int>>,
        dropout: Option<&Dropout>,
    ) -> Tensor<2> {
        self.class_state(pixels, kept, dropout).matmul(self.proj.val())
    }

    /// What [`Self::forward`] projects: the class token's last state, normalised.
    ///
    /// # Shapes
    /// `[images, 3, side, side]` to `[images, width]`.
    pub fn pooled(&self, pixels: Tensor<4>, kept: Option<Tensor<2, Int>>) -> Tensor<2> {
        self.class_state(pixels, kept, None)
    }

    fn class_state(&self, pixels: Tensor<4>, kept: Option<Tensor<2, Int>>, dropout: Option<&Dropout>) -> Tensor<2> {
        let patches = self.conv1.forward(pixels); // [images, patches, width]
        let (class, positions) = (self.class_embedding.val(), self.positional_embedding.val());
        let x = match kept {
            None => match cpu::image_tokens(&patches, &class, &positions) {
                Some(done) => done,
                None => tokens(patches, None, class, positions),
            },
            Some(kept) => tokens(patches, Some(kept), class, positions),
        };
        let x = self.ln_pre.forward(x); // [images, tokens, width]
        let class = |x: Tensor<3>| x.narrow(1, 0, 1).squeeze_dim::<2>(1); // [images, width]
        self.ln_post.forward(self.transformer.read(x, "visual.transformer", dropout, class))
    }
}

/// The class token and the patches, those at `kept` where there are some, with `positions` `[patches + 1, width]` added, from Burn's own
/// operations: `[images, tokens, width]`.
fn tokens(patches: Tensor<3>, kept: Option<Tensor<2, Int>>, class: Tensor<1>, positions: Tensor<2>) -> Tensor<3> {
    let [images, count, width] = patches.dims();
    let patches = patches + positions.clone().narrow(0, 1, count).unsqueeze();
    let patches = match kept {
        None => patches,
        Some(kept) => keep(patches, kept),
    };
    let class = class.unsqueeze::<2>() + positions.narrow(0, 0, 1); // [1, width]
    let class = class.unsqueeze::<3>().expand([images, 1, width]);
    Tensor::cat(vec![class, patches], 1)
}

/// The patches at `kept` of each image.
fn keep(patches: Tensor<3>, kept: Tensor<2, Int>) -> Tensor<3> {
    let ([images, count, width], [_, keeps]) = (patches.dims(), kept.dims());
    let firsts = Tensor::<1, Int>::arange(0..images as i64, &kept.device()) * count as i64;
    let rows = (kept + firsts.reshape([images, 1])).reshape([images * keeps]);
    patches.reshape([images * count, width]).select(0, rows).reshape([images, keeps, width])
}

impl PatchEmbedding {
    /// `[images, 3, height, width]` to `[images, patches, width]`, patches row by row.
    fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let weight = self.weight.val();
        let ([images, channels, height, width], [out, _, patch, _]) = (pixels.dims(), weight.dims());
        let (down, across) = (height / patch, width / patch);
        let inputs = channels * patch * patch;
        let rows = pixels
            .reshape([images, channels, down, patch, across, patch])
            .permute([0, 2, 4, 1, 3, 5]) // [images, down, across, channels, patch, patch]
            .reshape([images * down * across, inputs]);
        let no_bias = Tensor::zeros([out], &rows.device());
        let out_rows = affine(rows, weight.reshape([out, inputs]), no_bias); // [images · patches, width]
        out_rows.reshape([images, down * across, out])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::waves::{gap, values, waves};

    #[test]
    fn tokens_on_the_cpu_equal_the_composed_form_and_its_gradients() {
        let device = Device::flex().autodiff();
        for (images, count, width) in [(1, 1, 3), (5, 4, 7), (40, 9, 16)] {
            let coefficients = waves([images, count + 1, width], 0.9, &device);
            let run = |kernel: bool| {
                let patches = waves([images, count, width], 0.1, &device).require_grad();
                let class = waves([width], 0.4, &device).require_grad();
                let positions = waves([count + 1, width], 0.7, &device).require_grad();
                let out = if kernel {
                    cpu::image_tokens(&patches, &class, &positions).expect("on flex")
                } else {
                    tokens(patches.clone(), None, class.clone(), positions.clone())
                };
                let gradients = (out.clone() * coefficients.clone()).sum_dims(&[0, 1, 2]).backward();
                [
                    values(out),
                    values(patches.grad(&gradients).expect("tracked")),
                    values(class.grad(&gradients).expect("tracked")),
                    values(positions.grad(&gradients).expect("tracked")),
                ]
            };
            for (index, (a, b)) in run(true).iter().zip(&run(false)).enumerate() {
                assert!(gap(a, b) < 1e-5, "value {index} of {images}x{count}x{width}: {}", gap(a, b));
            }
        }
    }
}
