//! `diptych index FROM TO`
use super::import;
use crate::{error::Result, ingest::ImportSettings};

/// Rows of a reference shard, which are some hundred bytes each, where the command line does not say.
const SHARD_ROWS: u64 = 250_000;

/// Writes reference shards and prints what became of them. The request is that of an import.
///
/// # Errors
/// The import's; an image that lies in no file as it is.
pub fn run(request: import::Request) -> Result<()> {
    let settings = request.settings;
    let settings = ImportSettings {
        reference: true,
        shard_rows: settings.shard_rows.or(Some(SHARD_ROWS)),
        // Of bytes that are not in the shard.
        shard_megabytes: u64::MAX >> 20,
        ..settings
    };
    import::run(&import::Request { settings, ..request })
}
