//! How far a run is.
use serde::{Deserialize, Serialize};

use super::collapse::CollapseWatch;

/// The cursor and the counts of a run; a part of every checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Epoch of the next batch, from 0.
    pub epoch: u64,
    /// Global batches of that epoch already trained on (not merely prefetched).
    pub batches_consumed: u64,
    /// Items trained on since the run began.
    pub samples: u64,
    /// Items since the run began whose place a substitute took.
    pub bad_items: u64,
    /// How much of the quarantine table belongs to batches trained on, as the data half counts it.
    pub quarantine_offset: u64,
    /// What the collapse watch has seen.
    pub collapse: CollapseWatch,
}

impl Progress {
    /// One more batch of `items`, `replaced` of them substitutes.
    pub fn step_taken(&mut self, items: usize, replaced: usize) {
        self.step += 1;
        self.batches_consumed += 1;
        self.samples += items as u64;
        self.bad_items += replaced as u64;
    }

    /// The epoch has no more batches.
    pub fn epoch_done(&mut self) {
        self.epoch += 1;
        self.batches_consumed = 0;
    }
}
