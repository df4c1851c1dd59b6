//! The plan's leaf: this process's items of each global batch, in the order of the epoch, with their compressed bytes.

use std::{collections::HashMap, fmt, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, UInt32Array, UInt64Array},
        compute::interleave,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    common::{Result as PlanResult, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet, Time},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::stream;

use crate::{
    error::{Context as _, Error, Result, Stage},
    scan::{
        World,
        failure::into_datafusion,
        fetch::{Fetcher, Reading},
        items::{EpochItems, Located},
        order::Order,
        window::{Lane, Row},
    },
};

/// Columns in front of the fetched ones.
pub const SHARD: usize = 0;
/// Row within the shard.
pub const ROW: usize = 1;
/// Repeat of the row.
pub const OCCURRENCE: usize = 2;
/// Index in the epoch.
pub const POSITION: usize = 3;
/// Pass over the item's source, as draws name it.
pub const PASS: usize = 4;
/// First column of the fetched batch; extra values of the selection come behind its last.
pub const FETCHED: usize = 5;

/// Which global batches of an epoch are read, and which part of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    /// Items of a global batch, over all processes.
    pub rows: u64,
    /// First batch to read.
    pub first: u64,
    /// First batch that is not read.
    pub end: u64,
    /// This process.
    pub world: World,
}

/// Reads the items of an epoch in its order.
#[derive(Debug)]
pub struct OrderedScanExec {
    items: EpochItems,
    fetcher: Arc<Fetcher>,
    batches: Batches,
    lanes: Vec<u32>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl OrderedScanExec {
    /// One partition, one record batch per global batch.
    ///
    /// # Errors
    /// The world does not divide the lanes, or an extra column bears the name of one of ours.
    pub fn new(items: EpochItems, fetcher: Arc<Fetcher>, batches: Batches) -> Result<Self> {
        let lanes = items.lanes_of(batches.world)?;
        let mut fields = vec![
            Field::new("shard", DataType::UInt32, false),
            Field::new("row", DataType::UInt64, false),
            Field::new("occurrence", DataType::UInt32, false),
            Field::new("position", DataType::UInt64, false),
            Field::new("pass", DataType::UInt64, false),
        ];
        let extra = items.extra_schema().fields();
        for field in fetcher.schema().fields().iter().chain(extra) {
            if fields.iter().any(|known| known.name() == field.name()) {
                let reason = format!("{:?} is a column of every batch; rename that of the shards in SQL", field.name());
                return Err(Error::at(Stage::Scan, "", reason));
            }
            fields.push(field.as_ref().clone());
        }
        let schema = Arc::new(Schema::new(fields));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { items, fetcher, batches, lanes, properties: Arc::new(properties), metrics })
    }
}

impl DisplayAs for OrderedScanExec {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let (items, Batches { rows, first, end, world }) = (&self.items, self.batches);
        let kind = match items.order() {
            Order::Shuffled => "shuffled",
            Order::Sequential => "sequential",
        };
        let parts_of_epoch = match items.windows(&self.lanes) {
            Some(windows) => format!("windows={windows}"),
            None => format!("sources={}", items.sources()),
        };
        let separator = if matches!(form, DisplayFormatType::TreeRender) { "\n" } else { ", " };
        let parts = [
            format!("order={kind}"),
            format!("items={}", items.items()),
            format!("batches={first}..{end} of {rows} rows"),
            format!("rank={} of {}", world.rank, world.size),
            format!("lanes={} of {}", self.lanes.len(), items.lanes()),
            parts_of_epoch,
            format!("shards={}", self.fetcher.shards().len()),
        ];
        if separator == ", " {
            f.write_str("OrderedScanExec: ")?;
        }
        f.write_str(&parts.join(separator))
    }
}

