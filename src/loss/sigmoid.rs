//! SigLIP's loss (Zhai et al. 2023, arXiv 2303.15343).
//!
//! Over logits A = s I Tᵀ + b every image and text is a decision of its own, and the loss
//! (1/N) Σᵢ Σⱼ softplus(−zᵢⱼ Aᵢⱼ), with z = 1 on the diagonal and −1 elsewhere: summed over texts, mean over images.
use burn::tensor::Tensor;
use burn::tensor::activation;

use super::duplicates::{Duplicates, Relation};
use super::l2_normalize;
use super::tiles::{MASKED, Numbers, tiles, with_gradients};
use crate::error::{Error, Result, Stage};

/// Loss of embeddings of any length, the logarithm of the scale, and the bias.
///
/// # Shapes
/// `images`, `texts`: `[pairs, width]`, row i of both from the same pair; `logit_scale`, `logit_bias`: `[1]`; to `[1]`.
///
/// # Errors
/// Other shapes; no pairs.
pub fn sigmoid(
    images: Tensor<2>,
    texts: Tensor<2>,
    logit_scale: Tensor<1>,
    logit_bias: Tensor<1>,
) -> Result<Tensor<1>> {
    sigmoid_with(images, texts, [logit_scale, logit_bias], &Duplicates::unknown(), None)
}

/// [`sigmoid`], with what is known of equal items, and a few rows of logits at a time where `tile_rows` says how many.
///
/// In tiles value and gradients are the same up to rounding, memory grows with `tile_rows · pairs` instead of `pairs²`, and
/// there is no second derivative. Since decisions do not depend on each other, logits are computed only once.
///
/// # Shapes
/// As of [`sigmoid`]; scale and bias: `[1]` each.
///
/// # Errors
/// As of [`sigmoid`]; `duplicates` are of another number of pairs.
pub fn sigmoid_with(
    images: Tensor<2>,
    texts: Tensor<2>,
    [logit_scale, logit_bias]: [Tensor<1>; 2],
    duplicates: &Duplicates,
    tile_rows: Option<usize>,
) -> Result<Tensor<1>> {
    let [pairs, width] = images.dims();
    if texts.dims() != [pairs, width] || pairs == 0 {
        let reason = format!("images {:?} and texts {:?} do not pair", images.dims(), texts.dims());
        return Err(Error::at(Stage::Model, "SigLIP's loss", reason));
    }
    let relation = duplicates.relation(pairs, &images.device())?;
    let (images, texts) = (l2_normalize(images), l2_normalize(texts));
    let (log_scale, bias) = (logit_scale.unsqueeze::<2>(), logit_bias.unsqueeze::<2>()); // [1, 1]
    let Some(tile_rows) = tile_rows else {
        let decisions = Decisions::new(images, texts, log_scale, bias, relation);
        let tile = decisions.tile(0, pairs);
        return Ok(softplus(tile.wrong).sum_dim(1).mean_dim(0).squeeze_dim(1));
    };
    let [i, t, s, b] = [&images, &texts, &log_scale, &bias].map(|of| of.clone().without_autodiff());
    let decisions = Decisions::new(i, t, s, b, relation.map(Relation::without_autodiff));
    let tracked = [&images, &texts, &log_scale, &bias].into_iter().any(Tensor::is_tracked);
    let (value, gradients) = decisions.in_tiles(tile_rows, tracked);
    let parts = [images, texts, log_scale, bias].into_iter().zip(gradients.into_iter().flatten()).collect();
    Ok(with_gradients(value, parts))
}

/// ln(1 + eˣ), also where eˣ would overflow.
fn softplus(x: Tensor<2>) -> Tensor<2> {
    x.clone().clamp_min(0.0) + x.abs().neg().exp().log1p()
}

/// All pairs, of which tiles are made on demand.
#[derive(Debug)]
struct Decisions {
    images: Tensor<2>,
    texts: Tensor<2>,
    /// `[1, 1]`
    scale: Tensor<2>,
    bias: Tensor<2>,
    relation: Option<Relation>,
    numbers: Numbers,
}

/// Some images' pairs, `[length, pairs]` each.
#[derive(Debug)]
struct Tile {
    /// Logits without the bias.
    scaled: Tensor<2>,
    /// −z, so 1 where image and text do not belong together and −1 where they do.
    signs: Tensor<2>,
    /// −z A: how wrong the decision is.
    wrong: Tensor<2>,
}

impl Decisions {
    fn new(
        images: Tensor<2>,
        texts: Tensor<2>,
        log_scale: Tensor<2>,
        bias: Tensor<2>,
        relation: Option<Relation>,
    ) -> Self {
        let numbers = Numbers::new(images.dims()[0], &images.device());
        Self { images, texts, scale: log_scale.exp(), bias, relation, numbers }
    }

    fn tile(&self, first: usize, length: usize) -> Tile {
        let images = self.images.clone().narrow(0, first, length);
        let scaled = images.matmul(self.texts.clone().transpose()) * self.scale.clone(); // [length, pairs]
        let own = self.numbers.diagonal(first, length, 0);
        let equal = self.relation.as_ref().and_then(|relation| relation.equal(first, length));
        let softens = self.relation.as_ref().is_some_and(|relation| relation.softens);
        let together = match &equal {
            Some(equal) if softens => equal.clone(),
            _ => own.clone(),
        };
        let signs = together.float() * -2.0 + 1.0;
        let wrong = (scaled.clone() + self.bias.clone()) * signs.clone();
        let wrong = match equal {
            Some(equal) if !softens => wrong.mask_fill(equal.bool_and(own.bool_not()), MASKED),
            _ => wrong,
        };
        Tile { scaled, signs, wrong }
    }

    /// The loss, and its gradients by images, texts, the logarithm of the scale and the bias where they are wanted.
    fn in_tiles(&self, tile_rows: usize, want_gradients: bool) -> (Tensor<1>, Option<[Tensor<2>; 4]>) {
        let [pairs, _] = self.images.dims();
        let (mut losses, mut of_images) = (Vec::new(), Vec::new());
        let (mut of_texts, mut of_scale, mut of_bias) =
            (self.texts.zeros_like(), self.scale.zeros_like(), self.bias.zeros_like());
        for (first, length) in tiles(pairs, tile_rows) {
            let Tile { scaled, signs, wrong } = self.tile(first, length);
            losses.push(softplus(wrong.clone()).sum_dim(1)); // [length, 1]
            if want_gradients {
                let slopes = activation::sigmoid(wrong) * signs; // [length, pairs]
                of_scale = of_scale + (slopes.clone() * scaled).sum_dim(1).sum_dim(0);
                of_bias = of_bias + slopes.clone().sum_dim(1).sum_dim(0);
                of_images.push(slopes.clone().matmul(self.texts.clone())); // [length, width]
                of_texts = of_texts + slopes.transpose().matmul(self.images.clone().narrow(0, first, length));
            }
        }
        let value = Tensor::cat(losses, 0).mean_dim(0).squeeze_dim::<1>(1); // [1]
        let share = 1.0 / pairs as f64;
        let gradients = want_gradients.then(|| {
            let scale = self.scale.clone() * share;
            [Tensor::cat(of_images, 0) * scale.clone(), of_texts * scale, of_scale * share, of_bias * share]
        });
        (value, gradients)
    }
}
