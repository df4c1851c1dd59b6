//! The rows of a query as shards of their own.
//!
//! Rows with an image become a data set that training reads: checked, in a keyed random order, with width, height, format
//! and checksum made anew. Other rows become plain Parquet files, which training reads where they refer to images. Either appears complete or not at all.
use std::{io::Write as _, ops::ControlFlow, path::Path, sync::Arc};

use datafusion::{
    arrow::datatypes::DataType,
    parquet::{
        arrow::ArrowWriter,
        file::properties::{EnabledStatistics, WriterProperties},
        schema::types::ColumnPath,
    },
};
use tokio::runtime::Handle;

use super::{
    reference::COLUMNS,
    spool::{IMAGE, SpooledRows, check_columns},
    sql::Query,
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    ingest::{
        ImportReport, ImportSettings, Progress, as_blobs,
        destination::Destination,
        holds_images, import_made, into_folder,
        manifest::{Manifest, ManifestShard},
        zstd,
    },
    schema::Schema,
};

/// Rows of a row group of plain files; of those with blobs or references `row_group_rows` counts.
const ROW_GROUP_ROWS: usize = 131_072;
const MEGABYTE: u64 = 1 << 20;
const CANNOT_WRITE: &str = "cannot be written; check permissions and free space, and run it again";

/// What [`materialise`] makes of the rows of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Shards of the schema `image_text`.
    ImageText,
    /// Parquet files whose rows refer to their images, as those that index writes.
    References,
    /// Parquet files that training cannot read: there is no column `image`.
    Plain,
}

impl Shape {
    /// That of a query's rows.
    pub fn of(query: &Query) -> Self {
        let schema = query.schema();
        match schema.field_with_name(IMAGE) {
            Ok(field) if holds_images(field.data_type()) => Self::ImageText,
            Err(_) if COLUMNS.iter().all(|(name, _)| schema.field_with_name(name).is_ok()) => Self::References,
            _ => Self::Plain,
        }
    }
}

/// Runs a query and writes its rows into shards in `to`. Blocks: not to be called from asynchronous code.
///
/// Of images, `caption`, `label`, `split` and `source` are the query's where it returns them; columns that the schema does
/// not know are kept. Images whose header cannot be used go to quarantine. Their bytes pass through a temporary file beside the
/// shards, because their random order is known only when the last has been seen; narrow columns wait in memory.
///
/// # Errors
/// The query's; two columns of one name; a folder that holds something else; no row at all.
pub fn materialise(
    runtime: &Handle,
    query: &Query,
    to: &Path,
    settings: &ImportSettings,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<ImportReport> {
    check_columns(&query.schema())?;
    match Shape::of(query) {
        Shape::ImageText => import_made(|| runtime.block_on(SpooledRows::of(query, to)), to, settings, progress),
        Shape::References | Shape::Plain => into_folder(to, settings, |destination| {
            destination.clear()?;
            runtime.block_on(plain(query, destination, settings))
        }),
    }
}

/// Rows in the order of the query.
async fn plain(
    query: &Query,
    destination: &mut Destination,
    settings: &ImportSettings,
) -> Result<(Manifest, ImportReport)> {
    let schema = query.schema();
    let properties = properties(query, settings)?;
    let mut open: Option<(String, ArrowWriter<std::fs::File>, u64)> = None;
    let mut shards: Vec<ManifestShard> = Vec::new();
    let mut close =
        |destination: &Destination, (name, writer, rows): (String, ArrowWriter<std::fs::File>, u64)| -> Result<usize> {
            let mut file = writer.into_inner().context(Stage::Import, &name, CANNOT_WRITE)?;
            file.flush().context(Stage::Import, &name, CANNOT_WRITE)?;
            destination.publish(&name, &file)?;
            shards.push(ManifestShard::of_file(destination.folder(), &name, shards.len() as u32, rows)?);
            Ok(shards.len())
        };
    let mut number = 0;
    query
        .run(|batch| {
            let is_full = open.as_ref().is_some_and(|(_, writer, rows)| {
                (writer.bytes_written() + writer.in_progress_size()) as u64 > settings.shard_megabytes * MEGABYTE
                    || settings.shard_rows.is_some_and(|limit| *rows >= limit)
            });
            if is_full && let Some(full) = open.take() {
                number = close(destination, full)?;
            }
            if open.is_none() {
                let name = format!("rows-{number:05}.parquet");
                let file = destination.begin(&name)?;
                let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties.clone()));
                open = Some((name.clone(), writer.context(Stage::Import, &name, CANNOT_WRITE)?, 0));
            }
            if let Some((name, writer, rows)) = &mut open {
                *rows += batch.num_rows() as u64;
                writer.write(&batch).context(Stage::Import, name.as_str(), CANNOT_WRITE)?;
            }
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    if let Some(last) = open.take() {
        close(destination, last)?;
    }
    if shards.is_empty() {
        return Err(Error::at(Stage::Import, "the query", "returns no rows; nothing was written"));
    }
    let none = Schema { name: "none".to_owned(), version: 0, columns: Vec::new() };
    let manifest = Manifest::new(&none, shards);
    let report = ImportReport {
        kind: "rows of a query".to_owned(),
        samples: "images".to_owned(),
        rows: manifest.rows,
        ..ImportReport::default()
    };
    Ok((manifest, report))
}

fn properties(query: &Query, settings: &ImportSettings) -> Result<WriterProperties> {
    let schema = query.schema();
    let blobs: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| matches!(field.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView))
        .map(|field| field.name().as_str())
        .collect();
    // Training reads these as it reads images: an epoch permutes row groups, and a window holds several.
    let has_images = !blobs.is_empty() || Shape::of(query) == Shape::References;
    let group_rows = if has_images { settings.row_group_rows } else { ROW_GROUP_ROWS };
    let mut properties = WriterProperties::builder()
        .set_compression(zstd()?)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(group_rows));
    for name in blobs {
        properties = as_blobs(properties, &ColumnPath::from(name));
    }
    Ok(properties.build())
}
