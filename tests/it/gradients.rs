//! SimCLR with a narrow ResNet-18 against PyTorch: every gradient, ten losses, running statistics.
//!
//! The numbers are written by `tests/golden/resnet_simclr.py`; weights and pixels follow from names on both sides.
#![expect(clippy::disallowed_methods, reason = "tests read single values as they go")]

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use diptych::batch::Input;
use diptych::method::{Method, SimCLR, SimclrSettings};
use diptych::model::{EncoderSettings, HeadSettings, InitOptions, ResNetSettings, Stem};

use super::golden::{self, Descend, gap, start, uniform};

const ITEMS: usize = 8;
const SIDE: usize = 16;

/// A parameter's path and shape as PyTorch has them, and whether ours is the transposed matrix.
fn in_pytorch(path: &[String], shape: &[usize]) -> (String, Vec<usize>, bool) {
    let name = path.join(".");
    let transposed = name.ends_with("linear.weight");
    let shape = if transposed { shape.iter().rev().copied().collect() } else { shape.to_vec() };
    (name, shape, transposed)
}

fn transpose(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    (0..values.len()).map(|i| values[(i % rows) * columns + i / rows]).collect()
}

/// Sets every trainable parameter by the script's formula.
struct Start(Vec<String>);

impl ModuleMapper for Start {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let ours = param.val().dims();
        let (name, shape, transposed) = in_pytorch(&self.0, &ours);
        if name.contains("running_") {
            return param;
        }
        let values = start(&name, &shape);
        let values = if transposed { transpose(&values, shape[0]) } else { values };
        param.map(|old| Tensor::from_data(TensorData::new(values, ours), &old.device()).require_grad())
    }
}

/// Gradients of trainable parameters and values of buffers, under PyTorch's names and in its order.
struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (name, shape, transposed) = in_pytorch(&self.path, &param.val().dims());
        let (name, of) = match param.val().grad(self.gradients) {
            Some(gradient) => (format!("gradient.{name}"), gradient),
            None => (format!("buffer.{name}"), param.val().inner()),
        };
        let values: Vec<f32> = of.into_data().try_into_vec::<f32>().expect("f32");
        self.found.insert(name, if transposed { transpose(&values, shape[1]) } else { values });
    }
}

fn compare(case: &str, compat_torch: bool) {
    let device = Device::flex().autodiff();
    let settings = SimclrSettings {
        encoder: EncoderSettings::ResNet18(ResNetSettings {
            stem: Stem::Cifar,
            base_width: 4,
            zero_init_residual: false,
            ..ResNetSettings::default()
        }),
        head: HeadSettings::PaperV1,
        projection_width: 16,
        temperature: 0.5,
        imagenet_normalization: false,
        joint_forward: false,
        loss_tile_rows: None,
    };
    let method = SimCLR::new(&settings, InitOptions { seed: 0, compat_torch }, &device).expect("plain settings");
    let mut method = method.map(&mut Start(vec![]));
    let views: Vec<Tensor<4>> = (0..2)
        .map(|view| {
            let values: Vec<f32> =
                uniform(&format!("view.{view}"), ITEMS * 3 * SIDE * SIDE).iter().map(|&u| u as f32).collect();
            Tensor::from_data(TensorData::new(values, [ITEMS, 3, SIDE, SIDE]), &device)
        })
        .collect();
    let expected = golden::tensors("resnet_simclr", &format!("{case}."));
    let losses = &expected["losses"];
    assert_eq!(losses.len(), 10);
    for (step, expected_loss) in losses.iter().enumerate() {
        let output = method.train_loss(Input::Views(views.clone()), step as u64).expect("two views");
        let gradients = output.loss.backward();
        let loss: f32 = output.loss.inner().into_scalar();
        assert!((loss - expected_loss).abs() < 1e-4, "{case}: loss {loss} at step {step}, PyTorch {expected_loss}");
        if step == 0 || step == 9 {
            let mut ours = Collect { path: vec![], gradients: &gradients, found: BTreeMap::new() };
            method.visit(&mut ours);
            let kind = if step == 0 { "gradient." } else { "buffer." };
            let names: Vec<&String> = expected.keys().filter(|name| name.starts_with(kind)).collect();
            assert!(step == 9 || names.len() == ours.found.keys().filter(|name| name.starts_with(kind)).count());
            for name in names {
                let gap = gap(&ours.found[name], &expected[name]);
                assert!(gap < 1e-4, "{case}: {name} is off by {gap} of its norm");
            }
        }
        method = method.map(&mut Descend(&gradients));
    }
}

#[test]
fn gradients_and_ten_losses_equal_those_of_pytorch() {
    compare("separate", false);
}

#[test]
fn both_views_in_one_forward_and_running_statistics_equal_those_of_pytorch() {
    compare("joint", true);
}
