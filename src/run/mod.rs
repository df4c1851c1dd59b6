//! One function per command: the rooms of the library put together.
//!
//! Results go to stdout through [`output`], logs and progress to stderr through [`progress`].
mod balance;
pub mod bench;
pub mod captioned_sheet;
pub mod check;
pub mod choose;
pub mod clip_evaluation;
pub mod clip_model;
pub mod contact_sheet;
pub mod data;
pub mod embed;
mod embedded_rows;
mod embedding_shards;
pub mod evaluate;
pub mod explain;
pub mod export;
mod first_items;
pub mod folder;
pub mod functions;
pub mod import;
pub mod index;
mod letters;
pub mod lint;
pub mod lint_page;
pub mod memory;
pub mod methods;
pub mod output;
pub mod preview;
mod printable;
pub mod progress;
pub mod score;
pub mod select;
pub mod selection;
pub mod source;
pub mod sql;
mod token_counts;
pub mod token_sheet;
mod top_matches;
pub mod trace_sheet;
pub mod train;

use crate::{error::Result, pipeline::Plan};

/// A pipeline as the command line names it.
#[derive(Debug, Clone)]
pub struct Named {
    /// A path, or the name of a built-in pipeline.
    pub pipeline: String,
    /// `--set` texts.
    pub sets: Vec<String>,
}

impl Named {
    /// The resolved pipeline.
    ///
    /// # Errors
    /// All mistakes of the file and the overrides.
    pub fn plan(&self) -> Result<Plan> {
        Plan::read(&self.pipeline, &self.sets)
    }
}
