//! `series_seconds(series, rate_hz)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, Float64Array},
        datatypes::{DataType, Float64Type},
    },
    common::{Result, exec_err},
    logical_expr::ScalarUDF,
};

use super::{
    function::{Function, Group, Takes, documented},
    series_argument::steps,
};

/// Duration at a rate.
pub fn series_seconds() -> ScalarUDF {
    let documentation = documented(
        Group::Series,
        "series_seconds(series, rate_hz)",
        "How long a series is: its steps divided by the rate.",
        &[("series", "A list of numbers."), ("rate_hz", "Steps per second, above 0.")],
        "> SELECT series_seconds([0.5, -0.5, 0.25], 2) AS seconds;
+---------+
| seconds |
+---------+
| 1.5     |
+---------+",
    );
    let takes = &[Takes::Series, Takes::Float64];
    Function::new("series_seconds", takes, DataType::Float64, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let rates = args[1].as_primitive::<Float64Type>();
    if let Some(rate) = rates.iter().flatten().find(|rate| rate.is_nan() || *rate <= 0.0) {
        return exec_err!("series_seconds: a rate of {rate} Hz; give a number above 0");
    }
    let seconds = steps(&args[0])?.into_iter().zip(rates).map(|(steps, rate)| Some(steps? as f64 / rate?));
    Ok(Arc::new(seconds.collect::<Float64Array>()))
}
