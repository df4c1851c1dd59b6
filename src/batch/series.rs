//! Windows of series, from Arrow to vectors of the host.
use datafusion::arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{Float32Type, UInt32Type},
};

use super::column;
use crate::{
    error::{Context as _, Error, Result, Stage},
    scan::{
        tensor_column::tensor_shape,
        window_columns::{GROUP, SEQUENCE, WINDOWS},
    },
};

/// One batch of windows, one row each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesBatch {
    /// Row-major: `[rows, channels, steps]`.
    pub windows: Vec<f32>,
    /// Windows.
    pub rows: usize,
    /// Channels of each.
    pub channels: usize,
    /// Steps of each.
    pub steps: usize,
    /// Each row's series, numbered within the batch: equal for windows of one series.
    pub sequences: Vec<u32>,
    /// Each row's group, numbered within the batch, where the pairing knows groups.
    pub groups: Option<Vec<u32>>,
}

impl SeriesBatch {
    /// Whether a batch of an epoch's plan holds windows.
    pub fn is_in(batch: &RecordBatch) -> bool {
        batch.column_by_name(WINDOWS).is_some()
    }

    /// Reads a batch of an epoch's plan.
    ///
    /// # Errors
    /// It has no such columns, or of other types or shapes.
    pub fn from_record_batch(batch: &RecordBatch) -> Result<Self> {
        let schema = batch.schema();
        let field = schema.field_with_name(WINDOWS).context(Stage::Batch, WINDOWS, "is missing")?;
        let list = column(batch, WINDOWS, |c| c.as_fixed_size_list_opt())?;
        let length = list.value_length() as usize;
        let shape = tensor_shape(field)?;
        let &[channels, steps] = shape.as_slice() else {
            return Err(Error::at(Stage::Batch, WINDOWS, format!("{shape:?} is not [channels, steps]")));
        };
        if channels * steps != length {
            let reason = format!("{channels} channels of {steps} steps are not the {length} numbers of a row");
            return Err(Error::at(Stage::Batch, WINDOWS, reason));
        }
        let values = list.values().as_primitive_opt::<Float32Type>();
        let values = values.ok_or_else(|| Error::at(Stage::Batch, WINDOWS, "holds no f32"))?;
        let (first, rows) = (list.value_offset(0) as usize, batch.num_rows());
        Ok(Self {
            windows: values.values()[first..first + rows * length].to_vec(),
            rows,
            channels,
            steps,
            sequences: ordinals(batch, SEQUENCE)?,
            groups: groups(batch)?,
        })
    }
}

/// Each row's group, where the pairing knows groups.
pub(super) fn groups(batch: &RecordBatch) -> Result<Option<Vec<u32>>> {
    batch.column_by_name(GROUP).map(|_| ordinals(batch, GROUP)).transpose()
}

/// A column that numbers what rows belong to.
pub(super) fn ordinals(batch: &RecordBatch, name: &str) -> Result<Vec<u32>> {
    let found = column(batch, name, |c| c.as_primitive_opt::<UInt32Type>())?;
    match found.null_count() {
        0 => Ok(found.values().to_vec()),
        nulls => Err(Error::at(Stage::Batch, name, format!("has {nulls} nulls"))),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use datafusion::arrow::{
        array::{ArrayRef, FixedSizeListArray, Float32Array, UInt32Array},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    /// Three windows of two channels and two steps.
    fn record_batch(shape: &str, groups: Option<Vec<u32>>) -> RecordBatch {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values = Float32Array::from_iter_values((0..12).map(|i| i as f32));
        let windows = FixedSizeListArray::try_new(Arc::clone(&item), 4, Arc::new(values), None).expect("fits");
        let metadata = HashMap::from([
            ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned()),
            ("ARROW:extension:metadata".to_owned(), format!("{{\"shape\":{shape}}}")),
        ]);
        let list = Field::new(WINDOWS, DataType::FixedSizeList(item, 4), false).with_metadata(metadata);
        let ordinal = |name: &str| Field::new(name, DataType::UInt32, false);
        let mut fields = vec![list, ordinal(SEQUENCE)];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(windows), Arc::new(UInt32Array::from(vec![0, 1, 0]))];
        if let Some(groups) = groups {
            fields.push(ordinal(GROUP));
            columns.push(Arc::new(UInt32Array::from(groups)));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns fit")
    }

    #[test]
    fn windows_come_with_their_sequences_and_groups_also_from_a_slice() {
        let batch = record_batch("[2,2]", Some(vec![5, 6, 5]));
        let all = SeriesBatch::from_record_batch(&batch).expect("windows");
        assert_eq!((all.rows, all.channels, all.steps, all.sequences.as_slice()), (3, 2, 2, &[0, 1, 0][..]));
        let part = SeriesBatch::from_record_batch(&batch.slice(1, 2)).expect("windows");
        assert_eq!(part.windows, (4..12).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!((part.sequences, part.groups), (vec![1, 0], Some(vec![6, 5])));
        assert!(SeriesBatch::from_record_batch(&record_batch("[4,1]", None)).expect("windows").groups.is_none());
    }

    #[test]
    fn other_shapes_are_refused() {
        for shape in ["[4]", "[3,2]", "[1,2,2]"] {
            let error = SeriesBatch::from_record_batch(&record_batch(shape, None)).expect_err("no window").to_string();
            assert!(error.contains(WINDOWS), "{error}");
        }
    }
}
