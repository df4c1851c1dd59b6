//! The table `shards` over reference shards: blobs read from the files that the rows name.
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::object_store::ObjectStore;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use super::reference::{COLUMNS, References, column, location};
use crate::error::{Error, Stage};

/// Bytes of blobs in one batch, unless one alone has more.
const LARGEST_BATCH_BYTES: u64 = 32 << 20;
/// Files that are read side by side.
const FILES_AT_A_TIME: usize = 8;

/// Puts the blobs of reference shards into a column.
///
/// Its input has the output's columns, the blob's among them without values, and then the three of the reference.
#[derive(Debug)]
pub(crate) struct ReferencedExec {
    store: Arc<dyn ObjectStore>,
    input: Arc<dyn ExecutionPlan>,
    /// Position of the blob's column.
    blob: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ReferencedExec {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, input: Arc<dyn ExecutionPlan>, blob: usize) -> Self {
        let fields = input.schema().fields().iter().cloned().collect::<Vec<_>>();
        let kept = fields.len().saturating_sub(COLUMNS.len());
        let schema = Arc::new(ArrowSchema::new(fields[..kept].to_vec()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { store, input, blob, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for ReferencedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let schema = self.schema();
        write!(f, "ReferencedExec: column={}", schema.field(self.blob).name())
    }
}

impl ExecutionPlan for ReferencedExec {
    fn name(&self) -> &str {
        "ReferencedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self::new(Arc::clone(&self.store), input, self.blob))),
            Err(_) => Err(DataFusionError::Internal("blobs are read for one input".into())),
        }
    }

    // What says nothing of the blob decides before it is read.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let narrow = (0..self.schema().fields().len()).filter(|&at| at != self.blob).collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&parent_filters, narrow, &self.input)?;
        Ok(FilterDescription::new().with_child(child))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let output_rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let reader = Arc::new(Reader { store: Arc::clone(&self.store), schema: self.schema(), blob: self.blob });
        let reading = Arc::clone(&reader);
        let rows = self
            .input
            .execute(partition, context)?
            .map(move |batch| reader.pieces(&batch?).map_err(external))
            .map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok)))
            .try_flatten()
            .and_then(move |piece| {
                let reader = Arc::clone(&reading);
                async move { reader.read(piece).await }
            })
            .inspect_ok(move |batch| {
                output_rows.add(batch.num_rows());
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Rows of a batch whose blobs are read together.
struct Piece {
    /// Without blobs, and with the references behind the other columns.
    batch: RecordBatch,
    references: Arc<References>,
    rows: Range<usize>,
}

struct Reader {
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    blob: usize,
}

impl Reader {
    /// Pieces whose blobs have bounded bytes together.
    fn pieces(&self, batch: &RecordBatch) -> crate::Result<Vec<Piece>> {
        let kept = self.schema.fields().len();
        let columns = [kept, kept + 1, kept + 2].map(|at| batch.column(at));
        let references = Arc::new(References::new(columns, "a reference shard")?);
        let mut pieces: Vec<Range<usize>> = vec![];
        let mut bytes = 0;
        for row in 0..batch.num_rows() {
            let next = references.bytes(row);
            match pieces.last_mut() {
                Some(piece) if bytes + next <= LARGEST_BATCH_BYTES => piece.end = row + 1,
                _ => {
                    pieces.push(row..row + 1);
                    bytes = 0;
                }
            }
            bytes += next;
        }
        let piece = |rows| Piece { batch: batch.clone(), references: Arc::clone(&references), rows };
        Ok(pieces.into_iter().map(piece).collect())
    }

    async fn read(&self, piece: Piece) -> Result<RecordBatch> {
        let Piece { batch, references, rows } = piece;
        let blobs = self.blobs(&references, &rows).await.map_err(external)?;
        let mut columns = batch.slice(rows.start, rows.len()).columns().to_vec();
        columns.truncate(self.schema.fields().len());
        columns[self.blob] = cast(&blobs, self.schema.field(self.blob).data_type())?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    async fn blobs(&self, references: &References, rows: &Range<usize>) -> crate::Result<ArrayRef> {
        let files = references.by_file(rows.clone())?.into_iter();
        let reads: Vec<_> = files
            .map(|(uri, blobs)| {
                let (store, uri) = (Arc::clone(&self.store), uri.to_owned());
                async move {
                    let ranges: Vec<Range<u64>> = blobs.iter().map(|blob| blob.range.clone()).collect();
                    let fetched = read_file(store.as_ref(), &uri, &ranges).await?;
                    Ok::<Vec<_>, Error>(blobs.into_iter().map(|blob| blob.row).zip(fetched).collect())
                }
            })
            .collect();
        let read: Vec<Vec<(usize, Bytes)>> = stream::iter(reads).buffered(FILES_AT_A_TIME).try_collect().await?;
        let blobs = read.into_iter().flatten().map(|(row, bytes)| (row - rows.start, bytes));
        Ok(Arc::new(column(rows.len(), blobs)?))
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The bytes in `ranges` of one file.
async fn read_file(store: &dyn ObjectStore, uri: &str, ranges: &[Range<u64>]) -> crate::Result<Vec<Bytes>> {
    let remedy = "cannot be read; it must stay as it was when it was indexed: restore it, or index again";
    let read = store.get_ranges(&location(uri)?, ranges).await;
    let read = read.map_err(|error| Error::at(Stage::Scan, uri, remedy).caused_by(error))?;
    match read.iter().zip(ranges).find(|(bytes, range)| bytes.len() as u64 != range.end - range.start) {
        None => Ok(read),
        Some((_, range)) => {
            let reason = format!("ends before byte {}: it was cut short; restore it, or index again", range.end);
            Err(Error::at(Stage::Scan, uri, reason))
        }
    }
}
