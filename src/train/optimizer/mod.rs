//! Optimizers keyed by parameter path, so that their state survives a process.
//!
//! One rule per file: [`sgd`], [`adamw`], [`lars`]. Burn's own are keyed by ids that are random per process and
//! silently start afresh where an id does not match.
use std::collections::BTreeMap;
use std::fmt::Debug;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use super::parameters::{Gradient, map, rows, visit};
use super::state::{Entry, Tensors, audit};
use super::{Compat, OptimizerSettings};
use crate::error::Result;

pub mod adamw;
pub mod lars;
pub mod sgd;

/// What a rule is told of the step and the parameter besides numbers.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// Learning rate of this step.
    pub rate: f64,
    /// The step's number, from 1.
    pub step: u64,
    /// First dimension of a matrix or larger, 1 for a vector.
    pub rows: usize,
    /// Whether weight decay touches the parameter.
    pub decays: bool,
    /// Whether the parameter is a matrix or larger: neither a bias nor a norm's gain.
    pub is_matrix: bool,
}

/// One step of one parameter. All tensors are flat and without autodiff.
pub trait UpdateRule: Debug + Send {
    /// Names of the moments it keeps per parameter; all start at zero.
    fn moments(&self) -> &'static [&'static str];

    /// The new weight and the new moments, in the order of [`Self::moments`]. `[elements]` each.
    fn update(
        &self,
        at: Update,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        moments: Vec<Tensor<1>>,
    ) -> (Tensor<1>, Vec<Tensor<1>>);
}

#[derive(Debug)]
struct Slot {
    shape: Vec<usize>,
    moments: Vec<Tensor<1>>,
}

/// A rule with the moments of every trained parameter of one module.
///
/// Weight decay leaves out biases and norms (fewer than two dimensions), except under [`Compat::Torch`].
#[derive(Debug)]
pub struct Optimizer {
    rule: Box<dyn UpdateRule>,
    decay_everything: bool,
    device: Device,
    slots: BTreeMap<String, Slot>,
}

impl Optimizer {
    /// The optimizer at its first step for the trained parameters of `module`.
    pub fn new<M: Module>(settings: &OptimizerSettings, compat: Option<Compat>, module: &M, device: &Device) -> Self {
        let rule: Box<dyn UpdateRule> = match settings {
            OptimizerSettings::Sgd(settings) => Box::new(settings.clone()),
            OptimizerSettings::AdamW(settings) => Box::new(settings.clone()),
            OptimizerSettings::Lars(settings) => Box::new(settings.clone()),
        };
        let device = device.clone().inner();
        let mut slots = BTreeMap::new();
        visit(module, |parameter, values| {
            if parameter.trainable {
                let moments = rule.moments().iter().map(|_| values.zeros_like()).collect();
                slots.insert(parameter.path, Slot { shape: parameter.shape, moments });
            }
        });
        Self { rule, decay_everything: compat == Some(Compat::Torch), device, slots }
    }

    /// `module` after one step at `rate`; `step` counts from 1. A parameter without a gradient stays as it is.
    pub fn step<M: Module>(&mut self, module: M, mut gradients: BTreeMap<String, Gradient>, rate: f64, step: u64) -> M {
        map(module, |parameter, weight| {
            let (Some(gradient), Some(slot)) = (gradients.remove(&parameter.path), self.slots.get_mut(&parameter.path))
            else {
                return weight;
            };
            let is_matrix = parameter.shape.len() >= 2;
            let decays = is_matrix || self.decay_everything;
            let at = Update { rate, step, rows: rows(&parameter.shape), decays, is_matrix };
            // Moments are moved, not cloned: a shared tensor cannot be updated in place.
            let moments = std::mem::take(&mut slot.moments);
            let (weight, moments) = self.rule.update(at, weight, gradient.values, moments);
            slot.moments = moments;
            weight
        })
    }

    /// The moments, named `PATH.MOMENT`, in the shape that the parameter has in the module (linear weights `[in, out]`).
    pub fn state(&self) -> Tensors {
        let mut state = Tensors::new();
        for (path, slot) in &self.slots {
            for (name, moment) in self.rule.moments().iter().zip(&slot.moments) {
                let (bytes, _, dtype) = moment.to_data().into_parts();
                state.insert(entry_name(path, name), TensorData::from_bytes(bytes, slot.shape.clone(), dtype));
            }
        }
        state
    }