impl ExecutionPlan for OrderedScanExec {
    fn name(&self) -> &str {
        "OrderedScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> PlanResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(into_datafusion(Error::internal(format!("the ordered scan has no partition {partition}"))));
        }
        let count = |name: &'static str| MetricBuilder::new(&self.metrics).counter(name, partition);
        let reading = Reading { urgent: None, bytes: count("bytes_fetched"), requests: count("requests") };
        let scan = Scan {
            items: self.items.clone(),
            fetcher: Arc::clone(&self.fetcher),
            batches: self.batches,
            numbers: self.lanes.clone(),
            lanes: vec![],
            schema: self.schema(),
            reading,
            output_rows: MetricBuilder::new(&self.metrics).output_rows(partition),
            windows: count("windows"),
            waited: MetricBuilder::new(&self.metrics).subset_time("window_wait", partition),
            peak: MetricBuilder::new(&self.metrics).gauge("peak_window_bytes", partition),
            next: self.batches.first,
        };
        let batches = stream::try_unfold(scan, |mut scan| async move {
            let batch = scan.next_batch().await.map_err(into_datafusion)?;
            Ok(batch.map(|batch| (batch, scan)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// A scan under way.
struct Scan {
    items: EpochItems,
    fetcher: Arc<Fetcher>,
    batches: Batches,
    /// Lanes of this process, ascending, and once started their readers: source after source of each.
    numbers: Vec<u32>,
    lanes: Vec<Lane>,
    schema: SchemaRef,
    reading: Reading,
    output_rows: Count,
    windows: Count,
    waited: Time,
    peak: Gauge,
    next: u64,
}

impl Scan {
    /// All lanes at once, so that their first windows are fetched side by side.
    fn start(&mut self) -> Result<()> {
        let first = self.batches.first * self.batches.rows;
        let end = (self.batches.end * self.batches.rows).min(self.items.items());
        for &lane in &self.numbers {
            let (from, end) = (self.items.lane_items_before(lane, first), self.items.lane_items_before(lane, end));
            for source in 0..self.items.sources() {
                let before = |nth| self.items.source_items_before(lane, source, nth);
                let (items, fetcher) = (self.items.clone(), Arc::clone(&self.fetcher));
                let range = before(from)..before(end);
                self.lanes.push(Lane::new(items, fetcher, self.reading.clone(), (source, lane), range)?);
            }
        }
        Ok(())
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        if self.next >= self.batches.end {
            return Ok(None);
        }
        if self.lanes.is_empty() {
            self.start()?;
        }
        let Batches { rows, world, .. } = self.batches;
        let first = self.next * rows;
        let end = (first + rows).min(self.items.items());
        let mut positions = Vec::with_capacity((rows / u64::from(world.size) + 1) as usize);
        let mut found = Vec::with_capacity(positions.capacity());
        for position in first..end {
            let (lane, nth) = self.items.lane_of(position);
            if lane % world.size != world.rank {
                continue;
            }
            let (source, _) = self.items.source_at(lane, nth);
            // Lanes of this process are rank, rank + size, …: the quotient numbers them.
            let number = lane / world.size * self.items.sources() + source;
            let lane = &mut self.lanes[number as usize];
            if lane.waits() {
                let waited = self.waited.timer();
                found.push(lane.next().await?);
                waited.done();
                self.windows.add(1);
                self.peak.set_max(self.fetcher.budget().peak_bytes() as usize);
            } else {
                found.push(lane.next().await?);
            }
            positions.push(position);
        }
        self.next += 1;
        self.output_rows.add(found.len());
        self.gather(&found, positions).map(Some)
    }

    /// The rows as one batch. Images are views: only their 16 bytes each are copied.
    fn gather(&self, found: &[Row], positions: Vec<u64>) -> Result<RecordBatch> {
        let mut sources: Vec<&RecordBatch> = vec![];
        let mut known: HashMap<*const RecordBatch, usize> = HashMap::new();
        let indices: Vec<(usize, usize)> = found
            .iter()
            .map(|row| {
                let source = *known.entry(Arc::as_ptr(&row.batch)).or_insert_with(|| {
                    sources.push(&row.batch);
                    sources.len() - 1
                });
                (source, row.index)
            })
            .collect();
        if indices.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let items = || found.iter().map(|row| row.located.item);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(items().map(|item| item.shard))),
            Arc::new(UInt64Array::from_iter_values(items().map(|item| item.row))),
            Arc::new(UInt32Array::from_iter_values(items().map(|item| item.occurrence))),
            Arc::new(UInt64Array::from(positions)),
            Arc::new(UInt64Array::from_iter_values(found.iter().map(|row| row.located.pass))),
        ];
        for column in 0..self.fetcher.schema().fields().len() {
            let arrays: Vec<_> = sources.iter().map(|batch| batch.column(column).as_ref()).collect();
            columns.push(interleave(&arrays, &indices).context(Stage::Scan, "", "cannot gather a batch")?);
        }
        let located: Vec<Located> = found.iter().map(|row| row.located).collect();
        columns.extend(self.items.extra_values(&located)?);
        RecordBatch::try_new(Arc::clone(&self.schema), columns).context(Stage::Scan, "", "cannot gather a batch")
    }
}
