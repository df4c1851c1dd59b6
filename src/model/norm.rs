//! The normalisation that an encoder's `norm` names.
use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch_norm::BatchNorm;
use super::group_norm::GroupNorm;
use super::init::Initializer;
use super::parameters::Parameters;

/// `norm` of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormSettings {
    /// BatchNorm (Ioffe and Szegedy 2015), as in the papers. An item's features depend on the batch, so a batch cannot be
    /// taken in chunks.
    #[default]
    Batch,
    /// Group normalisation (Wu and He 2018), with 32 groups or fewer where the width is smaller: no dependence on the batch,
    /// no running statistics.
    Group,
    /// BatchNorm with its running statistics, which stay as they are, in training too; γ and β are trained. For encoders
    /// that were trained before: untouched statistics of mean 0 and variance 1 normalise nothing.
    Frozen,
}

impl NormSettings {
    /// Whether this is what there was before there was a choice; such settings are not written down.
    pub(crate) fn is_batch(&self) -> bool {
        *self == Self::Batch
    }

    /// As settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Group => "group",
            Self::Frozen => "frozen",
        }
    }
}

/// One normalisation.
///
/// `Module` is written out because the derived one adds the variant to every parameter's path: weights are known by
/// torchvision's names.
#[derive(Debug, Clone)]
pub enum Norm {
    /// With the batch's statistics.
    Batch(BatchNorm),
    /// Within each item.
    Group(GroupNorm),
    /// With the running statistics.
    Frozen(BatchNorm),
}

impl Norm {
    /// γ = `gain`.
    pub fn new(kind: NormSettings, channels: usize, gain: f32, init: &Initializer<'_>) -> Self {
        match kind {
            NormSettings::Batch => Self::Batch(BatchNorm::new(channels, gain, init)),
            NormSettings::Group => Self::Group(GroupNorm::new(channels, gain, init)),
            NormSettings::Frozen => Self::Frozen(BatchNorm::new(channels, gain, init)),
        }
    }

    /// The layer at `path`, drawn or loaded.
    pub fn from_parameters(
        kind: NormSettings,
        path: &str,
        channels: usize,
        gain: f32,
        parameters: &mut Parameters<'_>,
    ) -> Self {
        match kind {
            NormSettings::Batch => Self::Batch(BatchNorm::from_parameters(path, channels, gain, parameters)),
            NormSettings::Group => Self::Group(GroupNorm::from_parameters(path, channels, gain, parameters)),
            NormSettings::Frozen => Self::Frozen(BatchNorm::from_parameters(path, channels, gain, parameters)),
        }
    }

    /// In training. BatchNorm's running statistics move, unless they are frozen.
    ///
    /// # Shapes
    /// `[items, .., channels]` to the same.
    pub fn forward_train<const D: usize>(&mut self, input: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Batch(norm) => norm.forward_train(input),
            Self::Group(norm) => norm.forward(input),
            Self::Frozen(norm) => norm.forward_eval(input),
        }
    }

    /// [`Self::forward_train`], then ReLU.
    pub fn forward_train_relu<const D: usize>(&mut self, input: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Batch(norm) => norm.forward_train_relu(input),
            Self::Group(norm) => norm.forward_relu(input),
            Self::Frozen(norm) => norm.forward_eval_relu(input),
        }
    }

    /// In evaluation; nothing moves.
    ///
    /// # Shapes
    /// `[items, .., channels]` to the same.
    pub fn forward_eval<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Batch(norm) | Self::Frozen(norm) => norm.forward_eval(input),
            Self::Group(norm) => norm.forward(input),
        }
    }

    /// [`Self::forward_eval`], then ReLU.
    pub fn forward_eval_relu<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Batch(norm) | Self::Frozen(norm) => norm.forward_eval_relu(input),
            Self::Group(norm) => norm.forward_relu(input),
        }
    }

    fn map_either(
        self,
        batch: impl FnOnce(BatchNorm) -> BatchNorm,
        group: impl FnOnce(GroupNorm) -> GroupNorm,
    ) -> Self {
        match self {
            Self::Batch(norm) => Self::Batch(batch(norm)),
            Self::Group(norm) => Self::Group(group(norm)),
            Self::Frozen(norm) => Self::Frozen(batch(norm)),
        }
    }
}

