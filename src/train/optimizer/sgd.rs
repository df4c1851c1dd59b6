//! Stochastic gradient descent with momentum, as PyTorch defines it (dampening 0).
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Update, UpdateRule};

/// `optimizer.sgd`
///
/// g ← ∇ + λw; v ← μv + g; w ← w − η·v, or w − η(g + μv) in Nesterov's form.
///
/// The rate stays outside of the buffer (Sutskever et al. 2013 have it inside).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdSettings {
    /// Learning rate before scaling.
    pub rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// Nesterov's form.
    pub nesterov: bool,
    /// Added to the gradient, not to biases and norms.
    pub weight_decay: f64,
}
impl Default for SgdSettings {
    fn default() -> Self {
        Self { rate: 0.06, momentum: 0.9, nesterov: false, weight_decay: 0.0 }
    }
}

impl UpdateRule for SgdSettings {
    fn moments(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum"] }
    }

    fn update(
        &self,
        at: Update,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        moments: Vec<Tensor<1>>,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let decay = if at.decays { self.weight_decay } else { 0.0 };
        let gradient = if decay == 0.0 { gradient } else { gradient + weight.clone() * decay };
        let Some(velocity) = moments.into_iter().next() else {
            return (weight - gradient * at.rate, Vec::new());
        };
        let velocity = velocity * self.momentum + gradient.clone(); // [elements]
        let direction = if self.nesterov { gradient + velocity.clone() * self.momentum } else { velocity.clone() };
        (weight - direction * at.rate, vec![velocity])
    }
}
