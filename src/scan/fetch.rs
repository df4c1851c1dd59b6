//! Selected rows of one row group: only their pages, only the columns that training needs, images without a copy.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array, new_null_array},
        compute::concat_batches,
        datatypes::{DataType, Field, Int64Type, Schema as ArrowSchema, SchemaRef},
    },
    object_store::{ObjectStore, path::Path},
    parquet::{
        DecodeResult,
        arrow::{
            ProjectionMask,
            arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelectionPolicy},
            push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder},
        },
        errors::ParquetError,
    },
    physical_plan::metrics::Count,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, watch};

use crate::{
    error::{Context, Error, Result, Stage},
    scan::{
        budget::{ByteBudget, Charge, Charged},
        failure::panic_text,
        ranges,
        referenced::is_part_of_reference,
    },
    select::shards::Shard,
};

/// Requests under way at a time, over all lanes.
const REQUESTS_AT_A_TIME: usize = 64;

/// Requests under way for one row group.
const REQUESTS_PER_GROUP: usize = 8;

/// Columns of a fetched batch: the image, then what it is verified by, then the extra columns.
pub const IMAGE: usize = 0;
/// Bytes the image should have; null where the shard does not say.
pub const IMAGE_BYTES: usize = 1;
/// XXH3 the image should have; null where the shard does not say.
pub const IMAGE_XXH3: usize = 2;
/// First extra column.
pub const FIRST_EXTRA: usize = 3;

/// Reads rows out of shards.
pub struct Fetcher {
    shards: Vec<Arc<Shard>>,
    store: Arc<dyn ObjectStore>,
    budget: Arc<ByteBudget>,
    requests: Semaphore,
    /// Names of the fetched columns, in the order of [`Self::schema`].
    names: Vec<String>,
    schema: SchemaRef,
    readers: Vec<OnceLock<ShardReader>>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("shards", &self.shards.len()).field("columns", &self.names).finish()
    }
}

