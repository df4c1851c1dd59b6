//! `series_slice(series, channels, start, steps)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, UInt64Array},
        buffer::{NullBuffer, OffsetBuffer},
        compute::take,
        datatypes::{DataType, UInt64Type},
    },
    common::{Result, exec_err},
    logical_expr::ScalarUDF,
};

use super::{
    function::{Function, Group, Takes, documented},
    series_argument::whole_steps,
};

/// A stretch of a series.
pub fn series_slice() -> ScalarUDF {
    let documentation = documented(
        Group::Series,
        "series_slice(series, channels, start, steps)",
        "A stretch of a series, of the same type: that alone is copied. NULL where it would cross the end, and where the values \
         fill no whole step.",
        &[
            ("series", "A list of numbers, the channels of each step side by side."),
            ("channels", "Numbers per step, above 0."),
            ("start", "Its first step, from 0: such as `start` of series_windows."),
            ("steps", "Its steps."),
        ],
        "> SELECT series_slice([0.1, 1.0, 0.2, 2.0, 0.3, 3.0, 0.4, 4.0], 2, 1, 2) AS stretch;
+----------------------+
| stretch              |
+----------------------+
| [0.2, 2.0, 0.3, 3.0] |
+----------------------+",
    );
    let takes = &[Takes::Series, Takes::UInt64, Takes::UInt64, Takes::UInt64];
    Function::new("series_slice", takes, DataType::Null, body, documentation).giving_its_first().into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let steps = whole_steps("series_slice", &args[0], &args[1])?;
    match args[0].data_type() {
        DataType::List(_) => slices(args[0].as_list::<i32>(), &steps, args),
        DataType::LargeList(_) => slices(args[0].as_list::<i64>(), &steps, args),
        other => exec_err!("a series is a list of numbers, not {other}"),
    }
}

fn slices<O: OffsetSizeTrait>(
    series: &GenericListArray<O>,
    steps: &[Option<u64>],
    args: &[ArrayRef],
) -> Result<ArrayRef> {
    let [channels, starts, wanted] = [1, 2, 3].map(|at| args[at].as_primitive::<UInt64Type>());
    let (mut places, mut lengths, mut valid) =
        (Vec::new(), Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
    for (row, steps) in steps.iter().enumerate() {
        let (start, length) = (starts.value(row), wanted.value(row));
        let is_inside = starts.is_valid(row)
            && wanted.is_valid(row)
            && steps.is_some_and(|steps| start.checked_add(length).is_some_and(|end| end <= steps));
        // What is inside is no longer than the series.
        let (first, count) = match is_inside {
            true => {
                let channels = channels.value(row);
                (series.value_offsets()[row].as_usize() as u64 + start * channels, length * channels)
            }
            false => (0, 0),
        };
        places.extend(first..first + count);
        lengths.push(count as usize);
        valid.push(is_inside);
    }
    let values = take(series.values(), &UInt64Array::from(places), None)?;
    let (DataType::List(item) | DataType::LargeList(item)) = series.data_type() else {
        return exec_err!("a series is a list of numbers, not {}", series.data_type());
    };
    let offsets = OffsetBuffer::<O>::from_lengths(lengths);
    let valid = Some(NullBuffer::from(valid));
    Ok(Arc::new(GenericListArray::<O>::try_new(Arc::clone(item), offsets, values, valid)?))
}
