//! The queue between the data half and the trainer, bounded in bytes.
//!
//! A task on the data half's runtime fills it, the trainer's thread empties it; both sides' waits are measured. What
//! the task meets (an error, a panic, the end) arrives at the trainer in its place; dropping the queue stops the task.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use datafusion::{arrow::array::RecordBatch, execution::SendableRecordBatchStream};
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

use crate::{
    error::{Error, Result, Stage},
    scan::{
        budget::{ByteBudget, Charge},
        failure::{from_datafusion, panic_text},
    },
};

/// Bytes of a megabyte in settings.
const MEGABYTE: u64 = 1 << 20;

/// `[prefetch]` of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefetchSettings {
    /// Items of a global batch.
    pub batch_rows: usize,
    /// Bytes of finished batches that may wait.
    #[serde(default = "default_capacity")]
    pub capacity_megabytes: u64,
    /// BLAKE3 of every item's pixels in the batch digest.
    #[serde(default)]
    pub pixel_digest: bool,
}
fn default_capacity() -> u64 {
    512
}

impl PrefetchSettings {
    /// Checks the capacity against the bytes of one batch.
    ///
    /// # Errors
    /// Fewer than two batches may wait.
    pub fn check(&self, batch_bytes: u64) -> Result<()> {
        check_capacity(self.capacity_megabytes.saturating_mul(MEGABYTE), batch_bytes)
    }
}

/// Checks that two batches may wait: with fewer, trainer and data half take turns instead of working side by side.
///
/// # Errors
/// They may not.
pub fn check_capacity(capacity_bytes: u64, batch_bytes: u64) -> Result<()> {
    if capacity_bytes >= batch_bytes.saturating_mul(2) {
        return Ok(());
    }
    let reason = format!(
        "{capacity_bytes} bytes hold fewer than two batches of {batch_bytes}; write at least {}",
        batch_bytes.saturating_mul(2).div_ceil(MEGABYTE)
    );
    Err(Error::at(Stage::Prefetch, "prefetch.capacity_megabytes", reason))
}

/// Who waited for whom; waits that are not over count as long as they have lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// The trainer for a batch.
    pub trainer_waited: Duration,
    /// The data half for room.
    pub data_waited: Duration,
}

#[derive(Debug, Default)]
struct Clocks {
    trainer: Clock,
    data: Clock,
}

/// How long one side waited: waits that are over, and the beginning of the one that is not.
#[derive(Debug, Default)]
struct Clock {
    state: Mutex<(Duration, Option<Instant>)>,
}

impl Clock {
    fn state(&self) -> MutexGuard<'_, (Duration, Option<Instant>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wait ends with what comes back.
    fn begin(&self) -> Waiting<'_> {
        self.state().1 = Some(Instant::now());
        Waiting(self)
    }

    fn waited(&self) -> Duration {
        let (over, since) = *self.state();
        over + since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

struct Waiting<'a>(&'a Clock);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(since) = state.1.take() {
            state.0 += since.elapsed();
        }
    }
}

enum Message {
    Batch(RecordBatch, Charge),
    Failed(Error),
    End,
}

/// Batches that wait for the trainer.
#[derive(Debug)]
pub struct Queue {
    messages: mpsc::UnboundedReceiver<Message>,
    task: JoinHandle<()>,
    budget: Arc<ByteBudget>,
    clocks: Arc<Clocks>,
    is_finished: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Batch(..) => "Batch",
            Self::Failed(_) => "Failed",
            Self::End => "End",
        })
    }
}

/// Starts to fill a queue of `capacity_bytes` from `stream`, on the data half's runtime.
///
/// ```
/// # use std::sync::Arc;
/// # use datafusion::{arrow::{array::RecordBatch, datatypes::Schema}, physical_plan::stream::RecordBatchStreamAdapter};
/// # let runtime = tokio::runtime::Runtime::new()?;
/// # let schema = Arc::new(Schema::empty());
/// # let batches = futures::stream::iter([Ok(RecordBatch::new_empty(schema.clone()))]);
/// let stream = Box::pin(RecordBatchStreamAdapter::new(schema, batches));
/// let mut queue = diptych::prefetch::prefetch(stream, 64 << 20, runtime.handle());
/// while let Some(batch) = queue.next_batch()? {
///     assert_eq!(batch.num_rows(), 0);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn prefetch(stream: SendableRecordBatchStream, capacity_bytes: u64, runtime: &Handle) -> Queue {
    let (sender, messages) = mpsc::unbounded_channel();
    let budget = ByteBudget::new(capacity_bytes);
    let clocks = Arc::new(Clocks::default());
    let task = runtime.spawn(fill(stream, sender, Arc::clone(&budget), Arc::clone(&clocks)));
    Queue { messages, task, budget, clocks, is_finished: false }
}

