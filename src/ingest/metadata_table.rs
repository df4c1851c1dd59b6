//! One table of names and words, `.csv`, `.tsv`, `.jsonl` or `.parquet`, as one batch or piece by piece: texts as Utf8,
//! numbers as they are.
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::{csv, json};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Cause, Context, Error, Result, Stage};

/// Read as text, whatever they look like: class 007 is not class 7.
pub(super) const TEXT_COLUMNS: [&str; 5] = ["file_name", "caption", "text", "label", "split"];
const BATCH_ROWS: usize = 8192;
const CANNOT_READ: &str = "cannot be read as a table; see the cause";
const UTF8_BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// A table and the columns of it that no shard can carry.
#[derive(Debug)]
pub(super) struct MetadataTable {
    pub(super) batch: RecordBatch,
    pub(super) ignored: Vec<String>,
}

impl MetadataTable {
    /// Gives the column `from` the name `to`; a column that has it already is left out.
    pub(super) fn rename(&mut self, from: &str, to: &str, place: &str) -> Result<()> {
        if from == to || self.batch.column_by_name(from).is_none() {
            return Ok(());
        }
        let (mut fields, mut columns) = (vec![], vec![]);
        for (field, column) in self.batch.schema().fields().iter().zip(self.batch.columns()) {
            match field.name() {
                name if name == to => self.ignored.push(format!("{to}: {from} is imported in its place")),
                name => {
                    let name = if name == from { to } else { name };
                    fields.push(Field::new(name, field.data_type().clone(), true));
                    columns.push(column.clone());
                }
            }
        }
        self.batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).context(
            Stage::Internal,
            place,
            "renamed columns do not fit",
        )?;
        Ok(())
    }
}

/// Reads the table at `path`, whose extension says what it is; `text_columns` are text, whatever they look like.
///
/// # Errors
/// It cannot be read, is damaged, names a column twice, or has lists where names or captions belong.
pub(super) fn read(path: &Path, text_columns: &[&str]) -> Result<MetadataTable> {
    let mut pieces = Pieces::open(path, text_columns, BATCH_ROWS)?;
    let mut batches = Vec::new();
    while let Some(batch) = pieces.next_batch()? {
        batches.push(batch);
    }
    let batch = concat_batches(&pieces.schema, &batches).context(
        Stage::Import,
        &pieces.place,
        "cannot be put together; split it into several tables",
    )?;
    normalise(&batch, text_columns, &pieces.place)
}

type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>>>;
type Opened = std::result::Result<(SchemaRef, Batches), Cause>;

/// A table that is read piece by piece, so that it may be larger than memory.
pub(super) struct Pieces<'a> {
    pub(super) schema: SchemaRef,
    batches: Batches,
    text_columns: &'a [&'a str],
    place: String,
}

impl<'a> Pieces<'a> {
    /// Pieces of `rows` rows of the table at `path`, whose extension says what it is.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or names a column twice.
    pub(super) fn open(path: &Path, text_columns: &'a [&'a str], rows: usize) -> Result<Self> {
        let place = path.display().to_string();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let opened = guarded(|| match extension.as_str() {
            "csv" | "tsv" => csv_batches(path, text_columns, rows),
            "jsonl" | "ndjson" => json_batches(path, text_columns, rows),
            _ => parquet_batches(path, rows),
        });
        let (schema, batches) = opened.context(Stage::Import, &place, CANNOT_READ)?;
        let mut names = std::collections::BTreeSet::new();
        if let Some(twice) = schema.fields().iter().find(|field| !names.insert(field.name().as_str())) {
            let reason = format!("has the column {:?} twice; rename one", twice.name());
            return Err(Error::at(Stage::Import, place, reason));
        }
        Ok(Self { schema, batches, text_columns, place })
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let batches = &mut self.batches;
        let next = guarded(|| batches.next().transpose().map_err(Into::into));
        next.context(Stage::Import, &self.place, CANNOT_READ)
    }

    /// The next rows; `None` behind the last.
    ///
    /// # Errors
    /// The table is damaged from here on, or has lists where text belongs.
    pub(super) fn next_piece(&mut self) -> Result<Option<MetadataTable>> {
        let Some(batch) = self.next_batch()? else { return Ok(None) };
        normalise(&batch, self.text_columns, &self.place).map(Some)
    }
}

/// Malformed Parquet can panic inside the reader; here it is one more way of being damaged.
fn guarded<T>(read: impl FnOnce() -> std::result::Result<T, Cause>) -> std::result::Result<T, Cause> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("the file is damaged".into()))
}

