//! The slots of one batch: filled by the decode threads, bad ones replaced, assembled without a copy of the pixels.

use std::{
    collections::HashSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use datafusion::{
    arrow::{
        array::{Array, AsArray, RecordBatch, UInt64Array},
        datatypes::{SchemaRef, UInt32Type, UInt64Type},
    },
    physical_plan::metrics::{Count, Time},
};
use futures::{StreamExt, TryStreamExt, stream};
use rayon::prelude::*;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Augment, BadItems,
    assemble::assemble,
    captions::{Caption, texts},
};
use crate::{
    augment::{BadClass, BadSample, verify::verify},
    error::{Error, Result, Stage},
    pair::{Encoded, Numbers},
    scan::{
        budget::{Charge, Charged},
        failure::panic_text,
        fetch::{BLOB, BLOB_BYTES, BLOB_CHANNELS, BLOB_FETCH, BLOB_PATH, BLOB_XXH3, declared, numbers_of},
        items::{Item, Located},
        ordered_scan::{FETCHED, OCCURRENCE, PASS, POSITION, ROW, SHARD},
        quarantine::BadRow,
        substitute::Substitutes,
    },
    seed::ItemKey,
};

/// Bad slots of one batch that are replaced side by side.
const REPLACED_AT_A_TIME: usize = 8;

/// A finished batch and what was bad in it.
pub(super) struct Done {
    pub(super) batch: RecordBatch,
    pub(super) items: u64,
    pub(super) bad: u64,
    pub(super) bad_rows: Vec<BadRow>,
}

/// What came of one slot besides its pixels.
#[derive(Debug, Clone, Default)]
pub(super) struct Filled {
    /// Of the pixels and the text, where asked for.
    pub(super) digest: [u8; 32],
    /// Empty where the pairing has no texts.
    pub(super) caption: Caption,
}

/// What came of one slot, or why it is bad.
type Outcome = Result<Filled, BadSample>;

/// An item that took a bad one's slot.
pub(super) struct Replacement {
    pub(super) slot: usize,
    pub(super) item: Item,
    pub(super) pass: u64,
    pub(super) fetched: RecordBatch,
    pixels: Vec<u8>,
    filled: Filled,
    bad_rows: Vec<BadRow>,
}

/// Memory of tensors that were read and dropped, for the next ones, also those of the next epoch: fresh memory costs a page
/// fault per 4 KiB. Together with those in use they are never more than were once charged at a time.
#[derive(Default)]
pub struct Spare(Mutex<Vec<Vec<u8>>>);

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare").finish_non_exhaustive()
    }
}

/// The memory of one tensor; goes back to the spare ones as long as there may be a next epoch.
struct Slots {
    memory: Vec<u8>,
    spare: Weak<Spare>,
}

impl Slots {
    /// Not cleared: a kernel fills its whole slot.
    fn new(spare: &Arc<Spare>, bytes: usize) -> Self {
        let mut memory = spare.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        memory.resize(bytes, 0);
        Self { memory, spare: Arc::downgrade(spare) }
    }
}

impl AsRef<[u8]> for Slots {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.upgrade() {
            spare.0.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.memory));
        }
    }
}

/// Augments batches on threads of its own.
pub(super) struct Worker {
    pub(super) augment: Arc<Augment>,
    pub(super) pool: rayon::ThreadPool,
    pub(super) schema: SchemaRef,
    pub(super) kernel_time: Time,
    pub(super) bad: Count,
}

