//! CLIP's loss (Radford et al. 2021, arXiv 2103.00020).
//!
//! Over logits A = s I Tᵀ with rows of I and T of unit length, the loss is half the cross-entropy of the rows, whose right
//! text is the one on the diagonal, plus half that of the columns.
use burn::tensor::Tensor;

use super::duplicates::{Duplicates, Relation};
use super::l2_normalize;
use super::pair_logits::PairLogits;
use super::tiles::{Excess, with_gradients};
use crate::error::{Error, Result, Stage};

/// Largest logarithm of the scale, ln 100: the parameter is brought back to it after each step, so that it can also
/// fall again. (A clamp in the forward pass would take its gradient away.)
pub const MOST_LOGIT_SCALE: f64 = 4.605_170_185_988_092;

/// Both directions' losses.
#[derive(Debug, Clone)]
pub struct Symmetric {
    /// Mean of the two. `[1]`
    pub loss: Tensor<1>,
    /// Of finding the text of an image, cut off from the graph. `[1]`
    pub image_to_text: Tensor<1>,
    /// Of finding the image of a text, cut off from the graph. `[1]`
    pub text_to_image: Tensor<1>,
}

/// Mean loss of both directions, from embeddings of any length and the logarithm of the scale.
///
/// # Shapes
/// `images`, `texts`: `[pairs, width]`, row i of both from the same pair; `logit_scale`: `[1]`.
///
/// # Errors
/// Other shapes; fewer than two pairs, whose loss is exactly 0.
pub fn symmetric(images: Tensor<2>, texts: Tensor<2>, logit_scale: Tensor<1>) -> Result<Symmetric> {
    symmetric_with(images, texts, logit_scale, &Duplicates::unknown(), None)
}

/// [`symmetric`], with what is known of equal items, and a few rows of logits at a time where `tile_rows` says how many.
///
/// In tiles value and gradients are the same up to rounding, memory grows with `tile_rows · pairs` instead of `pairs²`,
/// logits are computed twice, and there is no second derivative.
///
/// # Shapes
/// As of [`symmetric`].
///
/// # Errors
/// As of [`symmetric`]; `duplicates` are of another number of pairs.
pub fn symmetric_with(
    images: Tensor<2>,
    texts: Tensor<2>,
    logit_scale: Tensor<1>,
    duplicates: &Duplicates,
    tile_rows: Option<usize>,
) -> Result<Symmetric> {
    let [pairs, width] = images.dims();
    if texts.dims() != [pairs, width] {
        let reason = format!("images {:?} and texts {:?} do not pair", images.dims(), texts.dims());
        return Err(Error::at(Stage::Model, "CLIP's loss", reason));
    }
    if pairs < 2 {
        let reason = format!("a batch of {pairs} has no negatives; at least 2 pairs are needed");
        return Err(Error::at(Stage::Model, "CLIP's loss", reason));
    }
    let relation = duplicates.relation(pairs, &images.device())?;
    let (images, texts) = (l2_normalize(images), l2_normalize(texts));
    let scale = logit_scale.unsqueeze::<2>(); // [1, 1], a logarithm
    let Some(tile_rows) = tile_rows else {
        let logits = PairLogits::new(images, texts, scale, relation, pairs);
        let [rows, columns] = logits.above(0, pairs);
        let [own_rows, own_columns] = logits.own_above();
        let own_columns = own_columns.transpose(); // [1, pairs]
        let rows = Excess::over(1, rows).not_below(&own_rows).loss(own_rows);
        let columns = Excess::over(0, columns).not_below(&own_columns).loss(own_columns);
        return Ok(Symmetric::of(rows, columns));
    };
    let [i, t, s] = [&images, &texts, &scale].map(|of| of.clone().without_autodiff());
    let logits = PairLogits::new(i, t, s, relation.map(Relation::without_autodiff), tile_rows);
    let [rows, columns] = logits.excess(tile_rows);
    let [own_rows, own_columns] = logits.own_above();
    let own_columns = own_columns.transpose(); // [1, pairs]
    let (rows, columns) = (rows.not_below(&own_rows), columns.not_below(&own_columns));
    let found = Symmetric::of(rows.loss(own_rows.clone()), columns.loss(own_columns.clone()));
    if !images.is_tracked() && !texts.is_tracked() && !scale.is_tracked() {
        return Ok(found);
    }
    let softmax = [rows.softmax(own_rows), columns.softmax(own_columns)];
    let shares = [rows.share(&softmax[0]), columns.share(&softmax[1]).transpose()];
    let [of_images, of_texts, of_scale] = logits.gradients(&softmax, shares, tile_rows);
    let parts = vec![(images, of_images), (texts, of_texts), (scale, of_scale)];
    Ok(Symmetric { loss: with_gradients(found.loss, parts), ..found })
}

impl Symmetric {
    /// From `[pairs, 1]` and `[1, pairs]`.
    fn of(rows: Tensor<2>, columns: Tensor<2>) -> Self {
        let rows = rows.mean_dim(0).squeeze_dim::<1>(1);
        let columns = columns.mean_dim(1).squeeze_dim::<1>(1);
        Self {
            loss: (rows.clone() + columns.clone()) / 2.0,
            image_to_text: rows.detach(),
            text_to_image: columns.detach(),
        }
    }
}
