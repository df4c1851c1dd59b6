//! Samples that lie many to a file: where each image is, and its words.
//!
//! Pass 1 fills it, pass 2 reads it. About 120 bytes per sample stay in memory, names included; captions and further
//! columns wait in the [`Spool`].
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::FieldRef;
use datafusion::arrow::row::{RowConverter, SortField};

use super::rows::Rejected;
use super::source::{Place, Source};
use super::split_name;
use super::spool::{Span, Spool, read_span};
use crate::augment::{BadClass, BadSample};
use crate::error::{Context, Error, Result, Stage};

/// Where an image's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// In the spool.
    Spool(Span),
    /// In a file, by its number.
    File(u32, Span),
}

/// One sample as pass 1 finds it.
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) image: Stored,
    /// In the spool.
    pub(super) caption: Option<Span>,
    pub(super) label: Option<u32>,
    pub(super) split: Option<u32>,
    /// In the spool, in Arrow's row format.
    pub(super) further: Option<Span>,
}

#[derive(Debug)]
struct Sample {
    /// Where its name ends among all names; it begins where the one before ends.
    name_end: u64,
    image: Stored,
    caption: Option<Span>,
    further: Option<Span>,
    label: Option<u32>,
    split: Option<u32>,
}

/// Texts that many samples share, each kept once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Shared {
    /// The text of a number that was given out.
    pub(super) fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    /// The number of a text.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// Columns beyond the schema's, row by row.
#[derive(Debug)]
struct Further {
    fields: Vec<FieldRef>,
    converter: RowConverter,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) kind: &'static str,
    files: Vec<PathBuf>,
    pub(super) spool: Spool,
    names: String,
    samples: Vec<Sample>,
    pub(super) labels: Shared,
    pub(super) splits: Shared,
    further: Option<Further>,
    /// What pass 1 refused.
    pub(super) rejected: Vec<Rejected>,
}

impl Samples {
    /// None yet.
    pub(super) fn new(kind: &'static str, spool: Spool) -> Self {
        Self {
            kind,
            files: vec![],
            spool,
            names: String::new(),
            samples: vec![],
            labels: Shared::default(),
            splits: Shared::default(),
            further: None,
            rejected: vec![],
        }
    }

    /// Numbers a file that images are read from.
    pub(super) fn add_file(&mut self, path: PathBuf) -> u32 {
        self.files.push(path);
        self.files.len() as u32 - 1
    }

    /// Columns that every sample has beyond the schema's.
    ///
    /// # Errors
    /// Arrow has no row format for one of them.
    pub(super) fn carry(&mut self, fields: Vec<FieldRef>) -> Result<()> {
        if fields.is_empty() {
            return Ok(());
        }
        let sort_fields = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(sort_fields).context(Stage::Internal, "further columns", "have no rows")?;
        self.further = Some(Further { fields, converter });
        Ok(())
    }

    /// Keeps the further columns of some rows, which have exactly the carried fields.
    ///
    /// # Errors
    /// They cannot be written.
    pub(super) fn keep_further(&mut self, batch: &RecordBatch) -> Result<Vec<Option<Span>>> {
        let Some(further) = &self.further else { return Ok(vec![None; batch.num_rows()]) };
        let rows = further.converter.convert_columns(batch.columns()).context(
            Stage::Internal,
            "further columns",
            "are not those that were announced",
        )?;
        rows.iter().map(|row| self.spool.append(row.data()).map(Some)).collect()
    }

    /// Adds a sample.
    pub(super) fn push(&mut self, found: &Found<'_>) {
        self.names.push_str(found.name);
        let Found { image, caption, label, split, further, .. } = *found;
        self.samples.push(Sample { name_end: self.names.len() as u64, image, caption, further, label, split });
    }

    /// Adds a sample that cannot be used.
    pub(super) fn reject(&mut self, source: String, class: BadClass, message: impl Into<String>) {
        self.rejected.push(Rejected { source, reason: BadSample { class, message: message.into() } });
    }

    /// Number of samples so far, rejected ones too.
    pub(super) fn seen(&self) -> u64 {
        (self.samples.len() + self.rejected.len()) as u64
    }

    fn stored(&self, image: Stored) -> Result<Vec<u8>> {
        match image {
            Stored::Spool(span) => self.spool.read(span),
            Stored::File(number, span) => {
                // Opened each time: ten thousand archives are more than a process may have open.
                let path = &self.files[number as usize];
                File::open(path).and_then(|file| read_span(&file, span)).context(
                    Stage::Import,
                    path.display().to_string(),
                    "cannot be read; check the disk, and import again when nothing writes to it",
                )
            }
        }
    }
}

