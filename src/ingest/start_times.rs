//! Moments in time as microseconds since 1970, UTC.
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};

use crate::error::{Context, Result, Stage};

/// The type in shards.
pub(super) fn data_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A date as RFC 3339 and spreadsheets write it; UTC where it names no zone.
pub(super) fn microseconds(text: &str) -> Option<i64> {
    string_to_timestamp_nanos(text).ok().map(|nanoseconds| nanoseconds / 1_000)
}

/// A column of moments, whatever holds them.
///
/// # Errors
/// Its type holds none.
pub(super) fn of_column(column: &ArrayRef) -> Result<Vec<Option<i64>>> {
    let cannot = "column \"start_time\" holds no moments in time";
    if column.data_type() == &DataType::Utf8 {
        let texts: &StringArray = column.as_string();
        return Ok(texts.iter().map(|text| text.and_then(microseconds)).collect());
    }
    let moments = cast(column, &data_type()).context(Stage::Import, "metadata", cannot)?;
    Ok(moments.as_primitive::<TimestampMicrosecondType>().iter().collect())
}
