//! A method small enough to train within a test: linear layers behind an enum, a buffer that moves, a head.
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::batch::{Batch, Content, Input};
use crate::error::Result;
use crate::method::{Method, MethodOutput};
use crate::seed::{Draws, ItemKey, draws};

const SIDE: usize = 4;
const INPUTS: usize = 3 * SIDE * SIDE;
const HIDDEN: usize = 16;
const WIDTH: usize = 8;
/// Items of a toy batch.
pub(super) const ITEMS: usize = 6;

#[derive(Module, Debug)]
pub(super) struct Layers {
    pub(super) layers: Vec<Linear>,
    /// `[HIDDEN]`, not trained.
    pub(super) running_mean: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
pub(super) enum Encoder {
    Layers(Layers),
}

impl Encoder {
    pub(super) fn inner(&self) -> &Layers {
        let Self::Layers(layers) = self;
        layers
    }
}

#[derive(Module, Debug)]
pub(super) struct Toy {
    pub(super) encoder: Encoder,
    pub(super) head: Linear,
}

fn linear(inputs: usize, outputs: usize, draws: &mut Draws, device: &Device) -> Linear {
    let mut values = |n: usize| (0..n).map(|_| (0.3 * draws.normal()) as f32).collect::<Vec<f32>>();
    let weight = TensorData::new(values(inputs * outputs), [inputs, outputs]);
    let bias = TensorData::new(values(outputs), [outputs]);
    Linear { weight: Param::from_data(weight, device), bias: Some(Param::from_data(bias, device)) }
}

impl Toy {
    pub(super) fn new(device: &Device) -> Self {
        Self::seeded(0, device)
    }

    pub(super) fn seeded(seed: u64, device: &Device) -> Self {
        let mut draws = draws(seed, "toy", &[]);
        let layers = vec![linear(INPUTS, HIDDEN, &mut draws, device), linear(HIDDEN, HIDDEN, &mut draws, device)];
        let running_mean = Param::from_tensor(Tensor::zeros([HIDDEN], device)).set_require_grad(false);
        let encoder = Encoder::Layers(Layers { layers, running_mean });
        Self { encoder, head: linear(HIDDEN, WIDTH, &mut draws, device) }
    }

    pub(super) fn loss(&mut self, views: Vec<Tensor<4>>) -> Tensor<1> {
        self.train_loss(Input::Views(views), 0).unwrap().loss
    }

    fn embed(&mut self, pixels: Tensor<4>) -> Tensor<2> {
        let Encoder::Layers(Layers { layers, running_mean }) = &mut self.encoder;
        let mut x = pixels.flatten::<2>(1, 3); // [items, INPUTS]
        for layer in layers.iter() {
            x = relu(layer.forward(x)); // [items, HIDDEN]
        }
        let mean = x.clone().inner().mean_dim(0).reshape([HIDDEN]);
        *running_mean = running_mean.clone().map(|old| {
            let device = old.device();
            let new = old.inner() * 0.9 + mean * 0.1;
            if device.is_autodiff() { new.autodiff() } else { new }
        });
        let z = self.head.forward(x); // [items, WIDTH]
        let length = z.clone().square().sum_dim(1).clamp_min(1e-24).sqrt();
        z / length
    }
}

impl Method for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn feature_width(&self) -> usize {
        HIDDEN
    }

    fn features_in_words(&self) -> &'static str {
        "hidden"
    }

    fn train_loss(&mut self, input: Input, _step: u64) -> Result<MethodOutput> {
        let [first, second] = input.into_views::<2>("toy")?.map(|view| self.embed(view));
        let pull = (first.clone() - second.clone()).square().sum_dim(1).sum_dim(0);
        let push = first.clone().matmul(second.clone().transpose()).square().sum_dim(1).sum_dim(0);
        let loss = (pull + push).reshape([1]);
        let embeddings = [first.detach(), second.detach()];
        Ok(MethodOutput { loss, embeddings, no_signal_loss: 1e9, readings: vec![] })
    }

    fn features(&self, input: Input) -> Result<Tensor<2>> {
        let [pixels] = input.into_views::<1>("toy")?;
        let mut x = pixels.flatten::<2>(1, 3);
        for layer in &self.encoder.inner().layers {
            x = relu(layer.forward(x));
        }
        Ok(x)
    }
}

/// Batch `index` of an endless order; every tenth has a substitute.
pub(super) fn batch(index: u64, device: &Device) -> Batch {
    let mut draws = draws(0, "toy pixels", &[index]);
    let shape = [ITEMS, 2, 3, SIDE, SIDE];
    let bytes: Vec<i64> = (0..ITEMS * 2 * INPUTS).map(|_| draws.below(256) as i64).collect();
    let item = |i: u64| ItemKey { shard: 7, row: index * ITEMS as u64 + i, occurrence: 0 };
    Batch {
        content: Content::Views(Tensor::<5, Int>::from_data(TensorData::new(bytes, shape), device)),
        labels: vec![],
        keys: (0..ITEMS as u64).map(item).collect(),
        sample_ids: (0..ITEMS as u64).map(|i| item(i).row).collect(),
        positions: (0..ITEMS as u64).map(|i| item(i).row).collect(),
        digest: format!("{index:032x}"),
        replaced: usize::from(index % 10 == 9),
    }
}

/// Two views of one batch. `[ITEMS, 3, SIDE, SIDE]` each.
pub(super) fn inputs(index: u64, device: &Device) -> Vec<Tensor<4>> {
    batch(index, device).content.input().into_views::<2>("toy").unwrap().to_vec()
}
