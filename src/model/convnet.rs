//! A small strided convnet, for demonstrations on a CPU.
use burn::module::Module;
use burn::tensor::Tensor;

use super::convolution::Convolution;
use super::init::Initializer;
use super::norm::Norm;
use super::{ConvNetSettings, mean_over_positions};

/// Four 3x3 convolutions, each normalised, with ReLU, strides 2, 1, 2, 2, then the mean over positions.
#[derive(Module, Debug)]
pub struct ConvNet {
    conv1: Convolution,
    bn1: Norm,
    conv2: Convolution,
    bn2: Norm,
    conv3: Convolution,
    bn3: Norm,
    conv4: Convolution,
    bn4: Norm,
    #[module(skip)]
    feature_width: usize,
}

impl ConvNet {
    /// Parameters below `path`.
    pub fn new(path: &str, settings: &ConvNetSettings, init: &Initializer<'_>) -> Self {
        let width = settings.base_width;
        let convolution = |index: usize, from: usize, to: usize, stride: usize| {
            Convolution::new(&format!("{path}.conv{index}"), from, to, 3, stride, init)
        };
        let norm = |channels: usize| Norm::new(settings.norm, channels, 1.0, init);
        Self {
            conv1: convolution(1, 3, width, 2),
            bn1: norm(width),
            conv2: convolution(2, width, 2 * width, 1),
            bn2: norm(2 * width),
            conv3: convolution(3, 2 * width, 4 * width, 2),
            bn3: norm(4 * width),
            conv4: convolution(4, 4 * width, 8 * width, 2),
            bn4: norm(8 * width),
            feature_width: 8 * width,
        }
    }

    /// Channels of the last layer.
    pub fn feature_width(&self) -> usize {
        self.feature_width
    }

    /// # Shapes
    /// `[images, height, width, 3]` to `[images, feature_width]`.
    pub fn forward_train(&mut self, pixels: Tensor<4>) -> Tensor<2> {
        let x = self.bn1.forward_train_relu(self.conv1.forward(pixels));
        let x = self.bn2.forward_train_relu(self.conv2.forward(x));
        let x = self.bn3.forward_train_relu(self.conv3.forward(x));
        let x = self.bn4.forward_train_relu(self.conv4.forward(x));
        mean_over_positions(x)
    }

    /// [`Self::forward_train`] with running statistics.
    pub fn forward_eval(&self, pixels: Tensor<4>) -> Tensor<2> {
        let x = self.bn1.forward_eval_relu(self.conv1.forward(pixels));
        let x = self.bn2.forward_eval_relu(self.conv2.forward(x));
        let x = self.bn3.forward_eval_relu(self.conv3.forward(x));
        let x = self.bn4.forward_eval_relu(self.conv4.forward(x));
        mean_over_positions(x)
    }
}
