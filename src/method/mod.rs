//! Encoder, head and loss of one published method.

pub mod cpc;
mod simclr;

use std::fmt::Debug;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::model::{EncoderSettings, HeadSettings};
pub use cpc::CPC;
pub use simclr::SimCLR;

/// What one training step's forward gives.
#[derive(Debug, Clone)]
pub struct MethodOutput {
    /// `[1]`, the mean over the batch.
    pub loss: Tensor<1>,
    /// Of both things that should meet, at unit length and cut off from the graph, `[items, width]`: the collapse watch.
    pub embeddings: [Tensor<2>; 2],
}

/// One published method: everything between pixels and loss.
///
/// Pixels are floats in [0, 1], `[items, 3, height, width]`. Every implementation runs `obeys_method_rules`.
pub trait Method: Module + Clone + Debug {
    /// As a pipeline writes it.
    fn name(&self) -> &'static str;

    /// Columns of [`Self::features`].
    fn feature_width(&self) -> usize;

    /// Items that a batch must have for the loss to mean something.
    fn least_items(&self) -> usize {
        1
    }

    /// The loss of one batch, in training mode: BatchNorm uses the batch and moves its running statistics.
    ///
    /// # Panics
    /// Where there are fewer than [`Self::least_items`], or another number of views than the pairing of this method makes:
    /// the pipeline's check refuses both before any data is read.
    fn train_loss(&mut self, views: Vec<Tensor<4>>) -> MethodOutput;

    /// Features in front of the head, in evaluation mode and outside autodiff, `[items, feature_width]`. Moves nothing.
    fn features(&self, pixels: Tensor<4>) -> Tensor<2>;

    /// Called after each optimizer step: momentum encoders, queues.
    fn after_step(&mut self) {}
}

/// `[method.*]` of a pipeline: exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodSettings {
    /// Chen et al. 2020.
    Simclr(SimclrSettings),
}

