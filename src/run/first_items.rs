//! The first items of a training's first epoch, for pictures of what it sees.
use datafusion::arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::{Float32Type, UInt8Type, UInt32Type},
};

use super::data::Data;
use crate::{
    batch::PairCaptions,
    error::{Error, Result},
    pipeline::Plan,
    scan::epoch::EpochPlan,
    tokenize::clip,
};

/// The views of the first items of the first epoch, u8 `[items, views, 3, side, side]`, and how many items they are.
///
/// # Errors
/// The epoch's.
pub(super) fn first_views(data: &Data, plan: &Plan, epochs: &EpochPlan, items: usize) -> Result<(Vec<u8>, usize)> {
    let batch = first_items(data, plan, epochs, items)?;
    Ok((pixels(&batch)?, batch.num_rows()))
}

/// The first images of the first epoch, u8 `[items, 1, 3, side, side]`, and their texts as the model reads them.
///
/// # Errors
/// The epoch's.
pub(super) fn first_captioned(
    data: &Data,
    plan: &Plan,
    epochs: &EpochPlan,
    items: usize,
) -> Result<(Vec<u8>, Vec<String>)> {
    let batch = first_items(data, plan, epochs, items)?;
    let captions = PairCaptions::from_record_batch(&batch)?;
    Ok((pixels(&batch)?, captions.tokens.iter().map(|ids| clip::text(ids)).collect()))
}

/// The windows of the first series of the first epoch, and their shape, `[series, windows, channels, steps]`.
///
/// # Errors
/// The epoch's.
pub(super) fn first_windows(
    data: &Data,
    plan: &Plan,
    epochs: &EpochPlan,
    series: usize,
) -> Result<(Vec<f32>, [usize; 4])> {
    let batch = first_items(data, plan, epochs, series)?;
    let kernel = &epochs.kernel;
    let items = batch.num_rows() / kernel.rows_per_item();
    let shape = match (kernel.makes_windows(), kernel.shape()) {
        (true, &[channels, steps]) => [items, kernel.rows_per_item(), channels, steps],
        (false, &[parts, channels, steps]) => [items, parts, channels, steps],
        (_, other) => return Err(Error::internal(format!("{other:?} are no windows"))),
    };
    let tensors = batch.columns().iter().find_map(|column| column.as_fixed_size_list_opt());
    match tensors.and_then(|tensors| tensors.values().as_primitive_opt::<Float32Type>()) {
        Some(values) => Ok((values.values().to_vec(), shape)),
        None => Err(Error::internal("a batch has no windows of f32")),
    }
}

/// The ids of the first documents of the first epoch, and their shape, `[documents, windows, sentences, tokens]`.
///
/// # Errors
/// The epoch's.
pub(super) fn first_documents(
    data: &Data,
    plan: &Plan,
    epochs: &EpochPlan,
    documents: usize,
) -> Result<(Vec<u32>, [usize; 4])> {
    let batch = first_items(data, plan, epochs, documents)?;
    let windows = epochs.kernel.rows_per_item();
    let &[sentences, tokens] = epochs.kernel.shape() else { return Err(Error::internal("documents of another shape")) };
    let tensors = batch.columns().iter().find_map(|column| column.as_fixed_size_list_opt());
    match tensors.and_then(|tensors| tensors.values().as_primitive_opt::<UInt32Type>()) {
        Some(ids) => Ok((ids.values().to_vec(), [batch.num_rows() / windows, windows, sentences, tokens])),
        None => Err(Error::internal("a batch has no windows of u32")),
    }
}

/// A batch of the first items of the first epoch.
fn first_items(data: &Data, plan: &Plan, epochs: &EpochPlan, items: usize) -> Result<RecordBatch> {
    let items = items.clamp(1, usize::try_from(epochs.items()).unwrap_or(usize::MAX).max(1));
    let few = EpochPlan { batch_rows: items, quarantine: None, pixel_digest: false, ..epochs.clone() };
    let batch = data.queue(plan, &few, 0, 0)?.next_batch()?;
    batch.ok_or_else(|| Error::internal("an epoch with items has no batch"))
}

fn pixels(batch: &RecordBatch) -> Result<Vec<u8>> {
    let views = batch.column_by_name("views").and_then(|column| column.as_fixed_size_list_opt());
    let values = views.and_then(|views| views.values().as_primitive_opt::<UInt8Type>());
    match values {
        Some(values) => Ok(values.values().to_vec()),
        None => Err(Error::internal("a batch has no views of u8")),
    }
}
