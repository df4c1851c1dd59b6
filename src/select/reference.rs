//! Reference shards: rows that say where their blob lies instead of holding it.
//!
//! In place of its blob column such a shard has `blob_uri` (an absolute path, or the URL of an object), `blob_offset` and
//! `blob_length`. Everything narrow is as in any other shard, and the blob is a column like any other to SQL and training:
//! whoever asks for it has it read from the file that the row names. The shard's fingerprint covers the references, not the
//! blobs: those are verified by `image_xxh3` when they are read.
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BinaryViewBuilder, StringArray, UInt64Array,
};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema as ArrowSchema, UInt64Type};
use datafusion::object_store::path::Path;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::statistics::Statistics;

use super::shards::Shard;
use crate::error::{Context, Error, Result, Stage};
use crate::ingest::MAX_IMAGE_BYTES;
use crate::schema::in_files::{InFile, is_text};
use crate::schema::{Role, Schema};
use crate::stores::address::Address;

/// Column: the file that holds the blob.
pub const BLOB_URI: &str = "blob_uri";
/// Column: its first byte there.
pub const BLOB_OFFSET: &str = "blob_offset";
/// Column: its bytes.
pub const BLOB_LENGTH: &str = "blob_length";
/// The three of them with their types.
pub(crate) const COLUMNS: [(&str, DataType); 3] =
    [(BLOB_URI, DataType::Utf8), (BLOB_OFFSET, DataType::UInt64), (BLOB_LENGTH, DataType::UInt64)];
/// What the blobs are called where the schema does not say.
const IMAGE: &str = "image";
/// Footer key: bytes of the blobs of each row group, as JSON.
pub const KEY_BLOB_BYTES: &str = "diptych.blob_bytes";

/// What a reference shard refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referenced {
    /// Name of the blob column that stands for the references.
    pub column: String,
    /// Bytes of each row group's blobs: what the footer says, else a bound from the statistics of their lengths.
    pub group_bytes: Vec<u64>,
}

impl Referenced {
    /// What a shard whose file has these columns refers to; `None` where it holds its blobs itself.
    ///
    /// # Errors
    /// The three columns are of other types.
    pub(super) fn of(shard: &Shard, file: &ArrowSchema, schema: &Schema) -> Result<Option<Self>> {
        let has = |name: &str| file.field_with_name(name).is_ok();
        let Some(metadata) = shard.parquet().filter(|_| COLUMNS.iter().all(|(name, _)| has(name))) else {
            return Ok(None);
        };
        let blob = schema.stored().find(|column| column.role == Role::Blob);
        let name = blob.map_or(IMAGE, |blob| &blob.name);
        let in_file = blob.and_then(|blob| blob.mapped_to.as_deref()).unwrap_or(name);
        let root = in_file.split_once('.').map_or(in_file, |(root, _)| root);
        if [in_file, root, name].into_iter().any(has) {
            return Ok(None);
        }
        let is_integer = |data_type: &DataType| matches!(data_type, DataType::UInt64 | DataType::Int64);
        let wrong = COLUMNS.iter().filter_map(|(name, wanted)| {
            let found = file.field_with_name(name).ok()?.data_type();
            let is_right = if *wanted == DataType::Utf8 { is_text(found) } else { is_integer(found) };
            (!is_right).then(|| format!("column {name:?} is {found}; cast it to {wanted}"))
        });
        let wrong: Vec<String> = wrong.collect();
        if !wrong.is_empty() {
            return Err(Error::at(Stage::Schema, &shard.name, wrong.join("\n  ")));
        }
        Ok(Some(Self { column: name.to_owned(), group_bytes: group_bytes(metadata) }))
    }

    /// Schema and columns of the file as if it held its blobs.
    pub(super) fn as_if_held(&self, schema: &Schema, file: &ArrowSchema) -> (Schema, ArrowSchema) {
        let mut schema = schema.clone();
        for column in schema.columns.iter_mut().filter(|column| column.name == self.column) {
            column.mapped_to = None;
        }
        let mut fields: Vec<_> = file.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(&self.column, DataType::BinaryView, true)));
        (schema, ArrowSchema::new(fields))
    }
}