impl Module for Norm {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Batch(norm) | Self::Frozen(norm) => norm.collect_devices(devices),
            Self::Group(norm) => norm.collect_devices(devices),
        }
    }

    fn fork(self, device: &Device) -> Self {
        self.map_either(|norm| norm.fork(device), |norm| norm.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_either(|norm| norm.to_device(device), |norm| norm.to_device(device))
    }

    fn train(self) -> Self {
        self.map_either(Module::train, Module::train)
    }

    fn valid(&self) -> Self {
        match self {
            Self::Batch(norm) => Self::Batch(norm.valid()),
            Self::Group(norm) => Self::Group(norm.valid()),
            Self::Frozen(norm) => Self::Frozen(norm.valid()),
        }
    }

    fn materialize(self) -> Self {
        self.map_either(Module::materialize, Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Self::Batch(norm) | Self::Frozen(norm) => norm.visit(visitor),
            Self::Group(norm) => norm.visit(visitor),
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::Batch(norm) => Self::Batch(norm.map(mapper)),
            Self::Group(norm) => Self::Group(norm.map(mapper)),
            Self::Frozen(norm) => Self::Frozen(norm.map(mapper)),
        }
    }
}

impl ModuleDisplayDefault for Norm {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Batch(norm) | Self::Frozen(norm) => norm.content(content),
            Self::Group(norm) => norm.content(content),
        }
    }
}

impl ModuleDisplay for Norm {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::init::InitOptions;
    use crate::model::waves::{values, waves};

    fn norm(kind: NormSettings, device: &Device) -> Norm {
        Norm::new(kind, 4, 1.0, &Initializer::new(InitOptions { seed: 0, compat_torch: false }, device))
    }

    /// Running mean and variance.
    fn statistics(norm: &Norm) -> Option<[Vec<f32>; 2]> {
        match norm {
            Norm::Batch(norm) | Norm::Frozen(norm) => {
                Some([values(norm.running_mean.val()), values(norm.running_var.val())])
            }
            Norm::Group(_) => None,
        }
    }

    #[test]
    fn only_batch_norm_lets_items_see_each_other_and_moves_its_statistics() {
        let device = Device::flex();
        let input = waves([6, 2, 2, 4], 0.1, &device) * 3.0 + 1.0;
        for kind in [NormSettings::Batch, NormSettings::Group, NormSettings::Frozen] {
            let mut norm = norm(kind, &device);
            let before = statistics(&norm);
            let whole = values(norm.forward_train(input.clone()));
            let part = values(norm.forward_train(input.clone().narrow(0, 0, 3)));
            let is_batch = kind == NormSettings::Batch;
            assert_eq!(whole[..part.len()] != part, is_batch, "{kind:?}");
            assert_eq!(statistics(&norm) != before, is_batch, "{kind:?}");
            if !is_batch {
                assert_eq!(whole, values(norm.forward_eval(input.clone())), "{kind:?}");
                let positive: Vec<f32> = whole.iter().map(|x| x.max(0.0)).collect();
                assert_eq!(positive, values(norm.forward_train_relu(input.clone())), "{kind:?}");
                assert_eq!(positive, values(norm.forward_eval_relu(input.clone())), "{kind:?}");
            }
        }
    }

    #[test]
    fn frozen_statistics_let_gradients_through_to_input_gain_and_shift() {
        let device = Device::flex().autodiff();
        let mut frozen = norm(NormSettings::Frozen, &device);
        let Norm::Frozen(inner) = &mut frozen else { unreachable!("made so") };
        inner.running_mean = inner.running_mean.clone().map(|mean| mean + 0.5);
        inner.running_var = inner.running_var.clone().map(|variance| variance * 4.0);
        let input = waves([3, 2, 2, 4], 0.1, &device).require_grad();
        let coefficients = waves([3, 2, 2, 4], 0.8, &device);
        let out = frozen.forward_train(input.clone());
        let gradients = (out * coefficients.clone()).sum_dims(&[0, 1, 2, 3]).backward();
        let factor = (4.0_f32 + 1e-5).sqrt().recip();
        let of_input = values(input.grad(&gradients).expect("tracked"));
        let (x, c) = (values(input.inner()), values(coefficients));
        let (mut of_gain, mut of_shift) = ([0.0_f32; 4], [0.0_f32; 4]);
        for at in 0..x.len() {
            assert!((of_input[at] - c[at] * factor).abs() < 1e-5);
            of_gain[at % 4] += c[at] * (x[at] - 0.5) * factor;
            of_shift[at % 4] += c[at];
        }
        let Norm::Frozen(inner) = &frozen else { unreachable!("made so") };
        let gain = values(inner.weight.val().grad(&gradients).expect("trained"));
        let shift = values(inner.bias.as_ref().expect("shifts").val().grad(&gradients).expect("trained"));
        for channel in 0..4 {
            assert!(
                (gain[channel] - of_gain[channel]).abs() < 1e-4 && (shift[channel] - of_shift[channel]).abs() < 1e-4
            );
        }
    }
}
