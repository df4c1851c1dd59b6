//! Where the values lie of which a file's fingerprint covers a sample.
use super::super::columns::is_binary;
use super::super::content_sample::{Values, sampled_groups};
use super::IpcIndex;

/// Shorter buffers of blobs are taken as those of narrow columns are: they hold the blobs' lengths.
const SHORT_BYTES: u64 = 64 << 10;

impl IpcIndex {
    /// Buffers of the record batches, and dictionaries.
    pub(super) fn values(&self) -> Values {
        let is_blob: Vec<bool> = self.schema.fields().iter().map(|field| is_binary(field.data_type())).collect();
        let mut values = Values::default();
        values.narrow.extend(self.dictionaries.iter().map(|block| block.body.clone()));
        for batch in sampled_groups(self.batches.len()) {
            let block = &self.batches[batch];
            for (root, buffer) in self.all_buffers(block) {
                let is_long = buffer.end - buffer.start > SHORT_BYTES;
                let list = if is_blob[root] && is_long { &mut values.blobs } else { &mut values.narrow };
                list.push(block.body.start + buffer.start..block.body.start + buffer.end);
            }
        }
        values
    }
}