fn group_bytes(metadata: &ParquetMetaData) -> Vec<u64> {
    let entries = metadata.file_metadata().key_value_metadata();
    let entry = entries.and_then(|entries| entries.iter().find(|entry| entry.key == KEY_BLOB_BYTES));
    let listed = entry.and_then(|entry| serde_json::from_str::<Vec<u64>>(entry.value.as_deref()?).ok());
    let listed = listed.filter(|listed| listed.len() == metadata.num_row_groups());
    listed.unwrap_or_else(|| {
        // Whoever rewrote the references did not keep the footer.
        let leaves = metadata.file_metadata().schema_descr().columns();
        let length = leaves.iter().position(|leaf| leaf.path().parts() == [BLOB_LENGTH]);
        let longest = |statistics: &Statistics| match statistics {
            Statistics::Int64(values) => values.max_opt().and_then(|&longest| u64::try_from(longest).ok()),
            _ => None,
        };
        let groups = metadata.row_groups().iter();
        let bound = groups.map(|group| {
            let longest = length.and_then(|leaf| group.column(leaf).statistics().and_then(longest)).unwrap_or(0);
            longest.saturating_mul(u64::try_from(group.num_rows()).unwrap_or(0))
        });
        bound.collect()
    })
}

impl Shard {
    /// Bytes of the blobs of a column that a row group refers to; 0 where they lie in the shard.
    pub fn referenced_bytes(&self, row_group: usize, column: &str) -> u64 {
        let referenced = self.referenced.as_ref().filter(|referenced| referenced.column == column);
        referenced.and_then(|referenced| referenced.group_bytes.get(row_group).copied()).unwrap_or(0)
    }

    /// The same of all row groups.
    pub fn all_referenced_bytes(&self, column: &str) -> u64 {
        (0..self.format.row_groups()).map(|group| self.referenced_bytes(group, column)).sum()
    }

    /// Where the columns of the reference are; none where the shard holds its blobs.
    pub(crate) fn reference_places(&self) -> Vec<InFile> {
        let place = |(name, data_type): (&str, DataType)| InFile { root: name.to_owned(), field: None, data_type };
        if self.referenced.is_some() { COLUMNS.map(place).into() } else { vec![] }
    }
}

/// Where the blob of one row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) row: usize,
    pub(crate) range: Range<u64>,
}

/// The references of some rows.
#[derive(Debug, Clone)]
pub(crate) struct References {
    uris: StringArray,
    offsets: UInt64Array,
    lengths: UInt64Array,
}

impl References {
    /// From the three columns, in their order.
    ///
    /// # Errors
    /// Values of other types.
    pub(crate) fn new(columns: [&ArrayRef; 3], place: &str) -> Result<Self> {
        let cast = |at: usize| {
            let (name, data_type) = &COLUMNS[at];
            cast(columns[at], data_type).context(Stage::Scan, place, format!("has a {name} that is none; index again"))
        };
        let (uris, offsets, lengths) = (cast(0)?, cast(1)?, cast(2)?);
        Ok(Self {
            uris: uris.as_string().clone(),
            offsets: offsets.as_primitive::<UInt64Type>().clone(),
            lengths: lengths.as_primitive::<UInt64Type>().clone(),
        })
    }

    /// Bytes of a row's blob.
    pub(crate) fn bytes(&self, row: usize) -> u64 {
        if self.lengths.is_valid(row) { self.lengths.value(row) } else { 0 }
    }

    /// The blobs of these rows by file; rows with a null among their reference have none, which is a bad sample like any
    /// other.
    ///
    /// # Errors
    /// A reference that no blob can have.
    pub(crate) fn by_file(&self, rows: Range<usize>) -> Result<BTreeMap<&str, Vec<Blob>>> {
        let Self { uris, offsets, lengths } = self;
        let mut files: BTreeMap<&str, Vec<Blob>> = BTreeMap::new();
        for row in rows {
            if uris.is_null(row) || offsets.is_null(row) || lengths.is_null(row) || lengths.value(row) == 0 {
                continue;
            }
            let (uri, start, length) = (uris.value(row), offsets.value(row), lengths.value(row));
            // Memory is asked for before the file can say that it has less.
            let end = start.checked_add(length).filter(|_| length <= MAX_IMAGE_BYTES).ok_or_else(|| {
                let reason =
                    format!("a shard refers to {length} bytes from byte {start} on, which are no image; index again");
                Error::at(Stage::Scan, uri, reason)
            })?;
            files.entry(uri).or_default().push(Blob { row, range: start..end });
        }
        Ok(files)
    }
}

