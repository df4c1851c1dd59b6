//! The finished batch: tensors without a copy, narrow columns gathered, rows numbered where they are windows.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use datafusion::arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, FixedSizeListArray, Float32Array, RecordBatch,
        UInt8Array, UInt32Array, UInt64Array,
    },
    buffer::{Buffer, ScalarBuffer},
    compute::{cast, interleave, take},
    datatypes::{DataType, UInt32Type, UInt64Type},
};

use super::{
    captions,
    slots::{Filled, Replacement, Worker},
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    scan::{
        fetch::FIRST_EXTRA,
        ordered_scan::{FETCHED, OCCURRENCE, PASS, POSITION, ROW, SHARD},
        tensor_column::Element,
    },
};

const BROKEN: &str = "cannot build a batch";

/// Only narrow columns are gathered anew, and only where a row was bad or one item is several rows.
pub(super) fn assemble(
    worker: &Worker,
    batch: &RecordBatch,
    kept: &[usize],
    replacements: &[Replacement],
    pixels: Buffer,
    filled: &[Filled],
) -> Result<RecordBatch> {
    let kernel = &worker.augment.kernel;
    let rows_per_item = kernel.rows_per_item();
    let items = kept.len();
    let mut sources: Vec<(usize, usize)> = kept.iter().map(|&row| (0, row)).collect();
    let mut replaced = vec![false; items];
    for (source, replacement) in (1..).zip(replacements) {
        sources[replacement.slot] = (source, 0);
        replaced[replacement.slot] = true;
    }
    let rows = items * rows_per_item;
    let is_whole = items == batch.num_rows() && replacements.is_empty();
    let sources: Vec<(usize, usize)> = repeated(sources, rows_per_item);
    let narrow = |column: usize, of: &dyn Fn(&Replacement) -> ArrayRef| -> Result<ArrayRef> {
        if is_whole && rows_per_item == 1 {
            return Ok(Arc::clone(batch.column(column)));
        }
        let arrays: Vec<ArrayRef> =
            std::iter::once(Arc::clone(batch.column(column))).chain(replacements.iter().map(of)).collect();
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        interleave(&arrays, &sources).context(Stage::Augment, "", BROKEN)
    };
    let shards = narrow(SHARD, &|r| Arc::new(UInt32Array::from(vec![r.item.shard])))?;
    let rows_of_shards = narrow(ROW, &|r| Arc::new(UInt64Array::from(vec![r.item.row])))?;
    let mut columns: Vec<ArrayRef> = vec![
        Arc::clone(&shards),
        Arc::clone(&rows_of_shards),
        narrow(OCCURRENCE, &|r| Arc::new(UInt32Array::from(vec![r.item.occurrence])))?,
    ];
    let rows_kept = UInt32Array::from(repeated(kept.iter().map(|&row| row as u32), rows_per_item));
    columns.push(take(batch.column(POSITION), &rows_kept, None).context(Stage::Augment, "", BROKEN)?);
    columns.push(narrow(PASS, &|r| Arc::new(UInt64Array::from(vec![r.pass])))?);
    columns.push(Arc::new(BooleanArray::from(repeated(replaced, rows_per_item))));
    let numbers = kernel.shape().iter().product::<usize>() as i32;
    let values: ArrayRef = match kernel.element() {
        Element::U8 => Arc::new(UInt8Array::new(ScalarBuffer::from(pixels), None)),
        Element::U32 => Arc::new(UInt32Array::new(ScalarBuffer::from(aligned(pixels)), None)),
        Element::F32 => Arc::new(Float32Array::new(ScalarBuffer::from(aligned(pixels)), None)),
    };
    let tensors = FixedSizeListArray::try_new(kernel.element().field(), numbers, values, None);
    columns.push(Arc::new(tensors.context(Stage::Augment, "", BROKEN)?));
    if kernel.makes_windows() {
        let ordinals = shards.as_primitive::<UInt32Type>().values().iter().copied();
        let places = ordinals.zip(rows_of_shards.as_primitive::<UInt64Type>().values().iter().copied());
        columns.push(Arc::new(numbered(places)));
    }
    let extra = |column: usize| narrow(column, &|r| Arc::clone(r.fetched.column(column - FETCHED)));
    if let Some(name) = kernel.group_column() {
        let column = batch.schema().index_of(name).context(Stage::Augment, name, "is not scanned")?;
        columns.push(Arc::new(groups(&extra(column)?, rows_per_item)?));
    }
    if kernel.captions().is_some() {
        columns.extend(captions::columns(filled.iter().map(|filled| &filled.caption))?);
    }
    if worker.augment.pixel_digest {
        let mut builder = FixedSizeBinaryBuilder::with_capacity(rows, 32);
        for filled in repeated(filled.iter(), rows_per_item) {
            builder.append_value(filled.digest).context(Stage::Augment, "", BROKEN)?;
        }
        columns.push(Arc::new(builder.finish()));
    }
    for column in FETCHED + FIRST_EXTRA..batch.num_columns() {
        columns.push(extra(column)?);
    }
    RecordBatch::try_new(Arc::clone(&worker.schema), columns).context(Stage::Augment, "", BROKEN)
}

