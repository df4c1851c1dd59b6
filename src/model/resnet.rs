//! ResNet with torchvision's parameter names (He et al. 2016, v1.5: a bottleneck strides in its 3x3).
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;

use super::convolution::Convolution;
use super::init::Initializer;
use super::norm::{Norm, NormSettings};
use super::{ResNetSettings, Stem, mean_over_positions};

/// How many blocks each of the four stages has, and of which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Two basic blocks in each stage.
    ResNet18,
    /// 3, 4, 6, 3 basic blocks.
    ResNet34,
    /// 3, 4, 6, 3 bottlenecks.
    ResNet50,
}

impl Depth {
    fn blocks(self) -> [usize; 4] {
        match self {
            Self::ResNet18 => [2, 2, 2, 2],
            Self::ResNet34 | Self::ResNet50 => [3, 4, 6, 3],
        }
    }

    /// Channels out of a block, over its inner width.
    fn expansion(self) -> usize {
        if self == Self::ResNet50 { 4 } else { 1 }
    }
}

/// The encoder up to and including the mean over positions.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Convolution,
    bn1: Norm,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    #[module(skip)]
    stem: Stem,
    #[module(skip)]
    feature_width: usize,
}

impl ResNet {
    /// Parameters below `path`.
    pub fn new(path: &str, depth: Depth, settings: &ResNetSettings, init: &Initializer<'_>) -> Self {
        let width = settings.base_width;
        let conv1 = match settings.stem {
            Stem::Imagenet => Convolution::new(&format!("{path}.conv1"), 3, width, 7, 2, init),
            Stem::Cifar => Convolution::new(&format!("{path}.conv1"), 3, width, 3, 1, init),
        };
        let last_gain = if settings.zero_init_residual && !init.options().compat_torch { 0.0 } else { 1.0 };
        let norm = BlockNorm { kind: settings.norm, last_gain };
        let mut channels = width;
        let mut stage = |index: usize| -> Vec<Block> {
            (0..depth.blocks()[index])
                .map(|block| {
                    let stride = if index > 0 && block == 0 { 2 } else { 1 };
                    let path = format!("{path}.layer{}.{block}", index + 1);
                    let block = Block::new(&path, depth, [channels, width << index], stride, &norm, init);
                    channels = (width << index) * depth.expansion();
                    block
                })
                .collect()
        };
        Self {
            conv1,
            bn1: Norm::new(settings.norm, width, 1.0, init),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            stem: settings.stem,
            feature_width: 8 * width * depth.expansion(),
        }
    }

    /// Channels of the last stage.
    pub fn feature_width(&self) -> usize {
        self.feature_width
    }

    /// # Shapes
    /// `[images, height, width, 3]` to `[images, feature_width]`.
    pub fn forward_train(&mut self, pixels: Tensor<4>) -> Tensor<2> {
        let x = self.conv1.forward(pixels);
        let mut x = pool(self.bn1.forward_train_relu(x), self.stem);
        for block in [&mut self.layer1, &mut self.layer2, &mut self.layer3, &mut self.layer4].into_iter().flatten() {
            x = block.forward_train(x);
        }
        mean_over_positions(x)
    }

    /// [`Self::forward_train`] with running statistics.
    pub fn forward_eval(&self, pixels: Tensor<4>) -> Tensor<2> {
        let x = self.conv1.forward(pixels);
        let mut x = pool(self.bn1.forward_eval_relu(x), self.stem);
        for block in [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().flatten() {
            x = block.forward_eval(x);
        }
        mean_over_positions(x)
    }
}

/// The 3x3 max-pool of stride 2 that ImageNet's stem has.
fn pool(input: Tensor<4>, stem: Stem) -> Tensor<4> {
    match stem {
        Stem::Cifar => input,
        Stem::Imagenet => {
            let options = MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
            max_pool2d(input.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
        }
    }
}

/// Which normalisation a block has, and the gain that its last one starts with.
#[derive(Debug, Clone, Copy)]
struct BlockNorm {
    kind: NormSettings,
    last_gain: f32,
}

/// A residual block: two 3x3, or 1x1, 3x3, 1x1.
#[derive(Module, Debug)]
struct Block {
    conv1: Convolution,
    bn1: Norm,
    conv2: Convolution,
    bn2: Norm,
    conv3: Option<Convolution>,
    bn3: Option<Norm>,
    downsample: Option<(Convolution, Norm)>,
}

impl Block {
    fn new(
        path: &str,
        depth: Depth,
        [channels, width]: [usize; 2],
        stride: usize,
        norm: &BlockNorm,
        init: &Initializer<'_>,
    ) -> Self {
        let last_gain = norm.last_gain;
        let norm = |channels: usize, gain: f32| Norm::new(norm.kind, channels, gain, init);
        let convolution = |name: &str, from: usize, to: usize, kernel: usize, stride: usize| {
            Convolution::new(&format!("{path}.{name}"), from, to, kernel, stride, init)
        };
        let out = width * depth.expansion();
        let downsample = (stride != 1 || channels != out)
            .then(|| (convolution("downsample.0", channels, out, 1, stride), norm(out, 1.0)));
        if depth == Depth::ResNet50 {
            Self {
                conv1: convolution("conv1", channels, width, 1, 1),
                bn1: norm(width, 1.0),
                conv2: convolution("conv2", width, width, 3, stride),
                bn2: norm(width, 1.0),
                conv3: Some(convolution("conv3", width, out, 1, 1)),
                bn3: Some(norm(out, last_gain)),
                downsample,
            }
        } else {
            Self {
                conv1: convolution("conv1", channels, width, 3, stride),
                bn1: norm(width, 1.0),
                conv2: convolution("conv2", width, width, 3, 1),
                bn2: norm(width, last_gain),
                conv3: None,
                bn3: None,
                downsample,
            }
        }
    }

    fn forward_train(&mut self, input: Tensor<4>) -> Tensor<4> {
        let shortcut = match &mut self.downsample {
            Some((convolution, norm)) => norm.forward_train(convolution.forward(input.clone())),
            None => input.clone(),
        };
        let x = self.bn1.forward_train_relu(self.conv1.forward(input));
        let x = self.conv2.forward(x);
        let x = match (&self.conv3, &mut self.bn3) {
            (Some(conv3), Some(bn3)) => bn3.forward_train(conv3.forward(self.bn2.forward_train_relu(x))),
            _ => self.bn2.forward_train(x),
        };
        relu(x + shortcut)
    }

    fn forward_eval(&self, input: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some((convolution, norm)) => norm.forward_eval(convolution.forward(input.clone())),
            None => input.clone(),
        };
        let x = self.bn1.forward_eval_relu(self.conv1.forward(input));
        let x = self.conv2.forward(x);
        let x = match (&self.conv3, &self.bn3) {
            (Some(conv3), Some(bn3)) => bn3.forward_eval(conv3.forward(self.bn2.forward_eval_relu(x))),
            _ => self.bn2.forward_eval(x),
        };
        relu(x + shortcut)
    }
}
