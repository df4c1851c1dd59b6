//! Which shard a failed query failed in: DataFusion's errors do not say.
use datafusion::{
    object_store::ObjectStore,
    parquet::{
        DecodeResult,
        arrow::{ProjectionMask, push_decoder::ParquetPushDecoderBuilder},
        errors::ParquetError,
    },
};

use super::{
    footer::guarded,
    shards::{Shard, ShardSet},
};
use crate::error::{Error, Result, Stage};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 1_024;

/// Reads the narrow columns of every shard until one cannot be read, and says which and why; then the blobs, should a query
/// have failed in those. `None` where all shards can be read, so that the query itself must be at fault.
///
/// Runs only after a failure; costs at most what reading those columns costs.
pub(crate) async fn culprit(shards: &ShardSet) -> Option<Error> {
    for blobs in [false, true] {
        for shard in &shards.shards {
            if let Err(error) = read(shards, shard, blobs).await {
                return Some(error);
            }
        }
    }
    None
}

async fn read(shards: &ShardSet, shard: &Shard, blobs: bool) -> Result<()> {
    let leaves = shard.metadata.file_metadata().schema_descr().columns().iter().enumerate();
    let is_blob = |root: Option<&String>| root.is_some_and(|root| shards.blob_columns.contains(root));
    let leaves: Vec<usize> =
        leaves.filter(|(_, leaf)| is_blob(leaf.path().parts().first()) == blobs).map(|(index, _)| index).collect();
    for row_group in 0..shard.metadata.num_row_groups() {
        let mut decoder = guarded(&shard.name, || {
            let builder = ParquetPushDecoderBuilder::try_new_decoder(std::sync::Arc::clone(&shard.metadata))?;
            let mask = ProjectionMask::leaves(shard.metadata.file_metadata().schema_descr(), leaves.iter().copied());
            builder.with_row_groups(vec![row_group]).with_projection(mask).with_batch_size(BATCH_ROWS).build()
        })?;
        loop {
            let step = guarded(&shard.name, || decoder.try_decode())?;
            match step {
                DecodeResult::Data(_) => {}
                DecodeResult::Finished => break,
                DecodeResult::NeedsData(ranges) => {
                    let data = shards.store.get_ranges(&shard.location, &ranges).await;
                    let data = data.map_err(|error| {
                        Error::at(Stage::Select, &shard.name, "cannot be read; check the file and its disk")
                            .caused_by(error)
                    })?;
                    guarded(&shard.name, || -> std::result::Result<(), ParquetError> {
                        decoder.push_ranges(ranges, data)
                    })?;
                }
            }
        }
    }
    Ok(())
}
