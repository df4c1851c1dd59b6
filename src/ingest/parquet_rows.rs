//! Parquet files with a column of encoded images: Hugging Face's, img2dataset's, anybody's.
//!
//! Pages are compressed and hold many images, so every image is copied into the [`Spool`] as the files are read, once and
//! in order, and taken from there in the random order. Malformed files can panic inside the reader: each file is read
//! behind a boundary where that is an error which names the file.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, new_null_array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::columns::ColumnName;
use super::kind::Kind;
use super::parquet_layout::Layout;
use super::samples::{Found, Samples, Stored};
use super::split_name::split_of_file;
use super::spool::Spool;
use super::walk::Listed;
use super::{MAX_IMAGE_BYTES, Progress};
use crate::augment::BadClass;
use crate::error::{Context, Error, Result, Stage};

/// Rows in memory at once: images of a megabyte are 32 MB.
const BATCH_ROWS: usize = 32;
/// img2dataset's word for a row that has its image.
const SUCCESS: &str = "success";
/// `ClassLabel`'s number for "none".
const NO_CLASS: i64 = -1;
/// How often a long listing says how far it is.
const ROWS_PER_PROGRESS: u64 = 8192;

/// What pass 1 found in all files.
pub(super) struct ParquetRows {
    pub(super) samples: Samples,
    /// Rows that the source itself marks as failed, by what it says.
    pub(super) left_out: BTreeMap<String, u64>,
    pub(super) ignored_columns: Vec<String>,
}

/// Reads every file.
///
/// # Errors
/// A file is damaged or has no images, the spool cannot be written, `progress` says stop.
pub(super) fn open(
    root: &Path,
    files: &[Listed],
    columns: &[ColumnName],
    read_as: Option<Kind>,
    spool: Spool,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<ParquetRows> {
    let mut layouts = Vec::with_capacity(files.len());
    for file in files {
        let path = root.join(&file.path);
        let place = path.display().to_string();
        layouts.push(guarded(&place, || {
            let builder = builder(&path)?;
            let pairs = builder.metadata().file_metadata().key_value_metadata();
            Layout::of(builder.schema(), pairs, columns, read_as, &place)
        })?);
    }
    let kind = layouts.first().map_or("parquet", |layout| layout.kind);
    let mut found =
        ParquetRows { samples: Samples::new(kind, spool), left_out: BTreeMap::new(), ignored_columns: vec![] };
    let ignored: BTreeSet<&String> = layouts.iter().flat_map(|layout| &layout.ignored).collect();
    found.ignored_columns = ignored.into_iter().cloned().collect();
    let further = agreed(&layouts);
    found.samples.carry(further.clone())?;
    for (file, layout) in files.iter().zip(&layouts) {
        let place = root.join(&file.path).display().to_string();
        guarded(&place, || found.file(root, file, layout, &further, progress))?;
    }
    found.samples.spool.seal()?;
    Ok(found)
}

fn guarded<T>(place: &str, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(Error::at(Stage::Import, place, "is damaged: the reader gave up on it; fetch or write it again"))
    })
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let place = path.display().to_string();
    let file = File::open(path).context(Stage::Import, &place, "cannot be read; check permissions and the disk")?;
    ParquetRecordBatchReaderBuilder::try_new(file).context(
        Stage::Import,
        place,
        "cannot be read as Parquet; fetch or write it again",
    )
}

/// The further columns of all files: text where the files disagree on a type.
fn agreed(layouts: &[Layout]) -> Vec<FieldRef> {
    let mut types: BTreeMap<&str, &DataType> = BTreeMap::new();
    for field in layouts.iter().flat_map(|layout| &layout.further) {
        let agreed = types.entry(field.name()).or_insert(field.data_type());
        if *agreed != field.data_type() {
            *agreed = &DataType::Utf8;
        }
    }
    types.into_iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true).into()).collect()
}

impl ParquetRows {
    fn file(
        &mut self,
        root: &Path,
        file: &Listed,
        layout: &Layout,
        further: &[FieldRef],
        progress: &mut dyn FnMut(&Progress) -> Result<()>,
    ) -> Result<()> {
        let path = root.join(&file.path);
        let place = path.display().to_string();
        let cannot_read = "cannot be read as Parquet; fetch or write it again";
        let builder = builder(&path)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), layout.projection(builder.schema()));
        let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        let split = split_of_file(&file.path).map(|split| self.samples.splits.number(&split));
        let (name, mut row, mut next_progress) = (file.path.to_string_lossy(), 0, ROWS_PER_PROGRESS);
        for batch in builder.build().context(Stage::Import, &place, cannot_read)? {
            let batch = batch.context(Stage::Import, &place, cannot_read)?;
            let columns = Columns::of(&batch, layout, further, &place)?;
            let carried = self.samples.keep_further(&columns.further)?;
            for (at, further) in carried.into_iter().enumerate() {
                let source = format!("{name}#{row}");
                row += 1;
                if let Err((class, reason)) = self.row(&source, &columns, at, further, split)? {
                    self.samples.reject(source, class, reason);
                }
            }
            if row >= next_progress {
                next_progress += ROWS_PER_PROGRESS;
                progress(&Progress::Listing { files: self.samples.seen() })?;
            }
        }
        Ok(())
    }

    /// The inner error is why the row cannot be used.
    fn row(
        &mut self,
        source: &str,
        columns: &Columns<'_>,
        at: usize,
        further: Option<super::spool::Span>,
        split: Option<u32>,
    ) -> Result<std::result::Result<(), (BadClass, String)>> {
        if let Some(status) = &columns.status
            && value(status, at) != Some(SUCCESS)
        {
            *self.left_out.entry(value(status, at).unwrap_or("null").to_owned()).or_default() += 1;
            return Ok(Ok(()));
        }
        let Some(image) = columns.image.value(at) else {
            return Ok(Err((BadClass::Missing, "its image is null, or has a path but no bytes".to_owned())));
        };
        if image.len() as u64 > MAX_IMAGE_BYTES {
            let reason = format!("{} bytes are more than the {MAX_IMAGE_BYTES} that an image may have", image.len());
            return Ok(Err((BadClass::TooManyPixels, reason)));
        }
        let label = match columns.label(at) {
            Ok(label) => label.map(|label| self.samples.labels.number(label)),
            Err(reason) => return Ok(Err((BadClass::Refused, reason))),
        };
        let own_split = columns.split.as_ref().and_then(|split| value(split, at));
        let split = own_split.map(|split| self.samples.splits.number(split)).or(split);
        let caption = columns.caption.as_ref().and_then(|caption| value(caption, at));
        let caption = caption.map(|caption| self.samples.spool.append(caption.as_bytes())).transpose()?;
        let image = Stored::Spool(self.samples.spool.append(image)?);
        self.samples.push(&Found { name: source, image, caption, label, split, further });
        Ok(Ok(()))
    }
}