/// `[method.simclr]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimclrSettings {
    /// Exactly one encoder.
    pub encoder: EncoderSettings,
    /// Projection head.
    #[serde(default = "default_head")]
    pub head: HeadSettings,
    /// Width of z.
    #[serde(default = "default_projection_width")]
    pub projection_width: usize,
    /// NT-Xent's τ.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// Subtract ImageNet's mean and divide by its standard deviation; the paper does neither.
    #[serde(default)]
    pub imagenet_normalization: bool,
    /// Whether both views share one forward (and so one set of BatchNorm statistics), as torch repositories do.
    #[serde(default)]
    pub joint_forward: bool,
}
fn default_head() -> HeadSettings {
    HeadSettings::PaperV1
}
fn default_projection_width() -> usize {
    128
}
fn default_temperature() -> f64 {
    0.1
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read single values as they go")]
mod tests {
    use std::collections::BTreeMap;

    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::{Device, Gradients, TensorData};

    use super::*;
    use crate::model::{ConvNetSettings, InitOptions, ResNetSettings, Stem};

    /// Visits parameters with their paths: values, and gradients' largest magnitudes where there are any.
    struct Parameters<'a> {
        path: Vec<String>,
        gradients: Option<&'a Gradients>,
        values: BTreeMap<String, Vec<f32>>,
        slopes: BTreeMap<String, f32>,
    }

    impl ModuleVisitor for Parameters<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.path.join(".");
            let gradient = self.gradients.and_then(|gradients| param.val().grad(gradients));
            if let Some(gradient) = gradient {
                self.slopes.insert(path.clone(), gradient.abs().max().into_scalar());
            }
            let fresh = self.values.insert(path.clone(), param.val().into_data().try_into_vec::<f32>().expect("f32"));
            assert!(fresh.is_none(), "two parameters at {path}");
        }
    }

    fn parameters<'a>(module: &impl Module, gradients: Option<&'a Gradients>) -> Parameters<'a> {
        let mut visitor = Parameters { path: vec![], gradients, values: BTreeMap::new(), slopes: BTreeMap::new() };
        module.visit(&mut visitor);
        visitor
    }

    fn is_buffer(path: &str) -> bool {
        path.ends_with(".running_mean") || path.ends_with(".running_var")
    }

    fn pixels(items: usize, phase: f64, device: &Device) -> Tensor<4> {
        let values: Vec<f32> =
            (0..items * 3 * 144).map(|i| (0.5 + 0.5 * (0.61 * i as f64 + phase).sin()) as f32).collect();
        Tensor::from_data(TensorData::new(values, [items, 3, 12, 12]), device)
    }

    /// Everything that holds for any method; `make` builds one on a device from a seed.
    fn obeys_method_rules<M: Method>(make: impl Fn(u64, &Device) -> M, expected_names: &[&str]) {
        let device = Device::flex().autodiff();
        let mut method = make(1, &device);
        let items = method.least_items().max(4);
        let views = |device: &Device| vec![pixels(items, 0.0, device), pixels(items, 1.3, device)];

        // The same seed gives the same weights, another one others, whatever the device's autodiff.
        let start = parameters(&method, None).values;
        assert_eq!(start, parameters(&make(1, &Device::flex()), None).values);
        assert_ne!(start, parameters(&make(2, &device), None).values);
        for name in expected_names {
            assert!(start.contains_key(*name), "no {name} among {:?}", start.keys());
        }

        // Features: of the declared width, the same twice, outside autodiff, and they move nothing.
        let features = method.features(pixels(items, 0.0, &device));
        assert_eq!(features.dims(), [items, method.feature_width()]);
        assert!(!features.is_autodiff());
        let alone = method.features(pixels(items, 0.0, &device).narrow(0, 1, 1));
        let gap: f32 = (features.clone().narrow(0, 1, 1) - alone).abs().max().into_scalar();
        assert!(gap < 1e-5, "features of an item depend on its neighbours: {gap}");
        assert_eq!(features.into_data(), method.features(pixels(items, 0.0, &device)).into_data());
        assert_eq!(start, parameters(&method, None).values);

        // One step: a finite loss, a gradient for every trainable parameter and for no buffer; only buffers move.
        let output = method.train_loss(views(&device));
        assert_eq!(output.loss.dims(), [1]);
        assert!(output.loss.clone().inner().into_scalar::<f32>().is_finite());
        for embeddings in &output.embeddings {
            assert_eq!(embeddings.dims()[0], items);
            assert!(!embeddings.is_tracked());
        }
        let gradients = output.loss.backward();
        let after = parameters(&method, Some(&gradients));
        for (path, values) in &after.values {
            let slope = after.slopes.get(path);
            if is_buffer(path) {
                assert!(slope.is_none(), "{path} is trained");
                assert_ne!(values, &start[path], "{path} did not move");
            } else {
                assert!(slope.is_some_and(|s| s.is_finite() && *s > 0.0), "{path} has gradient {slope:?}");
                assert_eq!(values, &start[path], "{path} moved in the forward");
            }
        }

        // Without autodiff the loss is the same number, and a copy of a model goes its own way.
        let mut again = make(1, &device);
        let copy = again.clone();
        let plain = again.valid().train_loss(views(&Device::flex())).loss.into_data();
        assert_eq!(plain, again.train_loss(views(&device)).loss.inner().into_data());
        assert_eq!(parameters(&copy, None).values, start);
        method.after_step();
    }

    fn simclr(encoder: EncoderSettings, head: HeadSettings, joint_forward: bool) -> SimclrSettings {
        SimclrSettings {
            encoder,
            head,
            projection_width: 8,
            temperature: 0.1,
            imagenet_normalization: joint_forward,
            joint_forward,
        }
    }

    fn make(settings: SimclrSettings) -> impl Fn(u64, &Device) -> SimCLR {
        move |seed, device| {
            SimCLR::new(&settings, InitOptions { seed, compat_torch: false }, device).expect("plain settings")
        }
    }

    #[test]
    fn simclr_with_a_convnet_obeys_method_rules() {
        let names = ["encoder.conv4.weight", "encoder.bn1.running_mean", "head.layers.1.linear.bias"];
        for joint in [false, true] {
            let encoder = EncoderSettings::ConvNet(ConvNetSettings { base_width: 4 });
            obeys_method_rules(make(simclr(encoder, HeadSettings::PaperV1, joint)), &names);
        }
    }

    #[test]
    fn simclr_with_every_resnet_obeys_method_rules() {
        let settings = |stem| ResNetSettings { stem, base_width: 4, zero_init_residual: false };
        let names = [
            "encoder.conv1.weight",
            "encoder.bn1.running_var",
            "encoder.layer1.0.bn2.bias",
            "encoder.layer2.0.downsample.0.weight",
            "encoder.layer4.1.downsample.1.running_mean",
        ];
        obeys_method_rules(
            make(simclr(EncoderSettings::ResNet18(settings(Stem::Cifar)), HeadSettings::GoogleV1, false)),
            &names[..4],
        );
        obeys_method_rules(
            make(simclr(EncoderSettings::ResNet34(settings(Stem::Imagenet)), HeadSettings::GoogleV2, false)),
            &names[..4],
        );
        obeys_method_rules(
            make(simclr(EncoderSettings::ResNet50(settings(Stem::Imagenet)), HeadSettings::GoogleV2, true)),
            &["encoder.layer1.0.downsample.0.weight", "encoder.layer1.0.conv3.weight", "head.layers.2.bn.weight"],
        );
    }

    #[test]
    fn zero_gain_starts_blocks_as_identities_but_not_under_compat_torch() {
        let device = Device::flex();
        let encoder = EncoderSettings::ResNet18(ResNetSettings { base_width: 4, ..ResNetSettings::default() });
        let settings = simclr(encoder, HeadSettings::PaperV1, false);
        for (compat_torch, gain) in [(false, 0.0), (true, 1.0)] {
            let method =
                SimCLR::new(&settings, InitOptions { seed: 1, compat_torch }, &device).expect("plain settings");
            let values = parameters(&method, None).values;
            assert_eq!(values["encoder.layer1.0.bn2.weight"], [gain; 4]);
            assert_eq!(values["encoder.layer1.0.bn1.weight"], [1.0; 4]);
        }
    }

    #[test]
    fn joint_forward_shares_statistics_between_the_views() {
        let device = Device::flex();
        let encoder = || EncoderSettings::ConvNet(ConvNetSettings { base_width: 4 });
        let loss = |joint| {
            let mut settings = simclr(encoder(), HeadSettings::PaperV1, joint);
            settings.imagenet_normalization = false;
            let views = vec![pixels(4, 0.0, &device), pixels(4, 1.3, &device) * 0.5];
            make(settings)(1, &device).train_loss(views).loss.into_scalar::<f32>()
        };
        assert!((loss(true) - loss(false)).abs() > 1e-4);
    }
}
