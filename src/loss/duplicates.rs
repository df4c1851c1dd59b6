//! Items of a batch that say the same: the pairs that two of them make are no negatives.
use std::collections::HashMap;
use std::hash::Hash;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::tiles::tiles;
use crate::error::{Error, Result, Stage};

/// What becomes of an image and a text of two items that have one caption, or one image, in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicatePolicy {
    /// They repel each other like any others, as in the paper.
    #[default]
    Keep,
    /// They take no part in the loss.
    Mask,
    /// They belong together: under the cross-entropy each of c equal ones is right with a weight of 1/c (UniCL, Yang et al.
    /// 2022, arXiv 2204.03610), under the sigmoid loss each is.
    SoftTargets,
}

/// Which items of a batch equal each other, and what to do about it.
///
/// Two items are equal if they have the caption or the image in common. That is symmetric and need not be transitive.
#[derive(Debug, Clone, PartialEq)]
pub struct Duplicates {
    pub(super) policy: DuplicatePolicy,
    /// For each side that is known, one small number per item, equal where the items are.
    classes: Vec<Vec<i64>>,
    /// How many items equal each, itself included.
    equals: Vec<usize>,
    /// Of images and of texts, those that one before them equals.
    repeated: [usize; 2],
}

impl Duplicates {
    /// Nothing is known, so nothing equals anything.
    pub fn unknown() -> Self {
        Self { policy: DuplicatePolicy::Keep, classes: Vec::new(), equals: Vec::new(), repeated: [0; 2] }
    }

    /// From a number per item and side, equal where images or captions are (their hashes).
    ///
    /// # Errors
    /// The sides differ in length.
    pub fn new(policy: DuplicatePolicy, identities: [Option<&[u64]>; 2]) -> Result<Self> {
        if let [Some(images), Some(texts)] = identities
            && images.len() != texts.len()
        {
            let reason = format!("{} images and {} texts do not pair", images.len(), texts.len());
            return Err(Error::at(Stage::Model, "duplicates", reason));
        }
        let sides = identities.map(|side| side.map(|side| classes(side.iter())));
        // Classes are numbered as they come, so an item begins one or repeats one.
        let repeats = |classes: &Vec<i64>| classes.len() - classes.iter().max().map_or(0, |last| *last as usize + 1);
        let repeated = sides.each_ref().map(|side| side.as_ref().map_or(0, repeats));
        let classes: Vec<Vec<i64>> = sides.into_iter().flatten().collect();
        let mut equals = vec![0_usize; classes.first().map_or(0, Vec::len)];
        let mut count = |classes: &[i64], subtract: bool| {
            let mut sizes = vec![0_usize; classes.len()];
            classes.iter().for_each(|&class| sizes[class as usize] += 1);
            for (equals, &class) in equals.iter_mut().zip(classes) {
                let size = sizes[class as usize];
                *equals = if subtract { *equals - size } else { *equals + size };
            }
        };
        classes.iter().for_each(|classes| count(classes, false));
        if let [images, texts] = classes.as_slice() {
            // Equal in both was counted twice.
            let both: Vec<(i64, i64)> = images.iter().copied().zip(texts.iter().copied()).collect();
            count(&self::classes(both.iter()), true);
        }
        Ok(Self { policy, classes, equals, repeated })
    }

    /// Of images and of texts, how many one before them equals; 0 where nobody knows.
    pub fn repeated(&self) -> [usize; 2] {
        self.repeated
    }

    /// Of each of `items` items, how many others are no negatives of it.
    pub(super) fn others(&self, items: usize) -> Vec<usize> {
        match self.policy {
            DuplicatePolicy::Mask | DuplicatePolicy::SoftTargets if !self.equals.is_empty() => {
                self.equals.iter().map(|equals| equals - 1).collect()
            }
            _ => vec![0; items],
        }
    }

    /// Pairs of two items that equal each other: twice as many logits are false negatives.
    pub fn pairs(&self) -> usize {
        self.equals.iter().map(|equals| equals - 1).sum::<usize>() / 2
    }

    /// Items that another equals.
    pub fn items(&self) -> usize {
        self.equals.iter().filter(|equals| **equals > 1).count()
    }

    /// On a device; `None` where it changes nothing.
    ///
    /// # Errors
    /// It is of another number of items.
    pub(super) fn relation(&self, items: usize, device: &Device) -> Result<Option<Relation>> {
        if !self.classes.is_empty() && self.equals.len() != items {
            let reason = format!("{} items are known, and the batch has {items}", self.equals.len());
            return Err(Error::at(Stage::Model, "duplicates", reason));
        }
        if self.policy == DuplicatePolicy::Keep || self.pairs() == 0 {
            return Ok(None);
        }
        let numbers = |classes: &Vec<i64>| Tensor::from_data(TensorData::new(classes.clone(), [items, 1]), device);
        let weights: Vec<f32> = self.equals.iter().map(|&equals| 1.0 / equals as f32).collect();
        Ok(Some(Relation {
            softens: self.policy == DuplicatePolicy::SoftTargets,
            rows: self.classes.iter().map(numbers).collect(),
            weights: Tensor::from_data(TensorData::new(weights, [items, 1]), device),
        }))
    }
}

/// Numbers from 0, equal where the values are.
fn classes<'a, T: Hash + Eq + 'a>(values: impl Iterator<Item = &'a T>) -> Vec<i64> {
    let mut seen = HashMap::new();
    values
        .map(|value| {
            let next = seen.len() as i64;
            *seen.entry(value).or_insert(next)
        })
        .collect()
}

