//! `series_finite(series)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, BooleanArray},
        datatypes::DataType,
    },
    logical_expr::ScalarUDF,
};

use super::{
    function::{Body, Function, Group, Takes, documented},
    series_argument::of_series,
};

/// Whether a series can be trained on.
pub fn series_finite() -> ScalarUDF {
    let documentation = documented(
        Group::Series,
        "series_finite(series)",
        "Whether every value is there and finite: false with any NULL, NaN or infinity among them.",
        &[("series", "A list of numbers.")],
        "> SELECT series_finite([0.5, -0.5]) AS whole, series_finite([0.5, NULL]) AS gap;
+-------+-------+
| whole | gap   |
+-------+-------+
| true  | false |
+-------+-------+",
    );
    let body: Body = |args| {
        let finite = of_series(&args[0], |values| {
            Some(values.null_count() == 0 && values.values().iter().all(|value| value.is_finite()))
        })?;
        Ok(Arc::new(BooleanArray::from(finite)) as _)
    };
    Function::new("series_finite", &[Takes::Series], DataType::Boolean, body, documentation).into_udf()
}
