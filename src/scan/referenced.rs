//! Blobs of reference shards: read where they lie, neighbours in one request, under the same budget as pages.
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, RecordBatch, StringArray};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema as ArrowSchema, UInt64Type};
use datafusion::object_store::path::Path;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::fetch::{Fetcher, Reading};
use crate::error::{Context, Error, Result, Stage};
use crate::select::reference::{BLOB_LENGTH, BLOB_OFFSET, BLOB_URI};
use crate::select::shards::Shard;
use crate::stores::address::Address;

/// Files that are read side by side for one row group.
const FILES_AT_A_TIME: usize = 8;

/// Where the blob of one row is.
struct Blob {
    row: usize,
    range: Range<u64>,
}

impl Fetcher {
    /// These rows of a row group, ascending and each once, counted from the group's first.
    ///
    /// # Errors
    /// The store cannot be read, or the file is no valid Parquet: neither is bad data of a sample.
    pub async fn rows(&self, shard: u32, row_group: u32, rows: &[u32], reading: &Reading) -> Result<RecordBatch> {
        let (shard, reader) = self.reader(shard)?;
        let place = || format!("{} row group {row_group}", shard.name);
        let mut batch = self.stored_rows((shard, reader), row_group, rows, reading, &place).await?;
        if shard.is_reference() {
            batch = self.with_blobs(&batch, self.image_column(), reading, &place).await?;
        }
        self.arrange(&batch, &place)
    }

    /// The same rows with the blobs they refer to as a further column `image`.
    ///
    /// # Errors
    /// A file cannot be read or is shorter than the reference says: no bad data, since nothing says that the sample is.
    async fn with_blobs(
        &self,
        batch: &RecordBatch,
        image: &str,
        reading: &Reading,
        place: &(impl Fn() -> String + Sync),
    ) -> Result<RecordBatch> {
        let files: Vec<(String, Vec<Blob>)> = by_file(batch, place)?.into_iter().collect();
        let reads = files.iter().map(|(uri, blobs)| async move {
            let location = location(uri)?;
            let ranges: Vec<Range<u64>> = blobs.iter().map(|blob| blob.range.clone()).collect();
            let fetched = self.fetch(&location, uri, &ranges, reading).await?;
            Ok::<_, Error>(blobs.iter().map(|blob| blob.row).zip(fetched).collect())
        });
        let reads: Vec<_> = reads.map(FutureExt::boxed).collect();
        let read: Vec<Vec<(usize, Bytes)>> = stream::iter(reads).buffered(FILES_AT_A_TIME).try_collect().await?;
        let mut by_row: Vec<Option<Bytes>> = vec![None; batch.num_rows()];
        for (row, bytes) in read.into_iter().flatten() {
            by_row[row] = Some(bytes);
        }
        let mut column = BinaryViewBuilder::with_capacity(by_row.len());
        for bytes in by_row {
            let Some(bytes) = bytes else {
                column.append_null();
                continue;
            };
            let length = u32::try_from(bytes.len()).context(Stage::Scan, place(), "refers to a blob above 4 GiB")?;
            // The bytes as they were fetched: no copy, and their charge lives as long as they do.
            let block = column.append_block(Buffer::from(bytes));
            column.try_append_view(block, 0, length).context(
                Stage::Internal,
                place(),
                "has a blob that fits no view",
            )?;
        }
        let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(image, DataType::BinaryView, true)));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(column.finish()));
        RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).context(
            Stage::Internal,
            place(),
            "cannot carry its blobs",
        )
    }
}

/// Whether a column says where the blobs of a shard are.
pub(super) fn is_part_of_reference(shard: &Shard, column: &str) -> bool {
    [BLOB_URI, BLOB_OFFSET, BLOB_LENGTH].contains(&column) && shard.is_reference()
}

/// The rows of each file; rows with a null among their reference have no blob, which is a bad sample like any other.
fn by_file(batch: &RecordBatch, place: &impl Fn() -> String) -> Result<BTreeMap<String, Vec<Blob>>> {
    let column = |name: &str, data_type: &DataType| -> Result<ArrayRef> {
        let found = batch.column_by_name(name);
        let found = found.ok_or_else(|| Error::internal(format!("no column {name:?} among those fetched")))?;
        cast(found, data_type).context(Stage::Scan, place(), format!("has a {name} that is none; index again"))
    };
    let (uris, offsets, lengths) = (
        column(BLOB_URI, &DataType::Utf8)?,
        column(BLOB_OFFSET, &DataType::UInt64)?,
        column(BLOB_LENGTH, &DataType::UInt64)?,
    );
    let uris: &StringArray = uris.as_string();
    let (offsets, lengths) = (offsets.as_primitive::<UInt64Type>(), lengths.as_primitive::<UInt64Type>());
    let mut files: BTreeMap<String, Vec<Blob>> = BTreeMap::new();
    for row in 0..batch.num_rows() {
        if uris.is_null(row) || offsets.is_null(row) || lengths.is_null(row) || lengths.value(row) == 0 {
            continue;
        }
        let start = offsets.value(row);
        let Some(end) = start.checked_add(lengths.value(row)) else {
            let reason = format!("refers to bytes of {} that no file has; index again", uris.value(row));
            return Err(Error::at(Stage::Scan, place(), reason));
        };
        files.entry(uris.value(row).to_owned()).or_default().push(Blob { row, range: start..end });
    }
    Ok(files)
}

fn location(uri: &str) -> Result<Path> {
    let refused = |reason: String| Error::at(Stage::Scan, uri, format!("{reason}; index again"));
    match Address::parse(uri) {
        None => Path::from_absolute_path(uri).map_err(|error| refused("is no absolute path".into()).caused_by(error)),
        Some(address) => address.and_then(|address| address.location()).map_err(refused),
    }
}
