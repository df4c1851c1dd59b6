//! Frozen features of samples with known labels, and the classes that the labels name.

use std::collections::BTreeMap;

use crate::{
    Result,
    error::{Error, Stage},
};

/// Frozen features of samples with known labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Row-major: `[samples, width]`.
    pub values: Vec<f32>,
    /// Numbers per sample.
    pub width: usize,
    /// One per sample.
    pub labels: Vec<String>,
    /// One per sample.
    pub sample_ids: Vec<u64>,
}

impl Features {
    /// Samples.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// That there are samples, that the parts agree in length and that every number is finite.
    ///
    /// # Errors
    /// [`Stage::Evaluate`] at `place`, with the first sample that is not.
    pub fn check(&self, place: &str) -> Result<()> {
        let fail = |reason: String| Err(Error::at(Stage::Evaluate, place, reason));
        if self.rows() == 0 {
            return fail("there are no samples; does the query of [evaluate] return rows?".into());
        }
        if self.width == 0 || self.values.len() != self.rows() * self.width || self.sample_ids.len() != self.rows() {
            return fail(format!(
                "{} values, {} labels and {} sample ids do not make rows of width {}",
                self.values.len(),
                self.labels.len(),
                self.sample_ids.len(),
                self.width
            ));
        }
        if let Some(at) = self.values.iter().position(|x| !x.is_finite()) {
            return fail(format!(
                "feature {} of sample {} is {}; the encoder has diverged, take an earlier checkpoint",
                at % self.width,
                self.sample_ids[at / self.width],
                self.values[at]
            ));
        }
        Ok(())
    }
}

/// The rows `rows` of a row-major matrix, in that order.
pub(crate) fn gather(values: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    let mut taken = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        taken.extend_from_slice(&values[row * width..(row + 1) * width]);
    }
    taken
}

/// Label names in sorted order: a class is its position here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    numbers: BTreeMap<String, u32>,
}

/// Class of a label that the bank does not know: nothing predicts it, so such a sample counts as wrong.
pub const UNKNOWN_CLASS: u32 = u32::MAX;

impl Classes {
    /// The classes of a bank.
    pub fn of(labels: &[String]) -> Self {
        let mut numbers: BTreeMap<String, u32> = labels.iter().map(|label| (label.clone(), 0)).collect();
        for (number, class) in numbers.values_mut().zip(0..) {
            *number = class;
        }
        Self { numbers }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Class of each label, [`UNKNOWN_CLASS`] for one that the bank lacks.
    pub fn numbers(&self, labels: &[String]) -> Vec<u32> {
        labels.iter().map(|label| self.numbers.get(label).copied().unwrap_or(UNKNOWN_CLASS)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn classes_are_sorted_and_unknown_labels_have_none() {
        let classes = Classes::of(&labels(&["shirt", "bag", "shirt", "coat"]));
        assert_eq!(classes.count(), 3);
        assert_eq!(classes.numbers(&labels(&["bag", "coat", "shirt", "boot"])), [0, 1, 2, UNKNOWN_CLASS]);
    }

    #[test]
    fn a_feature_that_is_not_finite_names_its_sample() {
        let features = Features {
            values: vec![0.0, 1.0, f32::NAN, 2.0],
            width: 2,
            labels: labels(&["a", "b"]),
            sample_ids: vec![7, 8],
        };
        let message = features.check("bank").unwrap_err().to_string();
        assert!(message.contains("feature 0 of sample 8"), "{message}");
    }
}
