//! The selection's rows in the order of an epoch.
//!
//! [`order`] counts, [`mixture`] and [`streams`] put several sources side by side, [`items`] names rows, [`window`] and [`fetch`] bring their bytes (`referenced` those of other files), [`ordered_scan`] hands them out
//! in batches; [`epoch`] puts the plan together.
pub mod budget;
pub mod caption_columns;
pub mod epoch;
pub mod failure;
pub mod fetch;
pub mod items;
pub mod mixture;
pub mod order;
pub mod ordered_scan;
pub mod quarantine;
mod ranges;
mod referenced;
pub mod streams;
pub mod substitute;
pub mod tensor_column;
pub mod window;
pub mod window_columns;

use std::collections::BTreeMap;

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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<String>,
    /// Which samples: any query over `shards` that returns `sample_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Instead of `sql`: a file that `diptych select … --to FILE` wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// Every value of a column as a source of its own, all of one weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalanceSettings>,
    /// With `sources` or `balance`: items of an epoch. Without it an epoch ends when the source that lasts longest by its weight has
    /// been seen once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_items: Option<u64>,
    /// Rows mixed at a time, over all lanes.
    #[serde(default = "default_window_rows")]
    pub shuffle_window_rows: u64,
    /// Compressed bytes mixed at a time, over all lanes.
    #[serde(default = "default_window_megabytes")]
    pub shuffle_window_megabytes: u64,
    /// Decoded series that stay in memory from pass to pass, as part of `memory_megabytes`; what has no room is read again, and with
    /// 0 all are. Where `memory_megabytes` are few, the queue holds less for them.
    #[serde(default = "default_kept_megabytes")]
    pub kept_megabytes: u64,
    /// Slices of the epoch's row groups that are read side by side; ranks that divide it can share the epoch.
    #[serde(default = "default_lanes")]
    pub lanes: u32,
    /// A run stops when a larger share of items, judged after 1,000, is bad.
    #[serde(default = "default_max_bad_share")]
    pub max_bad_share: f64,
    /// What the files call our columns, where they call them otherwise: `image = "jpg"`, `caption = "meta.text"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Tables that SQL may join with: name = file or glob of .parquet, .csv, .tsv, .json, .jsonl or .arrow.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, String>,
    /// The CLIP that `clip_score(image, caption)` asks in this pipeline's SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_score: Option<ClipScoreSettings>,
    /// Instead of `shards` and `sql`: several sources, mixed by weight.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, SourceSettings>,
    /// Patience with object stores and web servers.
    #[serde(default)]
    pub store: StoreSettings,
    /// Keeps what was read from these on a local disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSettings>,
}

impl ScanSettings {
    /// Files, globs and folders of all sources.
    pub fn all_shards(&self) -> Vec<String> {
        let of_sources = self.sources.values().flat_map(|source| &source.shards);
        self.shards.iter().chain(of_sources).cloned().collect()
    }
}

/// `[scan.balance]`: items come from every value of a column equally often, exactly so in every thousand items of a lane, and by
/// chance within a batch. Samples without a value are one group. Groups that are smaller repeat, with other draws.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceSettings {
    /// A narrow column of the schema, such as `group` or `label`, of at most 1,000 values.
    pub column: String,
}

/// `[scan.clip_score]`: exactly one of `weights` and `run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipScoreSettings {
    /// A safetensors file, or the folder in which it is with its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// The folder of a run, of which the newest checkpoint counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// `hessel` (2.5 cos, captions after "A photo depicts "), `torchmetrics` (100 cos) or `cosine`.
    #[serde(default = "default_variant")]
    pub variant: String,
}
fn default_variant() -> String {
    "hessel".into()
}

/// `[scan.sources.NAME]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Files, globs or folders.
    #[serde(default)]
    pub shards: Vec<String>,
    /// Which of their samples; all where neither this nor `selection` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Instead of `sql`: a file that `diptych select … --to FILE` wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// Its share of the items, relative to the weights of the others.
    #[serde(default = "default_weight")]
    pub weight: f64,
}
fn default_weight() -> f64 {
    1.0
}

/// The query that takes every sample.
pub const EVERY_SAMPLE: &str = "SELECT sample_id FROM shards";

impl Default for ScanSettings {
    fn default() -> Self {
        Self {
            schema: default_schema(),
            shards: vec![],
            sql: None,
            selection: None,
            balance: None,
            epoch_items: None,
            shuffle_window_rows: default_window_rows(),
            shuffle_window_megabytes: default_window_megabytes(),
            kept_megabytes: default_kept_megabytes(),
            lanes: default_lanes(),
            max_bad_share: default_max_bad_share(),
            columns: BTreeMap::new(),
            tables: BTreeMap::new(),
            clip_score: None,
            sources: BTreeMap::new(),
            store: StoreSettings::default(),
            cache: None,
        }
    }
}
fn default_schema() -> String {
    "image_text".into()
}
fn default_window_rows() -> u64 {
    8_192
}
fn default_window_megabytes() -> u64 {
    512
}
fn default_kept_megabytes() -> u64 {
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
