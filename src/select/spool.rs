//! The rows of a query on their way into shards: images in a temporary file, the rest in memory.
use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray, UInt32Array},
    compute::{cast, concat, take},
    datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{functions::encoded_images::EncodedImages, provider::SAMPLE_ID, sql::Query};
use crate::{
    error::{Context as _, Error, Result, Stage},
    ingest::source::Source,
    schema::Schema,
};

/// The column that holds the images.
pub(super) const IMAGE: &str = "image";
/// Texts of the schema that a query may give.
const GIVEN: [&str; 4] = ["caption", "label", "split", "source"];
const PLACE: &str = "the query";
const CANNOT_SPOOL: &str = "cannot be kept beside the shards; check permissions and free space";

/// Rows that can be read by number.
#[derive(Debug)]
pub(super) struct Spool {
    /// Encoded images, one after another. Has no name, so that nothing remains of it.
    images: File,
    /// Where each image ends.
    ends: Vec<u64>,
    names: Vec<Box<str>>,
    caption: Option<StringViewArray>,
    label: Option<StringViewArray>,
    split: Option<StringViewArray>,
    further: Vec<(FieldRef, ArrayRef)>,
}

impl Spool {
    /// Runs a query and keeps its rows; the temporary file lies in the folder `to`, which is there.
    pub(super) async fn of(query: &Query, to: &Path) -> Result<Self> {
        let schema = query.schema();
        let mut images = BufWriter::with_capacity(1 << 20, nameless(to)?);
        let (mut ends, mut at) = (Vec::new(), 0_u64);
        let mut names: Vec<Box<str>> = Vec::new();
        let mut kept: Vec<RecordBatch> = Vec::new();
        let narrow = narrow_columns(&schema)?;
        let source = narrow.iter().position(|&column| schema.field(column).name() == "source");
        query
            .run(|batch| {
                let image = batch.column_by_name(IMAGE).ok_or_else(|| Error::internal("the image is gone"))?;
                let encoded = EncodedImages::new(image).context(Stage::Import, PLACE, "its image is no binary")?;
                let rest = batch.project(&narrow).context(Stage::Internal, PLACE, "cannot leave out its image")?;
                let named = source.map(|source| as_text(rest.column(source), "source")).transpose()?;
                for row in 0..encoded.len() {
                    let bytes = encoded.get(row).unwrap_or_default();
                    images.write_all(bytes).context(Stage::Import, PLACE, CANNOT_SPOOL)?;
                    at += bytes.len() as u64;
                    ends.push(at);
                    let given = named.as_ref().filter(|named| named.is_valid(row)).map(|named| named.value(row).into());
                    // Named by content, so that the order of shards does not depend on that in which rows arrive.
                    names.push(given.unwrap_or_else(|| format!("query#{:016x}", xxh3_64(bytes)).into()));
                }
                kept.push(rest);
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        if ends.is_empty() {
            return Err(Error::at(Stage::Import, PLACE, "returns no rows; nothing was written"));
        }
        let images = images.into_inner().map_err(std::io::IntoInnerError::into_error);
        let images = images.context(Stage::Import, PLACE, CANNOT_SPOOL)?;
        let mut spool = Self { images, ends, names, caption: None, label: None, split: None, further: Vec::new() };
        for (position, &column) in narrow.iter().enumerate() {
            spool.keep(schema.field(column), position, &kept)?;
        }
        Ok(spool)
    }

    fn keep(&mut self, field: &Field, position: usize, batches: &[RecordBatch]) -> Result<()> {
        let parts: Vec<ArrayRef> = batches.iter().map(|batch| Arc::clone(batch.column(position))).collect();
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() {
            return Ok(());
        }
        let column =
            concat(&parts).context(Stage::Import, field.name(), "cannot be put together; write it in parts")?;
        match field.name().as_str() {
            "caption" => self.caption = Some(as_text(&column, "caption")?),
            "label" => self.label = Some(as_text(&column, "label")?),
            "split" => self.split = Some(as_text(&column, "split")?),
            "source" => {}
            name => {
                let field = Field::new(name, column.data_type().clone(), true);
                self.further.push((Arc::new(field), column));
            }
        }
        Ok(())
    }
}

impl Source for Spool {
    fn kind(&self) -> &'static str {
        "query"
    }

    fn images(&self) -> usize {
        self.ends.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.names[image])
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        self.ends[image] - image.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        let bytes = self.expected_bytes(image);
        let mut encoded = vec![0; bytes as usize];
        let read = self.images.read_exact_at(&mut encoded, self.ends[image] - bytes);
        read.context(Stage::Import, self.names[image].as_ref(), "cannot be read back; check the disk")?;
        Ok(encoded)
    }

    fn split(&self, image: usize) -> Option<&str> {
        value(self.split.as_ref(), image)
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        value(self.label.as_ref(), image).map(Cow::Borrowed)
    }

    fn caption(&self, image: usize) -> Option<&str> {
        value(self.caption.as_ref(), image)
    }

    fn further_fields(&self) -> Vec<FieldRef> {
        self.further.iter().map(|(field, _)| Arc::clone(field)).collect()
    }

    fn further_columns(&self, images: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows = UInt32Array::from(images.to_vec());
        let taken = |(field, column): &(FieldRef, ArrayRef)| {
            take(column, &rows, None).context(Stage::Internal, field.name(), "cannot be reordered")
        };
        self.further.iter().map(taken).collect()
    }
}

fn value(column: Option<&StringViewArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

fn as_text(column: &ArrayRef, name: &str) -> Result<StringViewArray> {
    let reason = "cannot become text; cast it in the query";
    Ok(cast(column, &DataType::Utf8View).context(Stage::Import, name, reason)?.as_string_view().clone())
}

/// The columns that go along: all but the image, `sample_id` (made while reading), and what is made of the image anew.
fn narrow_columns(schema: &ArrowSchema) -> Result<Vec<usize>> {
    let known = Schema::named("image_text")?;
    let is_made = |name: &str| {
        name == SAMPLE_ID || (known.columns.iter().any(|column| column.name == name) && !GIVEN.contains(&name))
    };
    let names = schema.fields().iter().enumerate();
    Ok(names.filter(|(_, field)| !is_made(field.name())).map(|(at, _)| at).collect())
}

/// A file holds a column once.
///
/// # Errors
/// Columns of one name.
pub(super) fn check_columns(schema: &ArrowSchema) -> Result<()> {
    let mut names = BTreeSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        None => Ok(()),
        Some(twice) => {
            let reason = format!("returns two columns {:?}; rename one with AS", twice.name());
            Err(Error::at(Stage::CommandLine, PLACE, reason))
        }
    }
}

/// A temporary file on the disk of `folder` that is gone when it is closed, whatever ends the process.
fn nameless(folder: &Path) -> Result<File> {
    let path = folder.join(format!(".diptych-spool-{}", std::process::id()));
    let place = path.display().to_string();
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = file.context(Stage::Import, &place, CANNOT_SPOOL)?;
    std::fs::remove_file(&path).context(Stage::Import, &place, CANNOT_SPOOL)?;
    Ok(file)
}
