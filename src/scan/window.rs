//! Windows of one lane: the next one is fetched while the current one is drained.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use datafusion::{arrow::array::RecordBatch, common::runtime::SpawnedTask};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use crate::{
    error::{Error, Result},
    scan::{
        failure::panic_text,
        fetch::{Fetcher, Reading},
        items::{EpochItems, Located},
    },
};

/// Row groups of one window fetched side by side.
const GROUPS_AT_A_TIME: usize = 4;

/// Items with their bytes, in the order of the epoch.
#[derive(Debug)]
pub struct LoadedWindow {
    /// One batch per row group, each selected row once.
    batches: Vec<Arc<RecordBatch>>,
    /// Which batch, which row of it, which item.
    items: Vec<(usize, usize, Located)>,
}

impl LoadedWindow {
    /// Fetches the rows of `items`.
    ///
    /// # Errors
    /// As [`Fetcher::rows`].
    pub async fn load(fetcher: &Fetcher, items: &[Located], reading: &Reading) -> Result<Self> {
        let mut rows: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        for located in items {
            rows.entry((located.item.shard, located.row_group)).or_default().push(located.row_in_group);
        }
        for rows in rows.values_mut() {
            rows.sort_unstable();
            rows.dedup();
        }
        let reads: Vec<_> =
            rows.iter().map(|(&(shard, group), rows)| fetcher.rows(shard, group, rows, reading)).collect();
        let batches = stream::iter(reads).buffered(GROUPS_AT_A_TIME).map_ok(Arc::new).try_collect().await?;
        let slots: BTreeMap<_, _> =
            rows.iter().zip(0_usize..).map(|((key, rows), slot)| (*key, (slot, rows))).collect();
        let items = items
            .iter()
            .map(|located| {
                let (slot, rows) = slots[&(located.item.shard, located.row_group)];
                (slot, rows.partition_point(|&row| row < located.row_in_group), *located)
            })
            .collect();
        Ok(Self { batches, items })
    }
}

/// One lane of one source, drained item by item.
#[derive(Debug)]
pub struct Lane {
    items: EpochItems,
    fetcher: Arc<Fetcher>,
    reading: Reading,
    source: u32,
    lane: u32,
    /// Next item to hand out, and the first that nobody will ask for.
    next: u64,
    end: u64,
    /// First item that no fetch was started for.
    unfetched: u64,
    current: Option<(LoadedWindow, usize)>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    /// Ends with the lane: dropping it aborts the fetch.
    task: SpawnedTask<Result<LoadedWindow>>,
    urgent: watch::Sender<bool>,
}

/// One item of a lane: where its row lies.
#[derive(Debug, Clone)]
pub struct Row {
    /// The batch of its row group.
    pub batch: Arc<RecordBatch>,
    /// Its row in that batch.
    pub index: usize,
    /// Which item.
    pub located: Located,
}

impl Lane {
    /// Items `range` of a source's lane, over all epochs. Starts fetching at once, so it must be called on a runtime.
    ///
    /// # Errors
    /// Ours.
    pub fn new(
        items: EpochItems,
        fetcher: Arc<Fetcher>,
        reading: Reading,
        (source, lane): (u32, u32),
        range: Range<u64>,
    ) -> Result<Self> {
        let (current, pending) = (None, None);
        let Range { start, end } = range;
        let mut lane =
            Self { items, fetcher, reading, source, lane, next: start, end, unfetched: start, current, pending };
        lane.start(true)?;
        Ok(lane)
    }

    /// Whether [`Self::next`] would have to wait for a fetch.
    pub fn waits(&self) -> bool {
        self.current.as_ref().is_none_or(|(window, used)| *used == window.items.len())
    }

    /// Starts fetching the rest of the window that holds the first unfetched item.
    fn start(&mut self, urgent: bool) -> Result<()> {
        if self.unfetched >= self.end {
            return Ok(());
        }
        let Some(window) = self.items.window_at(self.source, self.lane, self.unfetched)? else { return Ok(()) };
        let until = (window.first + window.window.items).min(self.end);
        let skip = (self.unfetched - window.first) as usize;
        let take = (until - self.unfetched) as usize;
        self.unfetched = until;
        let (sender, receiver) = watch::channel(urgent);
        let (items, fetcher) = (self.items.clone(), Arc::clone(&self.fetcher));
        let reading = Reading { urgent: Some(receiver), ..self.reading.clone() };
        let task = SpawnedTask::spawn(async move {
            // Only what is left of a window: resuming in its middle reads no row twice.
            let left: Vec<Located> = items.window(&window)?.into_iter().skip(skip).take(take).collect();
            LoadedWindow::load(&fetcher, &left, &reading).await
        });
        self.pending = Some(Pending { task, urgent: sender });
        Ok(())
    }

    /// The lane's next item.
    ///
    /// # Errors
    /// Its window could not be fetched, or the lane is at its end.
    pub async fn next(&mut self) -> Result<Row> {
        if self.waits() {
            // First: its memory is free before the next window's fetch is made urgent.
            self.current = None;
            let pending = self.pending.take().ok_or_else(|| {
                let Self { source, lane, next, end, .. } = self;
                Error::internal(format!("lane {lane} of source {source} has no item {next} before {end}"))
            })?;
            pending.urgent.send_replace(true);
            let window = match pending.task.join().await {
                Ok(window) => window?,
                Err(failed) => {
                    let text = failed.try_into_panic().map_or_else(|e| e.to_string(), |p| panic_text(p.as_ref()));
                    return Err(Error::internal("a window's fetch ended early").caused_by(text));
                }
            };
            self.current = Some((window, 0));
            self.start(false)?;
        }
        let Some((window, used)) = &mut self.current else { return Err(Error::internal("an empty window")) };
        let (slot, index, located) = window.items[*used];
        *used += 1;
        self.next += 1;
        Ok(Row { batch: Arc::clone(&window.batches[slot]), index, located })
    }
}
