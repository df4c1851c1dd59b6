//! Reference shards: rows that say where their blob lies instead of holding it.
//!
//! In place of a blob column such a shard has `blob_uri` (an absolute path, or the URL of an object), `blob_offset` and
//! `blob_length`. Everything narrow is as in any other shard. Its fingerprint covers the references, not the blobs: those
//! are verified by `image_xxh3` when they are read.
use datafusion::arrow::datatypes::{DataType, Schema as ArrowSchema};

use super::columns::is_text;
use super::shards::Shard;
use crate::error::{Error, Result, Stage};
use crate::schema::{Role, Schema};

/// Column: the file that holds the blob.
pub const BLOB_URI: &str = "blob_uri";
/// Column: its first byte there.
pub const BLOB_OFFSET: &str = "blob_offset";
/// Column: its bytes.
pub const BLOB_LENGTH: &str = "blob_length";
/// Footer key: bytes of the blobs of each row group, as JSON.
pub const KEY_BLOB_BYTES: &str = "diptych.blob_bytes";

/// Whether a shard with these columns holds references.
pub(super) fn is_reference(shard: &ArrowSchema) -> bool {
    [BLOB_URI, BLOB_OFFSET, BLOB_LENGTH].iter().all(|name| shard.field_with_name(name).is_ok())
}

/// Checks a reference shard, named `place`: all of `schema` but its blobs, and the three columns instead.
///
/// # Errors
/// As [`Schema::check`]; the three columns are of other types.
pub(super) fn check(schema: &Schema, shard: &ArrowSchema, place: &str) -> Result<()> {
    let narrow = schema.columns.iter().filter(|column| column.role == Role::Narrow).cloned().collect();
    Schema { columns: narrow, ..schema.clone() }.check(shard, place)?;
    let is_integer = |data_type: &DataType| matches!(data_type, DataType::UInt64 | DataType::Int64);
    let wanted: [(&str, fn(&DataType) -> bool, &str); 3] =
        [(BLOB_URI, is_text, "text"), (BLOB_OFFSET, is_integer, "uint64"), (BLOB_LENGTH, is_integer, "uint64")];
    let wrong = wanted.iter().filter_map(|(name, is_right, what)| {
        let found = shard.field_with_name(name).ok()?.data_type();
        (!is_right(found)).then(|| format!("column {name:?} is {found}; cast it to {what}"))
    });
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::at(Stage::Schema, place, wrong.join("\n  "))) }
}

impl Shard {
    /// Whether its blobs lie in other files.
    pub fn is_reference(&self) -> bool {
        [BLOB_URI, BLOB_OFFSET, BLOB_LENGTH].iter().all(|name| !self.leaves(name).is_empty())
    }

    /// Bytes of the blobs that a row group refers to; 0 where the shard holds its blobs or does not say.
    pub fn referenced_bytes(&self, row_group: usize) -> u64 {
        let metadata = self.metadata.file_metadata().key_value_metadata();
        let entry = metadata.and_then(|entries| entries.iter().find(|entry| entry.key == KEY_BLOB_BYTES));
        let groups = entry.and_then(|entry| entry.value.as_deref()).map(serde_json::from_str::<Vec<u64>>);
        groups.and_then(Result::ok).and_then(|groups| groups.get(row_group).copied()).unwrap_or(0)
    }
}
