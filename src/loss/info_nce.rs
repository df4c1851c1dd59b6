//! InfoNCE over steps into the future, the loss of CPC (van den Oord et al. 2018, arXiv 1807.03748).
//!
//! With z the encodings of frames, c_t the context of the frames up to t and p_{k,t} = W_k c_t, the score of frame j of
//! any sequence is f = z_jᵀ p_{k,t}; ℓ_k(t) = LSE over {t + k} ∪ negatives of f − f(t + k). L_k is the mean over all
//! sequences and all t < T − k, and the loss the mean of L_1 … L_K (others add them up).
use burn::tensor::{DType, Int, Tensor};

use super::negatives::{Chance, Negatives, Sequences, itself, sampled};
use crate::error::{Error, Result, Stage};

/// InfoNCE with one choice of negatives.
///
/// Under all but `batch_same_time` and `within_sequence` the scores of one k are a matrix of (sequences · frames)²
/// floats, of which autodiff keeps several: with 64 sequences of 128 frames 268 MB each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InfoNce {
    negatives: Negatives,
}

/// The loss of one step k.
#[derive(Debug, Clone)]
pub struct StepLoss {
    /// L_k, `[1]`.
    pub loss: Tensor<1>,
    /// Share of anchors whose true future scores highest, ties shared out among the tied; outside autodiff, `[1]`.
    pub accuracy: Tensor<1>,
    /// What guessing gives.
    pub chance: Chance,
}

/// The loss of steps 1 … K.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// Mean of L_1 … L_K, `[1]`.
    pub loss: Tensor<1>,
    /// L_1 … L_K outside autodiff, `[steps]`.
    pub step_losses: Tensor<1>,
    /// Accuracy of steps 1 … K outside autodiff, `[steps]`.
    pub step_accuracies: Tensor<1>,
    /// What guessing gives at each step.
    pub chance: Vec<Chance>,
}

impl InfoNce {
    /// With these negatives.
    pub fn new(negatives: Negatives) -> Self {
        Self { negatives }
    }

    /// ln(1 + N) − L, a lower bound of the mutual information of c_t and the future in nats, where it is one.
    ///
    /// Of a trained model's loss on held-out sequences that are independent of each other. It cannot exceed ln(1 + N).
    pub fn information_nats(&self, chance: &Chance, loss: f64, sequences: &Sequences<'_>) -> Option<f64> {
        self.bounds_information(sequences).then_some(chance.loss - loss)
    }

    /// Whether [`Self::information_nats`] gives a bound.
    pub fn bounds_information(&self, sequences: &Sequences<'_>) -> bool {
        self.negatives.bounds_information(sequences)
    }

    /// All steps. `predictions[i]` is W_k c_t of k = i + 1 for t < T − k.
    ///
    /// # Shapes
    /// `encodings`: `[sequences, frames, width]`; `predictions[i]`: `[sequences, frames − i − 1, width]`.
    ///
    /// # Errors
    /// As of [`Self::step`], or there is no step.
    pub fn forward(
        &self,
        encodings: &Tensor<3>,
        predictions: Vec<Tensor<3>>,
        sequences: &Sequences<'_>,
    ) -> Result<Predicted> {
        if predictions.is_empty() {
            return Err(Error::at(Stage::Model, "InfoNCE", "there is no step to predict; take at least 1"));
        }
        let (mut losses, mut accuracies, mut chance) = (vec![], vec![], vec![]);
        for (index, predictions) in predictions.into_iter().enumerate() {
            let step = self.step(index + 1, encodings.clone(), predictions, sequences)?;
            losses.push(step.loss);
            accuracies.push(step.accuracy);
            chance.push(step.chance);
        }
        let losses = Tensor::cat(losses, 0); // [steps]
        Ok(Predicted {
            loss: losses.clone().mean_dim(0),
            step_losses: losses.without_autodiff(),
            step_accuracies: Tensor::cat(accuracies, 0),
            chance,
        })
    }

