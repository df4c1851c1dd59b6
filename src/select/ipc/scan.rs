//! The table `shards` over Arrow IPC files, for the columns that a query asks for.
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StructArray, UInt64Array,
    new_null_array,
};
use datafusion::arrow::compute::{cast, nullif};
use datafusion::arrow::datatypes::{DataType, Schema as ArrowSchema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::common::exec_datafusion_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::object_store::ObjectStore;
use datafusion::physical_expr::projection::{ProjectionExprs, Projector};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use super::super::format::Format;
use super::super::shards::Shard;
use super::IpcIndex;
use crate::error::{Context, Stage};

/// Name of the operator.
pub(crate) const IPC_SCAN: &str = "IpcScanExec";

/// Columns of a scan that are made, not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MadeColumns {
    /// `sample_id` of the shard's first row.
    pub(crate) first_sample_id: &'static str,
    /// Row within the shard.
    pub(crate) row: &'static str,
}

/// Reads record batches, only the buffers of the columns asked for.
#[derive(Debug)]
pub(crate) struct IpcScanExec {
    store: Arc<dyn ObjectStore>,
    partitions: Vec<Vec<Arc<Shard>>>,
    /// What is read or made, in the order of `input`.
    input: SchemaRef,
    made: MadeColumns,
    projector: Arc<Projector>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl IpcScanExec {
    /// Over groups of shards that are all Arrow IPC; `projection` is over `scanned`: the stored columns, then those made.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        partitions: Vec<Vec<Arc<Shard>>>,
        scanned: &ArrowSchema,
        made: MadeColumns,
        projection: ProjectionExprs,
    ) -> Result<Self> {
        let wanted: Vec<String> = projection
            .expr_iter()
            .flat_map(|expr| collect_columns(&expr))
            .map(|column| column.name().to_owned())
            .collect();
        let fields = scanned.fields().iter().filter(|field| wanted.contains(field.name()));
        let input = Arc::new(ArrowSchema::new(fields.cloned().collect::<Vec<_>>()));
        let projection = projection.try_map_exprs(|expr| reassign_expr_columns(expr, &input))?;
        let projector = Arc::new(projection.make_projector(&input)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(projector.output_schema())),
            Partitioning::UnknownPartitioning(partitions.len().max(1)),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { store, partitions, input, made, projector, properties: Arc::new(properties), metrics })
    }
}

impl DisplayAs for IpcScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let columns: Vec<&str> = self.input.fields().iter().map(|field| field.name().as_str()).collect();
        let shards: usize = self.partitions.iter().map(Vec::len).sum();
        write!(f, "{IPC_SCAN}: shards={shards}, groups={}, columns={columns:?}", self.partitions.len())
    }
}

