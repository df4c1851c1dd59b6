//! `series_rms(series)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, Float64Array},
        datatypes::DataType,
    },
    logical_expr::ScalarUDF,
};

use super::{
    function::{Body, Function, Group, Takes, documented},
    series_argument::of_series,
};

/// Root of the mean square.
pub fn series_rms() -> ScalarUDF {
    let documentation = documented(
        Group::Series,
        "series_rms(series)",
        "Loudness: the root of the mean square of the values, in their own unit (16-bit samples are not divided by \
         32768). Values that are NULL are left out; one that is not finite makes it NaN or infinite. NULL without \
         values.",
        &[("series", "A list of numbers.")],
        "> SELECT series_rms([3.0, -4.0, 5.0, 0.0]) AS rms;
+-------------------+
| rms               |
+-------------------+
| 3.535533905932738 |
+-------------------+",
    );
    let body: Body = |args| Ok(Arc::new(Float64Array::from(of_series(&args[0], rms)?)) as _);
    Function::new("series_rms", &[Takes::Series], DataType::Float64, body, documentation).into_udf()
}

fn rms(values: &Float64Array) -> Option<f64> {
    let count = values.len() - values.null_count();
    let squares: f64 = values.iter().flatten().map(|value| value * value).sum();
    (count > 0).then(|| (squares / count as f64).sqrt())
}
