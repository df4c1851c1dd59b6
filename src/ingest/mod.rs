//! Foreign data into shards: class folders and folders with a metadata table (of images or audio), IDX files, WebDataset
//! tars, Parquet files of images (Hugging Face's and img2dataset's among them), tables of paths, files of series,
//! documents.
//!
//! ```text
//!  FROM ──▶ walk ──▶ detect ──▶ order ──▶ check ──────▶ shard ────▶ manifest
//!           names    what kind  keyed,    header and    Parquet,    written last
//!           + sizes  of source  by split  full decode   one blob
//!                                         ✗ quarantine  per page
//!  └────────── pass 1: names only ─────┘└──────── pass 2: bytes ──────────┘
//! ```
//!
//! Rows are written in a keyed random order: class folders imported as they lie would fill batches with negatives of
//! the same class, which no shuffle window can mix away.
//!
//! **Memory.** Pass 1 keeps about 150 bytes per file or sample, and the tables of metadata folders and of paths whole. Pass 2 holds at most two chunks of [`CHUNK_BYTES`] of encoded
//! images (one being read and checked, one being written), two row groups (rows, and the pages Parquet made of them), and
//! one image more in each of these where images are larger than they; and the pixels of one image per thread.
//!
//! **Disk.** Sources without random access (`.tar.gz`, Parquet, tables of documents) are copied once into a nameless file in the folder of the
//! import, so they need that much free space besides the shards; plain tars and files are read where they are.
//!
//! **Crashes.** A shard appears under its name complete or not at all, and the manifest appears last; what a crashed import
//! left is removed by the next one into the same folder (see [`destination`]).
mod audio;
mod check;
mod class_folders;
mod class_labels;
mod columns;
mod csv_series;
pub mod destination;
mod detect;
mod document_table;
pub mod fingerprint;
mod idx;
mod import;
mod kind;
mod made_folders;
pub mod manifest;
mod metadata_folder;
mod metadata_table;
mod modality;
mod order;
pub(crate) mod parquet_layout;
mod parquet_rows;
mod path_table;
mod patterns;
mod quarantine;
mod references;
mod resample;
mod row_batch;
mod rows;
mod samples;
mod shard;
mod sidecar;
pub mod source;
mod split_name;
pub(crate) mod spool;
mod start_times;
mod tar_entries;
mod text_series;
mod walk;
mod webdataset;

use std::collections::BTreeMap;

use serde::Serialize;

pub use columns::{ColumnName, Filled};
pub use idx::{FASHION_MNIST, known_label_names};
pub use import::{import, import_source};
pub(crate) use import::{import_made, into_folder};
pub use kind::Kind;
pub(crate) use made_folders::MadeFolders;
pub use modality::Modality;
pub(crate) use parquet_layout::holds_images;
pub use shard::{BLOB_PAGE_BYTES, KEY_CONTENT, KEY_SCHEMA, KEY_SCHEMA_VERSION};
pub(crate) use shard::{as_blobs, zstd};

use crate::error::{Error, Result, Stage};
use crate::pair::Numbers;

/// The manifest of a data set, written last.
pub const MANIFEST_FILE: &str = "diptych.json";
/// What could not be imported: `source`, `class`, `message`. No shard, though it lies beside them.
pub const QUARANTINE_FILE: &str = "quarantine.parquet";
/// Stands in a folder while an import writes into it, and after one that crashed.
pub const IMPORTING_FILE: &str = "diptych.importing";
/// Files that lie beside shards and hold no rows of theirs.
pub(crate) const BESIDE_SHARDS: [&str; 3] = [MANIFEST_FILE, QUARANTINE_FILE, IMPORTING_FILE];

