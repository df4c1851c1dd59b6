//! Pixels in a plan: one batch at a time, decoded by many threads into one tensor.
//!
//! The tensor is allocated once per batch and its workers fill disjoint slots of it. Nothing after this node may take,
//! filter, concatenate or repartition tensor columns: the batch that leaves here is the one the trainer gets.

mod assemble;
mod captions;
mod known;
mod slots;

use std::{collections::HashMap, fmt, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema},
    common::{Result as PlanResult, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};

pub use known::KnownRows;
pub use slots::Spare;

use crate::{
    augment::exec::slots::{Done, Worker},
    error::{Context as _, Error, Result, Stage},
    pair::SampleKernel,
    scan::{
        budget::ByteBudget,
        failure::into_datafusion,
        fetch::FIRST_EXTRA,
        ordered_scan::FETCHED,
        quarantine::Quarantine,
        substitute::Substitutes,
        tensor_column::{Element, tensor_field},
        window_columns::{GROUP, SEQUENCE, TOKENS, WINDOWS},
    },
    select::shards::Shard,
};

/// Key in the schema's metadata under which batches carry their kernel's description.
pub const KERNEL_KEY: &str = "diptych.kernel";

/// Column of the tensors where they are no windows.
const VIEWS: &str = "views";

/// What becomes of an item that cannot be used.
#[derive(Debug, Clone)]
pub enum BadItems {
    /// Another item takes its slot: for training, whose batches keep their size.
    Replace(Substitutes),
    /// It is left out of its batch: for evaluation, where another image would be scored under its name.
    LeaveOut,
}

/// Everything that one epoch's augmentation needs.
#[derive(Debug, Clone)]
pub struct Augment {
    /// Fills a slot, wholly: its memory held another batch before.
    pub kernel: Arc<dyn SampleKernel>,
    /// The run's seed.
    pub seed: u64,
    /// Threads that decode.
    pub decode_threads: usize,
    /// Whether batches carry a BLAKE3 of every item's pixels.
    pub pixel_digest: bool,
    /// What becomes of bad items.
    pub bad_items: BadItems,
    /// Where they are counted and listed.
    pub quarantine: Quarantine,
    /// Share of bad items above which the run stops.
    pub max_bad_share: f64,
    /// The shards, by ordinal.
    pub shards: Vec<Arc<Shard>>,
    /// What tensors are charged to, from their allocation until the last reader lets go of them.
    pub budget: Arc<ByteBudget>,
    /// Memory of tensors that were read and dropped.
    pub spare: Arc<Spare>,
    /// What is known of fetched rows, of this kernel and by the numbers of their fetches.
    pub known: Arc<KnownRows>,
    /// Most items of a batch in this process.
    pub batch_rows: usize,
}

impl Augment {
    /// Bytes of one item's tensor, of all its rows.
    pub fn slot_bytes(&self) -> usize {
        self.kernel.slot_bytes()
    }
}