    /// One step, k = 0 included: the frame itself is then the future, which any critic should find.
    ///
    /// # Shapes
    /// `encodings`: `[sequences, frames, width]`; `predictions`: `[sequences, frames − k, width]`.
    ///
    /// # Errors
    /// Shapes do not fit, k leaves no frame, or an anchor has no negative.
    pub fn step(
        &self,
        k: usize,
        encodings: Tensor<3>,
        predictions: Tensor<3>,
        sequences: &Sequences<'_>,
    ) -> Result<StepLoss> {
        let [count, all_frames, width] = encodings.dims();
        let frames = all_frames.saturating_sub(k);
        if frames == 0 || predictions.dims() != [count, frames, width] {
            let reason = format!(
                "predictions of shape {:?} do not fit encodings of shape {:?} {k} steps ahead; windows need more than {k} \
                 frames",
                predictions.dims(),
                encodings.dims()
            );
            return Err(Error::at(Stage::Model, "InfoNCE", reason));
        }
        let chance = self.negatives.chance(count, frames, sequences)?;
        let device = encodings.device();
        let futures = encodings.cast(DType::F32).narrow(1, k, frames); // [sequences, frames, width]
        let predictions = predictions.cast(DType::F32);
        let rows = count * frames;
        // Blocks of rows that are each other's candidates; row i's positive is candidate i.
        let (anchors, candidates) = match self.negatives {
            Negatives::BatchSameTime => (predictions.swap_dims(0, 1), futures.swap_dims(0, 1)), // [frames, sequences, width]
            Negatives::WithinSequence => (predictions, futures), // [sequences, frames, width]
            _ => (predictions.reshape([1, rows, width]), futures.reshape([1, rows, width])), // [1, rows, width]
        };
        let [blocks, rows, _] = anchors.dims();
        let scores = anchors.matmul(candidates.transpose()); // [blocks, rows, rows]
        let diagonal = Tensor::<1, Int>::arange(0..rows as i64, &device).reshape([1, rows, 1]);
        // From the same product as the others, so that equal candidates tie exactly.
        let positive = scores.clone().gather(2, diagonal.expand([blocks, rows, 1])); // [blocks, rows, 1]
        let above = if let Negatives::Sampled(number) = self.negatives {
            scores.gather(2, sampled([count, frames], number, k, sequences, &device)) - positive // [1, rows, number]
        } else {
            let excluded = match self.negatives.excluded(count, frames, sequences, &device)? {
                Some(others) => others + itself(rows, &device),
                None => itself(rows, &device),
            };
            scores - positive + excluded // [blocks, rows, rows]
        };
        let accuracy = accuracy(above.clone().without_autodiff());
        let loss = rows_losses(above).mean_dim(1).mean_dim(0).reshape([1]);
        Ok(StepLoss { loss, accuracy, chance })
    }
}

/// LSE − positive of each row from how far its negatives are above its positive.
///
/// Near convergence the difference would cancel: log1p over what is above does not, and neither does its gradient, in
/// which the positive stands in every exponent. Where the positive is not the maximum, exponents are shifted by the
/// excess; as a function the loss does not depend on the shift, so the shift takes no part in the gradient.
///
/// # Shapes
/// `[blocks, rows, candidates]` to `[blocks, rows, 1]`.
fn rows_losses(above: Tensor<3>) -> Tensor<3> {
    let shift = above.clone().detach().max_dim(2).clamp_min(0.0); // [blocks, rows, 1]
    let negatives = (above - shift.clone()).exp().sum_dim(2); // [blocks, rows, 1]
    (negatives + (shift.clone().neg().exp() - 1.0)).log1p() + shift
}

