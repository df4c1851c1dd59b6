//! One epoch as a plan: what trainers and evaluations run.

use std::sync::Arc;

use datafusion::{
    arrow::array::RecordBatch,
    execution::{SendableRecordBatchStream, TaskContext},
    object_store::ObjectStore,
    physical_plan::ExecutionPlan,
};

use crate::{
    augment::exec::{Augment, AugmentExec, BadItems, KnownRows, Spare},
    error::{Error, Result, Stage},
    pair::SampleKernel,
    scan::{
        ScanSettings, World,
        budget::ByteBudget,
        failure::from_datafusion,
        fetch::{Fetcher, KeptRows, Reading, is_series},
        items::{EpochItems, Groups},
        mixture::Mixture,
        order::{EpochOrder, GroupSize, Order, OrderKey},
        ordered_scan::{Batches, OrderedScanExec},
        quarantine::Quarantine,
        streams::{SourcePlan, Streams},
        substitute::Substitutes,
    },
    select::{
        extra::ExtraColumns,
        selection::{SelectedGroup, Selection},
        shards::{Shard, ShardSet},
    },
};

/// Bytes of a megabyte in settings.
const MEGABYTE: u64 = 1 << 20;

/// Bytes per item of a finished batch beside its pixels: keys, flags, a label.
const NARROW_BYTES: u64 = 128;

/// Everything that decides the batches of a run's epochs.
#[derive(Debug, Clone)]
pub struct EpochPlan {
    /// The data set.
    pub shards: Arc<ShardSet>,
    /// Which of its samples, of one source or several.
    pub selection: Mixture,
    /// Windows, lanes, share of bad items.
    pub scan: ScanSettings,
    /// What makes pixels of an image.
    pub kernel: Arc<dyn SampleKernel>,
    /// Narrow columns that come along, such as `label`. Those that the selection brings come along unasked, and instead
    /// of the shards' of the same names.
    pub extra_columns: Vec<String>,
    /// The run's seed.
    pub seed: u64,
    /// Shuffled for training, sequential for evaluation. In sequential order bad items are left out, not replaced.
    pub order: Order,
    /// Items of a global batch, over all processes.
    pub batch_rows: usize,
    /// Whether an epoch ends with its last full batch.
    pub drop_last: bool,
    /// This process's part of every batch.
    pub world: World,
    /// Threads that decode.
    pub decode_threads: usize,
    /// Whether batches carry a BLAKE3 of every item's pixels.
    pub pixel_digest: bool,
    /// Bytes that windows and tensors may hold, tensors in the queue and in the trainer's hands included.
    pub memory_bytes: u64,
    /// Counts and table of bad rows over all epochs; `None` counts each epoch for itself and writes no table.
    pub quarantine: Option<Quarantine>,
    /// What epochs hand on to each other, over the same data set and with the same kernel.
    pub handed_on: HandedOn,
}

/// What one epoch leaves to the next.
#[derive(Debug, Clone, Default)]
pub struct HandedOn {
    /// Memory of tensors that were read and dropped.
    pub spare: Arc<Spare>,
    /// Series that stay in memory.
    pub kept: Arc<KeptRows>,
    /// What is known of these.
    pub known: Arc<KnownRows>,
}

/// How `memory_bytes` are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryShares {
    /// Compressed bytes of windows: the current ones and, where there is room, those that come next.
    pub window_bytes: u64,
    /// Series that stay from pass to pass.
    pub kept_bytes: u64,
    /// Finished and half finished tensors.
    pub tensor_bytes: u64,
}

/// A selection's groups by fingerprint, not by ordinal: copies of a data set whose shards bear other numbers have the
/// same digest, and so must have the same order.
struct Canonical {
    selection: Arc<Selection>,
    order: Vec<usize>,
}

impl Groups for Canonical {
    fn group(&self, index: u32) -> &SelectedGroup {
        &self.selection.groups[self.order[index as usize]]
    }

    fn extra(&self, index: u32) -> Option<&RecordBatch> {
        self.selection.extra()?.group(self.order[index as usize])
    }

    fn extra_columns(&self) -> Option<&ExtraColumns> {
        self.selection.extra()
    }
}