/// Encoded bytes that are read and checked as one piece of work, while the piece before it is written.
pub const CHUNK_BYTES: u64 = 32 << 20;
/// Images that are read and checked as one piece of work, where they are small.
pub const CHUNK_IMAGES: usize = 4096;
/// Labels that a report counts one by one: more are captions in disguise.
pub const LABELS_COUNTED: usize = 10_000;
/// Numbers of one row of a series at most, 16 MB as f32: longer series become several rows, so that reading a window costs
/// a row of memory and not hours of samples. Windows do not reach from one row into the next.
pub const MOST_ROW_NUMBERS: usize = 4 << 20;
/// A larger file is no image and no series: it is refused unread.
pub const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// How to import.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportSettings {
    /// Encoded bytes per shard.
    pub shard_megabytes: u64,
    /// Rows per shard, where that is reached before the bytes.
    pub shard_rows: Option<u64>,
    /// Rows per row group.
    pub row_group_rows: usize,
    /// Encoded bytes per row group, where that is reached before the rows.
    pub row_group_megabytes: u64,
    /// Rows in the order of names instead of a keyed random one.
    pub keep_order: bool,
    /// Names the random order.
    pub seed: u64,
    /// Threads that read, check and encode; 0: one per core.
    pub threads: usize,
    /// Decode every image, not only its header.
    pub decode_check: bool,
    /// Images that declare more pixels go to quarantine.
    pub max_megapixels: f64,
    /// Names of the classes of IDX files, by index; empty: the index itself is the label.
    pub label_names: Vec<String>,
    /// What audio becomes; tables of numbers are f32.
    pub numbers: Numbers,
    /// Steps per second that audio, and series with times, are brought to; `None`: as they are.
    pub rate_hz: Option<f64>,
    /// What the source is, where its files do not say.
    pub read_as: Option<Kind>,
    /// What fills which column of the schema, where it is not called as usual.
    pub columns: Vec<ColumnName>,
    /// Write reference shards: the images stay in the files they are in.
    pub reference: bool,
    /// Replace a data set that is already there.
    pub overwrite: bool,
}

impl Default for ImportSettings {
    fn default() -> Self {
        Self {
            shard_megabytes: 256,
            shard_rows: None,
            row_group_rows: 256,
            row_group_megabytes: 32,
            keep_order: false,
            seed: 0,
            threads: 0,
            decode_check: true,
            max_megapixels: 100.0,
            label_names: vec![],
            numbers: Numbers::I16,
            rate_hz: None,
            read_as: None,
            columns: vec![],
            reference: false,
            overwrite: false,
        }
    }
}

impl ImportSettings {
    /// Whether every number can be meant.
    ///
    /// # Errors
    /// Every one that cannot, at once.
    pub fn check(&self) -> Result<()> {
        let at_least_one = [
            ("shard_megabytes", self.shard_megabytes == 0),
            ("shard_rows", self.shard_rows == Some(0)),
            ("row_group_rows", self.row_group_rows == 0),
            ("row_group_megabytes", self.row_group_megabytes == 0),
        ];
        let mut wrong: Vec<String> = at_least_one
            .into_iter()
            .filter(|(_, is_zero)| *is_zero)
            .map(|(name, _)| format!("{name} is 0; give at least 1"))
            .collect();
        if self.max_megapixels.is_nan() || self.max_megapixels <= 0.0 {
            wrong.push(format!("max_megapixels is {}; give a number above 0", self.max_megapixels));
        }
        if let Some(rate) = self.rate_hz.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
            wrong.push(format!("rate_hz is {rate}; give a number above 0"));
        }
        wrong.extend(columns::check(&self.columns).err());
        if wrong.is_empty() { Ok(()) } else { Err(Error::at(Stage::CommandLine, "", wrong.join("; "))) }
    }
}

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Pass 1: names so far.
    Listing {
        /// Files seen.
        files: u64,
    },
    /// Pass 2.
    Writing {
        /// Images done: written or put into quarantine.
        done: u64,
        /// Images there are.
        total: u64,
        /// Encoded bytes written.
        bytes: u64,
        /// Images in quarantine so far.
        quarantined: u64,
        /// Shards complete.
        shards: usize,
    },
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ImportReport {
    /// What FROM was: `class_folders`, `metadata_folder`, `idx`, `webdataset`, `huggingface_parquet`, ….
    pub kind: String,
    /// What its rows hold: images or series.
    pub samples: String,
    /// Rows written.
    pub rows: u64,
    /// Encoded bytes written.
    pub image_bytes: u64,
    /// Images that could not be used; [`QUARANTINE_FILE`] names them.
    pub quarantined: u64,
    /// Rows by split; "" for rows without.
    pub splits: BTreeMap<String, u64>,
    /// Rows by label; "" for rows without. Those beyond the first [`LABELS_COUNTED`] are together under "…".
    pub labels: BTreeMap<String, u64>,
    /// Files that were not read, by what they are: ".txt", "hidden", ….
    pub skipped: BTreeMap<String, u64>,
    /// Rows that the source itself marks as failed, by what it says (`failed_to_download`, …).
    pub left_out: BTreeMap<String, u64>,
    /// Images that no metadata table lists, and that are therefore not imported.
    pub unlisted: u64,
    /// Columns, or keys of JSON, that shards cannot carry, and why.
    pub ignored_columns: Vec<String>,
    /// What is odd about the source: archives that are cut off, one class for all images.
    pub warnings: Vec<String>,
    /// The shards, as the manifest lists them.
    pub shards: Vec<manifest::ManifestShard>,
    /// Wall time.
    pub seconds: f64,
}
