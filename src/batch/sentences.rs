//! Windows of documents, from Arrow to the device.
use burn::tensor::{Device, Tensor, TensorData};
use datafusion::arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::UInt32Type,
};

use super::{
    column,
    input::SequencedWindows,
    series::{groups, ordinals},
};
use crate::{
    error::{Context as _, Error, Result, Stage},
    model::Windows,
    scan::{
        tensor_column::tensor_shape,
        window_columns::{SEQUENCE, TOKENS},
    },
};

/// Whether a batch of an epoch's plan holds windows of documents.
pub fn are_in(batch: &RecordBatch) -> bool {
    batch.column_by_name(TOKENS).is_some()
}

/// A batch of an epoch's plan on a device.
///
/// # Errors
/// It has no such columns, or of other types or shapes.
pub fn sentences(batch: &RecordBatch, device: &Device) -> Result<SequencedWindows> {
    let schema = batch.schema();
    let field = schema.field_with_name(TOKENS).context(Stage::Batch, TOKENS, "is missing")?;
    let list = column(batch, TOKENS, |c| c.as_fixed_size_list_opt())?;
    let length = list.value_length() as usize;
    let shape = tensor_shape(field)?;
    let &[sentences, tokens] = shape.as_slice() else {
        return Err(Error::at(Stage::Batch, TOKENS, format!("{shape:?} is not [sentences, tokens]")));
    };
    if sentences * tokens != length {
        let reason = format!("{sentences} sentences of {tokens} tokens are not the {length} numbers of a row");
        return Err(Error::at(Stage::Batch, TOKENS, reason));
    }
    let ids = list.values().as_primitive_opt::<UInt32Type>();
    let ids = ids.ok_or_else(|| Error::at(Stage::Batch, TOKENS, "holds no u32"))?;
    let (first, rows) = (list.value_offset(0) as usize, batch.num_rows());
    // Burn's whole numbers are signed.
    let ids: Vec<i64> = ids.values()[first..first + rows * length].iter().map(|id| i64::from(*id)).collect();
    let windows = Windows::Sentences(Tensor::from_data(TensorData::new(ids, [rows, sentences, tokens]), device));
    Ok(SequencedWindows { windows, sequences: ordinals(batch, SEQUENCE)?, groups: groups(batch)? })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::{
        array::{ArrayRef, FixedSizeListArray, UInt32Array},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;
    use crate::scan::tensor_column::{Element, tensor_field};

    fn record_batch(shape: &[usize]) -> RecordBatch {
        let ids = UInt32Array::from_iter_values([5, 6, 0, 7, 0, 0, 8, 9, 49_408, 1, 2, 3]);
        let windows = FixedSizeListArray::try_new(Element::U32.field(), 6, Arc::new(ids), None).expect("fits");
        let field = tensor_field(TOKENS, shape, Element::U32).expect("small");
        let columns: Vec<ArrayRef> = vec![Arc::new(windows), Arc::new(UInt32Array::from(vec![0, 1]))];
        let fields = vec![field, Field::new(SEQUENCE, DataType::UInt32, false)];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns fit")
    }

    #[test]
    fn ids_come_as_they_are_also_from_a_slice() {
        let batch = record_batch(&[2, 3]);
        assert!(are_in(&batch));
        let found = sentences(&batch.slice(1, 1), &Device::flex()).expect("windows");
        let Windows::Sentences(tokens) = found.windows else { panic!("no sentences") };
        assert_eq!(tokens.dims(), [1, 2, 3]);
        let ids = tokens.into_data().convert::<i64>().try_into_vec::<i64>().expect("whole numbers");
        assert_eq!((ids, found.sequences, found.groups), (vec![8, 9, 49_408, 1, 2, 3], vec![1], None));
    }

    #[test]
    fn other_shapes_are_refused() {
        for shape in [&[1, 2, 3][..], &[6]] {
            let error = sentences(&record_batch(shape), &Device::flex()).expect_err("no window").to_string();
            assert!(error.contains(TOKENS), "{error}");
        }
    }
}
