//! Values that are too long or too deep to print, as short text.
use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StructArray},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::{
    error::{Context as _, Result, Stage},
    select::report::Bytes,
};

/// Lists with more values are cut short.
const VALUES_SHOWN: usize = 8;
/// Values of a list that was cut short.
const FIRST_VALUES: usize = 3;

/// Blobs as their sizes, long lists as their first values; everything else as it is.
///
/// # Errors
/// Values that cannot be printed.
pub(super) fn shortened(batch: &RecordBatch) -> Result<RecordBatch> {
    with_columns(batch, short).context(Stage::Select, "the result", "cannot be shortened; cast it to text")
}

/// Lists, structs and maps as text: CSV has no place for them.
pub(super) fn nested_as_text(batch: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    with_columns(batch, |column| match column.data_type().is_nested() {
        true => text(column, |formatter, row| Ok(formatter.value(row).try_to_string()?)),
        false => Ok(Arc::clone(column)),
    })
}

fn with_columns(
    batch: &RecordBatch,
    change: impl Fn(&ArrayRef) -> std::result::Result<ArrayRef, ArrowError>,
) -> std::result::Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(change).collect::<std::result::Result<Vec<_>, _>>()?;
    let schema = batch.schema();
    let field = |(field, column): (&Arc<Field>, &ArrayRef)| Field::new(field.name(), column.data_type().clone(), true);
    let fields: Vec<Field> = schema.fields().iter().zip(&columns).map(field).collect();
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn short(column: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    let sizes = |bytes: &dyn Fn(usize) -> usize| {
        let size = |row: usize| column.is_valid(row).then(|| format!("<{}>", Bytes(bytes(row) as u64)));
        Arc::new((0..column.len()).map(size).collect::<StringArray>()) as ArrayRef
    };
    match column.data_type() {
        DataType::Binary => Ok(sizes(&|row| column.as_binary::<i32>().value(row).len())),
        DataType::LargeBinary => Ok(sizes(&|row| column.as_binary::<i64>().value(row).len())),
        DataType::BinaryView => Ok(sizes(&|row| column.as_binary_view().value(row).len())),
        DataType::Struct(fields) => {
            let parts = column.as_struct();
            let columns = parts.columns().iter().map(short).collect::<std::result::Result<Vec<_>, _>>()?;
            let field = |(field, column): (&Arc<Field>, &ArrayRef)| {
                Arc::new(Field::new(field.name(), column.data_type().clone(), true))
            };
            let fields: Vec<_> = fields.iter().zip(&columns).map(field).collect();
            match fields.is_empty() {
                true => Ok(Arc::clone(column)),
                false => Ok(Arc::new(StructArray::try_new(fields.into(), columns, parts.nulls().cloned())?)),
            }
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => text(column, |formatter, row| {
            let values = match column.data_type() {
                DataType::List(_) => column.as_list::<i32>().value(row),
                DataType::LargeList(_) => column.as_list::<i64>().value(row),
                _ => column.as_fixed_size_list().value(row),
            };
            if values.len() <= VALUES_SHOWN && !values.data_type().is_nested() {
                return formatter.value(row).try_to_string();
            }
            let first = short(&values.slice(0, FIRST_VALUES.min(values.len())))?;
            let format = ArrayFormatter::try_new(&first, &FormatOptions::default())?;
            let shown: Vec<String> =
                (0..first.len()).map(|at| format.value(at).try_to_string()).collect::<std::result::Result<_, _>>()?;
            let rest =
                if values.len() > first.len() { format!(", … {} values", values.len()) } else { String::new() };
            Ok(format!("[{}{rest}]", shown.join(", ")))
        }),
        _ => Ok(Arc::clone(column)),
    }
}

fn text(
    column: &ArrayRef,
    value: impl Fn(&ArrayFormatter<'_>, usize) -> std::result::Result<String, ArrowError>,
) -> std::result::Result<ArrayRef, ArrowError> {
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::default())?;
    let row = |row: usize| column.is_valid(row).then(|| value(&formatter, row)).transpose();
    Ok(Arc::new((0..column.len()).map(row).collect::<std::result::Result<StringArray, _>>()?))
}

#[cfg(test)]
mod tests {
    use datafusion::{arrow::util::pretty::pretty_format_batches, prelude::SessionContext};

    use super::*;

    async fn printed(values: &str) -> String {
        let session = SessionContext::new();
        let batches = session.sql(&format!("SELECT {values} AS v")).await.unwrap().collect().await.unwrap();
        let short: Vec<RecordBatch> = batches.iter().map(|batch| shortened(batch).unwrap()).collect();
        let table = pretty_format_batches(&short).unwrap().to_string();
        table.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_owned()
    }

    #[tokio::test]
    async fn blobs_are_sizes_and_long_lists_are_cut() {
        assert_eq!(printed("X'0102'").await, "<2 bytes>");
        assert_eq!(printed("arrow_cast(X'0102', 'BinaryView')").await, "<2 bytes>");
        assert_eq!(printed("named_struct('bytes', X'010203', 'path', 'a')").await, "{bytes: <3 bytes>, path: a}");
        assert_eq!(printed("[1, 2, 3]").await, "[1, 2, 3]");
        assert_eq!(printed("range(0, 500)").await, "[0, 1, 2, … 500 values]");
        assert_eq!(printed("[X'01', X'0203']").await, "[01, 0203]");
        assert_eq!(printed("'text'").await, "text");
        assert_eq!(printed("CAST(NULL AS BYTEA)").await, "");
    }
}
