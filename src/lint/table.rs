//! `lint.parquet`: one row per finding.
use std::{fs, path::Path, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, StringArray, UInt64Array},
        datatypes::{DataType, Field, Schema as ArrowSchema},
    },
    parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::WriterProperties,
    },
};

use super::Finding;
use crate::error::{Context as _, Result, Stage};

/// Name of the table in the folder of `--to`.
pub const TABLE_FILE: &str = "lint.parquet";

/// Writes the findings: `sample_id`, `shard`, `row`, `kind`, `class`, `message`, `duplicate_of`. Those of a whole shard have
/// neither `sample_id` nor `row`.
///
/// # Errors
/// The file cannot be written.
pub fn write(folder: &Path, findings: &[Finding]) -> Result<()> {
    let place = folder.join(TABLE_FILE).display().to_string();
    let cannot_write = "cannot be written; check permissions and free space";
    let text = |of: &dyn Fn(&Finding) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(findings.iter().map(of)))
    };
    let number = |of: &dyn Fn(&Finding) -> Option<u64>| -> ArrayRef {
        Arc::new(findings.iter().map(of).collect::<UInt64Array>())
    };
    let columns = vec![
        (Field::new("sample_id", DataType::UInt64, true), number(&|f| f.place.sample_id)),
        (Field::new("shard", DataType::Utf8, false), text(&|f| f.place.shard.clone())),
        (Field::new("row", DataType::UInt64, true), number(&|f| f.place.row)),
        (Field::new("kind", DataType::Utf8, false), text(&|f| f.kind.name().to_owned())),
        (Field::new("class", DataType::Utf8, false), text(&|f| f.class.to_owned())),
        (Field::new("message", DataType::Utf8, false), text(&|f| f.message.clone())),
        (Field::new("duplicate_of", DataType::UInt64, true), number(&|f| f.other)),
    ];
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let schema = Arc::new(ArrowSchema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).context(Stage::Internal, &place, "uneven columns")?;
    let zstd = ZstdLevel::try_new(3).context(Stage::Internal, "zstd", "has no level 3")?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(zstd)).build();
    fs::create_dir_all(folder).context(Stage::Lint, folder.display().to_string(), cannot_write)?;
    let temporary = folder.join(format!(".{TABLE_FILE}.tmp"));
    let file = fs::File::create(&temporary).context(Stage::Lint, &place, cannot_write)?;
    let file = ArrowWriter::try_new(file, schema, Some(properties))
        .and_then(|mut writer| {
            writer.write(&batch)?;
            writer.into_inner()
        })
        .context(Stage::Lint, &place, cannot_write)?;
    file.sync_all().and_then(|()| fs::rename(&temporary, folder.join(TABLE_FILE))).context(
        Stage::Lint,
        &place,
        cannot_write,
    )
}
