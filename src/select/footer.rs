//! A shard's footer and page index, read once and exactly: no byte of a column is touched.
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use datafusion::object_store::ObjectStoreExt;
use datafusion::object_store::path::Path;
use datafusion::parquet::DecodeResult;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};

use super::content_sample::{Values, sampled_groups};
use super::counting_store::CountingStore;
use super::format::is_blob;
use super::shards::MAX_ROWS;
use crate::error::{Context, Error, Result, Stage};
use crate::ingest::KEY_SCHEMA;

/// A page index may be this much longer than it must be before it counts as scattered among the data, where reading it
/// in one piece would read blobs.
const MAX_INDEX_BYTES_PER_CHUNK: u64 = 1 << 20;

/// What a shard says about itself.
#[derive(Debug)]
pub(crate) struct Footer {
    /// BLAKE3 of the file's size (u64, little endian) and its footer (thrift and the 8 bytes after it), and of a sample of
    /// the narrow values of which the footer has no statistics.
    pub(crate) fingerprint: [u8; 32],
    /// With column and offset index where the file has them.
    pub(crate) metadata: ParquetMetaData,
}

/// Reads the footer of the file at `location`, which messages call `name`.
///
/// # Errors
/// The file cannot be read, is no Parquet, is truncated, or contradicts itself.
pub(crate) async fn load(store: &CountingStore, location: &Path, name: &str, bytes: u64) -> Result<Footer> {
    if bytes == 0 {
        return Err(malformed(name, "is empty (0 bytes)"));
    }
    let decoder = ParquetMetaDataPushDecoder::try_new(bytes);
    let mut decoder = decoder.map_err(|error| malformed(name, "is too short for Parquet").caused_by(error))?;
    // The page index comes last and is optional; the footer must be known before to judge where the index lies.
    decoder = decoder.with_page_index_policy(PageIndexPolicy::Skip);
    let mut hash = blake3::Hasher::new();
    hash.update(&bytes.to_le_bytes());
    let mut tail: Option<bytes::Bytes> = None;
    let metadata = loop {
        let range = match guarded(name, || decoder.try_decode())? {
            DecodeResult::Data(metadata) => break metadata,
            DecodeResult::NeedsData(ranges) => single(name, &ranges, bytes)?,
            DecodeResult::Finished => return Err(malformed(name, "ends before its footer")),
        };
        let data = store.get_range(location, range.clone()).await.context(Stage::Select, name, "cannot be read")?;
        match &tail {
            None => tail = Some(data.clone()),
            // The last 8 bytes are read first but stand, and are hashed, after the rest of the footer.
            Some(tail) => {
                hash.update(&data);
                hash.update(tail);
            }
        }
        guarded(name, || decoder.push_range(range, data))?;
    };
    guarded(name, || check_layout(&metadata, bytes))?;
    let values = guarded(name, || Ok(values_without_statistics(&metadata)))?;
    values.hash_sample(store, location, name, bytes, &mut hash).await?;
    let metadata = with_page_index(store, location, name, bytes, metadata).await?;
    Ok(Footer { fingerprint: *hash.finalize().as_bytes(), metadata })
}

/// Chunks whose values could all be others and the footer the same. Import writes statistics of every narrow column.
fn values_without_statistics(metadata: &ParquetMetaData) -> Values {
    let mut values = Values::default();
    let notes = metadata.file_metadata().key_value_metadata().map(Vec::as_slice).unwrap_or_default();
    if notes.iter().any(|note| note.key == KEY_SCHEMA) {
        // Import's own footer is its fingerprint: every row has a checksum in it, of which there are statistics.
        return values;
    }
    for group in sampled_groups(metadata.num_row_groups()) {
        let chunks = metadata.row_group(group).columns().iter().enumerate();
        let unknown = chunks.filter(|(leaf, chunk)| chunk.statistics().is_none() && !is_blob(metadata, *leaf));
        values.narrow.extend(unknown.map(|(_, chunk)| {
            let (start, length) = chunk.byte_range();
            start..start + length
        }));
    }
    values
}

/// Adds column and offset index to the metadata, where the file has them in one place.
async fn with_page_index(
    store: &CountingStore,
    location: &Path,
    name: &str,
    bytes: u64,
    metadata: ParquetMetaData,
) -> Result<ParquetMetaData> {
    let chunks: u64 = metadata.row_groups().iter().map(|group| group.columns().len() as u64).sum();
    let mut decoder = guarded(name, || ParquetMetaDataPushDecoder::try_new_with_metadata(bytes, metadata.clone()))?;
    match guarded(name, || decoder.try_decode())? {
        DecodeResult::Data(metadata) => Ok(metadata),
        DecodeResult::Finished => Ok(metadata),
        DecodeResult::NeedsData(ranges) => {
            let range = single(name, &ranges, bytes)?;
            if range.end - range.start > chunks * MAX_INDEX_BYTES_PER_CHUNK || meets_data(&metadata, &range) {
                return Ok(metadata);
            }
            let data = store.get_range(location, range.clone()).await.context(Stage::Select, name, "cannot be read")?;
            guarded(name, || decoder.push_range(range, data))?;
            match guarded(name, || decoder.try_decode())? {
                DecodeResult::Data(metadata) => Ok(metadata),
                _ => Err(malformed(name, "has a page index outside of the file")),
            }
        }
    }
}

fn meets_data(metadata: &ParquetMetaData, range: &Range<u64>) -> bool {
    metadata.row_groups().iter().flat_map(|group| group.columns()).any(|chunk| {
        let (start, length) = chunk.byte_range();
        start < range.end && start + length > range.start
    })
}

/// Runs a step of the Parquet reader, which may panic on malformed files.
pub(crate) fn guarded<T>(name: &str, step: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(malformed(name, "is no Parquet file, or was cut short").caused_by(error)),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(malformed(name, "is malformed; the Parquet reader gave up on it").caused_by(said))
        }
    }
}

fn malformed(name: &str, problem: &str) -> Error {
    Error::at(Stage::Select, name, format!("{problem}; write the shard again or leave it out"))
}

fn single(name: &str, ranges: &[Range<u64>], bytes: u64) -> Result<Range<u64>> {
    match ranges {
        [range] if range.start < range.end && range.end <= bytes => Ok(range.clone()),
        _ => Err(malformed(name, "was cut short, or its footer names bytes outside of it")),
    }
}

/// What later code relies on: counts that add up, chunks inside the file, rows that fit `sample_id`.
fn check_layout(metadata: &ParquetMetaData, bytes: u64) -> Result<(), ParquetError> {
    let mut rows = 0_u64;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let wrong = |what: &str| Err(ParquetError::General(format!("row group {number} {what}")));
        let Ok(group_rows) = u32::try_from(group.num_rows()) else {
            return wrong("has a negative number of rows, or more than 2^32");
        };
        rows += u64::from(group_rows);
        for chunk in group.columns() {
            // Panics on negative numbers; the caller guards.
            let (start, length) = chunk.byte_range();
            if start.checked_add(length).is_none_or(|end| end > bytes) {
                return wrong("has a column outside of the file");
            }
        }
    }
    if i64::try_from(rows) != Ok(metadata.file_metadata().num_rows()) {
        return Err(ParquetError::General("the rows of the row groups do not add up to those of the file".into()));
    }
    if rows > MAX_ROWS {
        return Err(ParquetError::General(format!("more than {MAX_ROWS} rows")));
    }
    Ok(())
}
