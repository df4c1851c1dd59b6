//! Selected rows of one row group: only their pages, only the columns that training needs, blobs without a copy.
//!
//! `parquet` reads pages (`pages` finds them where a file does not say, `lists` decodes those of numbers), `record_batch` what
//! Arrow IPC has instead. Both leave the files' columns to be arranged here; `kept` holds what need not be read again.
mod charged;
mod kept;
mod lists;
mod pages;
mod parquet;
mod record_batch;
mod series;

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array, new_null_array},
        compute::{cast, is_null, nullif},
        datatypes::{DataType, Field, Int64Type, Schema as ArrowSchema, SchemaRef, UInt64Type},
    },
    object_store::{ObjectStore, path::Path},
    physical_plan::metrics::Count,
};
use futures::{StreamExt, TryStreamExt, stream};
pub use kept::KeptRows;
use parquet::ParquetReader;
pub use series::numbers_of;
pub(crate) use series::{as_blobs, is_series};
use tokio::sync::{Semaphore, watch};

use crate::{
    error::{Context, Error, Result, Stage},
    scan::{
        budget::{ByteBudget, Charge, Charged},
        ranges,
    },
    schema::in_files::{InFile, PATH_FIELD},
    select::{format::Format, shards::Shard},
};

/// Requests under way at a time, over all lanes.
const REQUESTS_AT_A_TIME: usize = 64;

/// Requests under way for one row group.
const REQUESTS_PER_GROUP: usize = 8;

/// Columns of a fetched batch: the image or series, then what it is verified by, then the extra columns.
pub const BLOB: usize = 0;
/// Bytes it should have; null where the shard does not say.
pub const BLOB_BYTES: usize = 1;
/// XXH3 it should have; null where the shard does not say.
pub const BLOB_XXH3: usize = 2;
/// The file that is named beside an image without bytes; null where there is none.
pub const BLOB_PATH: usize = 3;
/// Numbers per step of a series; null where the shard does not say, and for images.
pub const BLOB_CHANNELS: usize = 4;
/// The number of the row's fetch: rows of equal numbers are the same bytes.
pub const BLOB_FETCH: usize = 5;
/// First extra column.
pub const FIRST_EXTRA: usize = 6;

/// Where shards of series say how many numbers a step has.
const CHANNELS_COLUMN: &str = "channels";

/// Reads rows out of shards.
pub struct Fetcher {
    shards: Vec<Arc<Shard>>,
    store: Arc<dyn ObjectStore>,
    budget: Arc<ByteBudget>,
    requests: Semaphore,
    /// Names of the fetched columns, in the order of [`Self::schema`].
    names: Vec<String>,
    schema: SchemaRef,
    readers: Vec<OnceLock<ParquetReader>>,
    kept: Arc<KeptRows>,
    /// What rows may take that stay in memory.
    kept_bytes: u64,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("shards", &self.shards.len()).field("columns", &self.names).finish()
    }
}

/// Who fetches, and how urgently.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Turns true when somebody waits for the rows; until then the fetch waits for room in the budget. `None`: urgent.
    pub urgent: Option<watch::Receiver<bool>>,
    /// Bytes read on the wire.
    pub bytes: Count,
    /// Requests made.
    pub requests: Count,
}

impl Reading {
    /// Urgent, and counted nowhere.
    pub fn now() -> Self {
        Self { urgent: None, bytes: Count::new(), requests: Count::new() }
    }
}

impl Fetcher {
    /// Over `shards`, whose paths lie in `store`. Fetched bytes are charged to `budget` for as long as they live.
    ///
    /// # Errors
    /// A column is missing in the first shard.
    pub fn new(
        shards: &[Arc<Shard>],
        store: Arc<dyn ObjectStore>,
        image: &str,
        extra: &[String],
        budget: Arc<ByteBudget>,
    ) -> Result<Self> {
        let mut names = vec![
            image.to_owned(),
            format!("{image}_bytes"),
            format!("{image}_xxh3"),
            format!("{image}.{PATH_FIELD}"),
            format!("{image}.{CHANNELS_COLUMN}"),
            format!("{image}.fetch"),
        ];
        names.extend(extra.iter().cloned());
        let mut fields = vec![
            Field::new(&names[BLOB], DataType::BinaryView, true),
            Field::new(&names[BLOB_BYTES], DataType::UInt64, true),
            Field::new(&names[BLOB_XXH3], DataType::UInt64, true),
            Field::new(&names[BLOB_PATH], DataType::Utf8, true),
            Field::new(&names[BLOB_CHANNELS], DataType::UInt64, true),
            Field::new(&names[BLOB_FETCH], DataType::UInt64, true),
        ];
        for name in extra.iter().filter(|_| !shards.is_empty()) {
            let first = shards.iter().find_map(|shard| shard.columns.get(name));
            let first = first.ok_or_else(|| missing(&shards[0], name))?;
            fields.push(Field::new(name, in_flight(&first.data_type), true));
        }
        Ok(Self {
            shards: shards.to_vec(),
            store,
            budget,
            requests: Semaphore::new(REQUESTS_AT_A_TIME),
            names,
            schema: Arc::new(ArrowSchema::new(fields)),
            readers: shards.iter().map(|_| OnceLock::new()).collect(),
            kept: Arc::default(),
            kept_bytes: 0,
        })
    }

