//! Every shard once: one that cannot be read is a finding, and hides nothing about the others.
use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;

use super::{
    Lint,
    open::{Opened, unreadable},
};
use crate::{
    error::{Error, Result, Stage},
    select::shards::{Shard, ShardSet},
};

/// A pass over the rows of shards.
pub(super) trait EachShard {
    /// What it has gathered.
    fn lint(&mut self) -> &mut Lint;

    /// Reads one shard; `progress` hears how many rows were read of all shards.
    ///
    /// # Errors
    /// It cannot be read.
    async fn shard(&mut self, set: &ShardSet, shard: &Arc<Shard>, progress: &mut dyn FnMut(u64)) -> Result<()>;
}

/// Notes what could not be opened and reads the rest. The set comes back where any shard could be opened; `progress` hears of
/// rows done and rows there are.
pub(super) async fn each_shard(
    pass: &mut impl EachShard,
    opened: Opened,
    progress: &mut dyn FnMut(u64, u64),
) -> Option<ShardSet> {
    let Opened { set, unread, differences } = opened;
    let lint = pass.lint();
    lint.unread_shards = unread.len() as u64;
    lint.differences = differences;
    unread.into_iter().for_each(|finding| lint.findings.add(finding));
    let set = set?;
    let rows = set.rows();
    for shard in &set.shards {
        // Malformed pages can make the Parquet reader panic.
        let read = AssertUnwindSafe(pass.shard(&set, shard, &mut |done| progress(done, rows))).catch_unwind().await;
        let read = read.unwrap_or_else(|_| {
            let reason = "is malformed; the Parquet reader gave up on it; write the shard again or leave it out";
            Err(Error::at(Stage::Select, &shard.name, reason))
        });
        let lint = pass.lint();
        match read {
            Ok(()) => lint.shards += 1,
            Err(error) => {
                lint.unread_shards += 1;
                lint.findings.add(unreadable(&shard.name, &error));
            }
        }
    }
    Some(set)
}
