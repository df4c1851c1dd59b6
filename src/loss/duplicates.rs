//! Pairs of a batch that are no negatives of each other: the same text twice, or the same image twice.
use std::collections::HashMap;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::l2_normalize;
use super::symmetric::mean_loss;
use crate::error::{Error, Result, Stage};

/// What becomes of a pair whose text or image another pair of the batch has as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// They repel each other like all others, as in the paper.
    #[default]
    Keep,
    /// They neither attract nor repel each other.
    Mask,
    /// They attract each other like their own: a target of 1 over their number each (Yang et al. 2022, UniCL), and with
    /// SigLIP's loss a decision that should be yes.
    SoftTargets,
}

/// Which pairs have an image or a text in common: equal numbers for equal ones.
#[derive(Debug, Clone, Copy)]
pub struct PairNumbers<'a> {
    /// Of each pair's image.
    pub images: &'a [u32],
    /// Of each pair's text.
    pub texts: &'a [u32],
}

impl PairNumbers<'_> {
    /// Pairs of the batch.
    pub fn pairs(&self) -> usize {
        self.images.len()
    }

    /// Whether any two pairs have something in common.
    pub fn any_in_common(&self) -> bool {
        repeated(self.images) + repeated(self.texts) > 0
    }

    /// Pairs whose image a pair before them has, and pairs whose text a pair before them has.
    pub fn repeated(&self) -> [usize; 2] {
        [repeated(self.images), repeated(self.texts)]
    }

    /// Of each pair, how many others have its image or its text.
    pub fn others_in_common(&self) -> Vec<usize> {
        let (mut images, mut texts, mut both) = (HashMap::new(), HashMap::new(), HashMap::new());
        let pairs = || self.images.iter().zip(self.texts);
        for (image, text) in pairs() {
            *images.entry(image).or_insert(0) += 1;
            *texts.entry(text).or_insert(0) += 1;
            *both.entry((image, text)).or_insert(0) += 1;
        }
        // Whoever has both was counted twice, and each pair counted itself.
        pairs().map(|(image, text)| images[image] + texts[text] - both[&(image, text)] - 1).collect()
    }

    /// True where another pair has the same image or text; false on the diagonal. `[pairs, pairs]`
    pub fn in_common(&self, device: &Device) -> Tensor<2, Bool> {
        let same = |numbers: &[u32]| {
            let numbers: Vec<i64> = numbers.iter().map(|&number| i64::from(number)).collect();
            let count = numbers.len();
            let column = Tensor::<1, Int>::from_data(TensorData::new(numbers, [count]), device).reshape([count, 1]);
            (column.clone() - column.transpose()).equal_elem(0) // [pairs, pairs]
        };
        let others = Tensor::<2, Bool>::diag_mask([self.pairs(), self.pairs()], 0, device);
        same(self.images).bool_or(same(self.texts)).bool_and(others)
    }
}

fn repeated(numbers: &[u32]) -> usize {
    let mut distinct = numbers.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    numbers.len() - distinct.len()
}

