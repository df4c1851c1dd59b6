//! `quarantine.parquet`: what could not be imported, and why.
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;

use super::QUARANTINE_FILE;
use super::destination::Destination;
use super::rows::Rejected;
use super::shard::zstd;
use crate::error::{Context, Result, Stage};

/// Writes the table, with one row per image, sorted by source; nothing where there is no such image.
pub(super) fn write(destination: &mut Destination, mut rejected: Vec<Rejected>) -> Result<()> {
    if rejected.is_empty() {
        return Ok(());
    }
    rejected.sort_by(|a, b| a.source.cmp(&b.source));
    let text = |of: fn(&Rejected) -> &str| Arc::new(StringArray::from_iter_values(rejected.iter().map(of))) as ArrayRef;
    let columns = [
        ("source", text(|r| &r.source)),
        ("class", text(|r| r.reason.class.name())),
        ("message", text(|r| &r.reason.message)),
    ];
    let cannot_write = "cannot be written; check permissions and free space, and import again";
    let batch = RecordBatch::try_from_iter(columns).context(Stage::Internal, QUARANTINE_FILE, "has uneven columns")?;
    let properties = WriterProperties::builder().set_compression(zstd()?).build();
    let file = destination.begin(QUARANTINE_FILE)?;
    let file = ArrowWriter::try_new(file, batch.schema(), Some(properties))
        .and_then(|mut writer| {
            writer.write(&batch)?;
            writer.into_inner()
        })
        .context(Stage::Import, QUARANTINE_FILE, cannot_write)?;
    destination.publish(QUARANTINE_FILE, &file)
}
