//! One encoder of those that a pipeline can name.
use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Tensor};

use super::EncoderSettings;
use super::convnet::ConvNet;
use super::init::Initializer;
use super::resnet::{Depth, ResNet};

/// An encoder from pixels to features.
///
/// `Module` is written out because the derived one adds the variant to every parameter's path: weights are known by
/// torchvision's names.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a model has one; a box would only add a hop")]
pub enum Encoder {
    /// ResNet-18, -34, -50.
    ResNet(ResNet),
    /// The small strided convnet.
    ConvNet(ConvNet),
}

impl Encoder {
    /// Parameters below `path`.
    pub fn new(path: &str, settings: &EncoderSettings, init: &Initializer<'_>) -> Self {
        match settings {
            EncoderSettings::ResNet18(s) => Self::ResNet(ResNet::new(path, Depth::ResNet18, s, init)),
            EncoderSettings::ResNet34(s) => Self::ResNet(ResNet::new(path, Depth::ResNet34, s, init)),
            EncoderSettings::ResNet50(s) => Self::ResNet(ResNet::new(path, Depth::ResNet50, s, init)),
            EncoderSettings::ConvNet(s) => Self::ConvNet(ConvNet::new(path, s, init)),
        }
    }

    /// Columns of the features.
    pub fn feature_width(&self) -> usize {
        match self {
            Self::ResNet(encoder) => encoder.feature_width(),
            Self::ConvNet(encoder) => encoder.feature_width(),
        }
    }

    /// Features with the batch's own statistics, which move the running ones.
    ///
    /// # Shapes
    /// `[images, 3, height, width]` to `[images, feature_width]`.
    pub fn forward_train(&mut self, pixels: Tensor<4>) -> Tensor<2> {
        let pixels = pixels.permute([0, 2, 3, 1]); // [images, height, width, 3]
        match self {
            Self::ResNet(encoder) => encoder.forward_train(pixels),
            Self::ConvNet(encoder) => encoder.forward_train(pixels),
        }
    }

    /// [`Self::forward_train`] with running statistics.
    pub fn forward_eval(&self, pixels: Tensor<4>) -> Tensor<2> {
        let pixels = pixels.permute([0, 2, 3, 1]); // [images, height, width, 3]
        match self {
            Self::ResNet(encoder) => encoder.forward_eval(pixels),
            Self::ConvNet(encoder) => encoder.forward_eval(pixels),
        }
    }

    fn map_either(self, resnet: impl FnOnce(ResNet) -> ResNet, convnet: impl FnOnce(ConvNet) -> ConvNet) -> Self {
        match self {
            Self::ResNet(encoder) => Self::ResNet(resnet(encoder)),
            Self::ConvNet(encoder) => Self::ConvNet(convnet(encoder)),
        }
    }
}

impl Module for Encoder {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::ResNet(encoder) => encoder.collect_devices(devices),
            Self::ConvNet(encoder) => encoder.collect_devices(devices),
        }
    }

    fn fork(self, device: &Device) -> Self {
        self.map_either(|e| e.fork(device), |e| e.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_either(|e| e.to_device(device), |e| e.to_device(device))
    }

    fn train(self) -> Self {
        self.map_either(Module::train, Module::train)
    }

    fn valid(&self) -> Self {
        match self {
            Self::ResNet(encoder) => Self::ResNet(encoder.valid()),
            Self::ConvNet(encoder) => Self::ConvNet(encoder.valid()),
        }
    }

    fn materialize(self) -> Self {
        self.map_either(Module::materialize, Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Self::ResNet(encoder) => encoder.visit(visitor),
            Self::ConvNet(encoder) => encoder.visit(visitor),
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::ResNet(encoder) => Self::ResNet(encoder.map(mapper)),
            Self::ConvNet(encoder) => Self::ConvNet(encoder.map(mapper)),
        }
    }
}

impl ModuleDisplayDefault for Encoder {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::ResNet(encoder) => encoder.content(content),
            Self::ConvNet(encoder) => encoder.content(content),
        }
    }
}

impl ModuleDisplay for Encoder {}
