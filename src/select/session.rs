//! DataFusion sessions with the table `shards` and our functions.
use std::sync::Arc;

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::functions;
use super::header_columns::HeaderColumns;
use super::provider::{STORE_URL, ShardTable};
use super::shards::ShardSet;
use crate::error::{Context, Result, Stage};

/// Rows of a batch of narrow columns.
const BATCH_ROWS: usize = 8_192;
/// Name of the table.
pub const SHARDS_TABLE: &str = "shards";

/// A session in which `shards` is the table of `set`; plans have `target_partitions` parallel parts.
///
/// # Errors
/// None that a user can cause.
pub fn session(set: &ShardSet, target_partitions: usize) -> Result<SessionContext> {
    let context = SessionContext::new_with_config(config(target_partitions));
    register(&context, set)?;
    Ok(context)
}

/// How queries are planned.
pub(crate) fn config(target_partitions: usize) -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(target_partitions.max(1)).with_batch_size(BATCH_ROWS);
    // A folder means everything below it, as it does for shards.
    config.options_mut().execution.listing_table_ignore_subdirectory = false;
    let parquet = &mut config.options_mut().execution.parquet;
    parquet.pruning = true;
    parquet.enable_page_index = true;
    // Of narrow columns every page is cheap, and decoding them twice is not; the provider turns this on for blobs.
    parquet.pushdown_filters = false;
    config
}

/// Adds the table `shards`, its store and our functions.
///
/// # Errors
/// None that a user can cause.
pub(crate) fn register(context: &SessionContext, set: &ShardSet) -> Result<()> {
    let place = SHARDS_TABLE;
    let url = ObjectStoreUrl::parse(STORE_URL).context(Stage::Internal, place, "cannot name the store")?;
    context.register_object_store(url.as_ref(), Arc::clone(&set.reads));
    context.register_table(SHARDS_TABLE, Arc::new(ShardTable::new(set))).context(
        Stage::Internal,
        place,
        "cannot register the table",
    )?;
    for function in functions::all(set) {
        context.register_udf(function);
    }
    context.register_udf(functions::clip_score::without_weights());
    context.add_analyzer_rule(Arc::new(HeaderColumns));
    Ok(())
}

/// Parallel parts of a plan where the caller has no opinion: one per core.
pub(crate) fn default_partitions() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
