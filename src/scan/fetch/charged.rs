//! Fetched blobs hold on to memory that is charged, and to little more than they need.

use std::sync::Arc;

use datafusion::arrow::{
    array::{AsArray, BinaryViewArray, RecordBatch},
    buffer::Buffer,
};

use super::{BLOB, Fetcher};
use crate::{
    error::{Context, Result, Stage},
    scan::budget::Charged,
};

/// Images that hold on to more than this many times their own bytes, since they share pages with rows that nobody asked
/// for, are copied out of them.
const LARGEST_PINNED_SHARE: usize = 2;

/// Less than this is not worth a copy.
const SMALLEST_COPY_BYTES: usize = 1 << 16;

impl Fetcher {
    /// The same batch, whose images hold on to no memory that is not charged, nor to much more than they need.
    pub(super) fn compacted(&self, batch: RecordBatch, is_charged: bool) -> Result<RecordBatch> {
        let images = batch.column(BLOB).as_binary_view();
        let pinned: usize = images.data_buffers().iter().map(Buffer::len).sum();
        let used = images.total_buffer_bytes_used();
        let images = if pinned > SMALLEST_COPY_BYTES && pinned > LARGEST_PINNED_SHARE.saturating_mul(used) {
            self.charged(images.gc())?
        } else if is_charged {
            return Ok(batch);
        } else {
            self.charged(images.clone())?
        };
        let mut columns = batch.columns().to_vec();
        columns[BLOB] = Arc::new(images);
        RecordBatch::try_new(batch.schema(), columns).context(Stage::Scan, "", "cannot keep a batch")
    }

    fn charged(&self, images: BinaryViewArray) -> Result<BinaryViewArray> {
        let (views, buffers, nulls) = images.into_parts();
        let charge = |buffer: &Buffer| {
            let charge = Arc::new(self.budget.charge_now(buffer.len() as u64));
            Buffer::from(Charged::into_bytes(Held(buffer.clone()), charge))
        };
        let buffers: Arc<[Buffer]> = buffers.iter().map(charge).collect();
        BinaryViewArray::try_new(views, buffers, nulls).context(Stage::Scan, "", "cannot keep images")
    }
}

/// A buffer as memory that somebody owns.
struct Held(Buffer);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
