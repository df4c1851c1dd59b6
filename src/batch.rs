//! Arrow tensors into device tensors: the one file that knows both halves.
//!
//! Pixels travel as u8 and become floats on the device; windows of series travel as f32, texts and documents as ids. On the way to the device the buffer that the decode threads
//! filled is lent to Burn, not copied: the memory, and its charge against the budget, end with the last tensor.

pub mod captions;
pub mod input;
pub mod sentences;
pub mod series;

use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes, DType, Device, Int, Tensor, TensorCreationOptions, TensorData};
use datafusion::arrow::{
    array::{Array, AsArray, RecordBatch},
    buffer::Buffer,
    compute::cast,
    datatypes::{DataType, UInt8Type, UInt32Type, UInt64Type},
};

pub use self::{
    captions::{ImageTexts, PairCaptions},
    input::{Content, Input, Pairs, SequencedWindows},
    series::SeriesBatch,
};
use crate::{
    augment::exec::KERNEL_KEY,
    error::{Context, Error, Result, Stage},
    scan::{items::EXTRA_KEY, tensor_column::tensor_shape},
    seed::ItemKey,
    select::{extra::hash_values, shards::Shard},
};

/// One batch on a device.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Views of images, images with texts, or windows.
    pub content: Content,
    /// The columns that were asked for as labels, in that order.
    pub labels: Vec<Vec<Option<String>>>,
    /// Item keys, in the order of the epoch.
    pub keys: Vec<ItemKey>,
    /// As SQL names the samples.
    pub sample_ids: Vec<u64>,
    /// Index of each item in its epoch.
    pub positions: Vec<u64>,
    /// Hex BLAKE3 over the kernel's description, item keys and replaced flags, and over pixel digests where the plan
    /// carries them.
    pub digest: String,
    /// Items that stand in for bad ones.
    pub replaced: usize,
}

/// What the digest covers of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestedItem {
    /// Index in the epoch: items of several ranks combine in its order.
    pub position: u64,
    /// Which item.
    pub key: ItemKey,
    /// Whether it stands in for a bad one.
    pub replaced: bool,
    /// BLAKE3 of its pixels, where asked for.
    pub pixels: Option<[u8; 32]>,
    /// BLAKE3 of the values that the selection brings, where it brings any.
    pub extra: Option<[u8; 32]>,
}

/// Digest of a batch: of one rank's items, or of all ranks' in the order of the epoch.
pub fn batch_digest(kernel: &str, items: &[DigestedItem]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(kernel.len() as u64).to_le_bytes());
    hasher.update(kernel.as_bytes());
    for item in items {
        hasher.update(&item.key.shard.to_le_bytes());
        hasher.update(&item.key.row.to_le_bytes());
        hasher.update(&item.key.occurrence.to_le_bytes());
        hasher.update(&[u8::from(item.replaced), u8::from(item.pixels.is_some())]);
        hasher.update(&item.pixels.unwrap_or_default());
        item.extra.map(|extra| hasher.update(&extra));
    }
    hasher.finalize().to_hex().to_string()
}

/// What the digest covers, read from a batch of an epoch's plan.
///
/// # Errors
/// The batch does not come from `AugmentExec` over these shards.
pub fn digested_items(batch: &RecordBatch, shards: &[Arc<Shard>]) -> Result<Vec<DigestedItem>> {
    let shard_ordinals = column(batch, "shard", |c| c.as_primitive_opt::<UInt32Type>())?;
    let rows = column(batch, "row", |c| c.as_primitive_opt::<UInt64Type>())?;
    let occurrences = column(batch, "occurrence", |c| c.as_primitive_opt::<UInt32Type>())?;
    let positions = column(batch, "position", |c| c.as_primitive_opt::<UInt64Type>())?;
    let replaced = column(batch, "replaced", |c| c.as_boolean_opt())?;
    let digests = batch.column_by_name("pixel_digest").and_then(|c| c.as_fixed_size_binary_opt());
    let extra = extra_digests(batch);
    (0..batch.num_rows())
        .map(|row| {
            let ordinal = shard_ordinals.value(row);
            let shard = shards.get(ordinal as usize).ok_or_else(|| {
                Error::internal(format!("a batch names shard {ordinal}, of which there are {}", shards.len()))
            })?;
            Ok(DigestedItem {
                position: positions.value(row),
                key: shard.item_key(rows.value(row), occurrences.value(row)),
                replaced: replaced.value(row),
                pixels: digests.and_then(|digests| digests.value(row).try_into().ok()),
                extra: extra.as_ref().map(|extra| extra[row]),
            })
        })
        .collect()
}

/// Digest of each item's values in the columns that the selection brings.
fn extra_digests(batch: &RecordBatch) -> Option<Vec<[u8; 32]>> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    let mut extra: Vec<_> = fields.filter(|(field, _)| field.metadata().contains_key(EXTRA_KEY)).collect();
    if extra.is_empty() {
        return None;
    }
    // As in the selection's digest, the order in which a query names its columns does not matter.
    extra.sort_unstable_by_key(|(field, _)| field.name());
    let mut hashers = vec![blake3::Hasher::new(); batch.num_rows()];
    for (field, column) in extra {
        for hasher in &mut hashers {
            hasher.update(&(field.name().len() as u64).to_le_bytes());
            hasher.update(field.name().as_bytes());
        }
        hash_values(column, |row, value| {
            hashers[row].update(value);
        });
    }
    Some(hashers.iter().map(|hasher| *hasher.finalize().as_bytes()).collect())
}

