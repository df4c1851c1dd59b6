//! What a batch of pairs costs two towers, by either loss, with what there is to report of it.
//!
//! This is where a method meets its loss: embeddings, scale, bias and what equal images and texts are known by go in. How the
//! loss is computed, at once or in tiles, is decided behind it.
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::duplicates::{DuplicatePolicy, Duplicates};
use super::l2_normalize;
use super::sigmoid::sigmoid_with;
use super::symmetric::symmetric_with;
use crate::error::{Error, Result, Stage};

/// Rows that are ranked at once, so that ranking needs no matrix of all pairs.
const RANKED_ROWS: usize = 1_024;

/// `loss`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TowerLoss {
    /// Which text of the batch is the image's, and the other way round (Radford et al. 2021).
    #[default]
    Softmax,
    /// Of every image and text whether they belong together (Zhai et al. 2023), with a learned bias.
    Sigmoid,
}

/// A loss and what there is to report of it.
#[derive(Debug, Clone)]
pub struct Compared {
    /// `[1]`
    pub loss: Tensor<1>,
    /// Images, then texts, at unit length and cut off from the graph: `[pairs, width]`.
    pub embeddings: [Tensor<2>; 2],
    /// Share of images whose own text is the nearest of the batch; ties count by their parts. Outside autodiff, `[1]`.
    pub image_to_text_accuracy: Tensor<1>,
    /// Share of texts whose own image is the nearest of the batch.
    pub text_to_image_accuracy: Tensor<1>,
}

impl TowerLoss {
    /// Whether it has a learned bias.
    pub fn has_bias(self) -> bool {
        self == Self::Sigmoid
    }

    /// Of embeddings of any length and the logarithm of the scale; `logit_bias` is there where [`Self::has_bias`].
    ///
    /// With `tile_rows` no matrix of all pairs is held.
    ///
    /// # Shapes
    /// `images`, `texts`: `[pairs, width]`, row i of both from the same pair; `logit_scale`, `logit_bias`: `[1]`.
    ///
    /// # Errors
    /// Other shapes; too few pairs; a bias that is missing; identities of another number of pairs.
    pub fn forward(
        self,
        [images, texts]: [Tensor<2>; 2],
        logit_scale: Tensor<1>,
        logit_bias: Option<Tensor<1>>,
        duplicates: &Duplicates,
        tile_rows: Option<usize>,
    ) -> Result<Compared> {
        let embeddings = [images.clone(), texts.clone()].map(|rows| l2_normalize(rows.detach()));
        let loss = match self {
            Self::Softmax => symmetric_with(images, texts, logit_scale, duplicates, tile_rows)?.loss,
            Self::Sigmoid => {
                let missing = || Error::at(Stage::Model, "logit_bias", "is missing; SigLIP's loss has one");
                let bias = logit_bias.ok_or_else(missing)?;
                sigmoid_with(images, texts, [logit_scale, bias], duplicates, tile_rows)?
            }
        };
        let [images, texts] = embeddings.clone().map(Tensor::without_autodiff);
        Ok(Compared {
            loss,
            embeddings,
            image_to_text_accuracy: accuracy(&images, &texts),
            text_to_image_accuracy: accuracy(&texts, &images),
        })
    }

    /// The loss of embeddings that say nothing: all logits are equal, and with a bias at their best value.
    pub fn no_signal(self, duplicates: &Duplicates, pairs: usize) -> f64 {
        let others = duplicates.others(pairs);
        let (count, in_common) = (pairs as f64, others.iter().sum::<usize>() as f64);
        match (self, duplicates.policy) {
            (Self::Softmax, DuplicatePolicy::Mask) => {
                others.iter().map(|&others| libm::log(count - others as f64)).sum::<f64>() / count
            }
            (Self::Softmax, _) => libm::log(count),
            (Self::Sigmoid, _) => {
                let (yes, all) = match duplicates.policy {
                    DuplicatePolicy::SoftTargets => (count + in_common, count * count),
                    DuplicatePolicy::Keep | DuplicatePolicy::Mask => (count, count * count - in_common),
                };
                let surprise = |part: f64| if part > 0.0 { -part * libm::log(part / all) } else { 0.0 };
                (surprise(yes) + surprise(all - yes)) / count
            }
        }
    }
}

