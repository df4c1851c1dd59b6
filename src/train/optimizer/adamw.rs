//! Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), in PyTorch's order of operations.
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Update, UpdateRule};
use crate::train::flat;

/// `optimizer.adamw`
///
/// w ← w(1 − ηλ); m ← β₁m + (1−β₁)∇; v ← β₂v + (1−β₂)∇²; w ← w − η·m̂ / (√v̂ + ε), with m̂, v̂ corrected for their start at 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWSettings {
    /// Learning rate before scaling.
    pub rate: f64,
    /// β₁, β₂.
    pub betas: [f64; 2],
    /// ε.
    pub epsilon: f64,
    /// Decoupled, not on biases and norms.
    pub weight_decay: f64,
}
impl Default for AdamWSettings {
    fn default() -> Self {
        Self { rate: 1e-3, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 1e-2 }
    }
}

impl UpdateRule for AdamWSettings {
    fn moments(&self) -> &'static [&'static str] {
        &["first_moment", "second_moment"]
    }

    fn update(
        &self,
        at: Update,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        moments: Vec<Tensor<1>>,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let mut moments = moments.into_iter();
        let (first, second) = match (moments.next(), moments.next()) {
            (Some(first), Some(second)) => (first, second),
            _ => (gradient.zeros_like(), gradient.zeros_like()),
        };
        let terms = self.terms(at);
        match flat::opened([weight, gradient, first, second]) {
            Ok([mut weight, gradient, mut first, mut second]) => {
                flat::update(&mut weight, &gradient, [&mut first, &mut second], |w, g, m, v| terms.apply(w, g, m, v));
                (flat::closed(weight), vec![flat::closed(first), flat::closed(second)])
            }
            Err(tensors) => terms.compose(tensors),
        }
    }
}

/// The numbers of one step of one parameter.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// What decay leaves of a weight.
    kept: f64,
    betas: [f64; 2],
    /// Both corrections are in it and in `epsilon`.
    step: f64,
    epsilon: f64,
}

impl AdamWSettings {
    fn terms(&self, at: Update) -> Terms {
        let decay = if at.decays { self.weight_decay } else { 0.0 };
        // libm, because the standard library's powers differ between machines.
        let correction = |beta: f64| 1.0 - libm::pow(beta, at.step as f64);
        // The second correction goes to the numerator and to ε: one pass over the tensor less.
        let scale = libm::sqrt(correction(self.betas[1]));
        Terms {
            kept: 1.0 - at.rate * decay,
            betas: self.betas,
            step: at.rate * scale / correction(self.betas[0]),
            epsilon: self.epsilon * scale,
        }
    }
}

impl Terms {
    /// All of it in one pass, in the order of [`Self::compose`].
    fn apply(self, weight: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let [beta, beta_2] = self.betas.map(|beta| beta as f32);
        let [rest, rest_2] = self.betas.map(|beta| (1.0 - beta) as f32);
        let (kept, step, epsilon) = (self.kept as f32, self.step as f32, self.epsilon as f32);
        for (((weight, gradient), first), second) in weight.iter_mut().zip(gradient).zip(first).zip(second) {
            *first = *first * beta + gradient * rest;
            *second = *second * beta_2 + gradient * gradient * rest_2;
            *weight = *weight * kept - *first * step / (second.sqrt() + epsilon);
        }
    }

    /// Weight, gradient and both moments into the new weight and moments, from Burn's own operations.
    fn compose(self, [weight, gradient, first, second]: [Tensor<1>; 4]) -> (Tensor<1>, Vec<Tensor<1>>) {
        let [first_beta, second_beta] = self.betas;
        let weight = if self.kept == 1.0 { weight } else { weight * self.kept };
        let square = gradient.clone() * gradient.clone();
        let first = first * first_beta + gradient * (1.0 - first_beta); // [elements]
        let second = second * second_beta + square * (1.0 - second_beta); // [elements]
        let denominator = second.clone().sqrt() + self.epsilon; // [elements]
        (weight - first.clone() * self.step / denominator, vec![first, second])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn one_pass_equals_the_tensor_operations() {
        let count = 40_000;
        let settings = AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() };
        for (step, decays) in [(1, true), (7, false)] {
            let terms = settings.terms(Update { rate: 1e-2, step, rows: 1, decays, is_matrix: true });
            let tensors = [0.1, 0.2, 0.3, 0.4].map(|phase| {
                let values: Vec<f32> = (0..count).map(|i| (0.37 * f64::from(i) + phase).sin().abs() as f32).collect();
                Tensor::<1>::from_data(TensorData::new(values, [count as usize]), &Device::flex())
            });
            let at = Update { rate: 1e-2, step, rows: 1, decays, is_matrix: true };
            let [weight, gradient, first, second] = tensors.clone();
            let (weight, moments) = settings.update(at, weight, gradient, vec![first, second]);
            let (expected, expected_moments) = terms.compose(tensors);
            let pairs = std::iter::once((weight, expected)).chain(moments.into_iter().zip(expected_moments));
            for (found, expected) in pairs {
                let floats = |of: Tensor<1>| of.into_data().try_into_vec::<f32>().expect("f32");
                for (a, b) in floats(found).iter().zip(&floats(expected)) {
                    assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-3), "{a} {b}");
                }
            }
        }
    }
}