/// Decodes and augments the batches of an ordered scan.
#[derive(Debug)]
pub struct AugmentExec {
    input: Arc<dyn ExecutionPlan>,
    augment: Arc<Augment>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AugmentExec {
    /// Over an [`crate::scan::ordered_scan::OrderedScanExec`].
    ///
    /// # Errors
    /// A sample's tensor is empty or too large.
    pub fn new(input: Arc<dyn ExecutionPlan>, augment: Arc<Augment>) -> Result<Self> {
        if augment.slot_bytes() == 0 {
            let reason = format!("{} makes tensors of no bytes", augment.kernel.name());
            return Err(Error::at(Stage::Augment, "", reason));
        }
        let scanned = input.schema();
        let mut fields: Vec<Field> = scanned.fields()[..FETCHED].iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new("replaced", DataType::Boolean, false));
        let kernel = &augment.kernel;
        let tensors = match (kernel.makes_windows(), kernel.element()) {
            (false, _) => VIEWS,
            (true, Element::U32) => TOKENS,
            (true, _) => WINDOWS,
        };
        fields.push(tensor_field(tensors, kernel.shape(), kernel.element())?);
        if kernel.makes_windows() {
            fields.push(Field::new(SEQUENCE, DataType::UInt32, false));
        }
        if let Some(column) = kernel.group_column() {
            if scanned.column_with_name(column).is_none() {
                return Err(Error::internal(format!("the groups' column {column:?} is not scanned")));
            }
            fields.push(Field::new(GROUP, DataType::UInt32, false));
        }
        if let Some(captions) = kernel.captions() {
            let Some((_, column)) = scanned.column_with_name(captions.column()) else {
                return Err(Error::internal(format!("the texts' column {:?} is not scanned", captions.column())));
            };
            captions::check(column.name(), column.data_type())?;
            fields.extend(captions::fields());
        }
        if augment.pixel_digest {
            fields.push(Field::new("pixel_digest", DataType::FixedSizeBinary(32), false));
        }
        fields.extend(scanned.fields()[FETCHED + FIRST_EXTRA..].iter().map(|field| field.as_ref().clone()));
        let metadata = HashMap::from([(KERNEL_KEY.to_owned(), augment.kernel.describe())]);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(Schema::new_with_metadata(fields, metadata))),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { input, augment, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for AugmentExec {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let Augment { kernel, decode_threads, .. } = &*self.augment;
        match form {
            DisplayFormatType::TreeRender => write!(f, "{}\nthreads={decode_threads}", kernel.name()),
            _ => write!(
                f,
                "AugmentExec: {}, shape={:?}, threads={decode_threads}, pixel_digest={}",
                kernel.describe(),
                kernel.shape(),
                self.augment.pixel_digest
            ),
        }
    }
}

impl ExecutionPlan for AugmentExec {
    fn name(&self) -> &str {
        "AugmentExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| into_datafusion(Error::internal("AugmentExec lost its input")))?;
        Ok(Arc::new(Self::new(input, Arc::clone(&self.augment)).map_err(into_datafusion)?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let threads = self.augment.decode_threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|thread| format!("decode-{thread}"))
            .build()
            .context(Stage::Augment, "", "cannot start the decode threads")
            .map_err(into_datafusion)?;
        let timer = |name: &'static str| MetricBuilder::new(&self.metrics).subset_time(name, partition);
        let worker = Arc::new(Worker {
            augment: Arc::clone(&self.augment),
            pool,
            schema: self.schema(),
            kernel_time: timer("kernel_time_all_threads"),
            bad: MetricBuilder::new(&self.metrics).counter("bad_items", partition),
        });
        let memory_wait = timer("memory_wait");
        let output_rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let output_bytes = MetricBuilder::new(&self.metrics).output_bytes(partition);
        // Two batches keep the threads busy through a batch's tail; small batches need more of them.
        let batches_at_a_time = (1 + (4 * threads).div_ceil(self.augment.batch_rows.max(1))).max(2);
        let augment = Arc::clone(&self.augment);
        let keeps_empty = matches!(augment.bad_items, BadItems::Replace(_));
        let batches = input
            // One after the other: a later batch must never hold the memory an earlier one waits for.
            .and_then(move |batch| {
                let (augment, memory_wait) = (Arc::clone(&augment), memory_wait.clone());
                async move {
                    let bytes = (batch.num_rows() * augment.slot_bytes()) as u64;
                    let _waited = memory_wait.timer();
                    let charge = augment.budget.charge(bytes).await;
                    Ok((batch, charge))
                }
            })
            .map(move |charged| {
                let worker = Arc::clone(&worker);
                async move {
                    let (batch, charge) = charged?;
                    let done = worker.augment(batch, charge).await.map_err(into_datafusion)?;
                    Ok::<_, DataFusionError>((worker, done))
                }
            })
            .buffered(batches_at_a_time)
            // In the order of the epoch, so that counts and table do not depend on timing.
            .and_then(move |(worker, done): (Arc<Worker>, Done)| {
                output_rows.add(done.batch.num_rows());
                output_bytes
                    .add(done.batch.num_rows() / worker.augment.kernel.rows_per_item() * worker.augment.slot_bytes());
                worker.bad.add(done.bad as usize);
                let Augment { quarantine, max_bad_share, .. } = &*worker.augment;
                let settled = quarantine.settle(done.items, done.bad, done.bad_rows, *max_bad_share);
                async move { settled.map(|()| done.batch).map_err(into_datafusion) }
            })
            // Of an evaluation's batch nothing may be left; ranks of a training run stay in step by empty ones.
            .try_filter(move |batch| std::future::ready(keeps_empty || batch.num_rows() > 0));
        let quarantine = self.augment.quarantine.clone();
        let written = stream::once(async move { quarantine.flush() })
            .filter_map(|written| std::future::ready(written.err().map(|error| Err(into_datafusion(error)))));
        let batches = batches.chain(written);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