    /// Keeps fetched rows as long as `kept` lives, up to `bytes` of them, and goes on with its numbers.
    #[must_use]
    pub fn keeping(self, kept: Arc<KeptRows>, bytes: u64) -> Self {
        Self { kept, kept_bytes: bytes, ..self }
    }

    /// Of the batches that [`Self::rows`] returns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What fetched bytes are charged to.
    pub fn budget(&self) -> &Arc<ByteBudget> {
        &self.budget
    }

    /// The shards it reads.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// [`Self::rows`] from the store, under numbers of their own.
    async fn read(&self, shard: u32, row_group: u32, rows: &[u32], reading: &Reading) -> Result<RecordBatch> {
        let found = self.shards.get(shard as usize).zip(self.readers.get(shard as usize));
        let (shard, reader) =
            found.ok_or_else(|| Error::internal(format!("no shard {shard} among {}", self.shards.len())))?;
        let place = || format!("{} row group {row_group}", shard.name);
        if shard.columns.get(&self.names[BLOB]).is_none() {
            return Err(missing(shard, &self.names[BLOB]));
        }
        let group = row_group as usize;
        let batch = match &shard.format {
            Format::Parquet(_) => {
                let reader = match reader.get() {
                    Some(reader) => reader,
                    None => {
                        let made = ParquetReader::new(shard, &self.places(shard))?;
                        reader.get_or_init(|| made)
                    }
                };
                self.parquet_rows(shard, reader, group, rows, reading, &place).await?
            }
            Format::Ipc(index) => self.record_batch_rows(shard, index, group, rows, reading).await?,
        };
        if batch.num_rows() != rows.len() {
            let reason = format!("gave {} rows for {}: the file changed; select again", batch.num_rows(), rows.len());
            return Err(Error::at(Stage::Scan, place(), reason));
        }
        let first = self.kept.numbered(rows.len());
        let mut columns = batch.columns().to_vec();
        columns[BLOB_FETCH] = Arc::new(UInt64Array::from_iter_values(first..first + rows.len() as u64));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).context(Stage::Scan, place(), "has unexpected columns")
    }

    /// Where a shard has each of the fetched columns; the struct beside whose bytes a path may stand is named for both.
    fn places(&self, shard: &Shard) -> Vec<Option<InFile>> {
        let image = shard.columns.get(&self.names[BLOB]);
        let verifies = |name: &str, place: &InFile| {
            // What import noted is about its own image column, not about another that is meant by that name now.
            image.is_some_and(|image| image.root == self.names[BLOB]) || place.root != name
        };
        let place = |index: usize| match index {
            BLOB => image.map(InFile::bytes),
            BLOB_BYTES | BLOB_XXH3 => {
                let place = shard.columns.get(&self.names[index]);
                // Import notes both; a file with one of them means something else by it.
                let has_both = shard.columns.get(&self.names[BLOB_XXH3]).is_some();
                place
                    .filter(|place| has_both && place.data_type.is_integer() && verifies(&self.names[index], place))
                    .cloned()
            }
            BLOB_PATH => match image.map(|image| (image, &image.data_type)) {
                Some((image, DataType::Struct(fields))) => fields.find(PATH_FIELD).map(|(_, field)| InFile {
                    root: image.root.clone(),
                    field: Some(PATH_FIELD.to_owned()),
                    data_type: field.data_type().clone(),
                }),
                _ => None,
            },
            BLOB_CHANNELS => {
                let is_series = image.is_some_and(|image| is_series(&image.data_type));
                let place = shard.columns.get(CHANNELS_COLUMN).filter(|place| place.data_type.is_integer());
                place.filter(|_| is_series).cloned()
            }
            // Counted, not read.
            BLOB_FETCH => None,
            _ => shard.columns.get(&self.names[index]).cloned(),
        };
        // Behind the columns of the batch stand those that say where blobs are.
        (0..self.names.len()).map(place).chain(shard.reference_places().into_iter().map(Some)).collect()
    }

    /// The bytes in `ranges` of a file that messages call `name`, in a few large reads.
    pub(super) async fn fetch(
        &self,
        location: &Path,
        name: &str,
        ranges: &[Range<u64>],
        reading: &Reading,
    ) -> Result<Vec<Bytes>> {
        if ranges.iter().any(|range| range.end < range.start) {
            let reason = "its footer names pages that end before they begin: it is damaged; write it again";
            return Err(Error::at(Stage::Scan, name, reason));
        }
        let merged = ranges::merge(ranges);
        let reads: Vec<_> = ranges::batches(&merged)
            .into_iter()
            .map(|batch| async move {
                let wanted = batch.iter().map(|range| range.end - range.start).sum();
                let charge = Arc::new(self.charge(wanted, reading).await);
                let _request = self.requests.acquire().await.context(Stage::Scan, name, "reading has stopped")?;
                let read = self.store.get_ranges(location, batch).await;
                let read = read.context(Stage::Scan, name, "cannot be read; check the file and its disk")?;
                reading.bytes.add(read.iter().map(Bytes::len).sum());
                reading.requests.add(batch.len());
                Ok::<_, Error>(read.into_iter().map(|bytes| Charged::into_bytes(bytes, Arc::clone(&charge))).collect())
            })
            .collect();
        let fetched: Vec<Vec<Bytes>> = stream::iter(reads).buffered(REQUESTS_PER_GROUP).try_collect().await?;
        let fetched = fetched.concat();
        ranges
            .iter()
            .map(|range| {
                ranges::slice(range, &merged, &fetched).ok_or_else(|| {
                    let reason = format!("ends before byte {}; it was cut off after selection", range.end);
                    Error::at(Stage::Scan, name, reason)
                })
            })
            .collect()
    }

    async fn charge(&self, bytes: u64, reading: &Reading) -> Charge {
        let Some(mut urgent) = reading.urgent.clone() else { return self.budget.charge_now(bytes) };
        let raised = async move {
            // A sender that is gone waits for nothing any more; the task ends at its next await.
            let _ = urgent.wait_for(|&now| now).await;
        };
        tokio::select! {
            biased;
            () = raised => self.budget.charge_now(bytes),
            charge = self.budget.charge(bytes) => charge,
        }
    }

    /// The columns at `places` in the order and types of [`Self::schema`]; nulls where a shard has nothing.
    fn arrange(&self, batch: &RecordBatch, places: &[Option<InFile>], place: &str) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.names.len());
        for (field, source) in self.schema.fields().iter().zip(places) {
            let wanted = field.data_type();
            let found = source.as_ref().and_then(|source| extract(batch, source));
            columns.push(match found {
                None => new_null_array(wanted, batch.num_rows()),
                Some(column) if is_series(column.data_type()) && *wanted == DataType::BinaryView => {
                    as_blobs(&column, place)?
                }
                Some(column) if column.data_type() == wanted => column,
                // Parquet writers without unsigned numbers store the same 64 bits as signed ones.
                Some(column) if *wanted == DataType::UInt64 && *column.data_type() == DataType::Int64 => {
                    Arc::new(column.as_primitive::<Int64Type>().unary::<_, UInt64Type>(|n| n as u64))
                }
                Some(column) => {
                    let reason = format!("column {:?} is {} and should be {wanted}", field.name(), column.data_type());
                    cast(&column, wanted).context(Stage::Scan, place, reason)?
                }
            });
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).context(Stage::Scan, place, "has unexpected columns")
    }
}

