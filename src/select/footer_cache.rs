//! Parquet readers that never read a footer: the set has read them all.
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::internal_datafusion_err;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::Result;
use datafusion::object_store::path::Path;
use datafusion::object_store::{ObjectStore, ObjectStoreExt};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::shards::{Shard, ShardSet};

/// Opens shards of one set for DataFusion's Parquet source.
#[derive(Debug)]
pub struct FooterCache {
    store: Arc<dyn ObjectStore>,
    footers: HashMap<Path, Arc<ParquetMetaData>>,
}

impl FooterCache {
    /// Footers and store of `set`.
    pub fn new(set: &ShardSet) -> Self {
        let footer = |shard: &Arc<Shard>| Some((shard.location.clone(), Arc::clone(shard.parquet()?)));
        let footers = set.shards.iter().filter_map(footer);
        Self { store: Arc::clone(&set.reads), footers: footers.collect() }
    }
}

impl ParquetFileReaderFactory for FooterCache {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let location = file.object_meta.location;
        let Some(metadata) = self.footers.get(&location) else {
            return Err(internal_datafusion_err!("{location} is no Parquet shard of this set"));
        };
        Ok(Box::new(ShardReader {
            store: Arc::clone(&self.store),
            metrics: ParquetFileMetrics::new(partition_index, location.as_ref(), metrics),
            metadata: Arc::clone(metadata),
            location,
        }))
    }
}

struct ShardReader {
    store: Arc<dyn ObjectStore>,
    location: Path,
    metadata: Arc<ParquetMetaData>,
    metrics: ParquetFileMetrics,
}

impl AsyncFileReader for ShardReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.metrics.bytes_scanned.add((range.end - range.start) as usize);
        async move {
            let bytes = self.store.get_range(&self.location, range).await;
            bytes.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        self.metrics.bytes_scanned.add(ranges.iter().map(|range| (range.end - range.start) as usize).sum());
        async move {
            let bytes = self.store.get_ranges(&self.location, &ranges).await;
            bytes.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        futures::future::ready(Ok(Arc::clone(&self.metadata))).boxed()
    }
}