/// [`Duplicates`] on a device. No matrix of all pairs: tiles of it are made where they are needed.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    /// Whether equal items attract each other; otherwise they are left out.
    pub(super) softens: bool,
    /// `[items, 1]` per side.
    rows: Vec<Tensor<2, Int>>,
    /// One over how many equal each, `[items, 1]`.
    pub(super) weights: Tensor<2>,
}

impl Relation {
    /// True where an item of the tile equals one of the batch, itself included: `[length, items]`.
    pub(super) fn equal(&self, first: usize, length: usize) -> Option<Tensor<2, Bool>> {
        let of_side = |rows: &Tensor<2, Int>| rows.clone().narrow(0, first, length).equal(rows.clone().transpose());
        self.rows.iter().map(of_side).reduce(Tensor::bool_or)
    }

    /// The mean over all rows that equal each, `[items, width]` to the same.
    pub(super) fn means(&self, rows: &Tensor<2>, tile_rows: usize) -> Tensor<2> {
        let sums = tiles(rows.dims()[0], tile_rows).filter_map(|(first, length)| {
            let equal = self.equal(first, length)?.float();
            Some(equal.matmul(rows.clone())) // [length, width]
        });
        Tensor::cat(sums.collect(), 0) * self.weights.clone()
    }

    /// The same outside autodiff.
    pub(super) fn without_autodiff(self) -> Self {
        let Self { softens, rows, weights } = self;
        let rows = rows.into_iter().map(Tensor::without_autodiff).collect();
        Self { softens, rows, weights: weights.without_autodiff() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: DuplicatePolicy = DuplicatePolicy::Mask;

    fn tile(duplicates: &Duplicates, items: usize, first: usize, length: usize) -> Vec<bool> {
        let relation = duplicates.relation(items, &Device::flex()).expect("fits").expect("something");
        relation.equal(first, length).expect("known").into_data().iter::<bool>().collect()
    }

    #[test]
    fn a_shared_caption_or_image_makes_two_items_equal_and_counts_once() {
        // Captions: 0 = 2 = 4; images: 0 = 1, 2 = 4. Pairs: 0-2, 0-4, 2-4, 0-1.
        let (captions, images) = ([9, 5, 9, 6, 9], [1, 1, 2, 3, 2]);
        let both = Duplicates::new(POLICY, [Some(&images), Some(&captions)]).expect("pairs");
        assert_eq!((both.pairs(), both.items()), (4, 4));
        assert_eq!(both.equals, [4, 2, 3, 1, 3]);
        let (x, o) = (true, false);
        let expected = [x, x, x, o, x, x, x, o, o, o, x, o, x, o, x, o, o, o, x, o, x, o, x, o, x];
        assert_eq!(tile(&both, 5, 0, 5), expected);
        assert_eq!(tile(&both, 5, 2, 3), expected[10..]);
        let one = Duplicates::new(POLICY, [None, Some(&captions)]).expect("pairs");
        assert_eq!((one.pairs(), one.items(), one.equals), (3, 3, vec![3, 1, 3, 1, 3]));
    }

    #[test]
    fn pairs_with_something_in_common_are_counted_on_each_side_and_together() {
        let (images, texts) = ([0, 1, 0, 2, 3], [0, 1, 2, 1, 3]);
        let of = |identities| Duplicates::new(POLICY, identities).expect("pairs");
        let both = of([Some(&images[..]), Some(&texts[..])]);
        assert_eq!((both.repeated(), both.others(5)), ([1, 1], vec![1, 1, 1, 1, 0]));
        let one = of([None, Some(&texts[..])]);
        assert_eq!((one.repeated(), one.others(5)), ([0, 1], vec![0, 1, 0, 1, 0]));
        // The same pair twice is counted once.
        assert_eq!(of([Some(&[0, 0]), Some(&[5, 5])]).others(2), [1, 1]);
        let kept = Duplicates::new(DuplicatePolicy::Keep, [Some(&images[..]), None]).expect("pairs");
        assert_eq!((kept.repeated(), kept.others(5)), ([1, 0], vec![0; 5]));
        assert_eq!((Duplicates::unknown().repeated(), Duplicates::unknown().others(2)), ([0, 0], vec![0, 0]));
    }

    #[test]
    fn nothing_known_nothing_equal_and_nothing_wanted_change_nothing() {
        let device = Device::flex();
        let same: &[u64] = &[3, 3];
        let kept = Duplicates::new(DuplicatePolicy::Keep, [Some(same), None]).expect("pairs");
        assert_eq!((kept.pairs(), kept.items()), (1, 2));
        let apart = Duplicates::new(POLICY, [Some(&[1, 2]), Some(&[7, 8])]).expect("pairs");
        for duplicates in [kept, apart, Duplicates::unknown()] {
            assert!(duplicates.relation(2, &device).expect("fits").is_none());
        }
        assert_eq!((Duplicates::unknown().pairs(), Duplicates::unknown().items()), (0, 0));
    }

    #[test]
    fn sides_and_batches_of_other_lengths_are_refused() {
        assert!(Duplicates::new(POLICY, [Some(&[1, 2]), Some(&[1])]).is_err());
        let duplicates = Duplicates::new(POLICY, [Some(&[1, 1]), None]).expect("one side");
        assert!(duplicates.relation(3, &Device::flex()).is_err());
    }
}
