//! The shards of a data set as one numbered set, with fingerprints and footers.
use std::sync::Arc;

use datafusion::parquet::file::metadata::ParquetMetaData;

use crate::seed::ItemKey;

/// One Parquet file of the set.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Position in the set: the upper bits of `sample_id`.
    pub ordinal: u32,
    /// Path inside [`ShardSet::store`].
    pub location: datafusion::object_store::path::Path,
    /// As messages name it.
    pub name: String,
    /// BLAKE3 of size and footer bytes.
    pub fingerprint: [u8; 32],
    /// Bytes of the file.
    pub bytes: u64,
    /// Footer with column and offset index loaded where the file has them.
    pub metadata: Arc<ParquetMetaData>,
}

impl Shard {
    /// The key under which draws for an item of this shard are made.
    pub fn item_key(&self, row: u64, occurrence: u32) -> ItemKey {
        let mut first = [0_u8; 16];
        first.copy_from_slice(&self.fingerprint[..16]);
        ItemKey { shard: u128::from_le_bytes(first), row, occurrence }
    }
}
