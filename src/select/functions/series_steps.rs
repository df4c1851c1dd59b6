//! `series_steps(series)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::UInt64Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    function::{Body, Function, Group, Takes, documented},
    series_argument::steps,
};

/// Number of values.
pub fn series_steps() -> ScalarUDF {
    let documentation = documented(
        Group::Series,
        "series_steps(series)",
        "Number of values of a series.",
        &[("series", "A list of numbers.")],
        "> SELECT series_steps([0.5, -0.5, 0.25]) AS steps;
+-------+
| steps |
+-------+
| 3     |
+-------+",
    );
    let body: Body = |args| Ok(Arc::new(UInt64Array::from(steps(&args[0])?)) as _);
    Function::new("series_steps", &[Takes::Series], DataType::UInt64, body, documentation).into_udf()
}
