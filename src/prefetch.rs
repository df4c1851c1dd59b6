//! The queue between the data half and the trainer, bounded in bytes.
use serde::{Deserialize, Serialize};

/// `[prefetch]` of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefetchSettings {
    /// Items of a global batch.
    pub batch_rows: usize,
    /// Bytes of finished batches that may wait.
    #[serde(default = "default_capacity")]
    pub capacity_megabytes: u64,
    /// BLAKE3 of every item's pixels in the batch digest.
    #[serde(default)]
    pub pixel_digest: bool,
}
fn default_capacity() -> u64 {
    512
}
