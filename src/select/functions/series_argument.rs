//! Series as an argument: lists of numbers, read a row at a time.
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Array},
        compute::cast,
        datatypes::{DataType, Float64Type, UInt64Type},
    },
    common::{Result, exec_err},
};

/// What `value` makes of the values of each row as f64; `None` for NULL.
pub(super) fn of_series<T>(series: &ArrayRef, value: impl Fn(&Float64Array) -> Option<T>) -> Result<Vec<Option<T>>> {
    let of_row = |values: ArrayRef| Ok(value(cast(&values, &DataType::Float64)?.as_primitive::<Float64Type>()));
    each_row(series, of_row)
}

/// Number of values of each row; `None` for NULL.
pub(super) fn steps(series: &ArrayRef) -> Result<Vec<Option<u64>>> {
    each_row(series, |values| Ok(Some(values.len() as u64)))
}

/// Steps of `channels` numbers of each row; `None` for NULL and where the values fill no whole step.
pub(super) fn whole_steps(function: &str, series: &ArrayRef, channels: &ArrayRef) -> Result<Vec<Option<u64>>> {
    let channels = channels.as_primitive::<UInt64Type>();
    let of_row =
        |(row, values): (usize, Option<u64>)| match (values, channels.is_valid(row).then(|| channels.value(row))) {
            (_, Some(0)) => exec_err!("{function}: 0 channels; give a number above 0"),
            (Some(values), Some(channels)) if values.is_multiple_of(channels) => Ok(Some(values / channels)),
            _ => Ok(None),
        };
    steps(series)?.into_iter().enumerate().map(of_row).collect()
}

/// One row at a time: nothing as long as the column is copied.
fn each_row<T>(series: &ArrayRef, value: impl Fn(ArrayRef) -> Result<Option<T>>) -> Result<Vec<Option<T>>> {
    let value_at = |row: usize| -> Result<Option<T>> {
        if series.is_null(row) {
            return Ok(None);
        }
        match series.data_type() {
            DataType::List(_) => value(series.as_list::<i32>().value(row)),
            DataType::LargeList(_) => value(series.as_list::<i64>().value(row)),
            other => exec_err!("a series is a list of numbers, not {other}"),
        }
    };
    (0..series.len()).map(value_at).collect()
}
