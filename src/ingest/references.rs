//! What reference shards store in place of images.
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};

use super::rows::Row;
use super::source::Source;
use crate::error::{Context, Error, Result, Stage};
use crate::select::reference::{BLOB_LENGTH, BLOB_OFFSET, BLOB_URI};

/// Columns that say where a blob lies.
pub(super) fn fields() -> [FieldRef; 3] {
    [(BLOB_URI, DataType::Utf8), (BLOB_OFFSET, DataType::UInt64), (BLOB_LENGTH, DataType::UInt64)]
        .map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)))
}

/// Whether every image of `source` lies in a file as it is.
///
/// # Errors
/// One that does not.
pub(super) fn check(source: &dyn Source) -> Result<()> {
    match (0..source.images()).find(|&image| source.place(image).is_none()) {
        None => Ok(()),
        Some(image) => {
            let reason = "is compressed, or part of a file of another format, so no reference can name its bytes; import \
                          it, or unpack the archives first (gunzip keeps them tars)";
            Err(Error::at(Stage::Import, source.name(image), reason))
        }
    }
}

/// Values of [`fields`] for these rows.
///
/// # Errors
/// A path that is no text.
pub(super) fn columns(source: &dyn Source, rows: &[Row]) -> Result<[ArrayRef; 3]> {
    let mut uris = Vec::with_capacity(rows.len());
    let mut offsets = Vec::with_capacity(rows.len());
    for row in rows {
        let missing = || Error::internal(format!("{} has no place any more", row.source));
        let place = source.place(row.number as usize).ok_or_else(missing)?;
        uris.push(uri(&place.file)?);
        offsets.push(place.offset);
    }
    let lengths = rows.iter().map(|row| row.image.len() as u64);
    Ok([
        Arc::new(StringArray::from(uris)),
        Arc::new(UInt64Array::from(offsets)),
        Arc::new(UInt64Array::from_iter_values(lengths)),
    ])
}

/// An absolute path: shards and blobs may be moved apart, but the blobs must stay where they are.
fn uri(file: &Path) -> Result<String> {
    let place = || file.display().to_string();
    let absolute = std::path::absolute(file).context(Stage::Import, place(), "has no absolute path")?;
    let text = absolute.into_os_string().into_string();
    text.map_err(|_| Error::at(Stage::Import, place(), "has a name that is no text (UTF-8); rename it"))
}
