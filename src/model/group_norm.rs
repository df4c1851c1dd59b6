//! Group normalisation (Wu and He 2018, arXiv 1803.08494): an item's output does not depend on the other items.
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::init::Initializer;
use super::parameters::{Parameters, Start};

/// Groups of channels at most, as in the paper.
pub const MOST_GROUPS: usize = 32;

/// Added to the variance.
const EPSILON: f64 = 1e-5;

/// Normalisation of each item over its positions and a group of its channels, then γ and β per channel.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// γ, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// β, `[channels]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
}

/// Groups of so many channels: the most that divide them, up to 32 and of two channels at least (one channel at one
/// position would be normalised to nothing).
pub fn groups_of(channels: usize) -> usize {
    let most = MOST_GROUPS.min(channels / 2).max(1);
    (1..=most).rev().find(|groups| channels.is_multiple_of(*groups)).unwrap_or(1)
}

impl GroupNorm {
    /// γ = `gain`, β = 0.
    pub fn new(channels: usize, gain: f32, init: &Initializer<'_>) -> Self {
        let (weight, bias) = (init.constant(channels, gain), init.constant(channels, 0.0));
        Self { weight, bias, groups: groups_of(channels) }
    }

    /// The layer at `path`, drawn or loaded.
    pub fn from_parameters(path: &str, channels: usize, gain: f32, parameters: &mut Parameters<'_>) -> Self {
        let mut trained =
            |name: &str, value| parameters.trained(&format!("{path}.{name}"), [channels], Start::Constant(value));
        Self { weight: trained("weight", gain), bias: trained("bias", 0.0), groups: groups_of(channels) }
    }

    /// # Shapes
    /// `[items, .., channels]` to the same.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let shape = input.dims();
        let (items, channels) = (shape[0], shape[D - 1]);
        let positions = shape[1..D - 1].iter().product::<usize>();
        let values = input.reshape([items, positions, self.groups, channels / self.groups]);
        let mean = values.clone().mean_dim(3).mean_dim(1); // [items, 1, groups, 1]
        let centred = values - mean;
        let variance = centred.clone().square().mean_dim(3).mean_dim(1); // [items, 1, groups, 1]
        let unit = centred * (variance + EPSILON).sqrt().recip();
        let affine = |of: &Param<Tensor<1>>| of.val().reshape([1, 1, self.groups, channels / self.groups]);
        (unit * affine(&self.weight) + affine(&self.bias)).reshape(shape)
    }

    /// [`Self::forward`], then ReLU.
    pub fn forward_relu<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        relu(self.forward(input))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::init::InitOptions;
    use crate::model::waves::{values, waves};

    fn layer(channels: usize, device: &Device) -> GroupNorm {
        GroupNorm::new(channels, 1.0, &Initializer::new(InitOptions { seed: 0, compat_torch: false }, device))
    }

    #[test]
    fn groups_divide_the_channels_and_hold_two_at_least() {
        let counts = [(64, 32), (2_048, 32), (32, 16), (48, 24), (4, 2), (3, 1), (1, 1), (34, 17), (100, 25)];
        for (channels, groups) in counts {
            assert_eq!(groups_of(channels), groups, "{channels} channels");
        }
    }

    #[test]
    fn every_group_of_every_item_has_mean_0_and_variance_1_before_gain_and_shift() {
        let device = Device::flex();
        let (items, height, width, channels) = (3, 2, 5, 6);
        let mut norm = layer(channels, &device);
        assert_eq!(norm.groups, 3);
        let input = waves([items, height, width, channels], 0.3, &device) * 4.0 + 11.0;
        let out = values(norm.forward(input.clone()));
        let of_group = |values: &[f32], item: usize, group: usize| -> Vec<f64> {
            let item = &values[item * height * width * channels..][..height * width * channels];
            let inside = item.iter().enumerate().filter(|(at, _)| at % channels / 2 == group);
            inside.map(|(_, value)| f64::from(*value)).collect()
        };
        for (item, group) in (0..items).flat_map(|item| (0..3).map(move |group| (item, group))) {
            let group = of_group(&out, item, group);
            let mean = group.iter().sum::<f64>() / group.len() as f64;
            let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / group.len() as f64;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
        }
        // γ and β are per channel.
        norm.weight = norm.weight.map(|weight| weight * 2.0);
        norm.bias = norm.bias.map(|bias| bias + waves([channels], 0.9, &device));
        let shift = values(waves([channels], 0.9, &device));
        for (at, moved) in values(norm.forward_relu(input)).iter().enumerate() {
            assert!((moved - (2.0 * out[at] + shift[at % channels]).max(0.0)).abs() < 1e-5);
        }
    }

    #[test]
    fn an_item_is_normalised_the_same_alone_and_among_others() {
        let device = Device::flex();
        let norm = layer(4, &device);
        let input = waves([5, 3, 3, 4], 0.1, &device);
        let whole = values(norm.forward(input.clone()));
        let one = values(norm.forward(input.narrow(0, 2, 1)));
        assert_eq!(whole[2 * 36..3 * 36], one);
    }
}
