//! The words of `lint`.
use std::path::PathBuf;

use clap::Args;
use diptych::{
    lint::LintSettings,
    run::{self, lint},
};

use super::{places, sql};

/// Says what is odd about a data set: damage, duplicates, captions, sizes, schemas; of series rates, silence, clipping.
///
/// Every image of every row is decoded in full, every number of a series looked at. Exit code 0 also with findings; 1 where a shard could not be read.
#[derive(Debug, Args)]
pub(crate) struct LintWords {
    /// A pipeline file, or the name of a built-in one, whose shards are linted; all rows, whatever its SQL keeps.
    #[arg(required_unless_present = "shards")]
    pipeline: Option<String>,
    /// Files, globs or folders instead.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    shards: Vec<String>,
    /// Schema of the shards: image_text or time_series.
    #[arg(long, value_name = "NAME", conflicts_with = "pipeline")]
    schema: Option<String>,
    /// Changes one setting of the pipeline, such as augment.max_megapixels=50. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "pipeline")]
    sets: Vec<String>,
    /// What the shards call a column of the schema, such as image=jpg or caption=meta.text. May be repeated.
    #[arg(long = "column", value_name = "SCHEMA_NAME=FILE_NAME", value_parser = sql::column)]
    columns: Vec<(String, String)>,
    /// Writes lint.parquet, one row per finding, and lint.html, with histograms and images, into this folder.
    #[arg(long, value_name = "DIR", value_parser = places::local)]
    to: Option<PathBuf>,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
    /// Exit code 1 where images or series are bad, too.
    #[arg(long, value_name = "WHAT", value_parser = ["bad"])]
    fail_on: Option<String>,
    /// Reads narrow columns only: no images, no numbers of series, no duplicates.
    #[arg(long)]
    no_images: bool,
    /// Perceptual hashes that differ in at most so many of 64 bits are near duplicates; 0 to 7.
    #[arg(long, value_name = "N", default_value_t = 3)]
    near_bits: u32,
    /// Captions that more rows than this share are suspicious.
    #[arg(long, value_name = "N", default_value_t = 10)]
    repeated: u64,
}

impl From<LintWords> for lint::Request {
    fn from(words: LintWords) -> Self {
        let (sets, default) = (words.sets, LintSettings::default());
        Self {
            pipeline: words.pipeline.map(|pipeline| run::Named { pipeline, sets }),
            shards: words.shards,
            schema: words.schema,
            columns: words.columns.into_iter().collect(),
            json: words.json,
            fail_on: words.fail_on.map(|_| lint::FailOn::Bad),
            settings: LintSettings {
                images: !words.no_images,
                near_bits: words.near_bits,
                repeated_more_than: words.repeated,
                threads: 0,
                // Only the page shows them.
                thumbnails: if words.to.is_some() { default.thumbnails } else { 0 },
                ..default
            },
            to: words.to,
        }
    }
}
