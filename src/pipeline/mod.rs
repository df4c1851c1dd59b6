//! The pipeline file: [`Pipeline`] as written, [`Plan`] as resolved, every mistake at once.
//!
//! ```toml
//! [scan]
//! shards = ["data/train"]
//! [augment]
//! image = [{ random_resized_crop = { side_pixels = 224 } }, { horizontal_flip = { probability = 0.5 } }]
//! [pair.two_views]
//! [prefetch]
//! batch_rows = 256
//! [method.simclr]
//! encoder.resnet50 = {}
//! [train]
//! epochs = 100
//! optimizer.lars = {}
//! ```
//!
//! The headings stand in flow order. Reading a pipeline touches no data and no device.
mod clip;
mod cpc;
mod document;
mod mistakes;
mod ranges;
mod reader;
mod resolve;
mod source;
mod sources;

pub use resolve::Plan;
use serde::{Deserialize, Serialize};
pub use source::EMBEDDED;

use crate::{
    augment::recipe::AugmentSettings, evaluate::EvaluateSettings, method::MethodSettings, pair::PairSettings,
    prefetch::PrefetchSettings, scan::ScanSettings, train::TrainSettings,
};

/// A pipeline as written: plain data, with defaults where the file says nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Names every random draw of the run.
    #[serde(default)]
    pub seed: u64,
    /// `cpu` or `cuda:N`.
    #[serde(default = "default_device")]
    pub device: String,
    /// Memory of the data half: windows, batches in flight and the queue, in units of 2²⁰ bytes.
    #[serde(default = "default_memory")]
    pub memory_megabytes: u64,
    /// Which samples, in which order.
    pub scan: ScanSettings,
    /// Encoded images into pixels.
    #[serde(default)]
    pub augment: AugmentSettings,
    /// What meets in a batch.
    pub pair: PairSettings,
    /// The queue.
    pub prefetch: PrefetchSettings,
    /// Encoder, head, loss.
    pub method: MethodSettings,
    /// The loop.
    pub train: TrainSettings,
    /// Scores of frozen embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<EvaluateSettings>,
}

fn default_device() -> String {
    "cpu".into()
}
fn default_memory() -> u64 {
    4_096
}
