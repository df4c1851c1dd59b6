//! Frozen embeddings and their scores.
//!
//! Every figure of the encoder stands beside the same figure of its floors, the untrained encoder and the input itself,
//! on the same samples, with its interval and its protocol: figures of different protocols are not comparable.
//!
//! | file | holds |
//! |---|---|
//! | [`features`] | features with labels, classes |
//! | [`extract`] | batches through an encoder into features |
//! | [`knn`], [`few_labels`] | weighted nearest neighbours, also from n labels per class |
//! | [`linear_probe`] | logistic regression on frozen features |
//! | [`abx`] | whether classes are told apart within and across groups, with nothing fitted |
//! | [`raw_pixels`], [`raw_series`] | the floors that know nothing |
//! | [`mfcc_statistics`] | the floor of audio |
//! | [`held_out`] | the part of the bank on which k and λ are chosen |
//! | [`statistics`] | intervals: single, paired, over draws |
//! | [`embeddings`], [`place`] | unit rows and their cosines; ranks with honest ties |
//! | [`beside`] | a share beside that of the untrained model |
//! | [`retrieval`], [`mod@matches`] | images to texts and back; captions with their best images, for a page |
//! | [`zero_shot`], [`templates`] | classes by their prompts |
//! | [`clip`] | released CLIPs: their files and their scores |
//! | [`protocol`], [`scores`] | all of it for all representations; as JSON and as a table |

pub mod abx;
pub mod beside;
mod cholesky;
pub mod clip;
pub mod embeddings;
pub mod extract;
pub mod features;
pub mod few_labels;
pub mod held_out;
pub mod knn;
mod lbfgs;
pub mod linear_probe;
mod logistic;
pub mod matches;
pub mod mfcc_statistics;
pub mod place;
pub mod protocol;
pub mod raw_pixels;
pub mod raw_series;
pub mod retrieval;
pub mod scores;
pub mod statistics;
pub mod templates;
pub mod zero_shot;

use serde::{Deserialize, Serialize};

use self::{retrieval::RetrievalSettings, zero_shot::ZeroShotSettings};

/// `[evaluate]` of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSettings {
    /// Samples with known labels; left out where nothing is classified by features.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bank_sql: String,
    /// Samples to classify.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query_sql: String,
    /// Column with the label.
    #[serde(default = "default_label")]
    pub label: String,
    /// Further columns that the same features are scored by, such as `group`, the speaker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_labels: Vec<String>,
    /// Column of groups, such as the speaker, within and across which ABX is asked of the queries' labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abx_group: Option<String>,
    /// Weighted nearest neighbours (Wu et al.).
    #[serde(default)]
    pub knn: KnnSettings,
    /// kNN every so many epochs while training; 0: never.
    #[serde(default)]
    pub knn_every_epochs: u64,
    /// Labels per class of the few-label kNN.
    #[serde(default = "default_few")]
    pub labels_per_class: Vec<usize>,
    /// Draws of labels that the few-label kNN averages over.
    #[serde(default = "default_draws")]
    pub label_draws: usize,
    /// Classes by their prompts; of methods with a text tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot: Option<ZeroShotSettings>,
    /// Images to captions and back; of methods with a text tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<RetrievalSettings>,
}
impl EvaluateSettings {
    /// Whether features are classified, by kNN and a linear probe.
    pub fn classifies(&self) -> bool {
        !self.bank_sql.is_empty() || !self.query_sql.is_empty()
    }

    /// Every column that features are scored by, `label` first.
    pub fn labels(&self) -> Vec<String> {
        std::iter::once(&self.label).chain(&self.further_labels).cloned().collect()
    }

    /// Every column that an evaluation reads: [`Self::labels`], and behind them that of the groups where it is none of them.
    pub fn columns(&self) -> Vec<String> {
        let mut columns = self.labels();
        columns.extend(self.abx_group.iter().filter(|group| !self.labels().contains(group)).cloned());
        columns
    }
}
fn default_label() -> String {
    "label".into()
}
fn default_few() -> Vec<usize> {
    vec![1, 10, 100]
}
fn default_draws() -> usize {
    10
}

/// `knn`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KnnSettings {
    /// k, clipped to the bank's size.
    pub neighbours: usize,
    /// Weight exp(cos / temperature).
    pub temperature: f64,
    /// k's among which each representation, floors included, gets its best on a held-out part of the bank.
    pub candidates: Vec<usize>,
}
impl Default for KnnSettings {
    fn default() -> Self {
        Self { neighbours: 200, temperature: 0.1, candidates: vec![1, 5, 20, 200] }
    }
}

#[cfg(test)]
pub(crate) mod golden {
    //! Numbers that `tests/golden/evaluate.py` computed in numpy, and the features it computed them from.

    use super::features::Features;

    pub(crate) const WIDTH: usize = 8;
    pub(crate) const BANK_ROWS: usize = 240;
    pub(crate) const QUERY_ROWS: usize = 60;

    pub(crate) fn numbers() -> serde_json::Value {
        serde_json::from_str(include_str!("../../tests/golden/evaluate.json")).unwrap()
    }

    pub(crate) fn integers(value: &serde_json::Value) -> Vec<u32> {
        value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
    }

    /// The formula of `evaluate.py`, and each row's class.
    pub(crate) fn features(first: usize, rows: usize) -> (Features, Vec<u32>) {
        let mut values = vec![];
        let classes: Vec<u32> = (first..first + rows).map(|i| (i % 3) as u32).collect();
        for i in first..first + rows {
            for j in 0..WIDTH {
                let (c, i, j) = ((i % 3) as f64, i as f64, j as f64);
                values.push((libm::sin(1.0 + 0.7 * i + 1.3 * j + 0.11 * i * j) + 0.6 * libm::cos(2.0 * c + j)) as f32);
            }
        }
        let labels = classes.iter().map(ToString::to_string).collect();
        (
            Features { values, width: WIDTH, labels, sample_ids: (first as u64..(first + rows) as u64).collect() },
            classes,
        )
    }

    #[test]
    fn features_of_both_sides_have_the_same_classes() {
        assert_eq!(features(5_000, QUERY_ROWS).1, integers(&numbers()["query_classes"]));
    }
}
