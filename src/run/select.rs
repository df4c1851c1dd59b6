//! `diptych select PIPELINE`
use std::path::PathBuf;

use super::{Named, data::Data, output, progress};
use crate::{error::Result, select::select::verify};

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose `scan.sql`.
    pub pipeline: Named,
    /// Ends with a JSON line.
    pub json: bool,
    /// Runs the query again with other partition counts.
    pub verify: bool,
    /// Where to save the selection.
    pub to: Option<PathBuf>,
}

/// Selects, prints what is kept and what will never be read, and saves it where asked.
///
/// # Errors
/// Mistakes of the pipeline, the query's, or the digests of `--verify` differ.
pub fn run(request: &Request) -> Result<()> {
    let plan = request.pipeline.plan()?;
    let data = Data::open(&plan)?;
    let sql = &plan.pipeline.scan.sql;
    let (selection, report) = data.select(sql)?;
    if request.verify {
        data.runtime.block_on(verify(&data.shards, &data.schema, sql, selection.digest()))?;
        progress::log("verified: other numbers of partitions select the same items");
    }
    if let Some(path) = &request.to {
        selection.save(path)?;
        progress::log(&format!("saved to {}", path.display()));
    }
    output::line(&report.to_string())?;
    if request.json { output::json(&report) } else { Ok(()) }
}
