//! The words of `sql` and `functions`.
use std::path::PathBuf;

use clap::Args;
use diptych::{
    error::Result,
    ingest::ImportSettings,
    run::{
        functions,
        sql::{self, Format},
    },
};

/// Runs one query over shards and files and prints its rows, or writes them into shards.
///
/// A table may be named by a file, a folder or a glob in quotes: Parquet, CSV, JSON lines or Arrow IPC. Blobs are printed
/// as their sizes. Statements that change something are refused.
#[derive(Debug, Args)]
pub(crate) struct SqlWords {
    /// SELECT, EXPLAIN, SHOW or DESCRIBE.
    query: String,
    /// Shards, as file, folder or glob, that become the table `shards` with the column `sample_id`. May be repeated.
    #[arg(long, value_name = "GLOB")]
    shards: Vec<String>,
    /// Schema of the shards.
    #[arg(long, value_name = "NAME", default_value = "image_text", requires = "shards")]
    schema: String,
    /// Prints every row as a JSON object on a line of its own, binary values in hexadecimal; with --to, the report.
    #[arg(long)]
    json: bool,
    /// Prints every row as CSV with a header line, binary values in hexadecimal.
    #[arg(long, conflicts_with_all = ["json", "to"])]
    csv: bool,
    /// Rows of the printed table.
    #[arg(long, value_name = "N", default_value_t = 40, conflicts_with_all = ["json", "csv", "to"])]
    rows: usize,
    /// Writes the rows into shards in this folder instead of printing them.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Sorts the rows by these columns, separated by commas; shards keep that order.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    sort_by: Vec<String>,
    /// Names the random order in which rows with images are written.
    #[arg(long, value_name = "N", requires = "to", conflicts_with_all = ["keep_order", "sort_by"])]
    shuffle_seed: Option<u64>,
    /// Writes rows in the order of the query instead of a random one.
    #[arg(long, requires = "to")]
    keep_order: bool,
    /// Replaces a data set that is in the folder already.
    #[arg(long, requires = "to")]
    overwrite: bool,
    /// Megabytes of images at which a shard is closed.
    #[arg(long, value_name = "N", requires = "to")]
    shard_megabytes: Option<u64>,
    /// Rows at which a row group with images is closed.
    #[arg(long, value_name = "N", requires = "to")]
    row_group_rows: Option<usize>,
    /// Megabytes that sorts, joins and groups may hold before they spill to temporary files.
    #[arg(long, value_name = "N", default_value_t = 2_048)]
    memory_megabytes: usize,
}

/// Lists the functions that SQL has here beside DataFusion's own, or prints one with an example.
#[derive(Debug, Args)]
pub(crate) struct FunctionsWords {
    /// One of them.
    name: Option<String>,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

impl SqlWords {
    pub(crate) fn run(self) -> Result<()> {
        let default = ImportSettings::default();
        let settings = ImportSettings {
            keep_order: self.keep_order || !self.sort_by.is_empty(),
            seed: self.shuffle_seed.unwrap_or(default.seed),
            shard_megabytes: self.shard_megabytes.unwrap_or(default.shard_megabytes),
            row_group_rows: self.row_group_rows.unwrap_or(default.row_group_rows),
            overwrite: self.overwrite,
            // The query can ask `image_decodes(image)`; most images here have been checked when they were imported.
            decode_check: false,
            ..default
        };
        sql::run(&sql::Request {
            sql: self.query,
            shards: self.shards,
            schema: self.schema,
            format: match (self.json, self.csv) {
                (true, _) => Format::JsonLines,
                (_, true) => Format::Csv,
                _ => Format::Table,
            },
            rows: self.rows,
            to: self.to,
            sort_by: self.sort_by,
            settings,
            memory_megabytes: self.memory_megabytes,
        })
    }
}

impl FunctionsWords {
    pub(crate) fn run(&self) -> Result<()> {
        functions::run(self.name.as_deref(), self.json)
    }
}
