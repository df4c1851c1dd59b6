//! Rows of a query into Parquet files with embeddings, as they come: a batch of them is in memory at a time.
use std::{io::Write as _, ops::ControlFlow, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch},
        buffer::NullBuffer,
        datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema, SchemaRef},
    },
    parquet::{arrow::ArrowWriter, file::properties::WriterProperties, schema::types::ColumnPath},
};

use super::embedded_rows::{CAPTION, IMAGE, embed_images, embed_texts, numbers, texts};
use crate::{
    error::{Context as _, Error, Result, Stage},
    evaluate::clip::embedder::Embedder,
    ingest::{
        QUARANTINE_FILE,
        destination::Destination,
        manifest::{Manifest, ManifestShard},
        zstd,
    },
    scan::quarantine::{BadRow, Quarantine, encode},
    schema::Schema,
    select::{
        provider::SAMPLE_ID,
        shards::{MAX_ROWS, ROW_BITS},
        sql::Query,
    },
};

/// Columns of the result.
const IMAGE_EMBEDDING: &str = "image_embedding";
/// See [`IMAGE_EMBEDDING`].
const TEXT_EMBEDDING: &str = "text_embedding";

/// Bytes of embeddings of a row group, which the writer holds until it is full.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Bytes at which a file is closed.
const FILE_BYTES: u64 = 512 << 20;
const CANNOT_WRITE: &str = "cannot be written; check permissions and free space, and run it again";

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Written {
    /// Numbers of an embedding.
    pub(super) width: usize,
    /// Rows whose image is bad; [`QUARANTINE_FILE`] lists them.
    pub(super) bad: u64,
    /// Rows without a caption, where captions are embedded.
    pub(super) without_caption: u64,
}

/// Writes every row with its embeddings in place of image and caption. `shards` are the names of the shards by ordinal;
/// `note` is told how many rows are done.
///
/// # Errors
/// The query's and the model's; more than `max_bad_share` of at least 1,000 images are bad; the folder cannot be written.
pub(super) async fn write(
    query: &Query,
    embedder: &Embedder,
    shards: &[String],
    destination: &mut Destination,
    max_bad_share: f64,
    mut note: impl FnMut(u64),
) -> Result<(Manifest, Written)> {
    let schema = schema(&query.schema(), embedder.width())?;
    let mut files =
        Files { schema: Arc::clone(&schema), properties: properties(embedder.width())?, open: None, done: vec![] };
    let mut written = Written { width: embedder.width(), ..Written::default() };
    let judge = Quarantine::in_memory();
    let mut bad_rows: Vec<BadRow> = Vec::new();
    let mut rows = 0;
    query
        .run(|batch| {
            let (batch, bad, without_caption) = embedded(&batch, embedder, &schema, shards)?;
            written.bad += bad.len() as u64;
            written.without_caption += without_caption;
            judge.settle(batch.num_rows() as u64, bad.len() as u64, bad.clone(), max_bad_share)?;
            bad_rows.extend(bad);
            files.push(destination, &batch)?;
            rows += batch.num_rows() as u64;
            note(rows);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    judge.judge(max_bad_share)?;
    files.close(destination)?;
    if rows == 0 {
        return Err(Error::at(Stage::Import, "the query", "returns no rows; nothing was written"));
    }
    if !bad_rows.is_empty() {
        let mut file = destination.begin(QUARANTINE_FILE)?;
        file.write_all(&encode(QUARANTINE_FILE, &bad_rows)?).context(Stage::Import, QUARANTINE_FILE, CANNOT_WRITE)?;
        destination.publish(QUARANTINE_FILE, &file)?;
    }
    let none = Schema { name: "none".to_owned(), version: 0, columns: Vec::new() };
    Ok((Manifest { quarantined: written.bad, ..Manifest::new(&none, files.done) }, written))
}

fn item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Float32, false))
}

/// The query's columns without image and caption, and behind them their embeddings.
fn schema(of_query: &SchemaRef, width: usize) -> Result<SchemaRef> {
    let width = i32::try_from(width).map_err(|_| Error::internal("an embedding is longer than a list can be"))?;
    let is_kept = |field: &&FieldRef| field.name() != IMAGE && field.name() != CAPTION;
    let mut fields: Vec<FieldRef> = of_query.fields().iter().filter(is_kept).cloned().collect();
    for (of, name) in [(IMAGE, IMAGE_EMBEDDING), (CAPTION, TEXT_EMBEDDING)] {
        if of_query.field_with_name(of).is_ok() {
            fields.push(Arc::new(Field::new(name, DataType::FixedSizeList(item(), width), true)));
        }
    }
    let mut names = std::collections::BTreeSet::new();
    if let Some(twice) = fields.iter().find(|field| !names.insert(field.name().as_str())) {
        let reason = format!("returns {:?} twice, or by the name of an embedding; rename one with AS", twice.name());
        return Err(Error::at(Stage::Sql, "the query", reason));
    }
    Ok(Arc::new(ArrowSchema::new(fields)))
}

