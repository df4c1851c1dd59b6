//! One pass over samples: the features of every encoder, and the pixels themselves.
use burn::tensor::Device;

use super::{data::Data, progress::Progress};
use crate::{
    batch::Batch,
    error::{Error, Result, Stage},
    evaluate::{features::Features, raw_pixels},
    method::Method,
    pipeline::Plan,
    scan::epoch::EpochPlan,
};

/// What one pass gives.
#[derive(Debug)]
pub struct Extracted {
    /// One per method, in their order.
    pub features: Vec<Features>,
    /// Pixels as features.
    pub pixels: Features,
}

/// Takes the features of `methods` in front of their heads, in evaluation mode, for every labelled sample of an epoch.
///
/// # Errors
/// The data's; a sample without a label.
pub fn extract<M: Method>(
    name: &'static str,
    plan: &Plan,
    data: &Data,
    epochs: &EpochPlan,
    label: &str,
    methods: &[&M],
    device: &Device,
) -> Result<Extracted> {
    let side = plan.side_pixels as usize;
    let empty = |width| Features { values: vec![], width, labels: vec![], sample_ids: vec![] };
    let mut features: Vec<Features> = methods.iter().map(|method| empty(method.feature_width())).collect();
    let mut pixels = empty(raw_pixels::width(3, side));
    let mut bar = Progress::new(name, epochs.items(), "images");
    let mut queue = data.queue(plan, epochs, 0, 0)?;
    while let Some(batch) = queue.next_batch()? {
        let batch = Batch::from_record_batch(&batch, device, &data.shards.shards)?;
        for (method, features) in methods.iter().zip(&mut features) {
            let values = method.features(batch.view(0)).into_data(); // [items, width]
            features.values.extend(values.try_into_vec::<f32>().map_err(unreadable)?);
        }
        let values = batch.pixels.clone().into_data().try_into_vec::<u8>().map_err(unreadable)?;
        pixels.values.extend(raw_pixels::raw_pixels(&values, 3, side));
        pixels.labels.extend(labels(&batch, label)?);
        pixels.sample_ids.extend(&batch.sample_ids);
        bar.at(pixels.sample_ids.len() as u64, "");
    }
    bar.finish();
    for features in &mut features {
        features.labels.clone_from(&pixels.labels);
        features.sample_ids.clone_from(&pixels.sample_ids);
    }
    Ok(Extracted { features, pixels })
}

fn labels(batch: &Batch, column: &str) -> Result<Vec<String>> {
    let labels = batch.labels.as_ref().ok_or_else(|| Error::internal("an evaluation batch carries no labels"))?;
    let label = |(label, id): (&Option<String>, &u64)| {
        label.clone().ok_or_else(|| {
            let reason = format!("has no {column}; leave it out, as with WHERE {column} IS NOT NULL");
            Error::at(Stage::Evaluate, format!("sample {id}"), reason)
        })
    };
    labels.iter().zip(&batch.sample_ids).map(label).collect()
}

fn unreadable(error: impl std::fmt::Debug) -> Error {
    Error::internal(format!("a tensor cannot be read back: {error:?}"))
}