impl Source for Samples {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn images(&self) -> usize {
        self.samples.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        let start = image.checked_sub(1).map_or(0, |before| self.samples[before].name_end);
        Cow::Borrowed(&self.names[start as usize..self.samples[image].name_end as usize])
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        let (Stored::Spool(span) | Stored::File(_, span)) = self.samples[image].image;
        u64::from(span.bytes)
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        self.stored(self.samples[image].image)
    }

    fn read_with_caption(&self, image: usize) -> Result<(Vec<u8>, Option<Cow<'_, str>>)> {
        let caption = match self.samples[image].caption {
            None => None,
            Some(span) => {
                let text = String::from_utf8(self.spool.read(span)?);
                Some(Cow::Owned(text.context(Stage::Import, self.name(image), "its caption changed on the disk")?))
            }
        };
        Ok((self.read(image)?, caption))
    }

    fn place(&self, image: usize) -> Option<Place> {
        match self.samples[image].image {
            Stored::File(number, span) => Some(Place { file: self.files[number as usize].clone(), offset: span.at }),
            Stored::Spool(_) => None,
        }
    }

    fn is_packed(&self) -> bool {
        true
    }

    fn split(&self, image: usize) -> Option<&str> {
        self.samples[image].split.map(|number| split_name::stored(&self.splits.texts[number as usize]))
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        self.samples[image].label.map(|number| Cow::Borrowed(self.labels.texts[number as usize].as_str()))
    }

    fn further_fields(&self) -> Vec<FieldRef> {
        self.further.as_ref().map(|further| further.fields.clone()).unwrap_or_default()
    }

    fn further_columns(&self, images: &[u32]) -> Result<Vec<ArrayRef>> {
        let Some(further) = &self.further else { return Ok(vec![]) };
        let missing = || Error::internal("a sample without its further columns");
        let rows = images
            .iter()
            .map(|&image| self.spool.read(self.samples[image as usize].further.ok_or_else(missing)?))
            .collect::<Result<Vec<Vec<u8>>>>()?;
        let parser = further.converter.parser();
        let rows = rows.iter().map(|row| parser.parse(row));
        further.converter.convert_rows(rows).context(Stage::Import, "further columns", "changed on the disk")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{AsArray, Int64Array, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn samples_are_read_by_number_with_their_words_and_further_columns() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("a");
        std::fs::write(&archive, b"....IMAGE....").unwrap();
        let mut samples = Samples::new("test", Spool::new(folder.path()).unwrap());
        let fields: Vec<FieldRef> = vec![
            Arc::new(Field::new("stars", DataType::Int64, true)),
            Arc::new(Field::new("url", DataType::Utf8, true)),
        ];
        samples.carry(fields.clone()).unwrap();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![Some(5), None])), Arc::new(StringArray::from(vec![None, Some("u")]))];
        let further =
            samples.keep_further(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()).unwrap();
        let file = samples.add_file(archive);
        let caption = Some(samples.spool.append("ein Bär".as_bytes()).unwrap());
        let in_spool = Stored::Spool(samples.spool.append(b"image").unwrap());
        let label = Some(samples.labels.number("bear"));
        assert_eq!(Some(samples.labels.number("bear")), label);
        let in_file = Stored::File(file, Span { at: 4, bytes: 5 });
        samples.push(&Found { name: "é", image: in_file, caption, label, split: None, further: further[0] });
        samples.push(&Found { name: "b", image: in_spool, caption: None, label, split: None, further: further[1] });
        samples.spool.seal().unwrap();
        assert_eq!((samples.name(0), samples.name(1)), ("é".into(), "b".into()));
        assert_eq!(samples.read_with_caption(0).unwrap(), (b"IMAGE".to_vec(), Some("ein Bär".into())));
        assert_eq!(samples.read_with_caption(1).unwrap(), (b"image".to_vec(), None));
        assert_eq!(samples.label(1).unwrap(), "bear");
        let columns = samples.further_columns(&[1, 0]).unwrap();
        assert_eq!(columns[0].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [None, Some(5)]);
        assert_eq!(columns[1].as_string::<i32>().iter().collect::<Vec<_>>(), [Some("u"), None]);
    }
}