impl ExecutionPlan for IpcScanExec {
    fn name(&self) -> &str {
        IPC_SCAN
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows_at_a_time = context.session_config().batch_size().max(1);
        let output_rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let shards = self.partitions.get(partition).cloned().unwrap_or_default();
        let batches: Vec<(Arc<Shard>, usize)> = shards
            .into_iter()
            .flat_map(|shard| (0..shard.format.row_groups()).map(move |batch| (Arc::clone(&shard), batch)))
            .collect();
        let reader = Arc::new(Reader {
            store: Arc::clone(&self.store),
            input: Arc::clone(&self.input),
            made: self.made,
            projector: Arc::clone(&self.projector),
        });
        let rows = stream::iter(batches)
            .then(move |(shard, batch)| {
                let reader = Arc::clone(&reader);
                async move { reader.read(shard, batch).await.map(|read| (read, reader)) }
            })
            .map_ok(move |(read, reader)| {
                // Lazily: columns that are made take no more memory than one slice, whatever a header says of its rows.
                let starts = (0..read.rows).step_by(rows_at_a_time);
                stream::iter(starts.map(move |start| reader.slice(&read, start, rows_at_a_time.min(read.rows - start))))
            })
            .try_flatten()
            .inspect_ok(move |batch| {
                output_rows.add(batch.num_rows());
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.projector.output_schema()), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One record batch.
struct Read {
    shard: Arc<Shard>,
    first_row: u64,
    rows: usize,
    /// `None` where no stored column is wanted.
    stored: Option<RecordBatch>,
}

struct Reader {
    store: Arc<dyn ObjectStore>,
    input: SchemaRef,
    made: MadeColumns,
    projector: Arc<Projector>,
}

impl Reader {
    async fn read(&self, shard: Arc<Shard>, batch: usize) -> Result<Read> {
        let Format::Ipc(index) = &shard.format else {
            return Err(DataFusionError::Internal(format!("{} is not Arrow IPC", shard.name)));
        };
        let roots = self.input.fields().iter().filter_map(|field| index.schema().index_of(field.name()).ok());
        let roots: Vec<usize> = roots.collect();
        let stored = self.stored(&shard, index, batch, &roots).await?;
        let rows = shard.format.group_rows(batch) as usize;
        if stored.as_ref().is_some_and(|stored| stored.num_rows() != rows) {
            return Err(exec_datafusion_err!("{} record batch {batch} has not {rows} rows", shard.name));
        }
        let first_row = (0..batch).map(|earlier| shard.format.group_rows(earlier)).sum();
        Ok(Read { first_row, rows, stored, shard })
    }

    fn slice(&self, read: &Read, start: usize, rows: usize) -> Result<RecordBatch> {
        let first_row = read.first_row as i64 + start as i64;
        let stored = read.stored.as_ref().map(|stored| stored.slice(start, rows));
        let column = |field: &Arc<datafusion::arrow::datatypes::Field>| -> Result<ArrayRef> {
            let name = field.name().as_str();
            if name == self.made.first_sample_id {
                return Ok(Arc::new(UInt64Array::from_value(read.shard.sample_id(0), rows)));
            }
            if name == self.made.row {
                return Ok(Arc::new(Int64Array::from_iter_values(first_row..first_row + rows as i64)));
            }
            match stored.as_ref().and_then(|stored| stored.column_by_name(name)) {
                Some(column) => Ok(nulls_in_fields(&cast(column, field.data_type())?)?),
                None => Ok(new_null_array(field.data_type(), rows)),
            }
        };
        let columns = self.input.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let input = RecordBatch::try_new_with_options(Arc::clone(&self.input), columns, &options)?;
        self.projector.project_batch(&input)
    }

    async fn stored(
        &self,
        shard: &Arc<Shard>,
        index: &Arc<IpcIndex>,
        batch: usize,
        roots: &[usize],
    ) -> Result<Option<RecordBatch>> {
        if roots.is_empty() {
            return Ok(None);
        }
        let fetch = |ranges: Vec<_>| async move {
            let read = self.store.get_ranges(&shard.location, &ranges).await;
            read.context(Stage::Select, &shard.name, "cannot be read")
        };
        let read = index.read(batch, roots, &shard.name, fetch, |body| body.into()).await;
        read.map(Some).map_err(|error| DataFusionError::External(Box::new(error)))
    }
}

/// The same column, in which fields of a struct that is null are null: below it a file may hold anything, and SQL's access
/// to fields does not look at the struct.
fn nulls_in_fields(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let Some(structs) = column.as_struct_opt() else { return Ok(Arc::clone(column)) };
    if structs.fields().is_empty() {
        return Ok(Arc::clone(column));
    }
    let (fields, children, nulls) = structs.clone().into_parts();
    let is_null =
        nulls.as_ref().filter(|nulls| nulls.null_count() > 0).map(|nulls| BooleanArray::new(!nulls.inner(), None));
    let child = |child: ArrayRef| match (&is_null, child.data_type()) {
        // These two have no nulls of their own.
        (_, DataType::Union(_, _) | DataType::RunEndEncoded(_, _)) | (None, _) => nulls_in_fields(&child),
        (Some(is_null), _) => nulls_in_fields(&nullif(&child, is_null)?),
    };
    let children = children.into_iter().map(child).collect::<Result<_, _>>()?;
    Ok(Arc::new(StructArray::try_new(fields, children, nulls)?))
}
