//! An exponential moving average of the weights.
use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;

use super::parameters::{map, visit};
use super::state::{Tensors, collect, restore};
use crate::error::Result;

/// θ̄ ← dθ̄ + (1−d)θ with d = min(decay, (1+t)/(10+t)) after t steps: the ramp keeps the first weights from lingering.
///
/// Buffers (BatchNorm's running statistics) are averages already and are copied.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    average: BTreeMap<String, Tensor<1>>,
}

impl Ema {
    /// Starts at the weights of `module`.
    pub fn new<M: Module>(decay: f64, module: &M) -> Self {
        let mut average = BTreeMap::new();
        visit(module, |parameter, values| {
            average.insert(parameter.path, values);
        });
        Self { decay, average }
    }

    /// Takes in the weights of `module` after step `steps_done`, counted from 1.
    pub fn update<M: Module>(&mut self, module: &M, steps_done: u64) {
        let t = steps_done as f64;
        let decay = self.decay.min((1.0 + t) / (10.0 + t));
        visit(module, |parameter, values| {
            let old = self.average.remove(&parameter.path);
            let new = match old {
                Some(old) if parameter.trainable => old * decay + values * (1.0 - decay), // [elements]
                _ => values,
            };
            self.average.insert(parameter.path, new);
        });
    }

    /// `module` with the averaged weights.
    pub fn apply<M: Module>(&self, module: M) -> M {
        map(module, |parameter, values| self.average.get(&parameter.path).cloned().unwrap_or(values))
    }

    /// The averaged weights, as [`collect`] lays them out.
    pub fn state<M: Module>(&self, module: &M) -> Tensors {
        collect(&self.apply(module.clone()))
    }

    /// Continues from a saved [`Self::state`].
    ///
    /// # Errors
    /// Lists every missing, unused and misshapen entry at once.
    pub fn load<M: Module>(decay: f64, module: &M, state: &Tensors) -> Result<Self> {
        Ok(Self::new(decay, &restore(module.clone(), state)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy::Toy;
    use super::*;
    use burn::tensor::Device;

    fn first(tensors: &Tensors, name: &str) -> f32 {
        tensors[name].as_slice::<f32>().unwrap()[0]
    }

    #[test]
    fn weights_are_averaged_with_the_ramp_and_buffers_copied() {
        let device = Device::flex().autodiff();
        let (start, next) = (Toy::new(&device), Toy::seeded(9, &device));
        let next = map(next, |parameter, values| if parameter.trainable { values } else { values + 3.0 });
        let mut ema = Ema::new(0.999, &start);
        ema.update(&next, 1);
        let (a, b, c) = (collect(&start), collect(&next), ema.state(&start));
        let decay = 2.0 / 11.0;
        let expected = first(&a, "head.weight") * decay + first(&b, "head.weight") * (1.0 - decay);
        assert!((first(&c, "head.weight") - expected).abs() < 1e-6);
        assert_eq!(c["encoder.running_mean"], b["encoder.running_mean"]);
        let mut late = Ema::new(0.5, &start);
        late.update(&next, 1_000_000);
        let expected = 0.5 * (first(&a, "head.weight") + first(&b, "head.weight"));
        assert!((first(&late.state(&start), "head.weight") - expected).abs() < 1e-6);
    }

    #[test]
    fn averages_round_trip_and_leave_the_module_trainable() {
        let device = Device::flex().autodiff();
        let (start, next) = (Toy::new(&device), Toy::seeded(9, &device));
        let mut ema = Ema::new(0.9, &start);
        ema.update(&next, 7);
        let loaded = Ema::load(0.9, &next, &ema.state(&start)).unwrap();
        assert_eq!(loaded.state(&next), ema.state(&next));
        assert!(ema.apply(next).head.weight.val().is_require_grad());
    }
}
