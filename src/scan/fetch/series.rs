//! Lists of numbers as bytes: a row's numbers become one binary value over the memory they lie in.
//!
//! So everything behind the fetch (windows, gathering, substitutes, hashes) treats images and series alike, and no sample is
//! copied before it is cut into a batch. Numbers that are neither f32 nor i16, and lists with nulls inside, are copied
//! once, into f32 with NaN for null.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewBuilder, Float32Array, ListArray},
    buffer::Buffer,
    compute::cast,
    datatypes::{DataType, Float32Type, Int16Type},
};

use crate::{
    error::{Context, Result, Stage},
    pair::Numbers,
    schema::series_of,
    select::shards::Shard,
};

/// Whether a column's values are series.
pub(crate) fn is_series(stored: &DataType) -> bool {
    matches!(stored, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _))
}

/// What the bytes of a shard's blobs are once they are fetched.
pub fn numbers_of(shard: &Shard, column: &str) -> Numbers {
    let is_i16 = |item: &DataType| *item == DataType::Int16;
    match shard.columns.get(column).map(|place| &place.data_type) {
        Some(DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _))
            if is_i16(item.data_type()) =>
        {
            Numbers::I16
        }
        _ => Numbers::F32,
    }
}

/// The same rows as binary views over the numbers' memory.
pub(crate) fn as_blobs(column: &ArrayRef, place: &str) -> Result<ArrayRef> {
    let cannot = || format!("holds {}, which is no list of numbers", column.data_type());
    let item = match column.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item.data_type(),
        _ => &DataType::Null,
    };
    let kept = match item {
        DataType::Int16 => DataType::Int16,
        _ => DataType::Float32,
    };
    let lists = match column.data_type() {
        DataType::List(item) if *item.data_type() == kept => Arc::clone(column),
        // Nulls inside are dealt with below; a type without null would refuse them here.
        _ => {
            let nullable = match series_of(kept.clone()) {
                DataType::List(item) => DataType::List(Arc::new(item.as_ref().clone().with_nullable(true))),
                other => other,
            };
            cast(column, &nullable).context(Stage::Scan, place, cannot())?
        }
    };
    let lists: &ListArray = lists.as_list();
    let values = lists.values();
    let (bytes, width) = match kept {
        // i16 has no number for a missing value.
        DataType::Int16 if values.null_count() == 0 => {
            (bytes_of(values.as_primitive::<Int16Type>().values().inner(), values.len(), 2), 2)
        }
        DataType::Int16 => {
            let reason = "has nulls inside lists of i16; store lists with missing values as f32";
            return Err(crate::error::Error::at(Stage::Scan, place, reason));
        }
        _ => {
            let values = values.as_primitive::<Float32Type>();
            let whole: Float32Array = match values.null_count() {
                0 => values.clone(),
                _ => values.iter().map(|value| Some(value.unwrap_or(f32::NAN))).collect(),
            };
            (bytes_of(whole.values().inner(), whole.len(), 4), 4)
        }
    };
    let mut blobs = BinaryViewBuilder::with_capacity(lists.len());
    for row in 0..lists.len() {
        if lists.is_null(row) {
            blobs.append_null();
            continue;
        }
        let offsets = lists.value_offsets();
        let (start, end) = (offsets[row] as usize * width, offsets[row + 1] as usize * width);
        let length = u32::try_from(end - start).context(Stage::Scan, place, "has a series of 4 GiB; cut it")?;
        // A block for each row: offsets within a block have 32 bits.
        let block = blobs.append_block(bytes.slice_with_length(start, end - start));
        blobs.try_append_view(block, 0, length).context(Stage::Internal, place, "a series does not fit a view")?;
    }
    Ok(Arc::new(blobs.finish()))
}

/// A sliced array keeps its buffer whole; this is the part that its numbers are in.
fn bytes_of(buffer: &Buffer, numbers: usize, width: usize) -> Buffer {
    buffer.slice_with_length(0, numbers * width)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{BinaryViewArray, FixedSizeListArray, LargeListArray},
        datatypes::{Field, Float64Type, Int32Type},
    };

    use super::*;

    fn blobs(lists: impl Array + 'static) -> BinaryViewArray {
        as_blobs(&(Arc::new(lists) as ArrayRef), "a.parquet").unwrap().as_binary_view().clone()
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn numbers_are_seen_where_they_lie() {
        let long: Vec<Option<i16>> = (0..40).map(Some).collect();
        let lists = ListArray::from_iter_primitive::<Int16Type, _, _>([Some(long), None, Some(vec![Some(-2)])]);
        let first = lists.values().as_primitive::<Int16Type>().values().as_ptr().cast::<u8>();
        let blobs = blobs(lists);
        assert_eq!(blobs.value(0).as_ptr(), first);
        assert_eq!(blobs.value(0)[2..6], [1, 0, 2, 0]);
        assert!(blobs.is_null(1));
        assert_eq!(blobs.value(2), (-2_i16).to_le_bytes());
    }

    #[test]
    fn slices_and_other_kinds_of_lists_have_the_same_bytes() {
        let rows = |n: usize| (0..n).map(|row| Some(vec![Some(row as f32), Some(0.5), Some(-1.0)]));
        let lists = ListArray::from_iter_primitive::<Float32Type, _, _>(rows(5));
        let sliced = blobs(lists.slice(3, 2));
        assert_eq!(floats(sliced.value(0)), [3.0, 0.5, -1.0]);
        let large = LargeListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(3.0), Some(0.5)])]);
        assert_eq!(floats(blobs(large).value(0)), [3.0, 0.5]);
        let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(3), Some(-7)])], 2);
        assert_eq!(floats(blobs(fixed).value(0)), [3.0, -7.0]);
    }

    #[test]
    fn nulls_inside_become_nan_and_are_refused_where_there_is_none() {
        let lists = ListArray::from_iter_primitive::<Float32Type, _, _>([Some(vec![Some(1.0), None])]);
        let found = floats(blobs(lists).value(0));
        assert!(found[0] == 1.0 && found[1].is_nan());
        let whole = ListArray::from_iter_primitive::<Int16Type, _, _>([Some(vec![Some(1), None])]);
        let error = as_blobs(&(Arc::new(whole) as ArrayRef), "a.parquet").unwrap_err().to_string();
        assert!(error.contains("as f32"), "{error}");
        let texts = Arc::new(Field::new("item", DataType::Utf8, true));
        let empty: ArrayRef = Arc::new(ListArray::new_null(texts, 1));
        assert!(as_blobs(&empty, "a.parquet").is_ok(), "nulls alone are no numbers and no mistake");
    }
}
