//! What takes the place of a bad item: a pure function of seed, epoch and position.
//!
//! The slot's number within its global batch, s, decides which items may come: those at position s of the epoch's other
//! batches. So two slots of one batch never draw the same item, whichever process computes them, and none of them draws
//! an item of its own batch, which would be a perfect false negative.
//!
//! Where these give none (fewer than two full batches reach the slot, or all are bad), any item outside the batch may
//! come. Then, and where a join repeats rows, two slots can draw the same row: the later slot of a process draws again.

use std::{collections::HashSet, ops::Range, sync::Arc};

use datafusion::arrow::array::RecordBatch;

use crate::{
    error::{Error, Result, Stage},
    scan::{
        fetch::{Fetcher, Reading},
        items::{EpochItems, Located, samples},
    },
    seed::draws,
};

/// Draws for one slot among the items of its own place, and as many among all; a run gives up where all of them are bad.
const LARGEST_DRAWS: u64 = 64;

/// Up to so many items outside a batch are all looked at: nobody is told of a lack that luck made up.
const ALL_DRAWN: u64 = 4_096;

/// Draws substitutes and fetches them.
#[derive(Debug, Clone)]
pub struct Substitutes {
    items: EpochItems,
    fetcher: Arc<Fetcher>,
    batch_rows: u64,
    reading: Reading,
}

impl Substitutes {
    /// For batches of `batch_rows` items over all processes.
    pub fn new(items: EpochItems, fetcher: Arc<Fetcher>, batch_rows: u64, reading: Reading) -> Self {
        Self { items, fetcher, batch_rows, reading }
    }

    /// Positions of the global batch of a position.
    fn batch_of(&self, position: u64) -> Range<u64> {
        let first = position - position % self.batch_rows;
        first..(first + self.batch_rows).min(self.items.order().items())
    }

    /// Items that draws for the slot at `position` give, in their order, each row once. Rows of the slot's own batch and
    /// those in `used`, which took other slots, are left out.
    ///
    /// # Errors
    /// The epoch has no item outside the slot's batch.
    pub fn candidates<'a>(
        &'a self,
        position: u64,
        used: &HashSet<(u32, u64)>,
    ) -> Result<impl Iterator<Item = Result<Located>> + use<'a>> {
        let order = self.items.order();
        let batch = self.batch_of(position);
        let slot = position % self.batch_rows;
        let own = position / self.batch_rows;
        // Batches that reach as far as this slot, without the slot's own.
        let others = (order.items() + self.batch_rows - 1 - slot) / self.batch_rows - 1;
        let outside = order.items() - (batch.end - batch.start);
        if outside == 0 {
            let reason = format!(
                "the sample at position {position} cannot be used and the selection has no other batch to replace it \
                 from; leave it out with SQL, as the quarantine table names it, or choose smaller batches"
            );
            return Err(Error::at(Stage::Augment, "", reason));
        }
        let mut taken = samples(&self.items.stretch(batch.clone())?);
        taken.extend(used);
        let drawn = |name: &'static str| draws(order.key().seed, name, &order.key().numbers(&[position]));
        let mut of_slot = drawn("substitute");
        let in_its_place = (0..if others > 0 { LARGEST_DRAWS } else { 0 }).map(move |_| {
            let other = of_slot.below(others);
            (other + u64::from(other >= own)) * self.batch_rows + slot
        });
        let mut of_all = drawn("substitute from anywhere");
        let anywhere: Box<dyn Iterator<Item = u64> + Send> = if outside <= ALL_DRAWN {
            let mut all: Vec<u64> = (0..outside).collect();
            of_all.shuffle(&mut all);
            Box::new(all.into_iter())
        } else {
            Box::new((0..LARGEST_DRAWS).map(move |_| of_all.below(outside)))
        };
        let anywhere = anywhere.map(move |other| other + if other < batch.start { 0 } else { batch.end - batch.start });
        let fresh = in_its_place.chain(anywhere).filter_map(move |candidate| {
            let located = match self.items.stretch(candidate..candidate + 1) {
                Ok(located) => located[0],
                Err(error) => return Some(Err(error)),
            };
            taken.insert((located.item.shard, located.item.row)).then_some(Ok(located))
        });
        Ok(fresh.take(2 * LARGEST_DRAWS as usize))
    }

    /// One row by random access, as a batch of one.
    ///
    /// # Errors
    /// As [`Fetcher::rows`].
    pub async fn fetch(&self, located: &Located) -> Result<RecordBatch> {
        self.fetcher.rows(located.item.shard, located.row_group, &[located.row_in_group], &self.reading).await
    }
}
