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
    select::long_series::SeriesBy,
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
    /// What the shards call a column of the schema, such as image=jpg or caption=meta.text. May be repeated.
    #[arg(long = "column", value_name = "SCHEMA_NAME=FILE_NAME", requires = "shards", value_parser = column)]
    columns: Vec<(String, String)>,
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
    #[arg(long, value_name = "DIR", value_parser = super::places::local)]
    to: Option<PathBuf>,
    /// Makes series of the rows: those of one entity, in the order of time, are one series, and every other column of numbers
    /// is a channel.
    ///
    /// Columns called label, split and group are the series' own; without a group it is the entity. NULL is a missing value; rows
    /// that are not there are not made up; the rate is that of the median distance of times (timestamps, dates, or seconds).
    #[arg(long, value_name = "ENTITY,TIME", requires = "to", conflicts_with = "sort_by")]
    series: Option<SeriesBy>,
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
    /// Megabytes that sorts, joins and groups may hold together: sorts and groups spill to temporary files at three quarters
    /// of them, hash joins fail.
    #[arg(long, value_name = "N", default_value_t = 2_048)]
    memory_megabytes: usize,
    #[command(flatten)]
    clip: super::clip_model::ClipScoreWords,
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

/// A column of the schema and what files call it.
pub(crate) fn column(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((ours, theirs)) if !ours.is_empty() && !theirs.is_empty() => Ok((ours.to_owned(), theirs.to_owned())),
        _ => Err("write it as SCHEMA_NAME=FILE_NAME, such as caption=alt_text".to_owned()),
    }
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
            columns: self.columns.into_iter().collect(),
            format: match (self.json, self.csv) {
                (true, _) => Format::JsonLines,
                (_, true) => Format::Csv,
                _ => Format::Table,
            },
            rows: self.rows,
            to: self.to,
            series: self.series,
            sort_by: self.sort_by,
            settings,
            memory_megabytes: self.memory_megabytes,
            model: self.clip.scores()?,
        })
    }
}

impl FunctionsWords {
    pub(crate) fn run(&self) -> Result<()> {
        functions::run(self.name.as_deref(), self.json)
    }
}