/// Share of rows whose negatives all lie below the positive; a tie with n of them counts 1 / (1 + n), as guessing would.
fn accuracy(above: Tensor<3>) -> Tensor<1> {
    let tied = above.clone().equal_scalar(0.0).float().sum_dim(2); // [blocks, rows, 1]
    let not_beaten = above.max_dim(2).lower_equal_scalar(0.0).float(); // [blocks, rows, 1]
    (not_beaten / (tied + 1.0)).mean_dim(1).mean_dim(0).reshape([1])
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read single values as they go")]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::super::negatives::tests::{POLICIES, by_definition};
    use super::*;
    use crate::seed;

    const GROUPS: [u32; 4] = [1, 2, 1, 2];
    const SEQUENCES: Sequences<'static> = Sequences { sequences: None, groups: Some(&GROUPS), seed: 4, batch: 9 };
    /// The second and the last window are of one series.
    const TOGETHER: Sequences<'static> = Sequences { sequences: Some(&[5, 6, 7, 6]), ..SEQUENCES };

    fn tensor(values: &[f64], shape: [usize; 3], device: &Device) -> Tensor<3> {
        let floats: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        Tensor::from_data(TensorData::new(floats, shape), device)
    }

    fn random(count: usize, name: u64) -> Vec<f64> {
        let mut draws = seed::draws(3, "test of InfoNCE", &[name]);
        (0..count).map(|_| f64::from(draws.normal() as f32)).collect()
    }

    fn floats<const D: usize>(of: Tensor<D>) -> Vec<f32> {
        of.into_data().try_into_vec::<f32>().expect("f32")
    }

    /// (L_k, accuracy) by the definition, term by term, in double precision.
    fn naive(
        negatives: Negatives,
        z: &[f64],
        p: &[f64],
        [count, frames, width, k]: [usize; 4],
        sequences: &Sequences<'_>,
    ) -> (f64, f64) {
        let predicted = frames - k;
        let (mut loss, mut hits) = (0.0, 0.0);
        for b in 0..count {
            for t in 0..predicted {
                let score = |(b2, t2): (usize, usize)| -> f64 {
                    let z = &z[(b2 * frames + t2 + k) * width..][..width];
                    z.iter().zip(&p[(b * predicted + t) * width..][..width]).map(|(z, p)| z * p).sum()
                };
                let positive = score((b, t));
                let others = by_definition(negatives, (b, t), [count, predicted, k], sequences);
                let others: Vec<f64> = others.into_iter().map(score).collect();
                loss += others.iter().map(|s| (s - positive).exp()).sum::<f64>().ln_1p();
                hits += f64::from(u8::from(others.iter().all(|&s| s < positive)));
            }
        }
        let anchors = (count * predicted) as f64;
        (loss / anchors, hits / anchors)
    }

    #[test]
    fn every_policy_equals_its_definition() {
        let device = Device::flex();
        for (negatives, sequences) in POLICIES.into_iter().flat_map(|n| [(n, SEQUENCES), (n, TOGETHER)]) {
            for (frames, width, k) in [(5, 3, 1), (6, 8, 3), (4, 2, 0)] {
                let (z, p) = (random(4 * frames * width, 1), random(4 * (frames - k) * width, 2));
                let step = InfoNce::new(negatives)
                    .step(
                        k,
                        tensor(&z, [4, frames, width], &device),
                        tensor(&p, [4, frames - k, width], &device),
                        &sequences,
                    )
                    .expect("a loss");
                let (loss, accuracy) = naive(negatives, &z, &p, [4, frames, width, k], &sequences);
                let (ours, hits) = (f64::from(floats(step.loss)[0]), f64::from(floats(step.accuracy)[0]));
                assert!((ours - loss).abs() < 2e-6 * loss.max(1.0), "{negatives:?} k = {k}: {ours} {loss}");
                assert!((hits - accuracy).abs() < 1e-6, "{negatives:?} k = {k}: {hits} {accuracy}");
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences_of_the_definition() {
        let device = Device::flex().autodiff();
        let (frames, width, k, change) = (4, 3, 1, 1e-5);
        let (z, p) = (random(4 * frames * width, 5), random(4 * (frames - k) * width, 6));
        let shape = [4, frames, width, k];
        for negatives in POLICIES {
            let x = tensor(&z, [4, frames, width], &device).require_grad();
            let y = tensor(&p, [4, frames - k, width], &device).require_grad();
            let step = InfoNce::new(negatives).step(k, x.clone(), y.clone(), &SEQUENCES).expect("a loss");
            let gradients = step.loss.backward();
            let of = |tensor: &Tensor<3>| floats(tensor.grad(&gradients).expect("tracked"));
            let slope = |values: &[f64], index: usize, of: &dyn Fn(&[f64]) -> f64| {
                let mut moved = values.to_vec();
                moved[index] = values[index] + change;
                let up = of(&moved);
                moved[index] = values[index] - change;
                (up - of(&moved)) / (2.0 * change)
            };
            for (index, ours) in of(&x).iter().enumerate() {
                let expected = slope(&z, index, &|z| naive(negatives, z, &p, shape, &SEQUENCES).0);
                assert!((f64::from(*ours) - expected).abs() < 1e-6, "{negatives:?} z {index}: {ours} {expected}");
            }
            for (index, ours) in of(&y).iter().enumerate() {
                let expected = slope(&p, index, &|p| naive(negatives, &z, p, shape, &SEQUENCES).0);
                assert!((f64::from(*ours) - expected).abs() < 1e-6, "{negatives:?} p {index}: {ours} {expected}");
            }
        }
    }

    #[test]
    fn identical_encodings_give_exactly_chance() {
        let device = Device::flex();
        let (frames, width) = (5, 3);
        let z = [0.3, -0.4, 1.2].repeat(4 * frames);
        let p = random(4 * (frames - 2) * width, 8);
        for negatives in POLICIES {
            let step = InfoNce::new(negatives)
                .step(
                    2,
                    tensor(&z, [4, frames, width], &device),
                    tensor(&p, [4, frames - 2, width], &device),
                    &SEQUENCES,
                )
                .expect("a loss");
            let (loss, accuracy) = (f64::from(floats(step.loss)[0]), f64::from(floats(step.accuracy)[0]));
            assert!((loss - step.chance.loss).abs() < 1e-6, "{negatives:?}: {loss} {:?}", step.chance);
            assert!((accuracy - step.chance.accuracy).abs() < 1e-6, "{negatives:?}: {accuracy} {:?}", step.chance);
        }
    }

    #[test]
    fn loss_and_gradient_keep_their_digits_near_convergence_and_far_from_it() {
        let device = Device::flex().autodiff();
        let (frames, width) = (1, 2);
        for scale in [18.0, -300.0, 3000.0, -3000.0] {
            // Two sequences at right angles, each predicted in its own direction times `scale`.
            let z = [1.0, 0.0, 0.0, 1.0];
            let p: Vec<f64> = z.iter().map(|v| v * scale).collect();
            let x = tensor(&z, [2, frames, width], &device);
            let y = tensor(&p, [2, frames, width], &device).require_grad();
            let step = InfoNce::new(Negatives::BatchSameTime).step(0, x, y.clone(), &SEQUENCES).expect("a loss");
            let gradients = step.loss.backward();
            let loss = f64::from(floats(step.loss.inner())[0]);
            let expected = if scale > 0.0 { (-scale).exp().ln_1p() } else { -scale };
            assert!((loss - expected).abs() <= 1e-5 * expected.max(1e-30), "{loss} {expected}");
            let slope = f64::from(floats(y.grad(&gradients).expect("tracked"))[0]);
            let expected = -0.5 / (1.0 + scale.exp());
            assert!((slope - expected).abs() <= 1e-5 * expected.abs().max(1e-30), "{slope} {expected}");
        }
    }

    #[test]
    fn all_steps_are_averaged_and_reported_one_by_one() {
        let device = Device::flex().autodiff();
        let (frames, width) = (6, 3);
        let z = tensor(&random(4 * frames * width, 1), [4, frames, width], &device).require_grad();
        let predictions: Vec<Tensor<3>> = (1..=3)
            .map(|k| tensor(&random(4 * (frames - k) * width, k as u64), [4, frames - k, width], &device))
            .collect();
        let loss = InfoNce::new(Negatives::BatchAllTime);
        let all = loss.forward(&z, predictions.clone(), &SEQUENCES).expect("a loss");
        let each = floats(all.step_losses.clone());
        assert_eq!((each.len(), floats(all.step_accuracies.clone()).len(), all.chance.len()), (3, 3, 3));
        assert!(!all.step_losses.is_autodiff() && !all.step_accuracies.is_autodiff());
        for (index, prediction) in predictions.into_iter().enumerate() {
            let step = loss.step(index + 1, z.clone(), prediction, &SEQUENCES).expect("a loss");
            assert_eq!(floats(step.loss.inner())[0], each[index]);
        }
        let mean = floats(all.loss.inner())[0];
        assert!((mean - each.iter().sum::<f32>() / 3.0).abs() < 1e-6);
        assert!(
            (all.chance[0].loss - 20.0_f64.ln()).abs() < 1e-12 && (all.chance[2].loss - 12.0_f64.ln()).abs() < 1e-12
        );
    }

    #[test]
    fn a_bound_is_given_only_where_negatives_are_independent() {
        // One fair bit per sequence, constant over its frames, known to the context: .693 nats. Two sequences.
        let device = Device::flex();
        let (frames, trials) = (32, 64);
        let mut draws = seed::draws(1, "bits", &[]);
        let estimate = |negatives: Negatives, draws: &mut seed::Draws| {
            let total: f64 = (0..trials)
                .map(|_| {
                    let bits: Vec<f64> = (0..2).map(|_| if draws.chance(0.5) { 1.0 } else { -1.0 }).collect();
                    let z: Vec<f64> = (0..2 * frames).map(|i| bits[i / frames]).collect();
                    let p: Vec<f64> = z.iter().map(|v| 20.0 * v).collect();
                    let shape = [2, frames, 1];
                    let step = InfoNce::new(negatives)
                        .step(0, tensor(&z, shape, &device), tensor(&p, shape, &device), &SEQUENCES)
                        .expect("a loss");
                    step.chance.loss - f64::from(step.loss.into_scalar::<f32>())
                })
                .sum();
            total / f64::from(trials)
        };
        assert!(estimate(Negatives::BatchSameTime, &mut draws) < 2.0_f64.ln());
        assert!(estimate(Negatives::ExcludeCurrentSequence, &mut draws) > 1.2 * 2.0_f64.ln());
        let chance = Chance { accuracy: 0.5, loss: 2.0_f64.ln() };
        for negatives in POLICIES {
            let bound = |sequences| InfoNce::new(negatives).information_nats(&chance, 0.5, sequences);
            assert_eq!(bound(&SEQUENCES).is_some(), negatives == Negatives::BatchSameTime, "{negatives:?}");
            assert!(bound(&TOGETHER).is_none());
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let of = |frames: usize| Tensor::<3>::zeros([4, frames, 2], &device);
        let loss = InfoNce::new(Negatives::BatchSameTime);
        assert!(loss.step(1, of(4), of(4), &SEQUENCES).is_err());
        assert!(loss.step(4, of(4), of(0), &SEQUENCES).is_err());
        assert!(loss.step(5, of(4), of(4), &SEQUENCES).is_err());
        assert!(loss.forward(&of(4), vec![], &SEQUENCES).is_err());
        assert!(loss.forward(&of(4), vec![of(3), of(2)], &SEQUENCES).is_ok());
    }
}
