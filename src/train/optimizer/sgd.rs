//! Stochastic gradient descent with momentum, as PyTorch defines it (dampening 0).
use burn::tensor::Tensor;

use super::{Update, UpdateRule};
use crate::train::SgdSettings;

/// g ← ∇ + λw; v ← μv + g; w ← w − η·v, or w − η(g + μv) in Nesterov's form.
///
/// The rate stays outside of the buffer (Sutskever et al. 2013 have it inside).
#[derive(Debug)]
pub struct Sgd(pub SgdSettings);

impl UpdateRule for Sgd {
    fn moments(&self) -> &'static [&'static str] {
        if self.0.momentum == 0.0 { &[] } else { &["momentum"] }
    }

    fn update(
        &self,
        at: Update,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        moments: Vec<Tensor<1>>,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let Self(settings) = self;
        let decay = if at.decays { settings.weight_decay } else { 0.0 };
        let gradient = if decay == 0.0 { gradient } else { gradient + weight.clone() * decay };
        let Some(velocity) = moments.into_iter().next() else {
            return (weight - gradient * at.rate, Vec::new());
        };
        let velocity = velocity * settings.momentum + gradient.clone(); // [elements]
        let direction =
            if settings.nesterov { gradient + velocity.clone() * settings.momentum } else { velocity.clone() };
        (weight - direction * at.rate, vec![velocity])
    }
}
