//! Projection heads: what the loss sees and the evaluation does not.
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::HeadSettings;
use super::batch_norm::BatchNorm;
use super::init::Initializer;

/// One of the heads of SimCLR (Chen et al. 2020, and google-research/simclr).
///
/// A linear layer in front of a BatchNorm has no bias: the normalisation would take it away again.
#[derive(Module, Debug)]
pub struct ProjectionHead {
    layers: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Layer {
    linear: Linear,
    bn: Option<BatchNorm>,
    #[module(skip)]
    relu: bool,
}

impl ProjectionHead {
    /// From features of `width` to `projection_width`; parameters below `path`.
    pub fn new(path: &str, kind: HeadSettings, width: usize, projection_width: usize, init: &Initializer<'_>) -> Self {
        let layer_count = if kind == HeadSettings::GoogleV2 { 3 } else { 2 };
        let layers = (0..layer_count)
            .map(|index| {
                let last = index + 1 == layer_count;
                let out = if last { projection_width } else { width };
                let normalized = kind != HeadSettings::PaperV1;
                let bn = normalized.then(|| BatchNorm::new(out, 1.0, init));
                Layer {
                    linear: init.linear(&format!("{path}.layers.{index}.linear"), width, out, !normalized),
                    // The released code's last layer neither shifts nor rectifies.
                    bn: bn.map(|bn| if last { bn.without_bias() } else { bn }),
                    relu: !last,
                }
            })
            .collect();
        Self { layers }
    }

    /// # Shapes
    /// `[rows, width]` to `[rows, projection_width]`.
    pub fn forward_train(&mut self, features: Tensor<2>) -> Tensor<2> {
        self.layers.iter_mut().fold(features, |x, layer| {
            let x = layer.linear.forward(x);
            match (&mut layer.bn, layer.relu) {
                (Some(bn), true) => bn.forward_train_relu(x),
                (Some(bn), false) => bn.forward_train(x),
                (None, true) => relu(x),
                (None, false) => x,
            }
        })
    }
}