/// How one shard's columns are read: worked out once.
#[derive(Debug)]
pub(super) struct ShardReader {
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
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
        let mut names = vec![image.to_owned(), format!("{image}_bytes"), format!("{image}_xxh3")];
        names.extend(extra.iter().cloned());
        let mut fields = vec![
            Field::new(&names[IMAGE], DataType::BinaryView, true),
            Field::new(&names[IMAGE_BYTES], DataType::UInt64, true),
            Field::new(&names[IMAGE_XXH3], DataType::UInt64, true),
        ];
        if let Some(shard) = shards.first() {
            let schema = ArrowReaderMetadata::try_new(Arc::clone(&shard.metadata), ArrowReaderOptions::new()).context(
                Stage::Scan,
                &shard.name,
                "has a schema that Arrow cannot express",
            )?;
            for name in extra {
                let field = column(schema.schema(), shard, name)?;
                fields.push(Field::new(name, in_flight(field.data_type()), true));
            }
        }
        Ok(Self {
            shards: shards.to_vec(),
            store,
            budget,
            requests: Semaphore::new(REQUESTS_AT_A_TIME),
            names,
            schema: Arc::new(ArrowSchema::new(fields)),
            readers: shards.iter().map(|_| OnceLock::new()).collect(),
        })
    }

    /// Of the batches that [`Self::rows`] returns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn image_column(&self) -> &str {
        &self.names[IMAGE]
    }

    /// What fetched bytes are charged to.
    pub fn budget(&self) -> &Arc<ByteBudget> {
        &self.budget
    }

    /// The shards it reads.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The columns that the shard itself stores.
    pub(super) async fn stored_rows(
        &self,
        (shard, reader): (&Shard, &ShardReader),
        row_group: u32,
        rows: &[u32],
        reading: &Reading,
        place: &impl Fn() -> String,
    ) -> Result<RecordBatch> {
        let total = shard.metadata.row_group(row_group as usize).num_rows() as usize;
        let consecutive = rows.chunk_by(|a, b| a + 1 == *b);
        let selection = RowSelection::from_consecutive_ranges(
            consecutive.map(|run| run[0] as usize..run[0] as usize + run.len()),
            total,
        );
        let decoder = ParquetPushDecoderBuilder::new_with_metadata(reader.metadata.clone())
            .with_row_groups(vec![row_group as usize])
            .with_projection(reader.mask.clone())
            .with_row_selection(selection)
            // A mask would need pages between the selected ones.
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_batch_size(rows.len().max(1))
            .build()
            .context(Stage::Scan, place(), "cannot be read as Parquet; import it again")?;

        let mut step = decode(decoder, vec![], vec![], vec![], place).await?;
        while let Step::Needs { decoder, ranges, batches } = step {
            let fetched = self.fetch(&shard.location, &shard.name, &ranges, reading).await?;
            step = decode(decoder, ranges, fetched, batches, place).await?;
        }
        let Step::Done(batches) = step else { return Err(Error::internal("a decoder stopped half way")) };
        let batch = match batches.as_slice() {
            [batch] => batch.clone(),
            _ => {
                let schema = batches.first().map_or_else(|| Arc::new(ArrowSchema::empty()), RecordBatch::schema);
                concat_batches(&schema, &batches).context(Stage::Scan, place(), "has batches of two schemas")?
            }
        };
        if batch.num_rows() != rows.len() {
            let reason = format!("gave {} rows for {}: the file changed; select again", batch.num_rows(), rows.len());
            return Err(Error::at(Stage::Scan, place(), reason));
        }
        Ok(batch)
    }

    /// The bytes in `ranges` of a file that messages call `name`, in a few large reads.
    pub(super) async fn fetch(
        &self,
        location: &Path,
        name: &str,
        ranges: &[Range<u64>],
        reading: &Reading,
    ) -> Result<Vec<Bytes>> {
        let merged = ranges::merge(ranges);
        let reads: Vec<_> = ranges::batches(&merged)
            .into_iter()
            .map(|batch| async move {
                let wanted = batch.iter().map(|range| range.end - range.start).sum();
                let charge = Arc::new(self.charge(wanted, reading).await);
                let _request = self.requests.acquire().await.context(Stage::Scan, name, "reading has stopped")?;
                let read = self.store.get_ranges(location, batch).await;
                let read = read.context(Stage::Scan, name, "cannot be read; check the file and its disk or network")?;
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

    pub(super) fn reader(&self, ordinal: u32) -> Result<(&Shard, &ShardReader)> {
        let missing = || Error::internal(format!("no shard {ordinal} among {}", self.shards.len()));
        let shard = self.shards.get(ordinal as usize).ok_or_else(missing)?;
        let once = self.readers.get(ordinal as usize).ok_or_else(missing)?;
        if let Some(reader) = once.get() {
            return Ok((shard, reader));
        }
        let made = self.make_reader(shard)?;
        Ok((shard, once.get_or_init(|| made)))
    }

    fn make_reader(&self, shard: &Shard) -> Result<ShardReader> {
        let broken = "has a schema that Arrow cannot express";
        let options = ArrowReaderOptions::new();
        let stored = ArrowReaderMetadata::try_new(Arc::clone(&shard.metadata), options).context(
            Stage::Scan,
            &shard.name,
            broken,
        )?;
        if !shard.is_reference() {
            column(stored.schema(), shard, &self.names[IMAGE])?;
        }
        for name in &self.names[FIRST_EXTRA..] {
            column(stored.schema(), shard, name)?;
        }
        let fields = stored.schema().fields().iter().map(|field| {
            if self.names.contains(field.name()) {
                Arc::new(field.as_ref().clone().with_data_type(in_flight(field.data_type())))
            } else {
                Arc::clone(field)
            }
        });
        let wanted = ArrowSchema::new_with_metadata(fields.collect::<Vec<_>>(), stored.schema().metadata().clone());
        let options = ArrowReaderOptions::new().with_schema(Arc::new(wanted));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(&shard.metadata), options).context(
            Stage::Scan,
            &shard.name,
            broken,
        )?;
        let leaves = metadata.parquet_schema().columns().iter().enumerate().filter(|(_, leaf)| {
            let path = leaf.path().parts();
            // Of an image with a path beside it, only the bytes.
            let is_needed = path[0] != self.names[IMAGE] || path.get(1).is_none_or(|part| part == "bytes");
            (self.names.contains(&path[0]) && is_needed) || is_part_of_reference(shard, &path[0])
        });
        let mask = ProjectionMask::leaves(metadata.parquet_schema(), leaves.map(|(index, _)| index));
        Ok(ShardReader { metadata, mask })
    }

    /// The columns in the order and types of [`Self::schema`]; nulls where a shard has nothing to verify by.
    pub(super) fn arrange(&self, batch: &RecordBatch, place: &impl Fn() -> String) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.names.len());
        for (index, name) in self.names.iter().enumerate() {
            let wanted = self.schema.field(index).data_type();
            let column = batch.column_by_name(name);
            columns.push(match column {
                None => new_null_array(wanted, batch.num_rows()),
                Some(column) => match (column.data_type(), column.as_struct_opt()) {
                    (found, _) if found == wanted => Arc::clone(column),
                    (_, Some(nested)) if index == IMAGE && nested.num_columns() == 1 => Arc::clone(nested.column(0)),
                    // Parquet writers without unsigned numbers store the same 64 bits as signed ones.
                    (DataType::Int64, _) if *wanted == DataType::UInt64 => {
                        let signed = column.as_primitive::<Int64Type>();
                        Arc::new(signed.unary::<_, datafusion::arrow::datatypes::UInt64Type>(|n| n as u64)) as ArrayRef
                    }
                    (found, _) => {
                        let reason = format!("column {name:?} is {found} and should be {wanted}; import it again");
                        return Err(Error::at(Stage::Scan, place(), reason));
                    }
                },
            });
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).context(Stage::Scan, place(), "has unexpected columns")
    }
}

