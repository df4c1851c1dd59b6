//! Rows into Parquet files that are made to be streamed.
//!
//! Row groups are small (256 rows or 32 MB), so that an epoch can permute them. Blobs are plain, uncompressed (JPEG
//! and PNG are already), without dictionary or statistics, and a page ends as soon as it holds [`BLOB_PAGE_BYTES`]: a
//! row selection reads about the blobs it wants and no others. Narrow columns have zstd and statistics per page.
use std::fs::File;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef, Schema as ArrowSchema, SchemaRef};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use datafusion::parquet::schema::types::ColumnPath;

use super::ImportSettings;
use super::destination::Destination;
use super::manifest::ManifestShard;
use super::modality::Modality;
use super::references;
use super::row_batch::{row_batch, series_type};
use super::rows::Row;
use super::source::Source;
use crate::error::{Context, Error, Result, Stage};
use crate::pair::Numbers;
use crate::schema::{LIST_ELEMENT, Role, Schema};
use crate::select::reference::KEY_BLOB_BYTES;

/// A page of blobs ends with the blob that reaches this: one photo, or a dozen 28-pixel PNGs. Reading 4 KB costs a disk
/// or a network what reading one byte costs.
pub const BLOB_PAGE_BYTES: usize = 4096;
/// Footer key: name of the schema.
pub const KEY_SCHEMA: &str = "diptych.schema";
/// Footer key: version of the schema.
pub const KEY_SCHEMA_VERSION: &str = "diptych.schema_version";
/// Footer key: BLAKE3, in hexadecimal, of each row's BLAKE3 of its blob, caption (or group), label, split and source.
pub const KEY_CONTENT: &str = "diptych.content_blake3";

const CANNOT_WRITE: &str = "cannot be written; check permissions and free space, and import again";
const MEGABYTE: u64 = 1 << 20;

/// Writes rows into as many shards as they need.
pub(super) struct ShardWriter<'a> {
    source: &'a dyn Source,
    settings: &'a ImportSettings,
    schema: &'a Schema,
    file_schema: SchemaRef,
    properties: WriterProperties,
    open: Option<OpenShard>,
    /// The row group to be.
    pending: Vec<Row>,
    pending_bytes: u64,
    shards: Vec<ManifestShard>,
}

struct OpenShard {
    name: String,
    writer: ArrowWriter<File>,
    rows: u64,
    image_bytes: u64,
    /// Of each row group.
    group_bytes: Vec<u64>,
    content: blake3::Hasher,
}

impl<'a> ShardWriter<'a> {
    pub(super) fn new(source: &'a dyn Source, schema: &'a Schema, settings: &'a ImportSettings) -> Result<Self> {
        let mut fields: Vec<FieldRef> = schema.arrow_schema().fields().iter().cloned().collect();
        // The blob comes first.
        if source.modality() == Modality::Audio {
            let field = fields[0].as_ref().clone().with_data_type(series_type(settings.numbers));
            fields[0] = Arc::new(field);
        }
        if settings.reference {
            fields.retain(|field| schema.column(field.name()).is_ok_and(|column| column.role == Role::Narrow));
            fields.extend(references::fields());
        }
        fields.extend(source.further_fields());
        let numbers = if source.modality() == Modality::Audio { settings.numbers } else { Numbers::F32 };
        Ok(Self {
            source,
            settings,
            schema,
            file_schema: Arc::new(ArrowSchema::new(fields)),
            properties: properties(schema, numbers)?,
            open: None,
            pending: Vec::new(),
            pending_bytes: 0,
            shards: Vec::new(),
        })
    }

    /// Shards that are complete.
    pub(super) fn shards(&self) -> &[ManifestShard] {
        &self.shards
    }

    /// Adds a row; `slug` is how a shard that it opens begins its name.
    pub(super) fn push(&mut self, destination: &mut Destination, slug: &str, row: Row) -> Result<()> {
        let row_bytes = row.blob.len() as u64;
        let shard_is_full = self.open.as_ref().is_some_and(|open| {
            open.image_bytes + row_bytes > self.settings.shard_megabytes * MEGABYTE
                || self.settings.shard_rows.is_some_and(|limit| open.rows >= limit)
        });
        if shard_is_full {
            self.close(destination)?;
        }
        if self.open.is_none() {
            self.open = Some(self.begin(destination, slug)?);
        }
        let group_is_full = self.pending.len() >= self.settings.row_group_rows
            || self.pending_bytes + row_bytes > self.settings.row_group_megabytes * MEGABYTE;
        if group_is_full {
            self.flush()?;
        }
        if let Some(open) = &mut self.open {
            open.rows += 1;
            open.image_bytes += row_bytes;
            open.content.update(&row.content);
        }
        self.pending_bytes += row_bytes;
        self.pending.push(row);
        Ok(())
    }

