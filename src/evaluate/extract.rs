//! Batches through an encoder into features: the one file of this room that knows batches and methods.

use super::{
    features::Features,
    mfcc_statistics::{self, Mfcc},
    raw_pixels::raw_pixels,
};
use rayon::prelude::*;

use crate::{
    Result,
    batch::{Batch, Content, ImageTexts, SequencedWindows},
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

/// The input itself: pixels, at most 32 on a side, or the window's numbers, at most 64 per channel.
///
/// # Errors
/// The device does not give them back.
pub fn raw(batch: &Batch) -> Result<Rows> {
    let pixels = match &batch.content {
        Content::Views(pixels) | Content::ImageTexts(ImageTexts { pixels, .. }) => pixels,
        Content::Windows(windows) => {
            let (values, [_, channels, steps]) = numbers(windows)?;
            let values = super::raw_series::raw_series(&values, channels, steps);
            return Ok(Rows { values, width: super::raw_series::width(channels, steps) });
        }
    };
    let [_, views, channels, height, width] = pixels.dims();
    if views != 1 || height != width {
        return Err(Error::internal(format!("{views} views of {height} x {width} are no evaluation batch")));
    }
    let pixels = pixels.clone().into_data().convert::<u8>().try_into_vec::<u8>();
    let pixels = pixels.context(Stage::Evaluate, "pixels", "are not u8")?;
    Ok(Rows { values: raw_pixels(&pixels, channels, height), width: super::raw_pixels::width(channels, height) })
}

/// MFCC statistics of windows of audio with one channel.
///
/// # Errors
/// The batch holds something else, or the device does not give it back.
pub fn mfcc(mfcc: &Mfcc, batch: &Batch) -> Result<Rows> {
    let Content::Windows(windows) = &batch.content else {
        return Err(Error::internal("only series have MFCC statistics"));
    };
    let (values, [_, channels, steps]) = numbers(windows)?;
    if channels != 1 {
        return Err(Error::internal(format!("{channels} channels have no MFCC statistics")));
    }
    let rows: Vec<&[f32]> = values.chunks_exact(steps.max(1)).collect();
    let values = rows.par_iter().flat_map_iter(|row| mfcc.statistics([*row])).collect();
    Ok(Rows { values, width: mfcc_statistics::WIDTH })
}

/// Of windows of series, `[windows, channels, steps]`.
fn numbers(windows: &SequencedWindows) -> Result<(Vec<f32>, [usize; 3])> {
    let Windows::Series(series) = &windows.windows else {
        return Err(Error::internal("only series have numbers of their own as features"));
    };
    let values = series.clone().into_data().try_into_vec::<f32>();
    Ok((values.context(Stage::Evaluate, "windows", "are not f32")?, series.dims()))
}

/// What [`extract`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Extracted {
    /// In the order of the representations, with the labels of the first column.
    pub features: Vec<Features>,
    /// Those of the other columns.
    pub further_labels: Vec<Vec<String>>,
}

impl Extracted {
    /// The labels of one of the `columns` that were extracted, before any were exchanged; none of another.
    pub fn column(&self, columns: &[String], name: &str) -> Vec<String> {
        let all = self.features.first().map(|features| &features.labels).into_iter().chain(&self.further_labels);
        columns.iter().zip(all).find(|(column, _)| *column == name).map_or_else(Vec::new, |(_, labels)| labels.clone())
    }

    /// Exchanges the labels of the features for those of a further column.
    pub fn labelled(&mut self, further: usize) {
        for features in &mut self.features {
            features.labels.clone_from(&self.further_labels[further]);
        }
    }
}

