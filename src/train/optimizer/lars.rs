//! Layer-wise adaptive rate scaling (You et al., arXiv:1708.03888) as google-research/simclr defines it.
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Update, UpdateRule};
use crate::train::clip::norm;

/// `optimizer.lars`
///
/// g ← ∇ + λw; r = η‖w‖/‖g‖ where both norms are positive, else 1; v ← μv + rate·r·g; w ← w − v.
///
/// The rate is inside of the buffer, unlike in PyTorch's and NVIDIA's variants: under a warm-up they differ. Vectors
/// (biases, norms) are excluded from both decay and adaptation: r = 1, which is plain momentum at the full rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LarsSettings {
    /// Learning rate before scaling; default .075 (square root scaling), .3 under linear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Momentum.
    pub momentum: f64,
    /// Added to the gradient, not to biases and norms.
    pub weight_decay: f64,
    /// η.
    pub trust_coefficient: f64,
}
impl Default for LarsSettings {
    fn default() -> Self {
        Self { rate: None, momentum: 0.9, weight_decay: 1e-6, trust_coefficient: 1e-3 }
    }
}

impl UpdateRule for LarsSettings {
    fn moments(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn update(
        &self,
        at: Update,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        moments: Vec<Tensor<1>>,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let velocity = moments.into_iter().next().unwrap_or_else(|| gradient.zeros_like());
        let decay = if at.decays { self.weight_decay } else { 0.0 };
        let gradient = if decay == 0.0 { gradient } else { gradient + weight.clone() * decay };
        let scaled = if at.is_matrix {
            let weight_norm = norm(&weight, at.rows); // [1]
            let gradient_norm = norm(&gradient, at.rows); // [1]
            let either_zero = weight_norm.clone().equal_elem(0.0).bool_or(gradient_norm.clone().equal_elem(0.0));
            // Stays on the device: reading two norms per layer would stall a GPU sixty times a step.
            let ratio = (weight_norm * self.trust_coefficient / gradient_norm).mask_fill(either_zero, 1.0);
            gradient * (ratio * at.rate) // [elements]
        } else {
            gradient * at.rate
        };
        let velocity = velocity * self.momentum + scaled; // [elements]
        (weight - velocity.clone(), vec![velocity])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn tensor(values: Vec<f32>) -> Tensor<1> {
        let elements = values.len();
        Tensor::from_data(TensorData::new(values, [elements]), &Device::flex())
    }

    const AT: Update = Update { rate: 0.5, step: 1, rows: 1, decays: true, is_matrix: true };

    #[test]
    fn a_tensor_of_zeros_moves_by_the_plain_rate() {
        let lars = LarsSettings::default();
        let (weight, _) = lars.update(AT, tensor(vec![0.0; 4]), tensor(vec![0.5; 4]), vec![tensor(vec![0.0; 4])]);
        assert_eq!(weight.into_data().as_slice::<f32>().unwrap(), [-0.25; 4]);
    }

    #[test]
    fn a_gradient_of_zeros_leaves_the_weight_finite() {
        let lars = LarsSettings { weight_decay: 0.0, ..LarsSettings::default() };
        let (weight, _) = lars.update(AT, tensor(vec![2.0; 4]), tensor(vec![0.0; 4]), vec![tensor(vec![0.0; 4])]);
        assert_eq!(weight.into_data().as_slice::<f32>().unwrap(), [2.0; 4]);
    }

    #[test]
    fn a_step_over_four_million_elements_has_the_same_bits_each_time() {
        let side = 2_048;
        let values = |seed: u64| {
            let mut draws = crate::seed::draws(seed, "lars bits", &[]);
            tensor((0..side * side).map(|_| draws.next_u32() as f32 / u32::MAX as f32 - 0.5).collect())
        };
        let (weight, gradient, velocity) = (values(0), values(1), values(2));
        let lars = LarsSettings { weight_decay: 1e-4, ..LarsSettings::default() };
        let at = Update { rows: side, ..AT };
        let digest = || {
            let (weight, moments) = lars.update(at, weight.clone(), gradient.clone(), vec![velocity.clone()]);
            let mut hash = blake3::Hasher::new();
            hash.update(weight.into_data().as_bytes());
            hash.update(moments[0].to_data().as_bytes());
            hash.finalize()
        };
        let first = digest();
        for repeat in 1..50 {
            assert_eq!(digest(), first, "repeat {repeat}");
        }
    }
}