/// Share of `rows` that are nearest to the row of the same number among `others`, all of unit length; of k rows that are
/// nearest together each counts 1/k. `[pairs, width]` twice to `[1]`.
fn accuracy(rows: &Tensor<2>, others: &Tensor<2>) -> Tensor<1> {
    let pairs = rows.dims()[0];
    let device = rows.device();
    let columns = Tensor::<1, Int>::arange(0..pairs as i64, &device).reshape([1, pairs]);
    let hits = (0..pairs).step_by(RANKED_ROWS).map(|first| {
        let count = RANKED_ROWS.min(pairs - first);
        let cosines = rows.clone().narrow(0, first, count).matmul(others.clone().transpose()); // [count, pairs]
        let numbers = Tensor::<1, Int>::arange(first as i64..(first + count) as i64, &device).reshape([count, 1]);
        let own = (columns.clone() - numbers).equal_elem(0).float(); // [count, pairs]
        // From the same product as the others, so that equal rows are equal to the last bit.
        let above = cosines.clone() - (cosines * own).sum_dim(1); // [count, pairs]
        let is_nearest = above.clone().greater_elem(0.0).float().sum_dim(1).equal_elem(0.0).float(); // [count, 1]
        let ties = above.equal_elem(0.0).float().sum_dim(1).clamp_min(1.0); // [count, 1]
        is_nearest / ties
    });
    Tensor::cat(hits.collect(), 0).mean_dim(0).squeeze_dim(1)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read single values as they go")]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::seed;

    fn rows(values: &[f64], width: usize, device: &Device) -> Tensor<2> {
        let floats: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        Tensor::from_data(TensorData::new(floats, [values.len() / width, width]), device)
    }

    fn random(count: usize, name: u64) -> Vec<f64> {
        let mut draws = seed::draws(3, "test of both towers", &[name]);
        (0..count).map(|_| draws.normal()).collect()
    }

    fn unit(values: &[f64], width: usize) -> Vec<Vec<f64>> {
        let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        values.chunks(width).map(|row| row.iter().map(|x| x / norm(row)).collect()).collect()
    }

    const IMAGES: [u64; 6] = [0, 1, 2, 0, 4, 5];
    const TEXTS: [u64; 6] = [0, 1, 1, 3, 4, 0];

    fn of(policy: DuplicatePolicy) -> Duplicates {
        Duplicates::new(policy, [Some(&IMAGES), Some(&TEXTS)]).expect("as many")
    }

    fn in_common(i: usize, j: usize) -> bool {
        i != j && (IMAGES[i] == IMAGES[j] || TEXTS[i] == TEXTS[j])
    }

    /// The definition, term by term, in double precision.
    fn naive(loss: TowerLoss, duplicates: DuplicatePolicy, a: &[f64], b: &[f64], scale: f64, bias: f64) -> f64 {
        let (a, b) = (unit(a, 3), unit(b, 3));
        let n = a.len();
        let logit = |i: usize, j: usize| scale * a[i].iter().zip(&b[j]).map(|(x, y)| x * y).sum::<f64>();
        let is_seen = |i: usize, j: usize| !(duplicates == DuplicatePolicy::Mask && in_common(i, j));
        let is_right = |i: usize, j: usize| i == j || (duplicates == DuplicatePolicy::SoftTargets && in_common(i, j));
        let cross_entropy = |logit: &dyn Fn(usize, usize) -> f64, i: usize| {
            let sum: f64 = (0..n).filter(|&j| is_seen(i, j)).map(|j| logit(i, j).exp()).sum();
            let right: Vec<usize> = (0..n).filter(|&j| is_right(i, j)).collect();
            sum.ln() - right.iter().map(|&j| logit(i, j)).sum::<f64>() / right.len() as f64
        };
        let all = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|&(i, j)| is_seen(i, j));
        match loss {
            TowerLoss::Softmax => {
                let turned = |i: usize, j: usize| logit(j, i);
                (0..n).map(|i| cross_entropy(&logit, i) + cross_entropy(&turned, i)).sum::<f64>() / (2 * n) as f64
            }
            TowerLoss::Sigmoid => {
                let sign = |i, j| if is_right(i, j) { 1.0 } else { -1.0 };
                all.map(|(i, j)| (-sign(i, j) * (logit(i, j) + bias)).exp().ln_1p()).sum::<f64>() / n as f64
            }
        }
    }

    #[test]
    fn every_loss_and_policy_equals_its_definition_with_gradients() {
        let device = Device::flex().autodiff();
        let (a, b, scale, bias) = (random(18, 1), random(18, 2), 4.0_f64, -1.5);
        for loss in [TowerLoss::Softmax, TowerLoss::Sigmoid] {
            for duplicates in [DuplicatePolicy::Keep, DuplicatePolicy::Mask, DuplicatePolicy::SoftTargets] {
                let (x, y) = (rows(&a, 3, &device).require_grad(), rows(&b, 3, &device).require_grad());
                let log_scale = Tensor::<1>::from_data([scale.ln() as f32], &device).require_grad();
                let bias_tensor = Tensor::<1>::from_data([bias as f32], &device);
                let found = loss
                    .forward([x.clone(), y.clone()], log_scale.clone(), Some(bias_tensor), &of(duplicates), None)
                    .expect("pairs");
                let gradients = found.loss.backward();
                let value = f64::from(found.loss.inner().into_scalar::<f32>());
                let expected = naive(loss, duplicates, &a, &b, scale, bias);
                assert!((value - expected).abs() < 1e-5 * expected, "{loss:?} {duplicates:?}: {value} {expected}");
                let h = 1e-5;
                let gradient: Vec<f32> =
                    x.grad(&gradients).expect("tracked").into_data().try_into_vec::<f32>().expect("f32");
                for at in 0..18 {
                    let moved = |by: f64| {
                        let mut a = a.clone();
                        a[at] += by;
                        naive(loss, duplicates, &a, &b, scale, bias)
                    };
                    let slope = (moved(h) - moved(-h)) / (2.0 * h);
                    assert!((f64::from(gradient[at]) - slope).abs() < 2e-5, "{loss:?} {duplicates:?} {at}: {slope}");
                }
                let of_scale = |by: f64| naive(loss, duplicates, &a, &b, scale * by.exp(), bias);
                let slope = (of_scale(h) - of_scale(-h)) / (2.0 * h);
                let found = f64::from(log_scale.grad(&gradients).expect("tracked").into_scalar::<f32>());
                assert!((found - slope).abs() < 2e-5, "{loss:?} {duplicates:?} scale: {found} {slope}");
            }
        }
    }

    #[test]
    fn embeddings_that_say_nothing_cost_what_is_declared() {
        let device = Device::flex();
        let same = rows(&[0.3, -0.4, 1.2].repeat(6), 3, &device);
        for duplicates in [DuplicatePolicy::Keep, DuplicatePolicy::Mask, DuplicatePolicy::SoftTargets] {
            let declared = TowerLoss::Softmax.no_signal(&of(duplicates), 6);
            let scale = Tensor::<1>::from_data([1.0_f32], &device);
            let found = TowerLoss::Softmax
                .forward([same.clone(), same.clone()], scale, None, &of(duplicates), None)
                .expect("six");
            let value = f64::from(found.loss.into_scalar::<f32>());
            assert!((value - declared).abs() < 1e-5, "{duplicates:?}: {value} {declared}");
            // Every text is as near as every other.
            assert!((found.image_to_text_accuracy.into_scalar::<f32>() - 1.0 / 6.0).abs() < 1e-6);
            let declared = TowerLoss::Sigmoid.no_signal(&of(duplicates), 6);
            let constant = |logit: f64| {
                let bias = Tensor::<1>::from_data([(logit - 1.0) as f32], &device);
                let scale = Tensor::<1>::from_data([0.0_f32], &device);
                let both = [same.clone(), same.clone()];
                let found = TowerLoss::Sigmoid.forward(both, scale, Some(bias), &of(duplicates), None).expect("six");
                f64::from(found.loss.into_scalar::<f32>())
            };
            let best = (-40..40).map(|at| constant(f64::from(at) / 10.0)).fold(f64::INFINITY, f64::min);
            assert!(best >= declared - 1e-5 && best < declared + 0.01, "{duplicates:?}: {best} {declared}");
        }
        let without_bias = TowerLoss::Sigmoid.forward(
            [same.clone(), same],
            Tensor::zeros([1], &device),
            None,
            &Duplicates::unknown(),
            None,
        );
        assert!(without_bias.is_err());
    }

    #[test]
    fn accuracies_are_those_of_a_batch_that_is_ranked_in_parts() {
        let device = Device::flex();
        let (a, b) = (random(3 * 1_500, 5), random(3 * 1_500, 6));
        let found = accuracy(&l2_normalize(rows(&a, 3, &device)), &l2_normalize(rows(&b, 3, &device)));
        let (a, b) = (unit(&a, 3), unit(&b, 3));
        let cosine = |i: usize, j: usize| a[i].iter().zip(&b[j]).map(|(x, y)| x * y).sum::<f64>();
        let hits = (0..1_500).filter(|&i| (0..1_500).all(|j| cosine(i, j) <= cosine(i, i))).count();
        let expected = hits as f64 / 1_500.0;
        assert!((f64::from(found.into_scalar::<f32>()) - expected).abs() < 2e-3, "{expected}");
        let same = l2_normalize(rows(&random(30, 7), 3, &device));
        assert!((accuracy(&same, &same).into_scalar::<f32>() - 1.0).abs() < 1e-6);
    }
}