impl Worker {
    /// Fills a tensor for the batch. The charge for its memory lives as long as the tensor.
    pub(super) async fn augment(self: &Arc<Self>, batch: RecordBatch, charge: Charge) -> Result<Done> {
        let rows = batch.num_rows();
        let items = items_of(&batch);
        let passes = batch.column(PASS).as_primitive::<UInt64Type>().values().clone();
        let slot_bytes = self.augment.slot_bytes();
        let rendered = self.on_pool({
            let (worker, batch, items) = (Arc::clone(self), batch.clone(), items.clone());
            move || {
                let mut slots = Slots::new(&worker.augment.spare, rows * slot_bytes);
                let outcomes: Vec<Outcome> = slots
                    .memory
                    .par_chunks_mut(slot_bytes)
                    .zip(items.par_iter())
                    .enumerate()
                    .map(|(row, (slot, item))| worker.render(&batch, FETCHED, row, (*item, passes[row]), slot))
                    .collect();
                (slots, outcomes)
            }
        });
        let (mut slots, outcomes) = rendered.await?;
        let mut bad_rows = vec![];
        let mut bad_slots = vec![];
        let mut filled = vec![Filled::default(); rows];
        for (row, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(of_slot) => filled[row] = of_slot,
                Err(bad) => {
                    bad_rows.push(self.bad_row(items[row], &bad));
                    bad_slots.push(row);
                }
            }
        }
        let bad = bad_slots.len() as u64;
        let mut replacements: Vec<Replacement> = vec![];
        let mut kept: Vec<usize> = (0..rows).collect();
        match &self.augment.bad_items {
            BadItems::Replace(substitutes) => {
                let positions = batch.column(POSITION).as_primitive::<UInt64Type>();
                replacements = match self.replace_all(substitutes, &bad_slots, positions).await {
                    Ok(done) => done,
                    Err(error) => {
                        // The error sends its reader to the table.
                        let quarantine = &self.augment.quarantine;
                        quarantine.settle(0, 0, bad_rows, 1.0)?;
                        quarantine.flush()?;
                        return Err(error);
                    }
                };
            }
            BadItems::LeaveOut => {
                kept.retain(|row| !bad_slots.contains(row));
                for (to, &from) in kept.iter().enumerate() {
                    slots.memory.copy_within(from * slot_bytes..(from + 1) * slot_bytes, to * slot_bytes);
                    filled.swap(to, from);
                }
                slots.memory.truncate(kept.len() * slot_bytes);
                filled.truncate(kept.len());
            }
        }
        for replacement in &mut replacements {
            let slot = replacement.slot;
            slots.memory[slot * slot_bytes..(slot + 1) * slot_bytes].copy_from_slice(&replacement.pixels);
            filled[slot] = std::mem::take(&mut replacement.filled);
            bad_rows.append(&mut replacement.bad_rows);
        }
        let pixels = Charged::into_bytes(slots, Arc::new(charge));
        let batch = assemble(self, &batch, &kept, &replacements, pixels.into(), &filled)?;
        Ok(Done { batch, items: rows as u64, bad, bad_rows })
    }

    /// Runs on the decode threads; a panic there is an error here.
    async fn on_pool<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.pool.spawn(move || {
            // Nobody may wait any more: the trainer has stopped.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
        });
        match receiver.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(payload)) => {
                Err(Error::internal("a decode thread panicked").caused_by(panic_text(payload.as_ref())))
            }
            Err(gone) => Err(Error::internal("the decode threads are gone").caused_by(gone)),
        }
    }

    /// Fills one slot from a row whose fetched columns begin at `first`.
    fn render(
        &self,
        batch: &RecordBatch,
        first: usize,
        row: usize,
        (item, pass): (Item, u64),
        slot: &mut [u8],
    ) -> Outcome {
        let _timer = self.kernel_time.timer();
        let Augment { kernel, seed, shards, pixel_digest, .. } = &*self.augment;
        let shard = &shards[item.shard as usize];
        let numbers = numbers_of(shard, kernel.column());
        let encoded = encoded(batch, first, row, numbers)?;
        let key = shard.item_key(item.row, item.occurrence);
        // Decoders of many formats, fed with what the web holds: one that panics has met a bad sample.
        let fill = AssertUnwindSafe(|| {
            let fetch = declared(batch, first + BLOB_FETCH, row);
            let facts = self.augment.known.judged(fetch, || {
                let [length, hash] = [BLOB_BYTES, BLOB_XXH3].map(|column| declared(batch, first + column, row));
                verify(encoded.bytes, length, hash, || xxh3_64(encoded.bytes))?;
                kernel.facts(encoded)
            })?;
            let encoded = Encoded { facts: Some(&facts), ..encoded };
            let caption = self.caption(batch, row, encoded.bytes, (pass, key))?;
            kernel.apply(encoded, *seed, pass, key, slot).map(|()| caption)
        });
        let caption = catch_unwind(fill).unwrap_or_else(|payload| {
            let message = format!("the decoder panicked: {}", panic_text(payload.as_ref()));
            Err(BadSample::undecodable(message))
        })?;
        if !pixel_digest {
            return Ok(Filled { digest: [0; 32], caption });
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(kernel.element().name().as_bytes());
        for &axis in kernel.shape() {
            hasher.update(&(axis as u64).to_le_bytes());
        }
        hasher.update(slot);
        for id in &caption.tokens {
            hasher.update(&id.to_le_bytes());
        }
        Ok(Filled { digest: hasher.finalize().into(), caption })
    }

    /// The text that goes with a row's image, where the pairing has texts.
    fn caption(
        &self,
        batch: &RecordBatch,
        row: usize,
        image: &[u8],
        (pass, key): (u64, ItemKey),
    ) -> Result<Caption, BadSample> {
        let Some(captions) = self.augment.kernel.captions() else { return Ok(Caption::default()) };
        let column = batch.column_by_name(captions.column());
        let texts = column.map(|column| texts(column.as_ref(), row)).unwrap_or_default();
        let tokens = captions.tokens(&texts, self.augment.seed, pass, key)?;
        Ok(Caption { tokens, image: xxh3_64(image) })
    }

    /// Side by side, and again one after the other where two slots drew the same row: a perfect false negative. So the
    /// outcome is that of replacing them in their order.
    async fn replace_all(
        self: &Arc<Self>,
        substitutes: &Substitutes,
        slots: &[usize],
        positions: &UInt64Array,
    ) -> Result<Vec<Replacement>> {
        let (none_used, mut used) = (HashSet::new(), HashSet::new());
        let replace = |slot: usize| self.replace(substitutes, slot, positions.value(slot), &none_used);
        let mut replacements: Vec<Replacement> =
            stream::iter(slots.to_vec()).map(replace).buffered(REPLACED_AT_A_TIME).try_collect().await?;
        for replacement in &mut replacements {
            let row = |replacement: &Replacement| (replacement.item.shard, replacement.item.row);
            if used.contains(&row(replacement)) {
                let slot = replacement.slot;
                let mut again = self.replace(substitutes, slot, positions.value(slot), &used).await?;
                again.bad_rows.append(&mut replacement.bad_rows);
                *replacement = again;
            }
            used.insert(row(replacement));
        }
        Ok(replacements)
    }

    async fn replace(
        self: &Arc<Self>,
        substitutes: &Substitutes,
        slot: usize,
        position: u64,
        used: &HashSet<(u32, u64)>,
    ) -> Result<Replacement> {
        let mut bad_rows = vec![];
        for located in substitutes.candidates(position, used)? {
            let located = located?;
            let fetched = substitutes.fetch(&located).await?;
            let (pixels, outcome) = self
                .on_pool({
                    let (worker, fetched) = (Arc::clone(self), fetched.clone());
                    move || {
                        let mut pixels = vec![0; worker.augment.slot_bytes()];
                        let outcome = worker.render(&fetched, 0, 0, (located.item, located.pass), &mut pixels);
                        (pixels, outcome)
                    }
                })
                .await?;
            match outcome {
                Ok(filled) => {
                    let Located { item, pass, .. } = located;
                    return Ok(Replacement { slot, item, pass, fetched, pixels, filled, bad_rows });
                }
                Err(bad) => bad_rows.push(self.bad_row(located.item, &bad)),
            }
        }
        let reason = format!(
            "nothing can replace the bad sample at position {position}: {} other samples were tried and are bad too, and \
             no row may stand in a batch twice; leave out what the quarantine table lists with SQL, or choose smaller \
             batches",
            bad_rows.len()
        );
        Err(Error::at(Stage::Augment, "", reason))
    }

    fn bad_row(&self, item: Item, bad: &BadSample) -> BadRow {
        let stage = match bad.class {
            BadClass::Empty | BadClass::Checksum => Stage::Scan,
            _ => Stage::Augment,
        };
        BadRow::new(&self.augment.shards[item.shard as usize].name, item.shard, item.row, stage, bad)
    }
}

fn items_of(batch: &RecordBatch) -> Vec<Item> {
    let shards = batch.column(SHARD).as_primitive::<UInt32Type>().values();
    let rows = batch.column(ROW).as_primitive::<UInt64Type>().values();
    let occurrences = batch.column(OCCURRENCE).as_primitive::<UInt32Type>().values();
    let items = shards.iter().zip(rows).zip(occurrences);
    items.map(|((&shard, &row), &occurrence)| Item { shard, row, occurrence }).collect()
}

/// The blob of a row, no bytes where it is null.
fn encoded(batch: &RecordBatch, first: usize, row: usize, numbers: Numbers) -> Result<Encoded<'_>, BadSample> {
    let images = batch.column(first + BLOB).as_binary_view();
    let paths = batch.column(first + BLOB_PATH).as_string::<i32>();
    if images.is_null(row) && paths.is_valid(row) {
        let message = format!("its bytes are null: the file {:?} is not embedded in the shard", paths.value(row));
        return Err(BadSample { class: BadClass::Empty, message });
    }
    let bytes = if images.is_null(row) { &[] } else { images.value(row) };
    let channels = declared(batch, first + BLOB_CHANNELS, row).and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    Ok(Encoded { bytes, numbers, channels, facts: None })
}
