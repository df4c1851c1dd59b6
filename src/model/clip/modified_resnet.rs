//! The paper's ResNet: three convolutions in the stem, averages in place of strides, pooling by attention.
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::attention_pool::AttentionPool;
use super::settings::ModifiedResnetSettings;
use crate::model::convolution::Convolution;
use crate::model::norm::{Norm, NormSettings};
use crate::model::parameters::{Parameters, Start};

/// Channels out of a block, over its inner width.
const EXPANSION: usize = 4;

/// The product of all strides.
const REDUCTION: usize = 32;

/// The image tower up to the shared embedding.
#[derive(Module, Debug)]
pub struct ModifiedResnet {
    conv1: Convolution,
    bn1: Norm,
    conv2: Convolution,
    bn2: Norm,
    conv3: Convolution,
    bn3: Norm,
    layer1: Vec<Bottleneck>,
    layer2: Vec<Bottleneck>,
    layer3: Vec<Bottleneck>,
    layer4: Vec<Bottleneck>,
    attnpool: AttentionPool,
}

#[derive(Module, Debug)]
struct Bottleneck {
    conv1: Convolution,
    bn1: Norm,
    conv2: Convolution,
    bn2: Norm,
    conv3: Convolution,
    bn3: Norm,
    downsample: Option<(Convolution, Norm)>,
    #[module(skip)]
    halves: bool,
}

/// A convolution as PyTorch starts it, uniform by fan-in.
fn convolution(path: &str, shape: [usize; 4], stride: usize, parameters: &mut Parameters<'_>) -> Convolution {
    let fan_in = shape[1] * shape[2] * shape[3];
    let start = Start::Uniform((fan_in as f64).sqrt().recip());
    Convolution::from_weight(parameters.trained(&format!("{path}.weight"), shape, start), stride)
}

impl ModifiedResnet {
    /// Parameters below `path`.
    pub(super) fn new(
        path: &str,
        settings: &ModifiedResnetSettings,
        embedding_width: usize,
        parameters: &mut Parameters<'_>,
    ) -> Self {
        let (width, kind) = (settings.width, settings.norm);
        let stem = |name: &str, from: usize, to: usize, stride: usize, parameters: &mut Parameters<'_>| {
            convolution(&format!("{path}.conv{name}"), [to, from, 3, 3], stride, parameters)
        };
        let norm = |name: &str, channels: usize, parameters: &mut Parameters<'_>| {
            Norm::from_parameters(kind, &format!("{path}.bn{name}"), channels, 1.0, parameters)
        };
        let mut channels = width;
        let mut stage = |index: usize, parameters: &mut Parameters<'_>| -> Vec<Bottleneck> {
            (0..settings.blocks[index])
                .map(|block| {
                    let path = format!("{path}.layer{}.{block}", index + 1);
                    let halves = index > 0 && block == 0;
                    let block = Bottleneck::new(&path, [channels, width << index], halves, kind, parameters);
                    channels = EXPANSION * (width << index);
                    block
                })
                .collect()
        };
        Self {
            conv1: stem("1", 3, width / 2, 2, parameters),
            bn1: norm("1", width / 2, parameters),
            conv2: stem("2", width / 2, width / 2, 1, parameters),
            bn2: norm("2", width / 2, parameters),
            conv3: stem("3", width / 2, width, 1, parameters),
            bn3: norm("3", width, parameters),
            layer1: stage(0, parameters),
            layer2: stage(1, parameters),
            layer3: stage(2, parameters),
            layer4: stage(3, parameters),
            attnpool: AttentionPool::new(
                &format!("{path}.attnpool"),
                (settings.image_side_pixels / REDUCTION).pow(2),
                8 * EXPANSION * width,
                embedding_width,
                settings.heads,
                parameters,
            ),
        }
    }

    /// # Shapes
    /// `[images, 3, side, side]` to `[images, embedding]`.
    pub fn forward_train(&mut self, pixels: Tensor<4>) -> Tensor<2> {
        let x = pixels.permute([0, 2, 3, 1]); // [images, height, width, 3]
        let x = self.bn1.forward_train_relu(self.conv1.forward(x));
        let x = self.bn2.forward_train_relu(self.conv2.forward(x));
        let mut x = halved(self.bn3.forward_train_relu(self.conv3.forward(x)));
        for block in [&mut self.layer1, &mut self.layer2, &mut self.layer3, &mut self.layer4].into_iter().flatten() {
            x = block.forward_train(x);
        }
        self.attnpool.forward(x)
    }

    /// [`Self::forward_train`] with running statistics.
    pub fn forward_eval(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.attnpool.forward(self.positions_eval(pixels))
    }

    /// What [`Self::forward_eval`] projects.
    ///
    /// # Shapes
    /// `[images, 3, side, side]` to `[images, 32 · width]`.
    pub fn pooled_eval(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.attnpool.pooled(self.positions_eval(pixels))
    }

    fn positions_eval(&self, pixels: Tensor<4>) -> Tensor<4> {
        let x = pixels.permute([0, 2, 3, 1]); // [images, height, width, 3]
        let x = self.bn1.forward_eval_relu(self.conv1.forward(x));
        let x = self.bn2.forward_eval_relu(self.conv2.forward(x));
        let x = halved(self.bn3.forward_eval_relu(self.conv3.forward(x)));
        let blocks = [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().flatten();
        blocks.fold(x, |x, block| block.forward_eval(x)) // [images, height / 32, width / 32, channels]
    }
}

