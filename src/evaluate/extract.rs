//! Batches through an encoder into features: the one file of this room that knows batches and methods.

use super::{features::Features, raw_pixels::raw_pixels};
use crate::{
    Result,
    batch::{Batch, Content, SequencedWindows},
    error::{Context, Error, Stage},
    method::Method,
    model::Windows,
};

/// Features of the items of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Row-major: `[items, width]`.
    pub values: Vec<f32>,
    /// Numbers per item.
    pub width: usize,
}

/// One way to make features of a batch.
pub type Represent<'a> = &'a dyn Fn(&Batch) -> Result<Rows>;

/// Features in front of the head, in evaluation mode; waits for the device.
///
/// # Errors
/// The device does not give them back.
pub fn encoded<M: Method>(method: &M, batch: &Batch) -> Result<Rows> {
    let features = method.features(batch.content.input())?; // [items, width]
    let [_, width] = features.dims();
    let values = features.into_data().try_into_vec::<f32>();
    Ok(Rows { values: values.context(Stage::Evaluate, "features", "are not f32")?, width })
}

/// The input itself: pixels, at most 32 on a side, or the window's numbers.
///
/// # Errors
/// The device does not give them back.
pub fn raw(batch: &Batch) -> Result<Rows> {
    let pixels = match &batch.content {
        Content::Views(pixels) => pixels,
        Content::Windows(windows) => return raw_series(windows),
    };
    let [_, views, channels, height, width] = pixels.dims();
    if views != 1 || height != width {
        return Err(Error::internal(format!("{views} views of {height} x {width} are no evaluation batch")));
    }
    let pixels = pixels.clone().into_data().convert::<u8>().try_into_vec::<u8>();
    let pixels = pixels.context(Stage::Evaluate, "pixels", "are not u8")?;
    Ok(Rows { values: raw_pixels(&pixels, channels, height), width: super::raw_pixels::width(channels, height) })
}

fn raw_series(windows: &SequencedWindows) -> Result<Rows> {
    let Windows::Series(series) = &windows.windows else {
        return Err(Error::internal("only series have numbers of their own as features"));
    };
    let [_, channels, steps] = series.dims();
    let values = series.clone().into_data().try_into_vec::<f32>();
    Ok(Rows { values: values.context(Stage::Evaluate, "windows", "are not f32")?, width: channels * steps })
}

/// Takes all batches through every representation: one decode serves all. Gives features in the order of
/// `representations`.
///
/// All of them are in memory together; where that is too much, call once for each. `query` names the pipeline's key
/// that selected the samples, such as `evaluate.bank_sql`, and `label` the column of the labels: both are for messages.
///
/// # Errors
/// A batch fails, or a sample has no label.
pub fn extract(
    mut next_batch: impl FnMut() -> Result<Option<Batch>>,
    representations: &[Represent<'_>],
    query: &str,
    label: &str,
) -> Result<Vec<Features>> {
    let empty = Features { values: vec![], width: 0, labels: vec![], sample_ids: vec![] };
    let mut all = vec![empty; representations.len()];
    while let Some(batch) = next_batch()? {
        let labels = labels(&batch, query, label)?;
        for (features, represent) in all.iter_mut().zip(representations) {
            let rows = represent(&batch)?;
            features.width = rows.width;
            features.values.extend(rows.values);
            features.labels.extend_from_slice(&labels);
            features.sample_ids.extend_from_slice(&batch.sample_ids);
        }
    }
    Ok(all)
}

/// Every item's label.
fn labels(batch: &Batch, query: &str, label: &str) -> Result<Vec<String>> {
    let Some(labels) = &batch.labels else { return Err(Error::internal("batches were made without labels")) };
    let with_id = labels.iter().zip(&batch.sample_ids);
    with_id
        .map(|(found, id)| {
            found.clone().ok_or_else(|| {
                let reason =
                    format!("sample {id} has no {label}; add `{label} IS NOT NULL` to the WHERE of this query");
                Error::at(Stage::Evaluate, query, reason)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor, TensorCreationOptions, TensorData};

    use super::*;
    use crate::seed::ItemKey;

    fn batch(first_id: u64, labels: Option<Vec<Option<&str>>>) -> Batch {
        let pixels: Vec<u8> = (0..2 * 3 * 4).map(|at| at as u8 * 10).collect();
        let options = TensorCreationOptions::new(Device::flex()).with_dtype(DType::U8);
        Batch {
            content: Content::Views(Tensor::from_data(TensorData::new(pixels, [2, 1, 3, 2, 2]), options)),
            labels: labels.map(|labels| labels.into_iter().map(|label| label.map(str::to_owned)).collect()),
            keys: vec![ItemKey { shard: 1, row: first_id, occurrence: 0 }; 2],
            sample_ids: vec![first_id, first_id + 1],
            positions: vec![first_id, first_id + 1],
            digest: String::new(),
            replaced: 0,
        }
    }

    fn source(batches: Vec<Batch>) -> impl FnMut() -> Result<Option<Batch>> {
        let mut batches = batches.into_iter();
        move || Ok(batches.next())
    }

    #[test]
    fn every_representation_gets_all_batches_in_order() {
        let batches = vec![batch(4, Some(vec![Some("a"), Some("b")])), batch(9, Some(vec![Some("b"), Some("c")]))];
        let first: Represent<'_> =
            &|batch| Ok(Rows { values: batch.sample_ids.iter().map(|&id| id as f32).collect(), width: 1 });
        let all = extract(source(batches), &[first, &raw], "evaluate.bank_sql", "label").unwrap();
        assert_eq!(all[0].values, [4.0, 5.0, 9.0, 10.0]);
        assert_eq!(all[0].labels, ["a", "b", "b", "c"]);
        assert_eq!(all[1].sample_ids, [4, 5, 9, 10]);
        assert_eq!((all[1].width, all[1].values.len()), (12, 48));
        assert!((all[1].values[13] - 130.0 / 255.0).abs() < 1e-6);
    }

    #[test]
    fn raw_series_are_the_windows_numbers() {
        let values: Vec<f32> = (0..12).map(|at| at as f32).collect();
        let windows = Tensor::<3>::from_data(TensorData::new(values.clone(), [2, 2, 3]), &Device::flex());
        let content = Content::Windows(SequencedWindows::apart(windows));
        let rows = raw(&Batch { content, ..batch(4, None) }).unwrap();
        assert_eq!((rows.width, rows.values), (6, values));
    }

    #[test]
    fn a_sample_without_label_is_named_with_the_remedy() {
        let batches = vec![batch(4, Some(vec![Some("a"), None]))];
        let text = extract(source(batches), &[&raw], "evaluate.bank_sql", "species").unwrap_err().to_string();
        assert!(text.contains("evaluate.bank_sql") && text.contains("sample 5 has no species"), "{text}");
        assert!(text.contains("`species IS NOT NULL`"), "{text}");
    }

    #[test]
    fn batches_made_without_labels_are_our_mistake() {
        let error = extract(source(vec![batch(4, None)]), &[&raw], "evaluate.query_sql", "label").unwrap_err();
        assert!(matches!(error, Error::Stage { stage: Stage::Internal, .. }), "{error}");
    }
}
