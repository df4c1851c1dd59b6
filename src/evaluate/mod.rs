//! Frozen embeddings and their scores.
use serde::{Deserialize, Serialize};

/// `[evaluate]` of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSettings {
    /// Samples with known labels.
    pub bank_sql: String,
    /// Samples to classify.
    pub query_sql: String,
    /// Column with the label.
    #[serde(default = "default_label")]
    pub label: String,
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