fn csv_batches(path: &Path, text_columns: &[&str], rows: usize) -> Opened {
    let format = csv::reader::Format::default().with_header(true).with_delimiter(delimiter(path)?);
    let (inferred, _) = format.infer_schema(open_text(path)?, None)?;
    let is_kept = |data_type: &DataType| matches!(data_type, DataType::Int64 | DataType::Float64 | DataType::Boolean);
    let schema = as_text(&inferred, text_columns, is_kept);
    let reader = csv::ReaderBuilder::new(schema.clone()).with_format(format).with_batch_size(rows);
    Ok((schema, Box::new(reader.build(open_text(path)?)?)))
}

/// A tab where the first line has tabs and no commas, whatever the file is called: captions hold commas.
fn delimiter(path: &Path) -> std::io::Result<u8> {
    let mut header = Vec::new();
    open_text(path)?.take(1 << 16).read_until(b'\n', &mut header)?;
    Ok(if header.contains(&b'\t') && !header.contains(&b',') { b'\t' } else { b',' })
}

fn json_batches(path: &Path, text_columns: &[&str], rows: usize) -> Opened {
    let inferred = json::reader::infer_json_schema(open_text(path)?, None);
    let (inferred, _) = match inferred {
        Ok(inferred) => inferred,
        // The reader counts lines within the one that it parses.
        Err(error) => return Err(faulty_line(path)?.map_or_else(|| error.into(), Into::into)),
    };
    let schema = as_text(&inferred, text_columns, |data_type| *data_type != DataType::Null);
    let reader = json::ReaderBuilder::new(schema.clone()).with_batch_size(rows).with_coerce_primitive(true);
    Ok((schema, Box::new(reader.build(open_text(path)?)?)))
}

/// The first line that is no JSON, and what is wrong with it.
fn faulty_line(path: &Path) -> std::io::Result<Option<String>> {
    for (number, line) in (1_u64..).zip(open_text(path)?.lines()) {
        let line = line?;
        if !line.trim().is_empty()
            && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&line)
        {
            let said = error.to_string();
            let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
            return Ok(Some(format!("line {number}, column {}: {said}", error.column())));
        }
    }
    Ok(None)
}

fn parquet_batches(path: &Path, rows: usize) -> Opened {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let schema = builder.schema().clone();
    Ok((schema, Box::new(builder.with_batch_size(rows).build()?)))
}