/// [`symmetric`](super::symmetric()) where some pairs have something in common: `in_common`, `[pairs, pairs]`, false on the
/// diagonal.
///
/// With soft targets the loss of a row is LSE minus the mean of the logits that are right.
///
/// # Shapes
/// As there; to `[1]`.
///
/// # Errors
/// As there.
pub fn symmetric_among(
    images: Tensor<2>,
    texts: Tensor<2>,
    logit_scale: Tensor<1>,
    in_common: Tensor<2, Bool>,
    duplicates: Duplicates,
) -> Result<Tensor<1>> {
    let [pairs, _] = check("CLIP's loss", &images, &texts, 2)?;
    let (images, texts) = (l2_normalize(images), l2_normalize(texts));
    let scale = logit_scale.exp().unsqueeze::<2>(); // [1, 1]
    let positive = (images.clone() * texts.clone()).sum_dim(1) * scale.clone(); // [pairs, 1]
    let logits = images.matmul(texts.transpose()) * scale; // [pairs, pairs]
    // `diag_mask` is false on the diagonal.
    let own = Tensor::<2, Bool>::diag_mask([pairs, pairs], 0, &logits.device()).bool_not();
    // Both are symmetric: what holds for rows holds for columns.
    let side = |logits: Tensor<2>| match duplicates {
        Duplicates::Keep => mean_loss(logits, positive.clone(), own.clone()),
        Duplicates::Mask => mean_loss(logits, positive.clone(), own.clone().bool_or(in_common.clone())),
        Duplicates::SoftTargets => {
            let right = 1.0 + in_common.clone().float().sum_dim(1); // [pairs, 1]
            let above = (logits.clone() - positive.clone()).mask_fill(in_common.clone().bool_not(), 0.0);
            let pulled = (above.sum_dim(1) / right).mean_dim(0).squeeze_dim(1); // [1]
            mean_loss(logits, positive.clone(), own.clone()) - pulled
        }
    };
    Ok((side(logits.clone()) + side(logits.transpose())) / 2.0)
}

/// [`sigmoid`](super::sigmoid()) where some pairs have something in common, as in [`symmetric_among`].
///
/// # Shapes
/// As there.
///
/// # Errors
/// As there.
pub fn sigmoid_among(
    images: Tensor<2>,
    texts: Tensor<2>,
    logit_scale: Tensor<1>,
    logit_bias: Tensor<1>,
    in_common: Tensor<2, Bool>,
    duplicates: Duplicates,
) -> Result<Tensor<1>> {
    let [pairs, _] = check("SigLIP's loss", &images, &texts, 1)?;
    let (images, texts) = (l2_normalize(images), l2_normalize(texts));
    let logits = images.matmul(texts.transpose()) * logit_scale.exp().unsqueeze::<2>(); // [pairs, pairs]
    let logits = logits + logit_bias.unsqueeze::<2>();
    let own = Tensor::<2>::eye(pairs, &logits.device());
    let yes = match duplicates {
        Duplicates::SoftTargets => own + in_common.clone().float(),
        Duplicates::Keep | Duplicates::Mask => own,
    };
    // softplus(−x) = softplus(x) − x.
    let softplus = logits.clone().clamp_min(0.0) + logits.clone().abs().neg().exp().log1p();
    let losses = softplus - logits * yes; // [pairs, pairs]
    let losses = match duplicates {
        Duplicates::Mask => losses.mask_fill(in_common, 0.0),
        Duplicates::Keep | Duplicates::SoftTargets => losses,
    };
    Ok(losses.sum_dim(1).mean_dim(0).squeeze_dim(1))
}

fn check(name: &str, images: &Tensor<2>, texts: &Tensor<2>, least: usize) -> Result<[usize; 2]> {
    let [pairs, width] = images.dims();
    if texts.dims() != [pairs, width] || pairs < least {
        let reason = format!("images {:?} and texts {:?} are not {least} pairs or more", images.dims(), texts.dims());
        return Err(Error::at(Stage::Model, name, reason));
    }
    Ok([pairs, width])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_with_something_in_common_are_found_and_counted() {
        let numbers = PairNumbers { images: &[0, 1, 0, 2, 3], texts: &[0, 1, 2, 1, 3] };
        assert_eq!((numbers.repeated(), numbers.any_in_common()), ([1, 1], true));
        assert_eq!(numbers.others_in_common(), [1, 1, 1, 1, 0]);
        let mask = numbers.in_common(&Device::flex()).float().into_data().try_into_vec::<f32>().expect("f32");
        let found: Vec<usize> = (0..25).filter(|&at| mask[at] == 1.0).collect();
        assert_eq!(found, [2, 8, 10, 16]);
        // The same pair twice is counted once.
        let twice = PairNumbers { images: &[0, 0], texts: &[5, 5] };
        assert_eq!(twice.others_in_common(), [1, 1]);
        assert!(!PairNumbers { images: &[0, 1], texts: &[5, 6] }.any_in_common());
    }
}
