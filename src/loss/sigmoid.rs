//! SigLIP's loss (Zhai et al. 2023, arXiv 2303.15343).
//!
//! Over logits A = s I Tᵀ + b every image and text is a decision of its own, and the loss
//! (1/N) Σᵢ Σⱼ softplus(−zᵢⱼ Aᵢⱼ), with z = 1 on the diagonal and −1 elsewhere: summed over texts, mean over images.
use burn::tensor::Tensor;

use super::l2_normalize;
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
    let [pairs, width] = images.dims();
    if texts.dims() != [pairs, width] || pairs == 0 {
        let reason = format!("images {:?} and texts {:?} do not pair", images.dims(), texts.dims());
        return Err(Error::at(Stage::Model, "SigLIP's loss", reason));
    }
    let (images, texts) = (l2_normalize(images), l2_normalize(texts));
    let logits = images.matmul(texts.transpose()) * logit_scale.exp().unsqueeze::<2>(); // [pairs, pairs]
    let logits = logits + logit_bias.unsqueeze::<2>();
    let own = Tensor::<2>::eye(pairs, &logits.device());
    // softplus(A) everywhere, and −A more on the diagonal: softplus(−x) = softplus(x) − x.
    let softplus = logits.clone().clamp_min(0.0) + logits.clone().abs().neg().exp().log1p();
    let losses = softplus - logits * own; // [pairs, pairs]
    Ok(losses.sum_dim(1).mean_dim(0).squeeze_dim(1))
}