/// The value at a row of a column to verify by.
pub fn declared(batch: &RecordBatch, column: usize, row: usize) -> Option<u64> {
    let values: &UInt64Array = batch.column(column).as_primitive_opt()?;
    values.is_valid(row).then(|| values.value(row))
}

fn column<'a>(schema: &'a ArrowSchema, shard: &Shard, name: &str) -> Result<&'a Field> {
    schema.field_with_name(name).map_err(|_| {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Error::at(Stage::Scan, &shard.name, format!("has no column {name:?}; it has {}", names.join(", ")))
    })
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

/// Where a decoder stands.
enum Step {
    Needs { decoder: ParquetPushDecoder, ranges: Vec<Range<u64>>, batches: Vec<RecordBatch> },
    Done(Vec<RecordBatch>),
}

/// One step on a thread that may block: pages may be compressed, and malformed ones may panic in the reader.
async fn decode(
    decoder: ParquetPushDecoder,
    ranges: Vec<Range<u64>>,
    data: Vec<Bytes>,
    mut batches: Vec<RecordBatch>,
    place: &impl Fn() -> String,
) -> Result<Step> {
    let step = move || -> Result<Step, ParquetError> {
        let mut decoder = decoder;
        if !ranges.is_empty() {
            decoder.push_ranges(ranges, data)?;
        }
        loop {
            match decoder.try_decode()? {
                DecodeResult::NeedsData(ranges) => return Ok(Step::Needs { decoder, ranges, batches }),
                DecodeResult::Data(batch) => batches.push(batch),
                DecodeResult::Finished => return Ok(Step::Done(batches)),
            }
        }
    };
    match tokio::task::spawn_blocking(step).await {
        Ok(step) => step.context(Stage::Scan, place(), "is not valid Parquet; import it again or leave the shard out"),
        Err(failed) => Err(match failed.try_into_panic() {
            Ok(payload) => {
                let reason = "is not valid Parquet: the reader panicked; import it again or leave the shard out";
                Error::at(Stage::Scan, place(), reason).caused_by(panic_text(payload.as_ref()))
            }
            Err(cancelled) => Error::at(Stage::Scan, place(), "reading has stopped").caused_by(cancelled),
        }),
    }
}
