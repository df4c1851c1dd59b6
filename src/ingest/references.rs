//! What reference shards store in place of images.
use std::path::{Component, Path};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{Field, FieldRef};

use super::modality::Modality;
use super::rows::Row;
use super::source::Source;
use crate::error::{Context, Error, Result, Stage};
use crate::select::reference::{COLUMNS, location};

/// Columns that say where a blob lies.
pub(super) fn fields() -> [FieldRef; 3] {
    COLUMNS.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)))
}

/// Whether every image of `source` lies in a file as it is.
///
/// # Errors
/// Samples that are no images; one that does not; a column of the source bears the name of one of [`fields`].
pub(super) fn check(source: &dyn Source) -> Result<()> {
    if source.modality() != Modality::Image {
        let reason =
            format!("holds {}, and only images are read from where they are; import it", source.modality().samples());
        return Err(Error::at(Stage::Import, source.kind(), reason));
    }
    let further = source.further_fields();
    if let Some(taken) = further.iter().find(|field| COLUMNS.iter().any(|(name, _)| *name == field.name().as_str())) {
        let reason = format!("a column is called {}, as those of references are; rename it", taken.name());
        return Err(Error::at(Stage::Import, source.kind(), reason));
    }
    match (0..source.images()).find(|&image| source.place(image).is_none()) {
        None => Ok(()),
        Some(image) => {
            let reason = "lies in no file as it is: it is compressed or part of another format, so no reference can name its \
                          bytes; unpack the archive (gunzip leaves a tar), read Parquet where it is, or import it";
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
    let lengths = rows.iter().map(|row| row.blob.len() as u64);
    Ok([
        Arc::new(StringArray::from(uris)),
        Arc::new(UInt64Array::from(offsets)),
        Arc::new(UInt64Array::from_iter_values(lengths)),
    ])
}

/// An absolute path: shards and blobs may be moved apart, but the blobs must stay where they are.
fn uri(file: &Path) -> Result<String> {
    let place = || file.display().to_string();
    // Behind a link `..` is another folder than the words say; other links stay, since they are what the user knows.
    let has_parents = file.components().any(|part| part == Component::ParentDir);
    let absolute = if has_parents { file.canonicalize() } else { std::path::absolute(file) };
    let text = absolute.context(Stage::Import, place(), "has no absolute path")?.into_os_string().into_string();
    let text = text.map_err(|_| Error::at(Stage::Import, place(), "has a name that is no text (UTF-8); rename it"))?;
    // Stores refuse some names that disks allow, such as those with line breaks.
    location(&text).context(Stage::Import, place(), "has a name that no reference can have; rename it")?;
    Ok(text)
}