/// Without the byte order mark that spreadsheets put first, which would become a part of the first column's name.
fn open_text(path: &Path) -> std::io::Result<BufReader<File>> {
    let mut file = File::open(path)?;
    let mut first = Vec::new();
    file.by_ref().take(3).read_to_end(&mut first)?;
    if first != UTF8_BOM {
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(BufReader::new(file))
}

/// Text for the columns that are always text, and for those whose inferred type is not to be kept.
fn as_text(inferred: &Schema, text_columns: &[&str], keep: impl Fn(&DataType) -> bool) -> SchemaRef {
    let fields = inferred.fields().iter().map(|field| {
        let keep = keep(field.data_type()) && !is_plain_text_column(field, text_columns);
        Field::new(field.name(), if keep { field.data_type().clone() } else { DataType::Utf8 }, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A list stays a list even where text belongs, so that the error can say so.
fn is_plain_text_column(field: &Field, text_columns: &[&str]) -> bool {
    text_columns.contains(&field.name().as_str()) && !field.data_type().is_nested()
}

fn normalise(batch: &RecordBatch, text_columns: &[&str], place: &str) -> Result<MetadataTable> {
    let (mut fields, mut columns, mut ignored) = (vec![], vec![], vec![]);
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name();
        let is_text = text_columns.contains(&name.as_str());
        match target(column.data_type(), is_text) {
            Some(wanted) => {
                let column: ArrayRef = cast(column, &wanted).context(
                    Stage::Import,
                    place,
                    format!("column {name:?} cannot be {wanted}"),
                )?;
                fields.push(Field::new(name, wanted, true));
                columns.push(column);
            }
            None if is_text => {
                let reason = format!("column {name:?} is {}; it must be text", column.data_type());
                return Err(Error::at(Stage::Import, place, reason));
            }
            None => ignored.push(format!("{name}: {} has no place in a shard", column.data_type())),
        }
    }
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).context(
        Stage::Internal,
        place,
        "normalised columns do not fit",
    )?;
    Ok(MetadataTable { batch, ignored })
}

/// The type a column is carried in; `None` where it is not.
pub(super) fn target(data_type: &DataType, is_text: bool) -> Option<DataType> {
    use DataType::{
        Boolean, Date32, Dictionary, Float16, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Null, Timestamp,
        UInt8, UInt16, UInt32, UInt64, Utf8, Utf8View,
    };
    match data_type {
        Utf8 | LargeUtf8 | Utf8View | Null => Some(Utf8),
        Dictionary(_, values) => target(values, is_text),
        Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64 | Date32 => {
            Some(if is_text { Utf8 } else { data_type.clone() })
        }
        Float16 => Some(if is_text { Utf8 } else { Float32 }),
        Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond, _) if !is_text => Some(data_type.clone()),
        _ => None,
    }
}

/// The text of a row, unless it is null.
pub(super) fn value(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{Float64Type, Int64Type};

    use super::*;

    fn table(name: &str, content: &[u8]) -> Result<MetadataTable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        read(&path, &TEXT_COLUMNS)
    }

    fn texts(table: &MetadataTable, column: &str) -> Vec<Option<String>> {
        let column = table.batch.column_by_name(column).unwrap().as_string::<i32>();
        column.iter().map(|text| text.map(str::to_owned)).collect()
    }

    #[test]
    fn csv_keeps_text_columns_as_text_and_types_the_rest() {
        let content =
            b"\xef\xbb\xbffile_name,label,caption,stars,weight\na.png,007,\"two, three\nlines\",3,.5\nb.png,,,4,1\n";
        let table = table("metadata.csv", content).unwrap();
        assert_eq!(texts(&table, "file_name"), [Some("a.png".into()), Some("b.png".into())]);
        assert_eq!(texts(&table, "label"), [Some("007".into()), None]);
        assert_eq!(texts(&table, "caption"), [Some("two, three\nlines".into()), None]);
        let stars = table.batch.column_by_name("stars").unwrap();
        assert_eq!(stars.as_primitive::<Int64Type>().values(), &[3, 4]);
        let weight = table.batch.column_by_name("weight").unwrap();
        assert_eq!(weight.as_primitive::<Float64Type>().values(), &[0.5, 1.0]);
    }

    #[test]
    fn tabs_separate_where_the_header_has_no_comma() {
        for name in ["metadata.tsv", "metadata.csv"] {
            let table = table(name, b"file_name\tcaption\na.png\tone, two\n").unwrap();
            assert_eq!(texts(&table, "caption"), [Some("one, two".into())]);
        }
    }

    #[test]
    fn a_renamed_column_takes_the_place_of_the_one_that_has_its_name() {
        let mut table = table("metadata.csv", b"file_name,caption,alt\na.png,one,two\n").unwrap();
        table.rename("alt", "caption", "t").unwrap();
        assert_eq!(texts(&table, "caption"), [Some("two".into())]);
        assert_eq!(table.ignored, ["caption: alt is imported in its place"]);
    }

    #[test]
    fn json_lines_may_number_their_labels_and_nest_what_nobody_carries() {
        let content =
            b"{\"file_name\": \"a.png\", \"label\": 7, \"objects\": {\"box\": [1, 2]}}\n{\"file_name\": \"b.png\"}\n";
        let table = table("metadata.jsonl", content).unwrap();
        assert_eq!(texts(&table, "label"), [Some("7".into()), None]);
        assert!(table.batch.column_by_name("objects").is_none());
        assert_eq!(table.ignored.len(), 1);
        assert!(table.ignored[0].starts_with("objects: "), "{:?}", table.ignored);
    }

    #[test]
    fn captions_that_are_lists_are_an_error_and_not_left_out() {
        let error = table("metadata.jsonl", b"{\"file_name\": \"a.png\", \"caption\": [\"x\", \"y\"]}\n").unwrap_err();
        assert!(error.to_string().contains("column \"caption\" is"), "{error}");
    }

    #[test]
    fn a_fault_in_json_lines_is_told_with_its_line() {
        let error = table("metadata.jsonl", b"{\"file_name\": \"a.png\"}\n{x\n").unwrap_err();
        assert!(error.report().contains("line 2, column 2"), "{}", error.report());
    }

    #[test]
    fn damaged_tables_are_named() {
        let cases: [(&str, &[u8]); 4] = [
            ("metadata.csv", b"file_name,label\na.png,1,2\n"),
            ("metadata.jsonl", b"{\"file_name\": \"a.png\"\n"),
            ("metadata.parquet", b"PAR1 no more PAR1"),
            ("metadata.csv", b"file_name,a,a\nx,1,2\n"),
        ];
        for (name, content) in cases {
            let error = table(name, content).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