/// Takes all batches through every representation: one decode serves all.
///
/// Windows of one series that follow one another are one sample: its features are the mean over them.
///
/// All of them are in memory together; where that is too much, call once for each. `query` names the pipeline's key
/// that selected the samples, such as `evaluate.bank_sql`, and `columns` are those of the labels: both are for messages.
///
/// # Errors
/// A batch fails, or a sample has no label.
pub fn extract(
    mut next_batch: impl FnMut() -> Result<Option<Batch>>,
    representations: &[Represent<'_>],
    query: &str,
    columns: &[String],
) -> Result<Extracted> {
    let empty = Features { values: vec![], width: 0, labels: vec![], sample_ids: vec![] };
    let mut all = vec![empty; representations.len()];
    let mut labels = vec![vec![]; columns.len()];
    while let Some(batch) = next_batch()? {
        let samples = samples(&batch);
        if batch.labels.len() != columns.len() {
            return Err(Error::internal(format!("batches have {} of {columns:?} as labels", batch.labels.len())));
        }
        for ((all, found), column) in labels.iter_mut().zip(&batch.labels).zip(columns) {
            for &[first, _] in &samples {
                all.push(label(found, first, &batch, query, column)?);
            }
        }
        for (features, represent) in all.iter_mut().zip(representations) {
            let rows = represent(&batch)?;
            features.width = rows.width;
            match samples.len() == batch.items() {
                true => features.values.extend(rows.values),
                false => features.values.extend(means(&rows, &samples)),
            }
            features.sample_ids.extend(samples.iter().map(|&[first, _]| batch.sample_ids[first]));
        }
    }
    let mut labels = labels.into_iter();
    let first = labels.next().ok_or_else(|| Error::internal("features without a column of labels"))?;
    all.iter_mut().for_each(|features| features.labels.clone_from(&first));
    Ok(Extracted { features: all, further_labels: labels.collect() })
}

/// First row and rows of each sample.
fn samples(batch: &Batch) -> Vec<[usize; 2]> {
    let mut samples: Vec<[usize; 2]> = vec![];
    for row in 0..batch.items() {
        let goes_on = matches!(batch.content, Content::Windows(_)) && row > 0 && batch.keys[row] == batch.keys[row - 1];
        match samples.last_mut().filter(|_| goes_on) {
            Some([_, rows]) => *rows += 1,
            None => samples.push([row, 1]),
        }
    }
    samples
}

fn means(of: &Rows, samples: &[[usize; 2]]) -> Vec<f32> {
    let mut means = Vec::with_capacity(samples.len() * of.width);
    for &[first, rows] in samples {
        for column in 0..of.width {
            let values = (first..first + rows).map(|row| f64::from(of.values[row * of.width + column]));
            means.push((values.sum::<f64>() / rows as f64) as f32);
        }
    }
    means
}

fn label(found: &[Option<String>], row: usize, batch: &Batch, query: &str, column: &str) -> Result<String> {
    found[row].clone().ok_or_else(|| {
        let id = batch.sample_ids[row];
        let reason = format!("sample {id} has no {column}; add `{column} IS NOT NULL` to the WHERE of this query");
        Error::at(Stage::Evaluate, query, reason)
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor, TensorCreationOptions, TensorData};

    use super::*;
    use crate::seed::ItemKey;

    fn columns(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn batch(first_id: u64, labels: Option<Vec<Option<&str>>>) -> Batch {
        let pixels: Vec<u8> = (0..2 * 3 * 4).map(|at| at as u8 * 10).collect();
        let options = TensorCreationOptions::new(Device::flex()).with_dtype(DType::U8);
        Batch {
            content: Content::Views(Tensor::from_data(TensorData::new(pixels, [2, 1, 3, 2, 2]), options)),
            labels: labels
                .into_iter()
                .map(|labels| labels.into_iter().map(|label| label.map(str::to_owned)).collect())
                .collect(),
            keys: (0..2).map(|at| ItemKey { shard: 1, row: first_id + at, occurrence: 0 }).collect(),
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
        let all = extract(source(batches), &[first, &raw], "evaluate.bank_sql", &columns(&["label"])).unwrap().features;
        assert_eq!(all[0].values, [4.0, 5.0, 9.0, 10.0]);
        assert_eq!(all[0].labels, ["a", "b", "b", "c"]);
        assert_eq!(all[1].sample_ids, [4, 5, 9, 10]);
        assert_eq!((all[1].width, all[1].values.len()), (12, 48));
        assert!((all[1].values[13] - 130.0 / 255.0).abs() < 1e-6);
    }

    #[test]
    fn windows_of_one_series_are_one_sample_and_further_labels_come_along() {
        let values: Vec<f32> = (0..8).map(|at| at as f32).collect();
        let windows = Tensor::<3>::from_data(TensorData::new(values, [4, 1, 2]), &Device::flex());
        let rows = [5, 5, 6, 7];
        let texts = |texts: [&str; 4]| texts.map(|text| Some(text.to_owned())).to_vec();
        let batch = Batch {
            content: Content::Windows(SequencedWindows::apart(windows)),
            labels: vec![texts(["a", "a", "b", "a"]), texts(["x", "x", "y", "y"])],
            keys: rows.map(|row| ItemKey { shard: 1, row, occurrence: 0 }).to_vec(),
            sample_ids: rows.to_vec(),
            positions: rows.to_vec(),
            ..batch(0, None)
        };
        let found = extract(source(vec![batch]), &[&raw], "evaluate.bank_sql", &columns(&["label", "group"])).unwrap();
        assert_eq!(found.features[0].values, [1.0, 2.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(found.features[0].sample_ids, [5, 6, 7]);
        assert_eq!(found.features[0].labels, ["a", "b", "a"]);
        assert_eq!(found.further_labels, [["x", "y", "y"]]);
        let names = columns(&["label", "group"]);
        assert_eq!(found.column(&names, "label"), ["a", "b", "a"]);
        assert_eq!(found.column(&names, "group"), ["x", "y", "y"]);
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
        let text =
            extract(source(batches), &[&raw], "evaluate.bank_sql", &columns(&["species"])).unwrap_err().to_string();
        assert!(text.contains("evaluate.bank_sql") && text.contains("sample 5 has no species"), "{text}");
        assert!(text.contains("`species IS NOT NULL`"), "{text}");
    }

    #[test]
    fn batches_made_without_labels_are_our_mistake() {
        let error =
            extract(source(vec![batch(4, None)]), &[&raw], "evaluate.query_sql", &columns(&["label"])).unwrap_err();
        assert!(matches!(error, Error::Stage { stage: Stage::Internal, .. }), "{error}");
    }
}