/// Where the stores of a set keep what a reference names.
///
/// # Errors
/// It is neither an absolute path nor a URL.
pub(crate) fn location(uri: &str) -> Result<Path> {
    let refused = |reason: String| Error::at(Stage::Scan, uri, format!("{reason}; index again"));
    match Address::parse(uri) {
        None if !std::path::Path::new(uri).is_absolute() => Err(refused("is no absolute path".to_owned())),
        None => Path::from_absolute_path(uri).map_err(|error| refused("is no path".to_owned()).caused_by(error)),
        Some(address) => address.and_then(|address| address.location()).map_err(refused),
    }
}

/// The blobs as a column of `rows` values: null where there is none. Nothing is copied.
///
/// # Errors
/// A blob above 4 GiB.
pub(crate) fn column(rows: usize, blobs: impl IntoIterator<Item = (usize, Bytes)>) -> Result<BinaryViewArray> {
    let mut by_row: Vec<Option<Bytes>> = vec![None; rows];
    for (row, bytes) in blobs {
        by_row[row] = Some(bytes);
    }
    let mut column = BinaryViewBuilder::with_capacity(rows);
    for bytes in by_row {
        let Some(bytes) = bytes else {
            column.append_null();
            continue;
        };
        let length = u32::try_from(bytes.len()).context(Stage::Scan, "a reference", "names a blob above 4 GiB")?;
        let block = column.append_block(Buffer::from(bytes));
        column.try_append_view(block, 0, length).context(Stage::Internal, "a blob", "fits no view")?;
    }
    Ok(column.finish())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int64Array;

    use super::*;

    /// URI, offset and length.
    type Written = (Option<&'static str>, Option<i64>, Option<i64>);

    fn references(rows: &[Written]) -> Result<References> {
        let uris: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>());
        let number =
            |of: fn(&Written) -> Option<i64>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Int64Array>()) };
        References::new([&uris, &number(|row| row.1), &number(|row| row.2)], "a.parquet")
    }

    #[test]
    fn rows_are_gathered_by_file_and_gaps_have_no_blob() {
        let found = references(&[
            (Some("/b"), Some(5), Some(2)),
            (Some("/a"), Some(0), Some(9)),
            (None, Some(0), Some(9)),
            (Some("/b"), Some(1), Some(3)),
            (Some("/b"), Some(1), Some(0)),
            (Some("/b"), Some(-1), Some(3)),
        ]);
        let found = found.unwrap();
        let blob = |row: usize, range: Range<u64>| Blob { row, range };
        let files: Vec<_> = found.by_file(0..6).unwrap().into_iter().collect();
        assert_eq!(files, [("/a", vec![blob(1, 0..9)]), ("/b", vec![blob(0, 5..7), blob(3, 1..4)])]);
        assert_eq!((found.bytes(0), found.bytes(4)), (2, 0));
    }

    #[test]
    fn lengths_that_no_image_has_are_refused_before_memory_is_asked_for() {
        let forged = references(&[(Some("/a"), Some(0), Some(1 << 60))]).unwrap();
        let text = forged.by_file(0..1).unwrap_err().to_string();
        assert!(text.contains("/a") && text.contains("are no image; index again"), "{text}");
    }

    #[test]
    fn references_are_absolute_paths_or_urls() {
        assert_eq!(location("/data/a b%20#?.png").unwrap().as_ref(), "data/a b%20#?.png");
        assert_eq!(location("s3://bucket/a.tar").unwrap().as_ref(), "s3:/bucket/a.tar");
        for wrong in ["data/a.png", "ftp://host/a.tar", ""] {
            assert!(location(wrong).unwrap_err().to_string().contains("index again"), "{wrong}");
        }
    }

    #[test]
    fn blobs_stand_where_their_rows_are() {
        let blob = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let found = column(3, [(2, blob(b"longer than a view holds")), (0, blob(b"x"))]).unwrap();
        let found: Vec<Option<&[u8]>> = found.iter().collect();
        assert_eq!(found, [Some(b"x".as_slice()), None, Some(b"longer than a view holds")]);
    }
}
