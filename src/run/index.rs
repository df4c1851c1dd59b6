//! `diptych index FROM TO`
use super::import;
use crate::{error::Result, ingest::ImportSettings};

/// Rows of a reference shard, which are some hundred bytes each, where the command line does not say.
const SHARD_ROWS: u64 = 250_000;

/// Writes reference shards and prints what became of them. The request is that of an import; without `shard_megabytes`
/// shards are closed by their rows alone, since the images are not in them.
///
/// # Errors
/// The import's; an image that lies in no file as it is.
pub fn run(shard_megabytes: Option<u64>, request: import::Request) -> Result<()> {
    let settings = ImportSettings {
        reference: true,
        shard_rows: request.settings.shard_rows.or(Some(SHARD_ROWS)),
        shard_megabytes: shard_megabytes.unwrap_or(u64::MAX >> 20),
        ..request.settings
    };
    import::run(&import::Request { settings, ..request })
}
