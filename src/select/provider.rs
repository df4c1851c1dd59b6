//! The table `shards`: the columns of all shards and `sample_id`.
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{Constraint, Constraints, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::parquet::arrow::RowNumber;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;

use super::footer_cache::FooterCache;
use super::shards::ShardSet;

/// Name of the column that identifies a sample.
pub const SAMPLE_ID: &str = "sample_id";
/// Where sessions find the store of the set.
pub(crate) const STORE_URL: &str = "shards://set";
/// The scan's own columns; SQL never sees them.
const FIRST_SAMPLE_ID: &str = "first sample_id of the shard";
const ROW_IN_SHARD: &str = "row in the shard";

/// The table `shards` over a [`ShardSet`].
///
/// `sample_id` is computed in the scan, from the reader's row numbers and the shard's ordinal, and is declared the
/// primary key. Blobs are ordinary columns: a query that names one reads it.
#[derive(Debug)]
pub struct ShardTable {
    set: ShardSet,
    /// `sample_id`, then the stored columns.
    schema: SchemaRef,
    /// Stored columns, then [`FIRST_SAMPLE_ID`] as partition value, then [`ROW_IN_SHARD`] from the reader.
    scanned: TableSchema,
    constraints: Constraints,
    readers: Arc<FooterCache>,
}

impl ShardTable {
    /// The table over `set`.
    pub fn new(set: &ShardSet) -> Self {
        let mut fields: Vec<FieldRef> = vec![Arc::new(Field::new(SAMPLE_ID, DataType::UInt64, false))];
        fields.extend(set.columns.fields().iter().cloned());
        let partition: FieldRef = Arc::new(Field::new(FIRST_SAMPLE_ID, DataType::UInt64, false));
        let row: FieldRef = Arc::new(Field::new(ROW_IN_SHARD, DataType::Int64, false).with_extension_type(RowNumber));
        Self {
            set: set.clone(),
            schema: Arc::new(ArrowSchema::new(fields)),
            scanned: TableSchemaBuilder::new(Arc::clone(&set.columns))
                .with_table_partition_cols(vec![partition])
                .with_virtual_columns(vec![row])
                .build(),
            constraints: Constraints::new_unverified(vec![Constraint::PrimaryKey(vec![0])]),
            readers: Arc::new(FooterCache::new(set)),
        }
    }

    /// Bytes that a column of blobs takes in all shards; `None` for other columns.
    pub(crate) fn blob_bytes_of(&self, column: &str) -> Option<u64> {
        let bytes = || {
            let ranges = self.set.shards.iter().flat_map(|shard| shard.chunk_ranges(column));
            ranges.map(|range| range.end - range.start).sum()
        };
        self.set.blob_columns.iter().any(|blob| blob == column).then(bytes)
    }

    fn sample_id(&self) -> ProjectionExpr {
        let stored = self.set.columns.fields().len();
        let first: Arc<dyn PhysicalExpr> = Arc::new(Column::new(FIRST_SAMPLE_ID, stored));
        let row = Arc::new(Column::new(ROW_IN_SHARD, stored + 1));
        let row = Arc::new(CastExpr::new(row, DataType::UInt64, None));
        ProjectionExpr::new(Arc::new(BinaryExpr::new(first, Operator::Plus, row)), SAMPLE_ID)
    }

    /// The shards in `partitions` groups of about equal bytes, in order.
    fn groups(&self, partitions: usize) -> Vec<FileGroup> {
        let total: u64 = self.set.shards.iter().map(|shard| shard.bytes).sum();
        let share = total.div_ceil(partitions.max(1) as u64).max(1);
        let mut groups: Vec<Vec<PartitionedFile>> = Vec::new();
        let mut before = 0;
        let mut last_group = None;
        for shard in &self.set.shards {
            let mut statistics = Statistics::new_unknown(&self.set.columns);
            statistics.num_rows = Precision::Exact(shard.rows() as usize);
            // `PartitionedFile::new` would encode the path a second time.
            let mut file = PartitionedFile::new("", shard.bytes);
            file.object_meta.location = shard.location.clone();
            let file = file
                .with_partition_values(vec![ScalarValue::UInt64(Some(shard.sample_id(0)))])
                .with_statistics(Arc::new(statistics));
            if last_group != Some(before / share) {
                last_group = Some(before / share);
                groups.push(Vec::new());
            }
            if let Some(group) = groups.last_mut() {
                group.push(file);
            }
            before += shard.bytes;
        }
        groups.into_iter().map(FileGroup::new).collect()
    }
}

#[async_trait]
impl TableProvider for ShardTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // Filters come through the physical plan: the source prunes row groups and pages by them, `FilterExec` decides.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let column = |&at: &usize| match at.checked_sub(1) {
            None => self.sample_id(),
            Some(stored) => {
                let name = self.set.columns.field(stored).name();
                ProjectionExpr::new(Arc::new(Column::new(name, stored)), name)
            }
        };
        let projected = ProjectionExprs::new(wanted.iter().map(column));
        let meets_blob =
            wanted.iter().any(|&at| self.set.blob_columns.iter().any(|blob| blob == self.schema.field(at).name()));

        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let mut source = ParquetSource::new(self.scanned.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::clone(&self.readers) as _);
        if meets_blob {
            // Narrow filters first, then only the blob pages that are left: the one case in which this is always a win.
            source = source.with_pushdown_filters(true).with_reorder_filters(true);
        }
        // The source starts from all columns, so this sets its projection.
        let source: Arc<dyn FileSource> = match source.try_pushdown_projection(&projected)? {
            Some(source) => source,
            None => Arc::new(source),
        };
        let mut statistics = Statistics::new_unknown(self.scanned.table_schema());
        statistics.num_rows = Precision::Exact(self.set.rows() as usize);
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, source)
            .with_file_groups(self.groups(state.config().target_partitions()))
            .with_statistics(statistics)
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