    /// Continues from a saved [`Self::state`].
    ///
    /// # Errors
    /// Lists every missing, unused and misshapen entry at once; nothing is loaded then.
    pub fn load(&mut self, state: &Tensors) -> Result<()> {
        let names = self.rule.moments();
        let expected = self
            .slots
            .iter()
            .flat_map(|(path, slot)| names.iter().map(|name| (entry_name(path, name), Entry::float(&slot.shape))));
        audit("the optimizer's moments", &expected.collect(), state)?;
        for (path, slot) in &mut self.slots {
            for (name, moment) in names.iter().zip(&mut slot.moments) {
                let elements = slot.shape.iter().product::<usize>();
                let (bytes, _, dtype) = state[&entry_name(path, name)].clone().into_parts();
                *moment = Tensor::from_data(TensorData::from_bytes(bytes, [elements], dtype), &self.device);
            }
        }
        Ok(())
    }
}

fn entry_name(path: &str, moment: &str) -> String {
    format!("{path}.{moment}")
}

#[cfg(test)]
mod tests {
    use super::super::toy::{Toy, inputs};
    use super::*;
    use crate::train::parameters::gradients;
    use crate::train::state::collect;
    use crate::train::{AdamWSettings, LarsSettings, SgdSettings};

    pub(super) fn steps(settings: &OptimizerSettings, compat: Option<Compat>, rate: f64) -> (Tensors, Tensors) {
        let device = Device::flex().autodiff();
        let mut toy = Toy::new(&device);
        let before = collect(&toy);
        let mut optimizer = Optimizer::new(settings, compat, &toy, &device);
        for step in 1..=3 {
            let loss = toy.loss(inputs(step, &device));
            let gradients = gradients(&toy, loss.backward());
            toy = optimizer.step(toy, gradients, rate, step);
        }
        (before, collect(&toy))
    }

    #[test]
    fn every_rule_moves_every_trained_tensor_and_no_buffer() {
        for settings in [
            OptimizerSettings::Sgd(SgdSettings::default()),
            OptimizerSettings::AdamW(AdamWSettings::default()),
            OptimizerSettings::Lars(LarsSettings::default()),
        ] {
            // The toy's loss moves its running mean itself, so the buffer is compared with a step of rate 0.
            let (_, still) = steps(&settings, None, 0.0);
            let (before, after) = steps(&settings, None, 0.1);
            for (name, data) in &before {
                let moved = after[name] != *data;
                assert!(moved || name == "encoder.running_mean", "{settings:?} left {name}");
            }
            assert_ne!(still["head.weight"], after["head.weight"]);
            assert_eq!(still["head.weight"], before["head.weight"]);
        }
    }

    #[test]
    fn decay_spares_vectors_unless_torch_is_to_be_matched() {
        let settings = |weight_decay| {
            OptimizerSettings::Sgd(SgdSettings { weight_decay, momentum: 0.0, ..SgdSettings::default() })
        };
        let (_, without) = steps(&settings(0.0), None, 0.1);
        let (_, with) = steps(&settings(0.5), None, 0.1);
        let (_, torch) = steps(&settings(0.5), Some(Compat::Torch), 0.1);
        let one_step = |tensors: &Tensors, name: &str| tensors[name].as_slice::<f32>().unwrap()[0];
        assert_ne!(one_step(&without, "head.weight"), one_step(&with, "head.weight"));
        assert_ne!(one_step(&torch, "head.bias"), one_step(&with, "head.bias"));
    }

    #[test]
    fn moments_round_trip_and_strangers_are_refused() {
        let device = Device::flex().autodiff();
        let mut toy = Toy::new(&device);
        let settings = OptimizerSettings::AdamW(AdamWSettings::default());
        let mut optimizer = Optimizer::new(&settings, None, &toy, &device);
        let loss = toy.loss(inputs(0, &device));
        let gradients = gradients(&toy, loss.backward());
        let toy = optimizer.step(toy, gradients, 0.1, 1);
        let state = optimizer.state();
        let mut fresh = Optimizer::new(&settings, None, &toy, &device);
        assert_ne!(fresh.state(), state);
        fresh.load(&state).unwrap();
        assert_eq!(fresh.state(), state);
        let sgd = OptimizerSettings::Sgd(SgdSettings::default());
        let error = Optimizer::new(&sgd, None, &toy, &device).load(&state).unwrap_err().to_string();
        assert!(error.contains("missing: head.bias.momentum"), "{error}");
        assert!(error.contains("unused: head.bias.first_moment"), "{error}");
    }
}
