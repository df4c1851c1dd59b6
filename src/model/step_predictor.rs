//! W_k: from the context of a frame to what its k-th successor's encoding is compared with.
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;

use super::init::Initializer;

/// One linear map without bias per step ahead.
#[derive(Module, Debug)]
pub struct StepPredictor {
    steps: Vec<Linear>,
}

impl StepPredictor {
    /// `count` maps below `path`. Scores have unit deviation where encodings and contexts have unit mean squares; see
    /// [`Self::calibrated`].
    pub fn new(path: &str, context_width: usize, encoding_width: usize, count: usize, init: &Initializer<'_>) -> Self {
        let deviation = 1.0 / ((context_width * encoding_width) as f64).sqrt();
        let steps = (0..count)
            .map(|index| Linear {
                weight: init.normal(
                    &format!("{path}.steps.{index}.weight"),
                    [context_width, encoding_width],
                    deviation,
                ),
                bias: None,
            })
            .collect();
        Self { steps }
    }

    /// Steps ahead.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The same with every map scaled so that scores zᵀ W_k c of these tensors have a deviation of about 1: W's mean
    /// square becomes `1 / (d_z · d_c · E[z²] · E[c²])`.
    ///
    /// A sum over hundreds of columns with weights of size 1 would give first scores in the hundreds, a mean none at all.
    #[must_use]
    pub fn calibrated(self, encodings: Tensor<3>, contexts: Tensor<3>) -> Self {
        let wanted = 1.0 / (sum_of_squares(encodings) * sum_of_squares(contexts)).sqrt();
        let steps = self
            .steps
            .into_iter()
            .map(|linear| Linear {
                weight: linear.weight.map(|weight| {
                    let now = mean_square(weight.clone().without_autodiff().unsqueeze()).sqrt();
                    // A signal of zeros says nothing about scale.
                    let factor = if wanted.is_finite() && now > 0.0 { wanted / now } else { 1.0 };
                    let scaled = weight.clone().without_autodiff() * factor;
                    match weight.gradient_checkpointing_strategy() {
                        None => scaled,
                        Some(strategy) => scaled
                            .autodiff()
                            .with_gradient_checkpointing_strategy(strategy)
                            .set_require_grad(weight.is_require_grad()),
                    }
                }),
                bias: None,
            })
            .collect();
        Self { steps }
    }

    /// W_k c_t of every frame t that has a k-th successor, k from 1.
    ///
    /// # Shapes
    /// `[sequences, frames, context_width]` to `[sequences, frames − k, encoding_width]`.
    ///
    /// # Panics
    /// Where there are no more than k frames.
    pub fn forward(&self, contexts: &Tensor<3>) -> Vec<Tensor<3>> {
        let frames = contexts.dims()[1];
        let maps = self.steps.iter().enumerate();
        maps.map(|(index, linear)| linear.forward(contexts.clone().narrow(1, 0, frames - index - 1))).collect()
    }
}

fn mean_square(of: Tensor<3>) -> f64 {
    let mean = of.square().mean_dim(2).mean_dim(1).mean_dim(0);
    mean.into_data().iter::<f64>().next().unwrap_or(0.0)
}

/// Columns times their mean square, over all rows.
fn sum_of_squares(rows: Tensor<3>) -> f64 {
    rows.dims()[2] as f64 * mean_square(rows.without_autodiff())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::model::InitOptions;
    use crate::seed;

    #[test]
    fn calibrated_scores_have_unit_deviation_and_the_maps_stay_trainable() {
        let device = Device::flex().autodiff();
        let init = Initializer::new(InitOptions { seed: 1, compat_torch: false }, &device);
        let mut draws = seed::draws(1, "rows", &[]);
        let mut rows = |width: usize, scale: f64| {
            // Rectified, as encodings are.
            let values: Vec<f32> = (0..2 * 40 * width).map(|_| (scale * draws.normal()).max(0.0) as f32).collect();
            Tensor::<3>::from_data(TensorData::new(values, [2, 40, width]), &device)
        };
        let (z, c) = (rows(48, 7.0), rows(32, 0.2));
        let predictor = StepPredictor::new("predictor", 32, 48, 4, &init).calibrated(z.clone(), c.clone());
        let predictions = predictor.forward(&c);
        assert_eq!(predictions.iter().map(|p| p.dims()).collect::<Vec<_>>()[3], [2, 36, 48]);
        for (index, prediction) in predictions.into_iter().enumerate() {
            let scores = prediction.matmul(z.clone().transpose());
            let deviation = mean_square(scores.inner()).sqrt();
            assert!((0.5..2.0).contains(&deviation), "step {}: {deviation}", index + 1);
            assert!(predictor.steps[index].weight.val().is_require_grad());
        }
    }
}