/// The value at a row of a column to verify by.
pub fn declared(batch: &RecordBatch, column: usize, row: usize) -> Option<u64> {
    let values: &UInt64Array = batch.column(column).as_primitive_opt()?;
    values.is_valid(row).then(|| values.value(row))
}

/// The column at `place`; a field of a struct that is null is null.
fn extract(batch: &RecordBatch, place: &InFile) -> Option<ArrayRef> {
    let root = batch.column_by_name(&place.root)?;
    let Some(field) = &place.field else { return Some(Arc::clone(root)) };
    let column = root.as_struct_opt()?.column_by_name(field)?;
    match root.null_count() {
        0 => Some(Arc::clone(column)),
        _ => nullif(column, &is_null(root).ok()?).ok(),
    }
}

fn missing(shard: &Shard, name: &str) -> Error {
    let names: Vec<&str> = shard.columns.iter().map(|(name, _)| name).collect();
    let remedy = shard.columns.remedy(name).map(|remedy| format!("; {remedy}")).unwrap_or_default();
    let reason = format!("has no column {name:?}; it has {}{remedy}", names.join(", "));
    Error::at(Stage::Schema, &shard.name, reason)
}

/// Views for blobs, so that no buffer meets Arrow's 2 GiB limit and none is copied; one type for text.
fn in_flight(stored: &DataType) -> DataType {
    match stored {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::BinaryView,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => in_flight(values),
        DataType::Struct(fields) => DataType::Struct(
            fields.iter().map(|f| Arc::new(f.as_ref().clone().with_data_type(in_flight(f.data_type())))).collect(),
        ),
        other => other.clone(),
    }
}