    fn begin(&self, destination: &mut Destination, slug: &str) -> Result<OpenShard> {
        // Numbered through all splits: names sort as ordinals do, so that the set keeps its meaning without a manifest.
        let name = format!("{slug}-{:05}.parquet", self.shards.len());
        let file = destination.begin(&name)?;
        // The Arrow schema stays out of the footer: the Parquet types say it all, and views are a matter of the reader.
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, self.file_schema.clone(), options).context(
            Stage::Import,
            &name,
            CANNOT_WRITE,
        )?;
        Ok(OpenShard { name, writer, rows: 0, image_bytes: 0, group_bytes: vec![], content: blake3::Hasher::new() })
    }

    /// Writes the pending rows as one row group.
    fn flush(&mut self) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if self.pending.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.pending);
        let batch = row_batch(self.source, self.file_schema.clone(), rows, self.settings.reference)?;
        open.group_bytes.push(std::mem::take(&mut self.pending_bytes));
        open.writer.write(&batch).and_then(|()| open.writer.flush()).context(Stage::Import, &open.name, CANNOT_WRITE)
    }

    /// Completes the shard that is open, if one is.
    pub(super) fn close(&mut self, destination: &Destination) -> Result<()> {
        self.flush()?;
        let Some(mut open) = self.open.take() else { return Ok(()) };
        for (key, value) in [
            (KEY_SCHEMA, self.schema.name.clone()),
            (KEY_SCHEMA_VERSION, self.schema.version.to_string()),
            (KEY_CONTENT, open.content.finalize().to_hex().to_string()),
        ] {
            open.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        if self.settings.reference {
            let bytes = serde_json::to_string(&open.group_bytes).context(Stage::Internal, &open.name, CANNOT_WRITE)?;
            open.writer.append_key_value_metadata(KeyValue::new(KEY_BLOB_BYTES.to_owned(), bytes));
        }
        let file = open.writer.into_inner().context(Stage::Import, &open.name, CANNOT_WRITE)?;
        destination.publish(&open.name, &file)?;
        let ordinal = u32::try_from(self.shards.len()).map_err(|_| Error::internal("more than 2^32 shards"))?;
        self.shards.push(ManifestShard::of_file(destination.folder(), &open.name, ordinal, open.rows)?);
        Ok(())
    }
}

/// How narrow columns are compressed.
///
/// # Errors
/// None that a user can cause.
pub(crate) fn zstd() -> Result<Compression> {
    Ok(Compression::ZSTD(ZstdLevel::try_new(3).context(Stage::Internal, "zstd", "has no level 3")?))
}

/// Lays a column out as blobs are: the scan reads single ones by their pages.
pub(crate) fn as_blobs(properties: WriterPropertiesBuilder, column: &ColumnPath) -> WriterPropertiesBuilder {
    properties
        .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
        .set_column_encoding(column.clone(), Encoding::PLAIN)
        .set_column_dictionary_enabled(column.clone(), false)
        .set_column_statistics_enabled(column.clone(), EnabledStatistics::None)
        .set_column_data_page_size_limit(column.clone(), BLOB_PAGE_BYTES)
}

fn properties(schema: &Schema, numbers: Numbers) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(zstd()?)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_offset_index_disabled(false)
        // Row groups are cut by us, where their bytes are known exactly.
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(None);
    for column in schema.stored() {
        let path = ColumnPath::from(column.name.as_str());
        if column.role == Role::Blob && matches!(column.data_type, DataType::List(_)) {
            let path = ColumnPath::from(vec![column.name.clone(), "list".to_owned(), LIST_ELEMENT.to_owned()]);
            properties = as_blobs(properties, &path);
            if numbers == Numbers::I16 {
                // Plain would store 32 bits of each.
                properties = properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        } else if column.role == Role::Blob {
            properties = as_blobs(properties, &path);
        } else if !matches!(
            column.name.as_str(),
            "format" | "label" | "split" | "width" | "height" | "group" | "channels"
        ) {
            // Values that never repeat gain nothing from a dictionary.
            properties = properties.set_column_dictionary_enabled(path, false);
        }
    }
    Ok(properties.build())
}