impl EpochPlan {
    /// Items of one epoch before the last batch is dropped.
    pub fn items(&self) -> u64 {
        self.selection.items(self.scan.lanes)
    }

    /// Global batches of one epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        let rows = (self.batch_rows as u64).max(1);
        if self.drop_last { self.items() / rows } else { self.items().div_ceil(rows) }
    }

    /// Items at the end of an epoch that fill no batch and are dropped.
    pub fn items_dropped(&self) -> u64 {
        if self.drop_last { self.items() % (self.batch_rows as u64).max(1) } else { 0 }
    }

    /// Most items of one batch in this process.
    fn local_rows(&self) -> usize {
        self.batch_rows.div_ceil(self.world.size.max(1) as usize)
    }

    /// Bytes of one finished batch in this process.
    pub fn batch_bytes(&self) -> u64 {
        self.local_rows() as u64 * (self.kernel.slot_bytes() as u64 + NARROW_BYTES)
    }

    /// Half of the memory at most is for windows, twice `shuffle_window_megabytes` at most; where series are read more than
    /// once, up to half of the rest for those that stay, `kept_megabytes` at most; the rest is for tensors.
    ///
    /// # Errors
    /// Fewer than two batches fit: one that is filled and one that is read.
    pub fn memory(&self) -> Result<MemoryShares> {
        let windows = self.scan.shuffle_window_megabytes.saturating_mul(2 * MEGABYTE);
        let window_bytes = windows.min(self.memory_bytes / 2);
        let needed = 2 * self.batch_bytes();
        let left = self.memory_bytes - window_bytes;
        let kept_bytes = match self.repeats_series() {
            true => self.scan.kept_megabytes.saturating_mul(MEGABYTE).min(left.saturating_sub(needed) / 2),
            false => 0,
        };
        let tensor_bytes = left - kept_bytes;
        if tensor_bytes < needed {
            let reason = format!(
                "{} MB are left for tensors, fewer than the {} MB of two batches; give memory_megabytes = {} or choose \
                 smaller batches",
                tensor_bytes / MEGABYTE,
                needed.div_ceil(MEGABYTE),
                (2 * needed).div_ceil(MEGABYTE)
            );
            return Err(Error::at(Stage::Scan, "memory_megabytes", reason));
        }
        Ok(MemoryShares { window_bytes, kept_bytes, tensor_bytes })
    }

    /// Whether passes read series, which take longer to decode than to be cut: images wait in the system's cache as well.
    fn repeats_series(&self) -> bool {
        let column = |shard: &Shard| shard.columns.get(self.kernel.column()).map(|place| is_series(&place.data_type));
        self.order == Order::Shuffled && self.shards.shards.iter().any(|shard| column(shard) == Some(true))
    }

    /// Compressed bytes of a group's selected rows in the fetched columns, by their mean in the footer.
    fn size_of(&self, group: &SelectedGroup) -> GroupSize {
        let items = group.items();
        let image = self.kernel.column();
        let (length, hash) = (format!("{image}_bytes"), format!("{image}_xxh3"));
        let mut columns = vec![image, length.as_str(), hash.as_str()];
        columns.extend(self.extra_columns.iter().map(String::as_str));
        columns.sort_unstable();
        columns.dedup();
        let Some(shard) = self.shards.shards.get(group.shard as usize) else { return GroupSize { items, bytes: 0 } };
        let stored = shard.group_bytes(group.row_group as usize, &columns);
        let rows = shard.format.group_rows(group.row_group as usize).max(1);
        GroupSize { items, bytes: (u128::from(stored) * u128::from(group.rows.len()) / u128::from(rows)) as u64 }
    }

    /// Narrow columns that are read from the shards: those that the selection does not bring.
    fn read_columns(&self) -> Vec<String> {
        let extra = self.selection.sources().first().and_then(|source| source.selection.extra());
        let is_brought = |name: &&String| extra.is_some_and(|extra| extra.names().any(|brought| brought == *name));
        self.extra_columns.iter().filter(|name| !is_brought(name)).cloned().collect()
    }

    fn source_plan(&self, selection: &Arc<Selection>) -> SourcePlan {
        let order = match self.order {
            Order::Shuffled => selection.canonical_order(),
            Order::Sequential => (0..selection.groups.len()).collect(),
        };
        let sizes: Vec<GroupSize> = order.iter().map(|&group| self.size_of(&selection.groups[group])).collect();
        let groups = Arc::new(Canonical { selection: Arc::clone(selection), order });
        SourcePlan { groups, sizes, digest: selection.digest() }
    }

    /// The order of an epoch.
    ///
    /// # Errors
    /// No lanes; several sources in sequential order, or one with fewer items than lanes.
    pub fn epoch_items(&self, epoch: u64) -> Result<EpochItems> {
        let key = OrderKey { seed: self.seed, epoch, selection: self.selection.digest() };
        if let Some(selection) = self.selection.only() {
            let SourcePlan { groups, sizes, .. } = self.source_plan(selection);
            return Ok(EpochItems::new(EpochOrder::new(&sizes, &self.scan, self.order, key)?, groups));
        }
        if self.order == Order::Sequential {
            return Err(Error::internal("several sources have no sequential order"));
        }
        let sources = self.selection.sources().iter().map(|source| self.source_plan(&source.selection)).collect();
        Ok(EpochItems::of(Streams::mixed(sources, &self.selection, &self.scan, key)?))
    }

    /// An epoch from one of its batches on, as DataFusion runs and explains it: `AugmentExec` over `OrderedScanExec`.
    ///
    /// # Errors
    /// The selection has no batch or not so many, memory is too small, ranks do not divide the lanes, or a column is
    /// missing.
    pub fn physical_plan(&self, epoch: u64, first_batch: u64) -> Result<Arc<dyn ExecutionPlan>> {
        let batches = self.batches_per_epoch();
        if self.batch_rows == 0 || batches == 0 {
            let reason = format!(
                "the selection has {} items, fewer than one batch of {}; select more or choose smaller batches",
                self.items(),
                self.batch_rows
            );
            return Err(Error::at(Stage::Scan, "prefetch.batch_rows", reason));
        }
        if first_batch > batches {
            let reason = format!("an epoch has {batches} batches, there is no batch {first_batch} to go on with");
            return Err(Error::at(Stage::Scan, "", reason));
        }
        let memory = self.memory()?;
        let store: Arc<dyn ObjectStore> = Arc::clone(&self.shards.reads);
        let budget = ByteBudget::new(memory.window_bytes);
        let fetcher = Fetcher::new(&self.shards.shards, store, self.kernel.column(), &self.read_columns(), budget)?;
        let HandedOn { spare, kept, known } = self.handed_on.clone();
        let fetcher = Arc::new(fetcher.keeping(kept, memory.kept_bytes));
        let items = self.epoch_items(epoch)?;
        let rows = self.batch_rows as u64;
        let bad_items = match self.order {
            Order::Shuffled => {
                BadItems::Replace(Substitutes::new(items.clone(), Arc::clone(&fetcher), rows, Reading::now()))
            }
            Order::Sequential => BadItems::LeaveOut,
        };
        let batches = Batches { rows, first: first_batch, end: batches, world: self.world };
        let scan = OrderedScanExec::new(items, fetcher, batches)?;
        let augment = Augment {
            kernel: Arc::clone(&self.kernel),
            seed: self.seed,
            decode_threads: self.decode_threads,
            pixel_digest: self.pixel_digest,
            bad_items,
            quarantine: self.quarantine.clone().unwrap_or_else(Quarantine::in_memory),
            max_bad_share: self.scan.max_bad_share,
            shards: self.shards.shards.clone(),
            budget: ByteBudget::new(memory.tensor_bytes),
            spare,
            known,
            batch_rows: self.local_rows(),
        };
        Ok(Arc::new(AugmentExec::new(Arc::new(scan), Arc::new(augment))?))
    }

    /// Runs an epoch from one of its batches on. Nothing is read before the stream is polled, on a tokio runtime.
    ///
    /// # Errors
    /// As [`Self::physical_plan`]; the decode threads cannot be started.
    pub fn execute(&self, epoch: u64, first_batch: u64) -> Result<SendableRecordBatchStream> {
        let plan = self.physical_plan(epoch, first_batch)?;
        plan.execute(0, Arc::new(TaskContext::default())).map_err(|error| from_datafusion(error, Stage::Scan))
    }
}
