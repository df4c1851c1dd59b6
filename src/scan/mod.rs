//! The selection's rows in the order of an epoch.
//!
//! [`order`] counts, [`items`] names rows, [`window`] and [`fetch`] bring their bytes, [`ordered_scan`] hands them out
//! in batches; [`epoch`] puts the plan together.
pub mod budget;
pub mod epoch;
pub mod failure;
pub mod fetch;
pub mod items;
pub mod order;
pub mod ordered_scan;
pub mod quarantine;
mod ranges;
pub mod substitute;
pub mod tensor_column;
pub mod window;

use serde::{Deserialize, Serialize};

use crate::stores::{StoreSettings, cache_folder::CacheSettings};

/// `[scan]` of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanSettings {
    /// Name of the schema the shards are checked against.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// Files, globs, folders, or URLs of these (`s3://`, `gs://`, `az://`; `https://` for files and manifests).
    pub shards: Vec<String>,
    /// Which samples: any query over `shards` that returns `sample_id`.
    #[serde(default = "default_sql")]
    pub sql: String,
    /// Rows mixed at a time, over all lanes.
    #[serde(default = "default_window_rows")]
    pub shuffle_window_rows: u64,
    /// Compressed bytes mixed at a time, over all lanes.
    #[serde(default = "default_window_megabytes")]
    pub shuffle_window_megabytes: u64,
    /// Slices of the epoch's row groups that are read side by side; ranks that divide it can share the epoch.
    #[serde(default = "default_lanes")]
    pub lanes: u32,
    /// A run stops when a larger share of items, judged after 1,000, is bad.
    #[serde(default = "default_max_bad_share")]
    pub max_bad_share: f64,
    /// Patience with object stores and web servers.
    #[serde(default)]
    pub store: StoreSettings,
    /// Keeps what was read from these on a local disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSettings>,
}
fn default_schema() -> String {
    "image_text".into()
}
fn default_sql() -> String {
    "SELECT sample_id FROM shards".into()
}
fn default_window_rows() -> u64 {
    8_192
}
fn default_window_megabytes() -> u64 {
    512
}
fn default_lanes() -> u32 {
    8
}
fn default_max_bad_share() -> f64 {
    0.01
}

/// Which part of every global batch this process computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    /// This process, from 0.
    pub rank: u32,
    /// Processes that share the epoch; divides `lanes`.
    pub size: u32,
}

impl World {
    /// One process.
    pub const ONE: Self = Self { rank: 0, size: 1 };
}
