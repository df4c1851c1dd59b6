//! The words of `import` and `index`.
use std::path::PathBuf;

use clap::Args;
use diptych::{
    ingest::{ColumnName, ImportSettings, Kind},
    pair::Numbers,
    run::import,
};

use super::places;

/// Turns images in folders, archives and tables, audio and other series, and documents into Parquet shards.
///
/// Reads class folders, a folder with metadata.csv|jsonl|parquet, IDX files, WebDataset (.tar, .tar.gz), img2dataset's
/// Parquet or tars, Parquet with encoded images (Hugging Face's and others), and CSV, TSV, JSON lines or Parquet of paths;
/// folders of WAV, FLAC, Ogg and MP3 likewise, .ts and UCR files, CSV of one series each; with --as documents folders of
/// text, and CSV and JSON lines with a document per row. Class folders below train/ and test/ set the column `split`. Rows
/// are written in a keyed random order. Files that cannot be decoded go to a quarantine table beside the shards.
#[derive(Debug, Args)]
pub(crate) struct ImportWords {
    /// Folder, file, or pattern such as 'shard-{000..012}.tar'; synthetic:shapes makes a small set of coloured shapes.
    from: PathBuf,
    /// Folder to write shards into.
    #[arg(value_parser = places::local)]
    to: PathBuf,
    /// What FROM is, where it does not show: class_folders, metadata_folder, idx, webdataset, parquet, img2dataset, paths, audio_folder, ts, ucr_tsv, csv_series, documents.
    #[arg(long = "as", value_name = "KIND")]
    read_as: Option<Kind>,
    /// What fills image, caption, label or split, such as caption=alt_text, where it is not called as usual. May be repeated.
    #[arg(long = "column", value_name = "SCHEMA_NAME=FILE_NAME")]
    columns: Vec<ColumnName>,
    /// Writes rows in the order of the source instead of a random one.
    #[arg(long)]
    keep_order: bool,
    /// Names the random order of the rows.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Megabytes of images at which a shard is closed.
    #[arg(long, value_name = "N")]
    shard_megabytes: Option<u64>,
    /// Rows at which a shard is closed.
    #[arg(long, value_name = "N")]
    shard_rows: Option<u64>,
    /// Rows at which a row group is closed.
    #[arg(long, value_name = "N")]
    row_group_rows: Option<usize>,
    /// Whether every image is decoded, so that damage is found now; false reads headers alone.
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    decode_check: Option<bool>,
    /// What audio becomes: i16, half the memory and all that 16 bits hold, or f32.
    #[arg(long, value_name = "NUMBERS")]
    samples: Option<Numbers>,
    /// Resamples audio, and CSV with times, to so many steps per second; what lies above half of it is filtered out.
    #[arg(long, value_name = "HZ")]
    rate_hz: Option<f64>,
    /// Threads that read and decode; 0 means one per core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Names of the classes of IDX files in the order of their numbers, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    label_names: Vec<String>,
    /// Replaces a data set that is in the folder already.
    #[arg(long)]
    overwrite: bool,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

impl ImportWords {
    /// As given, if it was.
    pub(crate) fn shard_megabytes(&self) -> Option<u64> {
        self.shard_megabytes
    }
}

impl From<ImportWords> for import::Request {
    fn from(words: ImportWords) -> Self {
        let default = ImportSettings::default();
        let settings = ImportSettings {
            keep_order: words.keep_order,
            seed: words.seed.unwrap_or(default.seed),
            shard_megabytes: words.shard_megabytes.unwrap_or(default.shard_megabytes),
            shard_rows: words.shard_rows.or(default.shard_rows),
            row_group_rows: words.row_group_rows.unwrap_or(default.row_group_rows),
            decode_check: words.decode_check.unwrap_or(default.decode_check),
            threads: words.threads.unwrap_or(default.threads),
            label_names: words.label_names,
            numbers: words.samples.unwrap_or(default.numbers),
            rate_hz: words.rate_hz,
            read_as: words.read_as,
            columns: words.columns,
            overwrite: words.overwrite,
            ..default
        };
        Self { from: words.from, to: words.to, settings, json: words.json }
    }
}
