//! Rows of a record batch of Arrow IPC, which is read whole for the columns that are wanted.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use datafusion::arrow::{
    array::{RecordBatch, UInt32Array},
    buffer::Buffer,
    compute::take_record_batch,
};

use super::{Fetcher, Reading};
use crate::{
    error::{Context, Result, Stage},
    scan::budget::Charged,
    select::{ipc::IpcIndex, shards::Shard},
};

impl Fetcher {
    pub(super) async fn record_batch_rows(
        &self,
        shard: &Shard,
        index: &Arc<IpcIndex>,
        batch: usize,
        rows: &[u32],
        reading: &Reading,
    ) -> Result<RecordBatch> {
        let place = || format!("{} record batch {batch}", shard.name);
        let places = self.places(shard);
        let roots = places.iter().flatten().filter_map(|place| index.schema().index_of(&place.root).ok());
        let roots: Vec<usize> = roots.collect::<BTreeSet<_>>().into_iter().collect();
        let fetch =
            |ranges: Vec<Range<u64>>| async move { self.fetch(&shard.location, &shard.name, &ranges, reading).await };
        let own = |body: Vec<u8>| {
            let charge = Arc::new(self.budget.charge_now(body.len() as u64));
            Buffer::from(Charged::into_bytes(body, charge))
        };
        let whole = index.read(batch, &roots, &shard.name, fetch, own).await?;
        let whole = self.arrange(&whole, &places, &place())?;
        let rows = UInt32Array::from(rows.to_vec());
        let taken =
            take_record_batch(&whole, &rows).context(Stage::Scan, place(), "has fewer rows than were selected")?;
        self.compacted(taken, !index.is_compressed(batch))
    }
}
