//! Extra values as a narrow Parquet file inside a selection's.
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;

use super::extra::ExtraColumns;
use super::selection::SelectedGroup;
use crate::error::{Context, Error, Result, Stage};

/// Rows that are read at a time.
const BATCH_ROWS: usize = 65_536;

pub(crate) fn encode(extra: &ExtraColumns) -> Result<Vec<u8>> {
    let broken = "cannot write the extra columns";
    let zstd = ZstdLevel::try_new(3).context(Stage::Internal, "zstd", "has no level 3")?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(zstd)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(extra.schema()), Some(properties)).context(
        Stage::Select,
        "",
        broken,
    )?;
    for values in extra.groups() {
        writer.write(values).context(Stage::Select, "", broken)?;
    }
    writer.close().context(Stage::Select, "", broken)?;
    Ok(bytes)
}

/// The values of the items of `groups`. The checksum of the file that holds them was right.
pub(crate) fn decode(bytes: &[u8], groups: &[SelectedGroup], place: &str) -> Result<ExtraColumns> {
    let broken = "has malformed extra columns; select again";
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).and_then(|builder| {
        let schema = Arc::clone(builder.schema());
        builder.with_batch_size(BATCH_ROWS).build().map(|reader| (schema, reader))
    });
    let (schema, mut reader) = reader.context(Stage::Select, place, broken)?;
    let mut rest = RecordBatch::new_empty(Arc::clone(&schema));
    let mut values = Vec::with_capacity(groups.len());
    for group in groups {
        let mut parts = Vec::new();
        let mut wanted = group.items() as usize;
        while wanted > 0 {
            if rest.num_rows() == 0 {
                let Some(batch) = reader.next() else {
                    return Err(Error::at(Stage::Select, place, "has fewer extra values than items; select again"));
                };
                rest = batch.context(Stage::Select, place, broken)?;
            }
            let taken = wanted.min(rest.num_rows());
            parts.push(rest.slice(0, taken));
            rest = rest.slice(taken, rest.num_rows() - taken);
            wanted -= taken;
        }
        values.push(match parts.as_slice() {
            [one] => one.clone(),
            _ => concat_batches(&schema, &parts).context(Stage::Select, place, broken)?,
        });
    }
    if rest.num_rows() > 0 || reader.next().is_some() {
        return Err(Error::at(Stage::Select, place, "has more extra values than items; select again"));
    }
    Ok(ExtraColumns::new(schema, values))
}
