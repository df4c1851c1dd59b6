//! Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), in PyTorch's order of operations.
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Update, UpdateRule};

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
        let [first_beta, second_beta] = self.betas;
        let mut moments = moments.into_iter();
        let (first, second) = match (moments.next(), moments.next()) {
            (Some(first), Some(second)) => (first, second),
            _ => (gradient.zeros_like(), gradient.zeros_like()),
        };
        let decay = if at.decays { self.weight_decay } else { 0.0 };
        let weight = if decay == 0.0 { weight } else { weight * (1.0 - at.rate * decay) };
        let square = gradient.clone() * gradient.clone();
        let first = first * first_beta + gradient * (1.0 - first_beta); // [elements]
        let second = second * second_beta + square * (1.0 - second_beta); // [elements]
        // libm, because the standard library's powers differ between machines.
        let correction = |beta: f64| 1.0 - libm::pow(beta, at.step as f64);
        // The second correction goes to the numerator and to ε: one pass over the tensor less.
        let scale = libm::sqrt(correction(second_beta));
        let step = at.rate * scale / correction(first_beta);
        let denominator = second.clone().sqrt() + self.epsilon * scale; // [elements]
        (weight - first.clone() * step / denominator, vec![first, second])
    }
}
