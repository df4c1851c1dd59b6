//! The words of `embed`.
use std::path::PathBuf;

use clap::Args;
use diptych::{
    error::Result,
    run::embed::{self, Request},
};

/// Writes embeddings of images and captions, of unit length, as Parquet.
///
/// Rows keep their order; `image` becomes image_embedding and `caption` text_embedding, lists of f32 of one length, and other
/// columns are kept, sample_id among them. A bad image has no embedding and is listed in quarantine.parquet.
#[derive(Debug, Args)]
pub(crate) struct EmbedWords {
    #[command(flatten)]
    model: super::clip_model::ClipModelWords,
    /// Shards, as file, folder or glob, that become the table `shards` with the column `sample_id`.
    #[arg(long, value_name = "GLOB", num_args = 1.., required = true)]
    shards: Vec<String>,
    /// What the shards call a column of the schema, such as image=jpg or caption=meta.text. May be repeated.
    #[arg(long = "column", value_name = "SCHEMA_NAME=FILE_NAME", value_parser = super::sql::column)]
    columns: Vec<(String, String)>,
    /// SELECT that returns sample_id and image, caption or both; without it those of all rows.
    #[arg(long, value_name = "QUERY")]
    sql: Option<String>,
    /// Folder for the embeddings.
    #[arg(long, value_name = "DIR", value_parser = super::places::local)]
    to: PathBuf,
    /// Replaces a data set that is in the folder already.
    #[arg(long)]
    overwrite: bool,
    /// Share of bad images above which it stops.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    max_bad_share: f64,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a number from 0 to 1".to_owned()),
    }
}

impl EmbedWords {
    pub(crate) fn run(self) -> Result<()> {
        embed::run(&Request {
            model: self.model.wanted()?,
            shards: self.shards,
            columns: self.columns.into_iter().collect(),
            sql: self.sql,
            to: self.to,
            overwrite: self.overwrite,
            max_bad_share: self.max_bad_share,
            json: self.json,
        })
    }
}
