//! What takes the place of a bad item: a pure function of seed, epoch and position.
//!
//! The slot's number within its global batch, s, decides which items may come: those at position s of the epoch's other
//! batches. So two slots of one batch never draw the same item, whichever process computes them, and none of them draws
//! an item of its own batch, which would be a perfect false negative.

use std::{ops::Range, sync::Arc};

use datafusion::arrow::array::RecordBatch;

use crate::{
    error::{Error, Result, Stage},
    scan::{
        fetch::{Fetcher, Reading},
        items::{EpochItems, Located, samples},
    },
    seed::draws,
};

/// Draws for one slot before the run gives up.
pub const LARGEST_DRAWS: u64 = 64;

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
        first..(first + self.batch_rows).min(self.items.items())
    }

    /// Positions that `draw`s for the slot at `position` give, in their order. Items of the slot's own batch, also by
    /// another repeat of the same row, are left out.
    ///
    /// # Errors
    /// The epoch has no item outside the slot's batch.
    pub fn candidates(&self, position: u64) -> Result<impl Iterator<Item = Result<Located>> + '_> {
        let items = self.items.items();
        let batch = self.batch_of(position);
        let slot = position % self.batch_rows;
        let own = position / self.batch_rows;
        // Batches that reach as far as this slot, without the slot's own.
        let others = (items + self.batch_rows - 1 - slot) / self.batch_rows - 1;
        let outside = items - (batch.end - batch.start);
        if outside == 0 {
            let reason = format!(
                "the sample at position {position} cannot be used and the selection has no other batch to replace it \
                 from; leave it out with SQL, as the quarantine table names it, or choose smaller batches"
            );
            return Err(Error::at(Stage::Augment, "", reason));
        }
        let taken = samples(&self.items.stretch(batch.clone())?);
        let mut draws = draws(self.items.key().seed, "substitute", &self.items.key().numbers(&[position]));
        let drawn = (0..LARGEST_DRAWS).filter_map(move |_| {
            let candidate = if others > 0 {
                let other = draws.below(others);
                (other + u64::from(other >= own)) * self.batch_rows + slot
            } else {
                // Only a shorter last batch is left, and it does not reach as far as this slot.
                let other = draws.below(outside);
                if other < batch.start { other } else { other + (batch.end - batch.start) }
            };
            let located = match self.items.stretch(candidate..candidate + 1) {
                Ok(located) => located[0],
                Err(error) => return Some(Err(error)),
            };
            (!taken.contains(&(located.item.shard, located.item.row))).then_some(Ok(located))
        });
        Ok(drawn)
    }

    /// One row by random access, as a batch of one.
    ///
    /// # Errors
    /// As [`Fetcher::rows`].
    pub async fn fetch(&self, located: &Located) -> Result<RecordBatch> {
        let rows = [located.row_in_group];
        let fetched = self.fetcher.rows(located.item.shard, located.row_group, &rows, &self.reading).await?;
        self.items.with_extra(fetched, &[*located])
    }
}