fn column<'a, T>(batch: &'a RecordBatch, name: &str, read: impl Fn(&'a dyn Array) -> Option<&'a T>) -> Result<&'a T> {
    let found = batch.column_by_name(name).and_then(|column| read(column.as_ref()));
    found.ok_or_else(|| Error::at(Stage::Batch, name, "is no column of this batch, or of another type"))
}

impl Batch {
    /// Lends a batch of an epoch's plan to the device. `labels` name some of the plan's extra columns; training knows none.
    ///
    /// # Errors
    /// The batch does not come from `AugmentExec` over these shards, has no such labels, or its tensors are neither
    /// [views, 3, side, side] nor [channels, steps] nor [sentences, tokens].
    pub fn from_record_batch(
        batch: &RecordBatch,
        device: &Device,
        shards: &[Arc<Shard>],
        labels: &[String],
    ) -> Result<Self> {
        let content = if SeriesBatch::is_in(batch) {
            Content::Windows(SequencedWindows::of(SeriesBatch::from_record_batch(batch)?, device)?)
        } else if sentences::are_in(batch) {
            Content::Windows(sentences::sentences(batch, device)?)
        } else if PairCaptions::are_in(batch) {
            let captions = PairCaptions::from_record_batch(batch)?;
            Content::ImageTexts(ImageTexts { pixels: views(batch, device)?, captions })
        } else {
            Content::Views(views(batch, device)?)
        };
        let items = digested_items(batch, shards)?;
        let schema = batch.schema();
        let kernel = schema.metadata().get(KERNEL_KEY).map_or("", String::as_str);
        let ordinals = column(batch, "shard", |c| c.as_primitive_opt::<UInt32Type>())?;
        Ok(Self {
            content,
            labels: labels.iter().map(|name| label_column(batch, name)).collect::<Result<_>>()?,
            keys: items.iter().map(|item| item.key).collect(),
            sample_ids: ordinals
                .values()
                .iter()
                .zip(&items)
                .map(|(&o, item)| u64::from(o) << 40 | item.key.row)
                .collect(),
            positions: items.iter().map(|item| item.position).collect(),
            digest: batch_digest(kernel, &items),
            replaced: items.iter().filter(|item| item.replaced).count(),
        })
    }

    /// Items.
    pub fn items(&self) -> usize {
        self.keys.len()
    }

    /// u8 pixels of views of images, `[items, views, 3, side, side]`.
    ///
    /// # Errors
    /// The batch holds something else.
    pub fn pixels(&self) -> Result<&Tensor<5, Int>> {
        match &self.content {
            Content::Views(pixels) | Content::ImageTexts(ImageTexts { pixels, .. }) => Ok(pixels),
            other => Err(Error::at(Stage::Batch, "views", format!("this batch holds {}, no images", other.kind()))),
        }
    }
}

/// The column of views, lent to the device: `[items, views, 3, side, side]`.
fn views(batch: &RecordBatch, device: &Device) -> Result<Tensor<5, Int>> {
    let schema = batch.schema();
    let views = column(batch, "views", |c| c.as_fixed_size_list_opt())?;
    let field = schema.field_with_name("views").context(Stage::Batch, "views", "is missing")?;
    let shape = tensor_shape(field)?;
    if shape.len() != 4 || shape.iter().product::<usize>() != views.value_length() as usize {
        let reason = format!("{shape:?} is not [views, channels, height, width] of {} bytes", views.value_length());
        return Err(Error::at(Stage::Batch, "views", reason));
    }
    let values = views.values().as_primitive_opt::<UInt8Type>();
    let values = values.ok_or_else(|| Error::at(Stage::Batch, "views", "holds no u8"))?;
    let length = views.value_length() as usize;
    let first = views.value_offset(0) as usize;
    let pixels = values.values().inner().slice_with_length(first, batch.num_rows() * length);
    lend(pixels, [batch.num_rows(), shape[0], shape[1], shape[2], shape[3]], device)
}

/// The decode threads' buffer, as Burn wants to own it.
struct Lent(Buffer);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The buffer as a tensor's storage. The CPU backend keeps it as it is; others copy it to their device.
fn lend(pixels: Buffer, shape: [usize; 5], device: &Device) -> Result<Tensor<5, Int>> {
    let shared = Bytes::from_shared(bytes::Bytes::from_owner(Lent(pixels)), AllocationProperty::Native);
    let data = TensorData::try_from_bytes(shared, shape, DType::U8).context(
        Stage::Batch,
        "views",
        "its bytes do not fill its shape",
    )?;
    Ok(Tensor::from_data(data, TensorCreationOptions::new(device.clone()).with_dtype(DType::U8)))
}

fn label_column(batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>> {
    let column =
        batch.column_by_name(name).ok_or_else(|| Error::at(Stage::Batch, name, "is no column of this batch"))?;
    let texts = cast(column, &DataType::Utf8).context(Stage::Batch, name, "cannot be read as text")?;
    Ok(texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    #[test]
    fn the_order_of_extra_columns_is_not_digested_and_their_names_are() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let digests = |columns: &[(&str, &ArrayRef)]| {
            let field = |(name, column): &(&str, &ArrayRef)| {
                let metadata = [(EXTRA_KEY.to_owned(), String::new())].into();
                Field::new(*name, column.data_type().clone(), true).with_metadata(metadata)
            };
            let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
            let columns = columns.iter().map(|(_, column)| Arc::clone(column)).collect();
            extra_digests(&RecordBatch::try_new(Arc::new(schema), columns).unwrap()).unwrap()
        };
        let one = digests(&[("x", &numbers), ("y", &texts)]);
        assert_eq!(digests(&[("y", &texts), ("x", &numbers)]), one);
        assert_ne!(digests(&[("y", &numbers), ("x", &texts)]), one);
        assert_ne!(one[0], one[1]);
    }
}
