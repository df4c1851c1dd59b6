//! `series_windows(series, channels, window_steps, hop_steps)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray, ListArray, StructArray, UInt64Array},
        buffer::{NullBuffer, OffsetBuffer},
        datatypes::{DataType, Field, Fields, UInt64Type},
    },
    common::{Result, exec_err},
    logical_expr::ScalarUDF,
};

use super::{
    function::{Function, Group, Takes, documented},
    series_argument::whole_steps,
};

/// Most windows of all rows of a batch together: 1 GB of offsets.
const MOST_WINDOWS: u64 = 1 << 26;

/// Where windows begin.
pub fn series_windows() -> ScalarUDF {
    let documentation = documented(
        Group::Series,
        "series_windows(series, channels, window_steps, hop_steps)",
        "Where windows of a series begin and how long they are, in steps: at 0, hop_steps, 2 hop_steps, … as long as they end \
         within it. Offsets alone; series_slice takes them, after unnest, which repeats the columns beside it for every window: \
         a series of minutes takes gigabytes there, so cut such ones into rows first. An empty list where the series is \
         shorter than a window; NULL where its values fill no whole step.",
        &[
            ("series", "A list of numbers, the channels of each step side by side."),
            ("channels", "Numbers per step, above 0."),
            ("window_steps", "Steps of a window, above 0."),
            ("hop_steps", "Steps from one window to the next, above 0."),
        ],
        "> SELECT series_windows([0.1, 1.0, 0.2, 2.0, 0.3, 3.0, 0.4, 4.0, 0.5, 5.0], 2, 3, 2) AS windows;
+------------------------------------------------+
| windows                                        |
+------------------------------------------------+
| [{start: 0, length: 3}, {start: 2, length: 3}] |
+------------------------------------------------+",
    );
    let takes = &[Takes::Series, Takes::UInt64, Takes::UInt64, Takes::UInt64];
    let windows = DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields()), true)));
    Function::new("series_windows", takes, windows, body, documentation).into_udf()
}

fn fields() -> Fields {
    let step = |name: &str| Field::new(name, DataType::UInt64, false);
    Fields::from(vec![step("start"), step("length")])
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let steps = whole_steps("series_windows", &args[0], &args[1])?;
    let (windows, hops) = (args[2].as_primitive::<UInt64Type>(), args[3].as_primitive::<UInt64Type>());
    let (mut starts, mut lengths, mut counts) = (Vec::new(), Vec::new(), Vec::with_capacity(steps.len()));
    let mut valid = Vec::with_capacity(steps.len());
    for (row, steps) in steps.into_iter().enumerate() {
        let (window, hop) = (windows.value(row), hops.value(row));
        let is_known = windows.is_valid(row) && hops.is_valid(row);
        if is_known && (window == 0 || hop == 0) {
            return exec_err!("series_windows: windows of {window} steps, {hop} steps apart; give numbers above 0");
        }
        let steps = steps.filter(|_| is_known);
        let count = match steps {
            Some(steps) if steps >= window => (steps - window) / hop + 1,
            _ => 0,
        };
        if starts.len() as u64 + count > MOST_WINDOWS {
            return exec_err!("series_windows: more than {MOST_WINDOWS} windows at once; take a greater hop");
        }
        starts.extend((0..count).map(|number| number * hop));
        lengths.extend(std::iter::repeat_n(window, count as usize));
        counts.push(count as usize);
        valid.push(steps.is_some());
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from(starts)), Arc::new(UInt64Array::from(lengths))];
    let found = StructArray::try_new(fields(), columns, None)?;
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields()), true));
    let offsets = OffsetBuffer::from_lengths(counts);
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(found), Some(NullBuffer::from(valid)))?))
}
