//! Which shard a failed query failed in: DataFusion's errors do not say.
use std::sync::Arc;

use super::select::{Query, Unfinished, collect};
use super::shards::ShardSet;
use crate::error::{Error, Stage};

/// Runs a query, in which reading failed, again over each shard alone, and says in which it fails and why. `None` where it
/// fails in none, so that not a shard is at fault but what they are together.
///
/// Runs only after a failure; costs at most what the query costs.
pub(crate) async fn culprit(query: &Query<'_>) -> Option<Error> {
    let shards = query.shards;
    for shard in &shards.shards {
        let alone = ShardSet { shards: vec![Arc::clone(shard)], ..shards.clone() };
        let query = Query { shards: &alone, ..query.clone() };
        let Ok(planned) = query.plan(1).await else { continue };
        if let Err(Unfinished::Reading(error)) = collect(shards, &planned).await {
            let reason = "the query fails in this shard; where the cause is no fault of the query, write the shard again \
                          or leave it out";
            return Some(Error::at(Stage::Select, &shard.name, reason).caused_by(error));
        }
    }
    None
}