/// The columns of a batch, as they are needed.
struct Columns<'a> {
    image: Images,
    caption: Option<StringArray>,
    label: Option<Labels<'a>>,
    split: Option<StringArray>,
    status: Option<StringArray>,
    further: RecordBatch,
}

enum Labels<'a> {
    Texts(StringArray),
    Classes(Int64Array, &'a [String]),
}

struct Images {
    /// `BinaryView`: made from the others without copying what is large.
    bytes: ArrayRef,
    /// Whether the whole struct is null.
    whole: Option<ArrayRef>,
}

impl Images {
    fn value(&self, at: usize) -> Option<&[u8]> {
        if self.bytes.is_null(at) || self.whole.as_ref().is_some_and(|whole| whole.is_null(at)) {
            return None;
        }
        Some(match self.bytes.data_type() {
            DataType::Binary => self.bytes.as_binary::<i32>().value(at),
            DataType::LargeBinary => self.bytes.as_binary::<i64>().value(at),
            _ => self.bytes.as_binary_view().value(at),
        })
    }
}

impl<'a> Columns<'a> {
    fn of(batch: &RecordBatch, layout: &'a Layout, further: &[FieldRef], place: &str) -> Result<Self> {
        let column = |name: &str| {
            let missing = || Error::internal(format!("{place}: column {name:?} was not read"));
            batch.column_by_name(name).cloned().ok_or_else(missing)
        };
        let cast_to = |column: &ArrayRef, name: &str, wanted: &DataType| {
            cast(column, wanted).context(
                Stage::Import,
                place,
                format!("column {name:?} is {}, which cannot be {wanted}", column.data_type()),
            )
        };
        let text = |name: &Option<String>| match name {
            None => Ok(None),
            Some(name) => {
                let column = column(name)?;
                if column.data_type().is_nested() {
                    let reason = format!("column {name:?} is {}; it must be text", column.data_type());
                    return Err(Error::at(Stage::Import, place, reason));
                }
                Ok(Some(cast_to(&column, name, &DataType::Utf8)?.as_string::<i32>().clone()))
            }
        };
        let image = column(&layout.image)?;
        let image = match image.as_struct_opt().and_then(|parts| parts.column_by_name("bytes").cloned()) {
            Some(bytes) => Images { bytes, whole: Some(image) },
            None => Images { bytes: image, whole: None },
        };
        let label = match (&layout.label, &layout.class_names) {
            (Some(name), Some(names)) if column(name)?.data_type().is_integer() => {
                let numbers = cast_to(&column(name)?, name, &DataType::Int64)?;
                Some(Labels::Classes(numbers.as_primitive().clone(), names))
            }
            (label, _) => text(label)?.map(Labels::Texts),
        };
        let mut carried = Vec::with_capacity(further.len());
        for field in further {
            carried.push(match batch.column_by_name(field.name()) {
                Some(column) => cast_to(column, field.name(), field.data_type())?,
                None => new_null_array(field.data_type(), batch.num_rows()),
            });
        }
        let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let further = RecordBatch::try_new_with_options(Schema::new(further.to_vec()).into(), carried, &options)
            .context(Stage::Internal, place, "further columns do not fit")?;
        Ok(Self {
            image,
            caption: text(&layout.caption)?,
            label,
            split: text(&layout.split)?,
            status: text(&layout.status)?,
            further,
        })
    }

    fn label(&self, at: usize) -> std::result::Result<Option<&str>, String> {
        match &self.label {
            None => Ok(None),
            Some(Labels::Texts(texts)) => Ok(value(texts, at)),
            Some(Labels::Classes(numbers, _)) if numbers.is_null(at) || numbers.value(at) == NO_CLASS => Ok(None),
            Some(Labels::Classes(numbers, names)) => {
                let number = numbers.value(at);
                let name = usize::try_from(number).ok().and_then(|number| names.get(number));
                name.map(|name| Some(name.as_str()))
                    .ok_or_else(|| format!("label {number}, and there are {} names", names.len()))
            }
        }
    }
}

fn value(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}