/// Each item once for every row that came of it.
fn repeated<T: Clone>(items: impl IntoIterator<Item = T>, times: usize) -> Vec<T> {
    items.into_iter().flat_map(|item| std::iter::repeat_n(item, times)).collect()
}

/// A number for each value: 0 for the first, 1 for the next that differs from it, ….
fn numbered<T: Hash + Eq>(values: impl IntoIterator<Item = T>) -> UInt32Array {
    let mut known = HashMap::new();
    let number = |value: T| {
        let next = known.len() as u32;
        *known.entry(value).or_insert(next)
    };
    values.into_iter().map(number).collect::<Vec<u32>>().into()
}

/// Numbers for groups; a sample without a group is one by itself.
fn groups(values: &ArrayRef, rows_per_item: usize) -> Result<UInt32Array> {
    let texts = cast(values, &DataType::Utf8).context(Stage::Augment, "", "the groups cannot be read as text")?;
    let texts = texts.as_string_opt::<i32>().ok_or_else(|| Error::internal("a cast gave another type"))?;
    let named = texts.iter().enumerate().map(|(row, text)| match text {
        Some(text) => (Some(text), 0),
        None => (None, row / rows_per_item),
    });
    Ok(numbered(named))
}

/// Memory that numbers of 32 bits may be read from in place. Allocators align blocks of such sizes far more strictly, so that the copy is
/// for one that does not.
fn aligned(pixels: Buffer) -> Buffer {
    match pixels.as_ptr().align_offset(align_of::<f32>()) {
        0 => pixels,
        _ => Buffer::from_slice_ref(pixels.as_slice()),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::StringArray;

    use super::*;

    #[test]
    fn groups_are_dense_and_nameless_samples_stand_alone() {
        let texts = [Some("b"), Some("b"), None, None, Some("a"), Some("a"), None, None, Some("b"), Some("b")];
        let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        assert_eq!(groups(&texts, 2).unwrap().values(), &[0, 0, 1, 1, 2, 2, 3, 3, 0, 0]);
        assert_eq!(repeated(vec![3, 5], 2), [3, 3, 5, 5]);
    }

    #[test]
    fn memory_that_is_not_aligned_is_copied_and_aligned_memory_is_not() {
        let whole = Buffer::from_slice_ref([7_u8; 16]);
        let moved = whole.slice_with_length(1, 8);
        assert_eq!(aligned(whole.clone()).as_ptr(), whole.as_ptr());
        assert_eq!(aligned(moved.clone()).as_slice(), moved.as_slice());
        assert_eq!(aligned(moved).as_ptr().align_offset(4), 0);
    }
}
