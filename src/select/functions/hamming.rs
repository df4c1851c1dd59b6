//! `hamming(a, b)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, UInt32Array},
        compute::binary,
        datatypes::{DataType, UInt64Type},
    },
    common::Result,
    logical_expr::ScalarUDF,
};

use super::function::{Function, Group, Takes, documented};

/// Bits in which two numbers differ.
pub fn hamming() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "hamming(a, b)",
        "The number of bits in which two hashes differ, 0 to 64.",
        &[("a", "A hash: UInt64."), ("b", "Another.")],
        "> SELECT hamming(5, 6) AS different_bits;
+----------------+
| different_bits |
+----------------+
| 2              |
+----------------+",
    );
    let takes = &[Takes::UInt64, Takes::UInt64];
    Function::new("hamming", takes, DataType::UInt32, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (a, b) = (args[0].as_primitive::<UInt64Type>(), args[1].as_primitive::<UInt64Type>());
    let distances: UInt32Array = binary(a, b, |a, b| (a ^ b).count_ones())?;
    Ok(Arc::new(distances))
}
