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
use datafusion::functions::core::get_field;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::parquet::arrow::RowNumber;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, CastExpr, Column, IsNotNullExpr, Literal};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use datafusion::scalar::ScalarValue;

use super::footer_cache::FooterCache;
use super::ipc::{IpcScanExec, MadeColumns};
use super::reference::COLUMNS;
use super::referenced::ReferencedExec;
use super::shards::{Shard, ShardSet};

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
    /// `sample_id`, then what the shards store under the names that SQL has for it.
    schema: SchemaRef,
    /// The files' columns under their own names, then [`FIRST_SAMPLE_ID`] as partition value, then [`ROW_IN_SHARD`] from the reader.
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
            scanned: TableSchemaBuilder::new(Arc::clone(&set.stored.columns))
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
            let referenced = self.set.shards.iter().map(|shard| shard.all_referenced_bytes(column));
            ranges.map(|range| range.end - range.start).chain(referenced).sum()
        };
        self.set.blob_columns.iter().any(|blob| blob == column).then(bytes)
    }

    fn sample_id(&self) -> ProjectionExpr {
        let stored = self.set.stored.columns.fields().len();
        let first: Arc<dyn PhysicalExpr> = Arc::new(Column::new(FIRST_SAMPLE_ID, stored));
        let row = Arc::new(Column::new(ROW_IN_SHARD, stored + 1));
        let row = Arc::new(CastExpr::new(row, DataType::UInt64, None));
        ProjectionExpr::new(Arc::new(BinaryExpr::new(first, Operator::Plus, row)), SAMPLE_ID)
    }

    /// The column of the table at `at`: what SQL calls it, made of what the files call it.
    fn column(&self, at: usize, state: &dyn Session) -> Result<ProjectionExpr> {
        let Some(at) = at.checked_sub(1) else { return Ok(self.sample_id()) };
        let (root, inner) = &self.set.stored.sources[at];
        let name = self.set.columns.field(at).name();
        let columns = &self.set.stored.columns;
        let stored: Arc<dyn PhysicalExpr> = Arc::new(Column::new(columns.field(*root).name(), *root));
        let Some(inner) = inner else { return Ok(ProjectionExpr::new(stored, name)) };
        let inner_name = inner.as_str();
        let inner: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::from(inner.as_str())));
        let options = Arc::new(state.config_options().clone());
        let is_always_there = match columns.field(*root).data_type() {
            DataType::Struct(fields) => fields.iter().any(|field| field.name() == inner_name && !field.is_nullable()),
            _ => false,
        };
        let there = Arc::new(IsNotNullExpr::new(Arc::clone(&stored)));
        let field = ScalarFunctionExpr::try_new(get_field(), vec![stored, inner], columns, options)?;
        let field: Arc<dyn PhysicalExpr> = Arc::new(field);
        // A field that is never NULL has some value below a struct that is.
        let field = match is_always_there {
            true => Arc::new(CaseExpr::try_new(None, vec![(there, field)], None)?),
            false => field,
        };
        Ok(ProjectionExpr::new(field, name))
    }

    /// The wanted shards in `partitions` groups of about equal bytes, in order.
    fn groups(&self, partitions: usize, is_wanted: impl Fn(&Shard) -> bool) -> Vec<Vec<Arc<Shard>>> {
        let shards = || self.set.shards.iter().filter(|shard| is_wanted(shard));
        let total: u64 = shards().map(|shard| shard.bytes).sum();
        let share = total.div_ceil(partitions.max(1) as u64).max(1);
        let mut groups: Vec<Vec<Arc<Shard>>> = Vec::new();
        let mut before = 0;
        let mut last_group = None;
        for shard in shards() {
            if last_group != Some(before / share) {
                last_group = Some(before / share);
                groups.push(Vec::new());
            }
            if let Some(group) = groups.last_mut() {
                group.push(Arc::clone(shard));
            }
            before += shard.bytes;
        }
        groups
    }

    fn file(&self, shard: &Shard) -> PartitionedFile {
        let mut statistics = Statistics::new_unknown(&self.set.stored.columns);
        statistics.num_rows = Precision::Exact(shard.rows() as usize);
        // `PartitionedFile::new` would encode the path a second time.
        let mut file = PartitionedFile::new("", shard.bytes);
        file.object_meta.location = shard.location.clone();
        file.with_partition_values(vec![ScalarValue::UInt64(Some(shard.sample_id(0)))])
            .with_statistics(Arc::new(statistics))
    }

    /// Whether a column's values lie in other files, for some shards.
    fn is_referenced(&self, column: &str) -> bool {
        let mut referenced = self.set.shards.iter().filter_map(|shard| shard.referenced.as_ref());
        referenced.any(|referenced| referenced.column == column)
    }

    /// The columns that say where, under names that SQL cannot have.
    fn references(&self) -> Result<Vec<ProjectionExpr>> {
        let columns = &self.set.stored.columns;
        let reference = |(name, _): (&str, DataType)| {
            let stored = Arc::new(Column::new(name, columns.index_of(name)?));
            Ok(ProjectionExpr::new(stored, format!("{name} of the shard")))
        };
        COLUMNS.into_iter().map(reference).collect()
    }

    fn parquet(
        &self,
        state: &dyn Session,
        groups: Vec<Vec<Arc<Shard>>>,
        projected: &ProjectionExprs,
        meets_blob: bool,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
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
        let source: Arc<dyn FileSource> = match source.try_pushdown_projection(projected)? {
            Some(source) => source,
            None => Arc::new(source),
        };
        let mut statistics = Statistics::new_unknown(self.scanned.table_schema());
        let rows = groups.iter().flatten().map(|shard| shard.rows()).sum::<u64>();
        statistics.num_rows = Precision::Exact(rows as usize);
        let files = |group: Vec<Arc<Shard>>| FileGroup::new(group.iter().map(|shard| self.file(shard)).collect());
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, source)
            .with_file_groups(groups.into_iter().map(files).collect())
            .with_statistics(statistics)
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn ipc(&self, groups: Vec<Vec<Arc<Shard>>>, projected: ProjectionExprs) -> Result<Arc<dyn ExecutionPlan>> {
        let made = MadeColumns { first_sample_id: FIRST_SAMPLE_ID, row: ROW_IN_SHARD };
        let store = Arc::clone(&self.set.reads);
        Ok(Arc::new(IpcScanExec::new(store, groups, self.scanned.table_schema(), made, projected)?))
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
        let columns = wanted.iter().map(|&at| self.column(at, state)).collect::<Result<Vec<_>>>()?;
        let partitions = state.config().target_partitions();
        let is_blob = |at: &usize| self.set.blob_columns.iter().any(|blob| blob == self.schema.field(*at).name());
        let meets_blob = wanted.iter().any(is_blob);
        let referenced = wanted.iter().position(|&at| self.is_referenced(self.schema.field(at).name()));
        let is_read_elsewhere = |shard: &Shard| referenced.is_some() && shard.referenced.is_some();

        let held = self.groups(partitions, |shard| shard.parquet().is_some() && !is_read_elsewhere(shard));
        let elsewhere = self.groups(partitions, is_read_elsewhere);
        let ipc = self.groups(partitions, |shard| shard.parquet().is_none());
        let mut scans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !held.is_empty() || (elsewhere.is_empty() && ipc.is_empty()) {
            scans.push(self.parquet(state, held, &ProjectionExprs::new(columns.clone()), meets_blob, limit)?);
        }
        if let Some(blob) = referenced.filter(|_| !elsewhere.is_empty()) {
            let with_references = columns.iter().cloned().chain(self.references()?);
            let projected = ProjectionExprs::new(with_references);
            let rows = self.parquet(state, elsewhere, &projected, meets_blob, limit)?;
            scans.push(Arc::new(ReferencedExec::new(Arc::clone(&self.set.reads), rows, blob)));
        }
        if !ipc.is_empty() {
            scans.push(self.ipc(ipc, ProjectionExprs::new(columns))?);
        }
        match <[_; 1]>::try_from(scans) {
            Ok([scan]) => Ok(scan),
            Err(scans) => UnionExec::try_new(scans),
        }
    }
}
