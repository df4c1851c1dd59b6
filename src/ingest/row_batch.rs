//! Rows as a record batch, each schema in its own columns.
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryViewBuilder, Float64Array, ListArray, PrimitiveArray, RecordBatch, StringArray, StringViewBuilder,
    TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use datafusion::arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Float32Type, Int16Type, SchemaRef};

use super::references;
use super::rows::{Facts, Row, SeriesFacts};
use super::source::Source;
use crate::error::{Context, Error, Result, Stage};
use crate::pair::Numbers;
use crate::schema::{LIST_ELEMENT, series_of};

/// The type of the blobs of a file whose first row is that of `facts`.
pub(super) fn series_type(numbers: Numbers) -> DataType {
    series_of(match numbers {
        Numbers::I16 => DataType::Int16,
        Numbers::F32 => DataType::Float32,
    })
}

/// The rows as one batch of `schema`.
pub(super) fn row_batch(
    source: &dyn Source,
    schema: SchemaRef,
    rows: Vec<Row>,
    reference: bool,
) -> Result<RecordBatch> {
    let sample_numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    let further = source.further_columns(&sample_numbers)?;
    let own = match rows.first().map(|row| &row.facts) {
        Some(Facts::Series(SeriesFacts { numbers, .. })) => {
            let numbers = *numbers;
            series(numbers, &rows)?
        }
        Some(Facts::Text { .. }) => documents(&rows)?,
        _ if reference => {
            let places = references::columns(source, &rows)?;
            narrow_of_images(&rows).into_iter().chain(places).collect()
        }
        _ => images(rows)?,
    };
    let columns = own.into_iter().chain(further).collect();
    RecordBatch::try_new(schema, columns).context(Stage::Internal, "row group", "does not fit the schema")
}

fn text(rows: &[Row], of: impl Fn(&Row) -> Option<&str>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<StringArray>())
}

/// In the order of `image_text`.
fn narrow_of_images(rows: &[Row]) -> Vec<ArrayRef> {
    let size = |row: &Row| match row.facts {
        Facts::Image { width, height, format } => (width, height, format),
        Facts::Series(_) | Facts::Text { .. } => (0, 0, ""),
    };
    vec![
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| size(row).0))),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| size(row).1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| size(row).2))),
        text(rows, |row| row.caption.as_deref()),
        text(rows, |row| row.label.as_deref()),
        text(rows, |row| row.split.as_deref()),
        text(rows, |row| Some(&row.source)),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.blob.len() as u64))),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.xxh3))),
    ]
}

/// The images, then what is narrow.
fn images(rows: Vec<Row>) -> Result<Vec<ArrayRef>> {
    let narrow = narrow_of_images(&rows);
    let mut images = BinaryViewBuilder::with_capacity(rows.len());
    for row in rows {
        let length = row.blob.len() as u32;
        // Each image is a buffer of its own: nothing is copied until Parquet makes pages of it.
        let block = images.append_block(Buffer::from_vec(row.blob));
        images.try_append_view(block, 0, length).context(Stage::Internal, "image", "does not fit a view")?;
    }
    let image: ArrayRef = Arc::new(images.finish());
    Ok(std::iter::once(image).chain(narrow).collect())
}

/// In the order of `time_series`.
fn series(numbers: Numbers, rows: &[Row]) -> Result<Vec<ArrayRef>> {
    let facts: Vec<&SeriesFacts> = rows
        .iter()
        .map(|row| match &row.facts {
            Facts::Series(facts) if facts.numbers == numbers => Ok(facts),
            _ => Err(Error::internal("rows of two kinds in one row group")),
        })
        .collect::<Result<_>>()?;
    let start_times: TimestampMicrosecondArray = facts.iter().map(|facts| facts.start_time).collect();
    let samples = match numbers {
        Numbers::I16 => lists::<Int16Type, 2>(rows, |bytes| i16::from_le_bytes(*bytes))?,
        Numbers::F32 => lists::<Float32Type, 4>(rows, |bytes| f32::from_le_bytes(*bytes))?,
    };
    Ok(vec![
        samples,
        Arc::new(UInt32Array::from_iter_values(facts.iter().map(|facts| facts.channels))),
        Arc::new(UInt64Array::from_iter_values(facts.iter().map(|facts| facts.steps))),
        Arc::new(facts.iter().map(|facts| facts.rate_hz).collect::<Float64Array>()),
        Arc::new(facts.iter().map(|facts| facts.group.as_deref()).collect::<StringArray>()),
        text(rows, |row| row.label.as_deref()),
        text(rows, |row| row.split.as_deref()),
        Arc::new(start_times.with_timezone("UTC")),
        Arc::new(UInt64Array::from_iter_values(facts.iter().map(|facts| facts.start_step))),
        text(rows, |row| Some(&row.source)),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.blob.len() as u64))),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.xxh3))),
    ])
}

/// In the order of `documents`.
fn documents(rows: &[Row]) -> Result<Vec<ArrayRef>> {
    let mut texts = StringViewBuilder::with_capacity(rows.len());
    for row in rows {
        let text = std::str::from_utf8(&row.blob).context(Stage::Internal, "text", "was UTF-8 before")?;
        texts.try_append_value(text).context(Stage::Internal, "text", "does not fit a view")?;
    }
    let facts: Vec<(u32, Option<&str>)> = rows
        .iter()
        .map(|row| match &row.facts {
            Facts::Text { sentences, group } => Ok((*sentences, group.as_deref())),
            _ => Err(Error::internal("rows of two kinds in one row group")),
        })
        .collect::<Result<_>>()?;
    Ok(vec![
        Arc::new(texts.finish()),
        Arc::new(UInt32Array::from_iter_values(facts.iter().map(|(sentences, _)| *sentences))),
        Arc::new(facts.iter().map(|(_, group)| *group).collect::<StringArray>()),
        text(rows, |row| row.label.as_deref()),
        text(rows, |row| row.split.as_deref()),
        text(rows, |row| Some(&row.source)),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.blob.len() as u64))),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.xxh3))),
    ])
}

fn lists<T: ArrowPrimitiveType, const BYTES: usize>(
    rows: &[Row],
    number: impl Fn(&[u8; BYTES]) -> T::Native,
) -> Result<ArrayRef> {
    let offsets = OffsetBuffer::<i32>::from_lengths(rows.iter().map(|row| row.blob.len() / BYTES));
    let values: ScalarBuffer<T::Native> = rows.iter().flat_map(|row| row.blob.as_chunks().0).map(number).collect();
    let values = PrimitiveArray::<T>::new(values, None);
    let field = Arc::new(Field::new(LIST_ELEMENT, T::DATA_TYPE, false));
    let lists = ListArray::try_new(field, offsets, Arc::new(values), None);
    Ok(Arc::new(lists.context(Stage::Internal, "samples", "do not fit a list")?))
}
