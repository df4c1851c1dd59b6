//! `image_dhash(image)`.
use std::sync::Arc;

use datafusion::{
    arrow::{array::UInt64Array, datatypes::DataType},
    logical_expr::ScalarUDF,
};

use super::{
    encoded_images::{luma, of_images},
    function::{Body, Function, Group, IMAGE, Takes, documented},
};

/// One column more than bits per row: each pixel is compared with the one before it.
const COLUMNS: usize = 9;
const ROWS: usize = 8;

/// 64 bits that say where an image grows brighter to the right.
///
/// The image becomes 9 x 8 pixels of BT.601 luma (bilinear with antialiasing, aspect not kept). Row by row from the top, the
/// highest bit first, a bit is set where a pixel is brighter than its left neighbour.
pub fn image_dhash() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "image_dhash(image)",
        "A hash that similar images share, but for a few of its 64 bits: the image is reduced to 9 x 8 pixels of \
         BT.601 luma, and row by row, the highest bit first, a bit is set where a pixel is brighter than its left \
         neighbour. Compare with `hamming`. NULL for what cannot be decoded.",
        &[IMAGE],
        "> SELECT image_dhash($PNG) = 18446744073709551615 AS brighter_to_the_right;
+-----------------------+
| brighter_to_the_right |
+-----------------------+
| true                  |
+-----------------------+",
    );
    let body: Body = |args| Ok(Arc::new(UInt64Array::from(of_images(&args[0], |_, encoded| hash(encoded))?)) as _);
    Function::new("image_dhash", &[Takes::Image], DataType::UInt64, body, documentation).into_udf()
}

fn hash(encoded: &[u8]) -> Option<u64> {
    let small = luma(encoded, |_, _| (COLUMNS, ROWS))?;
    let brighter = small.samples.chunks_exact(COLUMNS).flat_map(|row| row.windows(2).map(|pair| pair[1] > pair[0]));
    Some(brighter.fold(0, |bits, bit| bits << 1 | u64::from(bit)))
}
