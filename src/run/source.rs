//! One epoch's batches on their way to the trainer, with how much of the quarantine table belongs to them.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use burn::tensor::Device;

use super::data::Data;
use crate::{
    batch::Batch,
    error::Result,
    pipeline::Plan,
    prefetch::Queue,
    scan::{epoch::EpochPlan, quarantine::Quarantine},
    select::shards::Shard,
    train::BatchSource,
};

/// An epoch from one of its batches on.
#[derive(Debug)]
pub struct EpochSource {
    queue: Queue,
    device: Device,
    shards: Vec<Arc<Shard>>,
    /// Rows of the quarantine table after each batch that is still in the queue: the data half runs ahead.
    offsets: Arc<Mutex<VecDeque<u64>>>,
    offset: u64,
}

impl EpochSource {
    /// Starts to read.
    ///
    /// # Errors
    /// The epoch cannot be planned.
    pub fn new(
        data: &Data,
        plan: &Plan,
        epochs: &EpochPlan,
        quarantine: &Quarantine,
        device: &Device,
        epoch: u64,
        first_batch: u64,
    ) -> Result<Self> {
        let offsets: Arc<Mutex<VecDeque<u64>>> = Arc::default();
        let (quarantine, noted) = (quarantine.clone(), Arc::clone(&offsets));
        let offset = quarantine.state().rows;
        let note = move || noted.lock().unwrap_or_else(PoisonError::into_inner).push_back(quarantine.state().rows);
        let queue = data.queue_noting(plan, epochs, epoch, first_batch, note)?;
        Ok(Self { queue, device: device.clone(), shards: data.shards.shards.clone(), offsets, offset })
    }
}

impl BatchSource for EpochSource {
    fn next(&mut self) -> Result<Option<Batch>> {
        let Some(batch) = self.queue.next_batch()? else { return Ok(None) };
        let noted = self.offsets.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.offset = noted.unwrap_or(self.offset);
        Batch::from_record_batch(&batch, &self.device, &self.shards, &[]).map(Some)
    }

    fn data_waited(&self) -> Duration {
        self.queue.waits().data_waited
    }

    fn quarantine_offset(&self) -> u64 {
        self.offset
    }
}