async fn fill(
    mut stream: SendableRecordBatchStream,
    sender: mpsc::UnboundedSender<Message>,
    budget: Arc<ByteBudget>,
    clocks: Arc<Clocks>,
) {
    loop {
        let polled = AssertUnwindSafe(stream.next()).catch_unwind().await;
        let message = match polled {
            Ok(Some(Ok(batch))) => {
                let waiting = clocks.data.begin();
                let charge = budget.charge(batch.get_array_memory_size() as u64).await;
                drop(waiting);
                Message::Batch(batch, charge)
            }
            Ok(Some(Err(error))) => Message::Failed(from_datafusion(error, Stage::Prefetch)),
            Ok(None) => Message::End,
            Err(payload) => {
                Message::Failed(Error::internal("the data half panicked").caused_by(panic_text(payload.as_ref())))
            }
        };
        let is_last = !matches!(message, Message::Batch(..));
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}

impl Queue {
    /// The next batch, `None` after the last one. Blocks: not for async code.
    ///
    /// # Errors
    /// What failed upstream, in its place behind the batches that came before it.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        if self.is_finished {
            return Ok(None);
        }
        let waiting = self.clocks.trainer.begin();
        let message = self.messages.blocking_recv();
        drop(waiting);
        match message {
            Some(Message::Batch(batch, _charge)) => Ok(Some(batch)),
            Some(Message::End) => {
                self.is_finished = true;
                Ok(None)
            }
            Some(Message::Failed(error)) => {
                self.is_finished = true;
                Err(error)
            }
            None => {
                self.is_finished = true;
                Err(Error::at(Stage::Prefetch, "", "the data half was stopped before its last batch"))
            }
        }
    }

    /// Waits so far.
    pub fn waits(&self) -> Waits {
        Waits { trainer_waited: self.clocks.trainer.waited(), data_waited: self.clocks.data.waited() }
    }

    /// Bytes of the batches that wait now.
    pub fn waiting_bytes(&self) -> u64 {
        self.budget.used_bytes()
    }

    /// Most bytes that ever waited at a time.
    pub fn peak_bytes(&self) -> u64 {
        self.budget.peak_bytes()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Drops the stream at its next await, and with it every fetch under way.
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use datafusion::{
        arrow::{
            array::{AsArray, UInt8Array},
            datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type},
        },
        error::DataFusionError,
        physical_plan::stream::RecordBatchStreamAdapter,
    };
    use futures::{Stream, stream};
    use tokio::sync::oneshot;

    use super::*;
    use crate::scan::failure::into_datafusion;

    const BATCH_BYTES: usize = 1024;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::UInt8, false)]))
    }

    fn batch(n: u8, bytes: usize) -> RecordBatch {
        RecordBatch::try_new(schema(), vec![Arc::new(UInt8Array::from(vec![n; bytes]))]).expect("one column")
    }

    fn capacity(batches: usize) -> u64 {
        (batches * batch(0, BATCH_BYTES).get_array_memory_size()) as u64
    }

    fn stream(
        batches: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
    ) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(schema(), batches))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime")
    }

    fn number(batch: &RecordBatch) -> u8 {
        batch.column(0).as_primitive::<UInt8Type>().value(0)
    }

    /// Waits until it is so. A minute is long enough for any machine, and ends what would hang.
    fn settle(mut is_done: impl FnMut() -> bool) -> bool {
        (0..12_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            is_done()
        })
    }

    #[test]
    fn batches_arrive_in_order_and_then_none() {
        let runtime = runtime();
        let batches = stream::iter((0..50).map(|n| Ok(batch(n, BATCH_BYTES))));
        let mut queue = prefetch(stream(batches), capacity(2), runtime.handle());
        let mut numbers = vec![];
        while let Some(batch) = queue.next_batch().expect("no failure") {
            numbers.push(number(&batch));
        }
        assert_eq!(numbers, (0..50).collect::<Vec<_>>());
        assert!(queue.next_batch().expect("still the end").is_none());
        assert!(queue.peak_bytes() <= capacity(2) && queue.peak_bytes() > 0);
    }

    #[test]
    fn waiting_batches_never_exceed_the_capacity() {
        let runtime = runtime();
        let made = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&made);
        let batches = stream::iter(0..100).map(move |n| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(batch(n, BATCH_BYTES))
        });
        let mut queue = prefetch(stream(batches), capacity(3), runtime.handle());
        // Three wait, the fourth is in the hands of the task.
        assert!(settle(|| queue.waiting_bytes() == capacity(3) && made.load(Ordering::Relaxed) == 4));
        let mut taken = 0;
        while queue.next_batch().expect("no failure").is_some() {
            taken += 1;
            let ahead = made.load(Ordering::Relaxed) - taken;
            assert!(ahead <= 4, "{ahead} after {taken}");
        }
        assert_eq!((taken, queue.peak_bytes()), (100, capacity(3)));
    }

    #[test]
    fn oversized_batch_still_passes_alone() {
        let runtime = runtime();
        let batches = [batch(1, BATCH_BYTES), batch(2, 10 * BATCH_BYTES), batch(3, BATCH_BYTES)];
        let mut queue = prefetch(stream(stream::iter(batches.map(Ok))), capacity(2), runtime.handle());
        assert!(settle(|| queue.waiting_bytes() == capacity(1)));
        assert_eq!(number(&queue.next_batch().expect("no failure").expect("first")), 1);
        assert!(settle(|| queue.waiting_bytes() > capacity(2)));
        let alone = queue.waiting_bytes();
        assert_eq!(number(&queue.next_batch().expect("no failure").expect("second")), 2);
        assert_eq!(number(&queue.next_batch().expect("no failure").expect("third")), 3);
        assert_eq!(queue.peak_bytes(), alone);
    }

    #[test]
    fn an_error_arrives_behind_the_batches_before_it() {
        let runtime = runtime();
        let error = into_datafusion(Error::at(Stage::Scan, "b.parquet", "is gone"));
        let batches = stream::iter([Ok(batch(1, 8)), Err(error), Ok(batch(2, 8))]);
        let mut queue = prefetch(stream(batches), capacity(2), runtime.handle());
        assert!(queue.next_batch().expect("first").is_some());
        assert_eq!(queue.next_batch().expect_err("gone").to_string(), "scan: b.parquet: is gone");
        assert!(queue.next_batch().expect("nothing more").is_none());
    }

    #[test]
    fn a_panic_arrives_as_an_error() {
        let runtime = runtime();
        let batches = stream::iter(0..3).map(|n| {
            assert!(n < 1, "a bug in a kernel");
            Ok(batch(n, 8))
        });
        let mut queue = prefetch(stream(batches), capacity(2), runtime.handle());
        assert!(queue.next_batch().expect("first").is_some());
        let error = queue.next_batch().expect_err("panicked");
        assert!(error.report().contains("a bug in a kernel"), "{}", error.report());
    }

    #[test]
    fn a_stopped_runtime_is_an_error_and_no_hang() {
        let runtime = runtime();
        let batches = stream::once(std::future::pending());
        let mut queue = prefetch(stream(batches), capacity(2), runtime.handle());
        runtime.shutdown_timeout(Duration::from_millis(10));
        assert!(queue.next_batch().is_err());
    }

    #[test]
    fn dropping_the_queue_drops_the_stream() {
        struct Guard(Arc<AtomicU64>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.store(1, Ordering::Relaxed);
            }
        }
        let runtime = runtime();
        let [asked, dropped] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let (guard, polled) = (Guard(Arc::clone(&dropped)), Arc::clone(&asked));
        // The first batch never comes: only cancelling ends the wait.
        let batches = stream::once(async move {
            let _guard = guard;
            polled.store(1, Ordering::Relaxed);
            std::future::pending().await
        });
        let queue = prefetch(stream(batches), capacity(2), runtime.handle());
        assert!(settle(|| asked.load(Ordering::Relaxed) == 1));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        drop(queue);
        assert!(settle(|| dropped.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn both_sides_see_their_waits_while_they_last() {
        const A_WHILE: Duration = Duration::from_millis(20);
        let runtime = runtime();
        // Nothing comes until it is let: the trainer waits, and nobody waits for room.
        let (let_go, gate) = oneshot::channel();
        let held = stream::once(async move {
            let () = gate.await.expect("let go");
            Ok(batch(7, BATCH_BYTES))
        });
        let mut queue = prefetch(stream(held), capacity(2), runtime.handle());
        let clocks = Arc::clone(&queue.clocks);
        std::thread::scope(|scope| {
            let trainer = scope.spawn(|| queue.next_batch().expect("no failure").expect("a batch"));
            assert!(settle(|| clocks.trainer.waited() > A_WHILE));
            assert_eq!(clocks.data.waited(), Duration::ZERO);
            let_go.send(()).expect("the stream waits for it");
            assert_eq!(number(&trainer.join().expect("no panic")), 7);
        });
        let waited = queue.waits().trainer_waited;
        assert!(waited > A_WHILE && waited == queue.waits().trainer_waited, "the wait is over and goes on counting");

        let fast = stream::iter((0..8).map(|n| Ok(batch(n, BATCH_BYTES))));
        let mut queue = prefetch(stream(fast), capacity(2), runtime.handle());
        assert!(settle(|| queue.waiting_bytes() == capacity(2)));
        // From here on nothing but a wait for room takes the data half's time.
        let before = queue.waits().data_waited;
        assert!(settle(|| queue.waits().data_waited > before + A_WHILE));
        assert_eq!(queue.waits().trainer_waited, Duration::ZERO);
        while queue.next_batch().expect("no failure").is_some() {}
        let waited = queue.waits().data_waited;
        assert!(waited > before + A_WHILE && waited == queue.waits().data_waited, "{:?}", queue.waits());
    }

    #[test]
    fn a_capacity_under_two_batches_is_refused() {
        check_capacity(200, 100).expect("two fit");
        let error = check_capacity(199, 100).expect_err("one and a bit");
        assert!(error.to_string().contains("two batches"), "{error}");
        let settings = PrefetchSettings { batch_rows: 2, capacity_megabytes: 3, pixel_digest: false };
        assert!(settings.check(2 << 20).expect_err("4 MB needed").to_string().contains("at least 4"));
    }
}