impl Bottleneck {
    fn new(
        path: &str,
        [channels, width]: [usize; 2],
        halves: bool,
        kind: NormSettings,
        parameters: &mut Parameters<'_>,
    ) -> Self {
        let out = EXPANSION * width;
        let mut layer = |name: &str, shape: [usize; 4]| convolution(&format!("{path}.{name}"), shape, 1, parameters);
        let (conv1, conv2) = (layer("conv1", [width, channels, 1, 1]), layer("conv2", [width, width, 3, 3]));
        let conv3 = layer("conv3", [out, width, 1, 1]);
        let shortcut = (halves || channels != out).then(|| layer("downsample.0", [out, channels, 1, 1]));
        let mut norm = |name: &str, channels: usize, gain: f32| {
            Norm::from_parameters(kind, &format!("{path}.{name}"), channels, gain, parameters)
        };
        Self {
            conv1,
            bn1: norm("bn1", width, 1.0),
            conv2,
            bn2: norm("bn2", width, 1.0),
            conv3,
            // The block starts as its shortcut.
            bn3: norm("bn3", out, 0.0),
            downsample: shortcut.map(|convolution| (convolution, norm("downsample.1", out, 1.0))),
            halves,
        }
    }

    fn forward_train(&mut self, input: Tensor<4>) -> Tensor<4> {
        let shortcut = match &mut self.downsample {
            Some((convolution, norm)) => norm.forward_train(convolution.forward(reduced(input.clone(), self.halves))),
            None => input.clone(),
        };
        let x = self.bn1.forward_train_relu(self.conv1.forward(input));
        let x = self.bn2.forward_train_relu(self.conv2.forward(x));
        let x = self.bn3.forward_train(self.conv3.forward(reduced(x, self.halves)));
        relu(x + shortcut)
    }

    fn forward_eval(&self, input: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some((convolution, norm)) => norm.forward_eval(convolution.forward(reduced(input.clone(), self.halves))),
            None => input.clone(),
        };
        let x = self.bn1.forward_eval_relu(self.conv1.forward(input));
        let x = self.bn2.forward_eval_relu(self.conv2.forward(x));
        let x = self.bn3.forward_eval(self.conv3.forward(reduced(x, self.halves)));
        relu(x + shortcut)
    }
}

fn reduced(x: Tensor<4>, halves: bool) -> Tensor<4> {
    if halves { halved(x) } else { x }
}

/// Means of 2x2 positions.
///
/// # Shapes
/// `[images, height, width, channels]` to `[images, height / 2, width / 2, channels]`; the sides are even.
fn halved(x: Tensor<4>) -> Tensor<4> {
    let [images, height, width, channels] = x.dims();
    let x = x.reshape([images, height / 2, 2, width / 2, 2, channels]);
    x.mean_dim(4).mean_dim(2).reshape([images, height / 2, width / 2, channels])
}
