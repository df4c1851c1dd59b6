//! What an import asks of any kind of source.
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::FieldRef;

use super::modality::Modality;
use crate::augment::BadSample;
use crate::error::{Context, Error, Result, Stage};

/// Images or series that can be read by number, in any order and by several threads at once.
pub trait Source: Sync {
    /// As reports name it: `class_folders`.
    fn kind(&self) -> &'static str;
    /// What its samples are.
    fn modality(&self) -> Modality {
        Modality::Image
    }
    /// Number of images.
    fn images(&self) -> usize;
    /// The `source` column: path below the imported folder, or `file#index`. Names the image's place in the keyed order.
    fn name(&self, image: usize) -> Cow<'_, str>;
    /// Encoded bytes, at least roughly, known without reading them.
    fn expected_bytes(&self, image: usize) -> u64;
    /// The encoded image.
    ///
    /// # Errors
    /// It cannot be read. (What cannot be *decoded* is no concern of a source.)
    fn read(&self, image: usize) -> Result<Vec<u8>>;
    /// Train, test, …, as shards have it.
    fn split(&self, image: usize) -> Option<&str>;
    /// Class name.
    fn label(&self, image: usize) -> Option<Cow<'_, str>>;
    /// Words.
    fn caption(&self, _image: usize) -> Option<&str> {
        None
    }
    /// The encoded image with its caption, for sources that keep the words on disk as well.
    ///
    /// # Errors
    /// One of them cannot be read.
    fn read_with_caption(&self, image: usize) -> Result<(Vec<u8>, Option<Cow<'_, str>>)> {
        Ok((self.read(image)?, self.caption(image).map(Cow::Borrowed)))
    }
    /// The file that holds the encoded image as it is, which a reference may name; `None` where none does.
    fn place(&self, _image: usize) -> Option<Place> {
        None
    }
    /// Whether neighbours in the order of the source are neighbours in a file, so that references had better keep it.
    fn is_packed(&self) -> bool {
        false
    }
    /// What series have in common beside their label.
    fn group(&self, _image: usize) -> Option<&str> {
        None
    }
    /// When a series begins: microseconds since 1970, UTC.
    fn start_time(&self, _image: usize) -> Option<i64> {
        None
    }
    /// Steps per second of a series of [`Modality::Numbers`].
    fn rate_hz(&self, _image: usize) -> Option<f64> {
        None
    }
    /// What was read as the numbers of a series, for sources of [`Modality::Numbers`].
    ///
    /// # Errors
    /// It holds something else.
    fn numbers(&self, _image: usize, read: Vec<u8>) -> std::result::Result<Vec<u8>, BadSample> {
        Ok(read)
    }
    /// Narrow columns beyond the schema's.
    fn further_fields(&self) -> Vec<FieldRef> {
        vec![]
    }
    /// Their values for these images, one array per field.
    ///
    /// # Errors
    /// The values cannot be gathered.
    fn further_columns(&self, _images: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![])
    }
}

/// Where an encoded image lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Its first byte there.
    pub offset: u64,
}

/// Reads a file that had `expected_bytes` when it was listed.
///
/// # Errors
/// It cannot be read, or changed its length meanwhile: memory is planned by it.
pub(super) fn read_file(path: &Path, expected_bytes: u64) -> Result<Vec<u8>> {
    let place = || path.display().to_string();
    let mut bytes = Vec::with_capacity(usize::try_from(expected_bytes).unwrap_or(0));
    File::open(path)
        .and_then(|file| file.take(expected_bytes + 1).read_to_end(&mut bytes))
        .with_context_at(place, "cannot be read; check permissions and the disk, and import again")?;
    if bytes.len() as u64 != expected_bytes {
        let reason = "changed while it was imported; import again when nothing writes to it";
        return Err(Error::at(Stage::Import, place(), reason));
    }
    Ok(bytes)
}

/// Builds the place of an error only where there is one.
trait ContextAt<T> {
    fn with_context_at(self, place: impl FnOnce() -> String, reason: &str) -> Result<T>;
}

impl<T> ContextAt<T> for std::io::Result<T> {
    fn with_context_at(self, place: impl FnOnce() -> String, reason: &str) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(error).context(Stage::Import, place(), reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_its_length_is_an_error_and_no_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        for wrong in [4, 6] {
            assert!(read_file(&path, wrong).unwrap_err().to_string().contains("changed while"));
        }
        assert!(read_file(&folder.path().join("b.png"), 5).unwrap_err().to_string().contains("cannot be read"));
    }
}