/// A batch with embeddings, its bad rows, and how many rows have no caption.
fn embedded(
    batch: &RecordBatch,
    embedder: &Embedder,
    schema: &SchemaRef,
    shards: &[String],
) -> Result<(RecordBatch, Vec<BadRow>, u64)> {
    let (mut columns, mut bad_rows, mut without_caption) = (Vec::<ArrayRef>::new(), vec![], 0);
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if field.name() != IMAGE && field.name() != CAPTION {
            columns.push(Arc::clone(column));
        }
    }
    if batch.column_by_name(IMAGE).is_some() {
        let ids: Option<Vec<u64>> = numbers(batch, SAMPLE_ID)?.into_iter().collect();
        let ids = ids.ok_or_else(|| {
            Error::at(Stage::Sql, "the query", "returns rows whose sample_id is NULL; leave them out with WHERE")
        })?;
        let all: Vec<usize> = (0..batch.num_rows()).collect();
        let mut rows = Vec::with_capacity(all.len());
        for (found, id) in embed_images(embedder, batch, &all)?.into_iter().zip(ids) {
            match found {
                Ok(row) => rows.push(Some(row)),
                Err(bad) => {
                    let (ordinal, row) = ((id >> ROW_BITS) as u32, id & (MAX_ROWS - 1));
                    let shard = shards.get(ordinal as usize).map_or("", String::as_str);
                    bad_rows.push(BadRow::new(shard, ordinal, row, Stage::Augment, &bad));
                    rows.push(None);
                }
            }
        }
        columns.push(lists(&rows, embedder.width())?);
    }
    if batch.column_by_name(CAPTION).is_some() {
        let rows = embed_texts(embedder, &texts(batch, CAPTION)?)?;
        without_caption = rows.iter().filter(|row| row.is_none()).count() as u64;
        columns.push(lists(&rows, embedder.width())?);
    }
    let batch = RecordBatch::try_new(Arc::clone(schema), columns);
    let batch = batch.context(Stage::Internal, "embeddings", "do not fit their schema")?;
    Ok((batch, bad_rows, without_caption))
}

fn lists(rows: &[Option<Vec<f32>>], width: usize) -> Result<ArrayRef> {
    let mut values = Vec::with_capacity(rows.len() * width);
    for row in rows {
        match row {
            Some(row) => values.extend_from_slice(row),
            None => values.extend(std::iter::repeat_n(0.0, width)),
        }
    }
    let nulls: NullBuffer = rows.iter().map(Option::is_some).collect::<Vec<bool>>().into();
    let values = Arc::new(Float32Array::from(values));
    let lists = FixedSizeListArray::try_new(item(), width as i32, values, Some(nulls));
    Ok(Arc::new(lists.context(Stage::Internal, "embeddings", "are no lists of one length")?))
}

fn properties(width: usize) -> Result<WriterProperties> {
    let group_rows = (ROW_GROUP_BYTES / (4 * width.max(1))).max(1_024);
    let mut properties =
        WriterProperties::builder().set_compression(zstd()?).set_max_row_group_row_count(Some(group_rows));
    for name in [IMAGE_EMBEDDING, TEXT_EMBEDDING] {
        // No value stands twice.
        let path = ColumnPath::from(vec![name.to_owned(), "list".to_owned(), "item".to_owned()]);
        properties = properties.set_column_dictionary_enabled(path, false);
    }
    Ok(properties.build())
}

/// The files of the result, the last of them open.
struct Files {
    schema: SchemaRef,
    properties: WriterProperties,
    open: Option<(String, ArrowWriter<std::fs::File>, u64)>,
    done: Vec<ManifestShard>,
}

impl Files {
    fn push(&mut self, destination: &mut Destination, batch: &RecordBatch) -> Result<()> {
        let is_full = |writer: &ArrowWriter<std::fs::File>| writer.bytes_written() as u64 > FILE_BYTES;
        if self.open.as_ref().is_some_and(|(_, writer, _)| is_full(writer)) {
            self.close(destination)?;
        }
        if self.open.is_none() {
            let name = format!("embeddings-{:05}.parquet", self.done.len());
            let file = destination.begin(&name)?;
            let writer = ArrowWriter::try_new(file, Arc::clone(&self.schema), Some(self.properties.clone()));
            let writer = writer.context(Stage::Import, name.as_str(), CANNOT_WRITE)?;
            self.open = Some((name, writer, 0));
        }
        if let Some((name, writer, rows)) = &mut self.open {
            *rows += batch.num_rows() as u64;
            writer.write(batch).context(Stage::Import, name.as_str(), CANNOT_WRITE)?;
        }
        Ok(())
    }

    fn close(&mut self, destination: &Destination) -> Result<()> {
        let Some((name, writer, rows)) = self.open.take() else { return Ok(()) };
        let mut file = writer.into_inner().context(Stage::Import, &name, CANNOT_WRITE)?;
        file.flush().context(Stage::Import, &name, CANNOT_WRITE)?;
        destination.publish(&name, &file)?;
        self.done.push(ManifestShard::of_file(destination.folder(), &name, self.done.len() as u32, rows)?);
        Ok(())
    }
}
