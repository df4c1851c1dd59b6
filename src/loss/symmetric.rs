//! CLIP's loss (Radford et al. 2021, arXiv 2103.00020).
//!
//! Over logits A = s I Tᵀ with rows of I and T of unit length, the loss is half the cross-entropy of the rows, whose right
//! text is the one on the diagonal, plus half that of the columns.
use burn::tensor::{Bool, Tensor};

use super::l2_normalize;
use crate::error::{Error, Result, Stage};

/// A masked logit. Finite, so that no kernel meets ∞ · 0, and far below any of −2 s.
const MASKED: f32 = -1e9;

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
    let [pairs, width] = images.dims();
    if texts.dims() != [pairs, width] {
        let reason = format!("images {:?} and texts {:?} do not pair", images.dims(), texts.dims());
        return Err(Error::at(Stage::Model, "CLIP's loss", reason));
    }
    if pairs < 2 {
        let reason = format!("a batch of {pairs} has no negatives; at least 2 pairs are needed");
        return Err(Error::at(Stage::Model, "CLIP's loss", reason));
    }
    let (images, texts) = (l2_normalize(images), l2_normalize(texts));
    let scale = logit_scale.exp().unsqueeze::<2>(); // [1, 1]
    let positive = (images.clone() * texts.clone()).sum_dim(1) * scale.clone(); // [pairs, 1]
    let logits = images.matmul(texts.transpose()) * scale; // [pairs, pairs]
    // True on the diagonal: `diag_mask` is false there.
    let own = Tensor::<2, Bool>::diag_mask([pairs, pairs], 0, &logits.device()).bool_not();
    let rows = mean_loss(logits.clone(), positive.clone(), own.clone());
    let columns = mean_loss(logits.transpose(), positive, own);
    Ok(Symmetric {
        loss: (rows.clone() + columns.clone()) / 2.0,
        image_to_text: rows.detach(),
        text_to_image: columns.detach(),
    })
}

/// Mean of LSE − positive over the rows, without the cancellation that it has near convergence.
fn mean_loss(logits: Tensor<2>, positive: Tensor<2>, own: Tensor<2, Bool>) -> Tensor<1> {
    let above = (logits - positive).mask_fill(own, MASKED); // [pairs, pairs]
    // As a function the loss does not depend on the shift, so it takes no part in the gradient.
    let shift = above.clone().detach().max_dim(1).clamp_min(0.0); // [pairs, 1]
    let negatives = (above - shift.clone()).exp().sum_dim(1); // [pairs, 1]
    let losses = (negatives + (shift.clone().neg().exp() - 1.0)).log1p() + shift; // [pairs, 1]
    losses.mean_dim(0).squeeze_dim(1)
}
